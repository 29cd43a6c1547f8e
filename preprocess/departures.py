"""What differs from the expected in a scanned SOURCE, as a user wants to hear it: a line each."""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from preprocess import environment
from preprocess.levels import BEYOND, BY_MAXIMUM, FEW, FEW_IN_WINDOW, HIGH, UPPER, noted_window
from preprocess.names import is_target_word, junk_of, split_of
from preprocess.recipe import Recipe
from preprocess.report import printable
from preprocess.scan import Scan, Tally

_NAMES_SHOWN = 5
_SHIFTS_SHOWN = 10
_PROFILES_SHOWN = 5
_PROFILE = "colour profile "

_LOSSES = {
    HIGH: "only the high byte was kept",
    UPPER: "only the upper 8 were kept",
    BY_MAXIMUM: "scaled to 0..255",
    FEW_IN_WINDOW: "fewer than 64 of at least 256; a narrower window in decode.levels keeps more",
    BEYOND: "clipped",
    "float": "clipped to 0..1, and 255 steps of it were kept",
    "alpha": "it was dropped",
    "extra channels": "they were dropped",
    "several frames": "the first was kept",
    "several pages": "the first was kept",
    "CMYK": "converted without a colour profile",
    "CIE Lab": "converted approximately",
}


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
        *_odd_class_names(found),
        *shifted(classes, former_classes),
        *environment.doubts(),
    ]


def lost_in_decoding(noted: Mapping[str, Tally]) -> list[str]:
    """What images lost on their way to 8 bits a channel of sRGB, or what was left as it is.

    Parameters
    ----------
    noted : what `decode.Decoded` notes -> which images
    """
    profiles = {kind: tally for kind, tally in noted.items() if kind.startswith(_PROFILE)}
    usual = sorted(profiles, key=lambda kind: -profiles[kind].count)
    flat = {kind: tally for kind, tally in noted.items() if kind.startswith(FEW)}
    lines = [_flattened(flat)] if flat else []
    lines += [_loss(kind, tally) for kind, tally in noted.items() if kind not in profiles and kind not in flat]
    lines += [_loss(kind, profiles[kind]) for kind in usual[:_PROFILES_SHOWN]]
    if rest := usual[_PROFILES_SHOWN:]:
        count = sum(profiles[kind].count for kind in rest)
        lines.append(f"images with {len(rest):,} more colour profiles, {count:,}: not converted")
    return lines


def _flattened(flat: Mapping[str, Tally]) -> str:
    """Images that are black or nearly so, and the window that most of them need."""
    whole = Tally()
    for tally in flat.values():
        whole.join(tally)
    usual = max(flat, key=lambda kind: flat[kind].count)
    window = noted_window(usual.removeprefix(f"{FEW}, "))
    if window is None:
        what = "no one window keeps more of them; decode.levels takes one of the part that matters"
    else:
        suits = "" if len(flat) == 1 else f", which suits {flat[usual].count:,} of them"
        what = f"write decode: {{levels: {window}}} in the recipe to keep more{suits}"
    return f"images with {FEW}, {whole.count:,}: black or of few shades; {what} ({whole.shown()})"


def _loss(kind: str, tally: Tally) -> str:
    what, loss = kind, _LOSSES.get(kind, "not converted")
    if (window := noted_window(kind)) is not None:
        what, loss = "16-bit", f"window {window} onto 0..255"
    return f"images with {what}, {tally.count:,}: {loss} ({tally.shown()})"


def _passed_over(found: Scan) -> list[str]:
    lines = [
        f"{tally.count:,} {what} ({tally.shown()})"
        for tally, what in (
            (found.undecodable, "HEIC files were skipped, which decant does not decode: convert them to JPEG or PNG"),
            (found.dead, "links that lead nowhere were skipped; is their disk mounted?"),
            (found.hidden, "hidden files and folders were skipped"),
            (found.other, "files were skipped: no image's extension, or no regular file"),
            (found.loose, "images lie beside the class folders and were skipped"),
            (found.beside, "images lie in SOURCE beside the folders of the splits and were skipped"),
        )
        if tally.count
    ]
    if found.junk:
        names = ", ".join(f"{printable(name)} {count:,}" for name, count in sorted(found.junk.items()))
        lines.append(f"junk of file servers, desktops and editors was skipped: {names}")
    if found.unlisted:
        names = ", ".join(map(repr, found.unlisted))
        lines.append(f"folders of SOURCE that cannot be listed were skipped: {names}")
    if found.empty_folders:
        names = ", ".join(map(repr, found.empty_folders))
        lines.append(f"folders in which no image was found were skipped: {names}")
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


def _odd_class_names(found: Scan) -> list[str]:
    """Classes called like splits, like masks or like each other; folders inside of classes called like splits."""
    counts: Counter[str] = Counter()
    for split in found.splits.values():
        counts.update({name: count for name, count in split.class_counts().items() if split_of(name)})
    inside = [
        f"{'' if split.folder == '.' else split.folder + '/'}{name}/{below}"
        for split in found.splits.values()
        for name, folders in split.nested.items()
        for below in folders
        if split_of(below)
    ]
    parts: Counter[str] = Counter()
    twins: dict[str, set[str]] = {}
    for split in found.splits.values():
        parts.update({name: count for name, count in split.class_counts().items() if count and is_target_word(name)})
        for name in split.class_names or ():
            twins.setdefault(unicodedata.normalize("NFC", name).casefold(), set()).add(name)
    lines = []
    if counts:
        names = ", ".join(f"{name!r} with {count:,} images" for name, count in counts.items())
        lines.append(f"classes have the names of splits: {names}")
    if parts:
        names = ", ".join(f"{name!r} with {count:,} images" for name, count in parts.items())
        lines.append(f"classes have the names of masks or labels of a data set: {names}")
    for same in twins.values():
        if len(same) > 1:
            lines.append(
                f"classes differ only in capitals or in how accents are encoded: {', '.join(map(ascii, sorted(same)))}"
            )
    if inside:
        shown = ", ".join(map(repr, inside[:_NAMES_SHOWN])) + (", …" if len(inside) > _NAMES_SHOWN else "")
        lines.append(f"folders inside of classes have the names of splits, and belong to their classes: {shown}")
    return lines


def lost_classes(classes: Sequence[str], former_classes: Sequence[str]) -> list[str]:
    """Classes of the snapshot in force that are none any more."""
    there = set(classes)
    lost = [(number, name) for number, name in enumerate(former_classes) if name not in there]
    if not lost:
        return []
    shown = ", ".join(f"{name!r} ({number})" for number, name in lost[:_SHIFTS_SHOWN])
    junk = ", ".join(repr(name) for _, name in lost if junk_of(name))
    return [
        f"classes of the snapshot are gone, {len(lost):,}: {shown}{', …' if len(lost) > _SHIFTS_SHOWN else ''}"
        + (f"; junk by its name, which is skipped now: {junk}" if junk else "")
    ]


def shifted(classes: Sequence[str], former_classes: Sequence[str]) -> list[str]:
    """Class ids that mean another class than in the snapshot in force: one line, or none."""
    former = {name: number for number, name in enumerate(former_classes)}
    there = set(classes)
    moved = [f"{name!r} {former[name]} -> {i}" for i, name in enumerate(classes) if former.get(name, i) != i]
    moved += [
        f"{i} was {old!r} and is {new!r}"
        for i, (old, new) in enumerate(zip(former_classes, classes, strict=False))
        if old not in there and new not in former
    ]
    if not moved:
        return []
    more = f" and {len(moved) - _SHIFTS_SHOWN} more" if len(moved) > _SHIFTS_SHOWN else ""
    shown = ", ".join(moved[:_SHIFTS_SHOWN]) + more
    return [f"class ids shift: {shown}; list 'classes' in the recipe to pin them"]
