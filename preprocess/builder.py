"""The batch job: scan, plan, run, commit, report; read top to bottom.

A build never changes what is committed. It finds out which renderings the cache lacks, has workers write them into
`pending/<build id>/`, and publishes a snapshot that says where everything is. Killed at any point, it leaves the last
snapshot as it was, and finished shards for the next build.
"""

import errno
import itertools
import math
import os
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cache_store import layout, writer
from cache_store.errors import NotFoundError, StorageError
from cache_store.gc import disk_usage
from cache_store.lock import BuildersLock
from cache_store.manifest import Snapshot, SplitTable, join_strings, no_rows
from cache_store.normalise import mean_and_std, normalisation_table
from cache_store.reader import Cache, open_cache, snapshot_names
from cache_store.records import PendingShard
from cache_store.shard import CHECKSUM_BYTES
from preprocess import augment, environment, probe
from preprocess.catalog import Catalog, committed_rows
from preprocess.departures import departures
from preprocess.errors import (
    FailureBudgetExceeded,
    PixelsWouldDiffer,
    RecipeError,
    ShrinkRefused,
    SourceError,
    UsageError,
)
from preprocess.jobs import Done, Failure, Hashed, Job, NormaliseJob, ReadJob, Setup, Wanted
from preprocess.pipeline import WorkerPool
from preprocess.recipe import Recipe, as_recipe, load_yaml, with_overrides
from preprocess.render import DECODER, DECODERS, Renderer
from preprocess.rendering import Rendering, Statistics
from preprocess.renderings import stored_rendering
from preprocess.report import BuildReport, in_units
from preprocess.scan import Scan, Tally, class_table, propose_splits, scan
from preprocess.sources import Sources, collect, members, recognise

_MIB = 1 << 20
_JOBS_A_WORKER = 8
_LEAST_IMAGES_A_JOB = 8
_HASHED_AT_ONCE = 256
_ESTIMATE_IMAGES = 24
_MANIFEST_BYTES = (107, 60)  # a sample, and on top for each variant
_REMEMBERED_STAGES = ("decode", "render")


class Progress(Protocol):
    """Who watches a build; every call is cheap and may be ignored."""

    def stage(self, name: str, total: int) -> None:
        """A stage of `total` images begins."""

    def update(self, done: int, failed: int) -> None:
        """So many images of the stage are done, and so many failed."""


class _Silent:
    def stage(self, name: str, total: int) -> None: ...

    def update(self, done: int, failed: int) -> None: ...


@dataclass(frozen=True, slots=True)
class _Options:
    workers: int
    limit: int | None
    max_failures: int | str | None
    allow_shrink: bool
    rerender: bool
    retry_failed: bool
    checksum: bool
    shard_mib: float
    stall_s: float
    decoder: str


def build(
    source: str | os.PathLike[str],
    cache: str | os.PathLike[str],
    recipe: Recipe | Mapping[str, Any] | str | os.PathLike[str] | None = None,
    *,
    workers: int | None = None,
    device: str = "auto",
    stats: Statistics | None = None,
    overrides: Iterable[str] = (),
    limit: int | None = None,
    dry_run: bool = False,
    max_failures: int | str | None = None,
    allow_shrink: bool = False,
    rerender: bool = False,
    retry_failed: bool = False,
    checksum: bool = False,
    shard_mib: float = 32,
    stall_s: float = 120,
    decoder: str = DECODER,
    progress: Progress | None = None,
) -> BuildReport:
    """Bring a cache up to date with a folder of images, and publish a snapshot if anything changed.

    Parameters
    ----------
    source : folder of images; it is only read
    cache : folder of the cache; made if it is new
    recipe : a Recipe, plain data, or the path of a YAML file; None: the cache's own, for a new cache the default
    workers : processes; None: one for each processor that this process may use
    device : 'auto' or 'cpu'
    stats : mean and std in 0..1 to use in place of the dataset's own, for `normalize: dataset`
    overrides : KEY=VALUE settings on top of the recipe
    limit : only the first so many images of each split; only into a new cache
    dry_run : plan and estimate; write nothing
    max_failures : images, or a share like '1%'; beyond it nothing is committed. None: the larger of 1 % and 10
    allow_shrink : permit a build that drops more than half of a split
    rerender : make new tensors beside the old where this environment renders other pixels
    retry_failed : try images again that are known not to decode or render
    checksum : hash every file, whatever its time stamps say
    shard_mib : size of a shard of new tensors
    stall_s : longest that one image may take
    decoder : import path of the function that decodes, like `preprocess.decode:decode`
    progress : told how far the build is

    Raises
    ------
    RecipeError, UsageError : nothing was touched
    FailureBudgetExceeded, ShrinkRefused, PixelsWouldDiffer : nothing was committed
    LockedError : another builder works on this cache
    StorageError : disk full or denied; what is finished is kept for the next build
    IntegrityError, FormatError : the cache is damaged, or of another version
    WorkerError : worker processes cannot be started
    """
    started = time.monotonic()
    source_path, cache_path = Path(source).expanduser(), Path(cache).expanduser()
    _check_arguments(source_path, cache_path, device, limit, shard_mib, workers)
    options = _Options(
        workers or _processors(),
        limit,
        max_failures,
        allow_shrink,
        rerender,
        retry_failed,
        checksum,
        shard_mib,
        stall_s,
        decoder,
    )
    overrides = list(overrides)
    job = _Build(source_path, cache_path, options, stats, progress or _Silent(), started)
    if dry_run or not writer.is_ours(cache_path):
        with job.opened():  # what can be refused is refused before a folder is made
            job.prepare(_chosen_recipe(recipe, overrides, job.previous))
            if dry_run:
                return job.estimate()
    writer.claim_folder(cache_path)
    with BuildersLock(cache_path), job.opened():
        if job.previous is not None or not job.prepared:
            job.prepare(_chosen_recipe(recipe, overrides, job.previous))
        return job.run()


def _check_arguments(
    source: Path, cache: Path, device: str, limit: int | None, shard_mib: float, workers: int | None
) -> None:
    if device not in ("auto", "cpu", "cuda"):
        raise UsageError(f"device {device!r} is unknown{augment.nearest(device, ['auto', 'cpu', 'cuda'])}")
    if device == "cuda":
        raise UsageError("device 'cuda': this version renders on the CPU only; use auto or cpu")
    for name, value in (("limit", limit), ("workers", workers)):
        if value is not None and value < 1:
            raise UsageError(f"{name}: 1 or more expected, found {value}")
    if not shard_mib > 0:
        raise UsageError(f"shard_mib: more than 0 expected, found {shard_mib}")
    propose_splits(source)  # SOURCE has to be a folder
    inside, outside = cache.resolve(), source.resolve()
    if inside == outside or outside in inside.parents:
        raise UsageError(f"CACHE {str(cache)!r} lies inside SOURCE {str(source)!r}; name a folder outside of it")
    if inside in outside.parents and (cache / layout.METADATA).exists():
        raise UsageError(f"SOURCE {str(source)!r} lies inside CACHE {str(cache)!r}; name a folder outside of it")


def _processors() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _chosen_recipe(
    given: Recipe | Mapping[str, Any] | str | os.PathLike[str] | None, overrides: list[str], previous: Cache | None
) -> Recipe:
    """The recipe as the user means it: given, or the cache's own, or the default; with the overrides on top."""
    if given is None and previous is not None:
        own = Recipe.from_dict(previous.snapshot.recipe)
        if own.is_default():
            own = own.without_splits()
        given = own
    if not overrides:
        return as_recipe(given) or Recipe()
    if given is None:
        base: Mapping[str, Any] = {}
    elif isinstance(given, Recipe):
        base = given.canonical()
    elif isinstance(given, Mapping):
        base = given
    else:
        base = load_yaml(given)
    return Recipe.from_dict(with_overrides(base, overrides))


@dataclass(slots=True)
class _Build:
    """One build, from scan to report; also the client of its worker pool."""

    source: Path
    cache: Path
    options: _Options
    given_stats: Statistics | None
    progress: Progress
    started: float
    previous: Cache | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    departures: list[str] = field(default_factory=list)
    noted: dict[str, Tally] = field(default_factory=dict)
    rendered: int = 0
    prepared: bool = False

    recipe: Recipe = field(init=False)
    scanned: Scan = field(init=False)
    classes: list[str] = field(init=False)
    sources: Sources = field(init=False)
    renderings: dict[str, Rendering] = field(init=False)
    statistics: Statistics | None = field(init=False)
    pinned: bool = field(init=False, default=False)

    folder: Path = field(init=False)
    pending: list[PendingShard] = field(init=False, default_factory=list)
    setup: list[Rendering] = field(init=False, default_factory=list)
    catalogs: dict[str, Catalog] = field(init=False, default_factory=dict)
    places: dict[str, np.ndarray] = field(init=False, default_factory=dict)
    committed: dict[str, list[tuple[np.ndarray, np.ndarray]]] = field(init=False, default_factory=dict)
    failed_digests: dict[str, dict[bytes, Failure]] = field(init=False, default_factory=dict)
    claimed: set[tuple[str, bytes]] = field(init=False, default_factory=set)
    claims_of_job: dict[int, list[tuple[str, bytes]]] = field(init=False, default_factory=dict)
    job_ids: Any = field(init=False, default_factory=lambda: itertools.count(1))

    # -- what there is ------------------------------------------------------------------------------------------------

    def opened(self) -> "_Build":
        """Open the snapshot in force, if there is one; for a `with` block."""
        try:
            self.previous = open_cache(self.cache)
        except NotFoundError:
            self.previous = None
        return self

    def __enter__(self) -> "_Build":
        return self

    def __exit__(self, *_: object) -> None:
        if self.previous is not None:
            self.previous.close()

    def prepare(self, recipe: Recipe) -> None:
        """Scan SOURCE, settle the recipe and the identity of every split's pixels; writes nothing."""
        if self.previous is not None and self.options.limit is not None:
            raise UsageError(f"limit: {str(self.cache)!r} has a snapshot; a part of SOURCE goes only into a new cache")
        self.departures.clear()
        with self._timed("scan"):
            self.recipe = recipe.with_splits(propose_splits(self.source))
            self.scanned = scan(self.source, self.recipe)
            pinned = self.recipe.classes
            self.classes = class_table(self.scanned, pinned)
            self.sources = collect(self.scanned, self.classes, self.options.limit)
            for folder, why in self.scanned.unreadable.items():
                self._fail_folder(folder, why)
        with self._timed("plan"):
            self._identify()
            self.statistics = self._known_statistics()
            self._remember()
            former_classes = self.previous.snapshot.classes if self.previous is not None else ()
            self.departures += departures(self.recipe, self.scanned, self.classes, former_classes)
        self.prepared = True

    def _fail_folder(self, folder: str, why: str) -> None:
        """A folder that cannot be listed counts as one failure."""
        number = len(self.sources.paths)
        self.sources.paths.append(folder)
        self.sources.stats = np.append(self.sources.stats, np.zeros(1, self.sources.stats.dtype))
        self.sources.labels = np.append(self.sources.labels, -1)
        self.sources.digests = np.append(self.sources.digests, np.zeros((1, 16), np.uint8), axis=0)
        self.sources.known = np.append(self.sources.known, False)
        self.sources.failures[number] = Failure("read", why)

    def _identify(self) -> None:
        """The rendering of each split; refused if the recipe's size is not what the transforms give."""
        self.renderings, probes = {}, {}
        known = self._known_pixels()
        for name in self.recipe.named_splits:
            open_rendering = self.recipe.rendering(name, probe.ENGINE, "")
            key = open_rendering.pixels_id
            if key not in probes:
                probes[key] = probe.probe(open_rendering, self.options.decoder)
            rendering = replace(open_rendering, probe=probes[key])
            self.renderings[name] = rendering
            if rendering.pixels_id not in known:
                self._refuse_other_pixels(name, rendering)
                known.add(rendering.pixels_id)
                self.departures += augment.prove_size(
                    rendering.transforms, rendering.size_hw, rendering.shape[0], f"splits.{name}.transforms"
                )

    def _known_pixels(self) -> set[str]:
        """Identities of the pixels that the snapshot in force holds: their size needs no proof any more."""
        if self.previous is None:
            return set()
        return {self._stored(name).pixels_id for name in self.previous.splits}

    def _stored(self, split: str) -> Rendering:
        assert self.previous is not None
        return stored_rendering(self.previous.tensors(split).attributes)

    def _refuse_other_pixels(self, name: str, rendering: Rendering) -> None:
        if self.previous is None or self.options.rerender:
            return
        for split in self.previous.splits:
            stored = self._stored(split)
            if replace(stored, mean=None, std=None, dtype="", probe="", engine="") != replace(
                rendering, dtype="", probe="", engine=""
            ):
                continue
            then = self.previous.tensors(split).attributes.get("versions", {})
            now = environment.versions()
            changed = [f"{k} {then.get(k)} -> {v}" for k, v in now.items() if then.get(k) != v] or [
                "no version: a library's build or setting"
            ]
            raise PixelsWouldDiffer(
                f"split {name!r}: this environment renders other pixels than the one that filled {str(self.cache)!r}; "
                f"changed: {', '.join(changed)}; either go back to the former environment, or build with --rerender "
                "(new tensors beside the old)"
            )

    def _known_statistics(self) -> Statistics | None:
        """mean and std that are settled before anything is rendered."""
        if self.recipe.fixed_statistics is not None:
            return self.recipe.fixed_statistics
        if self.given_stats is not None:
            mean, std = self.given_stats
            try:
                normalisation_table(mean, std)
            except ValueError as error:
                raise RecipeError(f"stats: {error}") from None
            return tuple(float(v) for v in mean), tuple(float(v) for v in std)
        # Pinned: those of the newest snapshot with `normalize: dataset` and the same channels.
        for name in reversed(snapshot_names(self.cache)) if self.previous is not None else ():
            with open_cache(self.cache, name) as former:
                recipe = former.snapshot.recipe
                if recipe["normalize"] == "dataset" and recipe["channels"] == self.recipe.channels and former.splits:
                    table = next(iter(former.splits.values()))
                    self.pinned = True
                    return table.mean, table.std
        return None

    def _remember(self) -> None:
        """What former builds know: digests of unchanged files, committed renderings, images that do not render."""
        previous = self.previous
        if previous is None:
            return
        tables = list(previous.splits.values())
        failures = [dict(f) | {"path": layout.text_to_name(f["path"])} for f in previous.snapshot.failures]
        if not self.options.checksum:
            recognise(self.sources, tables, failures)
        if not self.options.retry_failed:
            stored = {name: self._stored(name).pixels_id for name in previous.splits}
            same_cap = previous.snapshot.recipe["decode"] == self.recipe.canonical()["decode"]
            for failure in failures:
                pixels_id = stored.get(str(failure.get("split")))
                if same_cap and pixels_id and failure["digest"] and failure["stage"] in _REMEMBERED_STAGES:
                    known = self.failed_digests.setdefault(pixels_id, {})
                    known[bytes.fromhex(failure["digest"])] = Failure(failure["stage"], failure["reason"])
        if self.statistics is None and self.recipe.dtype == "float16":
            return
        wanted = {self._final(r).tensors_id for r in self.renderings.values()}
        for name in snapshot_names(self.cache):
            with open_cache(self.cache, name) as former:
                for table in former.splits.values():
                    if table.tensors_id in wanted and len(table):
                        self.committed.setdefault(table.tensors_id, []).append(committed_rows(table))

    def _final(self, rendering: Rendering) -> Rendering:
        return rendering.with_statistics(self.statistics)

    # -- what there is to do ------------------------------------------------------------------------------------------

    def run(self) -> BuildReport:
        """Render what is missing and publish; the builders' lock is held."""
        recovered, old_folders = writer.recover(self.cache)
        splits = members(self.sources, self.recipe)
        if self.previous is not None and self._nothing_to_do(splits):
            writer.clear_pending(old_folders)
            return self._report(self.previous.snapshot, up_to_date=True)
        self.folder = writer.begin(self.cache)
        self.pending = self._usable(recovered)
        self.setup = list({r.pixels_id: self._final(r) for r in self.renderings.values()}.values())
        setup = Setup(self.folder, tuple(self.setup), self.options.decoder, self.recipe.max_pixels)
        with WorkerPool(setup, self.options.workers, self.options.stall_s) as pool:
            with self._timed("hash"):
                self._hash_first(pool)
            splits = members(self.sources, self.recipe)
            self._refuse_shrinking(splits)
            self._check_disk(splits)
            with self._timed("render"):
                self._render_missing(pool, splits)
            with self._timed("normalise"):
                self._settle_statistics(splits)
                self._normalise(pool)
        if self.previous is not None and not self.pending and self._nothing_to_do(splits):
            writer.clear_pending([*old_folders, self.folder])
            return self._report(self.previous.snapshot, up_to_date=True)
        with self._timed("commit"):
            snapshot = self._commit(splits)
            writer.clear_pending([*old_folders, self.folder])
        return self._report(snapshot)

    def _usable(self, recovered: list[PendingShard]) -> list[PendingShard]:
        """Shards of interrupted builds that this build can use, verified chunk by chunk."""
        usable: list[PendingShard] = []
        slots: dict[str, int] = {}
        by_pixels = {r.pixels_id: r for r in self.renderings.values()}
        for shard in recovered:
            rendering = by_pixels.get(shard.pixels_id)
            if rendering is None or shard.shape != rendering.shape:
                continue
            expected = slots.setdefault(shard.pixels_id, self._existing_slots(rendering) or shard.slots)
            if shard.slots == expected and writer.verify_pending(shard):
                usable.append(shard)
        return usable

    def _existing_slots(self, rendering: Rendering) -> int | None:
        final = self._final(rendering)
        if final.dtype == "float16" and final.mean is None:
            return None
        return writer.slots_of(self.cache, final.tensors_id)

    def _slots(self, rendering: Rendering) -> int:
        """S: of the existing tensors, of an interrupted build's shards, or what the setting asks for."""
        existing = self._existing_slots(rendering)
        if existing is not None:
            return existing
        for shard in self.pending:
            if shard.pixels_id == rendering.pixels_id:
                return shard.slots
        return max(1, round(self.options.shard_mib * _MIB / rendering.chunk_bytes))

    def _catalog(self, rendering: Rendering) -> Catalog:
        """What exists of a rendering: committed slots (their number in `places`), pending shards (-1 - number)."""
        key = rendering.pixels_id
        if key not in self.catalogs:
            tables, places = [], []
            for number, shard in enumerate(self.pending):
                if shard.pixels_id == key:
                    tables.append(shard.rows)
                    places.append(np.full(len(shard.rows), -1 - number, np.int64))
            final = self._final(rendering)
            if final.dtype == "uint8" or final.mean is not None:
                for rows, slots in self.committed.get(final.tensors_id, []):
                    tables.append(rows)
                    places.append(slots)
            self.catalogs[key] = Catalog(rendering.shape[0], tables)
            self.places[key] = np.concatenate([np.zeros(0, np.int64), *places])
        return self.catalogs[key]

    def _missing(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Which of a split's sources lack a variant and have not failed: bool (n,)."""
        rendering = self.renderings[name]
        found = self._catalog(rendering).find(self.sources.digests[numbers], self.recipe.named_splits[name].variants)
        missing = (found < 0).any(axis=1) | ~self.sources.known[numbers]
        refused = self.failed_digests.get(rendering.pixels_id, {})
        for place in np.flatnonzero(missing):
            number = int(numbers[place])
            if self.sources.known[number]:
                failure = refused.get(self.sources.digests[number].tobytes())
                if failure is not None:
                    self.sources.failures.setdefault(number, failure)
            if number in self.sources.failures:
                missing[place] = False
        return missing

    def _nothing_to_do(self, splits: dict[str, np.ndarray]) -> bool:
        """Whether the snapshot in force is what a build would publish."""
        assert self.previous is not None
        if any(self._missing(name, numbers).any() for name, numbers in splits.items()):
            return False
        former = self.previous.snapshot
        if list(former.classes) != self.classes or former.recipe != self.recipe.canonical():
            return False
        if list(former.splits) != list(splits) or list(former.failures) != self._failure_rows(splits):
            return False
        for name, numbers in splits.items():
            table, kept = former.splits[name], self._survivors(numbers)
            if table.tensors_id != self._final(self.renderings[name]).tensors_id or len(table) != len(kept):
                return False
            if (table.mean, table.std) != self.statistics:
                return False
            columns = self._source_columns(kept)
            if not all(np.array_equal(table[column], values) for column, values in columns.items()):
                return False
        return True

    def _survivors(self, numbers: np.ndarray) -> np.ndarray:
        if not self.sources.failures:
            return numbers
        return numbers[~np.isin(numbers, np.fromiter(self.sources.failures, np.int64))]

    def _source_columns(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """The manifest's columns that come from the sources alone."""
        sources = self.sources
        paths, ends = join_strings([os.fsencode(sources.paths[i]) for i in numbers])
        columns = {name: sources.stats[name][numbers] for name in sources.stats.dtype.names or ()}
        return columns | {
            "path": paths,
            "path_end": ends,
            "label": sources.labels[numbers],
            "digest": sources.digests[numbers],
        }

    def _refuse_shrinking(self, splits: dict[str, np.ndarray]) -> None:
        if self.previous is None or self.options.allow_shrink:
            return
        for name, table in self.previous.splits.items():
            now = len(splits.get(name, ()))
            if name in splits and now * 2 < len(table):
                raise ShrinkRefused(
                    f"split {name!r} would shrink from {len(table):,} to {now:,} images; is SOURCE "
                    f"{str(self.source)!r} mounted and whole? Build with --allow-shrink if it is meant; "
                    "nothing was committed"
                )

    # -- disk ---------------------------------------------------------------------------------------------------------

    def _needed_bytes(self, splits: dict[str, np.ndarray]) -> tuple[int, int]:
        """Bytes that the build adds at its peak, and variants to render, if every unknown file is new."""
        needed = variants = 0
        for name, numbers in splits.items():
            rendering, k = self.renderings[name], self.recipe.named_splits[name].variants
            usable = self._survivors(numbers)
            found = self._catalog(rendering).find(self.sources.digests[usable], k)
            lacking = int((found < 0).sum())
            # Files that were not read yet may be what an interrupted build has rendered.
            unread = int((~self.sources.known[usable]).sum()) * k
            lacking -= min(unread, sum(len(s.rows) for s in self.pending if s.pixels_id == rendering.pixels_id))
            variants += lacking
            needed += lacking * (rendering.chunk_bytes + CHECKSUM_BYTES + 16)
            needed += len(usable) * (_MANIFEST_BYTES[0] + _MANIFEST_BYTES[1] * k)
            if rendering.dtype == "float16" and self.statistics is None:
                # While normalising, each worker has one staged shard beside its normalised one.
                needed += min(lacking, self._slots(rendering) * self.options.workers) * rendering.chunk_bytes // 2
        staged = sum(shard.chunk_bytes * len(shard.rows) for shard in self.pending if shard.mean is None)
        return needed + (staged if self.recipe.dtype == "float16" else 0), variants

    def _free_bytes(self) -> int:
        there = next(folder for folder in (self.cache.absolute(), *self.cache.absolute().parents) if folder.exists())
        found = os.statvfs(there)
        return found.f_bavail * found.f_frsize

    def _check_disk(self, splits: dict[str, np.ndarray]) -> None:
        needed, free = self._needed_bytes(splits)[0], self._free_bytes()
        if needed > free:
            raise StorageError(
                errno.ENOSPC,
                f"the build needs up to {in_units(needed)} more in {str(self.cache)!r}, {in_units(free)} are free; "
                "free some space, use dtype: uint8 (half the size), a smaller size or fewer variants",
            )

    def estimate(self) -> BuildReport:
        """What a build would do: counts, disk, and time from images rendered here."""
        splits = members(self.sources, self.recipe)
        self._refuse_shrinking(splits)
        for name, numbers in splits.items():
            self._missing(name, numbers)  # names the known failures
        needed, variants = self._needed_bytes(splits)
        report = self._report(self.previous.snapshot if self.previous else None, splits=splits)
        report.dry_run, report.rendered = True, variants
        report.reused = max(
            0, sum(len(self._survivors(n)) * report.variants[name] for name, n in splits.items()) - variants
        )
        for name, split in self.recipe.named_splits.items():
            if split.from_ is not None and not self.sources.known.all():
                report.departures.append(
                    f"split {name!r} takes {split.fraction:.0%} of {split.from_!r} by content: how many exactly shows "
                    "when the files have been read"
                )
        report.peak_bytes, report.free_bytes = needed, self._free_bytes()
        report.estimated_s = self._estimated_s(splits)
        return report

    def _estimated_s(self, splits: dict[str, np.ndarray]) -> float:
        from preprocess.worker import read_source

        total = 0.0
        for name, numbers in splits.items():
            lacking = numbers[self._missing(name, numbers)]
            if not len(lacking):
                continue
            renderer = Renderer(self.renderings[name], self.options.decoder, self.recipe.max_pixels)
            chosen = lacking[np.linspace(0, len(lacking) - 1, min(len(lacking), _ESTIMATE_IMAGES)).astype(int)]
            begun = time.perf_counter()
            for number in chosen:
                try:
                    data, _ = read_source(os.fsencode(self.source / self.sources.paths[number]))
                    image = renderer.decode(data).image
                    for k in range(self.recipe.named_splits[name].variants):
                        renderer.pixels(image, b"\0" * 16, k)
                except SourceError:
                    continue
            total += (time.perf_counter() - begun) / len(chosen) * len(lacking)
        return total / self.options.workers

    # -- running ------------------------------------------------------------------------------------------------------

    def _hash_first(self, pool: WorkerPool) -> None:
        """Settle by digest which files are known by another name or time, before planning what to render.

        The rest of the unknown files are hashed by the job that renders them.
        """
        unknown = np.flatnonzero(~self.sources.known)
        unknown = self._survivors(unknown)
        divided = {s.from_ for s in self.recipe.named_splits.values() if s.from_ is not None}
        wanted = np.zeros(len(self.sources), bool)
        for name in divided:
            wanted[slice(*self.sources.ranges[str(name)])] = True
        if self.previous is not None:
            tables = self.previous.splits.values()
            sizes = np.concatenate([np.zeros(0, np.int64), *(table["size"] for table in tables)])
            listed = np.array([f["size"] for f in self.previous.snapshot.failures], np.int64)
            wanted |= np.isin(self.sources.stats["size"], np.concatenate([sizes, listed]))
        numbers = unknown[wanted[unknown]]
        if not len(numbers):
            return
        self.progress.stage("hash", len(numbers))
        self._run(pool, self._read_jobs(numbers, -1, 0, _HASHED_AT_ONCE))

    def _render_missing(self, pool: WorkerPool, splits: dict[str, np.ndarray]) -> None:
        """Run waves of jobs until nothing is missing. One is the rule; another follows where a file that equal ones
        waited for could not be rendered after all."""
        begun = False
        while True:
            jobs: list[Job] = []
            images = 0
            self.claimed.clear()
            self.claims_of_job.clear()
            for number, rendering in enumerate(self.setup):
                names = [n for n, r in self.renderings.items() if r.pixels_id == rendering.pixels_id]
                for k in sorted({self.recipe.named_splits[n].variants for n in names}, reverse=True):
                    parts = [
                        splits[n][self._missing(n, splits[n])]
                        for n in names
                        if self.recipe.named_splits[n].variants == k
                    ]
                    missing = np.concatenate(parts)
                    jobs += self._read_jobs(missing, number, k, self._slots(rendering))
                    images += len(missing)
            if not jobs:
                return
            if not begun:
                self.progress.stage("render", images)
                begun = True
            self._run(pool, jobs)
            self.catalogs.clear()

    def _run(self, pool: WorkerPool, jobs: Sequence[Job]) -> None:
        with self._timed("start"):
            pool.start(len(jobs))
        pool.run(jobs, self)

    def _read_jobs(self, numbers: np.ndarray, rendering: int, variants: int, slots: int) -> list[ReadJob]:
        """Jobs of at most S images, as many as keep all workers busy to the end.

        Images are taken in the order of a checksum of their paths: every shard then holds a mixture of classes, so
        that reading shard by shard is close to reading at random.
        """
        root = os.fsencode(self.source)
        paths = {int(i): os.fsencode(self.sources.paths[i]) for i in numbers}
        order = sorted(paths, key=lambda i: (zlib.crc32(paths[i]), paths[i]))
        workers = self.options.workers
        count = -(-len(order) // slots)
        if count < workers * _JOBS_A_WORKER:
            count = min(-(-count // workers) * workers, -(-len(order) // _LEAST_IMAGES_A_JOB))
        size = -(-len(order) // count) if count else 1
        jobs = []
        for start in range(0, len(order), size):
            items = tuple(order[start : start + size])
            files = tuple(os.path.join(root, paths[i]) for i in items)
            jobs.append(ReadJob(self.new_job_id(), rendering, items, files, variants, slots))
        return jobs

    def new_job_id(self) -> int:
        return int(next(self.job_ids))

    def hashed(self, job: ReadJob, answer: Hashed) -> Wanted:
        """Note what was read, and ask for the variants that nothing else provides."""
        items = np.array(job.items)
        good = np.array([place not in answer.failures for place in range(len(items))], bool)
        self.sources.digests[items[good]] = answer.digests[good]
        self.sources.stats[items[good]] = answer.stats[good]
        self.sources.known[items[good]] = True
        if job.rendering < 0:
            return Wanted(())
        rendering = self.setup[job.rendering]
        key = rendering.pixels_id
        found = self._catalog(rendering).find(answer.digests, job.variants)
        refused = self.failed_digests.get(key, {})
        wanted = []
        for place in np.flatnonzero(good).tolist():
            digest = answer.digests[place].tobytes()
            missing = tuple(np.flatnonzero(found[place] < 0).tolist())
            if not missing or digest in refused:
                continue
            if (key, digest) in self.claimed:
                continue  # an equal file is on its way
            self.claimed.add((key, digest))
            self.claims_of_job.setdefault(job.job_id, []).append((key, digest))
            wanted.append((place, missing))
        return Wanted(tuple(wanted))

    def done(self, job: Job, answer: Done) -> None:
        if isinstance(job, NormaliseJob):
            # The staged shard has served; the disk has room for the next ones.
            number = self.pending.index(job.shard)
            self.pending[number] = answer.shards[0]
            for path in (job.shard.record_path, job.shard.path):
                path.unlink(missing_ok=True)
            return
        self.pending += answer.shards
        self.rendered += sum(len(shard.rows) for shard in answer.shards)
        for place, failure in answer.failures.items():
            self._fail(job, place, failure)
        for place, notes in answer.notes.items():
            for note in notes:
                self.noted.setdefault(note, Tally()).add(self.sources.paths[job.items[place]])
        self._check_budget()

    def _fail(self, job: ReadJob, place: int, failure: Failure) -> None:
        number = job.items[place]
        self.sources.failures[number] = failure
        if failure.stage in _REMEMBERED_STAGES and self.sources.known[number] and job.rendering >= 0:
            key = self.setup[job.rendering].pixels_id
            self.failed_digests.setdefault(key, {})[self.sources.digests[number].tobytes()] = failure

    def poisoned(self, job: ReadJob, reason: str) -> None:
        stage = "decode" if self.sources.known[job.items[0]] else "read"
        self._fail(job, 0, Failure(stage, reason))
        self._check_budget()

    def dropped(self, job: Job) -> None:
        self.claimed.difference_update(self.claims_of_job.pop(job.job_id, ()))
        for path in self.folder.glob(f"{job.job_id:08d}-*"):
            path.unlink(missing_ok=True)

    def update(self, done: int, failed: int) -> None:
        self.progress.update(done, failed)

    def _check_budget(self) -> None:
        failures, total = self.sources.failures, len(self.sources)
        budget = _budget(self.options.max_failures, total)
        if len(failures) <= budget:
            return
        first = itertools.islice(failures.items(), 5)
        shown = [f"  {self.sources.paths[i]}: {f.stage}: {f.reason}" for i, f in first]
        raise FailureBudgetExceeded(
            f"{len(failures):,} of {total:,} images failed, the budget is {budget:,}; nothing was committed. "
            + "First ones:\n"
            + "\n".join(shown)
            + "\nMend or remove them, or raise the budget with --max-failures N or N%"
        )

    # -- statistics ---------------------------------------------------------------------------------------------------

    def _settle_statistics(self, splits: dict[str, np.ndarray]) -> None:
        """The dataset's own mean and std, from the sums of all its variants, unless they are known."""
        survivors = {name: self._survivors(numbers) for name, numbers in splits.items()}
        if not any(len(numbers) for numbers in survivors.values()):
            self._check_budget()
            raise FailureBudgetExceeded(
                f"none of {len(self.sources):,} images could be used; nothing was committed. First one: "
                + next(
                    (f"{self.sources.paths[i]}: {f.stage}: {f.reason}" for i, f in self.sources.failures.items()),
                    "none",
                )
            )
        self._check_budget()
        if self.statistics is not None:
            return
        order = sorted(survivors, key=lambda name: name != "train")  # `train`, else the first listed
        name = next(name for name in order if len(survivors[name]))
        rendering = self.renderings[name]
        catalog = self._catalog(rendering)
        found = catalog.find(self.sources.digests[survivors[name]], self.recipe.named_splits[name].variants).reshape(-1)
        sums = [[sum(catalog.rows[c][found, i].tolist()) for i in range(rendering.shape[0])] for c in ("sum", "sumsq")]
        mean, std = mean_and_std(sums[0], sums[1], len(found) * rendering.pixels)
        for channel, value in enumerate(std):
            if value == 0:
                std[channel] = 1.0
                self.departures.append(
                    f"channel {channel} has the same value in every pixel of {name!r}; its std is taken as 1"
                )
        try:
            normalisation_table(mean, std)
        except ValueError as error:
            raise RecipeError(f"normalize: the statistics of {name!r} cannot be used: {error}") from None
        self.statistics = tuple(mean), tuple(std)
        self.catalogs.clear()

    def _normalise(self, pool: WorkerPool) -> None:
        """One pass over pending shards that hold other values than the final ones; no image is decoded again."""
        final = {r.pixels_id: self._final(r) for r in self.renderings.values()}
        jobs = [
            NormaliseJob(self.new_job_id(), shard, final[shard.pixels_id].statistics)
            for shard in self.pending
            if (shard.mean, shard.std) != (final[shard.pixels_id].statistics or (None, None))
        ]
        if jobs:
            self.progress.stage("normalise", sum(len(job) for job in jobs))
            self._run(pool, jobs)
        self.catalogs.clear()

    # -- commit -------------------------------------------------------------------------------------------------------

    def _commit(self, splits: dict[str, np.ndarray]) -> Snapshot:
        assert self.statistics is not None
        commit = writer.Commit(self.cache, self.folder)
        versions = environment.versions()
        for rendering in {r.pixels_id: self._final(r) for r in self.renderings.values()}.values():
            spec = writer.TensorsSpec(
                rendering.tensors_id,
                rendering.describe(),
                rendering.mean,
                rendering.std,
                rendering.engine,
                rendering.probe,
                versions,
                rendering.shape,
                self._slots(rendering),
            )
            commit.ensure_tensors(spec)
            self._adopt(commit, rendering, splits)
        tables = {name: self._table(name, self._survivors(numbers)) for name, numbers in splits.items()}
        snapshot = Snapshot(
            name=layout.snapshot_name(commit.number),
            parent=self.previous.snapshot.name if self.previous else None,
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            seconds=round(time.monotonic() - self.started, 3),
            recipe=self.recipe.canonical(),
            classes=tuple(self.classes),
            splits=tables,
            failures=tuple(self._failure_rows(splits)),
            tensors=commit.tensors,
        )
        commit.publish(snapshot)
        writer.leave_source_hint(self.cache, self.source)
        return snapshot

    def _adopt(self, commit: writer.Commit, rendering: Rendering, splits: dict[str, np.ndarray]) -> None:
        """Move the pending shards that a split needs into the tensors, and note their slots as committed."""
        catalog, places = self._catalog(rendering), self.places[rendering.pixels_id]
        used: set[int] = set()
        for name, numbers in splits.items():
            if self.renderings[name].pixels_id == rendering.pixels_id:
                k = self.recipe.named_splits[name].variants
                found = catalog.find(self.sources.digests[self._survivors(numbers)], k)
                used |= set(np.unique(places[found]).tolist())
        shards = [self.pending[-1 - place] for place in sorted((p for p in used if p < 0), reverse=True)]
        numbers_of = commit.adopt(rendering.tensors_id, shards)
        slots = writer.slots_of(self.cache, rendering.tensors_id)
        for shard, number in zip(shards, numbers_of, strict=True):
            assert slots == shard.slots, "a pending shard has another S than its tensors"
            table = (shard.rows, number * shard.slots + np.arange(len(shard.rows)))
            self.committed.setdefault(rendering.tensors_id, []).append(table)
        self.pending = [shard for shard in self.pending if shard.pixels_id != rendering.pixels_id]
        self.catalogs.clear()

    def _table(self, name: str, numbers: np.ndarray) -> SplitTable:
        assert self.statistics is not None
        rendering, k = self._final(self.renderings[name]), self.recipe.named_splits[name].variants
        catalog = self._catalog(rendering)
        found = catalog.find(self.sources.digests[numbers], k)
        assert (found >= 0).all(), "a sample without a slot"
        rows = catalog.rows[found]
        columns = no_rows(k, rendering.shape[0])
        if len(numbers):
            columns = self._source_columns(numbers) | {
                "slot": self.places[rendering.pixels_id][found],
                "source_hw": rows["source_hw"][:, 0],
                **{column: rows[column] for column in ("checksum", "sum", "sumsq", "decoder")},
            }
        return SplitTable(
            rendering.tensors_id, self.statistics[0], self.statistics[1], self.scanned.scanned_ns, DECODERS, columns
        )

    def _failure_rows(self, splits: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """Failures as the snapshot keeps them, in the order of the sources."""
        split_of = {int(number): name for name, numbers in splits.items() for number in numbers}
        rows = []
        for number, failure in sorted(self.sources.failures.items()):
            stats = self.sources.stats[number]
            rows.append(
                {
                    "path": layout.name_to_text(self.sources.paths[number]),
                    "split": split_of.get(number),
                    "stage": failure.stage,
                    "reason": failure.reason,
                    "size": int(stats["size"]),
                    "mtime": int(stats["mtime_ns"]),
                    "digest": self.sources.digests[number].tobytes().hex() if self.sources.known[number] else None,
                }
            )
        return rows

    # -- report -------------------------------------------------------------------------------------------------------

    def _report(
        self, snapshot: Snapshot | None, *, up_to_date: bool = False, splits: dict[str, np.ndarray] | None = None
    ) -> BuildReport:
        report = BuildReport(str(self.cache), up_to_date=up_to_date, classes=len(self.classes), rendered=self.rendered)
        report.variants = {name: split.variants for name, split in self.recipe.named_splits.items()}
        if splits is not None:
            report.samples = {name: len(self._survivors(numbers)) for name, numbers in splits.items()}
            report.failures = self._failure_rows(splits)
        elif snapshot is not None:
            report.samples = {name: len(table) for name, table in snapshot.splits.items()}
            report.failures = [dict(failure) for failure in snapshot.failures]
        if snapshot is not None:
            report.snapshot = snapshot.name
            first = next(iter(snapshot.splits.values()))
            report.mean, report.std = list(first.mean), list(first.std)
            report.cache_bytes, report.reclaimable_bytes = disk_usage(self.cache, snapshot)
            stored = sum(len(t) * t.variants for t in snapshot.splits.values())
            report.reused = max(0, stored - self.rendered)
        for kind, tally in self.noted.items():
            lost = "only their high byte was kept" if kind == "16-bit" else "it was dropped"
            self.departures.append(f"{tally.count:,} images with {kind}: {lost} ({tally.shown()})")
        report.departures = self.departures
        report.seconds = {stage: round(s, 3) for stage, s in self.seconds.items()}
        return report

    def _timed(self, stage: str) -> "_Timer":
        return _Timer(self.seconds, stage)


class _Timer:
    """Adds a block's wall time to its stage; a stage inside another one counts for itself alone."""

    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._begun = time.monotonic()
        self._others = sum(self._seconds.values())

    def __exit__(self, *_: object) -> None:
        inside = sum(self._seconds.values()) - self._others
        spent = time.monotonic() - self._begun - inside
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + spent


def _budget(setting: int | str | None, total: int) -> int:
    """How many images may fail: a number, a share like '1%', or by default the larger of 1 % and 10."""
    if setting is None:
        return max(math.floor(total * 0.01), 10)
    text = str(setting).strip()
    try:
        if text.endswith("%"):
            share = float(text[:-1])
            if 0 <= share <= 100:
                return math.floor(total * share / 100)
        elif int(text) >= 0:
            return int(text)
    except ValueError:
        pass
    raise UsageError(f"max_failures: a number like 100 or a share like 1% expected, found {setting!r}")
