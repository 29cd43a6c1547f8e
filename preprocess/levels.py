"""16-bit values -> 8 bits: a window of them or their high byte, and whether that keeps enough to see.

Values of 10 or 12 bits in a 16-bit file, as most X-rays and CTs are, fill the lowest 4 to 16 levels of the high byte.
"""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

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

HIGH, UPPER, BY_MAXIMUM = "16-bit", "9 to 15 bits", "a largest value above 255"
"""Notes on how values became 8 bits without a window: by their high byte, by their upper 8 bits, or scaled."""

FEW = "16-bit values of which few levels are left"
"""How the note begins of an image that has too few values to be refused, and keeps few of these; see `few_note`."""

FEW_IN_WINDOW = "16-bit values of which the window keeps few levels"
"""The note of an image of which a window keeps so few levels that it would be refused without one."""

BEYOND = "16-bit values beyond the window"
"""The note of an image that a window clips."""

_KEEPS = {HIGH: "16-bit, and its high byte keeps", UPPER: f"{UPPER}, of which the upper 8 keep"}
_KEEPS[BY_MAXIMUM] = f"{BY_MAXIMUM}, and scaled to 0..255 it keeps"

_SOME_VALUES, _LEAST_SHARE = 16, 4
"""An image of so many values, but not `MANY_VALUES`, should keep one in so many of them."""

_LEFT_OUT_PERCENT = (0.1, 1.0)
"""Of an image's values, at either end, that a suggested window may leave out: hot pixels, marks, padding."""

_AT_ONCE = 1 << 18

_WINDOW_NOTE = re.compile(r"window (\[-?\d+, -?\d+\])")


def to_8_bits(
    shallow: Callable[[], np.ndarray],
    deep: Callable[[], np.ndarray],
    levels: Levels,
    declared: Callable[[], int | None],
    kind: str = HIGH,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """An image of 16-bit values in 8 bits.

    Parameters
    ----------
    shallow : gives uint8, what is kept without a window
    deep : gives the values, uint16 or int16; called only where they matter
    levels : what the recipe says
    declared : gives the largest value that the file says it can have, None if it does not say
    kind : what `shallow` keeps: HIGH, UPPER or BY_MAXIMUM

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
        image = apply_window(values, levels)
        few = distinct(image) < LEAST_LEVELS and _count_within(values, levels) >= MANY_VALUES
        return image, (window_note(levels), *(FEW_IN_WINDOW,) * few, *(BEYOND,) * clipped)
    image = shallow()
    if levels is None and (kept := distinct(image)) < LEAST_LEVELS:
        found = spread_of(deep())
        if not keeps_enough(kept, there := len(found.values)):
            best = suggested([found], declared())
            if there < MANY_VALUES:
                return image, (few_note(best),)
            raise SourceError("decode", f"{_KEEPS[kind]} {kept} levels of {there:,} values; {_advice(best)}")
    return image, (kind,)


def signed(values: np.ndarray) -> SourceError:
    """Why an image with negative values, int8 or int16, cannot be used without a window."""
    if values.dtype.itemsize == 1:
        return SourceError("decode", "signed 8-bit values below 0, for which there is no place in 0..255; convert it")
    best = suggested([spread_of(values)], None)
    low, high = best.window
    return SourceError(
        "decode",
        f"signed 16-bit values from {best.lowest} to {best.highest}; write decode: {{levels: [{low}, {high}]}} in the "
        f"recipe, or a part of that range, to spread it over 0..255{best.left_out}",
    )


class Spread(NamedTuple):
    """The different values of an image, sorted, in its own type, and how often each occurs."""

    values: np.ndarray
    counts: np.ndarray


class Suggestion(NamedTuple):
    """A window for images.

    Attributes
    ----------
    window : the first of some that keeps enough levels of all of them, or of most; if none does, the first
    percent : of each image's values, at either end, that it may leave out
    suited : of how many images it keeps enough levels
    lowest, highest : of all their values
    """

    window: Window
    percent: float
    suited: int
    lowest: int
    highest: int

    @property
    def left_out(self) -> str:
        """What lies beyond the window, as the continuation of a sentence."""
        if not self.percent:
            return ""
        return f" (of {self.lowest} to {self.highest} it leaves out the lowest and the highest {self.percent:g} %)"


def spread_of(values: np.ndarray) -> Spread:
    """How the values of 16 bits of an image are spread."""
    counts = np.zeros(1 << 16, np.int64)
    for patterns in _blocks(values.view(np.uint16)):
        counts += np.bincount(patterns, minlength=1 << 16)
    there = np.flatnonzero(counts)
    own = there.astype(np.uint16).view(values.dtype)
    order = np.argsort(own)
    return Spread(own[order], counts[there][order])


def keeps_enough(kept: int, there: int) -> bool:
    """Whether so many levels are enough for an image of so many values; one of `MANY_VALUES` is refused otherwise."""
    if there >= MANY_VALUES:
        return kept >= LEAST_LEVELS
    return kept * _LEAST_SHARE >= there if there >= _SOME_VALUES else kept > 1 or there <= 1


def suggested(images: Sequence[Spread], declared: int | None, lacking: Sequence[Spread] | None = None) -> Suggestion:
    """The window that a recipe should have for images.

    Parameters
    ----------
    images : all that the window is going to be applied to
    declared : the largest value that they say they can have, None if they do not
    lacking : those of them that need a window; None: all
    """
    needy = images if lacking is None else lacking
    lowest, highest = min(int(one.values[0]) for one in images), max(int(one.values[-1]) for one in images)
    best: Suggestion | None = None
    for window, percent in _candidates(images, declared, lowest, highest):
        levels = [distinct(apply_window(one.values, window)) for one in needy]
        suited = sum(keeps_enough(kept, len(one.values)) for kept, one in zip(levels, needy, strict=True))
        if best is None or suited > best.suited:
            best = Suggestion(window, percent, suited, lowest, highest)
    assert best is not None, "the range of all values is one of the candidates"
    return best


def _candidates(
    images: Sequence[Spread], declared: int | None, lowest: int, highest: int
) -> Iterator[tuple[Window, float]]:
    """What the files declare if they keep to it, 8 bits if the values are no more, all values, most of them."""
    if declared is not None and lowest >= 0 and highest <= declared < HIGHEST:
        yield (0, declared), 0
    if lowest >= 0 and highest <= 255:
        yield (0, 255), 0
    low = min(lowest, HIGHEST - 1)
    yield (low, max(highest, low + 1)), 0
    for percent in _LEFT_OUT_PERCENT:
        ends = [_without_ends(one, percent / 100) for one in images]
        yield _readable(min(low for low, _ in ends), max(high for _, high in ends)), percent


def _without_ends(image: Spread, share: float) -> Window:
    """The range of an image's values without that share of them at either end."""
    upto = np.cumsum(image.counts)
    low, high = np.searchsorted(upto, share * upto[-1], "right"), np.searchsorted(upto, (1 - share) * upto[-1], "left")
    return int(image.values[low]), int(image.values[high])


def _readable(low: int, high: int) -> Window:
    """A range that holds another one and ends at round numbers, or at those of 8 bits."""
    if low >= 0 and high <= 255:
        return 0, 255
    low, step = min(low, HIGHEST - 1), 1
    while step * 100 <= high - low:
        step *= 10
    return max(low // step * step, LOWEST), min(max(-(-high // step), low // step + 1) * step, HIGHEST)


def _advice(best: Suggestion) -> str:
    """What to write for an image that is refused."""
    keep = "decode: {levels: high-byte} to keep it so"
    if not best.suited:
        return (
            f"no one window of {best.lowest} to {best.highest} keeps {LEAST_LEVELS} either; write decode: {{levels: "
            f"[lo, hi]}} in the recipe for the part of them that matters, or {keep}"
        )
    low, high = best.window
    return (
        f"write decode: {{levels: [{low}, {high}]}} in the recipe to spread these over 0..255{best.left_out}, or {keep}"
    )


def _count_within(values: np.ndarray, window: Window) -> int:
    there = spread_of(values).values.astype(np.int32)
    return int(((there >= window[0]) & (there <= window[1])).sum())


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


def few_note(best: Suggestion) -> str:
    """The note of an image that keeps few levels of few values, with the window that keeps more of them, if one does.

    The window is rounded outward to multiples of 256, so that a folder has few such notes.
    """
    if not best.suited:
        return FEW
    low, high = best.window
    return f"{FEW}, {window_note((low // 256 * 256, high // 256 * 256 + 255))}"


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
