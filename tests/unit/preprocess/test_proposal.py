"""A recipe follows from what a folder holds, says so truly, and can be built."""

import json

import cv2
import numpy as np
import pytest
import yaml

from preprocess import Recipe, build, propose_recipe
from preprocess.errors import RecipeError, UsageError
from preprocess.recipe import load_yaml
from preprocess.show import show
from tests import jpegs
from tests.helpers import picture, write_image
from tests.tiffs import tiff


def put(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image if isinstance(image, bytes) else cv2.imencode(path.suffix, image)[1].tobytes())


def written(proposal, folder):
    """The recipe as its file says it; which is the one that was proposed, and can be built."""
    path = folder / "recipe.yaml"
    proposal.write(path)
    values = load_yaml(path)
    recipe = Recipe.from_dict(values)
    assert recipe == proposal.recipe
    assert all(len(line) <= 80 or "#" not in line for line in path.read_text("utf-8").splitlines())
    report = build(proposal.source, folder / "cache", path, dry_run=True, device="cpu", workers=1)
    assert sum(report.samples.values()) <= sum(proposal.found["splits"].values())
    return values


def many(root, count, height, width, suffix=".jpg"):
    for number in range(count):
        put(root / f"{number}{suffix}", picture(number, height, width))
    return root


def test_folders_of_splits(tmp_path):
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            many(tmp_path / "photos" / split / name, 2, 300, 400)
    proposal = propose_recipe(tmp_path / "photos")

    values = written(proposal, tmp_path)

    assert values["size"] == 224
    assert values["splits"] == {
        "train": {
            "folder": "train",
            "variants": 4,
            "transforms": [
                {"RandomResizedCrop": {"size": "same", "scale": [0.35, 1.0]}},
                {"HorizontalFlip": {"p": 0.5}},
            ],
        },
        "val": {
            "folder": "val",
            "variants": 1,
            "transforms": [
                {"SmallestMaxSize": {"max_size": "same * 8/7"}},
                {"CenterCrop": {"height": "same", "width": "same"}},
            ],
        },
    }
    assert "train 4, val 4 images, 2 classes" in str(proposal)
    assert "resizing for evaluation shrinks 8, typically 1.2 times" in " ".join(str(proposal).split())


def test_a_layout_that_a_build_refuses_is_written_down_with_the_doubt_and_what_is_lost(tmp_path):
    for split in ("train", "val"):
        many(tmp_path / "photos" / "images" / split, 2, 40, 40, ".png")
        put(tmp_path / "photos" / "masks" / split / "0.png", picture(9, 40, 40))
    (tmp_path / "photos" / "logs").mkdir()
    with pytest.raises(UsageError, match="can be read in more than one way"):
        build(tmp_path / "photos", tmp_path / "refused")

    proposal = propose_recipe(tmp_path / "photos")

    values = written(proposal, tmp_path)
    assert {name: split["folder"] for name, split in values["splits"].items()} == {
        "train": "images/train",
        "val": "images/val",
    }
    assert "This is a guess: folders are named like the parts of a data set" in proposal.reasons["splits"][1]
    assert "'masks': masks, boxes and annotations cannot be said in a recipe" in proposal.notes[0]


def test_classes_and_folders_without_images_are_told(tmp_path):
    for name in ("cat", "dog"):
        many(tmp_path / "photos" / "Train" / name, 2, 40, 40, ".png")
    (tmp_path / "photos" / "logs").mkdir()

    proposal = propose_recipe(tmp_path / "photos")

    assert proposal.found["class_counts"] == {"cat": 2, "dog": 2}
    assert "  classes    cat 2, dog 2" in str(proposal).splitlines()
    assert "folders in which no image was found were skipped: 'logs'" in proposal.notes
    assert not any("add them" in note for note in proposal.notes)
    assert written(proposal, tmp_path)["splits"]["train"]["folder"] == "Train"


def test_the_size_of_the_cache_is_what_a_build_needs(tmp_path):
    many(tmp_path / "photos" / "train" / "cat", 3, 40, 40, ".png")
    many(tmp_path / "photos" / "val" / "cat", 2, 40, 40, ".png")

    proposal = propose_recipe(tmp_path / "photos")

    build(tmp_path / "photos", tmp_path / "cache", proposal.recipe, device="cpu", workers=1)

    held = json.loads(show(tmp_path / "cache", as_json=True))
    stored = sum(split["bytes"] for split in held["splits"].values())
    assert f"about {stored / 1024:.1f} KiB in all" in proposal.reasons["dtype"][1]


def test_classes_without_splits_give_up_a_part_for_validation(tmp_path):
    many(tmp_path / "photos" / "cat", 50, 32, 32, ".png")

    values = written(propose_recipe(tmp_path / "photos"), tmp_path)

    assert values["splits"]["train"]["folder"] == "."
    assert {key: values["splits"]["val"][key] for key in ("from", "fraction")} == {"from": "train", "fraction": 0.1}


def test_few_images_and_flat_folders_are_one_split(tmp_path):
    many(tmp_path / "few" / "cat", 4, 32, 32)
    many(tmp_path / "flat", 60, 32, 32)

    few, flat = propose_recipe(tmp_path / "few"), propose_recipe(tmp_path / "flat")

    assert list(few.recipe.splits) == list(flat.recipe.splits) == ["train"]
    assert "label -1" in str(flat)
    written(flat, tmp_path)


def test_without_training_images_nothing_is_random(tmp_path):
    many(tmp_path / "photos" / "test" / "cat", 2, 40, 40)

    values = written(propose_recipe(tmp_path / "photos"), tmp_path)

    assert [next(iter(step)) for step in values["splits"]["test"]["transforms"]] == ["SmallestMaxSize", "CenterCrop"]


def test_tiny_images_stay_as_large_as_they_are(tmp_path):
    many(tmp_path / "photos" / "cat", 3, 32, 32, ".png")
    proposal = propose_recipe(tmp_path / "photos")

    values = written(proposal, tmp_path)

    assert values["size"] == 32
    assert values["splits"]["train"]["transforms"][0]["RandomResizedCrop"]["scale"] == [0.64, 1.0]
    assert proposal.reasons["size"] == ("32x32", "the size of every image; 0 of 3 images are smaller")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([(28, 28)] * 3, 28),
        ([(100, 140), (120, 100), (90, 300)], 96),
        ([(20, 22), (21, 30), (24, 20)], 20),
        ([(224, 300), (1000, 1000), (500, 500)], 224),
        ([(250, 250)] * 3, 224),
        ([(28, 56)] * 3, [28, 56]),
    ],
)
def test_size_follows_the_shorter_sides(tmp_path, sizes, expected):
    for number, (height, width) in enumerate(sizes):
        write_image(tmp_path / "photos" / "cat" / f"{number}.png", number, height, width)

    assert written(propose_recipe(tmp_path / "photos"), tmp_path)["size"] == expected


def test_a_size_that_was_asked_for(tmp_path):
    many(tmp_path / "photos" / "train" / "cat", 2, 200, 200)
    many(tmp_path / "photos" / "val" / "cat", 2, 200, 200)

    wide = written(propose_recipe(tmp_path / "photos", (96, 160)), tmp_path)
    large = propose_recipe(tmp_path / "photos", 400)

    assert wide["size"] == [96, 160]
    assert wide["splits"]["train"]["transforms"][0]["RandomResizedCrop"]["ratio"] == ["same * 3/4", "same * 4/3"]
    assert wide["splits"]["val"]["transforms"][0] == {"SmallestMaxSize": {"max_size_hw": "same * 8/7"}}
    assert large.recipe.splits["val"].transforms[0]["SmallestMaxSize"]["max_size"] == 400
    assert "4 of 4 images are smaller; resizing for evaluation enlarges 4, at most 2.0 times" in large.text.replace(
        "\n# ", " "
    )
    with pytest.raises(RecipeError, match="sides of 1 to"):
        propose_recipe(tmp_path / "photos", 0)


def test_gray_only_if_all_images_are(tmp_path):
    for number in range(3):
        put(tmp_path / "photos" / "cat" / f"{number}.jpg", jpegs.gray_jpeg(number))
    gray = propose_recipe(tmp_path / "photos")
    assert written(gray, tmp_path)["channels"] == "gray"
    assert "imagenet" not in gray.text  # a recipe refuses it for gray

    put(tmp_path / "photos" / "cat" / "colour.jpg", jpegs.jpeg())
    mixed = propose_recipe(tmp_path / "photos")
    assert mixed.recipe.channels == "rgb"
    assert mixed.reasons["channels"][1].startswith("1 of 4 images looked at are stored in colour")


@pytest.mark.parametrize(("large", "small", "reduced"), [(3, 1, True), (2, 2, False), (0, 1, False)])
def test_reduced_decoding_where_most_jpegs_are_far_larger(tmp_path, large, small, reduced):
    folder = tmp_path / "photos" / "cat"
    for number in range(large + small):
        height, width = (896, 1000) if number < large else (400, 500)
        put(folder / f"{number}.jpg", jpegs.jpeg(number, height, width))

    values = written(propose_recipe(tmp_path / "photos"), tmp_path)

    assert values["size"] == 224
    assert values["decode"] == {"max_megapixels": 179, "reduced": reduced}


def test_images_over_the_cap_are_named(tmp_path):
    huge = jpegs.patched(jpegs.jpeg(), b"\xff\xc0", 5, b"\x4e\x20\x4e\x20")  # 20,000 x 20,000 pixels, says its header
    put(tmp_path / "photos" / "cat" / "huge.jpg", huge)
    put(tmp_path / "photos" / "cat" / "small.jpg", jpegs.jpeg())

    assert "1 of 2 images looked at: over 179 megapixels, and left out" in propose_recipe(tmp_path / "photos").notes[0]


def test_what_decoding_drops_is_named(tmp_path):
    folder = tmp_path / "photos" / "cat"
    put(folder / "deep.png", picture(1).astype(np.uint16) * 257)
    put(folder / "clear.png", np.dstack([picture(2), np.full((24, 32), 9, np.uint8)]))
    put(folder / "turned.jpg", jpegs.inserted(jpegs.jpeg(), jpegs.exif(8)))
    proposal = propose_recipe(tmp_path / "photos")

    notes = " / ".join(proposal.notes)

    assert "1 of 3 images looked at: more than 8 bits a channel; the upper 8 are kept" in notes
    assert "1 of 3 images looked at: alpha, which is dropped" in notes
    assert "1 of 3 images looked at: an EXIF orientation, which is applied" in notes
    assert proposal.found["bits"] == {"8": 2, "16": 1}
    assert proposal.found["orientations"] == {"1": 2, "8": 1}
    written(proposal, tmp_path)


def test_a_folder_without_any_readable_header(tmp_path):
    put(tmp_path / "photos" / "cat" / "a.jpg", b"no image")
    put(tmp_path / "photos" / "cat" / "b.tiff", picture(1))
    put(tmp_path / "photos" / "cat" / "c.jxl", b"\xff\x0a" + bytes(40))
    proposal = propose_recipe(tmp_path / "photos")

    values = written(proposal, tmp_path)

    assert (values["size"], values["channels"]) == (224, "rgb")
    shown = " ".join(str(proposal).split())
    assert "no header says how large the images are" in shown
    assert "1 of 3 images looked at: no readable header, so that they will probably be left out (cat/a.jpg)" in shown
    assert "2 of 3 images looked at: of a format whose size is not known" in shown
    assert "1 of 3 images looked at: JPEG XL, which OpenCV cannot decode here" in shown


def test_odd_names_neither_break_the_file_nor_the_lines(tmp_path):
    source = tmp_path / "my ☂ photos - size: 3 #"
    put(source / "größe: {x}" / "a\nb: #.jpg", b"no image")
    put(source / "größe: {x}" / "ünïcode ☂.png", picture(1, 32, 32))
    put(source / "größe: {x}" / "\udcff.png", picture(2, 32, 32))

    proposal = propose_recipe(source)
    values = written(proposal, tmp_path)

    assert values["size"] == 32
    assert r"'größe: {x}/a\nb: #.jpg'" in str(proposal)
    assert all(len(line) <= 80 for line in str(proposal).splitlines()[1:-2])


def test_as_json(tmp_path):
    many(tmp_path / "photos" / "cat", 2, 32, 32)
    proposal = propose_recipe(tmp_path / "photos")

    told = json.loads(proposal.to_json())

    assert Recipe.from_dict(told["recipe"]) == Recipe.from_dict(yaml.safe_load(told["text"])) == proposal.recipe
    assert told["choices"]["size"]["chosen"] == "32x32"
    assert told["path"] is None
    assert told["found"]["median_hw"] == [32, 32]


def test_the_command_it_names_puts_the_cache_outside_of_the_images(tmp_path, monkeypatch):
    many(tmp_path / "photos" / "train", 1, 32, 32)

    for here, source, cache in (
        (tmp_path, "photos", "photos.cache"),
        (tmp_path, "photos/train/", "train.cache"),
        (tmp_path / "photos", ".", f"{tmp_path}/photos.cache"),
        (tmp_path / "photos" / "train", "..", f"{tmp_path}/photos.cache"),
    ):
        monkeypatch.chdir(here)
        assert str(propose_recipe(source)).endswith(f" {cache} --recipe recipe.yaml")


def test_a_file_that_is_there_stays_unless_it_is_to_be_overwritten(tmp_path):
    many(tmp_path / "photos" / "cat", 1, 32, 32)
    proposal, path = propose_recipe(tmp_path / "photos"), tmp_path / "recipe.yaml"
    path.write_text("mine")

    with pytest.raises(UsageError, match=r"recipe.yaml' exists; .*--force"):
        proposal.write(path)
    assert path.read_text() == "mine"
    assert proposal.path is None

    proposal.write(path, overwrite=True)
    assert path.read_text("utf-8") == proposal.text
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="photos' is a folder"):
            proposal.write(tmp_path / "photos", overwrite=overwrite)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["photos", "recipe.yaml"]


def test_a_folder_without_images(tmp_path):
    with pytest.raises(UsageError, match="holds no image"):
        propose_recipe(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        propose_recipe(tmp_path / "none")


def test_images_that_a_build_refuses_get_the_key_that_admits_them(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    small = np.zeros((40, 50), np.uint8)
    for number in range(3):
        (folder / f"{number}.png").write_bytes(cv2.imencode(".png", values)[1].tobytes())
    (folder / "bands.tif").write_bytes(tiff(np.zeros((40, 50, 5), np.uint8)))
    (folder / "stack.tif").write_bytes(tiff(small, pages=[(small, {})]))
    (folder / "plain.png").write_bytes(cv2.imencode(".png", small)[1].tobytes())

    proposal = propose_recipe(folder)

    decode = written(proposal, tmp_path)["decode"]
    assert decode["levels"] == [0, 4095]
    assert (decode["extra_channels"], decode["pages"]) == ("drop", "first")
    assert proposal.reasons["levels"][1].startswith("3 of 3 16-bit images")
    assert "bands.tif" in proposal.reasons["extra_channels"][1]
    assert "stack.tif" in proposal.reasons["pages"][1]
    assert any("the window [0, 4095] of them is kept" in note for note in proposal.notes)
    assert not build(folder, tmp_path / "cache", proposal.recipe).failures


def test_no_window_is_proposed_where_none_suits(tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    for name, image in (("few", values), ("many", values * 16)):
        (folder / f"{name}.png").write_bytes(cv2.imencode(".png", image)[1].tobytes())

    proposal = propose_recipe(folder)

    assert proposal.recipe.canonical()["decode"] == Recipe().canonical()["decode"]
    assert any("1 of 2 that were decoded will be left out" in note for note in proposal.notes)


def test_the_median_image_is_one_of_them(tmp_path):
    """Height and width apart, the median would be 20x20, which no image has."""
    for number, (height, width) in enumerate([(10, 30), (20, 10), (30, 20)]):
        write_image(tmp_path / "photos" / "cat" / f"{number}.png", number, height, width)

    found = propose_recipe(tmp_path / "photos").found

    assert (found["smallest_hw"], found["median_hw"], found["largest_hw"]) == ([20, 10], [10, 30], [30, 20])
