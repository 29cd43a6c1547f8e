"""Which pages of files are in memory, and having the kernel forget them: what a cold measurement needs."""

import ctypes
import mmap
import os
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from cache_store.mapped import map_file

RESIDENT = 0.01
"""Files of which less than this part is in memory count as cold."""

_PATIENCE_S, _PAUSE_S = 1.0, 0.05


def resident(files: Iterable[Path]) -> float:
    """Which part of the files' pages is in memory, 0..1.

    Raises
    ------
    OSError : a file cannot be mapped, or the system does not tell
    """
    mincore = ctypes.CDLL(None, use_errno=True).mincore
    mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    inside = pages = 0
    for path in files:
        data = map_file(path)
        state = np.zeros(-(-len(data) // mmap.PAGESIZE), np.uint8)
        if len(data) and mincore(data.ctypes.data, len(data), state.ctypes.data):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
        inside += int((state & 1).sum())
        pages += len(state)
    return inside / pages if pages else 0.0


def forget(files: Iterable[Path]) -> float:
    """Have the kernel drop the files' pages from memory; their content stays as it is.

    Not promised: that it does. What somebody has mapped stays, and so does what lies in a file system without a disk.

    Returns
    -------
    which part is still there, 0..1; `RESIDENT` or more is not cold

    Raises
    ------
    OSError : a file cannot be opened, or the system does not tell or cannot drop
    """
    listed = list(files)
    if not hasattr(os, "posix_fadvise"):  # macOS
        raise OSError("this system has no posix_fadvise")
    ends = time.monotonic() + _PATIENCE_S
    while True:
        for path in listed:
            _drop(path)
        left = resident(listed)
        if left < RESIDENT or time.monotonic() >= ends:
            return left
        time.sleep(_PAUSE_S)  # pages on their way from the disk, such as those that were asked for ahead


def _drop(path: Path) -> None:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)  # what is not on disk yet cannot be forgotten
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)
