"""What a build asks the system to do, written down, so that a power cut can be played at any point of it.

The model is harsher than any file system: what was not followed by an fsync of the file may be lost, in part or as a
whole, or come back as zeros; what was done to a folder and not followed by an fsync of that folder may be lost, each
change for itself, in any order.
"""

import os
import random
import threading
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True, slots=True)
class Step:
    """One change, or one fsync.

    Attributes
    ----------
    kind : 'folder', 'file' (a new entry), 'data' (the whole content so far), 'rename', 'unlink' or 'fsync'
    path : of the entry; of a rename the new one
    file : number of the file or folder that is meant
    content : for 'data'
    """

    kind: str
    path: Path
    file: int
    content: bytes = b""


class Recorder(SimpleNamespace):
    """Stands in for the module `os` in `cache_store.durable`; does what it is asked, and notes it.

    Files that other processes wrote are noted as new and unflushed when they are first touched here.
    """

    def __init__(self, root: Path) -> None:
        # Files are flushed by threads.
        super().__init__(root=root, steps=[], files={}, opened={}, last=0, lock=threading.Lock())

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _note(self, kind: str, path: Path, content: bytes = b"") -> None:
        with self.lock:
            self.steps.append(Step(kind, path, self._number(path), content))

    def _number(self, path: Path) -> int:
        if path not in self.files:
            self.last += 1
            self.files[path] = self.last
            if path.is_file():
                self.steps.append(Step("file", path, self.last))
                self.steps.append(Step("data", path, self.last, path.read_bytes()))
        return int(self.files[path])

    def begin(self) -> None:
        """Everything that is there now is on the medium."""
        for path in [self.root, *sorted(self.root.rglob("*"))]:
            self.last += 1
            self.files[path] = self.last

    def open(self, path: Any, flags: int, *rest: Any) -> int:
        fd = os.open(path, flags, *rest)
        with self.lock:
            if flags & os.O_CREAT:
                self.files.pop(Path(path), None)
                self.last += 1
                self.files[Path(path)] = self.last
                self.steps.append(Step("file", Path(path), self.last))
            self.opened[fd] = Path(path)
        return fd

    def writev(self, fd: int, views: Any) -> int:
        count = os.writev(fd, views)
        path = self.opened[fd]
        self._note("data", path, path.read_bytes())
        return count

    def fsync(self, fd: int) -> None:
        self._note("fsync", self.opened[fd])

    def mkdir(self, path: Any, *rest: Any) -> None:
        os.mkdir(path, *rest)
        self.files.pop(Path(path), None)
        self._note("folder", Path(path))

    def rename(self, old: Any, new: Any) -> None:
        with self.lock:
            number = self._number(Path(old))
            os.rename(old, new)
            self.files[Path(new)] = self.files.pop(Path(old))
            self.steps.append(Step("rename", Path(new), number))

    def unlink(self, path: Any) -> None:
        os.unlink(path)
        if Path(path) in self.files:
            self._note("unlink", Path(path))
            del self.files[Path(path)]


def after_a_cut(
    before: dict[Path, bytes | None], numbers: dict[Path, int], steps: list[Step], draw: random.Random
) -> dict[Path, bytes | None]:
    """What a medium may hold if the power fails after these steps: path -> content, None for a folder.

    Parameters
    ----------
    before : what it held when the recording began
    numbers : of these files and folders
    """
    flushed_at = {}  # file or folder -> its last fsync
    for when, step in enumerate(steps):
        if step.kind == "fsync":
            flushed_at[step.file] = when
    folders = dict(numbers)
    entries = {path: numbers[path] for path in before}
    contents: dict[int, bytes | None] = {numbers[path]: content for path, content in before.items()}
    paths_of = {number: path for path, number in entries.items()}
    for when, step in enumerate(steps):
        if step.kind == "data":
            is_safe = flushed_at.get(step.file, -1) > when
            contents[step.file] = step.content if is_safe else _torn(step.content, draw)
        elif step.kind != "fsync":
            if step.kind == "folder":
                folders[step.path] = step.file
                contents[step.file] = None
            elif step.kind == "file":
                contents[step.file] = b""
            parent = folders.get(step.path.parent, -1)
            if flushed_at.get(parent, -1) < when and draw.random() < 0.5:
                continue  # this change of the folder is lost
            former = paths_of.get(step.file)
            if step.kind == "unlink":
                entries.pop(step.path, None)
                continue
            if former is not None and entries.get(former) == step.file:
                del entries[former]
            entries[step.path] = step.file
            paths_of[step.file] = step.path
    return {path: contents[number] for path, number in entries.items() if _is_reachable(path, entries, contents)}


def _torn(content: bytes, draw: random.Random) -> bytes:
    kept = draw.choice([len(content), 0, draw.randint(0, len(content))])
    return content[:kept] + (b"\0" * (len(content) - kept) if draw.random() < 0.5 else b"")


def _is_reachable(path: Path, entries: dict[Path, int], contents: dict[int, bytes | None]) -> bool:
    tops = [p for p in path.parents if p in entries]
    depth = len(path.parts) - min(len(p.parts) for p in entries)
    return len([p for p in tops if contents[entries[p]] is None]) == depth
