"""What a recipe says, how it is refused, and that every spelling of one pipeline is one recipe."""

import copy
import json
import pickle

import albumentations as A
import numpy as np
import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cache_store.canonical import canonical_json
from preprocess.augment import Pipeline, prove_size
from preprocess.errors import RecipeError, UsageError
from preprocess.recipe import IMAGENET, Recipe, SplitRecipe, as_recipe, load_yaml, with_overrides

CROP = {"RandomResizedCrop": {"size": [32, 32]}}


def of(*transforms, **recipe):
    """A recipe whose split `train` has these transforms."""
    return Recipe.from_dict({"splits": {"train": {"transforms": list(transforms)}}} | recipe)


def transforms_of(recipe):
    return recipe.with_splits([]).named_splits["train"].transforms


def arguments_of(recipe, number=0):
    ((_, arguments),) = transforms_of(recipe)[number].items()
    return arguments


# -- refusals ----------------------------------------------------------------------------------------------------------

WRONG = [
    # unknown keys, at each level
    ({"sise": 224}, "sise: unknown key; did you mean 'size'?"),
    ({"decode": {"max_megapixel": 5}}, "decode.max_megapixel: unknown key; did you mean 'max_megapixels'?"),
    ({"splits": {"train": {"folde": "x"}}}, "splits.train.folde: unknown key; did you mean 'folder'?"),
    ({"splits": {"train": {"form": "x"}}}, "splits.train.form: unknown key; did you mean 'from'?"),
    ({"normalize": {"mean": [0.5] * 3, "sdt": [0.5] * 3}}, "normalize.sdt: unknown key; did you mean 'std'?"),
    ({"zzz": 1}, "zzz: unknown key; known are: channels, classes, decode, dtype, normalize, seed, size, splits"),
    ({3: 4}, "3: a name expected"),
    # wrong values
    ({"size": "x"}, "size: one number, or [height, width] expected, found 'x'"),
    ({"size": True}, "size: one number, or [height, width] expected, found True"),
    ({"size": [1, 2, 3]}, "size: one number, or [height, width] expected, found [1, 2, 3]"),
    ({"size": [1.5, 2]}, "size[0]: "),
    ({"size": 0}, "size: sides of 1 to 16384 pixels expected, found 0 and 0"),
    ({"size": [10, 20_000]}, "size: sides of 1 to 16384 pixels expected, found 10 and 20000"),
    ({"channels": "RGB"}, "channels: 'RGB' is unknown; did you mean 'rgb'?"),
    ({"channels": 3}, "channels: 3 is unknown; known are: gray, rgb"),
    ({"dtype": "float32"}, "dtype: 'float32' is unknown; did you mean 'float16'?"),
    ({"seed": -1}, "seed: should be greater than or equal to 0, found -1"),
    ({"seed": 2**63}, "seed: should be less than 9223372036854775808"),
    ({"seed": True}, "seed: should be a valid integer, found True"),
    ({"seed": "a"}, "seed: should be a valid integer, found 'a'"),
    ({"decode": 3}, "decode: keys and values expected, found 3"),
    ({"decode": {"max_megapixels": 0}}, "decode.max_megapixels: should be greater than 0, found 0"),
    (
        {"decode": {"level": [0, 4095]}},
        "decode.level: unknown key; did you mean 'levels'?",
    ),
    (
        {"decode": {"levels": [4095, 0]}},
        "decode.levels: [lo, hi] of whole numbers, lo < hi, from -32768 to 65535, or high-byte expected, found "
        "[4095, 0]",
    ),
    (
        {"decode": {"levels": "high_byte"}},
        "decode.levels: [lo, hi] of whole numbers, lo < hi, from -32768 to 65535, or high-byte expected, found "
        "'high_byte'; did you mean 'high-byte'?",
    ),
    ({"decode": {"pages": "firts"}}, "decode.pages: 'firts' is unknown; did you mean 'first'?"),
    ({"decode": {"extra_channels": "keep"}}, "decode.extra_channels: 'keep' is unknown; known are: drop"),
    ({"decode": {"reduced": "maybe"}}, "decode.reduced: should be a valid boolean, found 'maybe'"),
    ({"classes": "cat"}, "classes: should be a list, found 'cat'"),
    ({"classes": ["a", 2]}, "classes[1]: should be a valid string, found 2; write it in quotes"),
    ({"classes": ["a", "b", "a"]}, "classes: 'a' stands twice"),
    # normalisation
    ({"normalize": "imagnet"}, "found 'imagnet'; did you mean 'imagenet'?"),
    ({"normalize": None}, "normalize: dataset, imagenet or {mean: […], std: […]} in 0..1 expected, found None"),
    ({"normalize": {"mean": [0.5] * 3}}, "normalize: dataset, imagenet or {mean: […], std: […]} in 0..1 expected"),
    ({"normalize": {"mean": 0.5, "std": 0.5}}, "normalize.mean: should be a list, found 0.5"),
    ({"normalize": {"mean": ["a"] * 3, "std": [1] * 3}}, "normalize.mean[0]: should be a valid number"),
    ({"normalize": {"mean": [123.675] * 3, "std": [58.4] * 3}}, "are meant in 0..1: divide them by 255"),
    ({"normalize": {"mean": [0.5] * 3, "std": [0] * 3}}, "normalize: channel 0: mean 0.5 with std 0 gives values that"),
    ({"normalize": {"mean": [float("nan")] * 3, "std": [1] * 3}}, "normalize: channel 0: mean nan"),
    ({"normalize": {"mean": [0.5], "std": [0.5]}}, "normalize.mean: 3 values expected, one a channel; found 1: [0.5]"),
    (
        {"normalize": {"mean": [0.5], "std": [0.5] * 3}, "channels": "gray"},
        "normalize.std: 1 value expected, one a channel; found 3",
    ),
    ({"normalize": "imagenet", "channels": "gray"}, "normalize: 'imagenet' has statistics for rgb, channels is gray"),
    # splits
    ({"splits": {}}, "splits: at least one split expected"),
    ({"splits": "train"}, "splits: keys and values expected, found 'train'"),
    ({"splits": {"train": 3}}, "splits.train: keys and values expected, found 3"),
    ({"splits": {1: None}}, "splits: the name of a split expected, found 1; write it in quotes"),
    ({"splits": {"a/b": None}}, "splits: letters, digits, '_' and '-' expected in the name of a split, found 'a/b'"),
    ({"splits": {"failures": None}}, "splits: 'failures' cannot be a split"),
    ({"splits": {"train": {"variants": 0}}}, "splits.train.variants: should be greater than or equal to 1, found 0"),
    ({"splits": {"train": {"variants": 2.5}}}, "splits.train.variants: should be a valid integer, found 2.5"),
    ({"splits": {"train": {"folder": "/abs"}}}, "splits.train.folder: a folder inside SOURCE expected"),
    ({"splits": {"train": {"folder": "a/../../x"}}}, "relative to it, found 'a/../../x'"),
    ({"splits": {"train": {"folder": "~/x"}}}, "relative to it, found '~/x'"),
    # fractions
    ({"splits": {"val": {"from": "train"}, "train": None}}, "splits.val: 'from' and 'fraction' go together"),
    ({"splits": {"val": {"fraction": 0.1}, "train": None}}, "splits.val: 'from' and 'fraction' go together"),
    (
        {"splits": {"val": {"from": "train", "fraction": 0.1, "folder": "x"}, "train": None}},
        "splits.val: either 'folder', or 'from' with 'fraction'",
    ),
    (
        {"splits": {"val": {"from": "trian", "fraction": 0.1}, "train": None}},
        "from of 'val': 'trian' is not a split with a folder of its own; did you mean 'train'?",
    ),
    ({"splits": {"val": {"from": "val", "fraction": 0.1}}}, "from of 'val': 'val' is not a split with a folder"),
    ({"splits": {"val": {"from": "train", "fraction": 0}, "train": None}}, "splits.val.fraction: should be greater"),
    ({"splits": {"val": {"from": "train", "fraction": 1}, "train": None}}, "splits.val.fraction: should be less"),
    (
        {"splits": {"a": {"from": "t", "fraction": 0.6}, "b": {"from": "t", "fraction": 0.5}, "t": None}},
        "splits: the fractions taken from 't' add up to 1.1; less than 1 expected",
    ),
]


@pytest.mark.parametrize(("values", "message"), WRONG, ids=lambda value: str(value)[:50])
def test_a_wrong_value_is_refused_with_its_place_and_the_nearest_spelling(values, message):
    with pytest.raises(RecipeError) as refused:
        Recipe.from_dict(values)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_recipe_is_a_mapping():
    with pytest.raises(RecipeError, match="a mapping of names to values, found list"):
        Recipe.from_dict([1])  # type: ignore[arg-type]


HERE = "splits.train.transforms"

WRONG_TRANSFORMS = [
    # unknown names and arguments
    ("HorizontalFlp", f"{HERE}[0]: no transform 'HorizontalFlp' in Albumentations; did you mean 'HorizontalFlip'?"),
    ({"A.Horizontalflip": None}, "did you mean 'HorizontalFlip'?"),
    ({"Rotate": {"limits": 3}}, f"{HERE}[0].Rotate: no argument 'limits'; did you mean 'limit'?"),
    ({"HorizontalFlip": {"q": 1}}, f"{HERE}[0].HorizontalFlip: no argument 'q'; known are: p"),
    ({"Rotate": {"seed": 1}}, f"{HERE}[0].Rotate: no argument 'seed'"),
    ({"OneOf": {"trasforms": []}}, f"{HERE}[0].OneOf: no argument 'trasforms'; did you mean 'transforms'?"),
    ({"OneOf": ["Blur", "Blurr"]}, f"{HERE}[0].OneOf.transforms[1]: no transform 'Blurr'"),
    ({"Compose": {"transforms": ["Blur"], "bbox_params": {}}}, f"{HERE}[0].Compose: no argument 'bbox_params'"),
    # wrong values
    ({"HorizontalFlip": {"p": 2}}, f"{HERE}[0].HorizontalFlip.p: should be less than or equal to 1, found 2"),
    ({"Resize": {"height": 8}}, f"{HERE}[0].Resize.width: Field required"),
    ({"Resize": {"height": -1, "width": 1}}, f"{HERE}[0].Resize.height: should be greater"),
    ({"RandomResizedCrop": {"size": 224}}, f"{HERE}[0].RandomResizedCrop.size: should be a list, found 224"),
    ({"Rotate": {"limit": -1}}, f"{HERE}[0].Rotate.limit: -1 is kept as [1.0, -1.0], which Albumentations itself"),
    ({"Affine": {"fill": []}}, f"{HERE}[0].Affine.fill: [] cannot be serialised"),
    ({"OneOf": {"transforms": ["Blur"], "p": 3}}, f"{HERE}[0].OneOf.p: a number from 0 to 1 expected, found 3"),
    ({"OneOf": {"transforms": ["Blur"], "p": True}}, f"{HERE}[0].OneOf.p: a number from 0 to 1 expected, found True"),
    ({"SomeOf": {"transforms": ["Blur"], "n": 0}}, f"{HERE}[0].SomeOf.n: a whole number of 1 or more"),
    ({"SomeOf": {"transforms": ["Blur"], "replace": 1}}, f"{HERE}[0].SomeOf.replace: true or false expected"),
    ({"OneOf": [{"Blur": {"p": 0}}]}, f"{HERE}[0].OneOf.transforms: their p are the weights of the choice"),
    ({"OneOf": []}, f"{HERE}[0].OneOf: a list of at least one transform is missing"),
    ("OneOf", f"{HERE}[0].OneOf: a list of at least one transform is missing"),
    # interpolation and border modes
    ({"Resize": {"height": 1, "width": 1, "interpolation": "areal"}}, ".interpolation: 'areal' is unknown; did you"),
    ({"Resize": {"height": 1, "width": 1, "interpolation": 9}}, ".interpolation: should be 0, 6, 1, 2, 3, 4 or 5"),
    ({"Rotate": {"border_mode": "reflct"}}, "Rotate.border_mode: 'reflct' is unknown; did you mean 'reflect'?"),
    # no transform at all
    (3, f"{HERE}[0]: a transform is written as Name or as Name: {{argument: value}}, found 3"),
    ({"A": 1, "B": 2}, f"{HERE}[0]: a transform is written as Name"),
    ({3: None}, f"{HERE}[0]: the name of a transform expected, found 3"),
    ({"Blur": 3}, f"{HERE}[0].Blur: arguments as {{name: value}} expected, found 3"),
    ({"OneOf": "Blur"}, f"{HERE}[0].OneOf: arguments as {{name: value}} expected, found 'Blur'"),
    # not out of the image and its recipe alone
    ("Lambda", f"{HERE}[0]: Lambda cannot be serialised"),
    ("FDA", f"{HERE}[0]: FDA reads other data than the image (metadata_key, read_fn, reference_images)"),
    ("HistogramMatching", "HistogramMatching reads other data than the image"),
    ("PixelDistributionAdaptation", "PixelDistributionAdaptation reads other data than the image"),
    ("TextImage", "TextImage reads other data than the image (font_path, metadata_key)"),
    ("OverlayElements", "OverlayElements reads other data than the image (metadata_key)"),
    ("Mosaic", "Mosaic reads other data than the image (metadata_key)"),
    ("MixUp", "no transform 'MixUp' in Albumentations"),
    ("OneOrOther", "OneOrOther cannot be used; compositions are Compose, OneOf, RandomOrder, Sequential, SomeOf"),
    ("SelectiveChannelTransform", "SelectiveChannelTransform cannot be used"),
    ("BasicTransform", "BasicTransform cannot be serialised"),
    ("MaskDropout", "MaskDropout needs a mask; there are only 8-bit images and class labels"),
    ("BBoxSafeRandomCrop", "BBoxSafeRandomCrop needs bounding boxes"),
    ("FromFloat", "FromFloat needs pixels in floating point"),
    ("Pad3D", "Pad3D works on volumes; decant caches images"),
    # at the wrong place, or not for the whole cache
    ({"OneOf": ["Normalize", "Blur"]}, f"{HERE}[0].OneOf.transforms: Normalize can only stand at the end of a split's"),
    ({"Normalize": {"men": 1}}, f"{HERE}[0].Normalize: no argument 'men'; did you mean 'mean'?"),
    ({"Normalize": {"mean": [123, 116, 103], "std": [58, 57, 57]}}, "Normalize: channel 0: mean 123 with std 58"),
    ({"Normalize": {"normalization": "image"}}, f"{HERE}[0].Normalize.normalization: only 'standard' is the same"),
    ({"Normalize": {"p": 0.5}}, f"{HERE}[0].Normalize.p: 1 expected"),
    ({"Normalize": {"mean": "x"}}, f"{HERE}[0].Normalize.mean: one number a channel expected, found 'x'"),
    ({"Normalize": {"std": ["x"] * 3}}, f"{HERE}[0].Normalize.std: a number expected, found 'x'"),
    ({"Normalize": {"mean": [0.5]}}, f"{HERE}[0].Normalize.mean: 3 values expected, one a channel; found 1"),
    ({"Normalize": {"max_pixel_value": None}}, f"{HERE}[0].Normalize.max_pixel_value: a number above 0 expected"),
    ({"ToFloat": {"max_value": 0}}, f"{HERE}[0].ToFloat.max_value: a number above 0 expected, found 0"),
    ({"ToTensorV2": {"x": 1}}, f"{HERE}[0].ToTensorV2: no argument 'x'; known are: p, transpose_mask"),
]


@pytest.mark.parametrize(("transform", "message"), WRONG_TRANSFORMS, ids=lambda value: str(value)[:50])
def test_a_wrong_transform_is_refused_with_its_place_and_the_nearest_spelling(transform, message):
    with pytest.raises(RecipeError) as refused:
        of(transform)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("found", ["Blur", {"Blur": None}, 3])
def test_transforms_are_a_list(found):
    with pytest.raises(RecipeError, match=r"splits.train.transforms: a list of transforms expected, found"):
        Recipe.from_dict({"splits": {"train": {"transforms": found}}})


class _Mine(A.HorizontalFlip):
    """A transform of the user's own."""


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (_Mine(), "_Mine is not Albumentations' own; it cannot be serialised"),
        (A.Lambda(image=np.ascontiguousarray, name="mine"), "Lambda cannot be serialised"),
        (A.OneOf([A.Blur(), _Mine()]), r"\[0\].OneOf.transforms\[1\]: .*_Mine is not Albumentations' own"),
        (A.FDA(metadata_key="x"), "FDA reads other data"),
        (A.Equalize(mask=lambda image: image), "a function cannot be serialised"),
        (A.OneOf([A.Blur(), A.Normalize()]), "Normalize can only stand at the end"),
        (A.HorizontalFlip, "a transform is written as Name"),
    ],
)
def test_an_object_that_cannot_be_written_down_is_refused(item, message):
    with pytest.raises(RecipeError, match=message):
        of(item)


def test_an_object_with_an_argument_that_albumentations_ignored_is_refused():
    with pytest.warns(UserWarning, match="not valid"):
        item = A.Rotate(limits=3)
    with pytest.raises(RecipeError, match="no argument 'limits'; did you mean 'limit'?"):
        of(item)


@pytest.mark.parametrize(
    ("compose", "message"),
    [
        (
            A.Compose([A.Transpose()], bbox_params=A.BboxParams(format="coco", label_fields=[])),
            "Compose has bbox_params",
        ),
        (
            A.Compose([A.HorizontalFlip()], keypoint_params=A.KeypointParams(format="xy")),
            "Compose has keypoint_params",
        ),
        (A.Compose([A.Blur()], additional_targets={"left": "image"}), "Compose has additional_targets"),
        (A.Compose([A.Blur()], p=0.5), "Compose has p=0.5; give p to its transforms"),
    ],
)
def test_what_a_compose_does_beside_the_image_is_refused(compose, message):
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({"splits": {"train": {"transforms": compose}}})


class OwnCompose(A.Compose):
    """Does more than its transforms, which no recipe could say."""


def test_a_compose_of_the_users_own_is_refused():
    with pytest.raises(RecipeError, match="OwnCompose is a Compose of your own"):
        Recipe.from_dict({"splits": {"train": {"transforms": OwnCompose([A.Blur()])}}})


@pytest.mark.parametrize(
    "given",
    [
        A.Compose([A.HorizontalFlip(), A.Compose([A.Blur()])], seed=7),
        [A.Blur(), A.Compose([A.HorizontalFlip()], seed=7)],
    ],
)
def test_the_seed_of_a_compose_is_not_dropped_without_a_word(given):
    recipe = Recipe.from_dict({"splits": {"train": {"transforms": given}}})
    (note,) = [note for note in recipe.notes if "seed" in note]
    assert note.startswith("splits.train.transforms")
    assert "seed=7, which is not used: draws follow from the recipe's seed" in note
    assert "seed" not in str(Recipe.from_dict({"splits": {"train": {"transforms": A.Compose([A.Blur()])}}}).notes)


# -- YAML --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"size: 224\nsize: 160\n", ", line 2, column 1: key 'size' stands twice"),
        (b"splits:\n  train:\n    variants: 2\n    variants: 3\n", ", line 4, column 5: key 'variants' stands twice"),
        (b"size: [1,\nchannels: rgb", ", line 2, column 14: expected ',' or ']'"),
        (b"size: 224\n\tx: 1", ", line 2, column 1: found character '\\t'"),
        (b"? [1, 2]\n: 3\n", ", line 1, column 3: a name expected as key, found [1, 2]"),
        (b"size: !!python/object/apply:os.getcwd []", ", line 1, column 7: could not determine a constructor"),
        (b"size: 224\x00", "is not valid YAML: unacceptable character"),
        (b"[" * 2000, "is not valid YAML"),
        (b"- a\n", ": a mapping of names to values expected, like 'size: 224', found ['a']"),
        (b"size: '\xff'", "is not text in UTF-8"),
        (b"size: 224\nsplits: {train: {folde: x}}\n", ": splits.train.folde: unknown key; did you mean 'folder'?"),
    ],
)
def test_a_bad_file_is_refused_with_its_name_and_the_line(tmp_path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text)
    with pytest.raises(RecipeError) as refused:
        Recipe.from_yaml(path)
    assert str(refused.value).startswith(f"recipe {str(path)!r}")
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "why"), [("", "Is a directory"), ("none.yaml", "No such file or directory")])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, name, why):
    with pytest.raises(RecipeError, match=f"cannot be read: {why}"):
        load_yaml(tmp_path / name)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "splits:\ndecode:\n"])
def test_an_empty_file_is_the_default_recipe(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    assert Recipe.from_yaml(tmp_path / "recipe.yaml") == Recipe()


def test_as_recipe_takes_what_a_user_may_have(tmp_path):
    (tmp_path / "recipe.yaml").write_text("size: 96\n")
    recipe = Recipe(size=96)
    assert as_recipe(recipe) is recipe
    assert as_recipe({"size": 96}) == as_recipe(tmp_path / "recipe.yaml") == as_recipe(str(tmp_path / "recipe.yaml"))
    assert as_recipe(None) is None
    with pytest.raises(UsageError, match="found int"):
        as_recipe(3)  # type: ignore[arg-type]


# -- defaults ----------------------------------------------------------------------------------------------------------


def test_the_default_recipe_is_what_the_design_says():
    assert Recipe().canonical() == {
        "size": [224, 224],
        "channels": "rgb",
        "dtype": "float16",
        "normalize": "dataset",
        "seed": 0,
        "decode": {"max_megapixels": 179.0, "reduced": False},
        "classes": None,
        "splits": None,
    }
    assert Recipe().max_pixels == 179_000_000
    assert Recipe().fixed_statistics is None
    assert Recipe(normalize="imagenet").fixed_statistics == IMAGENET


def test_a_split_with_nothing_behind_its_name_has_all_defaults(tmp_path):
    (tmp_path / "recipe.yaml").write_text("splits:\n  train:\n  val: {folder: val}\n")
    recipe = Recipe.from_yaml(tmp_path / "recipe.yaml")
    assert recipe.splits == {"train": SplitRecipe(), "val": SplitRecipe(folder="val")}
    whole = recipe.with_splits([("train", "train"), ("val", "val")])
    assert whole.named_splits["train"].transforms == recipe.default_split()


@pytest.mark.parametrize("size", [1, 7, 224, 512, [160, 224], [1, 300], [224, 96]])
def test_the_default_transforms_give_the_size_for_every_image(size):
    recipe = Recipe(size=size)
    assert prove_size(recipe.default_split(), recipe.size, 3, "here") == []


def test_the_default_transforms_keep_seven_eighths_of_the_shorter_side():
    resize, crop = Recipe(size=224).default_split()
    assert resize["SmallestMaxSize"]["max_size"] == 256
    assert crop["CenterCrop"]["height"] == crop["CenterCrop"]["width"] == 224
    assert Recipe(size=[224, 112]).default_split()[0]["SmallestMaxSize"]["max_size_hw"] == [256, 128]


def test_with_splits_spells_out_what_was_found():
    found = [("train", "train"), ("val", "val")]
    whole = Recipe().with_splits(found)
    assert {name: split.folder for name, split in whole.named_splits.items()} == dict(found)
    assert whole.is_default()
    assert whole.without_splits() == Recipe()
    assert whole.with_splits([]) == whole


def test_a_single_split_without_folder_is_all_of_a_source_without_split_folders():
    recipe = Recipe.from_dict({"splits": {"train": None, "val": {"from": "train", "fraction": 0.2}}})
    assert recipe.with_splits([("train", ".")]).named_splits["train"].folder == "."


def test_of_several_splits_without_folder_none_is_the_whole_source():
    # train = everything would hold the images of `holdout` too, under a class of that name
    recipe = Recipe.from_dict({"splits": {"train": None, "holdout": None}})
    whole = recipe.with_splits([("train", ".")])
    assert {name: split.folder for name, split in whole.named_splits.items()} == {
        "train": "train",
        "holdout": "holdout",
    }


def test_open_splits_are_those_whose_folder_source_decides():
    assert Recipe().open_splits() is None
    splits = {"train": None, "val": {"from": "train", "fraction": 0.1}, "test": {"folder": "."}}
    assert Recipe.from_dict({"splits": splits}).open_splits() == ["train"]


@pytest.mark.parametrize(
    ("splits", "default"),
    [
        ({"train": None}, True),
        ({"train": {"folder": "."}}, True),
        ({"train": {"folder": "train"}, "test": {"folder": "test"}}, True),
        ({"train": {"folder": "Train"}, "test": {"folder": "testing"}}, True),
        ({"train": {"folder": "Test"}}, False),
        ({"train": {"folder": "train2017"}}, False),
        ({"holdout": None}, False),
        ({"train": {"folder": "images"}}, False),
        ({"train": {"folder": "."}, "val": {"folder": "val"}}, False),
        ({"train": {"variants": 2}}, False),
        ({"train": {"transforms": [{"Resize": {"height": 224, "width": 224}}]}}, False),
        ({"train": None, "val": {"from": "train", "fraction": 0.1}}, False),
    ],
)
def test_is_default_means_that_nothing_of_the_splits_would_be_lost(splits, default):
    assert Recipe.from_dict({"splits": splits}).is_default() is default


def test_reopened_a_spelled_out_recipe_takes_another_size():
    found = [("train", "."), ("val", "val")]
    crop = [{"Resize": {"height": 96, "width": 96}}]
    written = Recipe.from_dict({"size": 96, "splits": {"train": {"variants": 2}, "val": {"transforms": crop}}})
    kept = Recipe.from_dict(written.with_splits(found).canonical())
    reopened = kept.reopened()
    assert reopened.with_splits([]) == kept
    changed = Recipe.from_dict(with_overrides(reopened.canonical(), ["size=64"])).with_splits([])
    assert changed.named_splits["train"].transforms == changed.default_split() != kept.default_split()
    assert changed.named_splits["train"].variants == 2
    assert changed.named_splits["val"].transforms == kept.named_splits["val"].transforms
    assert Recipe(size=96).with_splits([("train", ".")]).reopened() == Recipe(size=96)


def test_folders_have_one_spelling():
    spellings = ["photos/a", "photos//a/", "./photos/a"]
    assert len({Recipe.from_dict({"splits": {"train": {"folder": text}}}) for text in spellings}) == 1
    for text in ("", ".", "./"):
        assert Recipe.from_dict({"splits": {"train": {"folder": text}}}).named_splits["train"].folder == "."


# -- area for downscale ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "transform",
    [
        {"Resize": {"height": 32, "width": 32}},
        {"SmallestMaxSize": {"max_size": 32}},
        {"LongestMaxSize": {"max_size": 32}},
        {"RandomResizedCrop": {"size": [32, 32]}},
        {"RandomSizedCrop": {"min_max_height": [8, 16], "size": [32, 32]}},
        {"RandomScale": None},
    ],
)
def test_shrinking_averages_unless_the_recipe_says_how(transform):
    ((name, arguments),) = transform.items()
    assert arguments_of(of(transform))["area_for_downscale"] == "image"
    for said in ({"interpolation": "linear"}, {"area_for_downscale": None}, {"area_for_downscale": "image_mask"}):
        kept = arguments_of(of({name: (arguments or {}) | said}))
        assert kept["area_for_downscale"] == said.get("area_for_downscale")


def test_it_is_set_inside_of_compositions_and_for_objects_with_a_note():
    inside = of({"OneOf": [{"Resize": {"height": 8, "width": 8}}]})
    assert arguments_of(inside)["transforms"][0]["Resize"]["area_for_downscale"] == "image"
    assert inside.notes == ()
    objects = of(A.Resize(8, 8), A.Resize(8, 8, interpolation=2), A.Resize(8, 8, area_for_downscale="image"))
    assert [t["Resize"]["area_for_downscale"] for t in transforms_of(objects)] == ["image", None, "image"]
    assert len(objects.notes) == 1
    assert "splits.train.transforms[0].Resize: area_for_downscale='image' is set" in objects.notes[0]


@pytest.mark.parametrize(("name", "number"), [("area", 3), ("INTER_AREA", 3), ("cv2.INTER_NEAREST", 0), ("Linear", 1)])
def test_interpolation_by_name_is_the_number(name, number):
    by_name = of({"Resize": {"height": 8, "width": 8, "interpolation": name}})
    assert by_name == of({"Resize": {"height": 8, "width": 8, "interpolation": number}})
    assert arguments_of(by_name)["interpolation"] == number


def test_interpolation_by_name_for_each_direction():
    pair = {"Downscale": {"interpolation_pair": {"downscale": "area", "upscale": "linear"}}}
    assert arguments_of(of(pair))["interpolation_pair"] == {"downscale": 3, "upscale": 1}
    pair["Downscale"]["interpolation_pair"]["upscale"] = "liner"
    with pytest.raises(RecipeError, match="Downscale.interpolation_pair.upscale: 'liner' is unknown; did you mean"):
        of(pair)


def test_border_modes_by_name_are_the_number():
    for name, number in (("constant", 0), ("BORDER_REFLECT_101", 4), ("cv2.BORDER_REPLICATE", 1)):
        assert arguments_of(of({"Rotate": {"border_mode": name}}))["border_mode"] == number


# -- the tail ----------------------------------------------------------------------------------------------------------


def test_a_pasted_pipeline_loses_its_tail_and_says_so():
    recipe = of(CROP, "Normalize", "ToTensorV2")
    assert [next(iter(t)) for t in transforms_of(recipe)] == ["RandomResizedCrop"]
    assert recipe.fixed_statistics == IMAGENET
    assert len(recipe.notes) == 2
    assert recipe.notes[0] == "splits.train.transforms[2].ToTensorV2 was taken out; the loader gives tensors"
    assert recipe.notes[1].startswith("splits.train.transforms[1].Normalize was taken out; normalize is mean [0.485,")
    assert recipe == of(CROP, normalize="imagenet")


@pytest.mark.parametrize(
    "tail",
    [
        {"Normalize": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}},
        {"Normalize": {"mean": [127.5, 102, 76.5], "std": [51, 63.75, 76.5], "max_pixel_value": 1.0}},
        {"Normalize": {"mean": 0.5, "std": 0.25}},
        {"Normalize": {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1], "max_pixel_value": 128}},
        "ToFloat",
        {"ToFloat": {"max_value": 128.0}},
    ],
)
def test_the_tail_becomes_the_statistics_that_give_the_same_values(tail):
    name, arguments = (tail, {}) if isinstance(tail, str) else next(iter(tail.items()))
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    expected = getattr(A, name)(**arguments)(image=pixels)["image"].astype(np.float64)
    mean, std = of(CROP, tail).fixed_statistics
    np.testing.assert_allclose((pixels / 255 - np.array(mean)) / np.array(std), expected, rtol=1e-5, atol=1e-5)


def test_a_tail_for_gray_images():
    assert of(CROP, "ToFloat", channels="gray").fixed_statistics == ((0.0,), (1.0,))
    given = {"Normalize": {"mean": 0.5, "std": 0.25}}
    assert of(CROP, given, channels="gray").fixed_statistics == ((0.5,), (0.25,))
    with pytest.raises(RecipeError, match=r"Normalize.mean: 1 value expected, one a channel; found 3"):
        of(CROP, "Normalize", channels="gray")


def test_the_tail_of_a_compose_object():
    import torch  # noqa: F401  # ToTensorV2 needs it
    from albumentations.pytorch import ToTensorV2

    pipeline = A.Compose([A.RandomResizedCrop((32, 32)), A.Normalize(), ToTensorV2()])
    recipe = Recipe.from_dict({"splits": {"train": {"transforms": pipeline}}})
    assert recipe == of(CROP, "Normalize", "ToTensorV2")


def test_splits_that_end_differently_are_refused():
    values = {
        "splits": {
            "train": {"transforms": [CROP, "Normalize"]},
            "val": {"transforms": [CROP, "ToFloat"]},
        }
    }
    with pytest.raises(RecipeError, match=r"splits.val.transforms: the last step normalises by mean \[0.0.*'train'"):
        Recipe.from_dict(values)
    values["splits"]["val"]["transforms"][1] = "Normalize"
    assert Recipe.from_dict(values).fixed_statistics == IMAGENET


def test_a_tail_that_disagrees_with_normalize_is_refused():
    assert of(CROP, "Normalize", normalize="imagenet") == of(CROP, normalize="imagenet")
    for normalize in ("dataset", {"mean": [0.5] * 3, "std": [0.5] * 3}):
        with pytest.raises(RecipeError, match=r"normalize: .* disagrees with the last step of splits.train.transforms"):
            of(CROP, "Normalize", normalize=normalize)


def test_both_normalize_and_to_float_are_refused():
    with pytest.raises(RecipeError, match="both Normalize and ToFloat stand at the end"):
        of(CROP, "ToFloat", "Normalize")


@pytest.mark.parametrize("name", ["Normalize", "ToFloat", "ToTensorV2"])
def test_in_the_middle_they_are_refused(name):
    with pytest.raises(RecipeError, match=rf"transforms\[1\].{name}: can only stand at the end"):
        of(CROP, name, "HorizontalFlip")


def test_splits_given_as_objects_are_not_changed():
    split = SplitRecipe(transforms=[CROP, "Normalize"])
    first, second = Recipe(splits={"train": split}), Recipe(splits={"train": split})
    assert first == second
    assert second.fixed_statistics == IMAGENET


# -- one recipe, many spellings ----------------------------------------------------------------------------------------

YAML = """
size: [32, 48]
dtype: uint8
normalize: {mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.3]}
seed: 7
splits:
  train:
    variants: 3
    transforms:
      - RandomResizedCrop: {size: [32, 48], scale: [0.35, 1.0]}
      - HorizontalFlip
      - OneOf:
          - MotionBlur: {blur_limit: 5, p: 1}
          - Sequential:
              transforms: [{ColorJitter: {brightness: 0.3}}, {Rotate: {limit: 10, border_mode: reflect_101}}]
              p: 0.5
          - SomeOf: {transforms: [VerticalFlip, Transpose, {Blur: {blur_limit: [3, 3]}}], n: 2}
      - CoarseDropout: {num_holes_range: [1, 2], fill: 0}
      - Resize: {height: 32, width: 48, interpolation: area}
"""


def objects():
    return [
        A.RandomResizedCrop(size=(32, 48), scale=(0.35, 1.0), area_for_downscale="image"),
        A.HorizontalFlip(),
        A.OneOf(
            [
                A.MotionBlur(blur_limit=5, p=1.0),
                A.Sequential([A.ColorJitter(brightness=0.3), A.Rotate(limit=10, border_mode=4)], p=0.5),
                A.SomeOf([A.VerticalFlip(), A.Transpose(), A.Blur(blur_limit=(3, 3))], n=2),
            ]
        ),
        A.CoarseDropout(num_holes_range=(1, 2), fill=0),
        A.Resize(32, 48, interpolation=3),
    ]


def spellings():
    values = yaml.safe_load(YAML)
    by_list, by_compose, canonical = copy.deepcopy(values), copy.deepcopy(values), Recipe.from_dict(values).canonical()
    by_list["splits"]["train"]["transforms"] = objects()
    by_compose["splits"]["train"]["transforms"] = A.Compose(objects(), seed=5)
    mixed = copy.deepcopy(values)
    mixed["splits"]["train"]["transforms"][2] = objects()[2]
    return {
        "yaml": values,
        "json": json.loads(json.dumps(values)),
        "objects": by_list,
        "compose": by_compose,
        "mixed": mixed,
        "canonical": canonical,
        "canonical json": json.loads(canonical_json(canonical)),
    }


@pytest.mark.parametrize("spelling", spellings())
def test_every_spelling_is_one_recipe_with_one_identity(spelling):
    recipe, expected = Recipe.from_dict(spellings()[spelling]), Recipe.from_dict(yaml.safe_load(YAML))
    assert recipe == expected
    assert hash(recipe) == hash(expected)
    assert canonical_json(recipe.canonical()) == canonical_json(expected.canonical())
    ids = [r.with_splits([]).rendering("train", "opencv", "00").tensors_id for r in (recipe, expected)]
    assert ids[0] == ids[1]


def test_the_canonical_form_has_every_argument_resolved():
    recipe = Recipe.from_dict(yaml.safe_load(YAML))
    assert [next(iter(t)) for t in transforms_of(recipe)] == [type(item).__name__ for item in objects()]
    assert arguments_of(recipe, 0) == {
        "area_for_downscale": "image",
        "interpolation": 1,
        "mask_interpolation": 0,
        "p": 1.0,
        "ratio": [0.75, 1.3333333333333333],
        "scale": [0.35, 1.0],
        "size": [32, 48],
    }
    assert transforms_of(recipe)[1] == {"HorizontalFlip": {"p": 0.5}}


@pytest.mark.parametrize("zero", [0, 0.0, -0.0, [-0.0, 0.0]])
def test_a_limit_of_zero_is_one_identity(zero):
    """The library turns 0 into (-0.0, 0.0), and that into (0.0, -0.0): equal numbers, but not equal JSON."""
    for name, argument in (("RandomBrightnessContrast", "brightness_limit"), ("Rotate", "limit")):
        first = of({name: {argument: zero}})
        assert arguments_of(first)[argument] == [0, 0]
        assert b"-0.0" not in canonical_json(first.canonical())
        assert canonical_json(Recipe.from_dict(first.canonical()).canonical()) == canonical_json(first.canonical())


def test_recipes_differ_where_anything_differs():
    base = yaml.safe_load(YAML)
    changed = []
    for key, value in {"size": 32, "dtype": "float16", "seed": 8, "classes": ["a"], "normalize": "imagenet"}.items():
        changed.append(base | {key: value})
    for number, transform in ((1, {"HorizontalFlip": {"p": 0.4}}), (4, {"Resize": {"height": 32, "width": 48}})):
        other = copy.deepcopy(base)
        other["splits"]["train"]["transforms"][number] = transform
        changed.append(other)
    recipes = [Recipe.from_dict(values) for values in [base, *changed]]
    assert len(set(recipes)) == len(recipes)
    assert Recipe() != "a recipe"


def test_a_recipe_survives_pickling():
    recipe = of(CROP, "Normalize")
    again = pickle.loads(pickle.dumps(recipe))
    assert again == recipe
    assert again.notes == recipe.notes


unit = st.floats(0, 1, allow_nan=False).map(lambda value: round(value, 3))


def ranges(low: float, high: float):
    numbers = st.floats(low, high, allow_nan=False).map(lambda value: round(value, 3))
    return st.tuples(numbers, numbers).map(sorted)


def whole(low: int, high: int):
    return st.integers(low, high)


def transform(name: str, **arguments):
    optional = {key: value for key, value in arguments.items() if key not in ("height", "width", "size", "max_size")}
    required = {key: value for key, value in arguments.items() if key not in optional}
    return st.fixed_dictionaries(required, optional=optional | {"p": unit}).map(lambda given: {name: given})


interpolation = st.sampled_from(["nearest", "linear", "cubic", "area", 4, "cv2.INTER_LINEAR"])
border_mode = st.sampled_from(["constant", "reflect", "reflect_101", 1])

single = st.one_of(
    st.sampled_from(["HorizontalFlip", "VerticalFlip", "Transpose", "D4", "ToGray", "InvertImg", "Equalize", "CLAHE"]),
    transform("Resize", height=whole(1, 64), width=whole(1, 64), interpolation=interpolation),
    transform("SmallestMaxSize", max_size=whole(1, 64), interpolation=interpolation),
    transform(
        "RandomResizedCrop", size=st.tuples(whole(1, 64), whole(1, 64)), scale=ranges(0.1, 1), ratio=ranges(0.5, 2)
    ),
    transform("CenterCrop", height=whole(1, 64), width=whole(1, 64), pad_if_needed=st.booleans(), fill=whole(0, 255)),
    transform("RandomCrop", height=whole(1, 64), width=whole(1, 64), pad_if_needed=st.booleans()),
    transform("Rotate", limit=st.one_of(whole(0, 90), ranges(-90, 90)), border_mode=border_mode),
    transform(
        "Affine",
        scale=ranges(0.5, 2),
        rotate=st.one_of(whole(0, 45), ranges(-45, 45)),
        translate_percent=ranges(-0.2, 0.2),
        shear=ranges(-20, 20),
        fill=st.one_of(whole(0, 255), st.lists(whole(0, 255), min_size=3, max_size=3)),
        keep_ratio=st.booleans(),
        border_mode=border_mode,
    ),
    transform(
        "ShiftScaleRotate", shift_limit=ranges(-0.5, 0.5), scale_limit=ranges(-0.5, 0.5), rotate_limit=whole(0, 9)
    ),
    transform(
        "ColorJitter", brightness=unit, contrast=ranges(0.5, 1.5), saturation=ranges(0, 2), hue=ranges(-0.5, 0.5)
    ),
    transform("RandomBrightnessContrast", brightness_limit=unit, contrast_limit=ranges(-1, 1)),
    transform("HueSaturationValue", hue_shift_limit=whole(0, 90), sat_shift_limit=ranges(-90, 90)),
    transform("GaussianBlur", sigma_limit=ranges(0.1, 3)),
    transform("GaussNoise", std_range=ranges(0, 1), per_channel=st.booleans()),
    transform(
        "CoarseDropout",
        num_holes_range=st.tuples(whole(1, 4), whole(4, 8)),
        hole_height_range=st.one_of(ranges(0.1, 1), st.just((1, 8))),
        fill=st.sampled_from([0, "random", "random_uniform", [1, 2, 3]]),
    ),
    transform(
        "ImageCompression", quality_range=st.tuples(whole(1, 50), whole(50, 100)), compression_type=st.just("webp")
    ),
    transform("Perspective", scale=ranges(0, 0.2), keep_size=st.booleans()),
    transform("Posterize", num_bits=whole(1, 7)),
    transform("GridDistortion", num_steps=whole(1, 5), distort_limit=ranges(-0.9, 0.9)),
)
nested = st.recursive(
    single,
    lambda inner: st.one_of(
        st.builds(
            lambda name, members, p: {name: {"transforms": members, "p": p}},
            st.sampled_from(["Sequential", "Compose", "RandomOrder"]),
            st.lists(inner, min_size=1, max_size=3),
            unit,
        ),
        st.builds(
            lambda members, n, replace: {"SomeOf": {"transforms": members, "n": n, "replace": replace}},
            st.lists(inner, min_size=1, max_size=3),
            whole(1, 4),
            st.booleans(),
        ),
        st.lists(inner, min_size=1, max_size=2).map(lambda members: {"OneOf": [{"Blur": {"p": 1}}, *members]}),
    ),
    max_leaves=4,
)
split = st.fixed_dictionaries(
    {},
    optional={
        "variants": whole(1, 9),
        "folder": st.sampled_from(["a", "b/c"]),
        "transforms": st.lists(nested, max_size=3),
    },
)
recipes = st.fixed_dictionaries(
    {},
    optional={
        "size": st.one_of(whole(1, 300), st.tuples(whole(1, 300), whole(1, 300))),
        "dtype": st.sampled_from(["float16", "uint8"]),
        "normalize": st.sampled_from(["dataset", "imagenet", {"mean": [0.1, 0, 0.5], "std": [1, 0.3, 0.25]}]),
        "seed": whole(0, 2**63 - 1),
        "decode": st.fixed_dictionaries(
            {},
            optional={
                "max_megapixels": whole(1, 999),
                "reduced": st.booleans(),
                "levels": st.sampled_from([None, "high-byte", [0, 4095], [-1000, 400]]),
                "extra_channels": st.sampled_from([None, "drop"]),
                "pages": st.sampled_from([None, "first"]),
            },
        ),
        "classes": st.one_of(st.none(), st.lists(st.text(max_size=3), unique=True, max_size=3)),
        "splits": st.one_of(st.none(), st.dictionaries(st.sampled_from(["train", "val", "x"]), split, min_size=1)),
    },
)


@settings(max_examples=60, deadline=None)
@given(recipes)
def test_canonical_is_a_fixed_point_and_plain_data(values):
    recipe = Recipe.from_dict(values)
    canonical = canonical_json(recipe.canonical())
    assert canonical_json(Recipe.from_dict(recipe.canonical()).canonical()) == canonical
    assert canonical_json(Recipe.from_dict(json.loads(canonical)).canonical()) == canonical
    as_yaml = yaml.safe_dump(recipe.canonical())
    assert canonical_json(Recipe.from_dict(yaml.safe_load(as_yaml)).canonical()) == canonical


@settings(max_examples=40, deadline=None)
@given(nested)
def test_objects_give_the_form_that_their_names_give(item):
    """What the canonical form builds is, as an object, written down the same way again."""
    (transform,) = transforms_of(of(item))
    # linear asked for by name is the one thing that an object cannot say: there it is the library's default
    text = canonical_json(transform)
    assume(b'"area_for_downscale":null' not in text or b'"interpolation":1' not in text)
    built = Pipeline([transform])._compose.transforms[0]
    assert canonical_json(transforms_of(of(built))) == canonical_json([transform])


# -- overrides ---------------------------------------------------------------------------------------------------------

BASE = {"size": 224, "decode": {}, "splits": {"train": {"transforms": [{"Resize": {"height": 8, "width": 8}}, "Blur"]}}}


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("size=160", ["size"], 160),
        (" size =[160, 224]", ["size"], [160, 224]),
        ("decode.reduced=true", ["decode", "reduced"], True),
        ("splits.train.variants=4", ["splits", "train", "variants"], 4),
        ("splits.val=", ["splits", "val"], None),
        ("splits.train.transforms.0.Resize.height=9", ["splits", "train", "transforms", 0, "Resize", "height"], 9),
        ("splits.train.transforms.1={Blur: {p: 1}}", ["splits", "train", "transforms", 1], {"Blur": {"p": 1}}),
        ("normalize=a=b", ["normalize"], "a=b"),
    ],
)
def test_an_override_sets_one_value_and_leaves_the_rest(override, path, value):
    expected = copy.deepcopy(BASE)
    place = expected
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    before = copy.deepcopy(BASE)
    assert with_overrides(BASE, [override]) == expected
    assert before == BASE


def test_later_overrides_win_and_reach_into_earlier_ones():
    after = with_overrides(
        {}, ["splits.train.variants=2", "splits.train.variants=3", "splits.val={folder: v}", "splits.val.folder=w"]
    )
    assert after == {"splits": {"train": {"variants": 3}, "val": {"folder": "w"}}}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("size", "--set 'size': KEY=VALUE expected, such as size=160"),
        ("=3", "--set '=3': KEY=VALUE expected"),
        ("size=[1", "--set 'size=[1': '[1' is not a valid value"),
        ("size={a: 1, a: 2}", "is not a valid value"),
        ("splits.train.transforms.2=Blur", "'2' is not a place in a list of 2"),
        ("splits.train.transforms.x=Blur", "'x' is not a place in a list of 2"),
        ("splits.train.transforms.-1=Blur", "'-1' is not a place in a list of 2"),
        ("size.x=1", "there is nothing below 'x'"),
    ],
)
def test_a_bad_override_is_refused(override, message):
    with pytest.raises(RecipeError) as refused:
        with_overrides(BASE, [override])
    assert message in str(refused.value)


def test_overrides_are_part_of_the_recipe_that_is_read(tmp_path):
    (tmp_path / "recipe.yaml").write_text("size: 96\nseed: 3\n")
    assert Recipe.from_yaml(tmp_path / "recipe.yaml", ["size=64"]) == Recipe(size=64, seed=3)
    with pytest.raises(RecipeError, match="sise: unknown key"):
        Recipe.from_yaml(tmp_path / "recipe.yaml", ["sise=64"])


@pytest.mark.parametrize(
    "levels", [[0, True], [0.0, 9.0], [0, 65536], [-32769, 0], [0], [0, 1, 2], 5, {}, "high byte s"]
)
def test_levels_that_cannot_be_meant(levels):
    with pytest.raises(RecipeError, match=r"decode\.levels: \[lo, hi\]"):
        Recipe(decode={"levels": levels})


def test_keys_for_odd_images_are_in_the_canonical_form_only_when_set():
    assert Recipe(decode={"levels": None, "pages": None}).canonical()["decode"] == Recipe().canonical()["decode"]
    decode = {"levels": [0, 4095], "extra_channels": "drop", "pages": "first"}
    recipe = Recipe(decode=decode)
    assert recipe.canonical()["decode"] == {"max_megapixels": 179.0, "reduced": False} | decode
    assert Recipe.from_dict(recipe.canonical()) == recipe != Recipe()


def test_only_a_window_is_part_of_the_identity():
    def rendering(**decode):
        return Recipe(decode=decode).with_splits([("train", ".")]).rendering("train", "opencv", "")

    plain, window = rendering(), rendering(levels=[0, 4095], pages="first")
    admitted = rendering(levels="high-byte", extra_channels="drop", pages="first")
    assert plain.pixels_id == admitted.pixels_id != window.pixels_id
    assert plain.decode_arguments == {}
    assert window.decode_arguments == {"levels": (0, 4095), "pages": "first"}
    assert admitted.decode_arguments == {"levels": "high-byte", "extra_channels": "drop", "pages": "first"}
