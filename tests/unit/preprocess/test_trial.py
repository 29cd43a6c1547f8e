"""A recipe tried on a few images: the very pixels that a build stores, and nothing left behind."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cache_store.errors import StorageError
from cache_store.normalise import denormalise, normalisation_table
from cache_store.reader import open_cache
from preprocess import RecipeError, UsageError, build, preview
from preprocess.sheet import Grid
from tests.helpers import TINY, image_folder, write_image

RANDOM = {
    "size": [8, 12],
    "seed": 5,
    "splits": {
        "train": {
            "folder": "train",
            "variants": 3,
            "transforms": [{"RandomResizedCrop": {"size": [8, 12]}}, {"HorizontalFlip": {"p": 0.5}}],
        },
        "val": {"folder": "val", "transforms": [{"Resize": {"height": 8, "width": 12}}]},
    },
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial") / "photos of größe"
    image_folder(folder / "train", ("cat", "dog", "owl"), count=9)
    image_folder(folder / "val", ("cat", "dog"), count=2, first_seed=500)
    return folder


def tile(result, block, number, tile_hw):
    """A tile of the sheet in the size that is stored; the source is number 0."""
    grid = Grid(tile_hw, 1 + min(result.variants, 8), len(result.sources))
    return result.sheet[-grid.size_hw[0] :][grid.tile(block, number)][:: grid.factor, :: grid.factor]


def stored(cache, split, path, k):
    """The 8-bit pixels behind a stored tensor, (H, W, 3)."""
    with open_cache(cache) as opened:
        table = opened.split(split)
        chunk = opened.image(split, table.paths().index(os.fsencode(path)), k)
        planes = chunk if chunk.dtype == np.uint8 else denormalise(chunk, normalisation_table(table.mean, table.std))
        return np.broadcast_to(planes.transpose(1, 2, 0), (*planes.shape[1:], 3))


def assert_as_built(result, cache, tile_hw):
    drawn = 0
    for block, tried in enumerate(result.sources):
        for k in range(min(result.variants, 8)) if tried.reason is None else ():
            expected = stored(cache, result.split, tried.path, k)
            np.testing.assert_array_equal(tile(result, block, 1 + k, tile_hw), expected, f"{tried.path} {k}")
            drawn += 1
    return drawn


@pytest.mark.parametrize(
    "changes", [{}, {"dtype": "uint8"}, {"channels": "gray"}, {"normalize": "imagenet", "seed": 6}]
)
@pytest.mark.parametrize("split", ["train", "val"])
def test_the_tiles_are_the_pixels_that_a_build_stores(photos, tmp_path, changes, split):
    build(photos, tmp_path / "cache", RANDOM | changes, workers=1)

    result = preview(photos, RANDOM | changes, split=split)

    assert assert_as_built(result, tmp_path / "cache", (8, 12)) == (16 * 3 if split == "train" else 4)


def test_without_a_recipe_it_is_the_default_one_of_a_build(photos, tmp_path):
    build(photos, tmp_path / "cache", workers=1)

    result = preview(photos)

    assert (result.split, result.variants, result.shape) == ("train", 1, (3, 224, 224))
    assert assert_as_built(result, tmp_path / "cache", (224, 224)) == 16


def test_the_images_are_spread_over_the_classes_and_always_the_same(photos, tmp_path):
    first = preview(photos, RANDOM, tmp_path / "1.png")
    second = preview(photos, RANDOM, tmp_path / "2.png")

    names = [tried.class_name for tried in first.sources]
    assert {name: names.count(name) for name in names} == {"cat": 6, "dog": 5, "owl": 5}
    assert (first.sources[0].path, first.sources[-1].path) == ("train/cat/000.png", "train/owl/008.png")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    assert [tried.path for tried in second.sources] == [tried.path for tried in first.sources]
    assert (first.images, len(first.sources)) == (27, 16)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "1.png"))[..., ::-1], first.sheet)


def test_the_source_stands_before_its_variants(photos):
    result = preview(photos, RANDOM, split="val")

    grid = Grid((8, 12), 2, 4)
    picture = cv2.imread(str(photos / result.sources[2].path))[..., ::-1]  # 24 x 32, into a box of 88 x 132
    scale = min(grid.box_hw[0] / 24, grid.box_hw[1] / 32)
    size = round(24 * scale), round(32 * scale)
    top, left = (grid.box_hw[0] - size[0]) // 2, (grid.box_hw[1] - size[1]) // 2
    drawn = result.sheet[-grid.size_hw[0] :][grid.tile(2, 0)]
    expected = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(drawn[top : top + size[0], left : left + size[1]], expected)
    assert result.sources[2].source_hw == (24, 32)
    assert result.sources[2].size == (photos / result.sources[2].path).stat().st_size


def test_nothing_is_written_but_the_picture(photos, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    before = {path: path.stat().st_mtime_ns for path in photos.rglob("*")}

    preview(photos, RANDOM)
    assert os.listdir() == []
    preview(photos, RANDOM, "look ä.png")

    assert os.listdir() == ["look ä.png"]
    assert {path: path.stat().st_mtime_ns for path in photos.rglob("*")} == before


@pytest.fixture
def mixed(tmp_path):
    """A class with whole images, and ones that fail for several reasons."""
    folder = tmp_path / "mixed"
    image_folder(folder, ("cat",), count=2)
    (folder / "cat" / "text.png").write_bytes(b"hello")
    write_image(folder / "cat" / "tiny.png", 1, 4, 4)
    os.symlink("nowhere", folder / "cat" / "link.png")
    alpha = np.full((24, 32, 4), 99, np.uint8)
    (folder / "cat" / "zalpha.png").write_bytes(cv2.imencode(".png", alpha)[1].tobytes())
    return folder


def test_images_that_fail_are_listed_with_their_reason_and_leave_their_place(mixed, tmp_path):
    transforms = [{"RandomCrop": {"height": 8, "width": 8}}]
    recipe = {"size": 8, "splits": {"train": {"folder": ".", "variants": 2, "transforms": transforms}}}
    build(mixed, tmp_path / "cache", recipe, workers=1)

    result = preview(mixed, recipe, tmp_path / "look.png")

    failed = {tried.path: (tried.stage, tried.reason) for tried in result.sources if tried.reason is not None}
    with open_cache(tmp_path / "cache") as opened:
        assert failed == {f["path"]: (f["stage"], f["reason"]) for f in opened.snapshot.failures}
    assert {path: stage for path, (stage, _) in failed.items()} == {
        "cat/link.png": "read",
        "cat/text.png": "decode",
        "cat/tiny.png": "render",
    }
    assert assert_as_built(result, tmp_path / "cache", (8, 8)) == 3 * 2
    text = str(result)
    assert "  failed     3 of 6, which a build would leave out:" in text.splitlines()
    for path, (stage, reason) in failed.items():
        assert f"    {path}: {stage}: {reason}" in text.splitlines()
    assert "  note       images with alpha, 1: it was dropped (cat/zalpha.png)" in text.splitlines()
    grid = Grid((8, 8), 3, 6)
    for block, tried in enumerate(result.sources):
        boxes = [result.sheet[-grid.size_hw[0] :][grid.tile(block, k)] for k in range(3)]
        reasons = [(box == 218).mean() > 0.6 and (box[..., 1] < 60).any() for box in boxes]  # red letters on gray
        place = {"read": 0, "decode": 0, "render": 1}.get(tried.stage)
        assert reasons == [k == place for k in range(3)], tried.path


def test_where_every_image_fails_that_is_what_is_shown(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "bad.png").write_bytes(b"x")

    result = preview(tmp_path / "photos", TINY, tmp_path / "look.png")

    assert "failed     1 of 1" in str(result)
    assert (tmp_path / "look.png").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_split_that_takes_a_part_of_another_one_shows_its_own_images(tmp_path, split):
    image_folder(tmp_path / "photos", count=60)
    recipe = {
        "size": 8,
        "splits": {
            "train": {"folder": ".", "transforms": [{"Resize": {"height": 8, "width": 8}}]},
            "val": {"from": "train", "fraction": 0.2, "transforms": [{"Resize": {"height": 8, "width": 8}}]},
        },
    }
    build(tmp_path / "photos", tmp_path / "cache", recipe, workers=1)

    result = preview(tmp_path / "photos", recipe, split=split)

    assert assert_as_built(result, tmp_path / "cache", (8, 8)) == 16  # each is found in that split of the cache
    assert result.images is None


def test_of_many_variants_the_first_ones_are_drawn_and_that_is_said(photos, tmp_path):
    recipe = {**RANDOM, "splits": {"val": {**RANDOM["splits"]["train"], "folder": "val", "variants": 20}}}
    build(photos, tmp_path / "cache", recipe, workers=1)

    result = preview(photos, recipe)

    assert assert_as_built(result, tmp_path / "cache", (8, 12)) == 4 * 8
    assert "20 variants each, the first 8 are drawn" in str(result)


def test_a_flat_folder_has_no_classes(tmp_path):
    write_image(tmp_path / "photos" / "a.png", 1)

    (tried,) = preview(tmp_path / "photos", TINY).sources

    assert (tried.path, tried.label, tried.class_name) == ("a.png", -1, None)


def test_overrides_and_notes_are_those_of_a_build(photos):
    result = preview(photos, overrides=["size=16", "splits.train.variants=2"])

    assert (result.shape, result.variants) == ((3, 16, 16), 2)
    assert "split 'val' has no image of 1 of 3 classes ('owl')" in result.departures


def test_what_cannot_be_meant_is_refused_as_a_build_refuses_it(photos, tmp_path):
    with pytest.raises(UsageError, match="SOURCE .*nowhere' does not exist"):
        preview(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="the recipe has no split 'vla'; there are: train, val"):
        preview(photos, split="vla")
    with pytest.raises(RecipeError, match=r"sise: unknown key; did you mean 'size'\?"):
        preview(photos, {"sise": 8})
    with pytest.raises(RecipeError, match="the recipe promises 8x8"):
        preview(photos, {"size": 8, "splits": {"train": {"transforms": [{"Resize": {"height": 9, "width": 8}}]}}})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="holds no image"):
        preview(tmp_path / "empty")
    image_folder(tmp_path / "doubt", ("images", "masks"), count=1)
    with pytest.raises(UsageError, match="can be read in more than one way"):
        preview(tmp_path / "doubt")
    image_folder(tmp_path / "half" / "train")
    (tmp_path / "half" / "val" / "cat").mkdir(parents=True)
    with pytest.raises(UsageError, match="split 'val' has no image in SOURCE"):
        preview(tmp_path / "half", split="val")
    with pytest.raises(StorageError):
        preview(photos, RANDOM, tmp_path / "no" / "such.png")


def test_a_picture_inside_the_source_is_refused_as_the_next_build_would_take_it_in(photos, monkeypatch):
    monkeypatch.chdir(photos / "train" / "cat")
    for output in (photos / "look.png", "look.png"):
        with pytest.raises(UsageError, match=r"look.png' lies inside SOURCE .* name a file outside of it"):
            preview(photos, RANDOM, output)
    assert not list(photos.rglob("look.png"))


def test_the_json_has_everything_but_the_pixels(photos, tmp_path):
    result = preview(photos, RANDOM, tmp_path / "look.png")

    found = json.loads(result.to_json())

    assert "sheet" not in found
    assert found["output"] == str(tmp_path / "look.png")
    assert found["engine"] == result.engine
    assert len(found["sources"]) == 16
    assert found["sources"][3] == {
        "path": result.sources[3].path,
        "label": 0,
        "class_name": "cat",
        "size": result.sources[3].size,
        "source_hw": [24, 32],
        "digest": result.sources[3].digest,
        "stage": None,
        "reason": None,
    }


def test_the_command_imports_no_torch_where_there_is_no_gpu(photos, tmp_path):
    code = (
        "import sys; from preprocess import environment; environment._DRIVER_FILES = ();"
        "from preprocess.cli import decant;"
        f"decant.main(['preview', {str(photos)!r}, '-o', {str(tmp_path / 'look.png')!r}], standalone_mode=False);"
        "print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.splitlines()[0].startswith(f"{tmp_path / 'look.png'}: 16 of 27 images of split 'train' in")
    assert ran.stdout.splitlines()[-1] == "False"
    assert ran.stderr == ""
