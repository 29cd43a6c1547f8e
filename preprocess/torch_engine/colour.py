"""What mixes the channels of a pixel, or needs to know the whole image: gray, contrast, saturation, hue."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import cv2
import numpy as np
import torch

from preprocess.torch_engine.actions import Action, Compile
from preprocess.torch_engine.conversions import convert
from preprocess.torch_engine.images import Images
from preprocess.torch_engine.tables import look_up, tabulate


@dataclass(frozen=True, slots=True)
class Gray:
    """All three channels become one, three times.

    Attributes
    ----------
    method : of Albumentations' `ToGray`
    """

    method: str

    @property
    def group(self) -> Hashable:
        return self.method

    def then(self, following: Action) -> Action | None:
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Gray"]) -> Images:
        gray = _GRAYS[actions[0].method](images)
        return Images(gray.to(torch.uint8).repeat(1, 3, 1, 1), images.sizes)


def _luma(images: Images) -> torch.Tensor:
    """int32 (n, 1, H, W), 0..255: OpenCV's RGB2GRAY, with weights of 15 bits; one channel as it is."""
    if images.pixels.shape[1] == 1:
        return images.pixels.int()
    red, green, blue = images.pixels[:, :, None].unbind(1)
    weighted = (red.int() * 9798).add_(green, alpha=19235).add_(blue, alpha=3735)
    return (weighted + (1 << 14)) >> 15


def _lightness(images: Images) -> torch.Tensor:
    return convert(images, "RGB2LAB").pixels[:, :1]


def _desaturated(images: Images) -> torch.Tensor:
    return (images.pixels.amax(1, keepdim=True).int() + images.pixels.amin(1, keepdim=True)) >> 1


def _average(images: Images) -> torch.Tensor:
    return images.pixels.sum(1, keepdim=True, dtype=torch.int32) // 3


def _maximum(images: Images) -> torch.Tensor:
    return images.pixels.amax(1, keepdim=True)


def _principal(images: Images) -> torch.Tensor:
    """float32 (n, 1, H, W), 0..255: the principal component of the colours, stretched over all values.

    Exact sums leave the device; OpenCV itself finds the axis, whose sign is a matter of its algorithm.
    """
    pixels, device = images.pixels, images.pixels.device
    inside = images.inside
    planes = [torch.where(inside[:, 0], plane, 0).int() for plane in pixels.unbind(1)]
    moments = chain(planes, (a * b for a in planes for b in planes))
    sums = torch.stack([values.sum((1, 2), dtype=torch.int64) for values in moments], 1).cpu().numpy()
    means = sums / images.sizes.prod(1)[:, None]
    mean, squares = means[:, :3], means[:, 3:].reshape(-1, 3, 3)
    axes = np.stack([cv2.eigen(each)[2][0] for each in squares - mean[:, :, None] * mean[:, None, :]])
    weights = torch.as_tensor(axes, device=device)[:, :, None, None]
    centre = torch.as_tensor(mean, device=device)[:, :, None, None]
    along = torch.zeros_like(inside, dtype=torch.float64)
    for channel in range(3):
        along += (pixels[:, channel : channel + 1] - centre[:, channel : channel + 1]) * weights[:, channel, None]
    along = along.float()
    lowest = torch.where(inside, along, torch.inf).amin((1, 2, 3), keepdim=True).double()
    highest = torch.where(inside, along, -torch.inf).amax((1, 2, 3), keepdim=True).double()
    # As `cv2.normalize` does: scale and shift in single precision, the product exact.
    scale = torch.where(highest > lowest, 1 / (highest - lowest), 0).float().double()
    stretched = along * scale - (lowest * scale).float()
    return (stretched.float() * 255).round().clamp(0, 255)


_GRAYS: dict[str, Callable[[Images], torch.Tensor]] = {
    "weighted_average": _luma,
    "from_lab": _lightness,
    "desaturation": _desaturated,
    "average": _average,
    "max": _maximum,
    "pca": _principal,
}


@dataclass(frozen=True, slots=True)
class Contrast:
    """Distances from the image's mean luma become `factor` times as large."""

    factor: float

    @property
    def group(self) -> Hashable:
        return None

    def then(self, following: Action) -> Action | None:
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Contrast"]) -> Images:
        n, channels = images.pixels.shape[:2]
        device = images.pixels.device
        factor = torch.tensor([action.factor for action in actions], dtype=torch.float64, device=device)[:, None]
        pixels = torch.as_tensor(images.sizes.prod(1), device=device)
        mean = torch.where(images.inside, _luma(images), 0).sum((2, 3), dtype=torch.int64) / pixels[:, None].double()
        mean = torch.where(factor == 0, (mean + 0.5).floor(), mean)
        # As Albumentations makes its table: single precision, and what is behind the point is cut off.
        ramp = torch.arange(256, dtype=torch.float32, device=device)
        tables = (ramp * factor.float() + (mean * (1 - factor)).float()).clamp(0, 255).to(torch.uint8)
        return Images(look_up(images.pixels, tables[:, None].expand(n, channels, 256)), images.sizes)


@dataclass(frozen=True, slots=True)
class Saturation:
    """`factor` of each pixel and the rest of its luma: `cv2.addWeighted`, fused and rounded once."""

    factor: float

    @property
    def group(self) -> Hashable:
        return None

    def then(self, following: Action) -> Action | None:
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Saturation"]) -> Images:
        factors = np.array([action.factor for action in actions])
        weights = np.stack([factors, 1 - factors]).astype(np.float32).reshape(2, -1, 1, 1, 1)
        of_pixel, of_luma = torch.as_tensor(weights, device=images.pixels.device)
        mixed = (_luma(images) * of_luma).repeat(1, 3, 1, 1).addcmul_(images.pixels, of_pixel.double())
        return Images(mixed.round_().clamp_(0, 255).to(torch.uint8), images.sizes)


@dataclass(frozen=True, slots=True, eq=False)
class Hsv:
    """Hue (0..179), saturation and value, each through a table.

    Attributes
    ----------
    values : uint8 (3, 256)
    """

    values: np.ndarray

    @property
    def group(self) -> Hashable:
        return None

    def then(self, following: Action) -> Action | None:
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Hsv"]) -> Images:
        tables = torch.as_tensor(np.stack([action.values for action in actions]), device=images.pixels.device)
        hsv = convert(images, "RGB2HSV")
        return convert(Images(look_up(hsv.pixels, tables), images.sizes), "HSV2RGB")


def _compile_gray(transform: Any, params: dict[str, Any], size_hw: tuple[int, int], channels: int) -> list[Action]:
    return [] if channels == 1 else [Gray(transform.method)]


def _gray_unsupported(transform: Any, channels: int) -> str | None:
    if channels == 1 or transform.num_output_channels == channels:
        return None
    return f"num_output_channels: {transform.num_output_channels} changes the number of channels"


def _compile_jitter(transform: Any, params: dict[str, Any], size_hw: tuple[int, int], channels: int) -> list[Action]:
    adjustments = {0: _brightness, 1: _contrast, 2: _saturation, 3: _hue}
    factors = [params[name] for name in ("brightness", "contrast", "saturation", "hue")]
    return [action for i in params["order"] for action in adjustments[i](transform, factors[i], channels)]


def _brightness(transform: Any, factor: float, channels: int) -> list[Action]:
    return tabulate(lambda ramp: transform.transforms[0](ramp, factor), channels)


def _contrast(transform: Any, factor: float, channels: int) -> list[Action]:
    return [] if factor == 1 else [Contrast(factor)]


def _saturation(transform: Any, factor: float, channels: int) -> list[Action]:
    return [] if factor == 1 or channels == 1 else [Saturation(factor)]


def _hue(transform: Any, factor: float, channels: int) -> list[Action]:
    if factor == 0 or channels == 1:
        return []
    levels = np.arange(256)
    return [Hsv(np.stack([_turned(180 * factor), levels, levels]).astype(np.uint8))]


def _compile_hsv(transform: Any, params: dict[str, Any], size_hw: tuple[int, int], channels: int) -> list[Action]:
    hue, saturation, value = (params[name] for name in ("hue_shift", "sat_shift", "val_shift"))
    if hue == saturation == value == 0:
        return []
    levels = np.arange(256)
    # Shifts by less than 1 are cut down to none, except that of the hue.
    brighter = np.clip(levels + int(value), 0, 255).astype(np.uint8)
    if channels == 1:
        return tabulate(lambda ramp: brighter[ramp], channels)
    richer = np.where(levels == 0, 0, np.clip(levels + int(saturation), 0, 255))  # gray stays gray
    return [Hsv(np.stack([levels if hue == 0 else _turned(hue), richer, brighter]).astype(np.uint8))]


def _turned(shift: float) -> np.ndarray:
    """float64 (256,), to be cut down to integers: hues in half degrees, shifted around the circle."""
    hues: np.ndarray = np.mod(np.arange(256) + shift, 180)
    return hues


COMPILERS: dict[str, Compile] = {
    "ColorJitter": _compile_jitter,
    "HueSaturationValue": _compile_hsv,
    "ToGray": _compile_gray,
}

UNSUPPORTED: dict[str, Callable[[Any, int], str | None]] = {"ToGray": _gray_unsupported}
