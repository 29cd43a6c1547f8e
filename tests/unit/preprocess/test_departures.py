"""Each line that a build says of a folder that is not quite what one expects."""

from collections import Counter

import numpy as np
import pytest

from preprocess import environment
from preprocess.departures import departures, lost_classes, lost_in_decoding, shifted
from preprocess.paths import Paths
from preprocess.recipe import Recipe
from preprocess.scan import STAT, Scan, SplitScan, Tally, scan
from tests.unit.preprocess.test_scan import tree


@pytest.fixture(autouse=True)
def _sound_installation(monkeypatch):
    monkeypatch.setattr(environment, "doubts", list)


def split(name, class_names, counts):
    """A scanned split with so many images of each class; flat where `class_names` is None."""
    index = np.repeat(np.arange(len(counts)), counts) if class_names is not None else np.full(sum(counts), -1)
    paths = Paths([f"{name}/{i}.jpg" for i in range(sum(counts))])
    return SplitScan(name, name, paths, class_names, index.astype(np.int64), np.zeros(len(paths), STAT))


def scan_of(*splits, **fields):
    values = {
        "hidden": Tally(),
        "other": Tally(),
        "loose": Tally(),
        "loops": [],
        "unreadable": {},
        "unused_folders": [],
    }
    return Scan({s.name: s for s in splits}, 0, **(values | fields))


def tally(*names):
    result = Tally()
    for name in names:
        result.add(name)
    return result


TRAIN = split("train", ["cat", "dog"], [2, 3])
CLASSES = ["cat", "dog"]


def said(found, classes=CLASSES, former=(), recipe=None):
    return departures(recipe or Recipe(), found, classes, former)


def test_a_folder_as_expected_is_not_worth_a_word():
    assert said(scan_of(TRAIN)) == []
    assert said(scan_of(TRAIN), former=CLASSES) == []


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("hidden", "2 hidden files and folders were skipped (a/.x, .git)"),
        ("other", "2 files were skipped: no image's extension, or no regular file (a/.x, .git)"),
        ("loose", "2 images lie beside the class folders and were skipped (a/.x, .git)"),
        ("beside", "2 images lie in SOURCE beside the folders of the splits and were skipped (a/.x, .git)"),
    ],
)
def test_what_was_passed_over(field, line):
    assert said(scan_of(TRAIN, **{field: tally("a/.x", ".git")})) == [line]


def test_of_many_only_a_few_are_named():
    found = scan_of(TRAIN, other=tally(*(f"{i}.txt" for i in range(1234))))
    assert said(found) == [
        "1,234 files were skipped: no image's extension, or no regular file (0.txt, 1.txt, 2.txt, …)"
    ]


def test_junk_is_counted_by_name_and_folders_without_images_are_named():
    found = scan_of(TRAIN, junk=Counter({"@eaDir": 1200, "._*": 2, "Icon\r": 1}), empty_folders=["logs", "train/x"])
    assert said(found) == [
        "junk of file servers, desktops and editors was skipped: ._* 2, @eaDir 1,200, 'Icon\\r' 1",
        "folders in which no image was found were skipped: 'logs', 'train/x'",
    ]


def test_classes_that_are_called_like_splits_and_such_folders_in_classes():
    odd = split("train", ["Test", "cat"], [2, 3])
    odd.nested = {"cat": ["kittens", "val"]}
    assert said(scan_of(odd), classes=["Test", "cat"]) == [
        "classes have the names of splits: 'Test' with 2 images",
        "folders inside of classes have the names of splits, and belong to their classes: 'train/cat/val'",
    ]


def test_classes_that_are_gone():
    assert lost_classes(["cat"], ["cat"]) == lost_classes(["cat"], []) == lost_classes(["cat", "dog"], ["cat"]) == []
    assert lost_classes(["cat"], ["__MACOSX", "cat", "dog"]) == [
        "classes of the snapshot are gone, 2: '__MACOSX' (0), 'dog' (2); junk by its name, which is skipped now: "
        "'__MACOSX'"
    ]


def test_loops():
    assert said(scan_of(TRAIN, loops=["a/up", "b/up"])) == [
        f"symbolic link {name!r} leads back to a folder above it and was not followed" for name in ("a/up", "b/up")
    ]


def test_folders_that_no_split_has():
    assert said(scan_of(TRAIN, unused_folders=["extra", "test"])) == [
        "no split of the recipe has the folders 'extra', 'test' of SOURCE; add them under 'splits' to include them"
    ]


def test_a_flat_folder():
    assert said(scan_of(TRAIN, split("test", None, [3]))) == ["split 'test' is a flat folder: its images have label -1"]
    assert said(scan_of(TRAIN, split("test", None, [0]))) == []


def test_classes_without_images_are_named_for_each_split():
    found = scan_of(split("train", ["cat", "dog"], [2, 0]), split("val", ["dog"], [1]))
    assert said(found) == [
        "split 'train' has no image of 1 of 2 classes ('dog')",
        "split 'val' has no image of 1 of 2 classes ('cat')",
    ]


def test_of_many_classes_five_are_named():
    names = [f"{i:03d}" for i in range(100)]
    (line,) = said(scan_of(split("train", names, [0] * 99 + [1])), classes=names)
    assert line == "split 'train' has no image of 99 of 100 classes ('000', '001', '002', '003', '004', …)"


def test_classes_of_the_recipe_without_a_folder():
    recipe = Recipe(classes=["zebra", "cat"])
    assert said(scan_of(TRAIN), classes=["zebra", "cat", "dog"], recipe=recipe) == [
        "split 'train' has no image of 1 of 3 classes ('zebra')",
        "classes: 'zebra' of the recipe have no folder; their ids stay reserved",
    ]


def test_shifted_ids():
    found = scan_of(split("train", ["ant", "cat", "dog"], [1, 1, 1]))
    assert said(found, classes=["ant", "cat", "dog"], former=CLASSES) == [
        "class ids shift: 'cat' 0 -> 1, 'dog' 1 -> 2; list 'classes' in the recipe to pin them"
    ]


def test_classes_at_the_end_shift_nothing():
    found = scan_of(split("train", ["cat", "dog", "eel"], [1, 1, 1]))
    assert said(found, classes=["cat", "dog", "eel"], former=CLASSES) == []
    assert said(scan_of(split("train", ["cat"], [1])), classes=["cat"], former=CLASSES) == []


def test_an_id_of_another_class_is_shifted():
    assert shifted(["cat", "hound"], ["cat", "dog"]) == [
        "class ids shift: 1 was 'dog' and is 'hound'; list 'classes' in the recipe to pin them"
    ]


def test_of_many_shifted_ids_ten_are_shown():
    names = [f"{i:03d}" for i in range(50)]
    (line,) = said(scan_of(split("train", ["!", *names], [1] * 51)), classes=["!", *names], former=names)
    assert line.startswith("class ids shift: '000' 0 -> 1, '001' 1 -> 2, ")
    assert "'009' 9 -> 10 and 40 more; list 'classes'" in line
    assert "'010'" not in line


def test_notes_of_the_recipe_come_first_and_doubts_last(monkeypatch):
    monkeypatch.setattr(environment, "doubts", lambda: ["two wheels"])
    recipe = Recipe.from_dict({"splits": {"train": {"transforms": ["Blur", "ToTensorV2"]}}})
    lines = said(scan_of(TRAIN, loops=["a/up"]), recipe=recipe)
    assert lines[0] == "splits.train.transforms[1].ToTensorV2 was taken out; the loader gives tensors"
    assert "a/up" in lines[1]
    assert lines[2:] == ["two wheels"]


def test_what_decoding_loses_is_said_by_its_kind():
    noted = {
        "16-bit": tally("a.png"),
        "9 to 15 bits": tally("f.avif"),
        "a largest value above 255": tally("g.pgm"),
        "16-bit values of which the window keeps few levels": tally("b.png"),
        "window [0, 4095]": tally("b.png", "c.png"),
        "16-bit values beyond the window": tally("c.png"),
        "colour profile 'Adobe RGB (1998)'": tally("d.jpg"),
        "several pages": tally("e.tif"),
    }
    assert lost_in_decoding(noted) == [
        "images with 16-bit, 1: only the high byte was kept (a.png)",
        "images with 9 to 15 bits, 1: only the upper 8 were kept (f.avif)",
        "images with a largest value above 255, 1: scaled to 0..255 (g.pgm)",
        "images with 16-bit values of which the window keeps few levels, 1: fewer than 64 of at least 256; a narrower "
        "window in decode.levels keeps more (b.png)",
        "images with 16-bit, 2: window [0, 4095] onto 0..255 (b.png, c.png)",
        "images with 16-bit values beyond the window, 1: clipped (c.png)",
        "images with several pages, 1: the first was kept (e.tif)",
        "images with colour profile 'Adobe RGB (1998)', 1: not converted (d.jpg)",
    ]


def test_images_that_are_nearly_black_come_first_with_the_window_that_most_of_them_need():
    few = "16-bit values of which few levels are left"
    noted = {"16-bit": tally("a.png"), few: tally("b.png"), f"{few}, window [0, 255]": tally("c.png", "d.png")}
    assert lost_in_decoding(noted)[0] == (
        f"images with {few}, 3: black or of few shades; write decode: {{levels: [0, 255]}} in the recipe to keep more, "
        "which suits 2 of them (b.png, c.png, d.png)"
    )
    del noted[few]
    assert "in the recipe to keep more (c.png, d.png)" in lost_in_decoding(noted)[0]
    (line,) = lost_in_decoding({few: tally("b.png")})
    assert "1: black or of few shades; no one window keeps more of them" in line


def test_of_many_colour_profiles_the_usual_ones_are_named():
    noted = {f"colour profile '{n}'": tally(*(f"{n}{i}.jpg" for i in range(n + 1))) for n in range(8)}
    lines = lost_in_decoding(noted)
    assert [line.split("'")[1] for line in lines[:-1]] == ["7", "6", "5", "4", "3"]
    assert lines[-1] == "images with 3 more colour profiles, 6: not converted"


def test_classes_that_are_called_like_masks_or_like_each_other_are_told(tmp_path):
    source = tree(tmp_path / "source", "cat/1.jpg", "Cat/2.jpg", "caf\u00e9/1.jpg", "cafe\u0301/2.jpg", "masks/3.jpg")
    recipe = Recipe().with_splits([("train", ".")])
    lines = departures(recipe, scan(source, recipe), [], [])
    assert "classes have the names of masks or labels of a data set: 'masks' with 1 images" in lines
    assert "classes differ only in capitals or in how accents are encoded: 'Cat', 'cat'" in lines
    assert sum("how accents are encoded" in line for line in lines) == 2
