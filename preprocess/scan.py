"""From a folder to an ordered table of sources: split, class, path, stat. Reads no file.

Order and class ids are `torchvision.datasets.ImageFolder`'s: classes sorted plainly; within a class the folders in
the order of `sorted(os.walk(...))`, in each folder the names sorted.
"""

import errno
import hashlib
import itertools
import os
import stat
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.errors import UsageError
from preprocess.header import HEIC_EXTENSIONS, IMAGE_EXTENSIONS
from preprocess.names import junk_of
from preprocess.paths import Paths
from preprocess.recipe import Recipe

STAT = np.dtype([("size", "<i8"), ("mtime_ns", "<i8"), ("ctime_ns", "<i8"), ("inode", "<i8")])
"""What tells an unchanged file; size is -1 where the file could not be looked at."""

_Stat = tuple[int, int, int, int]
"""The fields of `STAT`."""

_EXAMPLES = 3


@dataclass(slots=True)
class Tally:
    """How many of a kind were passed over, with the first few names."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        self.count += 1
        if len(self.examples) < _EXAMPLES:
            self.examples.append(name)

    def join(self, other: "Tally") -> None:
        """Count another one as well."""
        self.count += other.count
        self.examples = (self.examples + other.examples)[:_EXAMPLES]

    def shown(self) -> str:
        """The examples, for a message."""
        return ", ".join(name if name.isprintable() else repr(name) for name in self.examples) + (
            ", …" if self.count > len(self.examples) else ""
        )


@dataclass(slots=True)
class SplitScan:
    """Sources of one folder, in order.

    Attributes
    ----------
    name, folder : split, and its folder relative to SOURCE
    paths : relative to SOURCE, '/' between folders
    class_names : the class folders, sorted; None for a flat folder
    class_index : int64 (n,), place in `class_names`; -1 in a flat folder
    stats : `STAT` (n,)
    nested : class -> the folders directly in it below which images lie; of classes that have such folders
    nested_alone : those of them that hold no image beside these folders
    """

    name: str
    folder: str
    paths: Paths
    class_names: list[str] | None
    class_index: np.ndarray
    stats: np.ndarray
    nested: dict[str, list[str]] = field(default_factory=dict)
    nested_alone: set[str] = field(default_factory=set)

    def class_counts(self) -> dict[str, int]:
        """Images of each class folder, empty ones included; none in a flat folder."""
        names = self.class_names or []
        counts = np.bincount(self.class_index, minlength=len(names)).tolist() if names else []
        return dict(zip(names, counts, strict=True))

    def filled_classes(self) -> list[str]:
        """The class folders with images, sorted."""
        return [name for name, count in self.class_counts().items() if count]


@dataclass(slots=True)
class Scan:
    """A scanned SOURCE.

    Attributes
    ----------
    splits : by name, those with a folder of their own
    scanned_ns : when the scan began, ns since the epoch
    hidden, other, loose : passed over: hidden files, ones without an image's extension, images beside class folders
    loops : symbolic links that lead back into themselves
    unreadable : folder -> why it cannot be listed
    unused_folders : folders in SOURCE that belong to no split
    empty_folders : those beside the splits that were found to hold no image
    beside : images in SOURCE itself, beside the folders of splits
    junk : what file servers, desktops and editors leave: name -> how often it was passed over
    undecodable : images of a format that decant does not decode, by their extension
    dead : links that lead nowhere, without an image's extension
    unlisted : those of the unused folders that cannot be listed
    """

    splits: dict[str, SplitScan]
    scanned_ns: int
    hidden: Tally
    other: Tally
    loose: Tally
    loops: list[str]
    unreadable: dict[str, str]
    unused_folders: list[str]
    empty_folders: list[str] = field(default_factory=list)
    beside: Tally = field(default_factory=Tally)
    junk: Counter[str] = field(default_factory=Counter)
    undecodable: Tally = field(default_factory=Tally)
    dead: Tally = field(default_factory=Tally)
    unlisted: list[str] = field(default_factory=list)


def scan(source: Path, recipe: Recipe) -> Scan:
    """List the sources of every split that has a folder.

    Raises
    ------
    UsageError : SOURCE or the folder of a split is not there, or there is no image at all
    """
    result = Scan({}, time.time_ns(), Tally(), Tally(), Tally(), [], {}, [])
    for name, split in recipe.named_splits.items():
        if split.folder is not None:
            result.splits[name] = _scan_split(source, name, split.folder, result)
    if not any(len(split.paths) for split in result.splits.values()):
        unreadable = [f"; {folder!r}: {why}" for folder, why in result.unreadable.items()]
        skipped = f"{result.other.count} other and {result.hidden.count} hidden files"
        if result.junk:
            skipped += f", and junk by its name, which is skipped: {', '.join(map(repr, sorted(result.junk)))}"
        if result.undecodable.count:
            skipped = f"{result.undecodable.count} HEIC files, which decant does not decode, {skipped}"
        raise UsageError(
            f"SOURCE {str(source)!r} holds no image: files with these extensions are looked for: "
            f"{' '.join(sorted(IMAGE_EXTENSIONS))}; "
            f"found {skipped}{''.join(unreadable[:_EXAMPLES])}"
        )
    used = {Path(split.folder).parts[0] if split.folder != "." else "." for split in result.splits.values()}
    if "." not in used:
        above = Scan({}, 0, Tally(), Tally(), Tally(), [], {}, [], junk=result.junk)
        direct, folders = _Walk(source, "", above).list_folder("", ())
        for path, _ in sorted(direct):
            result.beside.add(path)
        result.unused_folders = sorted(set(folders) - used)
        result.unlisted = [name for name in result.unused_folders if not os.access(source / name, os.R_OK | os.X_OK)]
        result.undecodable.join(above.undecodable)
        result.dead.join(above.dead)
    return result


def folders_in(source: Path) -> list[str]:
    """Names of the folders in SOURCE, sorted; without hidden ones and junk.

    Raises
    ------
    UsageError : SOURCE does not exist or is not a folder
    """
    return sorted(
        entry.name
        for entry in _entries(source)
        if not entry.name.startswith(".") and not junk_of(entry.name) and not _why_no_folder(entry)
    )


def dead_links(folder: Path) -> dict[str, str]:
    """The links in a folder that lead nowhere -> what they name."""
    links = {entry.name: entry.path for entry in _entries(folder) if entry.is_symlink()}
    return {name: os.readlink(path) for name, path in links.items() if not os.path.exists(path)}


def has_images(folder: Path) -> bool:
    """Whether an image lies directly in a folder."""
    return any(_extension(each.name) in IMAGE_EXTENSIONS and each.name[0] != "." for each in _entries(folder))


def holds_images(folder: Path) -> bool | None:
    """Whether an image lies in a folder or below it; the look ends at the first one. None: it cannot be listed."""
    seen: set[tuple[int, int]] = set()
    open_folders = [os.fspath(folder)]
    while open_folders:
        current = open_folders.pop()
        here = _identity(current)
        if here in seen:
            continue
        seen.add(here)
        try:
            with os.scandir(current) as entries:
                for entry in entries:
                    if entry.name[0] == ".":
                        continue
                    if not _why_no_folder(entry):
                        if not junk_of(entry.name):
                            open_folders.append(entry.path)
                    elif _extension(entry.name) in IMAGE_EXTENSIONS:
                        return True
        except OSError:
            if current == os.fspath(folder):
                return None
    return False


def check_folder(source: Path) -> None:
    """Refuse a SOURCE that is no folder.

    Raises
    ------
    UsageError : SOURCE does not exist, is not a folder or cannot be listed
    """
    _entries(source)


def signature(source: Path) -> tuple[bytes, int]:
    """What tells whether any build of SOURCE, with whatever recipe, could find something else: a digest of all folders
    and images with their `STAT`, and the number of images.

    Raises
    ------
    UsageError : SOURCE does not exist or is not a folder
    """
    _entries(source)
    result = Scan({}, 0, Tally(), Tally(), Tally(), [], {}, [])
    walk, above = _Walk(source, "", result), (_identity(source),)
    direct, folders = walk.list_folder("", above)
    digest, count = hashlib.blake2b(digest_size=16), 0
    for parts in itertools.chain([[("", direct)]], (walk.walk(name, above) for name in sorted(folders))):
        for folder, files in sorted(parts):
            ordered = sorted(files)
            count += len(ordered)
            numbers = np.fromiter(itertools.chain.from_iterable(stat for _, stat in ordered), np.int64)
            names = "\0".join([folder, str(len(ordered)), *(path for path, _ in ordered), ""])
            digest.update(os.fsencode(names) + numbers.tobytes())
    digest.update(os.fsencode(repr(sorted(result.unreadable.items()))))
    return digest.digest(), count


def class_table(scan: Scan, pinned: Sequence[str] | None) -> list[str]:
    """One table of class names for all splits: the pinned ones first, then the rest sorted, empty classes included."""
    found = {name for split in scan.splits.values() for name in split.class_names or ()}
    first = list(pinned or ())
    return first + sorted(found - set(first))


def stat_of(result: os.stat_result) -> _Stat:
    """The fields of `STAT` out of an os.stat_result; a time that int64 cannot hold is the nearest that it can."""
    return result.st_size, _clamped(result.st_mtime_ns), _clamped(result.st_ctime_ns), _signed(result.st_ino)


def _clamped(time_ns: int) -> int:
    """Nanoseconds in int64 end in the years 1677 and 2262; file systems and `touch` know others."""
    return min(max(time_ns, -(1 << 63)), (1 << 63) - 1)


def _signed(inode: int) -> int:
    """Inode numbers are unsigned; the table keeps int64."""
    return inode - (1 << 64) if inode >= 1 << 63 else inode


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        raise UsageError(f"SOURCE {str(folder)!r} does not exist") from None
    except NotADirectoryError:
        raise UsageError(f"SOURCE {str(folder)!r} is a file; a folder of images expected") from None
    except OSError as error:
        raise UsageError(f"SOURCE {str(folder)!r} cannot be listed: {error.strerror}") from None


def _why_no_folder(entry: os.DirEntry[str]) -> str:
    """Empty for a folder or a link to one; otherwise 'no folder', or why that cannot be told."""
    try:
        return "" if entry.is_dir() else "no folder"
    except OSError as error:  # `is_dir` forgives a link to nothing, but not one to itself, nor one to a forbidden place
        return "no folder" if error.errno == errno.ELOOP else f"it cannot be looked at: {error.strerror}"


def _scan_split(source: Path, name: str, folder: str, result: Scan) -> SplitScan:
    root = source / folder
    if not root.is_dir():
        there = ", ".join(folders_in(source)) or "none"
        raise UsageError(
            f"split {name!r}: there is no folder {folder!r} in SOURCE {str(source)!r}; folders there: {there}"
        )
    prefix = "" if folder == "." else folder.rstrip("/") + "/"
    top = _Walk(root, prefix, result)
    direct, class_folders = top.list_folder("", (_identity(root),))
    class_names = sorted(class_folders)
    columns = _Columns()
    nested: dict[str, list[str]] = {}
    alone = set()
    for index, class_name in enumerate(class_names):
        found = sorted(top.walk(class_name, (_identity(root),)))
        for _, files in found:
            columns.extend(sorted(files), index)
        below = {place.split("/", 2)[1] for place, files in found if files and place != class_name}
        if below:
            nested[class_name] = sorted(below)
            if not found[0][1]:  # the class folder itself comes first
                alone.add(class_name)
    if direct and not len(columns):
        columns.extend(sorted(direct), -1)
        result.empty_folders += [prefix + each for each in class_names]
        return columns.split(name, folder, None)
    for path, _ in sorted(direct):
        result.loose.add(path)
    split = columns.split(name, folder, class_names)
    split.nested, split.nested_alone = nested, alone
    return split


class _Columns:
    """Paths and stats of a split while they are collected."""

    def __init__(self) -> None:
        self._paths: list[Paths] = []
        self._stats: list[np.ndarray] = []
        self._classes: list[np.ndarray] = []

    def extend(self, files: list[tuple[str, _Stat]], index: int) -> None:
        self._paths.append(Paths([path for path, _ in files]))
        numbers = itertools.chain.from_iterable(stat for _, stat in files)
        self._stats.append(np.fromiter(numbers, np.int64, len(files) * len(STAT.names or ())).view(STAT))
        self._classes.append(np.full(len(files), index, np.int64))

    def split(self, name: str, folder: str, class_names: list[str] | None) -> SplitScan:
        stats = np.concatenate([np.zeros(0, STAT), *self._stats])
        classes = np.concatenate([np.zeros(0, np.int64), *self._classes])
        return SplitScan(name, folder, Paths.joined(self._paths), class_names, classes, stats)

    def __len__(self) -> int:
        return sum(map(len, self._paths))


class _Walk:
    """One pass over a split's folder; what is passed over goes into the Scan's tallies."""

    def __init__(self, root: Path, prefix: str, result: Scan) -> None:
        self._root = os.fspath(root)
        self._prefix = prefix
        self._result = result

    def walk(self, folder: str, above: tuple[tuple[int, int], ...]) -> list[tuple[str, list[tuple[str, _Stat]]]]:
        """(folder, its files) for a folder and all below it, symbolic links followed, loops not."""
        found = []
        open_folders = [(folder, above)]
        while open_folders:
            current, ancestors = open_folders.pop()
            here = _identity(os.path.join(self._root, current))
            if here in ancestors:
                self._result.loops.append(self._prefix + current)
                continue
            files, folders = self.list_folder(current, ancestors)
            found.append((current, files))
            open_folders += [(f"{current}/{name}", (*ancestors, here)) for name in folders]
        return found

    def list_folder(self, folder: str, above: tuple[tuple[int, int], ...]) -> tuple[list[tuple[str, _Stat]], list[str]]:
        """Images (path relative to SOURCE, stat) directly in a folder, and the names of the folders in it."""
        files, folders = [], []
        place = self._prefix + (folder + "/" if folder else "")
        try:
            with os.scandir(os.path.join(self._root, folder)) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        self._result.hidden.add(place + name)
                        if junk := junk_of(name):
                            self._result.junk[junk] += 1
                        continue
                    why = _why_no_folder(entry)
                    if not why:
                        if junk := junk_of(name):
                            self._result.junk[junk] += 1
                        else:
                            folders.append(name)
                    elif _extension(name) not in IMAGE_EXTENSIONS:
                        if junk := junk_of(name):
                            self._result.junk[junk] += 1
                        elif why == "no folder" and entry.is_symlink() and not os.path.exists(entry.path):
                            self._result.dead.add(place + name)
                        elif why == "no folder":
                            undecodable = _extension(name) in HEIC_EXTENSIONS
                            (self._result.undecodable if undecodable else self._result.other).add(place + name)
                        else:
                            self._result.unreadable[place + name] = why
                    else:
                        numbers = _stat(entry)
                        if numbers is None:
                            self._result.other.add(place + name)  # a pipe, a socket, a device
                        else:
                            files.append((place + name, numbers))
        except OSError as error:
            self._result.unreadable[place.rstrip("/")] = f"the folder cannot be listed: {error.strerror}"
        return files, folders


def _extension(name: str) -> str:
    return name[name.rfind(".") :].lower()


def _identity(folder: str | Path) -> tuple[int, int]:
    try:
        found = os.stat(folder)
    except OSError:
        return (-1, -1)  # gone or forbidden: listing it says so
    return found.st_dev, found.st_ino


def _stat(entry: os.DirEntry[str]) -> _Stat | None:
    try:
        found = entry.stat()
    except OSError:
        return -1, 0, 0, 0  # a broken link, or gone again: reading it says why
    return stat_of(found) if stat.S_ISREG(found.st_mode) else None
