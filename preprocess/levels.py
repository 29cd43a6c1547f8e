"""16-bit values -> 8 bits: a window of them or their high byte, and whether that keeps enough to see.

Values of 10 or 12 bits in a 16-bit file, as most X-rays and CTs are, fill the lowest 4 to 16 levels of the high byte.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from preprocess.errors import SourceError

HIGH_BYTE: Literal["high-byte"] = "high-byte"
Window = tuple[int, int]
Levels = Window | Literal["high-byte"] | None
"""[lo, hi]: that range becomes 0..255, what is beyond is clipped; None: the high byte, if that keeps enough."""

LOWEST, HIGHEST = -32768, 65535
"""Values that a window may name: those of signed and of unsigned 16 bits."""

LEAST_LEVELS, MANY_VALUES = 64, 256
"""A file with so many 16-bit values that would keep fewer levels than the first is refused."""

BEYOND = "16-bit values beyond the window"
"""The note of an image that a window clips."""

_AT_ONCE = 1 << 18

Pixels = Callable[[], np.ndarray]

_WINDOW_NOTE = re.compile(r"window (\[-?\d+, -?\d+\])")


def to_8_bits(
    shallow: Callable[[], np.ndarray],
    deep: Callable[[], np.ndarray],
    levels: Levels,
    declared: Callable[[], int | None],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """An image of 16-bit values in 8 bits.

    Parameters
    ----------
    shallow : gives uint8, what is kept without a window
    deep : gives the values, uint16 or int16; called only where they matter
    levels : what the recipe says
    declared : gives the largest value that the file says it can have, None if it does not say

    Returns
    -------
    uint8 of the same shape, and notes on what was lost

    Raises
    ------
    SourceError : no levels are given, and the image would keep few of many values; the reason says what to write
    """
    if isinstance(levels, tuple):
        values = deep()
        clipped = int(values.min()) < levels[0] or int(values.max()) > levels[1]
        return apply_window(values, levels), (window_note(levels), *(BEYOND,) * clipped)
    image = shallow()
    if levels is None and (kept := distinct(image)) < LEAST_LEVELS:
        values = deep()
        if (there := distinct(values)) >= MANY_VALUES:
            low, high = suggested([values], declared())
            raise SourceError(
                "decode",
                f"16-bit, and its high byte keeps {kept} levels of {there:,} values; write decode: {{levels: [{low}, "
                f"{high}]}} in the recipe to spread these over 0..255, or decode: {{levels: high-byte}} to keep it so",
            )
    return image, ("16-bit",)


def signed(values: np.ndarray) -> SourceError:
    """Why an image with negative values, int8 or int16, cannot be used without a window."""
    if values.dtype.itemsize == 1:
        return SourceError("decode", "signed 8-bit values below 0, for which there is no place in 0..255; convert it")
    low, high = suggested([values], None)
    return SourceError(
        "decode",
        f"signed 16-bit values from {low} to {high}; write decode: {{levels: [{low}, {high}]}} in the recipe, or a "
        "part of that range, to spread it over 0..255",
    )


def suggested(images: Sequence[np.ndarray], declared: int | None) -> Window:
    """A window for images: what they declare if they keep to it, else what they have."""
    low, high = min(int(image.min()) for image in images), max(int(image.max()) for image in images)
    if declared is not None and low >= 0 and high <= declared < HIGHEST:
        return 0, declared
    return low, max(high, low + 1)


def apply_window(values: np.ndarray, window: Window) -> np.ndarray:
    """uint16 or int16 -> uint8, a copy: `window` onto 0..255, computed in float64, rounded once, clipped."""
    table = _table(*window, values.dtype.kind == "i")
    out = np.empty(values.shape, np.uint8)
    for part, patterns in zip(_blocks(out), _blocks(values.view(np.uint16)), strict=True):
        part[:] = table[patterns]
    return out


def _blocks(array: np.ndarray) -> list[np.ndarray]:
    """All elements, some at a time, as views of a contiguous array: numpy needs eight bytes for each index."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return [flat[at : at + _AT_ONCE] for at in range(0, len(flat), _AT_ONCE)]


@functools.lru_cache(maxsize=4)
def _table(low: int, high: int, is_signed: bool) -> np.ndarray:
    """uint8 (65536,): the level of every pattern of 16 bits."""
    values = np.arange(1 << 16, dtype=np.uint16).view(np.int16 if is_signed else np.uint16).astype(np.float64)
    return np.rint(np.clip((values - low) * 255 / (high - low), 0, 255)).astype(np.uint8)


def distinct(values: np.ndarray) -> int:
    """How many values there are among those of 8 or 16 bits."""
    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    seen = np.zeros(1 << 8 * values.dtype.itemsize, bool)
    for patterns in _blocks(values.view(unsigned)):
        seen[patterns] = True
    return int(seen.sum())


def window_note(window: Window) -> str:
    """The note of an image that a window was applied to."""
    return f"window [{window[0]}, {window[1]}]"


def noted_window(note: str) -> str | None:
    """The window that such a note names, as a recipe has it."""
    found = _WINDOW_NOTE.fullmatch(note)
    return found and found[1]


def in_words(levels: Sequence[int] | str | None) -> str:
    """What becomes of 16-bit values, as a recipe says it."""
    if levels is None or isinstance(levels, str):
        return "the high byte is kept" + (", however few levels that leaves" if levels else "")
    return f"{window_note((levels[0], levels[1]))} onto 0..255"


def are_few(image: np.ndarray) -> bool:
    """Whether 8-bit pixels keep within a range so narrow as a lost high byte leaves."""
    return int(image.max()) - int(image.min()) + 1 < LEAST_LEVELS
