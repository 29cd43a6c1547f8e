"""Which pixels committed snapshots hold, of those that a build wants; read no further back than it has to be.

The snapshot in force knows all that an unchanged folder needs. Former ones are opened only when something is missing:
images that come back, a former recipe, variants that were once there.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cache_store.canonical import DIGEST_BYTES
from cache_store.errors import IntegrityError, NotFoundError
from cache_store.manifest import SplitTable
from cache_store.reader import Cache, open_cache, snapshot_names
from preprocess.catalog import among, committed_rows
from preprocess.readers import FORMER
from preprocess.rendering import Rendering
from preprocess.renderings import stored_rendering


@dataclass(frozen=True, slots=True)
class Held:
    """Rows of committed tensors.

    Attributes
    ----------
    tensors_id : where they are
    rendering : what those tensors are, statistics included
    rows : `row_dtype` (n,)
    slots : int64 (n,), of each row
    """

    tensors_id: str
    rendering: Rendering
    rows: np.ndarray
    slots: np.ndarray


class History:
    """Committed rows by the identity of their pixels, whatever they are normalised with.

    Parameters
    ----------
    previous : the snapshot in force, open as long as this is used; None for a cache without one
    """

    def __init__(self, cache: Path, previous: Cache | None) -> None:
        self._cache = cache
        self._previous = previous
        self._held: list[Held] = []
        self._renderings: dict[str, Rendering] = {}
        self._seen: dict[str, np.ndarray] = {}
        self._depth = 0
        self._ignored = np.zeros((0, DIGEST_BYTES), np.uint8)

    def ignore(self, digests: np.ndarray) -> None:
        """Act as if nothing were held of these, uint8 (n, 16), that a former way of reading has made. Called before
        anything is asked for."""
        assert self._depth == 0, "what is held was looked at already"
        self._ignored = digests

    def of(self, pixels_id: str) -> list[Held]:
        """What is known of these pixels so far, newest snapshot first."""
        if self._depth == 0:
            self._depth = 1
            if self._previous is not None:
                for table in self._previous.splits.values():
                    self._take(self._previous, table)
        return [held for held in self._held if held.rendering.pixels_id == pixels_id]

    def look_back(self) -> bool:
        """Take in former snapshots too; whether there was something left to take in."""
        if self._depth == 2 or self._previous is None:
            return False
        self._depth = 2
        for snapshot in newest_first(self._cache):
            if snapshot.snapshot.name == self._previous.snapshot.name:
                continue
            for table in snapshot.splits.values():
                try:
                    self._take(snapshot, table)
                except IntegrityError:
                    continue  # `verify` says so; what it knew is rendered again
        return True

    def add(self, tensors_id: str, rendering: Rendering, rows: np.ndarray, slots: np.ndarray) -> None:
        """What a commit in the making has moved into the tensors."""
        self._held.insert(0, Held(tensors_id, rendering, rows, slots))

    def drop(self, tensors_id: str, slots: np.ndarray) -> None:
        """Forget rows whose tensors turned out to be damaged."""
        for number, held in enumerate(self._held):
            if held.tensors_id == tensors_id:
                kept = ~np.isin(held.slots, slots)
                self._held[number] = replace(held, rows=held.rows[kept], slots=held.slots[kept])

    def _take(self, snapshot: Cache, table: SplitTable) -> None:
        """Rows of slots that no newer snapshot has: most tables of a history differ in few, and memory is dear."""
        if not len(table):
            return
        if table.tensors_id not in self._renderings:
            self._renderings[table.tensors_id] = _stored(snapshot, table)
        slots = table["slot"].reshape(-1)
        seen = self._seen.get(table.tensors_id, np.zeros(0, np.int64))
        new = ~np.isin(slots, seen)
        if not new.any():
            return
        rows, slots = committed_rows(table)
        if len(self._ignored):
            new &= ~among(rows["digest"], self._ignored) | (rows["decoder"] != FORMER)
        if not new.all():
            rows, slots = rows[new], slots[new]
        self._held.append(Held(table.tensors_id, self._renderings[table.tensors_id], rows, slots))
        self._seen[table.tensors_id] = np.union1d(seen, slots)


def newest_first(cache: Path) -> Iterable[Cache]:
    """Snapshots on disk. A damaged former one is passed over: what it knew is rendered again."""
    for name in reversed(snapshot_names(cache)):
        try:
            opened = open_cache(cache, name)
        except (IntegrityError, NotFoundError):
            continue
        with opened:
            yield opened


def in_force_then_newest(cache: Path, previous: Cache) -> Iterator[Cache]:
    """The snapshot in force, then the others: after a rollback the newest one is not the one in force."""
    yield previous
    for snapshot in newest_first(cache):
        if snapshot.snapshot.name != previous.snapshot.name:
            yield snapshot


def _stored(snapshot: Cache, table: SplitTable) -> Rendering:
    split = next(name for name, other in snapshot.splits.items() if other is table)
    return stored_rendering(snapshot.tensors(split).attributes)
