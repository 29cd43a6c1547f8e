"""Where the chunks of a tensors' slots are: in mapped shards, or in files that are read.

Both kinds keep a table with one entry a slot, so that a batch costs one look-up for all its samples, and a bounded
set of open shards, of which the least recently used go first.
"""

import ctypes
import os
import resource
import weakref
from abc import ABC, abstractmethod
from itertools import repeat
from typing import Any

import numpy as np

from cache_store.durable import read_error
from cache_store.errors import REPAIR, IntegrityError
from cache_store.reader import MAX_MAPS, TensorReader
from cache_store.shard import OPEN_FLAGS, index_of

_NOWHERE = -1
_UNKNOWN = 0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_WILLNEED = 3


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
    function = getattr(library, name)
    function.argtypes, function.restype = arguments, result
    return function


_MEMCPY = ("memcpy", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_copy_side_by_side = _function(ctypes.CDLL(None), *_MEMCPY)  # leaves the interpreter to other threads
_copy_at_once = _function(ctypes.PyDLL(None), *_MEMCPY)  # does not, and costs half as much to call
_advise = _function(ctypes.CDLL(None), "madvise", ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


class Shards(ABC):
    """A table with an entry for each slot, and which shards are open. All but `locate` may be called side by side.

    Parameters
    ----------
    reader : of the tensors
    slots : one more than the largest slot that will be asked for
    most : shards open at once: slots of no more may be located together
    """

    def __init__(self, reader: TensorReader, slots: int, most: int) -> None:
        self.reader, self.most = reader, most
        shards = -(-slots // reader.slots)
        self._places = np.zeros(shards * reader.slots, np.int64)
        self._used = np.zeros(shards, np.int64)
        self._open: dict[int, Any] = {}
        self._tick = 0

    def locate(self, slots: np.ndarray) -> np.ndarray:
        """Where the chunk of each slot is, its shard open until the next call: int64 (n,).

        Raises
        ------
        IntegrityError : missing file or chunk, wrong index
        StorageError : the system refused
        """
        shards = slots // self.reader.slots
        self._tick += 1
        self._used[shards] = self._tick
        places = self._places[slots]
        if places.min(initial=1) <= _UNKNOWN:
            for shard in np.unique(shards[places == _UNKNOWN]).tolist():
                self._make_room()
                start = shard * self.reader.slots
                self._open[shard], found = self._open_shard(shard)
                self._places[start : start + self.reader.slots] = found
            places = self._places[slots]
            if places.min(initial=1) <= _UNKNOWN:
                slot = int(slots[int(np.argmin(places))])
                raise IntegrityError(f"{self.reader.where(slot // self.reader.slots)}: slot {slot} is empty; {REPAIR}")
        return places

    def _make_room(self) -> None:
        while len(self._open) >= self.most:  # never one of this batch's: they were used just now
            oldest = min(self._open, key=lambda number: int(self._used[number]))
            self._places[oldest * self.reader.slots : (oldest + 1) * self.reader.slots] = _UNKNOWN
            del self._open[oldest]

    @abstractmethod
    def _open_shard(self, shard: int) -> tuple[Any, np.ndarray]:
        """What keeps a shard open, and the place of each of its slots: int64 (S,)."""

    @abstractmethod
    def ask(self, slots: np.ndarray, places: np.ndarray) -> None:
        """Have the kernel read these chunks, without waiting for them."""

    @abstractmethod
    def copy(self, slots: np.ndarray, places: np.ndarray, rows: np.ndarray, *, alone: bool) -> None:
        """Copy whole chunks into the rows of uint8 (n, bytes); `alone`: no other thread copies beside this one."""

    @abstractmethod
    def chunk(self, slot: int, place: int, scratch: np.ndarray) -> np.ndarray:
        """One chunk, (C, H, W): read-only, a view of the map or of `scratch`, uint8 (bytes,)."""


class MappedShards(Shards):
    """Chunks in mapped shards; a place is an address."""

    def __init__(self, reader: TensorReader, slots: int, most: int = MAX_MAPS) -> None:
        super().__init__(reader, slots, most)

    def _open_shard(self, shard: int) -> tuple[Any, np.ndarray]:
        data, offsets = self.reader.map_shard(shard)
        base = data.ctypes.data
        return (data, base), np.where(offsets < 0, _NOWHERE, base + offsets)

    def ask(self, slots: np.ndarray, places: np.ndarray) -> None:
        size = self.reader.chunk_bytes
        starts = places // _PAGE * _PAGE
        for start, length in zip(starts.tolist(), (places + size - starts).tolist(), strict=True):
            _advise(start, length, _WILLNEED)  # advice: where it is refused, reading only waits

    def copy(self, slots: np.ndarray, places: np.ndarray, rows: np.ndarray, *, alone: bool) -> None:
        size, start = self.reader.chunk_bytes, rows.ctypes.data
        targets = range(start, start + len(places) * size, size)
        for _ in map(_copy_at_once if alone else _copy_side_by_side, targets, places.tolist(), repeat(size)):
            pass

    def chunk(self, slot: int, place: int, scratch: np.ndarray) -> np.ndarray:
        data, base = self._open[slot // self.reader.slots]
        return np.ndarray(self.reader.shape, self.reader.dtype, data, place - base)


class _Descriptor:
    """An open file; closed when the last reference goes."""

    def __init__(self, path: os.PathLike[str]) -> None:
        self.number = os.open(path, OPEN_FLAGS)
        weakref.finalize(self, os.close, self.number)


class FileShards(Shards):
    """Chunks read by `pread`, for network file systems: a file that is cut there is an error, not a SIGBUS.

    A place is one more than an offset. At most a quarter of the descriptors that this process may have are held open.
    """

    def __init__(self, reader: TensorReader, slots: int, most: int | None = None) -> None:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        super().__init__(reader, slots, most or max(16, min(limit // 4, 4096)))

    def _open_shard(self, shard: int) -> tuple[Any, np.ndarray]:
        path, where = self.reader.shard_file(shard), self.reader.where(shard)
        self.reader.attend()
        try:
            file = _Descriptor(path)
            offsets = index_of(file.number, self.reader.slots, self.reader.chunk_bytes, where)
        except OSError as error:
            raise read_error(where, path, error) from error
        return file, np.where(offsets < 0, _NOWHERE, offsets + 1)

    def ask(self, slots: np.ndarray, places: np.ndarray) -> None:
        size = self.reader.chunk_bytes
        for shard, place in zip((slots // self.reader.slots).tolist(), places.tolist(), strict=True):
            will_need(self._open[shard].number, place - 1, size)

    def copy(self, slots: np.ndarray, places: np.ndarray, rows: np.ndarray, *, alone: bool) -> None:
        for slot, place, row in zip(slots.tolist(), places.tolist(), rows, strict=True):
            self._read(slot, place, row)

    def _read(self, slot: int, place: int, row: np.ndarray) -> None:
        shard = slot // self.reader.slots
        done = 0
        try:
            while done < len(row):
                count = os.preadv(self._open[shard].number, [row[done:]], place - 1 + done)
                if count == 0:
                    raise IntegrityError(f"{self.reader.where(shard)}: slot {slot} is cut after {done} bytes; {REPAIR}")
                done += count
        except OSError as error:
            raise read_error(self.reader.where(shard), self.reader.shard_file(shard), error) from error

    def chunk(self, slot: int, place: int, scratch: np.ndarray) -> np.ndarray:
        self._read(slot, place, scratch)
        return scratch.view(self.reader.dtype).reshape(self.reader.shape)


def will_need(descriptor: int, offset: int, size: int) -> None:
    """Have the kernel read a part of a file, without waiting for it."""
    if hasattr(os, "posix_fadvise"):  # macOS has none
        os.posix_fadvise(descriptor, offset, size, os.POSIX_FADV_WILLNEED)
