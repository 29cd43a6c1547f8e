"""A cache is loaded as torchvision.datasets.ImageFolder would load its folder."""

import os
from pathlib import Path

import pytest
from torchvision.datasets import ImageFolder

from loaders import CachedDataset
from preprocess import build
from tests.helpers import write_image

SIZE = {"size": 8}


def folder(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        write_image(root / name, seed)
    return root


def samples_of(theirs: ImageFolder, source: Path) -> list[tuple[str, int]]:
    return [(os.path.relpath(path, source), label) for path, label in theirs.samples]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """One split, with all that makes orders differ."""
    root = tmp_path_factory.mktemp("plain")
    source = folder(
        root / "photos",
        *("k/a/1.png", "k/a-b/1.png", "k/a.b/1.png", "k/a/c/1.png", "k/a b.png", "k/z.jpg", "k/A.png"),
        *("10/2.png", "10/10.png", "9/é.png", "B/1.bmp", "b/1.webp"),
    )
    elsewhere = folder(root / "elsewhere", "deep/x.png")
    (source / "link").symlink_to(elsewhere / "deep")
    (source / "k" / "linked.png").symlink_to(elsewhere / "deep" / "x.png")
    (source / "empty").mkdir()
    build(source, root / "cache", SIZE, workers=1)
    return source, root / "cache"


def test_order_labels_and_classes_are_image_folders(plain):
    source, cache = plain
    theirs = ImageFolder(str(source), allow_empty=True)
    with CachedDataset(cache) as ours:
        assert len(ours) == len(theirs) == 14
        assert ours.classes == theirs.classes
        assert ours.class_to_idx == theirs.class_to_idx
        assert ours.samples == samples_of(theirs, source)
        assert ours.targets == theirs.targets
        assert [ours[i][1] for i in range(len(ours))] == theirs.targets


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A class that val lacks, one that train lacks, and a flat test folder."""
    root = tmp_path_factory.mktemp("uneven")
    source = folder(
        root / "photos",
        *("train/ant/1.png", "train/bee/1.png", "train/cat/1.png", "train/cat/2.png"),
        *("val/ant/3.png", "val/cat/3.png", "val/dog/3.png"),
        *("test/2.png", "test/10.png", "test/1.png"),
    )
    report = build(source, root / "cache", SIZE, workers=1)
    return source, root / "cache", report


def test_train_is_as_image_folder_has_it(uneven):
    source, cache, _ = uneven
    theirs = ImageFolder(str(source / "train"))
    with CachedDataset(cache, "train") as ours:
        assert ours.samples == samples_of(theirs, source)
        assert ours.classes[: len(theirs.classes)] == theirs.classes


def test_a_class_that_a_split_lacks_shifts_no_id(uneven):
    """ImageFolder alone would give 'cat' the id 1 in val and 2 in train."""
    source, cache, report = uneven
    assert ImageFolder(str(source / "val")).class_to_idx["cat"] == 1
    for split in ("train", "val", "test"):
        with CachedDataset(cache, split) as ours:
            assert ours.class_to_idx == {"ant": 0, "bee": 1, "cat": 2, "dog": 3}
    with CachedDataset(cache, "val") as ours:
        assert ours.samples == [("val/ant/3.png", 0), ("val/cat/3.png", 2), ("val/dog/3.png", 3)]
        assert ours.targets == [0, 2, 3]
    assert "split 'val' has no image of 1 of 4 classes ('bee')" in report.departures
    assert "split 'train' has no image of 1 of 4 classes ('dog')" in report.departures


def test_an_unlabelled_split_has_label_minus_one(uneven):
    _, cache, report = uneven
    with CachedDataset(cache, "test") as ours:
        assert ours.samples == [("test/1.png", -1), ("test/10.png", -1), ("test/2.png", -1)]
        assert [ours[i][1] for i in range(3)] == ours.targets == [-1, -1, -1]
    assert "split 'test' is a flat folder: its images have label -1" in report.departures
