"""Which stored images a report shows: some of each class, of every split, beside their sources if these are known."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache_store.canonical import digest_of
from cache_store.errors import IntegrityError
from cache_store.manifest import SplitTable
from cache_store.reader import Cache
from cache_store.shard import checksum
from preprocess.decode import decode
from preprocess.errors import SourceError
from preprocess.levels import are_few
from preprocess.paths import Paths
from preprocess.read import read_source
from preprocess.rendering import ADMIT_ALL
from preprocess.show import as_seen
from preprocess.thumbnails import MAX_SIDE, fitted

MAX_CLASSES = 24
MAX_IMAGES = 8
"""Stored images of a class, variants counted."""

UNLABELLED = -1


@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of a sample.

    Attributes
    ----------
    title : what it is
    image : uint8 (H, W, 3) RGB, not larger than a thumbnail; None: it cannot be shown
    why_not : the reason, in a few words
    few_levels : the stored image uses few of the 256 levels, see `levels.are_few`
    """

    title: str
    image: np.ndarray | None
    why_not: str = ""
    few_levels: bool = False


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample: its source, where it is looked for, and some of its variants.

    Attributes
    ----------
    path : relative to SOURCE, as Python has file names
    source_hw : height and width of the source
    """

    split: str
    path: str
    source_hw: tuple[int, int]
    source: Cell | None
    variants: list[Cell]

    @property
    def cells(self) -> list[Cell]:
        """The source, if it is known where it is, and the variants."""
        return self.variants if self.source is None else [self.source, *self.variants]


@dataclass(frozen=True, slots=True)
class Row:
    """One class.

    Attributes
    ----------
    label : its id, or `UNLABELLED`
    counts : split -> samples of the class; splits without one are left out
    """

    label: int
    counts: dict[str, int]
    samples: list[Sample] = field(default_factory=list)


def rows(cache: Cache, source: Path | None) -> Iterator[Row]:
    """Up to `MAX_CLASSES` classes that have samples, evenly spread, each with up to `MAX_IMAGES` of their images.

    A damaged image, or a source that is gone or not the one that the cache was made from, is named as such.

    Parameters
    ----------
    source : the folder of images; None: nobody knows where it is
    """
    tables = cache.splits
    labels = present(tables)
    for place in _spread(len(labels), MAX_CLASSES):
        yield _row(cache, labels[place], source)


def present(tables: dict[str, SplitTable]) -> list[int]:
    """Labels that samples have, the unlabelled ones last."""
    labels = np.unique(np.concatenate([np.zeros(0, np.int64), *(table["label"] for table in tables.values())]))
    found: list[int] = labels.tolist()
    return sorted(found, key=lambda label: (label == UNLABELLED, label))


def _spread(count: int, most: int) -> list[int]:
    places: list[int] = np.linspace(0, count - 1, min(count, most)).astype(int).tolist()
    return places


def _row(cache: Cache, label: int, source: Path | None) -> Row:
    members = {name: np.flatnonzero(table["label"] == label) for name, table in cache.splits.items()}
    members = {name: numbers for name, numbers in members.items() if len(numbers)}
    row = Row(label, {name: len(numbers) for name, numbers in members.items()})
    shown = list(members)[:MAX_IMAGES]
    share = MAX_IMAGES // len(shown)
    for name in shown:
        variants = min(cache.split(name).variants, share)
        for place in _spread(len(members[name]), share // variants):
            row.samples.append(_sample(cache, name, int(members[name][place]), variants, source))
    return row


def _sample(cache: Cache, split: str, number: int, variants: int, source: Path | None) -> Sample:
    table = cache.split(split)
    path = Paths.of(table["path"], table["path_end"]).encoded(number)
    height, width = table["source_hw"][number].tolist()
    beside = None
    if source is not None:
        arguments = shown_by(cache.snapshot.recipe)
        beside = source_cell(source, path, int(table["size"][number]), table["digest"][number].tobytes(), **arguments)
    cells = [_variant(cache, split, number, k) for k in range(variants)]
    return Sample(split, os.fsdecode(path), (height, width), beside, cells)


def _variant(cache: Cache, split: str, number: int, k: int) -> Cell:
    table = cache.split(split)
    title = f"variant {k}" if table.variants > 1 else "tensor"
    try:
        stored = cache.image(split, number, k)
    except IntegrityError:
        return Cell(title, None, "damaged")
    if checksum(stored.reshape(-1).view(np.uint8)) != table["checksum"][number, k]:
        return Cell(title, None, "damaged")
    seen = as_seen(stored, table.mean, table.std)
    colour = np.broadcast_to(seen, (*seen.shape[:2], 3))  # gray, too
    return Cell(title, fitted(colour, MAX_SIDE), few_levels=are_few(seen))


def shown_by(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by which `decode.decode` shows what a build with this recipe, or one before it, has taken."""
    levels = recipe["decode"].get("levels", "high-byte")
    return dict(ADMIT_ALL) | {"levels": tuple(levels) if isinstance(levels, list) else levels}


def source_cell(folder: Path, path: bytes, size: int, digest: bytes, **arguments: Any) -> Cell:
    """The file that a sample was made from, if it is still the same.

    Only bytes that a build has decoded before are decoded: they do not end this process.

    Parameters
    ----------
    path : in `folder`; one that leads out of it is not followed
    size, digest : of the file when it was built
    arguments : more of them for `decode.decode`
    """
    parts = path.split(b"/")
    if path.startswith(b"/") or b".." in parts or b"\0" in path:
        return Cell("source", None, "not a path in SOURCE")
    name = os.path.join(os.fsencode(folder), path)
    try:
        if os.stat(name).st_size != size:
            return Cell("source", None, "changed since")
        data, _ = read_source(name, size)
        if digest_of(data) != digest:
            return Cell("source", None, "changed since")
        decoded = decode(data, reduce_to=(MAX_SIDE, MAX_SIDE), **arguments)
    except FileNotFoundError:
        return Cell("source", None, "not there any more")
    except (OSError, SourceError):
        return Cell("source", None, "cannot be read")
    return Cell("source", fitted(decoded.image, MAX_SIDE))
