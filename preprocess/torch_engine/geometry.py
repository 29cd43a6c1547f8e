"""Albumentations' geometric transforms as samplings and warps (its 2.0.8, augmentations/crops and /geometric)."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from preprocess.torch_engine.actions import Action, Compile
from preprocess.torch_engine.borders import CONSTANT, border_index
from preprocess.torch_engine.resizing import AREA, LINEAR, resized
from preprocess.torch_engine.sampling import Sampling, Taps
from preprocess.torch_engine.warp import Warp

Params = dict[str, Any]
Size = tuple[int, int]


def _whole(size_hw: Size) -> Sampling:
    height, width = size_hw
    return Sampling(_every(height), _every(width))


def _every(length: int) -> Taps:
    return Taps(np.arange(length)[:, None])


def _resize(size_hw: Size, target_hw: Sequence[int], interpolation: int) -> list[Action]:
    height, width = target_hw
    return [] if size_hw == (height, width) else [resized(size_hw, (height, width), interpolation)]


def _interpolation(transform: Any, shrinks: bool) -> int:
    chosen: int = AREA if shrinks and transform.area_for_downscale is not None else transform.interpolation
    return chosen


def _crop(size_hw: Size, x_min: int, y_min: int, x_max: int, y_max: int) -> list[Action]:
    height, width = size_hw
    if not (0 <= x_min < x_max <= width and 0 <= y_min < y_max <= height):
        raise ValueError(
            f"a crop from ({x_min}, {y_min}) to ({x_max}, {y_max}) is empty or not inside {width}x{height}"
        )
    if (x_min, y_min, x_max, y_max) == (0, 0, width, height):
        return []
    return [Sampling(Taps(np.arange(y_min, y_max)[:, None]), Taps(np.arange(x_min, x_max)[:, None]))]


def _pad(transform: Any, params: Params, size_hw: Size, channels: int) -> list[Action]:
    top, bottom, left, right = (params[f"pad_{side}"] for side in ("top", "bottom", "left", "right"))
    if not any((top, bottom, left, right)):
        return []
    mode = transform.border_mode
    rows, columns = (
        Taps(
            border_index(
                torch.arange(-before, length + after, device="cpu"), torch.tensor(length, device="cpu"), mode
            ).numpy()[:, None]
        )
        for before, length, after in zip((top, left), size_hw, (bottom, right), strict=True)
    )
    fill = _colour(_to_all_channels(transform.fill, channels), channels) if mode == CONSTANT else None
    return [Sampling(rows, columns, fill=fill)]


def _to_all_channels(fill: Any, channels: int) -> Any:
    """What Albumentations does with one number; not for Perspective, where it reaches the first channel only."""
    return [fill] * channels if isinstance(fill, float) else fill


def _colour(fill: Any, channels: int) -> tuple[int, ...]:
    """How cv2 takes a colour: numbers that are missing are 0, each is rounded and clipped."""
    given = np.zeros(4)
    values = np.atleast_1d(fill)
    given[: len(values)] = values
    return tuple(int(value) for value in np.rint(given[:channels]).clip(0, 255))


def _resize_to(transform: Any, params: Params, size_hw: Size, channels: int) -> list[Action]:
    shrinks = transform.height < size_hw[0] or transform.width < size_hw[1]
    return _resize(size_hw, (transform.height, transform.width), _interpolation(transform, shrinks))


def _resize_side(transform: Any, params: Params, size_hw: Size, channels: int) -> list[Action]:
    scale = params["scale"]
    target_hw = [max(1, round(length * scale)) for length in size_hw]
    return _resize(size_hw, target_hw, _interpolation(transform, scale < 1))


def _crop_and_resize(transform: Any, params: Params, size_hw: Size, channels: int) -> list[Action]:
    x_min, y_min, x_max, y_max = params["crop_coords"]
    crop_hw = y_max - y_min, x_max - x_min
    shrinks = crop_hw[0] > transform.size[0] or crop_hw[1] > transform.size[1]
    return [
        *_crop(size_hw, x_min, y_min, x_max, y_max),
        *_resize(crop_hw, transform.size, _interpolation(transform, shrinks)),
    ]


def _pad_and_crop(transform: Any, params: Params, size_hw: Size, channels: int) -> list[Action]:
    pads = params["pad_params"]
    if pads is None:
        return _crop(size_hw, *params["crop_coords"])
    padded_hw = size_hw[0] + pads["pad_top"] + pads["pad_bottom"], size_hw[1] + pads["pad_left"] + pads["pad_right"]
    return [*_pad(transform, pads, size_hw, channels), *_crop(padded_hw, *params["crop_coords"])]


def _turn(size_hw: Size, down: bool = False, across: bool = False, transposed: bool = False) -> list[Action]:
    """Rows upside down, columns left to right, then both exchanged."""
    if not (down or across or transposed):
        return []
    rows, columns = (
        np.arange(length)[:: -1 if turned else 1, None] for length, turned in zip(size_hw, (down, across), strict=True)
    )
    return [Sampling(Taps(rows), Taps(columns), transposed=transposed)]


def _always_turned(**how: bool) -> Compile:
    return lambda transform, params, size_hw, channels: _turn(size_hw, **how)


_QUARTERS: tuple[dict[str, bool], ...] = (
    {},
    {"across": True, "transposed": True},
    {"down": True, "across": True},
    {"down": True, "transposed": True},
)
"""Turns to the left: how often -> what they are made of."""

_D4 = {
    "e": _QUARTERS[0],
    "r90": _QUARTERS[1],
    "r180": _QUARTERS[2],
    "r270": _QUARTERS[3],
    "v": {"down": True},
    "h": {"across": True},
    "t": {"transposed": True},
    "hvt": {"down": True, "across": True, "transposed": True},
}


def _rotate_90(transform: Any, params: Params, size_hw: Size, channels: int) -> list[Action]:
    return _turn(size_hw, **_QUARTERS[params["factor"]])


def _d4(transform: Any, params: Params, size_hw: Size, channels: int) -> list[Action]:
    return _turn(size_hw, **_D4[params["group_element"]])


def _warp(
    transform: Any, matrix: np.ndarray, canvas_hw: Size, border: tuple[int, ...], perspective: bool = False
) -> list[Action]:
    """A warp by a matrix that maps the source to the canvas."""
    if perspective:
        inverse = cv2.invert(matrix)[1]
    else:
        inverse = np.vstack([cv2.invertAffineTransform(matrix[:2].astype(np.float64)), [0, 0, 1]])
    # cv2's warps know no area
    interpolation = LINEAR if transform.interpolation == AREA else transform.interpolation
    return [Warp(inverse, perspective, interpolation, transform.border_mode, border, _whole(canvas_hw))]


def _affine(transform: Any, params: Params, size_hw: Size, channels: int) -> list[Action]:
    return _warp_affine(transform, params["matrix"], params["output_shape"], channels)


def _rotate(transform: Any, params: Params, size_hw: Size, channels: int) -> list[Action]:
    turned = _warp_affine(transform, params["matrix"], size_hw, channels)
    if not transform.crop_border:
        return turned
    return [*turned, *_crop(size_hw, *(params[name] for name in ("x_min", "y_min", "x_max", "y_max")))]


def _warp_affine(transform: Any, matrix: np.ndarray, canvas_hw: Sequence[float], channels: int) -> list[Action]:
    if np.allclose(matrix, np.eye(3)):
        return []
    height, width = (int(np.round(length)) for length in canvas_hw[:2])
    border = _colour(_to_all_channels(transform.fill, channels), channels)
    return _warp(transform, matrix, (height, width), border)


def _perspective(transform: Any, params: Params, size_hw: Size, channels: int) -> list[Action]:
    matrix, canvas_hw = params["matrix"], (params["max_height"], params["max_width"])
    if transform.keep_size:
        matrix = np.diag([size_hw[1] / canvas_hw[1], size_hw[0] / canvas_hw[0], 1]) @ matrix
        canvas_hw = size_hw
    return _warp(transform, matrix, canvas_hw, _colour(transform.fill, channels), perspective=True)


COMPILERS: dict[str, Compile] = {
    "Affine": _affine,
    "CenterCrop": _pad_and_crop,
    "D4": _d4,
    "HorizontalFlip": _always_turned(across=True),
    "LongestMaxSize": _resize_side,
    "NoOp": _always_turned(),
    "PadIfNeeded": _pad,
    "Perspective": _perspective,
    "RandomCrop": _pad_and_crop,
    "RandomResizedCrop": _crop_and_resize,
    "RandomRotate90": _rotate_90,
    "Resize": _resize_to,
    "Rotate": _rotate,
    "ShiftScaleRotate": _affine,
    "SmallestMaxSize": _resize_side,
    "Transpose": _always_turned(transposed=True),
    "VerticalFlip": _always_turned(down=True),
}
"""Name of an Albumentations transform -> its actions for one image; none where nothing happens to a pixel."""
