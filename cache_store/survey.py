"""What the snapshots of a cache say, as far as it can be believed: each file of theirs is read against its digest.

A snapshot is vouched for by the root (the one in force), by its child (`parent_digest`), or by the root's `former`.
What they expect of shards is gathered from every table that is whole, whichever snapshot is in force.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache_store import layout
from cache_store.canonical import DIGEST_BYTES, digest_of, identity
from cache_store.errors import CacheStoreError, FormatError, IntegrityError, NotFoundError
from cache_store.findings import FOREIGN, ROOT, SNAPSHOT, TABLE, Finding, Sample
from cache_store.lock import Lease
from cache_store.manifest import COLUMNS, Snapshot, SplitTable, decode
from cache_store.reader import Root, read_root, root_attributes
from cache_store.wary import MISSING, Unreadable, entries, file_digest, read_metadata

_ATTEMPTS = 5
_REMOVAL_S = 10
_DIGEST = re.compile(r"[0-9a-f]{32}")
_PART = re.compile(r"(?!\.\.?/?$)[^/\0]+")
_NOT_METADATA = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)


@dataclass(slots=True)
class Surveyed:
    """One snapshot on disk.

    Attributes
    ----------
    listed : path in its folder -> digest; empty if its own metadata cannot be believed
    damaged : those of `listed` that are missing or differ
    attributes : of its own metadata, if it can be believed
    snapshot : its tables, if they can be used; columns that are damaged raise when asked for
    digest : what its own metadata hash to
    """

    name: str
    listed: dict[str, str] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    attributes: dict[str, Any] | None = None
    snapshot: Snapshot | None = None
    digest: str | None = None

    @property
    def whole(self) -> bool:
        return self.snapshot is not None and not self.damaged


@dataclass(slots=True)
class Expected:
    """What the snapshots need of one tensors' array: slots ascending, and the checksum of each (a slot may be there
    twice, if snapshots contradict each other)."""

    slots: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    checksums: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))

    def add(self, slots: np.ndarray, checksums: np.ndarray) -> None:
        slots = np.concatenate([self.slots, slots.reshape(-1)])
        checksums = np.concatenate([self.checksums, checksums.reshape(-1)])
        order = np.lexsort((checksums, slots))
        slots, checksums = slots[order], checksums[order]
        new = np.ones(len(slots), bool)
        new[1:] = (slots[1:] != slots[:-1]) | (checksums[1:] != checksums[:-1])
        self.slots, self.checksums = slots[new], checksums[new]

    def of_shard(self, shard: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Places within a shard of `size` slots, and their checksums."""
        begin, end = np.searchsorted(self.slots, [shard * size, (shard + 1) * size]).tolist()
        return self.slots[begin:end] - shard * size, self.checksums[begin:end]

    def shards(self, size: int) -> list[int]:
        return list(dict.fromkeys((self.slots // size).tolist()))


@dataclass(slots=True)
class Survey:
    """All snapshots of a cache.

    Attributes
    ----------
    root : what the root says; None if it is damaged
    snapshots : those that are committed, oldest first; every one on disk if the root does not say
    unfinished : names of those that no pointer ever reached
    vouched : snapshot -> what its metadata have to hash to, where anybody says so
    tensors : tensors_id -> snapshot -> digests that it lists of it
    expected : tensors_id -> what the tables need of it
    """

    cache: Path
    root: Root | None
    snapshots: dict[str, Surveyed] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    vouched: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)
    expected: dict[str, Expected] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def all_whole(self) -> bool:
        """Whether it is known for sure what the snapshots need: nothing else may be called unused."""
        return self.root is not None and all(state.whole for state in self.snapshots.values())

    def samples_of(self, tensors_id: str, slots: set[int]) -> Iterator[tuple[int, Sample]]:
        """Which samples lie in some slots, newest snapshot first."""
        wanted = np.array(sorted(slots), np.int64)
        for state in reversed(self.snapshots.values()):
            for name, table in usable_splits(state):
                if table.tensors_id != tensors_id:
                    continue
                rows, variants = np.nonzero(np.isin(table["slot"], wanted))
                try:
                    paths = table.paths() if len(rows) else []
                except CacheStoreError:
                    paths = []
                for row, variant in zip(rows.tolist(), variants.tolist()):
                    path = os.fsdecode(paths[row]) if row < len(paths) else f"sample {row} (its path is damaged)"
                    yield int(table["slot"][row, variant]), Sample(state.name, name, path, variant)


def survey(cache: Path, leases: contextlib.ExitStack, count: Callable[[int], None]) -> Survey:
    """Read the root and every file of every snapshot.

    Parameters
    ----------
    leases : holds the snapshots, so that a gc at the same time leaves them where they are
    count : told of bytes as they are read

    Raises
    ------
    NotFoundError : no such folder, or nothing in it is ours
    FormatError : written by a newer version
    StorageError : the system refused to read
    """
    for _ in range(_ATTEMPTS):
        root, problem = _read_root(cache)
        found = _listed(cache, root, leases)
        if _read_root(cache)[0] == root:
            break  # what is listed is held, and vouched for by this very root
        leases.pop_all().close()
    _read_metadata(found)
    for state in found.snapshots.values():
        _check_files(found, state, count)
    for state in found.snapshots.values():
        _gather(found, state)
    if problem:
        if not any(state.whole for state in found.snapshots.values()):
            raise problem
        if isinstance(problem, FormatError) and not _says_another_version(found):
            raise problem
        text = str(problem).removeprefix(f"{str(cache / layout.METADATA)!r} is damaged: ").partition("; ")[0]
        found.findings.insert(0, Finding(ROOT, layout.METADATA, text))
    elif root is not None:
        found.findings += _gone(found, root)
    return found


def _gone(found: Survey, root: Root) -> list[Finding]:
    """Snapshots that the root speaks of and that are not there, and those that a missing one would vouch for."""
    named = {root.snapshot: "missing, and it is the snapshot in force"}
    named |= dict.fromkeys(root.former, "missing, and no gc has removed it")
    gone = {name: text for name, text in named.items() if name is not None and name not in found.snapshots}
    states = found.snapshots.values()
    told = all(s.attributes and (s.attributes["parent"] is None or s.attributes.get("parent_digest")) for s in states)
    if told and not gone:
        text = "nothing says what its metadata should be: the snapshot that came after it is missing"
        gone = {name: text for name in found.snapshots if name not in found.vouched}
    return [Finding(SNAPSHOT, f"snapshots/{name}/{layout.METADATA}", text, name) for name, text in gone.items()]


def _listed(cache: Path, root: Root | None, leases: contextlib.ExitStack) -> Survey:
    """The snapshots on disk, held by leases."""
    found = Survey(cache, root)
    numbers = (layout.snapshot_number(entry.name) for entry in entries(cache / "snapshots") if entry.is_dir())
    for number in sorted(filter(None, numbers)):
        name = layout.snapshot_name(number)
        if root is not None and number > root.last:
            found.unfinished.append(name)
            found.notes.append(f"snapshots/{name} is not published: a build is at it, or was killed")
        elif _hold(cache, name, leases):  # without a root anything that looks like a snapshot may be meant
            found.snapshots[name] = Surveyed(name)
    return found


def _hold(cache: Path, name: str, leases: contextlib.ExitStack) -> bool:
    """Take a lease; False for a snapshot that gc has just removed."""
    ends = time.monotonic() + _REMOVAL_S
    while layout.snapshot_dir(cache, name).exists():
        try:
            leases.callback(Lease(cache, name).close)
            return True
        except BlockingIOError:  # gc is about to remove it
            if time.monotonic() > ends:
                return True
            time.sleep(0.02)
        except OSError:  # its metadata is damaged
            return layout.snapshot_dir(cache, name).exists()
    return False


def _read_root(cache: Path) -> tuple[Root | None, CacheStoreError | None]:
    """The root, or why it cannot be had."""
    path = cache / layout.METADATA
    if not cache.exists():
        raise NotFoundError(f"{str(cache)!r} does not exist; build one with: decant build SOURCE CACHE")
    if not cache.is_dir():
        raise NotFoundError(f"{str(cache)!r} is a file, a cache is a folder; name the one that decant build made")
    try:
        data = read_metadata(path)
    except Unreadable as error:
        if str(error) == MISSING:
            return None, NotFoundError(
                f"{str(cache)!r} is not a decant cache (it has no zarr.json); build one with: decant build SOURCE CACHE"
            )
        return None, IntegrityError(f"{str(path)!r} is damaged: {error}")
    try:
        root = read_root(cache)
    except (NotFoundError, IntegrityError, FormatError) as error:
        return None, error
    found = json.loads(data)
    said = root_attributes(root)
    if "check" not in found["attributes"]["decant"]:  # as an older version wrote it
        del said["decant"]["check"]
    if (
        found != {"attributes": said, "zarr_format": 3, "node_type": "group"}
        or json.dumps(found, indent=2).encode() != data
    ):
        return None, IntegrityError(f"{str(path)!r} is damaged: it is not what decant writes")
    return root, None


def _says_another_version(found: Survey) -> bool:
    """Whether a root of another format version is damage: all else about it, and all snapshots, are of ours."""
    try:
        ours = json.loads(read_metadata(found.cache / layout.METADATA))["attributes"]["decant"]
        said = {key: value for key, value in ours.items() if key != "check"}
        return (
            not ours["needs"]
            and ours.get("check") != identity(said)  # else it was written so, by a decant of that version
            and all(state.whole for state in found.snapshots.values())
            and found.snapshots[ours["snapshot"]].digest == ours["digest"]
        )
    except (Unreadable, *_NOT_METADATA):
        return False


def _read_metadata(found: Survey) -> None:
    """Each snapshot's own `zarr.json`, newest first, as children vouch for their parents."""
    vouched = found.vouched
    vouched.update(found.root.former if found.root is not None else {})
    if found.root is not None and found.root.snapshot is not None and found.root.digest is not None:
        vouched[found.root.snapshot] = found.root.digest
    for state in reversed(found.snapshots.values()):
        file = f"snapshots/{state.name}/{layout.METADATA}"
        expected = vouched.get(state.name)
        try:
            data = read_metadata(found.cache / file)
            state.digest = digest_of(data).hex()
            if expected is not None and state.digest != expected:
                raise ValueError(f"its digest is {state.digest}, {expected} was committed")
            metadata = json.loads(data)
            if json.dumps(metadata, indent=2).encode() != data or metadata["node_type"] != "group":
                raise ValueError("it is not what decant writes")
            attributes = metadata["attributes"]
            _check_lists(attributes)
        except (Unreadable, *_NOT_METADATA) as error:
            text = str(error) if isinstance(error, Unreadable) or type(error) is ValueError else "no metadata of ours"
            found.findings.append(Finding(SNAPSHOT, file, text, state.name))
            continue
        state.attributes, state.listed = attributes, attributes["files"]
        parent, digest = attributes["parent"], attributes.get("parent_digest")
        if parent is not None and digest is not None and (expected is not None or found.root is None):
            vouched.setdefault(parent, digest)
        for tensors_id, digests in attributes["tensors"].items():
            found.tensors.setdefault(tensors_id, {})[state.name] = digests


def _check_lists(attributes: dict[str, Any]) -> None:
    """What is used as a path or a digest has to be one."""
    for path, digest in attributes["files"].items():
        parts = path.split("/")
        if not 1 < len(parts) < 4 or not all(map(_PART.fullmatch, parts)) or not _DIGEST.fullmatch(digest):
            raise ValueError(f"it lists {path!r}, which no snapshot has")
    for tensors_id, digests in attributes["tensors"].items():
        if not _DIGEST.fullmatch(tensors_id) or sorted(digests) != ["group", "image"]:
            raise ValueError(f"it lists {tensors_id!r}, which are no tensors")


def _check_files(found: Survey, state: Surveyed, count: Callable[[int], None]) -> None:
    """Every listed file against its digest; every file that is not listed is foreign."""
    folder = layout.snapshot_dir(found.cache, state.name)
    for path, digest in state.listed.items():
        try:
            seen = file_digest(folder / path, count)
            problem = f"its digest is {seen}, {digest} was committed" if seen != digest else ""
        except Unreadable as error:
            problem = str(error)
        if problem:
            state.damaged.add(path)
            found.findings.append(Finding(TABLE, f"snapshots/{state.name}/{path}", problem, state.name))
    if state.attributes is None:
        return
    known = {layout.METADATA, *state.listed}
    known |= {"/".join(path.split("/")[:n]) for path in state.listed for n in (1, 2)}
    todo = [""]
    while todo:
        for entry in entries(folder / (prefix := todo.pop())):
            path = f"{prefix}{entry.name}"
            if path not in known:
                file = f"snapshots/{state.name}/{path}"
                found.findings.append(Finding(FOREIGN, file, "the snapshot does not list it"))
            elif entry.is_dir():
                todo.append(f"{path}/")


def _gather(found: Survey, state: Surveyed) -> None:
    """Open the tables of a snapshot, and add what they need to what is expected."""
    if state.attributes is None:
        return
    try:
        state.snapshot = decode(layout.snapshot_dir(found.cache, state.name), state.digest)
    except CacheStoreError as error:
        if not state.damaged:  # as committed, and yet it cannot be read: made to be so
            file = f"snapshots/{state.name}/{layout.METADATA}"
            found.findings.append(Finding(SNAPSHOT, file, str(error).partition("; ")[0], state.name))
        return
    for name, table in list(state.snapshot.splits.items()):
        problem = _table_problem(name, table, state)
        if problem:
            file = f"snapshots/{state.name}/{name}"
            found.findings.append(Finding(TABLE, file, f"{problem}, though it is as committed", state.name))
            state.snapshot = None
            return
    for _, table in usable_splits(state):
        expected = found.expected.setdefault(table.tensors_id, Expected())
        expected.add(table["slot"], table["checksum"])


def usable_splits(state: Surveyed) -> Iterator[tuple[str, SplitTable]]:
    """Splits of which at least slots and checksums are whole."""
    for name, table in state.snapshot.splits.items() if state.snapshot is not None else ():
        damaged = [path for path in state.damaged if path.startswith((f"{name}/slot/", f"{name}/checksum/"))]
        if not damaged:
            yield name, table


def _table_problem(name: str, table: SplitTable, state: Surveyed) -> str:
    """What is wrong with a table whose files are as committed: nothing, unless somebody made it to be so."""
    assert state.snapshot is not None
    if table.tensors_id not in state.snapshot.tensors:
        return f"its tensors {table.tensors_id[:8]!r} are not listed"
    lengths: dict[str, int] = {}
    for column, (_, dimensions) in COLUMNS.items():
        try:
            shape = table[column].shape
        except (CacheStoreError, *_NOT_METADATA):
            if any(path.startswith(f"{name}/{column}/") for path in state.damaged):
                continue  # reported already
            return f"its column {column!r} cannot be read"
        for dimension, length in zip(dimensions, shape):
            key = f"{column} {dimension}" if dimension == "byte" else dimension
            if lengths.setdefault(key, length) != length:
                return f"its column {column!r} has {length} of {dimension}, another has {lengths[key]}"
        if column == "slot" and table[column].size and table[column].min() < 0:
            return "a slot is negative"
        if column == "digest" and shape[1] != DIGEST_BYTES:
            return f"its digests have {shape[1]} bytes"
    return ""
