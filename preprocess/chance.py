"""Which transforms leave nothing to chance: the pixels of a source are then the same whatever its random state is."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

_Arguments = Mapping[str, Any]


def _one_size(arguments: _Arguments) -> bool:
    """A list of sizes is chosen from."""
    return not isinstance(arguments.get("max_size"), Sequence)


_SETTLED: dict[str, Callable[[_Arguments], bool]] = {
    "CenterCrop": lambda arguments: True,
    "Crop": lambda arguments: True,
    "Equalize": lambda arguments: True,
    "HorizontalFlip": lambda arguments: True,
    "InvertImg": lambda arguments: True,
    "LongestMaxSize": _one_size,
    "NoOp": lambda arguments: True,
    "PadIfNeeded": lambda arguments: arguments.get("position") != "random",
    "Resize": lambda arguments: True,
    "SmallestMaxSize": _one_size,
    "ToGray": lambda arguments: True,
    "Transpose": lambda arguments: True,
    "VerticalFlip": lambda arguments: True,
}
"""Transforms that draw nothing but whether they are applied, and with which arguments; any other may draw."""


def draws(transforms: Sequence[Mapping[str, Any]]) -> bool:
    """Whether anything of canonical transforms is, or may be, drawn at random.

    >>> draws([{"Resize": {"height": 8, "width": 8, "p": 1.0}}, {"HorizontalFlip": {"p": 0.5}}])
    True
    """
    return any(_draws(name, arguments) for transform in transforms for name, arguments in transform.items())


def _draws(name: str, arguments: _Arguments) -> bool:
    p = arguments.get("p", 1.0)
    if 0 < p < 1:
        return True
    if p <= 0:
        return False
    if name == "Sequential":
        return draws(arguments["transforms"])
    return name not in _SETTLED or not _SETTLED[name](arguments)
