import errno
import os
import subprocess
import sys

import numpy as np
import pytest

from cache_store import durable
from cache_store.durable import AppendFile
from cache_store.errors import CacheStoreError, IntegrityError, StorageError
from tests.unit.cache_store.stores import OsSpy, failing


class ShortWrites(OsSpy):
    """Writes a random part of what is asked, as a nearly full disk or a signal does; checks the system's limit."""

    def __init__(self, longest):
        super().__init__()
        self.longest, self.random, self.asked = longest, np.random.default_rng(0), []

    def writev(self, fd, views):
        assert len(views) <= os.sysconf("SC_IOV_MAX")
        self.asked.append(len(views))
        data = b"".join(views)
        return os.write(fd, data[: self.random.integers(1, min(self.longest, len(data)) + 1)])


@pytest.mark.parametrize("longest", [1, 7, 5000])
def test_short_writes_are_continued(tmp_path, monkeypatch, longest):
    monkeypatch.setattr(durable, "os", ShortWrites(longest))
    parts = [bytes([n % 251]) * (n % 5) for n in range(1500 if longest > 1 else 300)]

    with AppendFile(tmp_path / "file") as file:
        file.write(parts)
        file.write([b"", b"end"])

    assert (tmp_path / "file").read_bytes() == b"".join(parts) + b"end"
    assert file.size_bytes == len(b"".join(parts)) + 3


def test_more_parts_than_the_system_takes_at_once_are_split(tmp_path, monkeypatch):
    spy = ShortWrites(10**9)
    monkeypatch.setattr(durable, "os", spy)

    with AppendFile(tmp_path / "file") as file:
        file.write([b"ab"] * 5000)

    assert max(spy.asked) == 1024
    assert (tmp_path / "file").read_bytes() == b"ab" * 5000


def test_arrays_are_written_as_they_lie_in_memory(tmp_path):
    array = np.arange(12, dtype=np.float16).reshape(3, 4)

    durable.write_file(tmp_path / "file", array)

    assert (tmp_path / "file").read_bytes() == array.tobytes()


@pytest.mark.parametrize("data", [b"", np.zeros(0, np.uint8)])
def test_nothing_can_be_written(tmp_path, data):
    durable.write_file(tmp_path / "file", data)

    assert (tmp_path / "file").read_bytes() == b""


def test_write_without_progress_ends(tmp_path, monkeypatch):
    spy = OsSpy()
    spy.writev = lambda *_: 0
    monkeypatch.setattr(durable, "os", spy)

    with pytest.raises(StorageError, match="medium failed"):
        durable.write_file(tmp_path / "file", b"data")


def test_file_that_exists_is_not_written_over(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")

    with pytest.raises(StorageError) as caught:
        durable.write_file(tmp_path / "file", b"other")

    assert caught.value.errno == errno.EEXIST
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_exception_in_a_with_block_removes_the_file(tmp_path):
    def write():
        with AppendFile(tmp_path / "file") as file:
            file.write([b"data"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()

    assert list(tmp_path.iterdir()) == []


def test_discard_removes_the_file_even_if_it_cannot_be_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "os", OsSpy(failing("close", errno.EIO)))
    file = AppendFile(tmp_path / "file")

    file.discard()
    file.discard()

    assert list(tmp_path.iterdir()) == []


def test_descriptor_is_not_inherited(tmp_path):
    with AppendFile(tmp_path / "file") as file:
        assert not os.get_inheritable(file._fd)


WAY_OUT = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "quota is used up: free some space",
    errno.EFBIG: "ulimit -f",
    errno.EACCES: "permission denied: check the owner",
    errno.EPERM: "not permitted: check the owner",
    errno.EROFS: "mounted read-only",
    errno.EIO: "check the disk",
    errno.ENAMETOOLONG: "File name too long",
}


@pytest.mark.parametrize("number", WAY_OUT)
@pytest.mark.parametrize(
    ("call", "act", "says"),
    [
        ("open", lambda path: durable.write_file(path, b"data"), "cannot create "),
        ("writev", lambda path: durable.write_file(path, b"data"), "cannot write "),
        ("close", lambda path: durable.write_file(path, b"data"), "cannot close "),
        ("fsync", lambda path: durable.write_file(path, b"data", flush=True), "cannot flush "),
        ("rename", lambda path: durable.rename(path.parent / "old", path), "cannot rename to "),
        ("unlink", durable.remove_file, "cannot remove "),
        ("mkdir", durable.make_dir, "cannot create folder "),
    ],
)
def test_refusal_names_the_file_and_the_way_out(tmp_path, monkeypatch, number, call, act, says):
    (tmp_path / "old").write_bytes(b"")
    path = tmp_path / "new"
    monkeypatch.setattr(durable, "os", OsSpy(failing(call, number)))

    with pytest.raises(StorageError) as caught:
        act(path)

    assert str(caught.value).startswith(f"{says}{str(path)!r}: ")
    assert WAY_OUT[number] in str(caught.value)
    assert caught.value.errno == number
    assert caught.value.exit_code == 7
    assert isinstance(caught.value.__cause__, OSError)


def test_real_size_limit_ends_in_a_storage_error_and_no_file(tmp_path):
    script = """
import resource, sys
from pathlib import Path
from cache_store.durable import write_file
from cache_store.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_file(Path(sys.argv[1]), bytes(5000))
except StorageError as error:
    print(error)
"""
    shown = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "file")], capture_output=True, text=True, check=True
    )

    assert "ulimit -f" in shown.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, IntegrityError),
        (errno.EISDIR, IntegrityError),
        (errno.EIO, IntegrityError),
        (errno.EACCES, StorageError),
        (errno.EMFILE, StorageError),
        (errno.ENOMEM, StorageError),
    ],
)
def test_failed_read_is_damage_only_if_the_file_is_to_blame(number, kind):
    error = durable.read_error("shard 7", "/cache/c.7.0.0.0", OSError(number, os.strerror(number)))

    assert type(error) is kind
    assert ("shard 7" if kind is IntegrityError else "/cache/c.7.0.0.0") in str(error)


# -- replace_file ------------------------------------------------------------------------------------------------------


def replace(path, data):
    durable.replace_file(path, data, path.parent / "scratch" / "part")


@pytest.fixture
def path(tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "file").write_bytes(b"old")
    return tmp_path / "file"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("ever_since", [False, True], ids=["once", "persistently"])
def test_whichever_call_fails_the_file_is_old_or_new(path, monkeypatch, after, ever_since):
    counter = OsSpy()
    monkeypatch.setattr(durable, "os", counter)
    replace(path, b"old")
    outcomes = []
    for chosen in range(counter.count):

        def fail(_call, _path, number, chosen=chosen):
            return OSError(errno.EIO, "") if number == chosen or (ever_since and number > chosen) else None

        monkeypatch.setattr(durable, "os", OsSpy(fail, after))
        try:
            replace(path, b"new!")
            raised = False
        except StorageError:
            raised = True
        monkeypatch.setattr(durable, "os", os)
        outcomes.append((raised, path.read_bytes()))
        replace(path, b"old")  # nothing that a failure leaves behind is in the way

    assert set(outcomes) <= {(True, b"old"), (True, b"new!"), (False, b"new!")}
    assert {(True, b"old"), (True, b"new!")} <= set(outcomes)
    assert len(outcomes) > 8


def test_replacement_is_written_flushed_renamed_and_its_folder_flushed(path, monkeypatch):
    spy = OsSpy()
    monkeypatch.setattr(durable, "os", spy)

    replace(path, b"new")

    scratch = str(path.parent / "scratch" / "part")
    assert [entry for entry in spy.log if entry[0] in ("writev", "fsync", "rename from", "rename")] == [
        ("writev", scratch),
        ("fsync", scratch),
        ("rename from", scratch),
        ("rename", str(path)),
        ("fsync", str(path.parent)),
    ]


def test_what_a_killed_predecessor_left_is_overwritten(path):
    (path.parent / "scratch" / "part").write_bytes(b"longer than the new content")

    replace(path, b"new")

    assert path.read_bytes() == b"new"
    assert list((path.parent / "scratch").iterdir()) == []


def test_open_file_keeps_its_old_content(path):
    with open(path, "rb") as file:
        replace(path, b"new")

        assert file.read() == b"old"


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_file_system_that_cannot_flush_folders_is_taken_as_it_is(path, monkeypatch, number):
    monkeypatch.setattr(durable, "os", OsSpy(failing("fsync", number, path.parent.name)))

    replace(path, b"new")

    assert path.read_bytes() == b"new"


def test_folder_that_fails_to_flush_is_an_error(path, monkeypatch):
    monkeypatch.setattr(durable, "os", OsSpy(failing("fsync", errno.EIO, path.parent.name)))

    with pytest.raises(StorageError):
        replace(path, b"new")


def test_folder_may_exist_but_nothing_else_in_its_place(tmp_path):
    durable.make_dir(tmp_path / "folder")
    durable.make_dir(tmp_path / "folder")
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError):
        durable.make_dir(tmp_path / "folder", exist_ok=False)
    with pytest.raises(StorageError):
        durable.make_dir(tmp_path / "file")


def test_removing_what_is_gone_is_fine(tmp_path):
    durable.remove_file(tmp_path / "nothing")
    durable.remove_tree(tmp_path / "nothing")


def test_tree_is_removed_whole(tmp_path):
    (tmp_path / "tree" / "deep").mkdir(parents=True)
    (tmp_path / "tree" / "deep" / "file").write_bytes(b"")

    durable.remove_tree(tmp_path / "tree")

    assert list(tmp_path.iterdir()) == []


def test_start_of_writeback_changes_nothing_and_never_fails(tmp_path):
    (tmp_path / "file").write_bytes(b"data")

    durable.start_writeback(tmp_path / "file")
    durable.start_writeback(tmp_path / "nothing")

    assert (tmp_path / "file").read_bytes() == b"data"


def test_translation_leaves_our_own_errors_alone(tmp_path):
    @durable.translated("outer", tmp_path)
    @durable.translated("inner", tmp_path)
    def act():
        raise OSError(errno.ENOSPC, "")

    with pytest.raises(CacheStoreError) as caught:
        act()

    assert "cannot inner" in str(caught.value)
