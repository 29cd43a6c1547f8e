"""All sources of a build in one table, whichever folder they come from, and what is known of each so far."""

import os
from dataclasses import dataclass, field

import numpy as np

from cache_store.canonical import DIGEST_BYTES
from cache_store.manifest import SplitTable
from preprocess.jobs import Failure, Hashed
from preprocess.recipe import Recipe
from preprocess.scan import STAT, Scan

DOUBT_NS = 2_000_000_000
"""Time stamps this close to a scan may hide an edit: file systems keep them as coarsely as 2 s."""


@dataclass(slots=True)
class Sources:
    """Columns over all scanned files, folder after folder.

    Attributes
    ----------
    paths : relative to SOURCE
    stats : `scan.STAT` (n,); of the bytes that were hashed, once they were
    labels : int64 (n,), -1 unlabelled
    digests : uint8 (n, 16), valid where `known`
    known : bool (n,)
    failures : number of the source -> why it cannot be used
    ranges : split with a folder -> its first source and the one after its last
    """

    paths: list[str]
    stats: np.ndarray
    labels: np.ndarray
    digests: np.ndarray
    known: np.ndarray
    ranges: dict[str, tuple[int, int]]
    failures: dict[int, Failure] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, numbers: np.ndarray, answer: Hashed) -> np.ndarray:
        """Note digests and stats of sources that were read; returns the places in `answer` that did not fail."""
        good = np.array([place for place in range(len(numbers)) if place not in answer.failures], np.int64)
        self.digests[numbers[good]] = answer.digests[good]
        self.stats[numbers[good]] = answer.stats[good]
        self.known[numbers[good]] = True
        return good

    def add_failed_folder(self, folder: str, failure: Failure) -> None:
        """A folder that cannot be listed counts as one source that failed, of no split."""
        self.failures[len(self.paths)] = failure
        self.paths.append(folder)
        self.stats = np.append(self.stats, np.zeros(1, STAT))
        self.labels = np.append(self.labels, -1)
        self.digests = np.append(self.digests, np.zeros((1, DIGEST_BYTES), np.uint8), axis=0)
        self.known = np.append(self.known, False)


def collect(scan: Scan, classes: list[str], limit: int | None) -> Sources:
    """One table out of a scan; `limit` keeps the first so many of each split."""
    ids = {name: number for number, name in enumerate(classes)}
    paths: list[str] = []
    stats, labels, ranges = [], [], {}
    for name, split in scan.splits.items():
        start = len(paths)
        paths += split.paths[:limit]
        ranges[name] = (start, len(paths))
        stats.append(split.stats[:limit])
        to_id = np.array([ids[c] for c in split.class_names or ()] + [-1], np.int64)  # the last serves index -1
        labels.append(to_id[split.class_index[:limit]])
    count = len(paths)
    return Sources(
        paths,
        np.concatenate([np.zeros(0, STAT), *stats]),
        np.concatenate([np.zeros(0, np.int64), *labels]),
        np.zeros((count, DIGEST_BYTES), np.uint8),
        np.zeros(count, bool),
        ranges,
    )


def recognise(sources: Sources, tables: list[SplitTable], failures: list[dict[str, object]]) -> None:
    """Take over the digests of files that have the path, size, time stamps and inode that the last snapshot saw.

    Doubtful ones, whose time stamps lie too close to that scan to tell an edit, are left to be hashed.
    """
    former: dict[str, tuple[tuple[int, ...], bytes]] = {}
    newest = scanned = 0
    for table in tables:
        columns = [table[name].tolist() for name in STAT.names or ()]
        scanned = table.scanned_ns
        newest = max([newest, *columns[1], *columns[2]])
        digests = (row.tobytes() for row in table["digest"])
        for name, numbers, digest in zip(table.paths(), zip(*columns, strict=True), digests, strict=True):
            former[os.fsdecode(name)] = (numbers, digest)
    doubtful_from = min(scanned, newest) - DOUBT_NS
    listed = {str(f["path"]): f for f in failures if f.get("digest")}
    for number, path in enumerate(sources.paths):
        numbers = sources.stats[number].item()
        if max(numbers[1], numbers[2]) >= doubtful_from:
            continue
        seen = former.get(path)
        if seen is not None and seen[0] == numbers:
            sources.digests[number] = np.frombuffer(seen[1], np.uint8)
        elif (failed := listed.get(path)) is not None and _is_as_listed(failed, numbers):
            sources.digests[number] = np.frombuffer(bytes.fromhex(str(failed["digest"])), np.uint8)
        else:
            continue
        sources.known[number] = True


def _is_as_listed(failed: dict[str, object], numbers: tuple[int, ...]) -> bool:
    names = ("size", "mtime", "ctime", "inode")
    return all(failed[name] == value for name, value in zip(names, numbers, strict=True) if name in failed)


def members(sources: Sources, recipe: Recipe) -> dict[str, np.ndarray]:
    """Which sources each split has, in order: int64 (n,) by split.

    A split `{from: train, fraction: 0.1}` takes the sources whose digest, read as a fraction of its range, falls into
    its interval: additions move nobody, and equal files go the same way.
    """
    result: dict[str, np.ndarray] = {}
    taken: dict[str, np.ndarray] = {}
    edges: dict[str, float] = {}
    for name, split in recipe.named_splits.items():
        if split.from_ is None or split.fraction is None:
            continue
        numbers = np.arange(*sources.ranges[split.from_])
        points = sources.digests[numbers, :8].copy().view(">u8").reshape(-1).astype(np.float64) / 2.0**64
        low = edges.get(split.from_, 0.0)
        edges[split.from_] = low + split.fraction
        chosen = sources.known[numbers] & (points >= low) & (points < low + split.fraction)
        result[name] = numbers[chosen]
        taken[split.from_] = taken.get(split.from_, np.zeros(len(numbers), bool)) | chosen
    for name, (start, end) in sources.ranges.items():
        numbers = np.arange(start, end)
        result[name] = numbers[~taken[name]] if name in taken else numbers
    return {name: result[name] for name in recipe.named_splits}
