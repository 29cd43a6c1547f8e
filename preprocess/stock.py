"""What exists of each rendering, committed or pending, and what is still missing."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cache_store import layout, writer
from cache_store.canonical import DIGEST_BYTES
from cache_store.records import PendingShard
from cache_store.shard import CHECKSUM_BYTES, index_bytes
from preprocess.catalog import Catalog, among
from preprocess.history import Held
from preprocess.jobs import NormaliseJob, Part
from preprocess.plan import Plan
from preprocess.rendering import Rendering

_MIB = 1 << 20
_MOST_SLOTS = 4096
"""Largest S: a shard's index has room for all of its slots, however few are filled, and small changes fill few."""
_MANIFEST_BYTES = (107, 60)  # a sample, and on top for each variant


@dataclass(frozen=True, slots=True)
class Look:
    """All finished rows of one rendering.

    Attributes
    ----------
    catalog : finds them by digest and variant; committed ones of the final tensors are preferred to pending ones, and
        these to committed ones that are normalised otherwise
    origins : where rows come from, one for each table of the catalog
    """

    catalog: Catalog
    origins: tuple[Held | PendingShard, ...]

    def place(self, rows: np.ndarray) -> np.ndarray:
        """Of each row its slot in committed tensors, or its place in a pending shard: int64, of the same shape."""
        places = self.catalog.index(rows)
        table = self.catalog.table(rows)
        for number, origin in enumerate(self.origins):
            if isinstance(origin, Held):  # there are few of them
                here = table == number
                places[here] = origin.slots[places[here]]
        return places


@dataclass(slots=True)
class Stock:
    """Finished renderings of one build.

    Attributes
    ----------
    shard_mib : size of a shard of new tensors
    pending : finished shards that no snapshot has yet; changed by the methods here alone
    """

    plan: Plan
    shard_mib: float
    pending: list[PendingShard] = field(default_factory=list)
    _found: dict[str, Look] = field(default_factory=dict)

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

    def take_normalised(self, job: NormaliseJob, shards: tuple[PendingShard, ...], damaged: list[int]) -> list[Path]:
        """What a job made takes the place of the pending shards that it was made from, and damaged tensors are
        forgotten; returns the files that have served."""
        served, start = [], 0
        for part in job.parts:
            shard, end = part.shard, start + len(part.places)
            lost = part.places[[item - start for item in damaged if start <= item < end]]
            start = end
            number = layout.shard_number(shard.path.name)
            if number is not None:
                if len(lost):
                    self.plan.history.drop(shard.path.parent.parent.name, number * shard.slots + lost)
            elif len(lost) or any(pending is shard for pending in self.pending):
                self.pending = [pending for pending in self.pending if pending.path != shard.path]
                served += [shard.record_path, shard.path]
        self.pending += shards
        return served

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

    def _existing_slots(self, rendering: Rendering) -> int | None:
        final = self.plan.final(rendering)
        if final.dtype == "float16" and final.mean is None:
            return None
        return writer.slots_of(self.plan.cache, final.tensors_id)

    def look(self, rendering: Rendering) -> Look:
        """All finished rows of a rendering, as of the last `refresh`."""
        key = rendering.pixels_id
        if key not in self._found:
            pending = [shard for shard in self.pending if shard.pixels_id == key]
            held = self.plan.history.of(key)
            final = self._final_id(rendering)
            origins: list[Held | PendingShard] = [
                *reversed([one for one in held if one.tensors_id != final]),
                *pending,
                *reversed([one for one in held if one.tensors_id == final]),  # newer snapshots count first
            ]
            self._found[key] = Look(Catalog(rendering.shape[0], [o.rows for o in origins]), tuple(origins))
        return self._found[key]

    def _final_id(self, rendering: Rendering) -> str | None:
        """Identity of the tensors that a rendering ends up in; None while its statistics are not known."""
        final = self.plan.final(rendering)
        return None if final.dtype == "float16" and final.mean is None else final.tensors_id

    def find(self, split: str, numbers: np.ndarray) -> np.ndarray:
        """Row of each variant of each source in `look`, -1 where there is none: int64 (n, K)."""
        catalog = self.look(self.plan.renderings[split]).catalog
        return catalog.find(self.plan.sources.digests[numbers], self.plan.variants(split))

    def note_refused(self, split: str, numbers: np.ndarray) -> None:
        """Note as failed those of the sources whose content failed under this very recipe."""
        refused = self.plan.refused.get(self.plan.renderings[split].pixels_id, {})
        if not refused:
            return
        sources = self.plan.sources
        known = numbers[sources.known[numbers]]
        digests = np.frombuffer(b"".join(refused), np.uint8).reshape(-1, DIGEST_BYTES)
        for number in known[among(sources.digests[known], digests)].tolist():
            sources.failures.setdefault(number, refused[sources.digests[number].tobytes()])

    def missing(self, split: str, numbers: np.ndarray) -> np.ndarray:
        """Those of the sources that lack a variant and have not failed.

        Sources whose content is known to be unusable are noted as failed.
        """
        sources = self.plan.sources
        lacking = numbers[(self.find(split, numbers) < 0).any(axis=1) | ~sources.known[numbers]]
        if (len(lacking) or self.to_normalise(split, numbers)) and self.plan.history.look_back():
            self.refresh()
            return self.missing(split, numbers)
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
            lacking += self.to_normalise(name, usable)
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

    def _used(self, rendering: Rendering, splits: dict[str, np.ndarray]) -> np.ndarray:
        """Rows of `look` that the splits need, each once, sorted."""
        names = [name for name in splits if self.plan.renderings[name].pixels_id == rendering.pixels_id]
        found = [self.find(name, self.plan.survivors(splits[name])).reshape(-1) for name in names]
        rows = np.unique(np.concatenate(found))
        return rows[rows >= 0]

    def _is_final(self, rendering: Rendering, origin: Held | PendingShard, slots: int) -> bool:
        final = self.plan.final(rendering)
        if isinstance(origin, Held):
            return origin.tensors_id == final.tensors_id
        return (origin.mean, origin.std) == (final.mean, final.std) and origin.slots == slots

    def to_normalise(self, split: str, numbers: np.ndarray) -> int:
        """How many committed tensors of other statistics these sources need."""
        rendering = self.plan.renderings[split]
        look, final = self.look(rendering), self._final_id(rendering)
        other = [isinstance(origin, Held) and origin.tensors_id != final for origin in look.origins]
        found = np.unique(self.find(split, numbers))
        return int(np.array(other, bool)[look.catalog.table(found[found >= 0])].sum()) if any(other) else 0

    def normalise_jobs(self, splits: dict[str, np.ndarray], new_job_id: Callable[[], int]) -> list[NormaliseJob]:
        """Jobs that bring all needed tensors which hold other values than the final ones to those.

        A staged shard becomes one shard. Tensors out of committed shards, of which only some may be needed, are put
        together variant by variant, as new ones are; all in one shard if they fit.
        """
        jobs = []
        for rendering in self.plan.distinct():
            look, slots = self.look(rendering), self.slots(rendering)
            rows = self._used(rendering, splits)
            final = [self._is_final(rendering, origin, slots) for origin in look.origins]
            loose = []
            for number, wanted in look.catalog.by_table(rows):
                origin = look.origins[number]
                if final[number]:
                    continue
                if isinstance(origin, PendingShard) and origin.slots == slots:
                    jobs.append(NormaliseJob(new_job_id(), (Part.whole(origin),), rendering.statistics, slots))
                else:
                    loose.append(rows[wanted])
            for run in _runs(np.concatenate([np.zeros(0, np.int64), *loose]), look, slots):
                parts = tuple(self._parts(run, look))
                jobs.append(NormaliseJob(new_job_id(), parts, rendering.statistics, slots))
        return jobs

    def _parts(self, rows: np.ndarray, look: Look) -> Iterator[Part]:
        """The shards that some rows are in, and where."""
        slots = {
            o.tensors_id: writer.slots_of(self.plan.cache, o.tensors_id) for o in look.origins if isinstance(o, Held)
        }
        each = np.array([slots[o.tensors_id] if isinstance(o, Held) else o.slots for o in look.origins], np.int64)
        origin, places = look.catalog.table(rows), look.place(rows)
        number = places // each[origin]
        edges = [0, *(np.flatnonzero((np.diff(origin) != 0) | (np.diff(number) != 0)) + 1).tolist(), len(rows)]
        for start, end in itertools.pairwise(edges):
            found, part, s = look.origins[origin[start]], slice(start, end), int(each[origin[start]])
            own = found.rows[look.catalog.index(rows[part])]
            if isinstance(found, Held):
                of = found.rendering
                file = layout.shard_file(self.plan.cache, found.tensors_id, int(number[start]))
                shard = PendingShard(file, of.pixels_id, of.mean, of.std, s, of.shape, own)
                yield Part(shard, places[part] % s)
            else:
                yield Part(replace(found, rows=own), places[part])

    def adopt(self, commit: writer.Commit, rendering: Rendering, splits: dict[str, np.ndarray]) -> None:
        """Move the pending shards that a split needs into the tensors; their rows count as committed from now on."""
        look = self.look(rendering)
        numbers = np.unique(look.catalog.table(self._used(rendering, splits))).tolist()
        shards = [origin for n in numbers if isinstance(origin := look.origins[n], PendingShard)]
        for shard, number in zip(shards, commit.adopt(rendering.tensors_id, shards), strict=True):
            slots = number * shard.slots + np.arange(len(shard.rows))
            self.plan.history.add(rendering.tensors_id, rendering, shard.rows, slots)
        self.pending = [shard for shard in self.pending if shard.pixels_id != rendering.pixels_id]
        self._found.clear()


def _runs(rows: np.ndarray, look: Look, slots: int) -> Iterator[np.ndarray]:
    """Rows shard by shard: all in one if they fit, otherwise variant by variant; in the order in which they lie."""
    variant = look.catalog.column("variant", rows)
    if len(rows) <= slots:
        variant = np.zeros(len(rows), np.int64)
    order = np.lexsort((look.place(rows), look.catalog.table(rows), variant))
    for k in np.unique(variant).tolist():
        same = rows[order[variant[order] == k]]
        yield from (same[start : start + slots] for start in range(0, len(same), slots))
