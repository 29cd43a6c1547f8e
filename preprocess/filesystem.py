"""Tries on a file system what a cache asks of it, in a folder of its own that is removed again."""

import fcntl
import mmap
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cache_store import durable, layout
from cache_store.errors import CacheStoreError

_OLD, _NEW = b"old" * 1000, b"new" * 1000
_ANSWER_S = 30.0
_LITTLE_BYTES = 64 << 20  # two shards
_FEW_FILES = 1000

_ASK = """
import errno, fcntl, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
try:
    fcntl.flock(fd, (fcntl.LOCK_EX if sys.argv[2] == "alone" else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    print("granted")
except OSError as error:
    held = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)
    print("refused" if error.errno in held else error.strerror)
"""
"""What another process is told about a lock; it answers in a word."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing that a cache asks of a file system.

    Attributes
    ----------
    name : for a machine
    words : for a person
    run : does it in a folder; returns what was found instead of the expected, or nothing. A refusal of the system is
        an OSError or a CacheStoreError
    way_out : what is lost without it, and what to do
    """

    name: str
    words: str
    run: Callable[[Path], str]
    way_out: str


@dataclass(slots=True)
class FileSystem:
    """What is known of a file system.

    Attributes
    ----------
    folder : the folder that was tried
    kind, mounted_at : such as ext4, and where; None where the system does not tell (macOS)
    local_locks : mounted so that locks are known to this machine alone (NFS, Lustre)
    read_only : why nothing can be written into the folder; None if it can
    free_bytes : for this user
    free_files : how many more files can be made; None where the file system knows no limit
    trials : name of a trial -> why it failed, None if it did not; empty if nothing can be written
    """

    folder: str
    kind: str | None = None
    mounted_at: str | None = None
    local_locks: bool = False
    read_only: str | None = None
    free_bytes: int = 0
    free_files: int | None = None
    trials: dict[str, str | None] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """What stands in the way of a cache, a line each."""
        found = [
            f"{trial.words}: {self.trials[trial.name]}, in {self.folder!r}; {trial.way_out}"
            for trial in TRIALS
            if self.trials.get(trial.name)
        ]
        if self.free_bytes < _LITTLE_BYTES:
            found.append(
                f"{self.free_bytes / (1 << 20):.1f} MiB are free in {self.folder!r}, a shard takes 32; free some space"
            )
        if self.free_files is not None and self.free_files < _FEW_FILES:
            found.append(
                f"{self.free_files:,} more files can be made in {self.folder!r} (inodes), a cache may need "
                f"{_FEW_FILES:,}; remove some, or build elsewhere"
            )
        return found


def try_file_system(path: Path) -> FileSystem:
    """Try the file system that a cache lies on, or will lie on; what is tried is removed in any case.

    Parameters
    ----------
    path : a cache, or where one is to be: then its nearest parent that exists is tried
    """
    folder = _outside_of_arrays(_nearest_folder(path))
    found = FileSystem(str(folder))
    found.kind, found.mounted_at, found.local_locks = mount_of(folder)
    space = os.statvfs(folder)
    found.free_bytes = space.f_bavail * space.f_frsize
    found.free_files = space.f_favail if space.f_files else None
    try:
        trial_folder = Path(tempfile.mkdtemp(prefix=".decant-doctor-", dir=folder))
    except OSError as error:
        found.read_only = error.strerror or str(error)
        return found
    try:
        for trial in TRIALS:
            found.trials[trial.name] = _outcome(trial, trial_folder)
    finally:
        durable.remove_tree(trial_folder)
    return found


def mount_of(folder: Path, table: str = "/proc/self/mountinfo") -> tuple[str | None, str | None, bool]:
    """Kind of the file system that a folder lies on, where it is mounted, and whether its locks are local.

    Parameters
    ----------
    table : file that lists what is mounted, as proc_pid_mountinfo(5) describes it
    """
    try:
        lines = Path(table).read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None, None, False
    place, best = Path(os.path.realpath(folder)), None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(_unescaped(before.split(" ")[4]))
        if point == place or point in place.parents:
            if best is None or len(point.parts) >= len(best[0].parts):  # a later one hides an earlier one
                best = point, after.split(" ")
    if best is None:
        return None, None, False
    point, (kind, _, options) = best[0], best[1][:3]
    local = {"nolock", "local_lock=all", "local_lock=flock", "localflock"} & set(options.split(","))
    return kind, str(point), bool(local)


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _nearest_folder(path: Path) -> Path:
    place = Path(os.path.abspath(path))
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


def _outside_of_arrays(folder: Path) -> Path:
    """The folder itself, or the cache around it: nothing is made among tensors and snapshots."""
    while (folder.parent / layout.METADATA).exists():
        folder = folder.parent
    return folder


def _outcome(trial: Trial, folder: Path) -> str | None:
    place = folder / trial.name
    try:
        os.mkdir(place)
        return trial.run(place) or None
    except CacheStoreError as error:
        return str(error)
    except OSError as error:
        return error.strerror or str(error)
    except subprocess.TimeoutExpired:
        return f"no answer within {_ANSWER_S:.0f} s"


def _renames(folder: Path) -> str:
    """A new file takes the name of an old one at once, as a commit does with the pointer."""
    old, new = folder / "old", folder / "new"
    durable.write_file(old, _OLD)
    durable.write_file(new, _NEW)
    durable.rename(new, old)
    if new.exists() or old.read_bytes() != _NEW:
        return "the old content is still there"
    return ""


def _locks(folder: Path) -> str:
    """What one process holds alone, another does not get; what is shared, it gets as well, but not alone."""
    path = folder / "lock"
    durable.write_file(path, b"")
    with open(path, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        answers = [_ask(path, "alone")]
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        answers += [_ask(path, "shared"), _ask(path, "alone")]
    answers.append(_ask(path, "alone"))
    if answers == ["refused", "granted", "refused", "granted"]:
        return ""
    if answers[0] == answers[2] == "granted":
        return "two processes got the same lock"
    return f"another process was told {', '.join(answers)}; refused, granted, refused, granted expected"


def _ask(path: Path, how: str) -> str:
    asked = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _ASK, path, how],
        capture_output=True,
        text=True,
        timeout=_ANSWER_S,
        check=False,
    )
    return asked.stdout.strip() or "nothing"


def _maps(folder: Path) -> str:
    """A mapped file keeps its content when its name goes to another file or is removed, as training needs it."""
    path, new = folder / "shard", folder / "new"
    durable.write_file(path, _OLD)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as mapped:
        if mapped[:] != _OLD:
            return "a map shows another content than the file"
        durable.write_file(new, _NEW)
        durable.rename(new, path)
        durable.remove_file(path)
        if mapped[:] != _OLD:
            return "a mapped file changes when its name goes to another file"
    return ""


def _flushes_files(folder: Path) -> str:
    durable.write_file(folder / "file", _NEW, flush=True)
    return ""


def _flushes_folders(folder: Path) -> str:
    durable.write_file(folder / "file", _NEW)
    durable.flush_file(folder)
    return ""


_ELSEWHERE = "build into a folder on a local disk and move the finished cache"

TRIALS = (
    Trial("rename", "renaming over a file does not work", _renames, f"no build can commit here; {_ELSEWHERE}"),
    Trial(
        "flock",
        "locks between processes (flock) do not work",
        _locks,
        f"two builders could work on one cache, and gc remove what training reads; {_ELSEWHERE}",
    ),
    Trial(
        "mmap",
        "mapping files into memory (mmap) does not work",
        _maps,
        "train with CachedDataset(…, io='pread'), which reads instead",
    ),
    Trial(
        "fsync_file",
        "flushing a file (fsync) does not work",
        _flushes_files,
        f"no build can commit here; {_ELSEWHERE}",
    ),
    Trial(
        "fsync_folder",
        "flushing a folder (fsync) does not work",
        _flushes_folders,
        "a power cut may cost the newest snapshot: run decant verify after one",
    ),
)
"""In the order in which they are run and told."""
