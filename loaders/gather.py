"""Gathers a batch out of mapped shards into one buffer.

Where each slot lies in memory is kept in a table: a batch costs one look-up for all its samples, and one memcpy each.
"""

import ctypes
import os
import threading
from itertools import repeat
from typing import Any

import numpy as np

from cache_store.errors import IntegrityError
from cache_store.reader import MAX_MAPS, TensorReader
from loaders.threads import THREADS

_THREADED_BYTES = 4 << 20
"""Smaller batches are copied by the calling thread alone: handing out work would cost more."""


def _memcpy(library: ctypes.CDLL) -> Any:
    function = library.memcpy
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    function.restype = None
    return function


_copy_side_by_side = _memcpy(ctypes.CDLL(None))  # leaves the interpreter to other threads
_copy_at_once = _memcpy(ctypes.PyDLL(None))  # does not, and costs half as much to call

# One lock for all: held while addresses are in use, so that nobody unmaps what another thread copies from; and over a
# fork, so that a child never inherits it locked.
_lock = threading.Lock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class Gatherer:
    """Copies chunks of one tensors' slots into batches.

    Parameters
    ----------
    reader : of the tensors
    slots : one more than the largest slot that will be asked for
    max_maps : shards mapped at once; the least recently used go first
    """

    def __init__(self, reader: TensorReader, slots: int, max_maps: int = MAX_MAPS) -> None:
        self._reader = reader
        self._max_maps = max_maps
        shards = -(-slots // reader.slots)
        self._addresses = np.zeros(shards * reader.slots, np.int64)  # 0: not mapped, -1: no chunk there
        self._used = np.zeros(shards, np.int64)
        self._maps: dict[int, np.ndarray] = {}
        self._tick = 0

    def gather(self, slots: np.ndarray, out: np.ndarray) -> None:
        """Copy the chunk of each slot into a row of `out`.

        Parameters
        ----------
        slots : int64 (n,)
        out : (n, C, H, W) of the stored type, C-contiguous

        Raises
        ------
        IntegrityError : missing file or chunk, or a wrong index
        """
        size, start = self._reader.chunk_bytes, out.ctypes.data
        with _lock:
            # In parts: no more shards at once than may be mapped.
            for first in range(0, len(slots), self._max_maps):
                sources = self._look_up(slots[first : first + self._max_maps]).tolist()
                base = start + first * size

                def copy(a: int, b: int, base: int = base, sources: list[int] = sources) -> None:
                    targets = range(base + a * size, base + b * size, size)
                    for _ in map(_copy_side_by_side, targets, sources[a:b], repeat(size)):
                        pass

                if len(sources) * size >= _THREADED_BYTES:
                    THREADS.over(len(sources), copy)
                else:
                    targets = range(base, base + len(sources) * size, size)
                    for _ in map(_copy_at_once, targets, sources, repeat(size)):
                        pass

    def _look_up(self, slots: np.ndarray) -> np.ndarray:
        """Address of each slot's chunk, its shard mapped."""
        shards = slots // self._reader.slots
        self._tick += 1
        self._used[shards] = self._tick
        addresses = self._addresses[slots]
        if addresses.min(initial=1) <= 0:
            for shard in np.unique(shards[addresses == 0]).tolist():
                self._map(shard)
            addresses = self._addresses[slots]
            if addresses.min(initial=1) <= 0:
                slot = int(slots[int(np.argmin(addresses))])
                where = f"shard {slot // self._reader.slots} of tensors {self._reader.tensors_id[:8]}"
                raise IntegrityError(f"{where}: slot {slot} is empty")
        return addresses

    def _map(self, shard: int) -> None:
        while len(self._maps) >= self._max_maps:  # never one of this batch's: they were used just now
            oldest = min(self._maps, key=lambda number: int(self._used[number]))
            self._addresses[oldest * self._reader.slots : (oldest + 1) * self._reader.slots] = 0
            del self._maps[oldest]
        data, offsets = self._reader.map_shard(shard)
        start = shard * self._reader.slots
        self._addresses[start : start + self._reader.slots] = np.where(offsets < 0, -1, data.ctypes.data + offsets)
        self._maps[shard] = data
