"""Images whose committed tensors come from a former way of reading their files: found, counted, and kept or replaced.

A newer decant may read a kind of file in another way, see `readers`. Tensors that are there stay valid. Which ones they
are is found once, from the headers of the files, and is kept by each snapshot from then on.
"""

import os
from collections.abc import Iterable, Mapping

import numpy as np

from cache_store.canonical import DIGEST_BYTES
from cache_store.manifest import SplitTable
from cache_store.reader import Cache
from cache_store.writer import read_formerly_by_hint
from preprocess.catalog import among
from preprocess.census import beginning
from preprocess.errors import SourceError
from preprocess.header import read_header
from preprocess.paths import Paths
from preprocess.plan import Plan
from preprocess.readers import FORMER, FORMERLY, reader_of

_ENDINGS = (b"png", b"ebp", b"vif", b"tif", b"iff", b"bmp", b"dib", b"pgm", b"ppm", b"pnm", b"pam", b"pfm")
"""The last three letters of the files that are looked into: formats of which a kind was read otherwise formerly."""

ReadFormerly = dict[str, list[str]]
"""Way of reading -> digests, in hex, as in `SplitTable.read_formerly`."""


def find_read_formerly(plan: Plan, tables: Iterable[SplitTable], noted: Mapping[str, list[str]] | None) -> ReadFormerly:
    """Which images of a snapshot would be read in another way now.

    Parameters
    ----------
    plan : digests of unchanged files are known
    tables : of the snapshot
    noted : what a former look at this snapshot has found; None: nobody has looked
    """
    found: ReadFormerly = {}
    unchecked = []
    for table in tables:
        if table.read_formerly is None:
            unchecked.append(table["digest"])
        for way, digests in (table.read_formerly or {}).items():
            found.setdefault(way, []).extend(digests)
    if unchecked:
        more = _look(plan, np.concatenate(unchecked)) if noted is None else noted
        for way, digests in more.items():
            found.setdefault(way, []).extend(digests)
    return {way: sorted(set(digests)) for way, digests in found.items()}


def _look(plan: Plan, digests: np.ndarray) -> ReadFormerly:
    """Read the headers of the files of a table that does not say how they were read."""
    sources = plan.sources
    found: ReadFormerly = {}
    wanted = sources.known & _may_differ(sources.paths)
    numbers = np.flatnonzero(wanted)
    numbers = numbers[among(sources.digests[numbers], digests)]
    for number in plan.survivors(numbers).tolist():
        try:
            data = beginning(os.path.join(os.fsencode(plan.source), sources.paths.encoded(number)))
            way = reader_of(data, read_header(data))
        except (OSError, SourceError):
            continue  # its tensors are there; reading it, where that is needed, says what is wrong
        if way in FORMERLY:
            found.setdefault(way, []).append(sources.digests[number].tobytes().hex())
    return found


def _may_differ(paths: Paths) -> np.ndarray:
    """Which of the files have one of `_ENDINGS`: bool (n,)."""
    if not len(paths):
        return np.zeros(0, bool)
    letters = paths.data[np.maximum(paths.ends[:, None] - np.array([3, 2, 1]), 0)] | 0x20  # lower case
    return np.isin(letters.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1]), [int.from_bytes(e) for e in _ENDINGS])


def digests_of(read_formerly: Mapping[str, list[str]]) -> np.ndarray:
    """All digests of a `ReadFormerly`: uint8 (n, 16)."""
    joined = "".join(digest for digests in read_formerly.values() for digest in digests)
    return np.frombuffer(bytes.fromhex(joined), np.uint8).reshape(-1, DIGEST_BYTES)


def still_formerly(read_formerly: Mapping[str, list[str]], digests: np.ndarray, decoders: np.ndarray) -> ReadFormerly:
    """What is left of it in a new table: of the samples there, those whose slots were still read in the former way.

    Parameters
    ----------
    digests : uint8 (n, 16), of the samples
    decoders : uint8 (n, K), places in `readers.DECODERS`
    """
    left: ReadFormerly = {}
    former = digests[(decoders == FORMER).any(axis=1)]
    present = {digest.tobytes().hex() for digest in former[among(former, digests_of(read_formerly))]}
    for way, listed in read_formerly.items():
        if kept := [digest for digest in listed if digest in present]:
            left[way] = kept
    return left


def counts(read_formerly: Mapping[str, list[str]]) -> dict[str, int]:
    """How many images each way of reading that is new would read differently now."""
    return {way: len(read_formerly.get(way, ())) for way in FORMERLY}


def note_read_formerly(plan: Plan, previous: Cache | None) -> None:
    """Find them for a plan whose files are hashed as far as need be, say so, and have them rendered again if asked."""
    if previous is None:
        return
    noted = read_formerly_by_hint(plan.cache, previous.snapshot.name)
    plan.read_formerly = find_read_formerly(plan, previous.splits.values(), noted)
    if plan.rerender:
        plan.history.ignore(digests_of(plan.read_formerly))
    outcome = "they are rendered again" if plan.rerender else "the tensors are kept, --rerender replaces them"
    for way, digests in plan.read_formerly.items():
        images = f"{len(digests):,} image{'s' * (len(digests) != 1)}"
        plan.departures.append(f"{images} {FORMERLY[way]}: read so by an earlier version of decant; {outcome}")
