"""Removes what no kept snapshot reaches.

Order, so that a kill at any instant leaves every kept snapshot whole: the root (which vouches for what is kept), then
snapshots (each moved out of sight at once), then shards and tensors, then litter. The last shard of an array leaves an
empty one behind: its number, and all before it, must never be given out again.
"""

import contextlib
import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from cache_store import durable, layout, writer
from cache_store.compaction import compact_snapshot
from cache_store.errors import REPAIR, IntegrityError, UsageError
from cache_store.lock import BuildersLock, Removal
from cache_store.manifest import Snapshot
from cache_store.reader import read_root, snapshot_names
from cache_store.shard import empty_shard
from cache_store.snapshots import readable_snapshot, root_for, vouched_digests
from cache_store.writer import slots_of


@dataclass(slots=True)
class GcReport:
    """What was removed and what was kept.

    Attributes
    ----------
    removed, kept : snapshots
    leased : those of `kept` that are there only because somebody reads them
    shards, tensors : removed
    freed_bytes : by all of it
    compacted : the snapshot that compaction published; None: there was nothing to gain
    moved : chunks that compaction wrote anew
    unfinished_bytes : of an interrupted build, kept for the next one
    """

    cache: str
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    leased: list[str] = field(default_factory=list)
    shards: int = 0
    tensors: int = 0
    freed_bytes: int = 0
    compacted: str | None = None
    moved: int = 0
    unfinished_bytes: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        lines = []
        if self.compacted is not None:
            lines.append(f"compacted: {self.moved:,} tensors written anew, snapshot {self.compacted}")
        lines.append(
            f"freed {self.freed_bytes / 2**20:,.1f} MiB: {len(self.removed):,} snapshots, {self.shards:,} shards, "
            f"{self.tensors:,} tensors"
        )
        lines.append(f"kept snapshots {', '.join(self.kept) or '(none)'}")
        if self.leased:
            lines.append(f"in use, so not removed: {', '.join(self.leased)}; run gc again when their readers are done")
        if self.unfinished_bytes:
            lines.append(
                f"{self.unfinished_bytes / 2**20:,.1f} MiB of an interrupted build are kept for the next one; "
                "--drop-unfinished removes them"
            )
        return "\n".join(lines)


def collect_garbage(
    cache: str | os.PathLike[str], keep: int = 1, *, compact: bool = False, drop_unfinished: bool = False
) -> GcReport:
    """Free what the newest snapshots do not need.

    Parameters
    ----------
    keep : how many of the newest snapshots stay, beside the one in force and those that somebody reads
    compact : first write partly used shards of the snapshot in force anew, as a snapshot with the same content
    drop_unfinished : also remove what an interrupted build has finished

    Raises
    ------
    NotFoundError : no such cache
    UsageError : `keep` is less than 1
    IntegrityError : a snapshot to be kept is damaged, so that what it needs is not known; nothing was removed
    LockedError : a builder works on this cache
    StorageError : the system refused; what is kept is whole
    """
    path = layout.given_path(cache)
    if keep < 1:
        raise UsageError(f"keep: 1 or more snapshots expected, found {keep}")
    read_root(path)
    report = GcReport(str(path))
    writer.make_pending(path)
    with BuildersLock(path):
        _, unfinished = writer.recover(path)  # shards that a killed commit had adopted go back to its folder
        if compact:
            report.compacted, report.moved = compact_snapshot(path)
        _collect(path, keep, report)
        _clear_pending(path, unfinished, drop_unfinished, report)
    return report


def _collect(cache: Path, keep: int, report: GcReport) -> None:
    root, names = read_root(cache), snapshot_names(cache)
    vouched = vouched_digests(cache, root)
    newest = set(names[-keep:]) | {root.snapshot}
    with contextlib.ExitStack() as holds:
        for name in names:
            if name in newest:
                report.kept.append(name)
                continue
            hold = holds.enter_context(Removal(cache, name))
            if hold.granted:
                report.removed.append(name)
            else:
                report.kept.append(name)
                report.leased.append(name)
        kept = [readable_snapshot(cache, name, vouched.get(name)) for name in report.kept]
        after = root_for(cache, report.kept, root.snapshot, root.last, vouched)
        if after != root:
            writer.write_root(cache, after)
        dropped = [layout.snapshot_dir(cache, name) for name in report.removed]
        dropped += [Path(e.path) for e in os.scandir(cache / "snapshots") if _is_unfinished(e.name, root.last)]
        for folder in dropped:
            report.freed_bytes += _bytes_below(folder)
            _remove(cache, folder)
    _collect_tensors(cache, kept, report)


def drop_snapshot(cache: Path, name: str) -> bool:
    """Remove one snapshot that is not in force, its shards apart; False: somebody reads it. The lock is held."""
    root = read_root(cache)
    with Removal(cache, name) as hold:
        if hold.granted:
            kept = [other for other in snapshot_names(cache) if other != name]
            writer.write_root(cache, root_for(cache, kept, root.snapshot, root.last, vouched_digests(cache, root)))
            _remove(cache, layout.snapshot_dir(cache, name))
        return hold.granted


def _is_unfinished(name: str, last: int) -> bool:
    return (layout.snapshot_number(name) or 0) > last


def _collect_tensors(cache: Path, kept: list[Snapshot], report: GcReport) -> None:
    used_ids = {tensors_id for snapshot in kept for tensors_id in snapshot.tensors}
    for entry in sorted(os.scandir(cache / "tensors"), key=lambda entry: entry.name):
        if not entry.is_dir() or not writer.is_hex_id(entry.name):
            continue
        if entry.name not in used_ids:
            report.tensors += 1
            report.freed_bytes += _bytes_below(Path(entry.path))
            _remove(cache, Path(entry.path))
            continue
        slots = slots_of(cache, entry.name)
        if slots is None:
            raise IntegrityError(f"tensors {entry.name[:8]}: no metadata; {REPAIR}")
        used = used_shards(kept, entry.name, slots)
        image = layout.image_dir(cache, entry.name)
        present = sorted(n for e in os.scandir(image) if (n := layout.shard_number(e.name)) is not None)
        for number in present:
            if number in used:
                continue
            path = layout.shard_file(cache, entry.name, number)
            size = path.stat().st_size
            if number == present[-1]:
                empty = empty_shard(slots)
                if size == len(empty):
                    continue
                durable.replace_file(path, empty, layout.pending_dir(cache) / f"{layout.METADATA}.part")
                size -= len(empty)
            else:
                durable.remove_file(path)
            report.shards += 1
            report.freed_bytes += size
        writer.fill_ends(cache, entry.name)
        durable.flush_dir(image)


def used_shards(snapshots: list[Snapshot], tensors_id: str, slots: int) -> set[int]:
    """Numbers of the shards of some tensors that any of the snapshots has a slot in."""
    tables = [
        table["slot"] for s in snapshots for table in s.splits.values() if table.tensors_id == tensors_id and len(table)
    ]
    return {int(shard) for table in tables for shard in np.unique(table // slots)}


def _remove(cache: Path, folder: Path) -> None:
    """Out of sight at once, then file by file: a kill in between leaves litter in `pending`, never half a folder."""
    aside = layout.pending_dir(cache) / f"gc-{uuid.uuid4().hex}"
    durable.rename(folder, aside)
    durable.flush_dir(folder.parent)
    durable.remove_tree(aside)


def _clear_pending(cache: Path, unfinished: list[Path], drop_unfinished: bool, report: GcReport) -> None:
    for entry in os.scandir(layout.pending_dir(cache)):
        if entry.name.startswith("gc-"):
            durable.remove_tree(Path(entry.path))
        elif entry.name.endswith(".part") and entry.is_file():
            durable.remove_file(Path(entry.path))
    for folder in unfinished:
        size = _bytes_below(folder)
        if drop_unfinished or not any(folder.glob("*.record")):
            durable.remove_tree(folder)
            report.freed_bytes += size
        else:
            report.unfinished_bytes += size


def _bytes_below(folder: Path) -> int:
    return sum((Path(root) / name).lstat().st_size for root, _, names in os.walk(folder) for name in names)


def disk_usage(cache: Path, snapshot: Snapshot) -> tuple[int, int]:
    """Bytes that `snapshot` uses (its shards and tables), and bytes of shards that hold nothing of it.

    The latter are former renderings, replaced and deleted images: what gc would free.
    """
    used_bytes = sum(
        (Path(folder) / name).stat().st_size
        for folder, _, names in os.walk(layout.snapshot_dir(cache, snapshot.name))
        for name in names
    )
    other_bytes = 0
    for tensors in os.scandir(cache / "tensors"):
        if not tensors.is_dir() or not layout.image_dir(cache, tensors.name).is_dir():
            continue
        used: set[int] = set()
        if any(len(table) for table in snapshot.splits.values() if table.tensors_id == tensors.name):
            used = used_shards([snapshot], tensors.name, slots_of(cache, tensors.name) or 1)
        for entry in os.scandir(layout.image_dir(cache, tensors.name)):
            shard = layout.shard_number(entry.name)
            if shard in used:
                used_bytes += entry.stat().st_size
            elif shard is not None:
                other_bytes += entry.stat().st_size
    return used_bytes, other_bytes
