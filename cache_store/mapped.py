"""A file mapped for reading without keeping a descriptor open.

Python's `mmap` (before 3.13's `trackfd=False`) duplicates the descriptor for as long as the map lives, so that
a few hundred shards exhaust the usual `ulimit -n`. The system call itself needs the descriptor only once.
"""

import ctypes
import os
import weakref
from pathlib import Path

import numpy as np

_PROT_READ = 1
_MAP_SHARED = 1
_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]


def map_file(path: Path) -> np.ndarray:
    """Map a whole file: uint8 (bytes,), read-only, a view. Unmapped when the last array over it dies.

    A file that is cut while it is mapped kills the process that touches the lost part (SIGBUS).

    Raises
    ------
    OSError : the file cannot be opened or mapped
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang us
    try:
        size = os.fstat(fd).st_size
        if size == 0:
            return np.zeros(0, np.uint8)
        address = _libc.mmap(None, size, _PROT_READ, _MAP_SHARED, fd, 0)
    finally:
        os.close(fd)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    buffer = (ctypes.c_ubyte * size).from_address(address)
    # Not at exit: what still reads then (another thread, a later exit handler) would be killed by SIGSEGV.
    weakref.finalize(buffer, _libc.munmap, address, size).atexit = False
    return np.frombuffer(memoryview(buffer).toreadonly(), np.uint8)  # nobody can make this array writable again
