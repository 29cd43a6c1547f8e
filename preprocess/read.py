"""All bytes of one source, or their digest, and the stat that they were read under."""

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from typing import BinaryIO, TypeVar

from cache_store.canonical import DIGEST_BYTES
from preprocess.errors import SourceError
from preprocess.report import in_units
from preprocess.scan import stat_of

T = TypeVar("T")

_BYTES_A_PIXEL = 16
"""Four channels of 32 bits: no format that is decoded takes more, uncompressed."""

_LEAST_BYTES = 256 << 20
"""For pictures under a low cap, with whatever else their files hold."""

_PIECE_BYTES = 1 << 20


def most_bytes(max_pixels: int) -> int:
    """The largest file that is read, for a cap on the pixels of a source."""
    return max(_LEAST_BYTES, _BYTES_A_PIXEL * max_pixels)


MOST_BYTES = most_bytes(179_000_000)
"""For the cap that a recipe has by default."""


def read_source(path: bytes, max_bytes: int = MOST_BYTES) -> tuple[bytes, tuple[int, int, int, int]]:
    """All bytes of a file, and the stat that they were read under.

    Parameters
    ----------
    max_bytes : a larger file is not read: it may be all holes, and memory is not

    Raises
    ------
    SourceError : stage 'read': missing, forbidden, not a regular file, too large, failing medium, or changed
        meanwhile; stage 'memory': too large for the memory that there is
    """
    # One byte more than there should be: a file that grows all the time is not followed.
    data, size, numbers = _read(path, max_bytes, lambda file, size: file.read(size + 1))
    if len(data) != size:
        raise SourceError("read", _CHANGED)
    return data, numbers


def hash_source(path: bytes, max_bytes: int = MOST_BYTES) -> tuple[bytes, tuple[int, int, int, int]]:
    """The digest of a file, read piece by piece, and the stat that it was read under; as `read_source` otherwise."""

    def digest(file: BinaryIO, size: int) -> bytes:
        # hashlib gives the interpreter to other threads while it works, and the same buffer serves all pieces.
        state, buffer, left = hashlib.blake2b(digest_size=DIGEST_BYTES), bytearray(min(size, _PIECE_BYTES) + 1), size
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            state.update(memoryview(buffer)[:count])
            left -= count
            if left < 0:
                break
        if left:
            raise SourceError("read", _CHANGED)
        return state.digest()

    found, _, numbers = _read(path, max_bytes, digest)
    return found, numbers


_CHANGED = "the file changed while it was read"


def _read(path: bytes, max_bytes: int, take: Callable[[BinaryIO, int], T]) -> tuple[T, int, tuple[int, int, int, int]]:
    """What `take` makes of an open file of so many bytes; the size; and the stat before, which is the one after."""
    with reported():
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang us
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise SourceError("read", "not a regular file")
            refuse_too_large(before.st_size, max_bytes)
            with open(fd, "rb", closefd=False) as file:
                taken = take(file, before.st_size)
            after = os.fstat(fd)
        finally:
            os.close(fd)
    numbers = stat_of(before)
    if numbers != stat_of(after):
        raise SourceError("read", _CHANGED)
    return taken, before.st_size, numbers


def refuse_too_large(size: int, max_bytes: int) -> None:
    """Raise SourceError for a file that is not to be read."""
    if size > max_bytes:
        raise SourceError(
            "read",
            f"the file has {in_units(size)}, over the cap of {in_units(max_bytes)}, which decode.max_megapixels raises",
        )


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """Refusals of the system as this file's failure."""
    try:
        yield
    except OSError as error:
        raise SourceError("read", error.strerror or str(error)) from error
    except MemoryError as error:
        raise SourceError("memory", "not enough memory to read it") from error
