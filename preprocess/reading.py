"""What a build takes for splits and classes: what is certain, what a recipe says, or what the cache has.

Where a layout can be read in more than one way, a build refuses, with a line of recipe for each; `decant init` goes on
to the most probable reading, and writes it down.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from cache_store.manifest import Snapshot
from preprocess.errors import UsageError
from preprocess.layouts import Reading, Splits, filled_classes, listed, look_inside, read_names
from preprocess.names import split_of
from preprocess.recipe import Recipe
from preprocess.scan import Scan, folders_in, scan

_MOST_LOOKS = 5

WHOLE: Splits = [("train", ".")]
"""SOURCE as one split, its folders as classes."""


def propose_splits(source: Path) -> Splits:
    """(split, folder) as the names of SOURCE's folders say: those named like splits, otherwise SOURCE as `train`.

    Raises
    ------
    UsageError : SOURCE does not exist or is not a folder; or its names leave a doubt
    """
    reading = read_names(source)
    if reading.doubt:
        raise UsageError(refusal(source, reading))
    return reading.splits


def settle(source: Path, recipe: Recipe, previous: Snapshot | None = None) -> tuple[Recipe, Scan, list[str]]:
    """Spell out a recipe's splits, and scan them.

    A folder that the recipe names is taken as it is. A snapshot keeps its reading: where this is in doubt now, it
    stays as long as no folder becomes a class that was none.

    Parameters
    ----------
    previous : the snapshot in force

    Returns
    -------
    recipe, with its splits; the scan; what a user has to know of the reading, a line each

    Raises
    ------
    UsageError : SOURCE leaves a doubt that the recipe does not settle; or as `scan` raises it
    """
    if recipe.open_splits() == []:
        whole = recipe.with_splits([])
        return whole, scan(source, whole), []
    lists_several = sum(split.from_ is None for split in (recipe.splits or {}).values()) > 1
    reading = _by_their_names(source, recipe) if lists_several else read_names(source)
    former = _folders_of(previous)
    was_whole = former == WHOLE and not lists_several
    doubt, splits = reading.doubt, reading.splits
    if was_whole and splits != WHOLE:
        folders = listed(folder for _, folder in splits)
        doubt = doubt or f"folders are named like splits ({folders}), and the cache has SOURCE as one split of classes"
    if doubt:
        splits = former if was_whole else _joined(source, former, splits)
        if not splits:
            raise UsageError(refusal(source, best_reading(source)))
    whole = recipe.with_splits(splits)
    scanned = scan_as(source, whole, reading)
    inside = look_inside(source, Reading(splits), scanned) if not doubt else None
    doubt = inside.doubt if inside is not None else doubt
    if not doubt:
        return whole, scanned, []
    new = filled_classes(scanned) - set(previous.classes if previous is not None else ())
    if new and (was_whole or inside is not None):
        raise UsageError(refusal(source, replace(best_reading(source), doubt=doubt), splits))
    return whole, scanned, [f"SOURCE is read as before, {splits_line(splits)}, although {doubt}"]


def scan_as(source: Path, recipe: Recipe, reading: Reading) -> Scan:
    """The scan of a recipe with its splits; folders beside them that hold no image are told as such.

    Raises
    ------
    UsageError : as `scan` raises it
    """
    scanned = scan(source, recipe)
    beside = [name for name in scanned.unused_folders if name not in scanned.unlisted]
    scanned.empty_folders += [name for name in beside if name in reading.empty]
    scanned.unused_folders = [name for name in beside if name not in reading.empty]
    return scanned


def presumed_splits(source: Path, previous: Snapshot | None = None) -> Splits:
    """What a recipe without splits would have; none in a new cache where SOURCE leaves a doubt."""
    reading, former = read_names(source), _folders_of(previous)
    return former if reading.doubt or former == WHOLE else reading.splits


def best_reading(source: Path) -> Reading:
    """The most probable reading, with the first doubt about it: what `decant init` writes.

    Raises
    ------
    UsageError : SOURCE is no folder, or holds no image
    """
    reading = read_names(source)
    doubt, other, left_out = "", reading.other, list(reading.left_out)
    for _ in range(_MOST_LOOKS):
        doubt = doubt or reading.doubt
        recipe = Recipe().with_splits(reading.splits)
        inside = look_inside(source, reading, scan(source, recipe))
        if inside is None:
            break
        doubt = doubt or inside.doubt
        left_out += [line for line in inside.left_out if line not in left_out]
        if inside.splits == reading.splits:
            break
        reading = inside
    return Reading(reading.splits, doubt, other, reading.empty, left_out)


def _by_their_names(source: Path, recipe: Recipe) -> Reading:
    """The folders of splits that a recipe lists without them: of the same name, else the one that means it."""
    folders = folders_in(source)
    splits = []
    for name in recipe.open_splits() or []:
        meant = [name] if name in folders else [each for each in folders if split_of(each) == name] or [name]
        if len(meant) > 1:
            raise UsageError(
                f"split {name!r}: the folders {listed(meant)} of SOURCE {str(source)!r} both mean it; "
                f"say which one in the recipe, as splits.{name}.folder"
            )
        splits += [(name, each) for each in meant]
    return Reading(splits)


# -- the reading of a snapshot -----------------------------------------------------------------------------------------


def _folders_of(previous: Snapshot | None) -> Splits:
    splits: Mapping[str, Any] = previous.recipe["splits"] if previous is not None else {}
    return [(name, split["folder"]) for name, split in splits.items() if split.get("folder") is not None]


def _joined(source: Path, former: Splits, splits: Splits) -> Splits:
    """The splits that a snapshot has and SOURCE still has; and what is new of certain name."""
    there = [(name, folder) for name, folder in former if (source / folder).is_dir()]
    known = dict(former)
    new = [(name, folder) for name, folder in splits if split_of(folder) == name and name not in known]
    return there + new if there else []


# -- in words ----------------------------------------------------------------------------------------------------------


def refusal(source: Path, reading: Reading, plain: Splits | None = None) -> str:
    """Why a build does not go on, with each reading as a line of recipe; `plain`: the one that is in doubt."""
    ways = [way for way in (reading.splits, reading.other, plain, WHOLE) if way]
    lines = [f"    {splits_line(way)}  # {_meaning(way)}" for place, way in enumerate(ways) if way not in ways[:place]]
    return "\n".join(
        [
            f"SOURCE {str(source)!r} can be read in more than one way: {reading.doubt}.",
            "Put the line that is meant into a recipe, and build with --recipe:",
            *lines,
            *(f"  {line}" for line in reading.left_out),
            f"decant init writes the first one: decant init {str(source)!r}",
        ]
    )


def splits_line(splits: Sequence[tuple[str, str]]) -> str:
    """As a line of a recipe."""
    values = {"splits": {name: {"folder": folder} for name, folder in splits}}
    text = yaml.safe_dump(values, default_flow_style=True, sort_keys=False, width=10_000, allow_unicode=True)
    return str(text).strip()[1:-1]


def _meaning(splits: Splits) -> str:
    if splits == WHOLE:
        return "one split; the folders in SOURCE are its classes"
    return f"the split{'s' * (len(splits) != 1)} {', '.join(name for name, _ in splits)}, and nothing else"
