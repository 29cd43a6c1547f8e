"""What bounded a build, in one sentence that names what to change."""

import pytest

from preprocess.advice import TransformTime, advice, shares
from preprocess.clock import STAGES

CROP = TransformTime(("train",), "RandomResizedCrop", 3.0, {"interpolation": 1, "size": [8, 8]}, ("HorizontalFlip",))
FLIP = TransformTime(("train",), "HorizontalFlip", 1.0, {"p": 0.5}, ())


def told(bound, transforms=(), **changes):
    stages = dict.fromkeys((*STAGES, "sync"), 1.0) | {bound: 5.0}
    known = {"dtype": "float16", "reduced": False, "times_larger": 1.5, "workers": 2}
    return advice(stages, transforms, **(known | changes))


def test_shares_are_parts_of_all_and_the_largest_comes_first():
    assert shares({"read": 1.0, "decode": 6.0, "write": 0.0, "sync": 1.0}) == {
        "decode": 0.75,
        "read": 0.125,
        "sync": 0.125,
    }


@pytest.mark.parametrize(
    ("bound", "changes", "words"),
    [
        ("read", {"workers": 3}, "--workers 6"),
        ("decode", {"times_larger": 4.2}, "4.2 times as large as what is kept of them; decode: {reduced: true}"),
        ("decode", {"times_larger": 3.9}, "only more processors"),  # no JPEG would be decoded at a half
        ("decode", {"times_larger": 9, "reduced": True}, "only more processors"),
        ("write", {}, "dtype: uint8 in the recipe halves the bytes"),
        ("write", {"dtype": "uint8"}, "a faster disk for CACHE"),
        ("normalise", {}, "later builds do without; so do normalize: imagenet"),
        ("sync", {}, "waiting for the disk of CACHE (50%): a faster one, dtype: uint8 or fewer variants"),
        ("sync", {"dtype": "uint8"}, "(50%): a faster one, a smaller size or fewer variants"),
        ("render", {}, "fewer variants help, or more workers"),
    ],
)
def test_the_cure_is_that_of_what_bounds(bound, changes, words):
    text = told(bound, **changes)

    assert text.startswith("Bound by ")
    assert "(50%)" in text
    assert words in text


def test_the_dearest_transform_is_named_with_its_share():
    text = told("render", [FLIP, CROP])

    assert "RandomResizedCrop of train takes 75% of their time; a cheaper one in its place helps" in text


@pytest.mark.parametrize("slow", [{"interpolation": 3}, {"interpolation": 1, "area_for_downscale": "image"}])
def test_averaging_while_shrinking_has_a_cheaper_way(slow):
    resize = TransformTime(("train", "val"), "SmallestMaxSize", 2.0, slow, ("CenterCrop",))

    assert "SmallestMaxSize of train and val takes 67% of their time; interpolation: linear" in told(
        "render", [FLIP, resize]
    )


def test_what_works_on_all_pixels_before_a_crop_belongs_behind_it():
    blur = TransformTime(("train",), "GaussianBlur", 9.0, {}, ("HorizontalFlip", "RandomResizedCrop", "Resize"))

    assert "behind RandomResizedCrop it would have fewer pixels to work on" in told("render", [blur, FLIP, CROP])


def test_a_build_of_a_moment_gets_no_advice():
    stages = {"read": 0.1, "render": 0.3, "sync": 0.05}

    assert advice(stages, [CROP], dtype="float16", reduced=False, times_larger=1, workers=1) == ""


@pytest.mark.parametrize("bound", ["write", "normalise", "sync"])
def test_what_a_recipe_has_already_is_not_advised(bound):
    assert "uint8" in told(bound)
    assert "uint8" not in told(bound, dtype="uint8")
