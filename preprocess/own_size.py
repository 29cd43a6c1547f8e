"""The recipe's own size in its transforms: `size: same`, so that another size needs one change only."""

import re
from collections.abc import Mapping
from typing import Any

from preprocess.errors import RecipeError

Size = tuple[int, int]

_SAME = re.compile(r"same(?:\s*\*\s*(\d{1,4})\s*/\s*(\d{1,4}))?")
_PAIRS = frozenset({"size", "max_size_hw"})


def filled_in(transforms: Any, size_hw: Size, place: str) -> Any:
    """Transforms as plain data with numbers in place of `same` and `same * 8/7`; whatever else there is stays.

    Parameters
    ----------
    transforms : as a recipe has them; objects of Albumentations stay as they are
    size_hw : height and width of the recipe
    place : where they stand in the recipe, for messages

    Raises
    ------
    RecipeError : an argument that has no place for a height and width that differ

    >>> filled_in([{"CenterCrop": {"height": "same", "width": "same * 1/2"}}], (8, 6), "transforms")
    [{'CenterCrop': {'height': 8, 'width': 3}}]
    """
    if isinstance(transforms, Mapping):
        return {name: _arguments(args, size_hw, f"{place}.{name}") for name, args in transforms.items()}
    if isinstance(transforms, list):
        return [filled_in(one, size_hw, f"{place}[{number}]") for number, one in enumerate(transforms)]
    return transforms


def _arguments(args: Any, size_hw: Size, place: str) -> Any:
    """Of a transform; a composition may have the list of its transforms in their place."""
    if not isinstance(args, Mapping):
        return filled_in(args, size_hw, place) if isinstance(args, list) else args
    found = {}
    for key, value in args.items():
        here = f"{place}.{key}"
        if key == "transforms":
            value = filled_in(value, size_hw, here)
        elif isinstance(value, str) and (match := _SAME.fullmatch(value.strip())):
            value = _number(key, size_hw, match, here)
        found[key] = value
    return found


def _number(key: str, size_hw: Size, match: re.Match[str], place: str) -> int | list[int]:
    over, under = int(match[1] or 1), int(match[2] or 1)
    if not over or not under:
        raise RecipeError(f"{place}: a fraction of numbers above 0 expected, found {match[0]!r}")
    height, width = (round(side * over / under) for side in size_hw)
    if str(key) in _PAIRS:
        return [height, width]
    if "height" in str(key):
        return height
    if "width" in str(key):
        return width
    if height != width:
        other = "; write max_size_hw" if key == "max_size" else ""
        raise RecipeError(f"{place}: {match[0]!r} is one number for the {size_hw[0]}x{size_hw[1]} of the recipe{other}")
    return height
