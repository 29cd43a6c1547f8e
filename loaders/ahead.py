"""Asks the kernel to read shards before their samples are needed, while they are not in memory yet.

A cache that is larger than memory then streams: the disk reads whole shards in the order in which they are needed,
while batches are copied out of those that have arrived. Nothing is asked for shards that are in memory, so that a
warm epoch pays a few system calls a shard.
"""

import os
import threading

import numpy as np

from cache_store.errors import CacheStoreError
from cache_store.reader import TensorReader
from cache_store.shard import OPEN_FLAGS, index_of
from loaders.background import Background
from loaders.shards import will_need

AHEAD_BYTES = 256 << 20
"""How far before its first sample a shard is asked for: what a fast disk reads while a few batches are trained on."""

_PROBES = 8
_MERGED_GAP_BYTES = 1 << 20
"""Chunks this close are read as one: skipping so little costs a disk more than reading it."""


class ReadAhead:
    """Follows one pass over an order of samples, in a thread of its own; whatever fails there only makes reading slow.

    Parameters
    ----------
    reader : of the tensors
    slots : of each sample, in the order in which they will be asked for: int64 (n,)
    """

    def __init__(self, reader: TensorReader, slots: np.ndarray) -> None:
        self._reader, self._slots = reader, slots
        self._reached = 0
        self._over = False
        self._changed = threading.Condition()
        self._thread = Background("decant-ahead", self._follow, self.close)

    def reach(self, position: int) -> None:
        """Samples up to `position` have been handed out."""
        with self._changed:
            self._reached = position
            self._changed.notify()

    def close(self) -> None:
        """End the thread, as soon as it returns from what it does."""
        with self._changed:
            self._over = True
            self._changed.notify()

    def _follow(self) -> None:
        reader = self._reader
        ahead = max(1, AHEAD_BYTES // reader.chunk_bytes)
        for first, shard, wanted in _by_first_use(self._slots, reader.slots):
            with self._changed:
                self._changed.wait_for(lambda first=first: self._over or first < self._reached + ahead)  # type: ignore[misc]
                if self._over:
                    return
            try:
                ask_for(reader, shard, wanted)
            except (OSError, CacheStoreError):
                continue  # the batch that needs it will say what is wrong


def _by_first_use(slots: np.ndarray, slots_a_shard: int) -> list[tuple[int, int, np.ndarray]]:
    """For each shard, in order of its first use: the position of that, its number, and the places in it, sorted."""
    if not len(slots):
        return []
    shards = slots // slots_a_shard
    order = np.argsort(shards, kind="stable")  # stable: the first of each shard is its first use
    edges = np.flatnonzero(np.diff(shards[order], prepend=-1))
    groups = np.split(order, edges[1:])
    found = [(int(group[0]), int(shards[group[0]]), np.sort(slots[group] % slots_a_shard)) for group in groups]
    return sorted(found, key=lambda entry: entry[0])


def ask_for(reader: TensorReader, shard: int, places: np.ndarray) -> int:
    """Have the kernel read the chunks at some places of a shard; returns the bytes asked for, 0 if they are in memory.

    Raises
    ------
    OSError : the file cannot be opened or read
    IntegrityError : its index is wrong
    """
    descriptor = os.open(reader.shard_file(shard), OPEN_FLAGS)
    try:
        offsets = index_of(descriptor, reader.slots, reader.chunk_bytes, reader.where(shard))
        starts = np.sort(offsets[places])
        starts = starts[starts >= 0]
        if not len(starts) or _in_memory(descriptor, starts, reader.chunk_bytes):
            return 0
        ends = starts + reader.chunk_bytes
        breaks = np.flatnonzero(starts[1:] - ends[:-1] > _MERGED_GAP_BYTES)
        ranges = zip(starts[[0, *(breaks + 1)]].tolist(), ends[[*breaks, -1]].tolist(), strict=True)
        asked = 0
        for start, end in ranges:
            will_need(descriptor, start, end - start)
            asked += end - start
        return asked
    finally:
        os.close(descriptor)


def _in_memory(descriptor: int, starts: np.ndarray, size: int) -> bool:
    """Whether the kernel has a few pages of these chunks: reading a byte of each without waiting tells."""
    if not hasattr(os, "RWF_NOWAIT"):
        return False
    byte = bytearray(1)
    step = max(1, len(starts) // _PROBES)
    try:
        for start in [*starts[::step].tolist(), int(starts[-1]) + size - 1]:
            os.preadv(descriptor, [byte], start, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return False  # a file system that cannot tell: asking once too often costs little
    return True
