"""The range of 16-bit values in some images of a folder, and the window that a recipe should have for them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.decode import deep_values
from preprocess.depth import declared_maximum
from preprocess.errors import SourceError
from preprocess.levels import HIGHEST, LEAST_LEVELS, MANY_VALUES, Window, distinct
from preprocess.read import read_source

_MOST_FILES = 16
_WIDEST = HIGHEST // 2
"""A window wider than that spreads values no better than their high byte."""


@dataclass(slots=True)
class Depths:
    """What was found in images of more than 8 bits a component.

    Attributes
    ----------
    measured : how many were decoded
    refused : how many of them a build refuses without `decode.levels`
    lowest, highest : of all their values
    declared : the largest value that all of them declare; None if they do not, or differ
    """

    measured: int = 0
    refused: int = 0
    lowest: int = HIGHEST
    highest: int = 0
    declared: int | None = None

    @property
    def window(self) -> Window | None:
        """What to write for `decode.levels`; None: nothing, or no one window suits them."""
        if not self.refused or self.highest - self.lowest > _WIDEST:
            return None
        if self.lowest >= 0 and self.declared is not None and self.highest <= self.declared <= _WIDEST:
            return 0, self.declared
        return self.lowest, self.highest

    @property
    def why(self) -> str:
        """Why the window is what it is."""
        span = f"{self.refused:,} of {self.measured:,} 16-bit images that were decoded would keep fewer than "
        span += f"{LEAST_LEVELS} levels, or have values below 0; their values are {self.lowest:,} to {self.highest:,}"
        if self.window is not None and self.window[1] == self.declared:
            span += f", and {self.declared:,} is the most that they declare"
        return f"{span}; what is beyond the window is clipped, and images of 8 bits stay as they are"


def measure(source: Path, names: Sequence[str]) -> Depths:
    """Decode up to `_MOST_FILES` of the files, evenly spread; those that do not decode are passed over."""
    found = Depths()
    declared = set()
    for place in np.linspace(0, len(names) - 1, min(len(names), _MOST_FILES)).astype(int).tolist():
        try:
            data, _ = read_source(os.fsencode(source / names[place]))
            values = deep_values(data)
        except SourceError:
            continue
        if values is None or not values.size:
            continue
        low, high = int(values.min()), int(values.max())
        found.measured += 1
        found.lowest, found.highest = min(found.lowest, low), max(found.highest, high)
        few = distinct(np.right_shift(values, 8)) < LEAST_LEVELS and distinct(values) >= MANY_VALUES
        found.refused += low < 0 or few
        declared.add(declared_maximum(data))
    found.declared = declared.pop() if len(declared) == 1 else None
    return found
