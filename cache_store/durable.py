"""The only module that puts bytes on disk: write, flush, replace, rename, remove.

Every refusal of the system becomes a `StorageError` that names the file and the way out. A `flush` that
failed is never tried again on the same file: Linux drops the dirty pages and reports success the second
time, so the caller has to write the file anew.
"""

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cache_store.errors import REPAIR, CacheStoreError, IntegrityError, StorageError

Part = bytes | bytearray | memoryview | Any
"""Anything with a contiguous buffer, an ndarray included."""

_MAX_PARTS = 1024  # IOV_MAX of Linux and macOS: writev takes no more

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the same command again",
    errno.EFBIG: "the file would exceed the size limit (ulimit -f): raise it and run the same command again",
    errno.EACCES: "permission denied: check the owner and mode of the folder",
    errno.EPERM: "not permitted: check the owner and mode of the folder",
    errno.EROFS: "the file system is mounted read-only",
    errno.EIO: "the medium failed to read or write: check the disk (dmesg)",
    errno.EMFILE: "this process has too many files open: raise the limit (ulimit -n)",
    errno.ENOTDIR: "a part of this path is a file, not a folder; name another path",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOMEM: "out of memory, or of maps (sysctl vm.max_map_count)",
}

_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENODEV, errno.ELOOP, errno.EIO}
"""How a read fails if what was committed is gone, is not a file any more, or lies on a failing medium."""

_NO_FOLDER_FLUSH = {errno.EINVAL, errno.ENOTSUP}  # CIFS and some FUSE file systems


def storage_error(action: str, path: str | os.PathLike[str], error: OSError) -> StorageError:
    """An OSError in our words: what was tried, on which file, why it failed, and what helps."""
    hint = _HINTS.get(error.errno or 0, error.strerror or str(error))
    parent = os.path.dirname(os.path.abspath(path))
    if error.errno == errno.ENOENT and not os.path.exists(parent):
        hint = f"there is no folder {parent!r}; create it first"
    return StorageError(error.errno or 0, f"cannot {action} {str(os.fspath(path))!r}: {hint}")


def read_error(where: str, path: str | os.PathLike[str], error: OSError) -> CacheStoreError:
    """A failed read of something committed: damage (`where` opens the message), or a refusal of the system."""
    if error.errno in _DAMAGE:
        return IntegrityError(f"{where} cannot be read: {error.strerror}; {REPAIR}")
    return storage_error("read", path, error)


@contextlib.contextmanager
def translated(action: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an OSError raised inside the block into a StorageError about `path`."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise storage_error(action, path, error) from error


class AppendFile:
    """A new file that is written from front to back, unbuffered; nothing is flushed to the medium.

    `close` keeps it, `discard` removes it; leaving a `with` block by an exception discards.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        with translated("create", path):
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def write(self, parts: Sequence[Part]) -> None:
        """Append all parts in order; a short write (nearly full disk, signal) is continued."""
        views = [memoryview(part).cast("B") for part in parts]
        with translated("write", self.path):
            for start in range(0, len(views), _MAX_PARTS):
                self._write_all(views[start : start + _MAX_PARTS])

    def _write_all(self, views: list[memoryview]) -> None:
        while views:
            count = os.writev(self._fd, views)
            if count == 0 and any(view.nbytes for view in views):
                raise OSError(errno.EIO, os.strerror(errno.EIO))  # no progress and no reason: never wait for one
            self.size_bytes += count
            while views and count >= views[0].nbytes:
                count -= views.pop(0).nbytes
            if count:
                views[0] = views[0][count:]

    def close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            try:
                with translated("close", self.path):
                    os.close(fd)
            except StorageError:  # a network file system says only now that the disk is full
                self.discard()
                raise

    def discard(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            with contextlib.suppress(OSError):
                os.close(fd)
        with translated("remove", self.path), contextlib.suppress(FileNotFoundError):
            os.unlink(self.path)

    def __enter__(self) -> "AppendFile":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


def write_file(path: Path, data: Part, *, flush: bool = False) -> None:
    """Create `path` with `data`; the file must not exist. With `flush`, its bytes reach the medium."""
    with AppendFile(path) as file:
        file.write([data])
    if flush:
        flush_file(path)


def flush_file(path: Path) -> None:
    """fsync one file."""
    with translated("flush", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def forget(path: Path) -> None:
    """Flush one file and drop it from the kernel's memory: what is read next comes from the medium.

    After a failed fsync the kernel takes the lost pages for clean, and the next fsync succeeds; only reading from the
    medium shows that they never arrived. Where the kernel cannot be asked (macOS), the flush is all.
    """
    with translated("flush", path):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def flush_dir(path: Path) -> None:
    """fsync a folder: entries created, renamed or removed in it survive a power cut from now on.

    A file system that cannot flush folders orders such changes by itself, or not at all: nothing to be done.
    """
    try:
        flush_file(path)
    except StorageError as error:
        if error.errno not in _NO_FOLDER_FLUSH:
            raise


def replace_file(path: Path, data: Part, scratch: Path) -> None:
    """Replace `path` by `data` at once and durably: old content or new content, never a part.

    `scratch` is a path on the same file system; what a killed predecessor left there is overwritten.
    """
    with translated("remove", scratch), contextlib.suppress(FileNotFoundError):
        os.unlink(scratch)
    write_file(scratch, data, flush=True)
    rename(scratch, path)
    flush_dir(path.parent)


def rename(old: Path, new: Path) -> None:
    with translated("rename to", new):
        os.rename(old, new)


def make_dir(path: Path, *, exist_ok: bool = True) -> None:
    """Create a folder; its parent has to exist."""
    with translated("create folder", path):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not (exist_ok and path.is_dir()):
                raise


def remove_file(path: Path) -> None:
    """Remove a file; one that is already gone is fine."""
    with translated("remove", path), contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def remove_tree(path: Path) -> None:
    """Remove a folder and all in it; one that is already gone is fine."""
    if not path.exists():
        return
    with translated("remove", path):
        shutil.rmtree(path)


def start_writeback(path: Path) -> None:
    """Ask the kernel to start writing a file's dirty pages now, without waiting (Linux only, a hint).

    The commit's fsync then finds little left to do, while the processors went on rendering.
    """
    if sys.platform != "linux":
        return
    sync_file_range = _sync_file_range()
    if sync_file_range is None:
        return
    with contextlib.suppress(OSError):  # failure changes nothing: fsync follows anyway
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            sync_file_range(fd, 0, 0, 2)  # SYNC_FILE_RANGE_WRITE
        finally:
            os.close(fd)


def _sync_file_range() -> Any:
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if function is not None:
        function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return function
