"""What exists of each rendering, committed or pending, and what is still missing."""

from dataclasses import dataclass, field

import numpy as np

from cache_store import writer
from cache_store.records import PendingShard
from cache_store.shard import CHECKSUM_BYTES, index_bytes
from preprocess.catalog import Catalog
from preprocess.plan import Plan
from preprocess.rendering import Rendering

_MIB = 1 << 20
_MOST_SLOTS = 4096
"""Largest S: a shard's index has room for all of its slots, however few are filled, and small changes fill few."""
_MANIFEST_BYTES = (107, 60)  # a sample, and on top for each variant


@dataclass(slots=True)
class Stock:
    """Finished renderings of one build.

    Attributes
    ----------
    shard_mib : size of a shard of new tensors
    pending : finished shards that no snapshot has yet; changed by `add`, `replace` and `adopt` alone
    """

    plan: Plan
    shard_mib: float
    pending: list[PendingShard] = field(default_factory=list)
    _found: dict[str, tuple[Catalog, np.ndarray]] = field(default_factory=dict)

    def add_recovered(self, shards: list[PendingShard]) -> None:
        """Take what interrupted builds have finished, as far as this build can use it; read and verified."""
        by_pixels = {rendering.pixels_id: rendering for rendering in self.plan.renderings.values()}
        slots: dict[str, int] = {}
        for shard in shards:
            rendering = by_pixels.get(shard.pixels_id)
            if rendering is None or shard.shape != rendering.shape:
                continue
            expected = slots.setdefault(shard.pixels_id, self._existing_slots(rendering) or shard.slots)
            if shard.slots == expected and writer.verify_pending(shard):
                self.pending.append(shard)
        self._found.clear()

    def add(self, shards: tuple[PendingShard, ...]) -> None:
        self.pending += shards

    def replace(self, old: PendingShard, new: PendingShard) -> None:
        self.pending[next(i for i, shard in enumerate(self.pending) if shard is old)] = new

    def refresh(self) -> None:
        """Count in what was added or replaced since the last look; not done by itself, as a look is not for nothing."""
        self._found.clear()

    def slots(self, rendering: Rendering) -> int:
        """S: of the existing tensors, of an interrupted build's shards, or what the setting asks for."""
        existing = self._existing_slots(rendering)
        if existing is not None:
            return existing
        for shard in self.pending:
            if shard.pixels_id == rendering.pixels_id:
                return shard.slots
        return min(max(1, round(self.shard_mib * _MIB / rendering.chunk_bytes)), _MOST_SLOTS)

    def slots_to_publish(self, rendering: Rendering) -> int:
        """S that the pending shards have; they were staged when it was not known yet which tensors they would join."""
        mine = (shard.slots for shard in self.pending if shard.pixels_id == rendering.pixels_id)
        return next(mine, 0) or self.slots(rendering)

    def _existing_slots(self, rendering: Rendering) -> int | None:
        final = self.plan.final(rendering)
        if final.dtype == "float16" and final.mean is None:
            return None
        return writer.slots_of(self.plan.cache, final.tensors_id)

    def look(self, rendering: Rendering) -> tuple[Catalog, np.ndarray]:
        """All rows of a rendering, and the place of each: its slot if committed, -1 - number of its pending shard."""
        key = rendering.pixels_id
        if key not in self._found:
            tables, places = [], []
            for number, shard in enumerate(self.pending):
                if shard.pixels_id == key:
                    tables.append(shard.rows)
                    places.append(np.full(len(shard.rows), -1 - number, np.int64))
            final = self.plan.final(rendering)
            if final.dtype == "uint8" or final.mean is not None:
                for rows, slots in self.plan.committed.get(final.tensors_id, []):
                    tables.append(rows)
                    places.append(slots)
            catalog = Catalog(rendering.shape[0], tables)
            self._found[key] = catalog, np.concatenate([np.zeros(0, np.int64), *places])
        return self._found[key]

    def find(self, split: str, numbers: np.ndarray) -> np.ndarray:
        """Row of each variant of each source in `look`, -1 where there is none: int64 (n, K)."""
        catalog, _ = self.look(self.plan.renderings[split])
        return catalog.find(self.plan.sources.digests[numbers], self.plan.variants(split))

    def missing(self, split: str, numbers: np.ndarray) -> np.ndarray:
        """Those of the sources that lack a variant and have not failed.

        Sources whose content is known to be unusable are noted as failed.
        """
        sources = self.plan.sources
        lacking = numbers[(self.find(split, numbers) < 0).any(axis=1) | ~sources.known[numbers]]
        refused = self.plan.refused.get(self.plan.renderings[split].pixels_id, {})
        for number in lacking.tolist() if refused else ():
            failure = refused.get(sources.digests[number].tobytes()) if sources.known[number] else None
            if failure is not None:
                sources.failures.setdefault(number, failure)
        return self.plan.survivors(lacking)

    def needed(self, splits: dict[str, np.ndarray], workers: int) -> tuple[int, int]:
        """Bytes that the build adds to the disk at its peak, and variants to render, if every unread file is new."""
        needed = variants = 0
        for name, numbers in splits.items():
            rendering, k = self.plan.renderings[name], self.plan.variants(name)
            usable = self.plan.survivors(numbers)
            lacking = int((self.find(name, usable) < 0).sum())
            # Files that were not read yet may be what an interrupted build has rendered.
            unread = int((~self.plan.sources.known[usable]).sum()) * k
            pending = sum(len(shard.rows) for shard in self.pending if shard.pixels_id == rendering.pixels_id)
            lacking -= min(unread, pending)
            variants += lacking
            slots = self.slots(rendering)
            shards = -(-lacking // slots) + workers * k  # the last of each worker and variant is partly filled
            needed += lacking * (rendering.chunk_bytes + CHECKSUM_BYTES) + (
                shards * index_bytes(slots) if lacking else 0
            )
            needed += len(usable) * (_MANIFEST_BYTES[0] + _MANIFEST_BYTES[1] * k)
            if rendering.dtype == "float16" and self.plan.statistics is None:
                # While normalising, each worker has one staged shard beside its normalised one.
                needed += min(lacking, slots * workers) * rendering.chunk_bytes // 2
        staged = sum(shard.chunk_bytes * len(shard.rows) for shard in self.pending if shard.mean is None)
        return needed + (staged if self.plan.recipe.dtype == "float16" else 0), variants

    def adopt(self, commit: writer.Commit, rendering: Rendering, splits: dict[str, np.ndarray]) -> None:
        """Move the pending shards that a split needs into the tensors; their rows count as committed from now on."""
        _, places = self.look(rendering)
        used: set[int] = set()
        for name, numbers in splits.items():
            if self.plan.renderings[name].pixels_id == rendering.pixels_id:
                found = self.find(name, self.plan.survivors(numbers))
                used |= set(np.unique(places[found]).tolist())
        shards = [self.pending[-1 - place] for place in sorted((p for p in used if p < 0), reverse=True)]
        for shard, number in zip(shards, commit.adopt(rendering.tensors_id, shards), strict=True):
            slots = number * shard.slots + np.arange(len(shard.rows))
            self.plan.committed.setdefault(rendering.tensors_id, []).append((shard.rows, slots))
        self.pending = [shard for shard in self.pending if shard.pixels_id != rendering.pixels_id]
        self._found.clear()
