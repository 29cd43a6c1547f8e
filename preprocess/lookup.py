"""Samples of a cache by number or path."""

import difflib
import os
from collections.abc import Iterable, Sequence

from cache_store import layout
from cache_store.errors import NotFoundError
from cache_store.reader import Cache
from preprocess.report import printable

_NAMED = 3
_MOST_COMPARED = 20_000
"""Comparing spellings takes some 20 µs a name."""


def split_of(cache: Cache, samples: Sequence[int | str]) -> str:
    """The split that has the first of the paths, otherwise the first split; '' if there is none."""
    wanted = next((_encoded(one) for one in samples if isinstance(one, str)), None)
    holders = (name for name, table in cache.splits.items() if wanted is not None and wanted in table.paths())
    return next(holders, next(iter(cache.splits), ""))


def numbers_of(cache: Cache, split: str, samples: Sequence[int | str]) -> list[int]:
    """The number of each sample in its split, counted from the front.

    Parameters
    ----------
    samples : numbers, negative ones from the end, or paths relative to SOURCE

    Raises
    ------
    NotFoundError : there is no such split or sample; the message has the nearest names, or why an image was left out
    """
    table = cache.split(split)
    paths = table.paths() if any(isinstance(one, str) for one in samples) else []
    found = []
    for one in samples:
        if isinstance(one, str):
            if (path := _encoded(one)) not in paths:
                raise NotFoundError(_why_not(cache, split, path))
            found.append(paths.index(path))
        elif -len(table) <= one < len(table):
            found.append(one % len(table))
        else:
            raise NotFoundError(f"split {split!r} has samples 0 to {len(table) - 1}, there is no {one}")
    return found


def _encoded(path: str) -> bytes:
    """As a manifest has it."""
    return os.fsencode(os.path.normpath(path))


def _why_not(cache: Cache, split: str, path: bytes) -> str:
    shown = printable(os.fsdecode(path))
    for failure in cache.snapshot.failures:
        if os.fsencode(layout.text_to_name(failure["path"])) == path:
            return f"{shown!r} was left out of the cache: {failure['stage']}: {failure['reason']}"
    elsewhere = [name for name, table in cache.splits.items() if path in table.paths()]
    if elsewhere:
        return f"split {split!r} has no sample {shown!r}, but split {elsewhere[0]!r} has one: --split {elsewhere[0]}"
    near = _nearest(path, cache.split(split).paths())
    hint = f"; the nearest are: {', '.join(near)}" if near else "; paths are relative to SOURCE"
    return f"split {split!r} has no sample {shown!r}{hint}"


def _nearest(path: bytes, paths: Iterable[bytes]) -> list[str]:
    """Paths of the same file name, else those with the most similar spelling, in its folder if it has one there."""
    folder, name = os.path.split(path)
    everything = list(paths)
    same = [other for other in everything if os.path.basename(other) == name]
    if same:
        return [printable(os.fsdecode(other)) for other in same[:_NAMED]]
    beside = [other for other in everything if os.path.dirname(other) == folder] or everything
    names = [os.fsdecode(other) for other in beside[:_MOST_COMPARED]]
    return list(map(printable, difflib.get_close_matches(os.fsdecode(path), names, n=_NAMED)))
