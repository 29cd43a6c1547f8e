"""The torch engine beside OpenCV's, by the way that builds go: decide, compile, run. docs/engines.md states the bounds.

The table there is read here, so that what users are told is what is held.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from preprocess.augment import BORDER_MODES, INTERPOLATIONS, Pipeline, resolve
from preprocess.decisions import Misshapen
from preprocess.torch_engine.programs import COMPILERS, first_unsupported, program_of, run
from tests.torch_images import batch, scenes

DOCUMENT = Path(__file__).parents[3] / "docs" / "engines.md"
SIZES = ((1, 1), (1, 9), (7, 1), (5, 6), (64, 80), (101, 77), (150, 203))

# -- what is tried -----------------------------------------------------------------------------------------------------

_BORDERS = tuple(BORDER_MODES)
_WARPS = ("nearest", "linear", "cubic", "area", "lanczos4")


def _each(**given: Any) -> list[dict[str, Any]]:
    """With every interpolation, and with the mean over areas where images shrink."""
    return [{**given, "interpolation": name} for name in INTERPOLATIONS] + [{**given, "area_for_downscale": "image"}]


def _framed(**given: Any) -> list[dict[str, Any]]:
    return [{**given, "border_mode": border} for border in _BORDERS]


def _warped(*turns: int, **given: Any) -> list[dict[str, Any]]:
    """Every interpolation and every border, each pair of which comes up at one of five turns."""
    return [
        {"p": 1, "fill": 90, **given, "interpolation": name, "border_mode": _BORDERS[(place + turn) % len(_BORDERS)]}
        for turn in turns
        for place, name in enumerate(_WARPS)
    ]


_BENT = {"scale": [0.5, 1.6], "translate_percent": [-0.2, 0.2], "rotate": [-180, 180], "shear": [-20, 20]}
_NONE_OF_JITTER = {"brightness": [1, 1], "contrast": [1, 1], "saturation": [1, 1], "hue": [0, 0]}

CONFIGURATIONS: dict[str, list[dict[str, Any]]] = {
    "Resize": [*_each(height=37, width=50), *_each(height=220, width=130)],
    "SmallestMaxSize": [*_each(max_size=[9, 38, 170]), {"max_size_hw": [40, None]}],
    "LongestMaxSize": [*_each(max_size=[12, 50, 240]), {"max_size_hw": [60, 90]}],
    "CenterCrop": [{"height": 5, "width": 6}, *_framed(height=120, width=90, pad_if_needed=True, fill=[9, 300, 1.5])],
    "RandomCrop": [
        {"height": 5, "width": 6},
        {"height": 1, "width": 1},
        *_framed(height=90, width=130, pad_if_needed=True, pad_position="random", fill=199.5),
    ],
    "RandomResizedCrop": [
        *_each(size=[48, 60], scale=[0.05, 1]),
        *_each(size=[12, 9], scale=[0.5, 1]),
        {"size": [70, 70], "scale": [0.001, 0.01], "interpolation": "linear"},
    ],
    "PadIfNeeded": [
        *_framed(min_height=110, min_width=120, position="random", fill=[1, 2, 3]),
        {"min_height": None, "min_width": None, "pad_height_divisor": 32, "pad_width_divisor": 10, "fill": 7},
    ],
    "HorizontalFlip": [{"p": 1}],
    "VerticalFlip": [{"p": 1}],
    "Transpose": [{"p": 1}],
    "RandomRotate90": [{"p": 1}] * 2,
    "D4": [{"p": 1}] * 4,
    "Affine": [
        *_warped(0, 1, 3, **_BENT),
        {"rotate": [-90, 90], "scale": [0.5, 1.5], "fit_output": True, "p": 1},
        {"scale": [0.2, 0.3], "p": 1},
    ],
    "ShiftScaleRotate": _warped(0, 2, shift_limit=0.3, scale_limit=0.6, rotate_limit=180),
    "Rotate": [*_warped(1, 4, limit=180), {"limit": 60, "crop_border": True, "p": 1}],
    "Perspective": [
        *_warped(0, 2, 4, scale=[0.05, 0.3]),
        {"fit_output": True, "keep_size": False, "fill": [9, 8, 7], "p": 1},
        {"keep_size": False, "scale": [0.1, 0.4], "p": 1},
    ],
    "ColorJitter": [
        {"p": 1},
        {"brightness": [0, 3], "contrast": [0, 3], "saturation": [0, 3], "hue": [-0.5, 0.5], "p": 1},
        *({**_NONE_OF_JITTER, what: [0, 2], "p": 1} for what in ("brightness", "contrast", "saturation")),
        {**_NONE_OF_JITTER, "hue": [-0.5, 0.5], "p": 1},
    ],
    "RandomBrightnessContrast": [
        {"brightness_limit": 0.8, "contrast_limit": 0.8, "p": 1},
        {"brightness_limit": 0.8, "contrast_limit": 0.8, "ensure_safe_range": True, "p": 1},
    ],
    "HueSaturationValue": [
        {"p": 1},
        {"hue_shift_limit": 180, "sat_shift_limit": 200, "val_shift_limit": 200, "p": 1},
        {"hue_shift_limit": 0, "sat_shift_limit": [20, 40], "val_shift_limit": 0, "p": 1},
    ],
    "RGBShift": [{"r_shift_limit": 90, "g_shift_limit": 60, "b_shift_limit": [-30, 200], "p": 1}],
    "RandomGamma": [{"gamma_limit": [20, 300], "p": 1}],
    "ToGray": [
        {"method": method, "p": 1}
        for method in ("weighted_average", "from_lab", "desaturation", "average", "max", "pca")
    ],
    "InvertImg": [{"p": 1}],
    "Solarize": [{"threshold_range": [0, 1], "p": 1}],
    "Posterize": [{"num_bits": [1, 7], "p": 1}],
    "Equalize": [
        {"mode": mode, "by_channels": by_channels, "p": 1}
        for mode, by_channels in itertools.product(("cv", "pil"), (True, False))
    ],
    "GaussianBlur": [
        {"p": 1},
        {"blur_limit": [3, 15], "sigma_limit": [0.2, 4], "p": 1},
        {"sigma_limit": [5, 9], "p": 1},
    ],
    "Sharpen": [
        {"p": 1},
        {"alpha": [0, 1], "lightness": [0, 5], "p": 1},
        {"method": "gaussian", "kernel_size": 7, "sigma": 2, "p": 1},
    ],
    "CoarseDropout": [
        {"p": 1},
        {"num_holes_range": [3, 8], "hole_height_range": [0.1, 0.9], "hole_width_range": [0.3, 0.9], "p": 1},
        {"fill": [1, 200, 3.7], "p": 1},
    ],
    "NoOp": [{"p": 1}],
}
"""Arguments of each transform, as a recipe gives them."""

_CROP = {"RandomResizedCrop": {"size": [64, 64], "scale": [0.35, 1.0]}}
RECIPES: dict[str, list[dict[str, Any]]] = {
    "train": [_CROP, {"HorizontalFlip": {"p": 0.5}}],
    "val": [
        {"SmallestMaxSize": {"max_size": 72, "interpolation": "area"}},
        {"CenterCrop": {"height": 64, "width": 64}},
    ],
    "long": [
        {"SmallestMaxSize": {"max_size": 100}},
        {
            "OneOf": {
                "transforms": [{"RandomCrop": {"height": 90, "width": 90}}, {"Rotate": {"limit": 30}}, "D4"],
                "p": 1,
            }
        },
        _CROP,
        {
            "SomeOf": {
                "transforms": [
                    "HorizontalFlip",
                    "ColorJitter",
                    "GaussianBlur",
                    {
                        "OneOf": [
                            {"Affine": {"rotate": [-20, 20], "shear": [-9, 9], "p": 1}},
                            {"Perspective": {"p": 1}},
                            {"Sequential": [{"Transpose": {"p": 1}}, {"Sharpen": {"p": 1}}]},
                        ]
                    },
                    {"OneOf": ["HueSaturationValue", "RandomGamma", "RandomBrightnessContrast", "Equalize", "ToGray"]},
                ],
                "n": 4,
            }
        },
        {"RandomOrder": {"transforms": ["RGBShift", "Solarize", "Posterize", "InvertImg"], "n": 2}},
        "CoarseDropout",
    ],
}

# -- how far apart they are --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Distance:
    """Levels between two engines: the largest, the mean, and how many of the pixels are off by more than 2."""

    largest: float
    mean: float
    share: float

    def within(self, bound: "Distance") -> bool:
        return self.largest <= bound.largest and self.mean <= bound.mean and self.share <= bound.share


def distance(theirs: Sequence[np.ndarray], ours: Sequence[np.ndarray]) -> Distance:
    """Over all pixels of all images, uint8 (h, w, C)."""
    levels = [np.abs(a.astype(np.int16) - b) for a, b in zip(theirs, ours, strict=True)]
    values = np.concatenate([level.ravel() for level in levels])
    off = np.concatenate([(level > 2).any(axis=2).ravel() for level in levels])
    return Distance(int(values.max()), float(values.mean()), float(off.mean()))


def by_both(
    transforms: Sequence[Any], images: Sequence[np.ndarray], first_state: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What OpenCV's engine and torch's make of images of one number of channels; without those that both refuse.

    In one batch, backwards and with noise around them, they must come out just as they do alone.
    """
    pipeline = Pipeline(resolve(list(transforms), "transforms")[0])
    theirs, kept, programs = [], [], []
    for state, image in enumerate(images, first_state):
        try:
            steps = pipeline.decide(image.shape, state)
            program = program_of(steps, image.shape[:2], image.shape[2])
        except Misshapen:
            continue
        except Exception:
            with pytest.raises(Exception):  # noqa: B017 - whatever the library raises
                pipeline(image, state)
            continue
        theirs.append(pipeline(image, state))
        kept.append(image)
        programs.append(program)
    ours = [as_image(run([batch([image])], [program])[0]) for image, program in zip(kept, programs)]
    together = run([batch(kept[::-1], room=(260, 1))], programs[::-1])
    for one, other in zip(ours, reversed(together), strict=True):
        np.testing.assert_array_equal(as_image(other), one)
    return theirs, ours


def as_image(planes: torch.Tensor) -> np.ndarray:
    return planes.permute(1, 2, 0).numpy()


def cases(name: str) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Recipes of one transform, with the numbers of channels for which torch takes them."""
    for given, channels in itertools.product(CONFIGURATIONS[name], (3, 1)):
        if channels == 1 and isinstance(given.get("fill"), list):
            continue  # one colour for three channels
        transforms = resolve([{name: given}], "transforms")[0]
        if first_unsupported(transforms, channels) is None:
            yield transforms, channels


def pictures(channels: int, given: Mapping[str, Any]) -> list[np.ndarray]:
    """Photos in small, pure noise, and images of few pixels; without those that OpenCV 5.0 does not come back from."""
    noise = np.random.default_rng(1).integers(0, 256, (40, 67, channels), dtype=np.uint8)
    never_ends = (given.get("interpolation"), given.get("border_mode")) == (
        INTERPOLATIONS["cubic"],
        BORDER_MODES["reflect_101"],
    )
    return [*scenes(channels, SIZES[3:] if never_ends else SIZES), noise]


def bounds() -> dict[str, Distance]:
    """The table in docs/engines.md: `| what | largest | mean | share % | remark |`, with `what` free of markup."""
    rows = re.findall(r"^\| ([^|]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) % \|", DOCUMENT.read_text(), re.MULTILINE)
    return {what.replace("`", ""): Distance(float(a), float(b), float(c) / 100) for what, a, b, c in rows}


def row_of(name: str, given: Mapping[str, Any]) -> str:
    """Some interpolations have rows of their own."""
    return next(
        (row for row in bounds() if row in (f"{name}, {word}" for word in _words(given.get("interpolation")))), name
    )


def _words(interpolation: int | None) -> list[str]:
    return [word for word, code in INTERPOLATIONS.items() if code == interpolation]


# -- the tests ---------------------------------------------------------------------------------------------------------


def test_each_transform_that_is_supported_has_a_row_and_is_tried_and_no_other():
    rows = {row.split(",")[0] for row in bounds()} - {"a whole recipe"}
    assert rows == set(COMPILERS) == set(CONFIGURATIONS)
    assert set(bounds()) - {"a whole recipe"} == {
        row_of(name, transforms[0][name]) for name in CONFIGURATIONS for transforms, _ in cases(name)
    }


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_transform_keeps_its_bound_alone_and_among_others(name):
    changed = False
    for number, (transforms, channels) in enumerate(cases(name)):
        (given,) = (item[name] for item in transforms)
        images = pictures(channels, given)
        theirs, ours = by_both(transforms, images, 1000 * number)
        assert len(ours) >= 3
        found = distance(theirs, ours)
        assert found.within(bounds()[row_of(name, given)]), (given, channels, found)
        changed |= any(all(not np.array_equal(out, image) for image in images) for out in theirs)
    assert changed == (name != "NoOp")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("name", RECIPES)
def test_a_whole_recipe_keeps_its_bound(name, channels):
    images = pictures(channels, {}) * 4
    theirs, ours = by_both(RECIPES[name], images, 0)
    assert len(ours) == len(images)
    assert {out.shape for out in ours} == {(64, 64, channels)}
    found = distance(theirs, ours)
    assert found.within(bounds()["a whole recipe"]), found
