"""All sources of a build in one table, whichever folder they come from, and what is known of each so far."""

import os
from dataclasses import dataclass, field

import numpy as np

from cache_store.canonical import DIGEST_BYTES
from cache_store.manifest import SplitTable, join_strings
from preprocess.jobs import Failure, Hashed
from preprocess.paths import Paths, find_keys, path_keys
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

    paths: Paths
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
        self.paths = Paths.joined([self.paths, Paths([folder])])
        self.stats = np.append(self.stats, np.zeros(1, STAT))
        self.labels = np.append(self.labels, -1)
        self.digests = np.append(self.digests, np.zeros((1, DIGEST_BYTES), np.uint8), axis=0)
        self.known = np.append(self.known, False)


def collect(scan: Scan, classes: list[str], limit: int | None) -> Sources:
    """One table out of a scan; `limit` keeps the first so many of each split."""
    ids = {name: number for number, name in enumerate(classes)}
    paths, stats, labels, ranges = [], [], [], {}
    count = 0
    for name, split in scan.splits.items():
        paths.append(split.paths[:limit])
        ranges[name] = (count, count + len(paths[-1]))
        count += len(paths[-1])
        stats.append(split.stats[:limit])
        to_id = np.array([ids[c] for c in split.class_names or ()] + [-1], np.int64)  # the last serves index -1
        labels.append(to_id[split.class_index[:limit]])
    return Sources(
        Paths.joined(paths) if len(paths) > 1 else paths[0],
        np.concatenate([np.zeros(0, STAT), *stats]),
        np.concatenate([np.zeros(0, np.int64), *labels]),
        np.zeros((count, DIGEST_BYTES), np.uint8),
        np.zeros(count, bool),
        ranges,
    )


def recognise(
    sources: Sources, tables: list[SplitTable], failures: list[dict[str, object]], verified_ns: int | None = None
) -> None:
    """Take over the digests of files that have the path, size, time stamps and inode that the last snapshot saw.

    Doubtful ones, whose time stamps lie too close to that scan to tell an edit, are left to be hashed.

    Parameters
    ----------
    tables, failures : of the last snapshot
    verified_ns : start of a later scan whose build found all doubtful files unchanged
    """
    if not tables:
        return
    stats = np.zeros(sum(len(table["size"]) for table in tables), STAT)
    for name in STAT.names or ():
        stats[name] = np.concatenate([table[name] for table in tables])
    scanned = max(table.scanned_ns for table in tables)
    newest = max(int(stats[name].max(initial=0)) for name in ("mtime_ns", "ctime_ns"))
    # The clock that stamps files may be another one than ours. At the scan it showed `newest` or more; since then it
    # went on as far as ours did.
    verified = max(verified_ns or 0, scanned)
    doubtful_from = min(verified, newest + verified - scanned) - DOUBT_NS
    certain = np.maximum(sources.stats["mtime_ns"], sources.stats["ctime_ns"]) < doubtful_from
    place = _places(sources.paths, tables)
    same = certain & (place >= 0)
    same[same] = sources.stats[same] == stats[place[same]]
    digests = np.concatenate([table["digest"] for table in tables])
    sources.digests[same] = digests[place[same]]
    sources.known |= same
    listed = [failed for failed in failures if failed.get("digest")]
    if listed:
        keys = path_keys(*join_strings([os.fsencode(str(failed["path"])) for failed in listed]))
        place = find_keys(keys, path_keys(sources.paths.data, sources.paths.ends))
        for number in np.flatnonzero(certain & ~same & (place >= 0)).tolist():
            failed = listed[place[number]]
            if _is_as_listed(failed, sources.stats[number].item()):
                sources.digests[number] = np.frombuffer(bytes.fromhex(str(failed["digest"])), np.uint8)
                sources.known[number] = True


def _is_as_listed(failed: dict[str, object], numbers: tuple[int, ...]) -> bool:
    names = ("size", "mtime", "ctime", "inode")
    return all(failed[name] == value for name, value in zip(names, numbers, strict=True) if name in failed)


def _places(paths: Paths, tables: list[SplitTable]) -> np.ndarray:
    """Where each path stands in the tables, one behind the other; -1 where it does not."""
    lengths = [0, *np.cumsum([len(table["path"]) for table in tables]).tolist()]
    former = np.concatenate([table["path"] for table in tables])
    former_ends = np.concatenate([table["path_end"] + lengths[i] for i, table in enumerate(tables)])
    if np.array_equal(paths.ends, former_ends) and np.array_equal(paths.data, former):
        return np.arange(len(paths))  # the rule: no file came, went or got another name
    return find_keys(path_keys(former, former_ends), path_keys(paths.data, paths.ends))


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
