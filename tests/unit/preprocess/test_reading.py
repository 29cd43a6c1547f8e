"""A build reads a folder in one way or refuses; a refusal and `decant init` say in which other way it may be read."""

from types import SimpleNamespace

import pytest
import yaml

from preprocess.errors import UsageError
from preprocess.layouts import read_names
from preprocess.reading import WHOLE, best_reading, presumed_splits, propose_splits, settle
from preprocess.recipe import Recipe
from tests.unit.preprocess.test_scan import touch, tree

TRAIN_VAL = ["train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg"]
AS_TRAIN_VAL = {"train": "train", "val": "val"}


def snapshot(folders, classes):
    """As much of a snapshot as a reading asks for."""
    recipe = Recipe().with_splits(list(folders.items()))
    return SimpleNamespace(recipe=recipe.canonical(), classes=tuple(classes))


def read(source, recipe=None, previous=None):
    """split -> folder, and the classes with images."""
    whole, found, _ = settle(source, Recipe.from_dict(recipe or {}), previous)
    classes = sorted({n for split in found.splits.values() for n, count in split.class_counts().items() if count})
    return {name: split.folder for name, split in whole.splits.items()}, classes


def refused(source, recipe=None, previous=None):
    """The readings that a refusal offers, each as split -> folder, out of its lines of recipe."""
    with pytest.raises(UsageError, match="can be read in more than one way: .") as caught:
        read(source, recipe, previous)
    assert caught.value.exit_code == 2
    assert "decant init" in str(caught.value)
    lines = [yaml.safe_load(line) for line in str(caught.value).splitlines() if line.startswith("    splits: ")]
    ways = [{name: split["folder"] for name, split in line["splits"].items()} for line in lines]
    for line in lines:  # each settles it
        settle(source, Recipe.from_dict(line))
    return ways


# -- certain -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "splits", "classes"),
    [
        (["cat/1.jpg", "dog/1.jpg"], {"train": "."}, ["cat", "dog"]),
        (["1.jpg", "2.jpg"], {"train": "."}, []),
        (["cat/1.jpg", "dog/2.jpg", "logs/x.txt"], {"train": "."}, ["cat", "dog"]),
        (["1.jpg", "2.jpg", "test/", "train/"], {"train": "."}, []),
        (["a/1.jpg", "photos/1.jpg"], {"train": "."}, ["a", "photos"]),
        (["freight_train/1.jpg", "test_tube/1.jpg"], {"train": "."}, ["freight_train", "test_tube"]),
        (["a/1.jpg", "a/b/2.jpg", "a/c/3.jpg"], {"train": "."}, ["a"]),
        (["train_station/1.jpg", "test tube/1.jpg"], {"train": "."}, ["test tube", "train_station"]),
        (["mask/1.jpg", "no_mask/1.jpg"], {"train": "."}, ["mask", "no_mask"]),
        (["rail/train/1.jpg", "rail/tram/1.jpg", "cat/1.jpg"], {"train": "."}, ["cat", "rail"]),
        (["train/a/1.jpg"], {"train": "train"}, ["a"]),
        (
            [f"{n}/a/1.jpg" for n in ("test", "validation", "val", "train", "valid")],
            {n: n for n in ("train", "val", "valid", "validation", "test")},
            ["a"],
        ),
        (["Train/a/1.jpg", "TEST/a/1.jpg"], {"train": "Train", "test": "TEST"}, ["a"]),
        (["Train/1.jpg", "val/1.jpg"], {"train": "Train", "val": "val"}, []),
        (["training/a/1.jpg", "validation/a/1.jpg"], {"train": "training", "validation": "validation"}, ["a"]),
        (
            ["train/a/1.jpg", "dev/a/1.jpg", "testing/a/1.jpg"],
            {"train": "train", "val": "dev", "test": "testing"},
            ["a"],
        ),
        (["train/a/1.jpg", "Eval/1.jpg"], {"train": "train", "val": "Eval"}, ["a"]),
        *(
            ([*TRAIN_VAL, beside], AS_TRAIN_VAL, ["a", "b"])
            for beside in ("logs/", "logs/x.txt", "annotations/a/b.json")
        ),
        *(([*TRAIN_VAL, beside], AS_TRAIN_VAL, ["a", "b"]) for beside in ("__MACOSX/._1.jpg", "@eaDir/1.jpg", "9.jpg")),
        *(([*TRAIN_VAL, beside], AS_TRAIN_VAL, ["a", "b"]) for beside in (".cache/1.jpg", "readme.txt", "test_logs/x")),
        ([*TRAIN_VAL, "test/"], AS_TRAIN_VAL | {"test": "test"}, ["a", "b"]),
        (["train/train/1.jpg", "train/bus/1.jpg"], {"train": "train"}, ["bus", "train"]),
    ],
)
def test_a_certain_layout(tmp_path, names, splits, classes):
    assert read(tree(tmp_path / "source", *names)) == (splits, classes)
    assert not best_reading(tmp_path / "source").doubt


def test_what_stands_beside_splits_is_told(tmp_path):
    source = tree(tmp_path / "source", *TRAIN_VAL, "logs/x.txt", "annotations/x.json", "new/", "@eaDir/1.jpg", "9.jpg")
    _, found, notes = settle(source, Recipe())
    assert found.empty_folders == ["annotations", "logs", "new"]
    assert found.unused_folders == []
    assert found.beside.examples == ["9.jpg"]
    assert notes == []


def test_class_folders_are_not_looked_into_before_the_scan(tmp_path, monkeypatch):
    """A build with nothing to do is as fast as the listing of its folders: once, not twice."""
    source = tree(tmp_path / "source", *(f"{c}/{i}.jpg" for c in "abc" for i in range(3)))
    monkeypatch.setattr("preprocess.layouts.holds_images", lambda folder: pytest.fail(f"looked into {folder}"))
    assert propose_splits(source) == WHOLE
    source = tree(tmp_path / "splits", *TRAIN_VAL)
    assert propose_splits(source) == list(AS_TRAIN_VAL.items())


# -- in doubt ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "guess"),
    [
        # names of splits beside other folders with images
        ([*TRAIN_VAL, "extra/1.jpg"], AS_TRAIN_VAL),
        ([*TRAIN_VAL, "extra/deep/er/1.jpg"], AS_TRAIN_VAL),
        (["train/1.jpg", "apple/1.jpg", "bus/1.jpg"], {"train": "."}),
        (["cat/1.jpg", "dog/1.jpg", "test/"], {"train": "."}),
        (["train/a/1.jpg", "train_masks/1.png"], {"train": "train"}),
        (["train/1.png", "trainannot/1.png", "val/1.png", "valannot/1.png"], AS_TRAIN_VAL),
        # two folders that mean one split
        (["train/a/1.jpg", "Train/a/1.jpg"], {"Train": "Train", "train": "train"}),
        (["val/a/1.jpg", "Val/a/1.jpg", "train/a/1.jpg"], {"train": "train", "Val": "Val", "val": "val"}),
        (["train/a/1.jpg", "dev/a/1.jpg", "eval/a/1.jpg"], {"train": "train", "dev": "dev", "eval": "eval"}),
        # names that are nearly those of splits
        (["train2017/1.jpg", "val2017/1.jpg", "annotations/x.json"], {"train": "train2017", "val": "val2017"}),
        (["training_set/a/1.jpg", "test_set/a/1.jpg"], {"train": "training_set", "test": "test_set"}),
        (["train2014/1.jpg", "train2017/1.jpg"], {"train2014": "train2014", "train2017": "train2017"}),
        # splits where classes should be
        (["train/train/1.jpg", "test/test/1.jpg"], {"train": "train/train", "test": "test/test"}),
        (["train/train/a/1.jpg", "train/test/a/1.jpg"], {"train": "train/train", "test": "train/test"}),
        (["cat/train/1.jpg", "cat/test/1.jpg", "dog/train/1.jpg", "dog/test/1.jpg"], {"train": "."}),
        (["cat/train/1.jpg", "cat/test/1.jpg", "dog/1.jpg"], {"train": "."}),
        (["cars_train/1.jpg", "cars_test/1.jpg"], {"train": "cars_train", "test": "cars_test"}),
        (["cars_train/cars_train/1.jpg", "cars_test/cars_test/1.jpg"], {"train": "cars_train", "test": "cars_test"}),
        (
            ["trainA/1.jpg", "trainB/1.jpg", "testA/1.jpg", "testB/1.jpg"],
            {n: n for n in ("trainA", "trainB", "testA", "testB")},
        ),
        (["DIV2K_train_HR/1.png", "DIV2K_valid_HR/1.png"], {"train": "DIV2K_train_HR", "valid": "DIV2K_valid_HR"}),
        (["x_train/1.jpg", "x_test/1.jpg", "extra/1.jpg"], {"train": "x_train", "test": "x_test"}),
        (["imagesTr/1.png", "imagesTs/1.png", "labelsTr/1.png"], {"train": "imagesTr", "test": "imagesTs"}),
        # most images lie beside folders
        (["1.jpg", "2.jpg", "3.jpg", "thumbs/1.jpg"], {"train": "."}),
        (["train/1.jpg", "train/2.jpg", "train/3.jpg", "train/crops/1.jpg", "val/1.jpg"], AS_TRAIN_VAL),
        (["1.jpg", "2.jpg", "test/cat/1.jpg"], {"test": "test"}),
        # masks inside of classes
        (["COVID/images/1.png", "COVID/masks/1.png", "Normal/images/1.png", "Normal/masks/1.png"], {"train": "."}),
        (["cat/1.jpg", "cat/masks/1.png", "dog/2.jpg"], {"train": "."}),
        # one folder around everything
        (["a/b/1.jpg"], {"train": "a/b"}),
        (
            ["VOCdevkit/VOC2012/JPEGImages/1.jpg", "VOCdevkit/VOC2012/Annotations/1.xml"],
            {"train": "VOCdevkit/VOC2012/JPEGImages"},
        ),
        (["coco/images/1.jpg", "coco/annotations/a.json"], {"train": "coco/images"}),
        (["archive/a/1.jpg", "archive/b/1.jpg"], {"train": "archive"}),
        (["x/y/z/a/1.jpg", "x/y/z/b/1.jpg", "readme.txt"], {"train": "x/y/z"}),
        (["archive/train/a/1.jpg", "archive/Test/a/1.jpg"], {"train": "archive/train", "test": "archive/Test"}),
        (
            ["train/d/a/1.jpg", "train/d/b/1.jpg", "val/d/a/1.jpg", "val/d/b/1.jpg"],
            {"train": "train/d", "val": "val/d"},
        ),
        # data sets for detection and segmentation
        (["images/1.jpg", "masks/1.png"], {"train": "images"}),
        (["images/1.jpg", "labels/1.txt"], {"train": "images"}),
        (["images/1.jpg"], {"train": "images"}),
        (["images/a/1.jpg", "images/b/1.jpg", "parts/x.txt"], {"train": "images"}),
        (["masks/1.png", "1.jpg"], {"train": "."}),
        (
            ["images/train/1.jpg", "images/val/1.jpg", "labels/train/1.txt", "labels/val/1.txt", "data.yaml"],
            {"train": "images/train", "val": "images/val"},
        ),
        (
            ["train/images/1.jpg", "train/labels/1.txt", "valid/images/1.jpg", "valid/labels/1.txt"],
            {"train": "train/images", "valid": "valid/images"},
        ),
        (["train/images/1.jpg", "train/masks/1.png", "test/1.jpg"], {"train": "train/images", "test": "test"}),
        (
            ["JPEGImages/1.jpg", "Annotations/1.xml", "SegmentationClass/1.png", "ImageSets/a.txt"],
            {"train": "JPEGImages"},
        ),
        (
            ["VOCdevkit/VOC2012/JPEGImages/1.jpg", "VOCdevkit/VOC2012/SegmentationClass/1.png"],
            {"train": "VOCdevkit/VOC2012/JPEGImages"},
        ),
        (
            ["images/train2017/1.jpg", "images/val2017/1.jpg", "annotations/x.json"],
            {"train": "images/train2017", "val": "images/val2017"},
        ),
        (["leftImg8bit/train/x/1.png", "gtFine/train/x/1.png"], {"train": "leftImg8bit/train"}),
    ],
)
def test_a_layout_in_doubt_is_refused_and_init_has_a_guess(tmp_path, names, guess):
    source = tree(tmp_path / "source", *names)
    ways = refused(source)
    assert ways[0] == guess
    assert {"train": "."} in ways
    best = best_reading(source)
    assert dict(best.splits) == guess
    assert best.doubt
    settle(source, Recipe().with_splits(best.splits))


def test_both_readings_are_offered(tmp_path):
    source = tree(tmp_path / "source", "train/1.jpg", "apple/1.jpg", "bus/1.jpg")
    assert refused(source) == [{"train": "."}, {"train": "train"}]


@pytest.mark.parametrize("name", ["it's", "a b", "a: b", "#1", "é", "-", "1", "null", "[x"])
def test_lines_of_recipe_survive_odd_names(tmp_path, name):
    source = tree(tmp_path / "source", f"{name}/train/a/1.jpg", f"{name}/val/a/1.jpg")
    assert refused(source)[0] == {"train": f"{name}/train", "val": f"{name}/val"}


@pytest.mark.parametrize(
    ("names", "lost"),
    [
        (["images/1.jpg", "masks/1.png"], "'masks': masks, boxes and annotations cannot be said in a recipe"),
        (["train2017/1.jpg", "annotations/x.json"], "'annotations': masks, boxes and annotations cannot be said"),
        (
            ["cat/train/1.jpg", "cat/test/1.jpg", "dog/1.jpg"],
            "'cat/test', 'cat/train': a recipe cannot put folders of several classes",
        ),
        (["masks/1.png", "1.jpg"], "images that lie loose in '.' need a folder of their own"),
    ],
)
def test_what_a_recipe_cannot_say_is_told(tmp_path, names, lost):
    source = tree(tmp_path / "source", *names)
    assert best_reading(source).left_out[0].startswith(lost)
    with pytest.raises(UsageError) as caught:
        settle(source, Recipe())
    assert lost in str(caught.value)


# -- recipes -----------------------------------------------------------------------------------------------------------


def test_folders_that_a_recipe_names_are_taken_as_they_are(tmp_path, monkeypatch):
    source = tree(tmp_path / "source", "images/1.jpg", "masks/1.png", "train/2.jpg", "Train/3.jpg")
    monkeypatch.setattr("preprocess.reading.read_names", lambda *_: pytest.fail("SOURCE was read for its splits"))
    recipe = {"splits": {"train": {"folder": "."}, "val": {"from": "train", "fraction": 0.5}}}
    assert read(source, recipe) == ({"train": ".", "val": None}, ["Train", "images", "masks", "train"])


def test_several_splits_of_a_recipe_have_folders_by_their_names(tmp_path):
    source = tree(tmp_path / "source", "Train/a/1.jpg", "dev/a/1.jpg", "extra/1.jpg")
    recipe = {"splits": {"train": {"variants": 2}, "val": {}}}
    assert read(source, recipe) == ({"train": "Train", "val": "dev"}, ["a"])
    _, found, _ = settle(source, Recipe.from_dict(recipe))
    assert found.unused_folders == ["extra"]
    touch(source / "TRAIN" / "a" / "1.jpg")
    with pytest.raises(UsageError, match="split 'train': the folders 'TRAIN', 'Train' .* both mean it"):
        read(source, recipe)
    touch(source / "train" / "a" / "1.jpg")
    assert read(source, recipe)[0]["train"] == "train"  # the exact name


def test_a_single_split_of_a_recipe_is_read_like_any_folder(tmp_path):
    recipe = {"splits": {"train": {"variants": 2}}}
    assert read(tree(tmp_path / "classes", "cat/1.jpg", "dog/1.jpg"), recipe)[0] == {"train": "."}
    assert read(tree(tmp_path / "splits", *TRAIN_VAL), recipe)[0] == {"train": "train"}
    assert refused(tree(tmp_path / "doubt", "train/1.jpg", "cat/1.jpg"), recipe)


# -- snapshots ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["Train/a/1.jpg", "Test/a/1.jpg"], ["train/a/1.jpg", "val/1.jpg", "logs/x"]])
def test_a_snapshot_with_splits_as_classes_keeps_them_and_says_so(tmp_path, names):
    """It may have been meant, and its recipe does not tell: the folder '.' is written down in both cases."""
    source = tree(tmp_path / "source", *names)
    previous = snapshot({"train": "."}, sorted(name.split("/")[0] for name in names))
    whole, found, (note,) = settle(source, Recipe(), previous)
    assert [split.folder for split in whole.splits.values()] == ["."]
    assert set(found.splits["train"].class_names) <= set(previous.classes)
    assert "read as before, splits: {train: {folder: .}}, although" in note
    assert presumed_splits(source, previous) == WHOLE


def test_a_snapshot_whose_classes_would_become_splits_is_refused(tmp_path):
    """Its images have moved into split folders: 'train' and 'val' were no classes of it."""
    source = tree(tmp_path / "source", *TRAIN_VAL)
    assert refused(source, previous=snapshot({"train": "."}, ["a", "b"])) == [AS_TRAIN_VAL, {"train": "."}]
    source = tree(tmp_path / "classes", "a/1.jpg", "b/1.jpg", "test/2.jpg")
    assert refused(source, previous=snapshot({"train": "."}, ["a", "b"])) == [{"train": "."}, {"test": "test"}]


def test_a_snapshot_of_splits_keeps_them_whatever_comes_beside_them(tmp_path):
    source = tree(tmp_path / "source", *TRAIN_VAL, "extra/1.jpg", "logs/x.txt", "train/new class/1.jpg")
    whole, found, (note,) = settle(source, Recipe(), snapshot(AS_TRAIN_VAL, ["a", "b"]))
    assert {name: split.folder for name, split in whole.splits.items()} == AS_TRAIN_VAL
    assert (found.unused_folders, found.empty_folders) == (["extra"], ["logs"])
    assert "'extra'" in note
    touch(source / "Test" / "a" / "1.jpg")  # a new one joins
    assert read(source, previous=snapshot(AS_TRAIN_VAL, ["a", "b"]))[0] == AS_TRAIN_VAL | {"test": "Test"}


@pytest.mark.parametrize("folders", [{"train": "."}, AS_TRAIN_VAL, {"train": "train"}])
def test_a_snapshot_that_is_not_in_doubt_is_read_as_ever(tmp_path, folders):
    names = ["cat/1.jpg", "dog/1.jpg"] if folders == {"train": "."} else [f"{split}/a/1.jpg" for split in folders]
    source = tree(tmp_path / "source", *names)
    _, _, notes = settle(source, Recipe(), snapshot(folders, []))
    assert notes == []
    assert read(source, previous=snapshot(folders, []))[0] == folders


def test_a_snapshot_keeps_classes_that_look_like_parts_of_a_data_set(tmp_path):
    source = tree(tmp_path / "source", "images/1.jpg", "masks/1.png")
    _, _, (note,) = settle(source, Recipe(), snapshot({"train": "."}, ["images", "masks"]))
    assert "named like the parts of a data set, not like classes ('images', 'masks')" in note
    assert refused(source, previous=snapshot({"train": "."}, ["images"]))[0] == {"train": "images"}


# -- errors ------------------------------------------------------------------------------------------------------------


def test_a_source_without_folders_or_none_at_all(tmp_path):
    assert propose_splits(tree(tmp_path / "empty")) == WHOLE
    for look in (propose_splits, read_names, best_reading):
        with pytest.raises(UsageError, match="does not exist"):
            look(tmp_path / "none")
    with pytest.raises(UsageError, match="holds no image"):
        best_reading(tmp_path / "empty")


def test_a_split_whose_disk_is_not_mounted_is_no_split_that_is_not_there(tmp_path):
    source = tree(tmp_path / "source", "train/a/1.jpg")
    (source / "val").symlink_to("/mnt/nowhere/val")
    with pytest.raises(UsageError, match=r"'val' in SOURCE .* is a link to '/mnt/nowhere/val', which does not exist"):
        read(source)
    (source / "val").rename(source / "other")
    assert settle(source, Recipe())[1].dead.examples == ["other"]


def test_names_of_splits_that_collide_stay_apart(tmp_path):
    source = tree(tmp_path / "source", "train-1/1.jpg", "train_1/1.jpg", "val/1.jpg")
    assert dict(read_names(source).splits) == {"train_1": "train-1", "train_1_2": "train_1", "val": "val"}


def test_a_folder_beside_splits_that_cannot_be_listed_is_told_as_such(tmp_path, monkeypatch):
    source = tree(tmp_path / "source", *TRAIN_VAL, "other/1.jpg")
    monkeypatch.setattr("preprocess.layouts.holds_images", lambda folder: None if folder.name == "other" else True)
    monkeypatch.setattr("os.access", lambda path, mode: not str(path).endswith("other"))
    found = settle(source, Recipe())[1]
    assert (found.unlisted, found.empty_folders, found.unused_folders) == (["other"], [], [])
