"""What differs from the expected in a scanned SOURCE, as a user wants to hear it: a line each."""

from collections.abc import Mapping, Sequence

import numpy as np

from preprocess import environment
from preprocess.recipe import Recipe
from preprocess.scan import Scan, Tally

_NAMES_SHOWN = 5
_SHIFTS_SHOWN = 10


def departures(recipe: Recipe, found: Scan, classes: Sequence[str], former_classes: Sequence[str]) -> list[str]:
    """Files passed over, classes without images, class ids that shift, and what was set for the user.

    Parameters
    ----------
    recipe : with its splits spelled out
    found : the scan of SOURCE
    classes : names by class id, for this build
    former_classes : the same of the snapshot in force; empty if there is none
    """
    return [
        *recipe.notes,
        *_passed_over(found),
        *_classes_without_images(found, classes, recipe.classes or ()),
        *_shifted(classes, former_classes),
        *environment.doubts(),
    ]


def lost_in_decoding(noted: Mapping[str, Tally]) -> list[str]:
    """What images lost on their way to 8 bits a channel.

    Parameters
    ----------
    noted : '16-bit' or 'alpha', as in `decode.Decoded` -> which images
    """
    lost = {"16-bit": "only the high byte was kept", "alpha": "it was dropped"}
    return [f"images with {kind}, {tally.count:,}: {lost[kind]} ({tally.shown()})" for kind, tally in noted.items()]


def _passed_over(found: Scan) -> list[str]:
    lines = [
        f"{tally.count:,} {what} ({tally.shown()})"
        for tally, what in (
            (found.hidden, "hidden files and folders were skipped"),
            (found.other, "files were skipped: no image's extension, or no regular file"),
            (found.loose, "images lie beside the class folders and were skipped"),
        )
        if tally.count
    ]
    lines += [f"symbolic link {loop!r} leads back to a folder above it and was not followed" for loop in found.loops]
    if found.unused_folders:
        names = ", ".join(map(repr, found.unused_folders))
        lines.append(
            f"no split of the recipe has the folders {names} of SOURCE; add them under 'splits' to include them"
        )
    return lines


def _classes_without_images(found: Scan, classes: Sequence[str], pinned: Sequence[str]) -> list[str]:
    lines = []
    for split in found.splits.values():
        if split.class_names is None:
            if len(split.paths):
                lines.append(f"split {split.name!r} is a flat folder: its images have label -1")
            continue
        counts = np.bincount(split.class_index, minlength=len(split.class_names)).tolist()
        present = {name for name, count in zip(split.class_names, counts, strict=True) if count}
        lacking = [name for name in classes if name not in present]
        if lacking:
            shown = ", ".join(map(repr, lacking[:_NAMES_SHOWN])) + (", …" if len(lacking) > _NAMES_SHOWN else "")
            lines.append(f"split {split.name!r} has no image of {len(lacking)} of {len(classes)} classes ({shown})")
    folders = {name for split in found.splits.values() for name in split.class_names or ()}
    unknown = [name for name in pinned if name not in folders]
    if unknown:
        lines.append(f"classes: {', '.join(map(repr, unknown))} of the recipe have no folder; their ids stay reserved")
    return lines


def _shifted(classes: Sequence[str], former_classes: Sequence[str]) -> list[str]:
    former = {name: number for number, name in enumerate(former_classes)}
    moved = [f"{name!r} {former[name]} -> {i}" for i, name in enumerate(classes) if former.get(name, i) != i]
    if not moved:
        return []
    more = f" and {len(moved) - _SHIFTS_SHOWN} more" if len(moved) > _SHIFTS_SHOWN else ""
    shown = ", ".join(moved[:_SHIFTS_SHOWN]) + more
    return [f"class ids shift: {shown}; list 'classes' in the recipe to pin them"]
