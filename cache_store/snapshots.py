"""The snapshots of a cache as a history: list them, and step back to one."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache_store import layout, writer
from cache_store.canonical import digest_of
from cache_store.errors import CacheStoreError, IntegrityError, NotFoundError
from cache_store.lock import BuildersLock
from cache_store.manifest import COLUMNS, Snapshot, decode
from cache_store.reader import Root, open_cache, read_root, snapshot_names
from cache_store.wary import Unreadable, read_metadata


@dataclass(frozen=True, slots=True)
class Entry:
    """One snapshot of a history.

    Attributes
    ----------
    current : whether the root points to it
    samples, variants : by split
    damage : why it cannot be read; empty: it can
    """

    name: str
    current: bool
    parent: str | None = None
    created: str = ""
    seconds: float = 0.0
    samples: dict[str, int] | None = None
    variants: dict[str, int] | None = None
    classes: int = 0
    failures: int = 0
    damage: str = ""

    def __str__(self) -> str:
        mark = "*" if self.current else " "
        if self.damage:
            return f"{mark} {self.name}  cannot be read: {self.damage}"
        variants = self.variants or {}
        splits = ", ".join(
            f"{name} {count:,}" + (f" x {variants[name]}" if variants[name] > 1 else "")
            for name, count in (self.samples or {}).items()
        )
        failed = f", {self.failures:,} failed" if self.failures else ""
        after = f", after {self.parent}" if self.parent else ""
        return f"{mark} {self.name}  {self.created}  {splits}, {self.classes} classes{failed}{after}"


def history(cache: str | os.PathLike[str]) -> list[Entry]:
    """All snapshots that can be opened or stepped back to, newest first.

    Raises
    ------
    NotFoundError, FormatError, IntegrityError : as `read_root`
    """
    path = layout.given_path(cache)
    current = read_root(path).snapshot
    return [_entry(path, name, current == name) for name in reversed(snapshot_names(path))]


def history_as_json(entries: Iterable[Entry]) -> str:
    return json.dumps([asdict(entry) for entry in entries], indent=2)


def _entry(cache: Path, name: str, current: bool) -> Entry:
    try:
        with open_cache(cache, name) as opened:
            snapshot = opened.snapshot
            return Entry(
                name=name,
                current=current,
                parent=snapshot.parent,
                created=snapshot.created,
                seconds=snapshot.seconds,
                samples={split: len(table) for split, table in snapshot.splits.items()},
                variants={split: table.variants for split, table in snapshot.splits.items()},
                classes=len(snapshot.classes),
                failures=len(snapshot.failures),
            )
    except CacheStoreError as error:
        return Entry(name, current, damage=str(error))


def rollback(cache: str | os.PathLike[str], snapshot: str) -> tuple[str | None, str]:
    """Make an older (or later) snapshot the one in force; returns the names of the former and of the new one.

    One atomic swap of the pointer. Readers keep what they have open, the snapshot that is left stays on disk until gc
    removes it, and the next build starts from the one in force now, under a number that was never used.

    Raises
    ------
    NotFoundError : no such cache or snapshot
    IntegrityError : the snapshot, or the metadata of its tensors, is damaged; the pointer stays
    LockedError : a builder works on this cache
    StorageError : the system refused
    """
    path = layout.given_path(cache)
    _require_snapshot(path, snapshot)
    writer.make_pending(path)
    with BuildersLock(path):
        root = read_root(path)
        if root.snapshot == snapshot:
            return snapshot, snapshot
        vouched = vouched_digests(path, root)
        with open_cache(path, snapshot) as opened:
            for name, table in opened.splits.items():
                opened.tensors(name)
                for column in COLUMNS:
                    _ = table[column]
        writer.write_root(path, root_for(path, snapshot_names(path), snapshot, root.last, vouched))
        return root.snapshot, snapshot


def _require_snapshot(cache: Path, snapshot: str) -> None:
    names = snapshot_names(cache)
    if snapshot not in names:
        known = ", ".join(names) or "none"
        raise NotFoundError(f"{str(cache)!r} has no snapshot {snapshot!r}; there are: {known}")


def vouched_digests(cache: Path, root: Root) -> dict[str, str]:
    """What the metadata of snapshots have to hash to, as far as the root and their children say.

    Raises
    ------
    IntegrityError : a snapshot's metadata are not what was committed
    """
    vouched = dict(root.former)
    if root.snapshot is not None and root.digest is not None:
        vouched[root.snapshot] = root.digest
    for name in reversed(snapshot_names(cache)):
        try:
            data, attributes = _own_metadata(cache, name)
        except IntegrityError:
            continue  # `verify` says so; it vouches for nobody
        digest, parent = digest_of(data).hex(), attributes.get("parent")
        if vouched.get(name) == digest and parent is not None and attributes.get("parent_digest") is not None:
            vouched.setdefault(parent, attributes["parent_digest"])
    return vouched


def root_for(cache: Path, kept: Iterable[str], current: str | None, last: int, vouched: dict[str, str]) -> Root:
    """The root that points to `current` and vouches for what of `kept` no kept child vouches for.

    Parameters
    ----------
    vouched : digests that are known already; of the rest, what is on disk is taken for right
    """
    former: dict[str, str] = {}
    covered = {current}
    for name in sorted(kept, key=lambda name: layout.snapshot_number(name) or 0, reverse=True):
        try:
            data, attributes = _own_metadata(cache, name)
        except IntegrityError:
            if name not in covered and name in vouched:
                former[name] = vouched[name]
            continue
        if name not in covered:
            former[name] = vouched.get(name, digest_of(data).hex())
        if attributes.get("parent_digest") is not None:
            covered.add(attributes.get("parent"))
    if current is None:
        return Root(None, last, None, former)
    digest = vouched.get(current) or digest_of(_own_metadata(cache, current)[0]).hex()
    return Root(current, last, digest, former)


def readable_snapshot(cache: Path, name: str, digest: str | None) -> Snapshot:
    """A snapshot that says, beyond doubt, what it needs.

    Raises
    ------
    IntegrityError : it is damaged
    """
    try:
        snapshot = decode(layout.snapshot_dir(cache, name), digest)
        for table in snapshot.splits.values():
            _ = table["slot"]
    except IntegrityError as error:
        raise IntegrityError(f"{error} (what snapshot {name} needs is not known, so nothing was removed)") from error
    return snapshot


def _own_metadata(cache: Path, name: str) -> tuple[bytes, dict[str, Any]]:
    path = layout.snapshot_dir(cache, name) / layout.METADATA
    try:
        data = read_metadata(path)
        attributes = json.loads(data)["attributes"]
        if not isinstance(attributes, dict):
            raise ValueError
    except (Unreadable, ValueError, LookupError, TypeError, RecursionError) as error:
        raise IntegrityError(f"{str(path)!r} is damaged: no metadata of a snapshot") from error
    return data, attributes
