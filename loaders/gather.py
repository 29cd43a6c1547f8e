"""Gathers a batch out of shards into one buffer: whole chunks or windows of them, as stored or converted."""

import os
import resource
import threading

import numpy as np
import torch

from cache_store.shard import checksum
from loaders.buffers import POOL
from loaders.convert import Convert
from loaders.memory import as_array
from loaders.shards import Shards
from loaders.threads import THREADS
from loaders.window import Cutter, Windows

THREADED_BYTES = 4 << 20
"""Smaller batches are copied by the calling thread alone: handing out work would cost more."""

_BLOCK_BYTES = 1 << 20
"""What is converted at once: small enough to be in the processor's cache still, and enough for few calls."""

# One lock for all: held while places are in use, so that nobody closes what another thread copies from; and over a
# fork, so that a child never inherits it locked.
_lock = threading.Lock()
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


class Gatherer:
    """Copies chunks into batches.

    Parameters
    ----------
    shards : where they are
    convert : from the stored to the wanted type; None: they are the same
    cutter : cuts windows; None: whole images
    """

    def __init__(self, shards: Shards, convert: Convert | None = None, cutter: Cutter | None = None) -> None:
        self._shards = shards
        self._convert = convert
        self._cutter = cutter
        reader = shards.reader
        self.shape = (reader.shape[0], *cutter.hw) if cutter is not None else reader.shape
        self._elements = int(np.prod(self.shape))
        self._bits = np.dtype(f"u{reader.dtype.itemsize}")
        self._reads = (-1, -1)

    def gather(self, slots: np.ndarray, images: torch.Tensor, windows: Windows | None = None) -> None:
        """Fill `images` with what is in `slots`.

        Parameters
        ----------
        slots : int64 (n,)
        images : (n, C, h, w), C-contiguous, of the wanted type
        windows : one a sample, if there is a cutter

        Raises
        ------
        IntegrityError : missing file or chunk, or a wrong index
        """
        with _lock:
            is_cold = self._is_cold()
            threaded = len(slots) * self._shards.reader.chunk_bytes >= THREADED_BYTES
            # In parts: no more shards at once than may be open.
            for first in range(0, len(slots), self._shards.most):
                part = slots[first : first + self._shards.most]
                places = self._shards.locate(part)
                if is_cold:
                    self._shards.ask(part, places)

                def work(a: int, b: int, places: np.ndarray = places, first: int = first) -> None:
                    mine = slice(first + a, first + b)
                    self._fill(slots[mine], places[a:b], images[mine], _part_of(windows, mine), alone=not threaded)

                if threaded:
                    THREADS.over(len(part), work)
                else:
                    work(0, len(part))

    def checksums(self, slots: np.ndarray) -> np.ndarray:
        """CRC32C of the chunk in each slot, as it is now: uint32 (n,).

        Raises
        ------
        IntegrityError : as `gather`
        """
        found = np.zeros(len(slots), np.uint32)
        with _lock:
            for first in range(0, len(slots), self._shards.most):
                places = self._shards.locate(slots[first : first + self._shards.most])

                def work(a: int, b: int, places: np.ndarray = places, first: int = first) -> None:
                    scratch = np.empty(self._shards.reader.chunk_bytes, np.uint8)
                    for i in range(a, b):
                        found[first + i] = checksum(self._shards.chunk(int(slots[first + i]), int(places[i]), scratch))

                THREADS.over(len(places), work)
        return found

    def where(self, slot: int) -> str:
        """The shard that a slot is in, for a message."""
        return self._shards.reader.where(slot // self._shards.reader.slots)

    def _fill(
        self, slots: np.ndarray, places: np.ndarray, images: torch.Tensor, windows: Windows | None, *, alone: bool
    ) -> None:
        if self._convert is None or not len(slots):
            self._store(slots, places, as_array(images).view(self._bits), windows, alone=alone)
            return
        rows = max(1, _BLOCK_BYTES // (self._elements * self._bits.itemsize))
        block = POOL.take((rows, *self.shape), self._bits)
        fill = self._convert(images)
        for first in range(0, len(slots), rows):
            part = slice(first, first + rows)
            stored = block[: len(slots) - first]
            self._store(slots[part], places[part], stored, _part_of(windows, part), alone=alone)
            fill(stored, first)

    def _store(
        self, slots: np.ndarray, places: np.ndarray, out: np.ndarray, windows: Windows | None, *, alone: bool
    ) -> None:
        """Chunks or windows of them, unconverted, into `out` (n, C, h, w), unsigned integers of their width."""
        if self._cutter is None or windows is None:
            rows = out.reshape(len(slots), self._elements).view(np.uint8)
            self._shards.copy(slots, places, rows, alone=alone)
            return
        scratch = POOL.take((self._shards.reader.chunk_bytes,), np.dtype(np.uint8))
        each = zip(
            slots.tolist(),
            places.tolist(),
            windows.top.tolist(),
            windows.left.tolist(),
            windows.mirrored.tolist(),
            out,
            strict=True,
        )
        for slot, place, top, left, mirrored, target in each:
            image = self._shards.chunk(slot, place, scratch).view(self._bits)
            self._cutter.cut(image, top, left, mirrored, target)

    def _is_cold(self) -> bool:
        """Whether this process had to read from a medium since the last batch.

        Asking the kernel ahead lets it read a whole batch side by side, but costs a third of a warm batch's time.
        """
        usage = resource.getrusage(resource.RUSAGE_SELF)
        former, self._reads = self._reads, (usage.ru_inblock, usage.ru_majflt)
        return former != self._reads


def _part_of(windows: Windows | None, part: slice) -> Windows | None:
    if windows is None:
        return None
    return Windows(windows.top[part], windows.left[part], windows.mirrored[part])
