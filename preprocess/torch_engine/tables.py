"""What changes each value by itself: a table of 256 values a channel, filled in by Albumentations."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from preprocess.torch_engine.actions import Action, Compile
from preprocess.torch_engine.images import Images


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Each value becomes another.

    Attributes
    ----------
    values : uint8 (C, 256)
    """

    values: np.ndarray

    @property
    def group(self) -> Hashable:
        return None

    def then(self, following: Action) -> Action | None:
        if isinstance(following, Table):
            return Table(np.take_along_axis(following.values, self.values, axis=1))
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Table"]) -> Images:
        tables = torch.as_tensor(np.stack([action.values for action in actions]), device=images.pixels.device)
        return Images(look_up(images.pixels, tables), images.sizes)


def look_up(pixels: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """uint8 (n, C, H, W) through (n, C, 256): a table for each channel of each image."""
    first = torch.arange(0, tables.numel(), 256, dtype=torch.int32, device=pixels.device)
    places = pixels + first.view(*tables.shape[:2], 1, 1)
    return tables.flatten().index_select(0, places.flatten()).view(pixels.shape)


def tabulate(function: Callable[[np.ndarray], np.ndarray], channels: int) -> list[Action]:
    """The action of a function of uint8 (H, W, C) that treats each value by itself; none if it changes nothing."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8), channels).reshape(256, 1, channels)
    values = function(ramp.copy()).reshape(256, channels)
    return [] if np.array_equal(values, ramp[:, 0]) else [Table(np.ascontiguousarray(values.T))]


def _compile(transform: Any, params: dict[str, Any], size_hw: tuple[int, int], channels: int) -> list[Action]:
    return tabulate(lambda ramp: transform.apply(ramp, **params), channels)


def _brightness_unsupported(transform: Any, channels: int) -> str | None:
    if transform.brightness_by_max:
        return None
    return "with brightness_by_max: false it draws from the image's mean"


COMPILERS: dict[str, Compile] = {
    "InvertImg": _compile,
    "Posterize": _compile,
    "RGBShift": _compile,
    "RandomBrightnessContrast": _compile,
    "RandomGamma": _compile,
    "Solarize": _compile,
}

UNSUPPORTED: dict[str, Callable[[Any, int], str | None]] = {"RandomBrightnessContrast": _brightness_unsupported}
