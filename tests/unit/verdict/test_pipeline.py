"""A recipe's transforms as a training script of torchvision's has them."""

import numpy as np
import pytest
from PIL import Image

from preprocess import Recipe
from preprocess.verdict.imagefolder import composed
from preprocess.verdict.pipeline import like_torchvision


def resolved(transforms, size=24, channels="rgb"):
    recipe = Recipe.from_dict({"size": size, "channels": channels, "splits": {"train": {"transforms": transforms}}})
    return like_torchvision(recipe.named_splits["train"].transforms, recipe.size, recipe.channels)


def test_the_usual_training_pipeline_is_found_again():
    steps, left_out = resolved([{"RandomResizedCrop": {"size": [24, 24], "scale": [0.35, 1]}}, {"HorizontalFlip": {}}])

    assert [step["name"] for step in steps] == ["RandomResizedCrop", "RandomHorizontalFlip"]
    assert steps[0]["arguments"] == {"size": (24, 24), "scale": (0.35, 1.0), "ratio": (0.75, pytest.approx(4 / 3))}
    assert (steps[1]["arguments"], left_out) == ({"p": 0.5}, [])


def test_the_default_pipeline_is_resize_and_centre_crop():
    steps, _ = like_torchvision(
        Recipe().with_splits([("val", "val")]).named_splits["val"].transforms, (224, 224), "rgb"
    )

    assert [(step["name"], step["arguments"]["size"]) for step in steps] == [
        ("Resize", 256),
        ("CenterCrop", (224, 224)),
    ]


def test_what_has_no_counterpart_is_named_and_the_size_still_right():
    steps, left_out = resolved(
        [{"LongestMaxSize": {"max_size": 24}}, {"PadIfNeeded": {"min_height": 24, "min_width": 24}}]
    )

    assert left_out == ["LongestMaxSize", "PadIfNeeded"]
    assert steps == [{"name": "Resize", "arguments": {"size": (24, 24)}, "p": 1.0}]


EVERYTHING = [
    {"SmallestMaxSize": {"max_size_hw": [30, 40]}},
    {"RandomCrop": {"height": 26, "width": 26}},
    {"ColorJitter": {"p": 0.9}},
    {"GaussianBlur": {"p": 0.9}},
    {"Rotate": {"p": 0.9}},
    {"ToGray": {}},
    {"VerticalFlip": {}},
    {"Resize": {"height": 20, "width": 28}},
]


@pytest.mark.parametrize(("channels", "count"), [("rgb", 3), ("gray", 1)])
def test_torchvision_runs_every_counterpart(channels, count):
    everything = [each for each in EVERYTHING if channels == "rgb" or "ToGray" not in each]
    steps, left_out = resolved(everything, [20, 28], channels)

    image = composed(steps, [0.5] * count, [0.25] * count)(Image.fromarray(np.zeros((50, 60, 3), np.uint8)))

    assert left_out == []
    assert tuple(image.shape) == (count, 20, 28)
    assert float(image.mean()) == pytest.approx(-2, abs=0.2)  # black, normalised
