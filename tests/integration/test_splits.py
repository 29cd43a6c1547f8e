"""Splits, classes and labels."""

import json

import numpy as np
import pytest
import yaml

from cache_store.manifest import Snapshot
from cache_store.reader import open_cache
from loaders import CachedDataset
from preprocess import ShiftRefused, ShrinkRefused, UsageError, publish, status
from preprocess.builder import build
from preprocess.show import show
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import assert_as_rendered, contents, labels, paths

TRANSFORMS = TINY["splits"]["train"]["transforms"]
SIZE_8 = {"size": 8}


def recipe(**splits):
    return {"size": 8, "splits": {name: {"transforms": TRANSFORMS} | split for name, split in splits.items()}}


def test_folders_named_like_splits_are_splits_and_one_table_of_ids_serves_all(tmp_path):
    image_folder(tmp_path / "photos" / "train", ("ant", "cat", "owl"), count=2)
    image_folder(tmp_path / "photos" / "val", ("owl",), count=2, first_seed=50)

    report = build(tmp_path / "photos", tmp_path / "cache", SIZE_8, workers=1)

    assert report.samples == {"train": 6, "val": 2}
    assert report.classes == 3
    assert labels(tmp_path / "cache", "train") == [0, 0, 1, 1, 2, 2]
    assert labels(tmp_path / "cache", "val") == [2, 2]  # ImageFolder would say 0
    assert paths(tmp_path / "cache", "val") == ["val/owl/000.png", "val/owl/001.png"]
    assert "split 'val' has no image of 2 of 3 classes ('ant', 'cat')" in report.departures
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_what_could_be_splits_or_classes_is_refused_until_a_recipe_says_which(tmp_path):
    photos, cache = image_folder(tmp_path / "photos", ("train", "val", "wagon"), count=2), tmp_path / "cache"

    with pytest.raises(UsageError, match=r"splits \('train', 'val'\) stand beside .* \('wagon'\)") as caught:
        build(photos, cache, SIZE_8, workers=1)

    assert not cache.exists()
    lines = [line.split("#")[0].strip() for line in str(caught.value).splitlines() if line.startswith("    ")]
    assert lines == [
        "splits: {train: {folder: train}, val: {folder: val}}",
        "splits: {train: {folder: .}}",
    ]
    as_splits, as_classes = (SIZE_8 | yaml.safe_load(line) for line in lines)
    assert build(photos, tmp_path / "splits", as_splits, workers=1).samples == {"train": 2, "val": 2}
    report = build(photos, cache, as_classes, workers=1)
    assert list(report.class_counts) == ["train", "val", "wagon"]
    assert "classes have the names of splits: 'train' with 2 images, 'val' with 2 images" in report.departures


def test_a_folder_without_images_beside_splits_is_skipped_and_named(tmp_path):
    photos = tmp_path / "photos"
    image_folder(photos / "Train", count=2)
    image_folder(photos / "validation", count=1, first_seed=50)
    (photos / "logs").mkdir()
    (photos / "logs" / "epoch 1.txt").write_text("loss")
    (photos / "@eaDir").mkdir()
    write_image(photos / "loose.png", 99)

    report = build(photos, tmp_path / "cache", SIZE_8, workers=1)

    assert report.samples == {"train": 4, "validation": 2}
    assert report.class_counts == {"cat": 3, "dog": 3}
    assert "folders in which no image was found were skipped: 'logs'" in report.departures
    assert "junk of file servers, desktops and editors was skipped: @eaDir 1" in report.departures
    assert any("1 images lie in SOURCE beside the folders of the splits" in line for line in report.departures)
    assert "  classes    cat 3, dog 3" in str(report).splitlines()
    assert paths(tmp_path / "cache")[0] == "Train/cat/000.png"
    assert_as_rendered(tmp_path / "cache", photos)
    image_folder(photos / "TEST", count=1, first_seed=70)  # joins by itself, whatever its case
    assert build(photos, tmp_path / "cache", workers=1).samples == {"train": 4, "validation": 2, "test": 2}


def test_a_cache_whose_classes_are_called_like_splits_keeps_them_and_says_so(tmp_path, monkeypatch):
    photos, cache = image_folder(tmp_path / "photos", ("Train", "Test"), count=2), tmp_path / "cache"
    with monkeypatch.context() as patch:  # a version that took them for classes by itself
        patch.setattr(publish, "Snapshot", lambda **fields: Snapshot(**fields | {"splits_written": False}))
        build(photos, cache, SIZE_8 | {"splits": {"train": {"folder": "."}}}, workers=1)

    report = build(photos, cache, workers=1)

    assert report.up_to_date
    assert report.departures[0].startswith("SOURCE is read as before, splits: {train: {folder: .}}, although ")
    assert status(photos, cache).departures[0] == report.departures[0]
    assert build(photos, cache, overrides=["splits.train.variants=2"], workers=1).samples == {"train": 4}
    assert report.class_counts == {"Test": 2, "Train": 2}


def test_a_junk_folder_that_was_a_class_is_said_to_be_none_any_more(tmp_path, monkeypatch):
    photos, cache = image_folder(tmp_path / "photos", ("@eaDir", "cat", "thumbnails"), count=1), tmp_path / "cache"
    with monkeypatch.context() as patch:
        patch.setattr("preprocess.scan.junk_of", lambda name: None)  # as it was read once
        assert build(photos, cache, TINY, workers=1).classes == 3

    report = build(photos, cache, workers=1, allow_shrink=True)

    assert report.shift == "class ids shift: 'cat' 1 -> 0; list 'classes' in the recipe to pin them"
    lost = [line for line in report.departures if line.startswith("classes of the snapshot are gone")]
    (line,) = lost
    assert line.endswith(
        "2: '@eaDir' (0), 'thumbnails' (2); junk by its name, which is skipped now: '@eaDir', 'thumbnails'"
    )


def test_mean_and_std_are_those_of_train_alone(tmp_path):
    image_folder(tmp_path / "photos" / "train", count=2)
    image_folder(tmp_path / "photos" / "val", count=2, first_seed=50)
    build(tmp_path / "photos", tmp_path / "cache", recipe(val={"folder": "val"}, train={"folder": "train"}), workers=1)

    build(tmp_path / "photos" / "train", tmp_path / "alone", TINY, workers=1)

    both, alone = contents(tmp_path / "cache")["splits"], contents(tmp_path / "alone")["splits"]
    assert list(both) == ["val", "train"]
    assert both["val"]["mean"] == both["train"]["mean"] == alone["train"]["mean"]
    assert both["val"]["std"] == both["train"]["std"] == alone["train"]["std"]


def test_a_split_taken_out_of_train_by_content(tmp_path):
    """Additions move nobody, and equal files never end up on both sides."""
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    image_folder(photos, count=20)
    copy = photos / "dog" / "copy of cat.png"
    copy.write_bytes((photos / "cat" / "003.png").read_bytes())
    divided = recipe(train={"folder": "."}, val={"from": "train", "fraction": 0.3})

    report = build(photos, cache, divided, workers=1)

    train, val = set(paths(cache, "train")), set(paths(cache, "val"))
    assert not train & val
    assert len(train | val) == 41 == sum(report.samples.values())
    assert 4 <= len(val) <= 22
    assert ("cat/003.png" in val) == ("dog/copy of cat.png" in val)
    with open_cache(cache) as opened:
        points = {
            name: opened.split(name)["digest"][:, :8].copy().view(">u8").astype(np.float64) / 2**64
            for name in ("train", "val")
        }
    assert (points["val"] < 0.3).all()
    assert (points["train"] >= 0.3).all()
    assert_as_rendered(cache, photos)

    image_folder(photos, ("ant", "cat"), count=30, first_seed=900)
    build(photos, cache, workers=1, allow_shrink=True)

    kept = {path for path in train | val if not path.startswith("cat/0")}  # those were overwritten
    assert train & kept <= set(paths(cache, "train"))
    assert val & kept <= set(paths(cache, "val"))
    assert_as_rendered(cache, photos)


def test_a_flat_folder_is_an_unlabelled_split(tmp_path):
    for i in range(3):
        write_image(tmp_path / "photos" / f"{i}.png", i)

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    assert report.classes == 0
    assert report.unlabelled == ["train"]
    assert "To train from it" not in str(report)
    assert "have no labels: each is -1" in " ".join(str(report).split())
    assert "none: labels are -1" in show(tmp_path / "cache")
    assert "split 'train' is a flat folder: its images have label -1" in report.departures
    with CachedDataset(tmp_path / "cache") as dataset:
        assert dataset.targets == [-1, -1, -1]
        assert dataset.classes == []
        assert dataset[2][1] == -1
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_pinned_classes_keep_their_ids_and_new_ones_come_last(tmp_path):
    image_folder(tmp_path / "photos", ("ant", "cat", "dog"), count=1)
    pinned = TINY | {"classes": ["dog", "unicorn", "cat"]}

    report = build(tmp_path / "photos", tmp_path / "cache", pinned, workers=1)

    with CachedDataset(tmp_path / "cache") as dataset:
        assert dataset.classes == ["dog", "unicorn", "cat", "ant"]
        assert dataset.samples == [("ant/000.png", 3), ("cat/000.png", 2), ("dog/000.png", 0)]
    assert any("'unicorn' of the recipe have no folder" in line for line in report.departures)


def test_a_new_class_that_shifts_ids_is_announced_old_to_new(tmp_path):
    image_folder(tmp_path / "photos", ("cat", "dog"), count=1)
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)
    image_folder(tmp_path / "photos", ("ant",), count=1, first_seed=70)

    report = build(tmp_path / "photos", tmp_path / "cache", workers=1)

    assert str(report).splitlines()[0] == report.shift
    assert str(report).count("class ids shift") == 1
    shift = [line for line in report.departures if line.startswith("class ids shift")]
    assert shift == ["class ids shift: 'cat' 0 -> 1, 'dog' 1 -> 2; list 'classes' in the recipe to pin them"]
    assert report.rendered == 1
    assert labels(tmp_path / "cache") == [0, 1, 2]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_strict_build_shifts_no_class_ids(tmp_path, dry_run):
    photos, cache = image_folder(tmp_path / "photos", ("cat", "dog"), count=1), tmp_path / "cache"
    build(photos, cache, TINY, workers=1, strict=True)
    image_folder(photos, ("ant",), count=1, first_seed=70)
    before = contents(cache)

    with pytest.raises(
        ShiftRefused, match="class ids shift: 'cat' 0 -> 1, 'dog' 1 -> 2.* nothing was committed"
    ) as caught:
        build(photos, cache, workers=1, strict=True, dry_run=dry_run)

    assert caught.value.exit_code == 3
    assert contents(cache) == before
    assert build(photos, cache, TINY | {"classes": ["cat", "dog"]}, workers=1, strict=True).shift == ""


def test_a_class_that_takes_the_id_of_another_is_a_shift(tmp_path):
    photos, cache = image_folder(tmp_path / "photos", ("cat", "dog"), count=1), tmp_path / "cache"
    build(photos, cache, TINY, workers=1)
    (photos / "dog").rename(photos / "hound")

    report = build(photos, cache, workers=1)

    assert report.shift == "class ids shift: 1 was 'dog' and is 'hound'; list 'classes' in the recipe to pin them"


def test_a_new_class_at_the_end_shifts_nothing(tmp_path):
    image_folder(tmp_path / "photos", ("cat", "dog"), count=1)
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)
    (tmp_path / "photos" / "yak").mkdir()

    report = build(tmp_path / "photos", tmp_path / "cache", workers=1)

    assert not any("shift" in line for line in report.departures)
    assert report.snapshot == "000002"  # an empty class is a class
    with CachedDataset(tmp_path / "cache") as dataset:
        assert dataset.classes == ["cat", "dog", "yak"]


def test_a_relabelled_image_is_not_rendered_again(tmp_path):
    image_folder(tmp_path / "photos", count=2)
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)
    (tmp_path / "photos" / "cat" / "000.png").rename(tmp_path / "photos" / "dog" / "was a cat.png")

    report = build(tmp_path / "photos", tmp_path / "cache", workers=1)

    assert report.rendered == 0
    assert labels(tmp_path / "cache") == [0, 1, 1, 1]
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_an_image_that_moves_between_splits_of_equal_rendering_is_not_rendered_again(tmp_path):
    image_folder(tmp_path / "photos" / "train", count=3)
    image_folder(tmp_path / "photos" / "val", count=2, first_seed=50)
    build(tmp_path / "photos", tmp_path / "cache", SIZE_8, workers=1)
    (tmp_path / "photos" / "train" / "cat" / "000.png").rename(tmp_path / "photos" / "val" / "cat" / "moved.png")

    report = build(tmp_path / "photos", tmp_path / "cache", workers=1)

    assert report.rendered == 0
    assert report.samples == {"train": 5, "val": 5}
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_an_equal_file_in_splits_of_different_k(tmp_path):
    """Whichever split's job comes first, the one with more variants gets them all."""
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    image_folder(photos / "train", count=2)
    image_folder(photos / "val", count=2)  # the very same files
    flip = [*TRANSFORMS, {"HorizontalFlip": {"p": 0.5}}]

    report = build(
        *(photos, cache),
        recipe(val={"folder": "val", "transforms": flip}, train={"folder": "train", "variants": 3, "transforms": flip}),
        workers=2,
    )

    assert report.rendered == 12
    assert_as_rendered(cache, photos)


def test_a_split_without_a_single_image_is_kept_as_an_empty_one(tmp_path):
    image_folder(tmp_path / "photos" / "train", count=2)
    (tmp_path / "photos" / "val" / "cat").mkdir(parents=True)

    report = build(tmp_path / "photos", tmp_path / "cache", SIZE_8, workers=1)

    assert report.samples == {"train": 4, "val": 0}
    with CachedDataset(tmp_path / "cache", split="val") as dataset:
        assert len(dataset) == 0
        assert dataset.classes == ["cat", "dog"]
    assert build(tmp_path / "photos", tmp_path / "cache", workers=1).up_to_date


def test_a_split_whose_folder_is_missing_is_refused_with_the_folders_there_are(tmp_path):
    image_folder(tmp_path / "photos" / "train", count=1)

    with pytest.raises(UsageError, match="split 'val': there is no folder 'vla' in SOURCE .*; folders there: train"):
        build(
            *(tmp_path / "photos", tmp_path / "cache"),
            recipe(train={"folder": "train"}, val={"folder": "vla"}),
            workers=1,
        )


# -- shrinking -------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_splits(tmp_path):
    image_folder(tmp_path / "photos" / "train", count=4)
    image_folder(tmp_path / "photos" / "val", count=2, first_seed=50)
    build(tmp_path / "photos", tmp_path / "cache", SIZE_8, workers=1)
    return tmp_path / "photos", tmp_path / "cache"


def lose(folder, count):
    for path in sorted(folder.rglob("*.png"))[:count]:
        path.unlink()


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_build_that_drops_more_than_half_of_a_split_needs_leave(two_splits, dry_run):
    photos, cache = two_splits
    before = contents(cache)
    lose(photos / "train", 5)

    with pytest.raises(ShrinkRefused, match="split 'train' would shrink from 8 to 3 images") as caught:
        build(photos, cache, workers=1, dry_run=dry_run)

    assert caught.value.exit_code == 3
    assert "--allow-shrink" in str(caught.value)
    assert "mounted" in str(caught.value)
    assert contents(cache) == before
    if not dry_run:
        assert build(photos, cache, workers=1, allow_shrink=True).samples == {"train": 3, "val": 4}
        assert_as_rendered(cache, photos)


def test_half_of_a_split_may_go(two_splits):
    photos, cache = two_splits
    lose(photos / "train", 4)

    assert build(photos, cache, workers=1).samples == {"train": 4, "val": 4}


def test_an_unmounted_split_is_a_shrink(two_splits):
    """The mount point is left, empty."""
    photos, cache = two_splits
    for path in sorted((photos / "val").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    with pytest.raises(ShrinkRefused, match="split 'val' would shrink from 4 to 0"):
        build(photos, cache, workers=1)


def test_a_split_that_is_gone_with_its_folder_is_a_shrink(two_splits):
    """Nobody took it out of a recipe: the default takes every split that it finds."""
    photos, cache = two_splits
    (photos / "val").rename(photos.parent / "elsewhere")

    with pytest.raises(ShrinkRefused, match="'val'"):
        build(photos, cache, workers=1)

    report = build(photos, cache, workers=1, allow_shrink=True)
    assert report.samples == {"train": 8}


def test_a_split_taken_out_of_the_recipe_is_meant(two_splits):
    photos, cache = two_splits

    report = build(photos, cache, recipe(train={"folder": "train"}), workers=1)

    assert report.samples == {"train": 8}
    assert any("'val'" in line and "add them under 'splits'" in line for line in report.departures)


def test_a_class_that_goes_is_no_shrink_but_its_ids_are_announced(tmp_path):
    image_folder(tmp_path / "photos", ("ant", "cat", "dog"), count=2)
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)
    lose(tmp_path / "photos" / "ant", 2)
    (tmp_path / "photos" / "ant").rmdir()

    report = build(tmp_path / "photos", tmp_path / "cache", workers=1)

    assert any("'cat' 1 -> 0, 'dog' 2 -> 1" in line for line in report.departures)
    assert labels(tmp_path / "cache") == [0, 0, 1, 1]


def test_the_limit_takes_the_first_of_each_split_and_only_into_a_new_cache(tmp_path):
    image_folder(tmp_path / "photos" / "train", count=3)
    image_folder(tmp_path / "photos" / "val", count=1, first_seed=50)

    report = build(tmp_path / "photos", tmp_path / "cache", SIZE_8, workers=1, limit=4)

    assert report.samples == {"train": 4, "val": 2}
    assert paths(tmp_path / "cache")[-1] == "train/dog/000.png"
    with pytest.raises(UsageError, match="limit: .*only into a new cache"):
        build(tmp_path / "photos", tmp_path / "cache", workers=1, limit=4)


def test_a_recipe_that_names_its_splits_survives_yaml(tmp_path):
    image_folder(tmp_path / "photos" / "train", count=2)
    image_folder(tmp_path / "photos" / "val", count=1, first_seed=50)
    written = recipe(train={"folder": "train", "variants": 2}, val={"folder": "val"})
    (tmp_path / "recipe.yaml").write_text(json.dumps(written))

    build(tmp_path / "photos", tmp_path / "cache", tmp_path / "recipe.yaml", workers=1)
    build(tmp_path / "photos", tmp_path / "other", written, workers=1)

    assert contents(tmp_path / "cache") == contents(tmp_path / "other")


def test_a_recipe_that_named_its_folders_keeps_them_without_being_given_again(tmp_path):
    photos, cache = image_folder(tmp_path / "photos", ("cat", "dog", "test"), count=2), tmp_path / "cache"
    build(photos, cache, SIZE_8 | {"splits": {"train": {"folder": "."}}}, workers=1)
    image_folder(photos, ("bus",), count=2, first_seed=70)

    assert status(photos, cache).refused is None
    report = build(photos, cache, workers=1)
    assert (list(report.class_counts), report.samples) == (["bus", "cat", "dog", "test"], {"train": 8})


def test_folders_that_a_recipe_left_out_stay_out(tmp_path):
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    image_folder(photos / "train", ("cat",), count=2)
    image_folder(photos / "val", ("ant",), count=2, first_seed=50)
    build(photos, cache, SIZE_8 | {"splits": {"train": {"folder": "train"}}}, workers=1)
    write_image(photos / "train" / "cat" / "new.png", 99)

    report = build(photos, cache, overrides=["seed=1"], workers=1)
    assert (report.samples, list(report.class_counts)) == ({"train": 3}, ["cat"])
