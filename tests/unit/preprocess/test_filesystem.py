"""What a cache asks of a file system is tried, and what fails is named."""

import errno
import fcntl
import mmap
import os
import subprocess
from pathlib import Path

import pytest

from cache_store import durable
from preprocess import filesystem
from preprocess.filesystem import TRIALS, mount_of, try_file_system


def failed(folder: Path) -> dict[str, str]:
    """Trials that fail, and why; nothing is left of them."""
    before = sorted(folder.rglob("*"))
    found = try_file_system(folder)
    assert sorted(folder.rglob("*")) == before
    assert list(found.trials) == [trial.name for trial in TRIALS]
    failures = {name: why for name, why in found.trials.items() if why}
    for name, why in failures.items():
        words = next(trial.words for trial in TRIALS if trial.name == name)
        assert any(problem.startswith(f"{words}: {why}, in {str(folder)!r}; ") for problem in found.problems())
    return failures


def refuse(number, wanted=lambda *_: True, otherwise=None):
    """A call of the system that is refused if its arguments are `wanted`."""

    def call(*arguments):
        if wanted(*arguments):
            raise OSError(number, os.strerror(number))
        return otherwise(*arguments)

    return call


def test_an_ordinary_folder_does_it_all(tmp_path):
    assert failed(tmp_path) == {}
    found = try_file_system(tmp_path)
    assert found.problems() == []
    assert found.read_only is None
    assert found.free_bytes > 0


@pytest.mark.parametrize("name", ["with spaces", "größer", os.fsdecode(b"\xff\xfe")])
def test_any_name_of_a_folder_will_do(tmp_path, name):
    (tmp_path / name).mkdir()
    assert failed(tmp_path / name) == {}


def test_a_rename_that_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "rename", refuse(errno.EPERM))
    assert set(failed(tmp_path)) == {"rename", "mmap"}


def test_a_rename_that_leaves_the_old_file(tmp_path, monkeypatch):
    monkeypatch.setattr(durable, "rename", lambda old, new: None)
    assert failed(tmp_path)["rename"] == "the old content is still there"


def test_locks_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    assert failed(tmp_path) == {"flock": os.strerror(errno.ENOLCK)}


def test_locks_that_do_not_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    assert failed(tmp_path) == {"flock": "two processes got the same lock"}


def test_locks_that_are_never_shared(tmp_path, monkeypatch):
    real = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda file, how: real(file, fcntl.LOCK_EX | fcntl.LOCK_NB))
    assert failed(tmp_path)["flock"].startswith("another process was told refused, refused, refused, granted; ")


def test_a_lock_service_that_does_not_answer(tmp_path, monkeypatch):
    def hang(command, **_):
        raise subprocess.TimeoutExpired(command, 30)

    monkeypatch.setattr(subprocess, "run", hang)
    assert failed(tmp_path) == {"flock": "no answer within 30 s"}


def test_maps_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(mmap, "mmap", refuse(errno.ENODEV))
    assert failed(tmp_path) == {"mmap": os.strerror(errno.ENODEV)}


def test_maps_that_change_with_the_name(tmp_path, monkeypatch):
    def overwrite(old, new):
        with open(new, "r+b") as file:
            file.write(Path(old).read_bytes())
        os.unlink(old)

    monkeypatch.setattr(os, "rename", overwrite)
    assert failed(tmp_path) == {"mmap": "a mapped file changes when its name goes to another file"}


@pytest.mark.parametrize(("name", "is_it"), [("fsync_folder", os.path.isdir), ("fsync_file", os.path.isfile)])
def test_flushing_that_is_refused(tmp_path, monkeypatch, name, is_it):
    def wanted(fd):
        return is_it(f"/proc/self/fd/{fd}")

    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL, wanted, os.fsync))
    found = failed(tmp_path)
    assert set(found) == {name}
    assert "Invalid argument" in found[name]


def test_nothing_is_left_behind_when_it_is_interrupted(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mmap, "mmap", interrupt)
    with pytest.raises(KeyboardInterrupt):
        try_file_system(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "mkdir", refuse(errno.EROFS))
    found = try_file_system(tmp_path)
    assert found.read_only == os.strerror(errno.EROFS)
    assert found.trials == {}
    assert found.problems() == []


def test_little_room_is_a_problem(tmp_path, monkeypatch):
    real = os.statvfs(tmp_path)
    full = [*real[:2], real.f_blocks, 10, 10, real.f_files, 10, 7, *real[8:]]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(full))
    space, files = try_file_system(tmp_path).problems()
    assert "MiB are free in" in space
    assert files.startswith(f"7 more files can be made in {str(tmp_path)!r} (inodes)")


def test_a_file_system_without_a_limit_of_files(tmp_path, monkeypatch):
    real = os.statvfs(tmp_path)
    boundless = [*real[:5], 0, 0, 0, *real[8:]]
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(boundless))
    found = try_file_system(tmp_path)
    assert found.free_files is None
    assert found.problems() == []


def test_nothing_is_made_among_the_arrays_of_a_cache(tmp_path, monkeypatch):
    for folder in (".", "tensors", "tensors/abc", "tensors/abc/image"):
        (tmp_path / "cache" / folder).mkdir(exist_ok=True, parents=True)
        (tmp_path / "cache" / folder / "zarr.json").write_text("{}")
    for place in ("tensors/abc/image", "tensors/abc/image/not there", "tensors", "."):
        assert try_file_system(tmp_path / "cache" / place).folder == str(tmp_path / "cache")


def test_the_nearest_folder_that_exists_is_tried(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    for path in ("new", "new/cache", "file", "file/cache"):
        assert try_file_system(Path(path)).folder == str(tmp_path)


def mounts(tmp_path: Path, *lines: str) -> str:
    (tmp_path / "mountinfo").write_text("".join(f"{line}\n" for line in lines))
    return str(tmp_path / "mountinfo")


def test_the_mount_is_the_deepest_and_of_equal_ones_the_last(tmp_path):
    table = mounts(
        tmp_path,
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
        "23 22 0:40 / /mnt/a\\040share rw - nfs4 server:/x rw,vers=4.2,local_lock=none",
        "24 22 0:41 / /mnt/a\\040share rw master:1 propagate_from:2 - cifs //server/x rw",
        "25 22 0:42 / /mnt/a rw - tmpfs tmpfs rw",
    )
    assert mount_of(Path("/mnt/a share/deep"), table) == ("cifs", "/mnt/a share", False)
    assert mount_of(Path("/mnt/a"), table) == ("tmpfs", "/mnt/a", False)
    assert mount_of(Path("/mnt/another"), table) == ("ext4", "/", False)


@pytest.mark.parametrize("option", ["nolock", "local_lock=all", "local_lock=flock", "localflock"])
def test_locks_of_this_machine_alone(tmp_path, option):
    table = mounts(tmp_path, f"23 22 0:40 / / rw - nfs server:/x rw,{option},vers=3")
    assert mount_of(tmp_path, table) == ("nfs", "/", True)


def test_a_system_that_lists_no_mounts(tmp_path):
    assert mount_of(tmp_path, str(tmp_path / "none")) == (None, None, False)


def test_the_mount_of_this_machine_is_found():
    if not os.path.exists("/proc/self/mountinfo"):
        pytest.skip("no /proc/self/mountinfo")
    assert filesystem.mount_of(Path("/proc"))[:2] == ("proc", "/proc")
