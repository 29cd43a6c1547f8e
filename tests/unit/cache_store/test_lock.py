import contextlib
import copy
import errno
import fcntl
import gc
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time

import pytest

from cache_store import layout, lock
from cache_store.errors import LockedError, StorageError
from cache_store.lock import BuildersLock, Lease, Removal

HOLDER = """
import json, os, subprocess, sys, time
from pathlib import Path
from cache_store.lock import BuildersLock
with BuildersLock(Path(sys.argv[1])):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], close_fds=False)
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def cache(tmp_path):
    layout.pending_dir(tmp_path).mkdir()
    folder = layout.snapshot_dir(tmp_path, "000001")
    folder.mkdir(parents=True)
    (folder / layout.METADATA).write_bytes(b"{}")
    return tmp_path


@pytest.fixture
def holder(cache):
    """Another process that holds the builders' lock, and has started a process of its own meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(cache)], stdout=subprocess.PIPE, text=True)
    process.child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    process.stdout.close()
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.child, signal.SIGKILL)


def refuse(monkeypatch, number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "flock", flock)


def test_second_builder_is_told_who_holds_the_lock(cache, holder):
    with pytest.raises(LockedError) as caught:
        BuildersLock(cache).__enter__()

    started = json.loads(layout.lock_file(cache).read_bytes())["started"]
    assert repr(str(cache)) in str(caught.value)
    assert f"process {holder.pid} on {socket.gethostname()}, started {started}" in str(caught.value)
    assert abs(time.mktime(time.strptime(started[:19], "%Y-%m-%d %H:%M:%S")) - time.time()) < 60
    assert caught.value.exit_code == 5


def test_refusal_leaves_the_holder_named(cache, holder):
    for _ in range(2):
        with pytest.raises(LockedError, match=f"process {holder.pid} on"):
            BuildersLock(cache).__enter__()


def test_killed_holder_frees_the_lock_though_its_child_lives(cache, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    os.kill(holder.child, 0)  # lives on, and has inherited nothing
    with BuildersLock(cache):
        assert json.loads(layout.lock_file(cache).read_bytes())["pid"] == os.getpid()


def test_lock_is_free_after_the_with_block_even_after_an_exception(cache):
    for _ in range(2):
        with contextlib.suppress(ZeroDivisionError):
            with BuildersLock(cache):
                raise ZeroDivisionError
    with BuildersLock(cache):
        pass


def test_one_process_cannot_take_the_lock_twice(cache):
    with BuildersLock(cache):
        with pytest.raises(LockedError):
            BuildersLock(cache).__enter__()


@pytest.mark.parametrize("written", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff"])
def test_holder_that_has_not_written_its_name_is_another_process(cache, written):
    with BuildersLock(cache):
        layout.lock_file(cache).write_bytes(written)

        with pytest.raises(LockedError, match="another process; wait until it is done, or stop it"):
            BuildersLock(cache).__enter__()


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOLCK, errno.ENOSYS])
def test_file_system_without_locks_is_named_with_a_way_out(cache, monkeypatch, number):
    refuse(monkeypatch, number)

    with pytest.raises(LockedError, match="does not support locks .*build into a folder on a local disk"):
        BuildersLock(cache).__enter__()


def test_failing_medium_is_not_taken_for_another_builder(cache, monkeypatch):
    refuse(monkeypatch, errno.EIO)

    with pytest.raises(StorageError, match="cannot take the lock"):
        BuildersLock(cache).__enter__()


def test_full_disk_does_not_leave_the_lock_held(cache, monkeypatch):
    def pwrite(*_):
        raise OSError(errno.ENOSPC, "")

    with monkeypatch.context() as patched:
        patched.setattr(lock.os, "pwrite", pwrite)
        with pytest.raises(StorageError, match="disk is full"):
            BuildersLock(cache).__enter__()

    with BuildersLock(cache):
        pass


def test_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="cannot open the lock"):
        BuildersLock(tmp_path / "nothing").__enter__()


# -- leases ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def exclusive(cache):
    """What gc does before it removes a snapshot."""
    with open(layout.snapshot_dir(cache, "000001") / layout.METADATA, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def test_leased_snapshot_cannot_be_removed_until_its_last_reader_goes(cache):
    first, second = Lease(cache, "000001"), Lease(cache, "000001")

    first.close()
    with pytest.raises(BlockingIOError), exclusive(cache):
        pass
    second.close()
    with exclusive(cache):
        pass


def test_lease_of_another_process_counts_and_ends_with_it(cache):
    script = (
        "import sys, time; from pathlib import Path; from cache_store.lock import Lease\n"
        "lease = Lease(Path(sys.argv[1]), '000001'); print(flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(cache)], stdout=subprocess.PIPE) as reader:
        reader.stdout.readline()
        try:
            with pytest.raises(BlockingIOError), exclusive(cache):
                pass
        finally:
            reader.kill()
    with exclusive(cache):
        pass


def test_readers_get_no_lease_on_what_is_being_removed(cache):
    with exclusive(cache):
        with pytest.raises(BlockingIOError):
            Lease(cache, "000001")


def test_snapshot_that_vanishes_before_the_hold_is_not_found(cache, monkeypatch):
    real = fcntl.flock

    def flock(fd, how):
        (layout.snapshot_dir(cache, "000001") / layout.METADATA).unlink()
        real(fd, how)

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    before = len(os.listdir("/dev/fd"))

    with pytest.raises(FileNotFoundError):
        Lease(cache, "000001")

    assert len(os.listdir("/dev/fd")) == before


def test_snapshot_that_is_not_there_is_not_found(cache):
    with pytest.raises(FileNotFoundError):
        Lease(cache, "000002")


def test_file_system_without_locks_can_be_read_without_a_lease(cache, monkeypatch):
    refuse(monkeypatch, errno.ENOTSUP)

    lease = Lease(cache, "000001")

    assert not lease.closed
    lease.close()


def test_lock_that_fails_otherwise_is_an_error_and_leaves_no_descriptor(cache, monkeypatch):
    refuse(monkeypatch, errno.EIO)
    before = len(os.listdir("/dev/fd"))

    with pytest.raises(OSError, match="Input/output error"):
        Lease(cache, "000001")

    assert len(os.listdir("/dev/fd")) == before


def test_lease_can_be_closed_twice(cache):
    lease = Lease(cache, "000001")
    assert not lease.closed
    lease.close()
    assert lease.closed
    with open(os.devnull) as other:  # most likely has the number that the lease had
        lease.close()
        os.fstat(other.fileno())


def test_forgotten_lease_is_freed_with_its_last_reference(cache):
    lease = Lease(cache, "000001")
    del lease
    gc.collect()

    with exclusive(cache):
        pass


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_lease_cannot_be_copied(cache, duplicate):
    with pytest.raises(TypeError, match="open the cache again"):
        duplicate(Lease(cache, "000001"))


def test_lease_is_not_inherited_by_started_processes(cache):
    lease = Lease(cache, "000001")
    script = "import time; print(flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", script], close_fds=False, stdout=subprocess.PIPE)
    with child:
        child.stdout.readline()
        lease.close()
        try:
            with exclusive(cache):
                pass
        finally:
            child.kill()


def as_nfs_does(monkeypatch):
    """flock by fcntl's record locks: an exclusive one needs a descriptor that may write."""
    real = fcntl.flock

    def flock(fd, operation):
        if operation & fcntl.LOCK_EX and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_leased_snapshot_is_not_removed_on_nfs_either(cache, monkeypatch):
    as_nfs_does(monkeypatch)
    with Removal(cache, "000001") as hold:
        assert hold.granted
    lease = Lease(cache, "000001")
    with Removal(cache, "000001") as hold:
        assert not hold.granted
    lease.close()


def test_where_nobody_can_tell_nothing_is_removed(cache, monkeypatch):
    as_nfs_does(monkeypatch)
    monkeypatch.setattr(lock, "_NOT_WRITABLE", {errno.EACCES})
    real = os.open

    def refuse_writing(path, flags, *rest, **named):
        if flags & os.O_ACCMODE == os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", refuse_writing)
    with Removal(cache, "000001") as hold:
        assert not hold.granted
