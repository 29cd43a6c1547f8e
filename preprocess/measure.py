"""The range of 16-bit values in some images of a folder, and the window that a recipe should have for them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.decode import decode, deep_values
from preprocess.depth import declared_maximum
from preprocess.errors import SourceError
from preprocess.levels import MANY_VALUES, Spread, Suggestion, Window, distinct, keeps_enough, spread_of, suggested
from preprocess.read import read_source

_MOST_FILES = 16


@dataclass(slots=True)
class Depths:
    """What was found in images of more than 8 bits a component.

    Attributes
    ----------
    measured : how many were decoded
    refused : how many of them a build refuses without `decode.levels`
    flat : how many more of them keep few levels of few values without it
    declared : the largest value that all of them declare; None if they do not, or differ
    best : the best window for them; None if none of them needs one
    """

    measured: int = 0
    refused: int = 0
    flat: int = 0
    declared: int | None = None
    best: Suggestion | None = None

    @property
    def window(self) -> Window | None:
        """What to write for `decode.levels`; None: nothing, or no one window suits most of those that need one."""
        if self.best is None or 2 * self.best.suited < self.refused + self.flat:
            return None
        return self.best.window

    @property
    def span(self) -> str:
        """The range of all their values."""
        return f"{self.best.lowest:,} to {self.best.highest:,}" if self.best is not None else ""

    @property
    def why(self) -> str:
        """Why the window is what it is."""
        if self.best is None:
            return ""
        needy = self.refused + self.flat
        words = (
            f"{needy:,} of {self.measured:,} 16-bit images that were decoded would keep few of their levels, or have "
        )
        words += f"values below 0; their values are {self.span}"
        if self.best.window == (0, self.declared):
            words += f", and {self.declared:,} is the most that they declare"
        if self.best.percent:
            words += f", and the lowest and the highest {self.best.percent:g} % of an image's were left out"
        if lacking := needy - self.best.suited:
            words += f"; {lacking:,} keep few levels in this window, too"
        return f"{words}; what is beyond the window is clipped, and images of 8 bits stay as they are"


def measure(source: Path, names: Sequence[str]) -> Depths:
    """Decode up to `_MOST_FILES` of the files, evenly spread; those that do not decode are passed over."""
    found = Depths()
    declared = set()
    images, lacking = [], []
    for place in np.linspace(0, len(names) - 1, min(len(names), _MOST_FILES)).astype(int).tolist():
        try:
            data, _ = read_source(os.fsencode(source / names[place]))
            spread = _spread(data)
            if spread is None:
                continue
            kept = 0 if spread.values[0] < 0 else _plainly_kept(data)
        except SourceError:
            continue
        found.measured += 1
        images.append(spread)
        declared.add(declared_maximum(data))
        if not keeps_enough(kept, there := len(spread.values)):
            lacking.append(spread)
            is_refused = spread.values[0] < 0 or there >= MANY_VALUES
            found.refused += is_refused
            found.flat += not is_refused
    found.declared = declared.pop() if len(declared) == 1 else None
    found.best = suggested(images, found.declared, lacking) if lacking else None
    return found


def _spread(data: bytes) -> Spread | None:
    values = deep_values(data)
    return spread_of(values) if values is not None and values.size else None


def _plainly_kept(data: bytes) -> int:
    """How many levels a decode without a window keeps."""
    return distinct(decode(data, levels="high-byte", extra_channels="drop", pages="first").image)
