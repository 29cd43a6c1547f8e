"""Reading a source: whole, unchanged, or a failure of this file alone."""

import errno
import os

import pytest

from cache_store.canonical import digest_of
from preprocess import read
from preprocess.errors import SourceError
from preprocess.read import hash_source, most_bytes, read_source
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

        def read(self, _):
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


@pytest.mark.parametrize("reading", [read_source, hash_source])
@pytest.mark.parametrize("change", ["grows", "is cut", "is rewritten"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, change, reading):
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
        reading(os.fsencode(path))


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")

    with pytest.raises(SourceError, match="not a regular file"):
        read_source(os.fsencode(tmp_path / "a.jpg"))


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="not a regular file|Is a directory"):
        read_source(os.fsencode(tmp_path))


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_a_digest_is_that_of_all_bytes(tmp_path, size):
    data = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "a").write_bytes(data[:size])

    assert hash_source(os.fsencode(tmp_path / "a")) == (
        digest_of(data[:size]),
        read_source(os.fsencode(tmp_path / "a"))[1],
    )


@pytest.mark.parametrize("reading", [read_source, hash_source])
def test_a_file_of_holes_is_refused_before_memory_is_taken_for_it(tmp_path, reading):
    with open(tmp_path / "a", "wb") as file:
        file.truncate(200 << 30)

    with pytest.raises(SourceError, match=r"has 200.0 GiB, over the cap of 2.7 GiB, which decode.max_megapixels") as e:
        reading(os.fsencode(tmp_path / "a"))

    assert e.value.stage == "read"


def test_the_cap_on_a_file_has_room_for_its_pixels_in_any_format():
    assert most_bytes(1) == 256 << 20
    assert most_bytes(10**9) == 16 * 10**9


@pytest.mark.parametrize("reading", [read_source, hash_source])
def test_a_file_that_grows_all_the_time_is_not_followed(tmp_path, monkeypatch, reading):
    """As a log that something writes under an image's name: more bytes at every read."""
    (tmp_path / "a").write_bytes(b"1234567")
    asked = []

    class Growing:
        def __init__(self, *_, **__):
            pass

        def read(self, count):
            asked.append(count)
            return b"x" * count

        def readinto(self, buffer):
            asked.append(len(buffer))
            return len(buffer)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(read, "open", Growing, raising=False)
    with pytest.raises(SourceError, match="changed while it was read"):
        reading(os.fsencode(tmp_path / "a"))

    assert asked == [8]


def test_memory_that_is_short_is_the_files_failure(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1234567")

    def short(*_, **__):
        raise MemoryError

    monkeypatch.setattr(read, "open", short, raising=False)
    with pytest.raises(SourceError, match="not enough memory to read it") as caught:
        read_source(os.fsencode(tmp_path / "a"))

    assert caught.value.stage == "memory"
