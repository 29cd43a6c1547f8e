"""How the folders of SOURCE may be read: as splits, as classes, or as another layout than either.

A reading is made from the names in SOURCE (`read_names`) and then compared with what the scan found (`look_inside`).
Both name a doubt where it is not certain, and the reading that the doubt suggests.
"""

import itertools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from preprocess.errors import UsageError
from preprocess.names import SPLIT_NAMES, is_image_word, is_target_word, probable_split_of, split_of, split_word_in
from preprocess.scan import Scan, SplitScan, dead_links, folders_in, has_images, holds_images

_NAMES_SHOWN = 5

Splits = list[tuple[str, str]]
"""(split, its folder in SOURCE), in order."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to understand SOURCE.

    Attributes
    ----------
    splits : what it takes for splits
    doubt : why a build does not take this for granted; empty: it does
    other : another reading that is as good
    empty : folders beside the splits that hold no image
    left_out : what of SOURCE a recipe cannot use, a line each
    """

    splits: Splits
    doubt: str = ""
    other: Splits = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


# -- by name -----------------------------------------------------------------------------------------------------------


def read_names(source: Path, below: str = "") -> Reading:
    """What the names of the folders in SOURCE, or in a folder of it, say.

    Other folders are looked into up to their first image, and only if some are named like splits.

    Raises
    ------
    UsageError : SOURCE does not exist or is not a folder, or a split of it is a link that leads nowhere
    """
    place = source / below
    folders = folders_in(place)
    for name, target in dead_links(place).items():
        if split_of(name):
            raise UsageError(
                f"{_join(below, name)!r} in SOURCE {str(source)!r} has the name of a split, and is a link to "
                f"{target!r}, which does not exist; is its disk mounted? Remove the link if it is not needed"
            )
    certain = {name: split for name in folders if (split := split_of(name))}
    probable = {name: split for name in folders if name not in certain and (split := probable_split_of(name))}
    probable = {name: split for name, split in probable.items() if holds_images(place / name) is not False}
    if not certain and not probable:
        return Reading([("train", below or ".")])
    others = [name for name in folders if name not in certain and name not in probable]
    filled = [name for name in others if holds_images(place / name)]
    named = certain | probable
    if not filled and has_images(place) and all(holds_images(place / name) is False for name in named):
        return Reading([("train", below or ".")])  # a flat folder, with empty folders in it
    splits = [(split, _join(below, name)) for split, name in _in_order(named)]
    reading = Reading(
        splits,
        empty=[_join(below, name) for name in others if name not in filled],
        left_out=_targets_left_out([_join(below, name) for name in others if is_target_word(name)]),
    )
    if filled:
        doubt = f"folders named like splits ({listed(named)}) stand beside other folders with images ({listed(filled)})"
        if not any(holds_images(place / name) for name in named):
            return Reading([("train", below or ".")], doubt)
        if len(set(named.values())) == 1 and not any(_has_class_folders(place / name) for name in named):
            return Reading([("train", below or ".")], doubt, splits)
        return replace(reading, doubt=doubt)
    twice = [name for name, split in named.items() if list(named.values()).count(split) > 1]
    if twice:
        meaning = ", ".join(map(repr, sorted({named[name] for name in twice})))
        return replace(reading, doubt=f"the folders {listed(twice)} mean one and the same split, {meaning}")
    if probable:
        return replace(reading, doubt=f"folders look like splits without being called exactly so ({listed(probable)})")
    return reading


def _in_order(named: Mapping[str, str]) -> list[tuple[str, str]]:
    """(split, folder); where several folders mean one split, each split is called as its folder."""
    meanings = list(named.values())
    pairs: list[tuple[str, str]] = []
    for name in sorted(named, key=lambda name: (SPLIT_NAMES.index(named[name]), name)):
        split = named[name] if meanings.count(named[name]) == 1 else _as_split(name)
        taken = {each for each, _ in pairs}
        again = itertools.count(2)
        unique = split
        while unique in taken:  # train-1 and train_1
            unique = f"{split}_{next(again)}"
        pairs.append((unique, name))
    return pairs


def _as_split(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name)


def _has_class_folders(folder: Path) -> bool:
    return any(holds_images(folder / name) for name in folders_in(folder))


# -- by content --------------------------------------------------------------------------------------------------------


def look_inside(source: Path, reading: Reading, scanned: Scan) -> Reading | None:
    """The doubt that the scan of a reading leaves, with a reading that fits better; None if it leaves none."""
    for look in (
        _parts_of_a_data_set,
        _parts_in_classes,
        _splits_as_classes,
        _split_words_in_classes,
        _one_folder_around_all,
        _splits_in_classes,
        _more_beside_than_inside,
    ):
        better = look(source, reading, scanned)
        if better is not None:
            return better
    return None


def _parts_of_a_data_set(source: Path, reading: Reading, scanned: Scan) -> Reading | None:
    """images/ and masks/, images/ and labels/, JPEGImages/ and SegmentationClass/, in SOURCE or in its splits."""
    found: list[str] = []
    splits: Splits = []
    left_out: list[str] = []
    alone: list[str] = []
    for name, split in scanned.splits.items():
        filled = split.filled_classes()
        targets = [each for each in split.class_names or () if is_target_word(each)]
        images = [each for each in filled if is_image_word(each, beside_targets=bool(targets))]
        only_targets = bool(filled) and all(map(is_target_word, filled))
        if not only_targets and not (images and (targets or len(filled) == len(images))):
            splits.append((name, split.folder))
            continue
        found += [_join(split.folder, each) for each in [*images, *targets]]
        if only_targets:
            splits.append((name, split.folder))
            alone.append(split.folder)
            continue
        left_out += [_join(split.folder, each) for each in targets]
        inner = _join(split.folder, images[0])
        splits += read_names(source, inner).splits if len(scanned.splits) == 1 else [(name, inner)]
    if not found:
        return None
    doubt = f"folders are named like the parts of a data set, not like classes ({listed(found)})"
    loose = [f"images that lie loose in {listed(alone)} need a folder of their own to be a split"] if alone else []
    return Reading(splits, doubt, left_out=_targets_left_out(left_out) + loose)


def _parts_in_classes(source: Path, reading: Reading, scanned: Scan) -> Reading | None:
    """cat/images/ and cat/masks/, or cat/masks/ beside the images of cat."""
    found = [
        _join(split.folder, f"{each}/{below}")
        for split in scanned.splits.values()
        for each, folders in split.nested.items()
        for below in folders
        if is_target_word(below)
    ]
    if not found:
        return None
    lost = f"{listed(found)}: a recipe cannot leave out folders inside of classes; move them out of SOURCE for that"
    doubt = f"folders named like masks or labels stand inside of classes and would be samples ({listed(found)})"
    return Reading(reading.splits, doubt, left_out=[lost])


def _targets_left_out(folders: list[str]) -> list[str]:
    lost = f"{listed(folders)}: masks, boxes and annotations cannot be said in a recipe; only the images are taken"
    return [lost] if folders else []


def _splits_as_classes(source: Path, reading: Reading, scanned: Scan) -> Reading | None:
    """train/train/, or train/ and test/ inside of train/."""
    found: list[str] = []
    splits: Splits = []
    for name, split in scanned.splits.items():
        filled = split.filled_classes()
        meant = [each for each in filled if _any_split_of(each)]
        if not filled or len(meant) < len(filled):
            splits.append((name, split.folder))
            continue
        found += [_join(split.folder, each) for each in meant]
        own = [each for each in meant if _any_split_of(each) == (_any_split_of(split.folder.split("/")[-1]) or name)]
        if len(scanned.splits) == 1:
            splits = read_names(source, split.folder).splits
        else:
            splits.append((name, _join(split.folder, (own or meant)[0])))
    doubt = f"folders named like splits stand where classes do ({listed(found)})"
    return Reading(splits, doubt) if found else None


def _split_words_in_classes(source: Path, reading: Reading, scanned: Scan) -> Reading | None:
    """cars_train/ and cars_test/, trainA/ and testA/."""
    found: dict[str, str] = {}
    for split in scanned.splits.values():
        filled = split.filled_classes()
        named = {each: word for each in filled if (word := split_word_in(each))}
        meanings: dict[tuple[str, ...], set[str]] = {}
        for meaning, rest in named.values():
            meanings.setdefault(rest, set()).add(meaning)
        if any(len(several) > 1 for several in meanings.values()):  # not so train_station and test_tube
            images = {each: word for each, word in named.items() if not any(map(is_target_word, word[1]))}
            found |= {_join(split.folder, each): meaning for each, (meaning, _) in images.items()}
    if not found:
        return None
    splits = _in_order(found) if len(scanned.splits) == 1 else reading.splits
    return Reading(splits, f"folders with the names of splits in theirs stand where classes do ({listed(found)})")


def _one_folder_around_all(source: Path, reading: Reading, scanned: Scan) -> Reading | None:
    """A single class that holds nothing but folders with images: photos/dataset/<class>/…, VOCdevkit/…/JPEGImages."""
    filled = filled_classes(scanned)
    places = {name: split for name, split in scanned.splits.items() if len(split.paths)}
    if len(filled) != 1 or not all(filled <= split.nested_alone for split in places.values()):
        return None
    roots = {name: _root(split) for name, split in places.items()}
    (class_name,) = filled
    doubt = f"all images lie in folders below {class_name!r}, which would be the only class"
    if len(scanned.splits) == 1:
        return Reading(read_names(source, *roots.values()).splits, doubt)
    return Reading([(name, roots.get(name, folder)) for name, folder in reading.splits], doubt)


def _root(split: SplitScan) -> str:
    """The deepest folder that holds all images of a split."""
    return os.path.commonpath({path.rpartition("/")[0] for path in split.paths})


def _splits_in_classes(source: Path, reading: Reading, scanned: Scan) -> Reading | None:
    """cat/train/, cat/test/, dog/train/, dog/test/."""
    found: list[str] = []
    for split in scanned.splits.values():
        filled = split.filled_classes()
        meanings = {
            each: {meaning: below for below in split.nested.get(each, ()) if (meaning := _any_split_of(below))}
            for each in filled
        }
        if any(len(meant) > 1 for meant in meanings.values()) or (filled and all(meanings.values())):
            found += [_join(split.folder, f"{each}/{below}") for each in filled for below in meanings[each].values()]
    if not found:
        return None
    lost = (
        f"{listed(found)}: a recipe cannot put folders of several classes into one split, so they are not kept apart; "
        "move them to <split>/<class>/… for that"
    )
    return Reading(
        reading.splits, f"folders named like splits stand inside of classes ({listed(found)})", left_out=[lost]
    )


def _more_beside_than_inside(source: Path, reading: Reading, scanned: Scan) -> Reading | None:
    """a.jpg, b.jpg and thumbs/c.jpg, of which c.jpg alone would be taken."""
    skipped = scanned.loose.count + scanned.beside.count
    taken = sum(len(split.paths) for split in scanned.splits.values())
    if skipped <= taken:
        return None
    shown = scanned.loose if scanned.loose.count else scanned.beside
    doubt = (
        f"{skipped:,} images lie beside the folders that would be taken ({shown.shown()}), and {taken:,} inside of them"
    )
    lost = "images beside folders need a folder of their own to be a class or a split; move either of them"
    return Reading(reading.splits, doubt, left_out=[lost])


def _any_split_of(name: str) -> str | None:
    return split_of(name) or probable_split_of(name)


def filled_classes(scanned: Scan) -> set[str]:
    """Classes with images."""
    return {name for split in scanned.splits.values() for name in split.filled_classes()}


def _join(folder: str, name: str) -> str:
    return str(PurePosixPath(folder) / name)


def listed(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(map(repr, every[:_NAMES_SHOWN])) + (", …" if len(every) > _NAMES_SHOWN else "")
