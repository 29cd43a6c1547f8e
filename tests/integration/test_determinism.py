"""The same images give the same tensors, however and wherever they are built."""

import shutil

import pytest

from preprocess.builder import build
from tests.helpers import image_folder, write_image
from tests.integration.checks import SHARDS_OF_FOUR, assert_as_rendered, contents

RECIPE = {
    "size": 8,
    "seed": 3,
    "splits": {
        "train": {
            "folder": ".",
            "variants": 3,
            "transforms": [
                {"RandomResizedCrop": {"size": [8, 8], "scale": [0.3, 1.0]}},
                {"HorizontalFlip": {"p": 0.5}},
                {"RandomBrightnessContrast": {"p": 0.8}},
                {"CoarseDropout": {"p": 0.5}},
            ],
        }
    },
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = image_folder(tmp_path_factory.mktemp("determinism") / "photos", count=10)
    for i in range(3):
        write_image(folder / "dog" / f"{i}.jpg", 70 + i, 50, 40)
    shutil.copy(folder / "cat" / "000.png", folder / "dog" / "copy.png")
    return folder


@pytest.fixture(scope="module")
def reference(photos, tmp_path_factory):
    """Built by one worker."""
    cache = tmp_path_factory.mktemp("determinism") / "cache"
    build(photos, cache, RECIPE, workers=1)
    assert_as_rendered(cache, photos)
    return contents(cache)


@pytest.mark.parametrize("workers", [2, 4])
def test_the_number_of_workers_and_the_size_of_shards_change_nothing(tmp_path, photos, reference, workers):
    build(photos, tmp_path / "cache", RECIPE, workers=workers, shard_mib=SHARDS_OF_FOUR)

    assert contents(tmp_path / "cache") == reference


def test_neither_the_folder_nor_the_order_of_creation_changes_anything(tmp_path, photos, reference):
    files = sorted(photos.rglob("*.*"), key=lambda path: (path.name[::-1], path.parent.name))
    for path in files:
        there = tmp_path / "another name" / path.relative_to(photos)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)

    build(tmp_path / "another name", tmp_path / "cache", RECIPE, workers=1)

    assert contents(tmp_path / "cache") == reference


def test_equal_content_under_other_names_gives_equal_tensors(tmp_path, photos, reference):
    """The random draws follow from the content: a file may be renamed and relabelled."""
    for number, path in enumerate(sorted(photos.rglob("*.*"))):
        there = tmp_path / "photos" / ("a" if number % 2 else "b") / f"{number:02d}{path.suffix}"
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, there)

    build(tmp_path / "photos", tmp_path / "cache", RECIPE, workers=1)

    train, expected = contents(tmp_path / "cache")["splits"]["train"], reference["splits"]["train"]
    assert train["tensors_id"] == expected["tensors_id"]
    assert (train["mean"], train["std"]) == (expected["mean"], expected["std"])
    by_digest = {digest: images for _, _, digest, images in train["samples"]}
    assert len(by_digest) == 23
    assert by_digest == {digest: images for _, _, digest, images in expected["samples"]}


def test_another_seed_gives_other_tensors_of_another_identity(tmp_path, photos, reference):
    build(photos, tmp_path / "cache", RECIPE | {"seed": 4}, workers=1)

    train, other = contents(tmp_path / "cache")["splits"]["train"], reference["splits"]["train"]
    assert train["tensors_id"] != other["tensors_id"]
    assert train["samples"][0][3] != other["samples"][0][3]
    assert len(set(train["samples"][0][3])) == 3  # variants differ among themselves, too
