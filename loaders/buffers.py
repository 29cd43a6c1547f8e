"""Memory for batches, used again as soon as nobody can see it any more.

A fresh allocation of 77 MB costs more than copying a batch into it: the kernel clears every page first. Buffers are
anonymous private maps, so that a forked child never writes into its parent's batches; each goes back to the pool when
the last tensor, array or view over it is gone.
"""

import mmap
import os
import weakref
from collections import deque

import numpy as np

_HUGE_BYTES = 2 << 20
_FREE_BUFFERS = 4
"""Kept of each size: what `DataLoader`, a prefetching thread and the training step hold between them."""


class BufferPool:
    """Buffers by size; `take` may be interrupted by the return of a buffer, so returns only append to a deque."""

    def __init__(self) -> None:
        self._free: dict[int, deque[mmap.mmap]] = {}

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array of undefined content that owns its memory until the last view over it dies."""
        wanted = int(np.prod(shape)) * dtype.itemsize
        size = max(-(-wanted // _HUGE_BYTES) * _HUGE_BYTES if wanted >= _HUGE_BYTES else wanted, 1)
        free = self._free.setdefault(size, deque(maxlen=_FREE_BUFFERS))  # more than that are given back to the system
        try:
            buffer = free.pop()
        except IndexError:
            buffer = _map(size)
        array = np.ndarray(shape, dtype, buffer=buffer)
        weakref.finalize(array, free.append, buffer).atexit = False
        return array

    def clear(self) -> None:
        """Forget the free buffers."""
        self._free.clear()


def _map(size: int) -> mmap.mmap:
    buffer = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if size >= _HUGE_BYTES and hasattr(mmap, "MADV_HUGEPAGE"):
        buffer.madvise(mmap.MADV_HUGEPAGE)  # fewer page faults on first use, fewer address translations ever after
    return buffer


POOL = BufferPool()
os.register_at_fork(after_in_child=POOL.clear)
