"""Reading a source: whole, unchanged, or a failure of this file alone."""

import errno
import os

import pytest

from preprocess import read
from preprocess.errors import SourceError
from preprocess.read import read_source
from preprocess.scan import stat_of


def test_a_file_comes_with_the_stat_that_it_was_read_under(tmp_path):
    (tmp_path / "a").write_bytes(b"some bytes")

    data, numbers = read_source(os.fsencode(tmp_path / "a"))

    assert data == b"some bytes"
    assert numbers == stat_of(os.stat(tmp_path / "a"))


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "Permission denied"),
        (errno.EIO, "Input/output error"),
        (errno.ESTALE, "Stale file handle"),
        (errno.ENOENT, "No such file"),
        (errno.ELOOP, "symbolic links"),
    ],
)
def test_a_refused_open_is_the_files_failure(tmp_path, monkeypatch, number, reason):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(read.os, "open", refuse)

    with pytest.raises(SourceError, match=reason) as caught:
        read_source(b"any")

    assert caught.value.stage == "read"


def _failing_open(monkeypatch, after_bytes):
    """`open` whose files fail with EIO, as a bad sector does."""

    class Failing:
        def __init__(self, fd, *_, **__):
            self._fd = fd

        def readall(self):
            os.read(self._fd, after_bytes)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(read, "open", Failing, raising=False)


def test_a_failing_medium_is_the_files_failure_and_leaks_no_descriptor(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"some bytes")
    _failing_open(monkeypatch, 4)
    closed = []
    close = os.close
    monkeypatch.setattr(read.os, "close", lambda fd: (closed.append(fd), close(fd)))

    with pytest.raises(SourceError, match="Input/output error"):
        read_source(os.fsencode(tmp_path / "a"))

    assert len(closed) == 1


@pytest.mark.parametrize("change", ["grows", "is cut", "is rewritten"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, change):
    path = tmp_path / "a"
    path.write_bytes(b"some bytes")
    fstat, calls = os.fstat, []

    def fstat_then_change(fd):
        calls.append(fd)
        if len(calls) == 2:  # the read is over; an edit shows in the second look
            if change == "grows":
                path.write_bytes(b"some bytes and more")
            elif change == "is cut":
                os.truncate(path, 3)
            else:
                path.write_bytes(b"same bytes")
                os.utime(path, ns=(1, 1))
        return fstat(fd)

    monkeypatch.setattr(read.os, "fstat", fstat_then_change)

    with pytest.raises(SourceError, match="changed while it was read"):
        read_source(os.fsencode(path))


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")

    with pytest.raises(SourceError, match="not a regular file"):
        read_source(os.fsencode(tmp_path / "a.jpg"))


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="not a regular file|Is a directory"):
        read_source(os.fsencode(tmp_path))
