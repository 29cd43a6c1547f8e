"""Reads files that may be anything: damaged, cut, enormous, a pipe. Never waits, never takes more memory than it says.

What was committed and cannot be read is damage (`Unreadable`); what this user may not read is a `StorageError`.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cache_store.canonical import DIGEST_BYTES
from cache_store.durable import storage_error
from cache_store.errors import REPAIR, IntegrityError

MOST_METADATA_BYTES = 64 << 20
"""Larger metadata is not ours: the largest is a snapshot's list of classes and files."""

MISSING = "missing"
"""What `Unreadable` says of a file that is not there."""

_BLOCK_BYTES = 1 << 20
_REFUSED = {errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class Unreadable(Exception):
    """A file that is missing, no file at all, cut while it was read, or on a failing medium; says which."""


class RegularFile:
    """A regular file opened for reading at given places.

    Attributes
    ----------
    size_bytes : when it was opened
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang us
            found = os.fstat(self._fd)
        except OSError as error:
            self.close()
            raise _sorted(path, error) from error
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise Unreadable("not a regular file")
        self.size_bytes = found.st_size

    def read_into(self, buffer: np.ndarray, offset: int) -> None:
        """Fill a uint8 buffer with the bytes from `offset` on."""
        done = 0
        while done < len(buffer):
            try:
                count = os.preadv(self._fd, [buffer[done:]], offset + done)
            except OSError as error:
                raise _sorted(self._path, error) from error
            if count == 0:
                raise Unreadable(f"cut after {offset + done} bytes")
            done += count

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> "RegularFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _sorted(path: Path, error: OSError) -> Exception:
    if error.errno in _REFUSED:
        return storage_error("read", path, error)
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Unreadable(MISSING)
    return Unreadable(f"cannot be read: {error.strerror}")


def read_metadata(path: Path) -> bytes:
    """All of a small file.

    Raises
    ------
    Unreadable : missing, no regular file, too large to be metadata, or on a failing medium
    StorageError : the system refused
    """
    with RegularFile(path) as file:
        if file.size_bytes > MOST_METADATA_BYTES:
            raise Unreadable(f"{file.size_bytes} bytes are more than any metadata of a cache")
        data = np.empty(file.size_bytes, np.uint8)
        file.read_into(data, 0)
        return data.tobytes()


def read_committed(path: Path, where: str) -> bytes:
    """All of a metadata file that a reader depends on; `where` opens the message if it cannot be had.

    Raises
    ------
    IntegrityError : as `Unreadable`
    StorageError : the system refused
    """
    try:
        return read_metadata(path)
    except Unreadable as error:
        raise IntegrityError(f"{where} cannot be read: {error}{_gone_with(path)}; {REPAIR}") from error


def _gone_with(path: Path) -> str:
    """The outermost folder that is missing with a file, in words: a cache that was moved is no damage to repair."""
    gone = path
    while not gone.parent.exists():
        gone = gone.parent
    return "" if gone == path else f", and so is {str(gone)!r} (was it moved or removed?)"


def file_digest(path: Path, count: Callable[[int], None] = lambda read_bytes: None) -> str:
    """Hex digest of a file of any size, in a fixed amount of memory; `count` is told of the bytes as they are read.

    Raises
    ------
    Unreadable, StorageError : as `read_metadata`
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    with RegularFile(path) as file:
        buffer = np.empty(min(_BLOCK_BYTES, file.size_bytes), np.uint8)
        for start in range(0, file.size_bytes, _BLOCK_BYTES):
            part = buffer[: min(_BLOCK_BYTES, file.size_bytes - start)]
            file.read_into(part, start)
            digest.update(part.data)
            count(len(part))
    return digest.hexdigest()


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder, by name; nothing if there is none.

    Raises
    ------
    StorageError : the system refused to list it
    """
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise storage_error("list", folder, error) from error
