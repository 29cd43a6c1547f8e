"""Stored values -> the element type that training asks for, a few samples at a time while they are in the cache."""

from collections.abc import Callable

import numpy as np
import torch

from cache_store.normalise import normalisation_table
from loaders.memory import as_array, pooled

Convert = Callable[[np.ndarray, torch.Tensor], None]
"""Stored values (n, C, H, W) into a tensor of the same shape, C-contiguous, overwritten."""

_SERIAL = 32_000
"""torch hands larger tensors to threads of its own, which get in the way of ours (its grain is 32,768 elements)."""


def converter(stored: np.dtype, wanted: torch.dtype, mean: tuple[float, ...], std: tuple[float, ...]) -> Convert | None:
    """What turns stored values into `wanted`; None if they are that already.

    8-bit values go through the normalisation table of `mean` and `std`: the bits that a float16 cache would hold.
    """
    if stored == np.uint8:
        return None if wanted == torch.uint8 else _by_table(normalisation_table(mean, std), wanted)
    return None if wanted == torch.float16 else _cast


def _cast(stored: np.ndarray, out: torch.Tensor) -> None:
    halves = torch.from_numpy(stored.view(np.float16)).view(-1)
    if out.dtype != torch.float32:  # torch has no fast way from float16 to bfloat16
        singles = pooled(tuple(out.shape), torch.float32)
        _copy(halves, singles.view(-1))
        _copy(singles.view(-1), out.view(-1))
    else:
        _copy(halves, out.view(-1))


def _copy(source: torch.Tensor, target: torch.Tensor) -> None:
    torch._foreach_copy_(target.split(_SERIAL), source.split(_SERIAL))


def _by_table(table: np.ndarray, wanted: torch.dtype) -> Convert:
    """Look up each level's value: one pass, whatever the type."""
    rows = as_array(torch.from_numpy(table).to(wanted))
    rows = rows.view(np.float32) if wanted == torch.float32 else rows.view(np.uint16)  # what OpenCV has look-ups for

    def convert(stored: np.ndarray, out: torch.Tensor) -> None:
        count, channels = stored.shape[:2]
        source = stored.reshape(count, channels, -1)
        target = as_array(out).view(rows.dtype).reshape(count, channels, -1)
        for channel, row in enumerate(rows):
            _look_up(source[:, channel], row, target[:, channel])

    return convert


def _look_up(levels: np.ndarray, row: np.ndarray, out: np.ndarray) -> None:
    try:
        import cv2
    except ImportError:  # training machines need no OpenCV; it is twice as fast
        np.copyto(out, row[levels])
    else:
        cv2.LUT(levels, row.reshape(1, -1), dst=out)
