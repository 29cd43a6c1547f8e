"""What a cache holds, in words, as JSON and as a picture."""

import json

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from cache_store import open_cache
from cache_store.errors import IntegrityError, NotFoundError, StorageError, UsageError
from cache_store.shard import checksum
from preprocess import commands
from preprocess.builder import build
from preprocess.sheet import Grid
from preprocess.show import contact_sheet, show
from tests.helpers import image_folder, write_image

RECIPE = {
    "size": 8,
    "seed": 1,
    "splits": {
        "train": {"folder": "train", "variants": 3, "transforms": [{"RandomResizedCrop": {"size": [8, 8]}}]},
        "val": {"folder": "val", "transforms": [{"Resize": {"height": 8, "width": 8}}]},
        "test": {"folder": "test", "transforms": [{"Resize": {"height": 8, "width": 8}}]},
    },
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("show")
    image_folder(folder / "photos" / "train", count=2)
    image_folder(folder / "photos" / "val", count=10, first_seed=50)
    write_image(folder / "photos" / "test" / "flat.png", 7)
    build(folder / "photos", folder / "cache", RECIPE, workers=1)
    return folder / "cache"


def tile(path, grid, block, number=0):
    """A tile of a sheet that was written, in the size that is stored."""
    sheet = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    return sheet[-grid.size_hw[0] :][grid.tile(block, number)][:: grid.factor, :: grid.factor]


def seen(cache, split, number, k):
    """The 8-bit pixels behind a normalised tensor, by arithmetic."""
    with open_cache(cache) as opened:
        table = opened.split(split)
        mean, std = (np.array(v)[:, None, None] for v in (table.mean, table.std))
        tensor = opened.image(split, number, k).astype(np.float64)
    return np.rint((tensor * std + mean) * 255).astype(np.uint8).transpose(1, 2, 0)


def test_the_summary(cache):
    with open_cache(cache) as opened:
        mean = opened.split("train").mean
    text = show(cache)
    assert "train: 4 samples x 3 of float16 3x8x8, 4.5 KiB; val: 20 samples x 1 of" in text
    assert "   classes  2: cat 12, dog 12" in text.splitlines()
    assert f"      mean  {', '.join(f'{value:.6f}' for value in mean)}" in text.splitlines()
    found = json.loads(show(cache, as_json=True))
    assert found["snapshot"] == "000001"
    assert found["classes"] == ["cat", "dog"]
    assert found["failures"] == 0
    assert list(found["splits"]) == ["train", "val", "test"]
    assert found["mean"] == list(mean)
    assert found["splits"]["train"]["bytes"] == 4 * 3 * 3 * 8 * 8 * 2
    assert found["levels"] == {"recipe": None, "looked_at": 4 + 8 + 1, "few": 0}
    assert "    levels  of 16-bit values the high byte is kept" in text.splitlines()


def test_samples_by_number(cache):
    first, last = json.loads(show(cache, (0, -1), as_json=True))
    assert (first["sample"], first["path"], first["label"], first["class"]) == (0, "train/cat/000.png", 0, "cat")
    assert (last["sample"], last["path"], last["class"]) == (3, "train/dog/001.png", "dog")
    assert first["split"] == "train"
    assert first["source"].startswith("24x32 (height x width), ")
    assert len(first["slots"]) == 3
    assert len(first["digest"]) == 32
    text = show(cache, (19,), "val")
    assert "      path  val/dog/009.png" in text.splitlines()
    assert "     label  1 (dog)" in text.splitlines()
    (unlabelled,) = json.loads(show(cache, (0,), "test", as_json=True))
    assert (unlabelled["label"], unlabelled["class"]) == (-1, None)
    assert "     label  -1 (none)" in show(cache, (0,), "test").splitlines()


def test_each_variant_of_a_sample_by_its_slot_checksum_and_values(cache):
    (sample,) = json.loads(show(cache, (2,), as_json=True))
    lines = show(cache, (2,)).splitlines()[-3:]
    with open_cache(cache) as opened:
        table = opened.split("train")
        tensors = [opened.image("train", 2, k).copy() for k in range(3)]
    assert [variant["variant"] for variant in sample["variants"]] == [0, 1, 2]
    assert [variant["slot"] for variant in sample["variants"]] == table["slot"][2].tolist() == sample["slots"]
    for variant, tensor, line in zip(sample["variants"], tensors, lines, strict=True):
        assert variant["checksum"] == f"{checksum(tensor):08x}"
        assert variant["min"] == tensor.min()
        assert variant["max"] == tensor.max()
        assert variant["mean"] == pytest.approx(tensor.astype(np.float64).mean(), abs=1e-12)
        values = [f"{variant[key]:.4f}" for key in ("min", "mean", "max")]
        assert line.split() == [str(variant["variant"]), str(variant["slot"]), variant["checksum"], *values]


def test_a_damaged_tensor_is_named_and_neither_described_nor_drawn(tmp_path):
    image_folder(tmp_path / "photos", count=1)
    build(tmp_path / "photos", tmp_path / "cache", {"size": 8}, workers=1)
    with open_cache(tmp_path / "cache") as opened:
        table = opened.split("train")
        slot, tensors = int(table["slot"][1, 0]), opened.tensors("train")
        shard, place = divmod(slot, tensors.slots)
        file, start = tensors.shard_file(shard), place * (tensors.chunk_bytes + 4)
    data = bytearray(file.read_bytes())
    data[start] ^= 1
    file.write_bytes(data)
    for options in (
        {"index": (1,)},
        {"index": (1,), "output": tmp_path / "look.png"},
        {"output": tmp_path / "look.png"},
    ):
        with pytest.raises(
            IntegrityError, match=r"sample 'dog/000.png' variant 0 has checksum [0-9a-f]{8}, the manifest"
        ):
            show(tmp_path / "cache", **options)
    assert not (tmp_path / "look.png").exists()
    show(tmp_path / "cache", (0,), output=tmp_path / "look.png")


def test_the_picture_has_the_variants_of_a_sample_side_by_side(cache, tmp_path):
    show(cache, (1, 3), output=tmp_path / "look.png")
    grid = Grid((8, 8), 3, 2)
    for block, number in enumerate((1, 3)):
        for k in range(3):
            np.testing.assert_array_equal(tile(tmp_path / "look.png", grid, block, k), seen(cache, "train", number, k))


def test_without_numbers_there_are_as_many_samples_of_each_class_as_of_the_others(cache, tmp_path):
    show(cache, split="val", output=tmp_path / "look.png")
    grid = Grid((8, 8), 1, 16)
    for block, number in ((0, 0), (7, 9), (8, 10), (15, 19)):  # 8 of the 10 of each
        np.testing.assert_array_equal(tile(tmp_path / "look.png", grid, block), seen(cache, "val", number, 0))


def test_what_is_not_there_is_said_with_what_is(cache, tmp_path):
    for number in (4, -5):
        with pytest.raises(NotFoundError, match=f"split 'train' has samples 0 to 3, there is no {number}"):
            show(cache, (number,))
    with pytest.raises(NotFoundError, match="vla"):
        show(cache, split="vla")
    with pytest.raises(NotFoundError, match="does not exist"):
        show(tmp_path / "none")


def test_a_picture_that_cannot_be_written_is_a_storage_error(cache, tmp_path):
    with pytest.raises(StorageError):
        show(cache, output=tmp_path / "no" / "such" / "folder.png")


def test_samples_by_path(cache, tmp_path):
    found = json.loads(show(cache, ("val/dog/003.png", "./val/cat/000.png", -1), as_json=True))
    assert [(one["split"], one["sample"], one["path"]) for one in found] == [
        ("val", 13, "val/dog/003.png"),
        ("val", 0, "val/cat/000.png"),
        ("val", 19, "val/dog/009.png"),
    ]
    assert show(cache, ("train/cat/000.png",)) == show(cache, (0,))
    show(cache, ("val/dog/003.png",), output=tmp_path / "look.png")
    np.testing.assert_array_equal(tile(tmp_path / "look.png", Grid((8, 8), 1, 1), 0), seen(cache, "val", 13, 0))


@pytest.mark.parametrize(
    ("path", "split", "message"),
    [
        ("train/cat/00.png", None, "split 'train' has no sample 'train/cat/00.png'; the nearest are: train/cat/00"),
        ("photos/val/cat/007.png", "val", "; the nearest are: val/cat/007.png, val/dog/007.png$"),
        ("val/cat/007.png", "train", "but split 'val' has one: --split val"),
        ("zzzzzz", None, "split 'train' has no sample 'zzzzzz'; paths are relative to SOURCE"),
    ],
)
def test_a_path_that_is_no_sample_is_not_found_and_its_neighbours_are_named(cache, path, split, message):
    with pytest.raises(NotFoundError, match=message):
        show(cache, (path,), split)


def test_an_image_that_was_left_out_says_why(tmp_path):
    image_folder(tmp_path / "photos", count=2)
    (tmp_path / "photos" / "cat" / "bad.jpg").write_bytes(b"no image")
    build(tmp_path / "photos", tmp_path / "cache", {"size": 8}, workers=1)
    with pytest.raises(NotFoundError, match=r"'cat/bad.jpg' was left out of the cache: decode: not an image"):
        show(tmp_path / "cache", ("cat/bad.jpg",))


def test_a_number_on_the_command_line_is_an_index_and_anything_else_a_path(tmp_path):
    write_image(tmp_path / "photos" / "0.png", 1)
    write_image(tmp_path / "photos" / "1.png", 2)
    build(tmp_path / "photos", tmp_path / "cache", {"size": 8}, workers=1)

    def shown(*arguments):
        result = CliRunner().invoke(commands.show, ["--json", str(tmp_path / "cache"), *arguments])
        return [one["path"] for one in json.loads(result.output)] if not result.exception else result.exception

    assert shown("1", "0.png") == ["1.png", "0.png"]
    assert shown("--", "-1") == ["1.png"]
    assert isinstance(shown("./1"), NotFoundError)


def test_nothing_to_draw_is_refused(cache):
    with open_cache(cache) as opened, pytest.raises(UsageError, match="split 'val' has no sample to draw"):
        contact_sheet(opened, "val", [])


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", "rgb"), ("float16", "gray"), ("uint8", "gray")])
def test_eight_bit_and_gray_caches(tmp_path, dtype, channels):
    image_folder(tmp_path / "photos", count=1)
    recipe = {"size": 8, "dtype": dtype, "channels": channels}
    build(tmp_path / "photos", tmp_path / "cache", recipe, workers=1)
    show(tmp_path / "cache", output=tmp_path / "look.png")
    part = tile(tmp_path / "look.png", Grid((8, 8), 1, 2), 0)
    with open_cache(tmp_path / "cache") as opened:
        tensor = opened.image("train", 0, 0)
    if dtype == "uint8":
        np.testing.assert_array_equal(part, np.broadcast_to(tensor.transpose(1, 2, 0), (8, 8, 3)))
        assert f"{tensor.min():>9}" in show(tmp_path / "cache", (0,))
    assert (part[..., 0] == part[..., 2]).all() == (channels == "gray")
