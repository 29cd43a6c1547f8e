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

    `ratio` is width / height.

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
        elif key == "ratio" and isinstance(value, list):
            value = [_ratio(one, size_hw, here) for one in value]
        elif isinstance(value, str) and (match := _SAME.fullmatch(value.strip())):
            value = _number(key, size_hw, match, here)
        found[key] = value
    return found


def squeezed(transforms: Any, place: str) -> list[str]:
    """Crops whose windows have another shape than the size that they are resized to, a line each.

    Parameters
    ----------
    transforms : in the canonical form of a recipe
    """
    found = []
    for number, one in enumerate(transforms if isinstance(transforms, list) else []):
        ((name, args),) = one.items()
        here = f"{place}[{number}].{name}"
        if name == "RandomResizedCrop":
            (height, width), (low, high) = args["size"], args["ratio"]
            if not low <= width / height <= high:
                found.append(
                    f"{here}: windows of width / height {low:.4g} to {high:.4g} are squeezed to {width / height:.4g} "
                    f"({height}x{width}); with ratio: [same * 3/4, same * 4/3] they have its shape"
                )
        if isinstance(args, Mapping):
            found += squeezed(args.get("transforms"), f"{here}.transforms")
    return found


def _ratio(value: Any, size_hw: Size, place: str) -> Any:
    """Width / height of the recipe in place of `same`, times the fraction."""
    match = _SAME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return value
    over, under = _fraction(match, place)
    return size_hw[1] * over / (size_hw[0] * under)


def _fraction(match: re.Match[str], place: str) -> tuple[int, int]:
    over, under = int(match[1] or 1), int(match[2] or 1)
    if not over or not under:
        raise RecipeError(f"{place}: a fraction of numbers above 0 expected, found {match[0]!r}")
    return over, under


def _number(key: str, size_hw: Size, match: re.Match[str], place: str) -> int | list[int]:
    over, under = _fraction(match, place)
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
