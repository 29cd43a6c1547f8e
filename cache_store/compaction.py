"""Packs the shards of the snapshot in force that are partly used: same tensors, same checksums, new slots.

A commit like a build's: new shards, new tables, then the pointer. The shards it leaves are for gc to remove, once no
kept or leased snapshot reaches them.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from cache_store import layout, writer
from cache_store.errors import REPAIR, IntegrityError, NotFoundError
from cache_store.manifest import Snapshot, SplitTable
from cache_store.reader import TensorReader, read_root
from cache_store.records import PendingShard, row_dtype
from cache_store.shard import ShardReader, ShardWriter
from cache_store.snapshots import readable_snapshot

_PACK_BELOW = 0.75
"""Share of a shard's places that are used, below which its chunks are written anew."""


def compact_snapshot(cache: Path) -> tuple[str | None, int]:
    """Publish a snapshot like the one in force, with the chunks of partly used shards packed into new ones.

    Returns
    -------
    name of the new snapshot, None where nothing is to be gained; how many chunks were written anew

    Raises
    ------
    NotFoundError : the cache has no snapshot
    IntegrityError : a chunk, a table or metadata are damaged; nothing was published
    StorageError : the system refused; nothing was published
    """
    root = read_root(cache)
    if root.snapshot is None:
        raise NotFoundError(f"{str(cache)!r} has no snapshot to compact; run decant build SOURCE CACHE")
    snapshot = readable_snapshot(cache, root.snapshot, root.digest)
    build: Path | None = None
    try:
        moves: dict[str, tuple[list[PendingShard], np.ndarray]] = {}
        for tensors_id, digests in snapshot.tensors.items():
            reader = TensorReader(cache, tensors_id, digests)
            chosen = _worth_packing(cache, snapshot, reader)
            if len(chosen):
                build = build or writer.begin(cache)
                moves[tensors_id] = _rewrite(cache, build, snapshot, reader, chosen), chosen
        if build is None:
            return None, 0
        commit = writer.Commit(cache, build)
        commit.tensors = dict(snapshot.tensors)
        places: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
        for tensors_id, (shards, chosen) in moves.items():
            numbers = commit.adopt(tensors_id, shards)
            slots = [n * shard.slots + np.arange(len(shard.rows)) for n, shard in zip(numbers, shards)]
            places[tensors_id] = _moved(chosen, np.concatenate(slots))
        compacted = replace(
            snapshot,
            name=layout.snapshot_name(commit.number),
            parent=commit.parent,
            parent_digest=commit.parent_digest,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            splits={name: _renumbered(table, places) for name, table in snapshot.splits.items()},
        )
        commit.publish(compacted)
        writer.clear_pending([build])
        return compacted.name, sum(len(chosen) for _, chosen in moves.values())
    except BaseException:
        if build is not None:
            for tensors_id in snapshot.tensors:  # should this fail too, the folder stays, and says why a length is odd
                writer.fill_ends(cache, tensors_id)
            writer.clear_pending([build])
        raise


def _tables(snapshot: Snapshot, tensors_id: str) -> Iterator[SplitTable]:
    return (table for table in snapshot.splits.values() if table.tensors_id == tensors_id and len(table))


def _worth_packing(cache: Path, snapshot: Snapshot, reader: TensorReader) -> np.ndarray:
    """Slots to be written anew, ascending: those in shards of which much is unused, if that makes fewer or smaller."""
    used = np.unique(
        np.concatenate([np.zeros(0, np.int64), *(t["slot"].reshape(-1) for t in _tables(snapshot, reader.tensors_id))])
    )
    shards, counts = np.unique(used // reader.slots, return_counts=True)
    chosen, dead = [], 0
    for shard, live in zip(shards.tolist(), counts.tolist()):
        path = layout.shard_file(cache, reader.tensors_id, shard)
        with ShardReader(path, reader.slots, reader.chunk_bytes) as file:
            present = int((file.offsets >= 0).sum())
        if live < _PACK_BELOW * reader.slots:
            chosen.append(shard)
            dead += present - live
    slots = used[np.isin(used // reader.slots, chosen)]
    fewer = -(-len(slots) // reader.slots) < len(chosen)
    return slots if dead or fewer else slots[:0]


def _rewrite(
    cache: Path, build: Path, snapshot: Snapshot, reader: TensorReader, chosen: np.ndarray
) -> list[PendingShard]:
    """The chunks of some slots in new shards, in the same order, each read against the checksum of the manifest."""
    expected = np.zeros(len(chosen), np.uint32)
    for table in _tables(snapshot, reader.tensors_id):
        slots, checksums = table["slot"].reshape(-1), table["checksum"].reshape(-1)
        mine = np.isin(slots, chosen)
        expected[np.searchsorted(chosen, slots[mine])] = checksums[mine]
    shards = []
    chunk = np.empty(reader.chunk_bytes, np.uint8)
    for start in range(0, len(chosen), reader.slots):
        part = chosen[start : start + reader.slots]
        path = build / f"{reader.tensors_id}-{start}.shard"
        rows = np.zeros(len(part), row_dtype(reader.shape[0]))
        with ShardWriter(path, reader.slots, reader.chunk_bytes) as file, contextlib.ExitStack() as opened:
            source, number = None, -1
            for place, slot in enumerate(part.tolist()):
                if slot // reader.slots != number or source is None:
                    number = slot // reader.slots
                    opened.close()
                    old = layout.shard_file(cache, reader.tensors_id, number)
                    source = opened.enter_context(ShardReader(old, reader.slots, reader.chunk_bytes))
                found = source.read_into(slot % reader.slots, chunk)
                if found != expected[start + place]:
                    raise IntegrityError(
                        f"{str(source.path)!r}: slot {slot} has checksum {found:08x}, the manifest says "
                        f"{int(expected[start + place]):08x}; {REPAIR}"
                    )
                file.append(chunk)
        shape = (reader.shape[0], reader.shape[1], reader.shape[2])
        shards.append(PendingShard(path, reader.tensors_id, None, None, reader.slots, shape, rows))
    return shards


def _moved(old: np.ndarray, new: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Where slots are now: those of `old` at `new`, the rest where they were."""

    def place(slots: np.ndarray) -> np.ndarray:
        at = np.minimum(np.searchsorted(old, slots), len(old) - 1)
        return np.where(old[at] == slots, new[at], slots)

    return place


def _renumbered(table: SplitTable, places: dict[str, Callable[[np.ndarray], np.ndarray]]) -> SplitTable:
    place = places.get(table.tensors_id)
    return table if place is None else replace(table, columns={**table.columns, "slot": place(table["slot"])})
