"""Builds by torch: the same promises as by OpenCV, and the same pixels. On the CPU, where both can be compared."""

import json
import os
import shutil
import signal
import zlib
from importlib.metadata import version

import cv2
import numpy as np
import pytest
import torch

from cache_store import layout, open_cache, writer
from preprocess import PixelsWouldDiffer, Recipe, engines, repair, status
from preprocess.builder import build
from preprocess.render import DECODERS
from preprocess.rendering import IN_WORDS, OPENCV, TORCH
from tests import decoders
from tests.helpers import TINY, image_folder, picture, write_image
from tests.integration.checks import (
    assert_as_rendered,
    assert_sound,
    contents,
    failures,
    labels,
    paths,
    stop_at,
)
from tests.integration.processes import slow_build, stop_and_wait, wait_until
from tests.jpegs import NVJPEGS, OPENCVS
from tests.unit.cache_store.stores import flip_bit

VARIANTS = 2
ONE_OF = {"OneOf": {"transforms": [{"ColorJitter": {"p": 1}}, {"GaussianBlur": {"p": 1}}, {"Equalize": {}}], "p": 0.9}}
RECIPE = {
    "size": 24,
    "dtype": "uint8",
    "normalize": "imagenet",
    "splits": {
        "train": {
            "folder": ".",
            "variants": VARIANTS,
            "transforms": [
                {"RandomResizedCrop": {"size": [24, 24], "scale": [0.3, 1.0]}},
                {"HorizontalFlip": {"p": 0.5}},
                ONE_OF,
                {"Rotate": {"limit": 30, "p": 0.5}},
                {"CoarseDropout": {"p": 0.5}},
            ],
        }
    },
}
SHARDS_OF_FOUR = 4 * 3 * 24 * 24 / 2**20


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photos of many sizes, and a cache of them from each engine."""
    root = tmp_path_factory.mktemp("engines")
    image_folder(root / "photos", count=3)
    for number, hw in enumerate([(90, 60), (30, 120), (1, 1), (200, 150), (7, 5)]):
        write_image(root / "photos" / "dog" / f"{number}.jpg", 50 + number, *hw)
    for device in ("cpu", "torch-cpu"):
        report = build(root / "photos", root / device, RECIPE, workers=1, device=device, shard_mib=SHARDS_OF_FOUR)
        assert report.rendered == 11 * VARIANTS
    return root


@pytest.fixture
def place(made, tmp_path):
    """A folder of its own: photos, and torch's cache."""
    shutil.copytree(made / "photos", tmp_path / "photos")
    shutil.copytree(made / "torch-cpu", tmp_path / "cache")
    return tmp_path


def images(cache):
    """path -> uint8 (K, C, H, W)."""
    with open_cache(cache) as opened:
        table = opened.split("train")
        return {
            os.fsdecode(path): np.stack([opened.image("train", i, k) for k in range(table.variants)])
            for i, path in enumerate(table.paths())
        }


def again(place, **options):
    return build(place / "photos", place / "cache", workers=1, **options)


def fresh(place, recipe=RECIPE):
    """What a build of the folder as it is now gives, by torch."""
    build(place / "photos", place / "fresh", recipe, workers=1, device="torch-cpu", shard_mib=SHARDS_OF_FOUR)
    return contents(place / "fresh")


def without_identity(found):
    """The contents of a cache, but for its tensors' name and bits."""
    splits = {
        name: table | {"tensors_id": "", "samples": [sample[:3] for sample in table["samples"]]}
        for name, table in found["splits"].items()
    }
    return found | {"splits": splits}


# Against the other engine


def test_both_engines_give_the_same_samples_and_pixels(made):
    assert without_identity(contents(made / "cpu")) == without_identity(contents(made / "torch-cpu"))
    assert labels(made / "torch-cpu") == [0] * 3 + [1] * 8
    expected, found = images(made / "cpu"), images(made / "torch-cpu")
    for path in expected:
        apart = np.abs(expected[path].astype(int) - found[path])
        assert apart.mean() <= 0.25, path
        assert (apart > 2).mean() <= 0.001, path
    assert len({image.tobytes() for image in found.values()}) == 11


def test_the_engine_is_on_record(made):
    for device, engine in (("cpu", OPENCV), ("torch-cpu", TORCH)):
        with open_cache(made / device) as opened:
            attributes = opened.tensors("train").attributes
            assert attributes["engine"] == attributes["rendering"]["engine"] == engine
            assert attributes["versions"].get("torch") == (version("torch") if engine == TORCH else None)
            assert "gpu" not in attributes["versions"]
            column = opened.split("train")["decoder"]
            assert column.shape == (11, VARIANTS)
            assert (column == DECODERS.index("opencv")).all()


def test_the_caches_never_share_tensors(made):
    names = [contents(made / device)["splits"]["train"]["tensors_id"] for device in ("cpu", "torch-cpu")]
    assert names[0] != names[1]


def test_all_is_as_the_recipe_renders_it_at_inference(made):
    assert_as_rendered(made / "torch-cpu", made / "photos")


ODD = {
    "corrupt.jpg": OPENCVS["cut"],
    "cmyk.jpg": OPENCVS["CMYK"],
    "progressive.jpg": OPENCVS["progressive"],
    "12-bit.jpg": OPENCVS["12 bits"],
    "huge.jpg": OPENCVS["huge"],
    "gray.jpg": NVJPEGS["gray"],
    "turned.jpg": NVJPEGS["turned"],
    "alpha.png": cv2.imencode(".png", cv2.cvtColor(picture(70), cv2.COLOR_BGR2BGRA))[1].tobytes(),
    "alpha.tiff": cv2.imencode(".tiff", cv2.cvtColor(picture(71), cv2.COLOR_BGR2BGRA))[1].tobytes(),
    "deep.png": OPENCVS["PNG of 16 bits"],
    "text.jpg": b"no image",
}


def test_odd_files_cost_only_themselves_and_are_told_in_the_same_words(made, tmp_path):
    shutil.copytree(made / "photos", tmp_path / "photos")
    for name, data in ODD.items():
        (tmp_path / "photos" / "cat" / name).write_bytes(data)
    reports = {
        device: build(tmp_path / "photos", tmp_path / device, RECIPE, workers=1, device=device)
        for device in ("cpu", "torch-cpu")
    }

    assert failures(tmp_path / "torch-cpu") == failures(tmp_path / "cpu")
    assert sorted(failures(tmp_path / "cpu")) == [f"cat/{n}.jpg" for n in ("12-bit", "corrupt", "huge", "text")]
    assert paths(tmp_path / "torch-cpu") == paths(tmp_path / "cpu")
    found, expected = images(tmp_path / "torch-cpu"), images(tmp_path / "cpu")
    for path, image in images(made / "torch-cpu").items():
        np.testing.assert_array_equal(found[path], image, path)
    for path in expected:
        assert np.abs(expected[path].astype(int) - found[path]).max() <= 2, path
    dropped = [[line for line in reports[device].departures if "images with" in line] for device in reports]
    assert dropped[0] == dropped[1]
    assert sorted(line.split(",")[0] for line in dropped[1]) == [
        f"images with {k}" for k in ("16-bit", "CMYK", "alpha")
    ]
    with open_cache(tmp_path / "torch-cpu") as opened, open_cache(tmp_path / "cpu") as other:
        sizes = opened.split("train")["source_hw"]
        np.testing.assert_array_equal(sizes, other.split("train")["source_hw"])
        assert sizes[paths(tmp_path / "cpu").index("cat/turned.jpg")].tolist() == [56, 40]
    assert_sound(tmp_path / "torch-cpu")


def test_a_split_that_torch_cannot_render_is_opencvs_alone(made, tmp_path):
    blurred = [{"Resize": {"height": 24, "width": 24}}, {"OneOf": {"transforms": [{"MedianBlur": {}}]}}]
    for split in ("train", "val"):
        shutil.copytree(made / "photos" / "cat", tmp_path / "photos" / split / "cat")
    recipe = RECIPE | {
        "splits": {
            "train": RECIPE["splits"]["train"] | {"folder": "train"},
            "val": {"folder": "val", "transforms": blurred},
        }
    }
    report = build(tmp_path / "photos", tmp_path / "cache", recipe, workers=1, device="torch-cpu")

    assert report.engines == {"train": TORCH, "val": OPENCV}
    assert [line for line in report.departures if "torch does not render MedianBlur" in line]
    with open_cache(tmp_path / "cache") as opened:
        assert {name: opened.tensors(name).attributes["engine"] for name in opened.splits} == report.engines
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")
    later = build(tmp_path / "photos", tmp_path / "cache", workers=1)
    assert later.up_to_date
    assert later.engines == report.engines


# The first law


def test_after_any_changes_a_build_renders_what_changed_and_gives_what_a_fresh_one_gives(place):
    cat, dog = place / "photos" / "cat", place / "photos" / "dog"
    write_image(cat / "000.png", 900, 50, 40)
    write_image(dog / "new.jpg", 901, 33, 66)
    (cat / "001.png").rename(cat / "renamed.png")
    (cat / "002.png").rename(dog / "moved.png")
    (dog / "2.jpg").unlink()
    report = again(place)

    assert report.engines == {"train": TORCH}
    assert report.rendered == 2 * VARIANTS
    assert contents(place / "cache") == fresh(place)
    assert_sound(place / "cache")
    assert again(place).up_to_date


def test_more_variants_render_only_those(place):
    grown = RECIPE | {"splits": {"train": RECIPE["splits"]["train"] | {"variants": 4}}}
    report = build(place / "photos", place / "cache", grown, workers=1)

    assert report.rendered == 2 * 11
    assert contents(place / "cache") == fresh(place, grown)


@pytest.fixture
def crowded(place):
    """The same with more photos than a batch takes."""
    for number in range(70):
        write_image(place / "photos" / "cat" / f"more{number}.png", 200 + number, 12, 9)
    return place


def test_an_interrupted_build_goes_on_where_it_was(crowded):
    place = crowded
    options = {"workers": 1, "device": "torch-cpu", "shard_mib": SHARDS_OF_FOUR}
    with pytest.raises(KeyboardInterrupt):
        build(place / "photos", place / "begun", RECIPE, progress=stop_at("render", 4), **options)
    report = build(place / "photos", place / "begun", RECIPE, **options)

    assert 0 < report.rendered < 81 * VARIANTS
    assert report.rendered + report.reused == 81 * VARIANTS
    assert contents(place / "begun") == fresh(place)


@pytest.mark.parametrize("workers", [2, 3])
def test_the_number_of_workers_changes_nothing(place, workers):
    """As with several processes, each with a GPU of its own or all with one."""
    build(place / "photos", place / "many", RECIPE, workers=workers, device="torch-cpu", shard_mib=SHARDS_OF_FOUR / 4)
    assert contents(place / "many") == contents(place / "cache")
    assert_sound(place / "many")


def test_a_builder_that_is_killed_leaves_the_finished_shards(crowded, notes):
    place, options = crowded, ("--device", "torch-cpu", "--workers", "1", "--shard-mib", str(SHARDS_OF_FOUR))
    with slow_build(place / "photos", place / "begun", RECIPE, *options, sleep_s=0.01) as process:
        wait_until(lambda: list(place.glob("begun/pending/*/*.record")), timeout_s=60, process=process)
        stop_and_wait(process, signal.SIGKILL, group=False)
    shards, _ = writer.recover(place / "begun")
    kept = sum(len(shard.rows) for shard in shards)
    report = build(place / "photos", place / "begun", RECIPE, workers=1, device="torch-cpu")

    assert 0 < kept < 81 * VARIANTS
    assert report.rendered == 81 * VARIANTS - kept
    assert contents(place / "begun") == fresh(place)


def test_statistics_of_the_dataset_are_exact_and_baked_in(place):
    recipe = RECIPE | {"dtype": "float16", "normalize": "dataset"}
    report = build(place / "photos", place / "baked", recipe, workers=1, device="torch-cpu")
    pixels = np.stack(list(images(place / "cache").values())) / 255

    np.testing.assert_allclose(report.mean, pixels.mean(axis=(0, 1, 3, 4)), rtol=1e-12)
    np.testing.assert_allclose(report.std, pixels.std(axis=(0, 1, 3, 4)), rtol=1e-9)
    assert_as_rendered(place / "baked", place / "photos")


# Damage and death


def test_a_damaged_shard_is_mended_by_the_engine_that_made_it(place):
    tensors = contents(place / "cache")["splits"]["train"]["tensors_id"]
    first, second = (layout.shard_file(place / "cache", tensors, number) for number in (0, 1))
    before = first.read_bytes(), second.read_bytes()
    flip_bit(first, 5)
    second.unlink()

    report = repair(place / "photos", place / "cache")

    assert report.exit_code == 0, str(report)
    assert (first.read_bytes(), second.read_bytes()) == before


@pytest.fixture
def notes(tmp_path_factory, monkeypatch):
    monkeypatch.setenv(decoders.FOLDER, str(tmp_path_factory.mktemp("notes")))


def test_an_image_that_kills_its_worker_in_a_batch_is_found_with_few_deaths(tmp_path, notes):
    image_folder(tmp_path / "photos", count=6)
    names = sorted((f"{c}/{i:03d}.png" for c in ("cat", "dog") for i in range(6)), key=lambda n: zlib.crc32(n.encode()))
    with open(tmp_path / "photos" / names[4], "ab") as file:  # neither first nor last of its job
        file.write(b"SEGV")

    report = build(
        tmp_path / "photos", tmp_path / "cache", TINY, workers=1, device="torch-cpu", decoder="tests.decoders:decode"
    )

    assert {path: stage for path, (stage, _) in failures(tmp_path / "cache").items()} == {names[4]: "decode"}
    assert "killed by SIGSEGV" in failures(tmp_path / "cache")[names[4]][1]
    assert report.rendered == 11
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")
    processes = {line.split()[0] for line in decoders.noted().read_text().splitlines()}
    assert len(processes) <= 4  # in the batch, in the file by file, alone, and the one that goes on


# What is said


def test_status_and_dry_run_name_the_engine(place):
    write_image(place / "photos" / "cat" / "new.png", 77)
    found, planned = status(place / "photos", place / "cache"), again(place, dry_run=True)

    for report in (found, planned):
        assert report.engines == {"train": TORCH}
        assert json.loads(report.to_json())["engines"] == {"train": "opencv+torch"}
    assert f"rendered by {IN_WORDS[TORCH]}" in str(found).splitlines()
    assert f"  engine     {IN_WORDS[TORCH]}" in str(planned).splitlines()
    assert planned.rendered == VARIANTS
    assert planned.estimated_s > 0


def test_another_device_is_refused_before_anything_is_written(place):
    before = contents(place / "cache")
    write_image(place / "photos" / "cat" / "new.png", 77)
    for dry_run in (False, True):
        with pytest.raises(PixelsWouldDiffer, match="split 'train': --device cpu renders with OpenCV"):
            again(place, device="cpu", dry_run=dry_run)
    assert contents(place / "cache") == before


def test_rerender_with_another_device_makes_tensors_beside_the_old(place):
    before = contents(place / "cache")
    report = again(place, device="cpu", rerender=True)

    assert report.rendered == 11 * VARIANTS
    assert report.engines == {"train": OPENCV}
    assert contents(place / "cache", "000001") == before
    assert again(place).up_to_date
    assert again(place, device="torch-cpu", rerender=True).rendered == 0  # the former ones are found again
    assert contents(place / "cache") == before


def test_two_splits_of_one_rendering_keep_their_own_engines(made, tmp_path, monkeypatch):
    """As when a recipe makes equal what a GPU and a CPU had rendered."""
    for split in ("train", "val"):
        shutil.copytree(made / "photos" / "cat", tmp_path / "photos" / split / "cat")
    resize = [{"Resize": {"height": 24, "width": 24}}]
    recipe = RECIPE | {
        "splits": {name: {"folder": name, "transforms": resize} for name in ("train", "val")},
    }
    given = {"train": TORCH, "val": OPENCV}
    with monkeypatch.context() as patch:
        patch.setattr(engines, "choose", lambda name, *_, **__: (given[name], []))
        build(tmp_path / "photos", tmp_path / "cache", recipe, workers=1)
    report = build(tmp_path / "photos", tmp_path / "cache", workers=1)

    assert report.up_to_date
    assert report.engines == given


def test_the_command_ends_with_8_or_2(place, decant):
    finished = decant("build", place / "photos", place / "cache", "--device", "cpu", code=8)
    assert "--device auto" in finished.stderr
    assert "--rerender" in finished.stderr
    finished = decant("build", place / "photos", place / "cache", "--device", "cud", code=2)
    assert "device 'cud' is unknown; did you mean 'cuda'?" in finished.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_command_ends_with_2_for_a_gpu_that_is_not_there(place, decant):
    finished = decant("build", place / "photos", place / "new", "--device", "cuda", code=2)
    assert "torch finds no CUDA device on this machine; use auto or cpu" in finished.stderr
    assert not (place / "new").exists()


def test_recipes_render_the_tensors_of_their_cache_from_bytes_too(made):
    path = made / "photos" / "dog" / "3.jpg"
    rendered = Recipe.of(made / "torch-cpu").render(path.read_bytes(), "train", 1)
    np.testing.assert_array_equal(rendered, images(made / "torch-cpu")["dog/3.jpg"][1])
