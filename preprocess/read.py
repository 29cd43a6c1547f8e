"""All bytes of one source, and the stat that they were read under."""

import contextlib
import os
import stat
from collections.abc import Iterator

from preprocess.errors import SourceError
from preprocess.scan import stat_of


def read_source(path: bytes) -> tuple[bytes, tuple[int, int, int, int]]:
    """All bytes of a file, and the stat that they were read under.

    Raises
    ------
    SourceError : stage 'read': missing, forbidden, not a regular file, failing medium, or changed meanwhile
    """
    with _reported():
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang us
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise SourceError("read", "not a regular file")
            with open(fd, "rb", buffering=0, closefd=False) as file:
                data = file.readall()
            after = os.fstat(fd)
        finally:
            os.close(fd)
    numbers = stat_of(before)
    if numbers != stat_of(after) or len(data) != before.st_size:
        raise SourceError("read", "the file changed while it was read")
    return data, numbers


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceError("read", error.strerror or str(error)) from error
