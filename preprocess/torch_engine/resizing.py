"""OpenCV's resize of 8-bit images as a sampling: the same weights to the last bit.

The formulas are those of modules/imgproc/src/resize.cpp in OpenCV 5.0.
"""

import sys
from typing import Any

import numpy as np

from preprocess.augment import INTERPOLATIONS
from preprocess.torch_engine.sampling import Sampling, Taps

NEAREST, LINEAR, CUBIC, AREA, LANCZOS4, LINEAR_EXACT, NEAREST_EXACT = (
    INTERPOLATIONS[name] for name in ("nearest", "linear", "cubic", "area", "lanczos4", "linear_exact", "nearest_exact")
)

_TIE_TO_ABOVE = 1 / 16
"""Added to quarters, makes a half round up and leaves the others where they were."""


def resized(size_hw: tuple[int, int], target_hw: tuple[int, int], interpolation: int) -> Sampling:
    """What `cv2.resize` does to an image, its size to be changed.

    Parameters
    ----------
    size_hw, target_hw : height and width before and after
    interpolation : one of cv2's INTER_* constants
    """
    (rows_in, columns_in), (rows_out, columns_out) = size_hw, target_hw
    vertical, horizontal = (rows_in, rows_out), (columns_in, columns_out)
    if interpolation == NEAREST:
        return Sampling(_nearest(*vertical), _nearest(*horizontal))
    if interpolation == NEAREST_EXACT:
        return Sampling(_nearest_exact(*vertical), _nearest_exact(*horizontal))
    if interpolation == LINEAR_EXACT:
        return Sampling(_linear_exact(*vertical), _linear_exact(*horizontal), "exact")
    if interpolation == CUBIC and min(size_hw) < 4:
        return Sampling(_cubic_of_few(*vertical), _cubic_of_few(*horizontal), "float", scale=2**-22)
    if interpolation == CUBIC:
        return Sampling(_cubic(*vertical), _cubic(*horizontal), "float")
    if interpolation == LANCZOS4:
        return Sampling(_lanczos(*vertical), _lanczos(*horizontal), "fixed")
    if interpolation == AREA and rows_in >= rows_out and columns_in >= columns_out:
        if not (_whole_scale(*vertical) and _whole_scale(*horizontal)):
            return Sampling(_area(*vertical), _area(*horizontal), "float")
        block_hw = rows_in // rows_out, columns_in // columns_out
        mean = float(np.float32(1) / np.float32(block_hw[0] * block_hw[1]))
        bias = _TIE_TO_ABOVE if block_hw == (2, 2) else 0.0
        return Sampling(_blocks(*vertical), _blocks(*horizontal), "float", mean, bias)
    position = _area_enlarged if interpolation == AREA else _centres
    return Sampling(
        _linear(*position(*vertical), rows_in),
        # Along a row, OpenCV lets a position beyond the edge be the edge; from row to row it clamps the taps instead.
        _linear(*_kept_inside(*position(*horizontal), columns_in), columns_in),
        "linear",
    )


def _scale(length: int, target: int) -> float:
    """Not length / target: OpenCV rounds twice."""
    return 1 / (target / length)


def _whole_scale(length: int, target: int) -> bool:
    """OpenCV's own test, which finds that 49 is not a multiple of 1."""
    scale = _scale(length, target)
    return abs(scale - round(scale)) < sys.float_info.epsilon


def _centres(length: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """Where pixels' centres come to lie: whole part, int64, and fraction, float32."""
    position = ((np.arange(target) + 0.5) * _scale(length, target) - 0.5).astype(np.float32)
    whole = np.floor(position)
    return whole.astype(np.int64), position - whole


def _area_enlarged(length: int, target: int) -> tuple[np.ndarray, np.ndarray]:
    """INTER_AREA of an image that does not shrink both ways."""
    place = np.arange(target)
    whole = np.floor(place * _scale(length, target)).astype(np.int64)
    fraction = ((place + 1) - (whole + 1) * (target / length)).astype(np.float32)
    return whole, np.where(fraction <= 0, np.float32(0), fraction - np.floor(fraction))


def _kept_inside(whole: np.ndarray, fraction: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    beyond = (whole < 0) | (whole >= length - 1)
    return whole.clip(0, length - 1), np.where(beyond, np.float32(0), fraction)


def _around(whole: np.ndarray, taps: int, length: int) -> np.ndarray:
    index: np.ndarray = (whole[:, None] + np.arange(1 - taps // 2, 1 + taps // 2)).clip(0, length - 1)
    return index


def _eleven_bits(weight: np.ndarray) -> np.ndarray:
    return np.rint(weight * np.float32(2048)).astype(np.int32)


def _nearest(length: int, target: int) -> Taps:
    index = np.floor(np.arange(target) * _scale(length, target)).astype(np.int64)
    return Taps(np.minimum(index, length - 1)[:, None])


def _nearest_exact(length: int, target: int) -> Taps:
    """As OpenCV 5 does it, and Pillow: a position that grows step by step, with the rounding errors of that."""
    steps = np.full(target, length / target)
    steps[0] /= 2
    index = np.floor(np.cumsum(steps)).astype(np.int64)
    return Taps(np.minimum(index, length - 1)[:, None])


def _linear(whole: np.ndarray, fraction: np.ndarray, length: int) -> Taps:
    return Taps(_around(whole, 2, length), _eleven_bits(np.stack([1 - fraction, fraction], axis=1)))


def _linear_exact(length: int, target: int) -> Taps:
    position = (np.arange(target) + 0.5) * _scale(length, target) - 0.5
    whole = np.floor(position).astype(np.int64)
    second = np.rint((position - whole) * 256).astype(np.int32)
    return Taps(_around(whole, 2, length), np.stack([256 - second, second], axis=1))


def cubic_weights(x: Any) -> tuple[Any, Any, Any, Any]:
    """Keys' cubic with a = -3/4: the weights of 4 pixels, for fractions of any shape, in their type."""
    a = -0.75
    far, beyond = x + 1, 1 - x
    first = ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
    second, third = (((a + 2) * d - (a + 3)) * d * d + 1 for d in (x, beyond))
    return first, second, third, 1 - first - second - third


def _cubic(length: int, target: int) -> Taps:
    """Weights unrounded: OpenCV's builds for x86 leave this to Intel's IPP, which computes in float."""
    position = (np.arange(target) + 0.5) * (length / target) - 0.5
    whole = np.floor(position).astype(np.int64)
    return Taps(_around(whole, 4, length), np.stack(cubic_weights(position - whole), axis=1).astype(np.float32))


def _cubic_of_few(length: int, target: int) -> Taps:
    """Weights as OpenCV itself has them, for images that IPP refuses."""
    whole, fraction = _centres(length, target)
    weight = _eleven_bits(np.stack(cubic_weights(fraction), axis=1))
    return Taps(_around(whole, 4, length), weight.astype(np.float32))


def lanczos_weights(x: np.ndarray) -> np.ndarray:
    """Windowed sinc over 8 pixels, normalised, for fractions float32 (m,): float32 (m, 8)."""
    distance = (x + np.float32(3))[:, None] - np.arange(8, dtype=np.float32)
    y = distance.astype(np.float64) * (np.pi / 4)
    # sin(4 y) sin(y) / y², with sin(4 y) constant up to its sign; OpenCV's table of sines of multiples of 45 degrees.
    root = 0.70710678118654752440
    sines = np.array([[1, 0], [-root, -root], [0, 1], [root, -root], [-1, 0], [root, root], [0, -1], [-root, root]])
    sine, cosine = np.sin(-y[:, :1]), np.cos(-y[:, :1])
    on_pixel = np.abs(distance) < 1e-6
    raw = (sines[:, 0] * sine + sines[:, 1] * cosine) / np.where(on_pixel, 1, y * y)
    weight = np.where(on_pixel, np.float32(1e30), raw.astype(np.float32))
    total = np.zeros(len(x), np.float32)
    for column in weight.T:
        total += column
    normalised: np.ndarray = weight * (np.float32(1) / total)[:, None]
    return normalised


def _lanczos(length: int, target: int) -> Taps:
    whole, fraction = _centres(length, target)
    return Taps(_around(whole, 8, length), _eleven_bits(lanczos_weights(fraction)))


def _area(length: int, target: int) -> Taps:
    """Each pixel of the result is the mean of the cell that it covers."""
    scale = _scale(length, target)
    begin = np.arange(target) * scale
    end = begin + scale
    cell = np.minimum(scale, length - begin)
    last = np.minimum(np.floor(end).astype(np.int64), length - 1)
    first = np.minimum(np.ceil(begin).astype(np.int64), last)
    index = (first - 1)[:, None] + np.arange((last - first).max() + 2)
    weight = np.where(index < last[:, None], 1 / cell[:, None], 0)
    left, right = first - begin, end - last
    weight[:, 0] = np.where(left > 1e-3, left / cell, 0)  # OpenCV's limits: slivers do not count
    rightmost = np.where(right > 1e-3, np.minimum(np.minimum(right, 1), cell) / cell, 0)
    np.put_along_axis(weight, (last - first + 1)[:, None], rightmost[:, None], axis=1)
    return Taps(index.clip(0, length - 1), weight.astype(np.float32))


def _blocks(length: int, target: int) -> Taps:
    """Sums of `length // target` neighbours."""
    index = np.arange(length).reshape(target, -1)
    return Taps(index, np.ones(index.shape, np.float32))
