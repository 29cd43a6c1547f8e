"""Stored values -> the element type that training asks for, a few samples at a time while they are in the cache."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from cache_store.normalise import normalisation_table
from loaders.memory import as_array

Fill = Callable[[np.ndarray, int], None]
"""Stored values of a few samples (m, C, H, W), and the number of the first of them: fills these rows of a batch."""

Convert = Callable[[torch.Tensor], Fill]
"""Prepared once for a batch (n, C, H, W), C-contiguous, that is to be filled; each thread has one of its own."""

_SERIAL_LOOK_UPS = (1 << 18) - 1
"""OpenCV hands more of them to threads of its own, which do not survive a fork."""

_SERIAL = 32_000
"""torch hands larger tensors to threads of its own, which get in the way of ours (its grain is 32,768 elements)."""


def converter(stored: np.dtype, wanted: torch.dtype, mean: tuple[float, ...], std: tuple[float, ...]) -> Convert | None:
    """What turns stored values into `wanted`; None if they are that already.

    8-bit values go through the normalisation table of `mean` and `std`: the bits that a float16 cache would hold.
    """
    if stored == np.uint8:
        return None if wanted == torch.uint8 else _by_table(normalisation_table(mean, std), wanted)
    return {torch.float16: None, torch.float32: _to_singles}.get(wanted, _by_way_of_singles)


def _to_singles(images: torch.Tensor) -> Fill:
    count = images[0].numel() if len(images) else 1
    pieces = _pieces_of(count)
    targets = images.view(-1, count // pieces).unbind()

    def fill(stored: np.ndarray, first: int) -> None:
        sources = torch.from_numpy(stored.view(np.float16)).view(-1, count // pieces).unbind()
        torch._foreach_copy_(targets[first * pieces : first * pieces + len(sources)], sources)

    return fill


def _by_way_of_singles(images: torch.Tensor) -> Fill:
    """torch has no fast way from float16 to bfloat16; float32 holds every float16, so nothing is rounded twice."""
    count = images[0].numel() if len(images) else 1
    pieces = _pieces_of(count)
    targets = images.view(-1, count // pieces).unbind()

    def fill(stored: np.ndarray, first: int) -> None:
        singles = torch.empty(stored.shape, dtype=torch.float32, device="cpu")
        _to_singles(singles)(stored, 0)
        sources = singles.view(-1, count // pieces).unbind()
        torch._foreach_copy_(targets[first * pieces : first * pieces + len(sources)], sources)

    return fill


def _pieces_of(count: int) -> int:
    """Into how many equal pieces a sample of so many elements is cut for torch to stay in one thread."""
    return next(pieces for pieces in range(-(-count // _SERIAL), count + 1) if count % pieces == 0)


def _by_table(table: np.ndarray, wanted: torch.dtype) -> Convert:
    """Look up each level's value: one pass, whatever the type."""
    rows = as_array(torch.from_numpy(table).to(wanted))
    rows = rows.view(np.float32 if wanted == torch.float32 else np.uint16)  # types that OpenCV looks up
    look_up = _look_up()
    pairs = _pairs(rows) if rows.dtype == np.uint16 and _looks_up_pairs() else None

    def prepare(images: torch.Tensor) -> Fill:
        pixels = images[0, 0].numel() if len(images) else 0
        tables, source_type = (rows, "u1") if pairs is None or pixels % 2 else (pairs, "u2")
        targets = as_array(images).view(rows.dtype).reshape(len(images), len(rows), pixels).view(tables.dtype)
        step = max(1, _SERIAL_LOOK_UPS // max(1, targets.shape[2]))

        def fill(stored: np.ndarray, first: int) -> None:
            levels = stored.reshape(len(stored), len(rows), pixels).view(source_type)
            for start in range(0, len(levels), step):
                part = levels[start : start + step]
                out = targets[first + start : first + start + len(part)]
                for channel, row in enumerate(tables):
                    look_up(part[:, channel], row[None], out[:, channel])

        return fill

    return prepare


def _pairs(rows: np.ndarray) -> np.ndarray:
    """Values of two neighbouring pixels at once, int32 (C, 65536): half as many look-ups."""
    levels = np.arange(1 << 16)
    first, second = levels & 255, levels >> 8  # as a little-endian processor sees two bytes
    return np.stack([row[first] | row[second].astype(np.uint32) << 16 for row in rows]).view(np.int32)


def _look_up() -> Callable[[np.ndarray, np.ndarray, np.ndarray], Any]:
    """Called with levels (m, n), a table (1, levels), and where the values go (m, n)."""
    try:
        import cv2
    except ImportError:  # training machines need no OpenCV; it is twice as fast
        return lambda levels, row, out: np.copyto(out, row[0][levels])
    look_up: Callable[[np.ndarray, np.ndarray, np.ndarray], Any] = cv2.LUT
    return look_up


def _looks_up_pairs() -> bool:
    """Whether there is an OpenCV whose tables may have 65,536 entries: version 5 or later."""
    try:
        import cv2
    except ImportError:
        return False
    try:
        cv2.LUT(np.zeros((1, 1), np.uint16), np.zeros((1, 1 << 16), np.int32))
    except cv2.error:
        return False
    return True
