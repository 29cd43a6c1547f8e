"""What no snapshot in force reaches."""

import os
from pathlib import Path

import numpy as np

from cache_store import layout
from cache_store.manifest import Snapshot
from cache_store.writer import slots_of


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
        tables = [split["slot"] for split in snapshot.splits.values() if split.tensors_id == tensors.name]
        used: set[int] = set()
        if any(len(table) for table in tables):
            slots = slots_of(cache, tensors.name)
            used = {int(shard) for table in tables for shard in np.unique(table // slots)} if slots else set()
        for entry in os.scandir(layout.image_dir(cache, tensors.name)):
            shard = layout.shard_number(entry.name)
            if shard in used:
                used_bytes += entry.stat().st_size
            elif shard is not None:
                other_bytes += entry.stat().st_size
    return used_bytes, other_bytes
