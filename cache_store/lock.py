"""One builder at a time, and readers' leases on snapshots; both are freed by the system when a process dies.

flock belongs to the open file, not to the process: descriptors are opened non-inheritable, so that a worker
started by a builder never holds its lock.
"""

import errno
import fcntl
import json
import os
import socket
import time
import weakref
from pathlib import Path
from typing import NoReturn

from cache_store import layout
from cache_store.durable import storage_error, translated
from cache_store.errors import LockedError

_UNSUPPORTED = {errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS, errno.EINVAL}
_HELD = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}  # the last where flock is done by fcntl locks (NFS)
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


class BuildersLock:
    """Exclusive hold on a cache's `pending/`; a second builder gets LockedError at once.

    The file says who holds it, for the message only: what counts is the flock.
    """

    def __init__(self, cache: Path) -> None:
        self.path = layout.lock_file(cache)
        self._fd = -1

    def __enter__(self) -> "BuildersLock":
        with translated("open the lock", self.path):
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 4096, 0)
            os.close(fd)
            if error.errno in _UNSUPPORTED:
                raise LockedError(
                    f"the file system of {str(self.path.parent.parent)!r} does not support locks (flock); "
                    "build into a folder on a local disk and move the finished cache"
                ) from error
            if error.errno in _HELD:
                raise LockedError(_locked_message(self.path, holder)) from None
            raise storage_error("take the lock", self.path, error) from error
        try:
            with translated("write the lock", self.path):
                os.ftruncate(fd, 0)
                os.pwrite(fd, _holder(), 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return self

    def __exit__(self, *_: object) -> None:
        fd, self._fd = self._fd, -1
        os.close(fd)


def _holder() -> bytes:
    started = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "started": started}).encode()


def _locked_message(path: Path, holder: bytes) -> str:
    cache = str(path.parent.parent)
    try:
        who = json.loads(holder)
        by = f"process {who['pid']} on {who['host']}, started {who['started']}"
    except (ValueError, KeyError, TypeError):
        by = "another process"  # it has the lock, but has not written its name yet
    return f"another builder works on {cache!r}: {by}; wait until it is done, or stop it"


class Lease:
    """A reader's shared hold on a snapshot: gc skips what is leased. Freed by `close`, when the last reference to it
    goes, or when the process ends.

    A file system without flock gives no lease; reading works all the same.

    Raises
    ------
    FileNotFoundError : there is no such snapshot, or it was removed meanwhile
    BlockingIOError : it is being removed
    OSError : it cannot be opened
    """

    def __init__(self, cache: Path, snapshot: str) -> None:
        self._path = path = layout.snapshot_dir(cache, snapshot) / layout.METADATA
        self._fd = fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang us
        self._closer = weakref.finalize(self, os.close, fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                self.close()
                raise
        if os.fstat(fd).st_nlink == 0:  # gc removed it between our reading its name and our hold
            self.close()
            raise FileNotFoundError(errno.ENOENT, "snapshot was removed", str(path))

    @property
    def closed(self) -> bool:
        return not self._closer.alive

    def in_place(self) -> bool:
        """Whether the file that is held is still the one under its path; nothing is known once it is closed."""
        try:
            return self.closed or os.path.samestat(os.fstat(self._fd), os.stat(self._path))
        except OSError:  # removed, on this machine or on a server
            return False

    def close(self) -> None:
        self._closer()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a lease holds a descriptor of this process: open the cache again instead of copying it")


class Removal:
    """An exclusive hold on a snapshot that is about to be removed, for a `with` block: no reader gets a lease on it.

    The file is opened for writing, though nothing is written: NFS does flock by locks of fcntl, which grant an
    exclusive hold to writers only (flock(2)).

    Attributes
    ----------
    granted : False: somebody reads it, or nobody can tell
    """

    def __init__(self, cache: Path, snapshot: str) -> None:
        self._path = layout.snapshot_dir(cache, snapshot) / layout.METADATA
        self._fd = -1
        self.granted = True

    def __enter__(self) -> "Removal":
        try:
            self._fd = self._open(os.O_RDWR)
        except OSError:  # damaged: nobody can have opened it
            return self
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.granted = error.errno in _UNSUPPORTED  # then there are no leases
        return self

    def _open(self, mode: int) -> int:
        try:
            return os.open(self._path, mode | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            if mode == os.O_RDONLY or error.errno not in _NOT_WRITABLE:
                raise
            return self._open(os.O_RDONLY)

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
