"""`same` in a recipe's transforms stands for its own size, whichever that becomes."""

import doctest

import pytest
import yaml

from preprocess import Recipe, RecipeError, own_size, propose_recipe
from preprocess.own_size import filled_in, squeezed
from tests.helpers import image_folder, write_image


def test_examples_hold():
    assert doctest.testmod(own_size).failed == 0


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"RandomResizedCrop": {"size": "same", "scale": [0.5, 1]}}, {"size": [6, 8], "scale": [0.5, 1]}),
        ({"SmallestMaxSize": {"max_size_hw": "same * 3/2"}}, {"max_size_hw": [9, 12]}),
        ({"PadIfNeeded": {"min_height": "same", "min_width": "same*1/4"}}, {"min_height": 6, "min_width": 2}),
        ({"Resize": {"height": 7, "width": "samewhat"}}, {"height": 7, "width": "samewhat"}),
    ],
)
def test_what_it_stands_for_follows_from_the_argument(given, expected):
    (name,) = given
    assert filled_in([given], (6, 8), "t") == [{name: expected}]


def test_it_is_found_within_compositions():
    crop, filled = {"RandomCrop": {"height": "same", "width": "same"}}, {"RandomCrop": {"height": 6, "width": 6}}
    given = ["HorizontalFlip", {"OneOf": [crop, {"Sequential": {"transforms": [crop], "p": 0.5}}]}]
    assert filled_in(given, (6, 6), "t") == [
        "HorizontalFlip",
        {"OneOf": [filled, {"Sequential": {"transforms": [filled], "p": 0.5}}]},
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"SmallestMaxSize": {"max_size": "same"}},
            r"transforms\[0\].SmallestMaxSize.max_size: 'same' is one number",
        ),
        ({"SmallestMaxSize": {"max_size": "same * 0/2"}}, "a fraction of numbers above 0 expected"),
        ({"CenterCrop": {"height": "sane", "width": "same"}}, "CenterCrop.height"),
    ],
)
def test_what_it_cannot_stand_for_is_refused_with_the_place(given, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({"size": [6, 8], "splits": {"train": {"transforms": [given]}}})


def test_a_snapshot_keeps_numbers():
    written = "{size: 64, splits: {val: {transforms: [{Resize: {height: same, width: same}}]}}}"
    recipe = Recipe.from_dict(yaml.safe_load(written))
    plain = Recipe.from_dict({"size": 64, "splits": {"val": {"transforms": [{"Resize": {"height": 64, "width": 64}}]}}})
    assert recipe == plain
    assert "same" not in str(recipe.canonical())


@pytest.mark.parametrize("size", [160, 64, 32])
def test_another_size_set_is_what_init_would_write_for_it(tmp_path, size):
    for number in range(3):
        write_image(tmp_path / "photos" / "train" / "cat" / f"{number}.png", number, 300, 400)
    image_folder(tmp_path / "photos" / "val", ["cat"], 1)
    propose_recipe(tmp_path / "photos").write(tmp_path / "recipe.yaml")
    propose_recipe(tmp_path / "photos", size).write(tmp_path / "other.yaml")

    assert Recipe.from_yaml(tmp_path / "recipe.yaml", [f"size={size}"]) == Recipe.from_yaml(tmp_path / "other.yaml")


def test_a_ratio_is_the_recipes_width_over_height_times_a_fraction():
    crop = [{"RandomResizedCrop": {"size": "same", "ratio": ["same * 3/4", "same * 4/3"]}}]
    assert filled_in(crop, (64, 16), "t")[0]["RandomResizedCrop"] == {"size": [64, 16], "ratio": [0.1875, 1 / 3]}
    assert filled_in(crop, (64, 64), "t")[0]["RandomResizedCrop"]["ratio"] == [3 / 4, 4 / 3]  # Albumentations' own
    kept = [{"RandomResizedCrop": {"ratio": [0.5, 2]}}]
    assert filled_in(kept, (64, 16), "t") == kept
    with pytest.raises(RecipeError, match="a fraction of numbers above 0"):
        filled_in([{"RandomResizedCrop": {"ratio": ["same * 3/0", 1]}}], (64, 16), "t")


def test_a_crop_of_another_shape_than_the_recipes_is_told():
    def crop(ratio):
        return {"RandomResizedCrop": {"size": [64, 16], "ratio": ratio}}

    (line,) = squeezed([{"HorizontalFlip": {}}, crop([0.75, 1.3333])], "splits.train.transforms")
    assert line.startswith("splits.train.transforms[1].RandomResizedCrop: windows of width / height 0.75 to 1.333 are")
    assert "squeezed to 0.25 (64x16)" in line
    assert squeezed([crop([0.2, 0.3])], "t") == []
    assert len(squeezed([{"OneOf": {"transforms": [crop([1, 2]), crop([0.2, 0.3])]}}], "t")) == 1
