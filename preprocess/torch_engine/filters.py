"""Blur and sharpening: sums over a pixel's neighbours, in the order and precision of OpenCV's vector code.

Its other code, for the few values that are left over of a row, rounds more often: one in a million differs by a level.
Borders are mirrored without repeating the outermost pixel, those of each image rather than of the batch.
"""

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from preprocess.torch_engine.actions import Action, Compile
from preprocess.torch_engine.images import Images


@dataclass(frozen=True, slots=True, eq=False)
class Blur:
    """`cv2.sepFilter2D` with one symmetric kernel in both directions.

    Attributes
    ----------
    taps : float64 (k,), k odd; used as OpenCV does, in single precision
    """

    taps: np.ndarray

    @property
    def group(self) -> Hashable:
        # Within a group the shorter kernels are filled up with zeros: never to more than twice their size.
        return len(self.taps).bit_length()

    def then(self, following: Action) -> Action | None:
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Blur"]) -> Images:
        size = max(len(action.taps) for action in actions)
        taps = np.stack([np.pad(action.taps, (size - len(action.taps)) // 2) for action in actions])
        sums = _separable(images, _doubles(taps, images.pixels.device), torch.float32)
        return Images(_rounded(sums), images.sizes)


@dataclass(frozen=True, slots=True, eq=False)
class Sharpen:
    """`cv2.filter2D`.

    Attributes
    ----------
    kernel : float32 (3, 3)
    """

    kernel: np.ndarray

    @property
    def group(self) -> Hashable:
        return None

    def then(self, following: Action) -> Action | None:
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Sharpen"]) -> Images:
        height, width = images.pixels.shape[2:]
        weights = _doubles(np.stack([action.kernel for action in actions]), images.pixels.device)
        around = _extended(_extended(images.pixels, images.sizes[:, 0], 1, 2), images.sizes[:, 1], 1, 3)
        sums = torch.zeros_like(images.pixels, dtype=torch.float32)
        for y in range(3):
            for x in range(3):
                sums.addcmul_(around[:, :, y : y + height, x : x + width], weights[:, y, x, None, None, None])
        return Images(_rounded(sums), images.sizes)


@dataclass(frozen=True, slots=True)
class Unsharp:
    """The image and `alpha` times its difference from `cv2.GaussianBlur`.

    Attributes
    ----------
    kernel_size : odd
    sigma : in pixels
    alpha : weight of the difference
    """

    kernel_size: int
    sigma: float
    alpha: float

    @property
    def group(self) -> Hashable:
        return self.kernel_size, self.sigma

    def then(self, following: Action) -> Action | None:
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Unsharp"]) -> Images:
        pixels = images.pixels
        taps = np.tile(_fixed_point_gaussian(actions[0].kernel_size, actions[0].sigma), (len(actions), 1))
        sums = _separable(images, torch.as_tensor(taps, device=pixels.device), torch.int32)
        blurred = ((sums + (1 << 15)) >> 16).to(torch.uint8)
        alpha = torch.tensor([action.alpha for action in actions], dtype=torch.float64, device=pixels.device)
        # Albumentations subtracts in 8 bits: a difference of -1 is one of 255.
        sharpened = pixels + (pixels - blurred) * alpha[:, None, None, None]
        return Images(sharpened.clamp(0, 255).to(torch.uint8), images.sizes)


def _separable(images: Images, taps: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Sums of `dtype` (n, C, H, W): along rows from left to right, then along columns from the middle outwards.

    With weights of double precision, `addcmul_` is a fused multiplication and addition of single precision: the
    product is exact, the sum is rounded once. A weight of zero changes nothing.
    """
    height, width = images.pixels.shape[2:]
    size = taps.shape[1]
    middle = size // 2
    weights = taps.T[:, :, None, None, None]
    wide = _extended(images.pixels, images.sizes[:, 1], middle, 3)
    rows = torch.zeros_like(images.pixels, dtype=dtype)
    for i in range(size):
        rows.addcmul_(wide[:, :, :, i : i + width], weights[i])
    tall = _extended(rows, images.sizes[:, 0], middle, 2)
    sums = torch.zeros_like(rows).addcmul_(rows, weights[middle])
    for i in range(1, middle + 1):
        above, under = (tall[:, :, start : start + height] for start in (middle - i, middle + i))
        sums.addcmul_(above + under, weights[middle + i])
    return sums


def _extended(pixels: torch.Tensor, lengths: np.ndarray, margin: int, axis: int) -> torch.Tensor:
    """(n, C, H, W) with `margin` more places at both ends of an axis, those outside of an image mirrored into it."""
    last = lengths[:, None] - 1
    # 0 1 … last … 1 0 1 …; an image of one pixel is all there is.
    places = np.abs(np.arange(-margin, pixels.shape[axis] + margin)) % np.maximum(2 * last, 1)
    places = torch.as_tensor(np.minimum(places, 2 * last - places), device=pixels.device)
    shape = list(pixels.shape)
    shape[axis] = places.shape[1]
    places = places[:, None, :, None] if axis == 2 else places[:, None, None, :]
    return pixels.gather(axis, places.expand(shape))


def _doubles(weights: np.ndarray, device: torch.device) -> torch.Tensor:
    """Values of single precision in double precision."""
    return torch.as_tensor(weights.astype(np.float32).astype(np.float64), device=device)


def _rounded(sums: torch.Tensor) -> torch.Tensor:
    return sums.round_().clamp_(0, 255).to(torch.uint8)


@functools.cache
def _fixed_point_gaussian(size: int, sigma: float) -> np.ndarray:
    """int32 (size,), the sum is 256: `getGaussianKernelFixedPoint_ED` of OpenCV's smooth.dispatch.cpp.

    Each tap passes its rounding error on to the next; the one in the middle takes what is left.
    """
    middle = size // 2
    exact = np.exp(-0.5 * (np.arange(-middle, middle + 1) / sigma) ** 2)
    exact /= exact.sum()
    taps = np.zeros(size, np.int32)
    error = 0.0
    for i in range(middle):
        wanted = exact[i] * 256 + error
        taps[i] = taps[-1 - i] = round(wanted)
        error = wanted - taps[i]
    taps[middle] = 256 - taps.sum()
    return taps


def _compile_blur(transform: Any, params: dict[str, Any], size_hw: tuple[int, int], channels: int) -> list[Action]:
    return [Blur(params["kernel"])] if len(params["kernel"]) > 1 else []


def _compile_sharpen(transform: Any, params: dict[str, Any], size_hw: tuple[int, int], channels: int) -> list[Action]:
    if transform.method == "kernel":
        return [Sharpen(params["sharpening_matrix"])]
    return [Unsharp(transform.kernel_size, transform.sigma, params["alpha"])]


def _blur_unsupported(transform: Any, channels: int) -> str | None:
    return None if transform.sigma_limit[1] > 0 else "a kernel of sigma 0 is not a number"


def _sharpen_unsupported(transform: Any, channels: int) -> str | None:
    if transform.method == "gaussian" and channels == 1:
        return "method: gaussian fails on images of one channel"
    return None


COMPILERS: dict[str, Compile] = {"GaussianBlur": _compile_blur, "Sharpen": _compile_sharpen}

UNSUPPORTED: dict[str, Callable[[Any, int], str | None]] = {
    "GaussianBlur": _blur_unsupported,
    "Sharpen": _sharpen_unsupported,
}
