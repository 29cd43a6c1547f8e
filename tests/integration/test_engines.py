"""Builds on the torch engine, on the CPU: the same recipe, the same decisions, the same promises."""

import json
import os
import shutil

import numpy as np
import pytest

from cache_store import layout, open_cache
from cache_store.verify import verify
from preprocess import Recipe, repair
from preprocess.builder import build
from preprocess.errors import PixelsWouldDiffer
from preprocess.rendering import OPENCV, TORCH
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import SHARDS_OF_FOUR, contents, failures, paths
from tests.jpegs import NVJPEGS, OPENCVS

RECIPE = {
    "size": 16,
    "normalize": "imagenet",
    "splits": {
        "train": {
            "folder": ".",
            "variants": 2,
            "transforms": [
                {"RandomResizedCrop": {"size": [16, 16], "scale": [0.35, 1.0]}},
                {"HorizontalFlip": {"p": 0.5}},
                {"OneOf": [{"ColorJitter": {"p": 1.0}}, {"Rotate": {"p": 1.0}}, {"Equalize": {"p": 1.0}}]},
            ],
        }
    },
}


def pixels(cache):
    """path -> 8-bit values of all variants, int (K, C, H, W), near enough."""
    with open_cache(cache) as opened:
        table = opened.split("train")
        mean, std = (np.array(values)[:, None, None] for values in (table.mean, table.std))
        return {
            os.fsdecode(path): np.stack(
                [(opened.image("train", i, k).astype(np.float64) * std + mean) * 255 for k in range(table.variants)]
            ).round()
            for i, path in enumerate(table.paths())
        }


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of files of all kinds, and what both engines made of it."""
    root = tmp_path_factory.mktemp("odd")
    for name, data in (NVJPEGS | OPENCVS).items():
        (root / "photos" / "a").mkdir(parents=True, exist_ok=True)
        (root / "photos" / "a" / f"{name.replace(':', '-')}.jpg").write_bytes(data)
    write_image(root / "photos" / "b" / "small.png", 1, 1, 1)
    write_image(root / "photos" / "b" / "wide.png", 2, 3, 400)
    write_image(root / "photos" / "b" / "large.png", 3, 300, 200)
    for device in ("cpu", "torch-cpu"):
        build(root / "photos", root / device, RECIPE, device=device, workers=1, max_failures=100)
    return root


def test_odd_files_cost_only_themselves_and_for_the_same_reasons(odd):
    assert failures(odd / "torch-cpu") == failures(odd / "cpu")
    assert {"a/huge.jpg", "a/cut.jpg", "a/text.jpg"} <= set(failures(odd / "torch-cpu"))
    assert paths(odd / "torch-cpu") == paths(odd / "cpu")
    assert {"a/CMYK.jpg", "a/progressive.jpg", "a/gray.jpg", "a/turned.jpg"} <= set(paths(odd / "torch-cpu"))


def test_both_engines_render_the_same_pixels(odd):
    found, expected = pixels(odd / "torch-cpu"), pixels(odd / "cpu")

    apart = np.stack([np.abs(found[name] - expected[name]) for name in expected])
    assert apart.mean() <= 0.25
    assert (apart > 2).mean() <= 0.001


def test_the_engine_is_part_of_what_tensors_are(odd):
    with open_cache(odd / "torch-cpu") as ours, open_cache(odd / "cpu") as theirs:
        assert (ours.tensors("train").attributes["engine"], theirs.tensors("train").attributes["engine"]) == (
            TORCH,
            OPENCV,
        )
        assert "torch" in ours.tensors("train").attributes["versions"]
        assert "torch" not in theirs.tensors("train").attributes["versions"]
        assert ours.split("train").tensors_id != theirs.split("train").tensors_id


def test_an_incremental_build_equals_a_fresh_one(tmp_path):
    photos = image_folder(tmp_path / "photos", count=5)
    build(photos, tmp_path / "cache", RECIPE, device="torch-cpu", workers=1, shard_mib=SHARDS_OF_FOUR)
    write_image(photos / "dog" / "000.png", 50)
    write_image(photos / "dog" / "new.png", 51)
    (photos / "cat" / "001.png").rename(photos / "dog" / "moved.png")
    report = build(photos, tmp_path / "cache", workers=1)
    assert (report.rendered, report.engines) == (4, {"train": TORCH})

    build(photos, tmp_path / "fresh", RECIPE, device="torch-cpu", workers=1)

    assert contents(tmp_path / "cache") == contents(tmp_path / "fresh")
    rendered = Recipe.of(tmp_path / "cache").render(photos / "dog" / "new.png", "train", 1)
    with open_cache(tmp_path / "cache") as opened:
        place = paths(tmp_path / "cache").index("dog/new.png")
        assert opened.image("train", place, 1).tobytes() == rendered.tobytes()
        shard = layout.shard_file(tmp_path / "cache", opened.split("train").tensors_id, 0)
    before = shard.read_bytes()
    shard.write_bytes(before[:100] + b"damage" + before[106:])
    assert not verify(tmp_path / "cache").sound
    assert repair(photos, tmp_path / "cache").rendered >= 1
    assert shard.read_bytes() == before


def test_another_engine_is_refused_unless_new_tensors_are_wanted(odd, tmp_path):
    for made, asked in (("cpu", "torch-cpu"), ("torch-cpu", "cpu")):
        cache = shutil.copytree(odd / made, tmp_path / made)
        with pytest.raises(PixelsWouldDiffer, match=r"--device auto .*--rerender") as refused:
            build(odd / "photos", cache, device=asked, workers=1, max_failures=100)
        assert refused.value.exit_code == 8
        assert build(odd / "photos", cache, workers=1, max_failures=100).up_to_date
    report = build(odd / "photos", cache, device="cpu", rerender=True, workers=1, max_failures=100)
    assert report.rendered > 0
    with open_cache(cache) as opened, open_cache(odd / "cpu") as expected:
        assert opened.split("train").tensors_id == expected.split("train").tensors_id


def test_what_torch_does_not_render_stays_on_opencv_and_is_named(tmp_path):
    photos = image_folder(tmp_path / "photos", count=2)
    noise = {"GaussNoise": {"p": 0.5}}
    recipe = TINY | {
        "splits": {"train": {"folder": ".", "transforms": [{"OneOf": [noise]}, *TINY["splits"]["train"]["transforms"]]}}
    }
    report = build(photos, tmp_path / "cache", recipe, device="torch-cpu", workers=1, dry_run=True)

    assert report.engines == {"train": OPENCV}
    assert any("torch does not render GaussNoise" in note for note in report.departures)
    assert "OpenCV and Albumentations on the CPU" in str(report)
    assert json.loads(report.to_json())["engines"] == {"train": "opencv"}


def test_an_image_that_kills_the_decoder_is_the_one_that_is_lost(tmp_path, monkeypatch):
    monkeypatch.setenv("DECANT_TEST_FOLDER", str(tmp_path))
    photos = image_folder(tmp_path / "photos", count=6)
    with open(photos / "dog" / "003.png", "ab") as file:
        file.write(b"SEGV")

    build(photos, tmp_path / "cache", TINY, device="torch-cpu", workers=1, decoder="tests.decoders:decode")

    stage, reason = failures(tmp_path / "cache")["dog/003.png"]
    assert (stage, len(failures(tmp_path / "cache"))) == ("decode", 1)
    assert "SIGSEGV" in reason
    assert len(paths(tmp_path / "cache")) == 11
