"""The shards that one job fills."""

from pathlib import Path
from typing import Any

import numpy as np

from cache_store.durable import start_writeback
from cache_store.records import PendingShard, row_dtype, write_record
from cache_store.shard import ShardWriter
from preprocess.jobs import ReadJob, Wanted
from preprocess.render import Chunk, Stored
from preprocess.rendering import Rendering


class JobShards:
    """One shard a variant, so that a training epoch reads few files; or, where all of the job fits into one shard, just
    that one, so that small changes make few files.

    Leaving a `with` block finishes them; by an exception, it removes those that are not finished.

    Attributes
    ----------
    finished : with their records on disk; empty before the end
    """

    def __init__(self, folder: Path, job: ReadJob, rendering: Rendering, wanted: Wanted) -> None:
        self._folder, self._job, self._rendering = folder, job, rendering
        self._one = sum(len(variants) for _, variants in wanted.files) <= job.slots
        self._writers: dict[int, ShardWriter] = {}
        self._paths: dict[int, Path] = {}
        self._rows: dict[int, list[tuple[Any, ...]]] = {}
        self.finished: tuple[PendingShard, ...] = ()

    def append(self, stored: Stored, chunk: Chunk, digest: np.ndarray) -> None:
        """Write what was fetched of a variant, whose source has this digest, uint8 (16,).

        Raises
        ------
        StorageError : the disk is full, or refuses
        """
        key = 0 if self._one else stored.variant
        if key not in self._writers:
            self._open(key)
        checksum = self._writers[key].append(chunk.tensor)
        about = stored.source_hw, stored.decoder
        self._rows[key].append((digest, stored.variant, checksum, chunk.total, chunk.total_of_squares, *about))

    def _open(self, key: int) -> None:
        path = self._folder / f"{self._job.job_id:08d}-{key}.shard"
        planes_bytes = int(np.prod(self._rendering.shape))
        chunk_bytes = planes_bytes if self._rendering.statistics is None else 2 * planes_bytes
        self._writers[key] = ShardWriter(path, self._job.slots, chunk_bytes)
        self._paths[key], self._rows[key] = path, []

    def __enter__(self) -> "JobShards":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.discard()

    def discard(self) -> None:
        """Remove those that are not finished, for whatever reason."""
        for writer in self._writers.values():
            writer.discard()
        self._writers.clear()

    def finish(self) -> None:
        """Complete each shard, and publish its record."""
        mean, std = self._rendering.statistics or (None, None)
        finished = []
        for key in list(self._writers):
            self._writers[key].close()
            del self._writers[key]
            rows = np.array(self._rows[key], row_dtype(self._rendering.shape[0]))
            shard = PendingShard(
                self._paths[key], self._rendering.pixels_id, mean, std, self._job.slots, self._rendering.shape, rows
            )
            if self._rendering.dtype == "uint8" or mean is not None:
                start_writeback(shard.path)  # final bytes; staged ones are gone before the disk needs to see them
            write_record(shard)
            finished.append(shard)
        self.finished = tuple(finished)
