"""From rendered pixels to what is stored: exact sums and the normalisation table, on the device."""

import torch
import torch.nn.functional as F

from cache_store.normalise import LEVELS, normalisation_table
from preprocess.rendering import Rendering
from preprocess.torch_engine.images import pixels_at_once

_SUMMED = 256
"""Squares of so many values add up to less than 2**24: in float32 each sum of them is exact, in any order."""


class Finisher:
    """Does to rendered pixels what is left to do before they are stored.

    Parameters
    ----------
    rendering : without statistics, pixels stay as they are
    """

    def __init__(self, rendering: Rendering, device: torch.device) -> None:
        self._table = None
        if rendering.statistics is not None:
            self._table = torch.from_numpy(normalisation_table(*rendering.statistics)).to(device)

    def __call__(self, planes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What is stored of some images, and their sums.

        Parameters
        ----------
        planes : uint8 (n, C, H, W), up to 2**28 pixels a plane

        Returns
        -------
        (n, C, H, W) : float16, bit for bit what `cache_store.normalise` gives; without statistics `planes` itself
        int64 (n, 2, C) : of each plane, the exact sum and the exact sum of squares of its 8-bit pixels
        """
        parts = planes.split(max(1, pixels_at_once(planes) // (planes.shape[2] * planes.shape[3])))
        sums = torch.cat([channel_sums(part) for part in parts])
        if self._table is None:
            return planes, sums
        return torch.cat([normalised(part, self._table) for part in parts]), sums


def channel_sums(planes: torch.Tensor) -> torch.Tensor:
    """Exact sum and sum of squares of each plane of uint8 (n, C, H, W): int64 (n, 2, C)."""
    values = planes.flatten(2).float()
    if missing := -values.shape[2] % _SUMMED:
        values = F.pad(values, (0, missing))
    values = values.unflatten(2, (-1, _SUMMED))
    total = values.sum(3).long().sum(2)
    return torch.stack([total, values.square_().sum(3).long().sum(2)], 1)


def normalised(planes: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """uint8 (n, C, H, W) through float16 (C, 256): float16 (n, C, H, W)."""
    first = torch.arange(0, table.numel(), LEVELS, dtype=torch.int32, device=planes.device)
    places = planes + first.view(-1, 1, 1)
    return table.flatten().index_select(0, places.flatten()).view(planes.shape)
