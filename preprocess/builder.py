"""The batch job: scan, plan, run, commit, report; read top to bottom.

A build never changes what is committed. It finds out which renderings the cache lacks, has workers write them into
`pending/<build id>/`, and publishes a snapshot that says where everything is. Killed at any point, it leaves the last
snapshot as it was, and finished shards for the next build.
"""

import contextlib
import errno
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache_store import layout, writer
from cache_store.errors import NotFoundError, StorageError
from cache_store.gc import disk_usage
from cache_store.lock import BuildersLock
from cache_store.manifest import Snapshot
from cache_store.reader import Cache, open_cache
from preprocess import environment
from preprocess.augment import nearest
from preprocess.budget import FailureBudget
from preprocess.departures import lost_in_decoding
from preprocess.duplicates import duplicates
from preprocess.effort import tell_effort
from preprocess.engines import DEVICES
from preprocess.errors import UsageError
from preprocess.estimate import estimated_s
from preprocess.former import counts, note_read_formerly
from preprocess.jobs import Setup
from preprocess.labels import class_counts, unlabelled
from preprocess.pipeline import WorkerPool
from preprocess.plan import Plan, PlanOptions, make_plan
from preprocess.publish import Splits, failure_rows, is_current, publish
from preprocess.reading import presumed_splits
from preprocess.recipe import Recipe, as_recipe, load_yaml, with_overrides
from preprocess.refusals import check_disk, free_bytes, reclaimable, refuse_shifting, refuse_shrinking
from preprocess.render import DECODER
from preprocess.rendering import NVJPEG, Statistics
from preprocess.report import BuildReport, in_units
from preprocess.run import Progress, Run, Silent, hash_first
from preprocess.scales import enlarged
from preprocess.scan import check_folder
from preprocess.statistics import current_statistics, drift, drift_in_words
from preprocess.stock import Stock
from preprocess.timer import Timer
from preprocess.work import recipe_changes, work_of

_CHANGES_SHOWN = 8

RecipeLike = Recipe | Mapping[str, Any] | str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True)
class _Settings:
    """What a build was asked for, the plan's part apart."""

    workers: int | None
    budget: FailureBudget
    allow_shrink: bool
    recipe_given: bool
    shard_mib: float
    stall_s: float
    decoder: str
    progress: Progress
    announce: Callable[[str], None]

    def workers_of(self, plan: Plan) -> int:
        """Processes: as asked for, else one for each processor, or for each GPU."""
        on_gpu = any(rendering.engine == NVJPEG for rendering in plan.renderings.values())
        return self.workers or ((environment.gpus() or 1) if on_gpu else processors())


def build(
    source: str | os.PathLike[str],
    cache: str | os.PathLike[str],
    recipe: RecipeLike = None,
    *,
    workers: int | None = None,
    device: str = "auto",
    stats: Statistics | None = None,
    overrides: Iterable[str] = (),
    limit: int | None = None,
    dry_run: bool = False,
    strict: bool = False,
    max_failures: int | str | None = None,
    allow_shrink: bool = False,
    rerender: bool = False,
    retry_failed: bool = False,
    checksum: bool = False,
    refresh_stats: bool = False,
    shard_mib: float = 32,
    stall_s: float = 120,
    decoder: str = DECODER,
    progress: Progress | bool | None = None,
    announce: Callable[[str], None] | None = None,
) -> BuildReport:
    """Bring a cache up to date with a folder of images, and publish a snapshot if anything changed.

    Parameters
    ----------
    source : folder of images; it is only read
    cache : folder of the cache; made if it is new
    recipe : a Recipe, plain data, or the path of a YAML file; None: the cache's own, for a new cache the default
    workers : processes; None: one for each processor that this process may use, or one for each GPU
    device : 'auto': that of the tensors that are there, for a new cache the GPU if there is one; 'cpu'; 'cuda'; or
        'torch-cpu', the GPU's renderer on the CPU: slow, for comparisons
    stats : mean and std in 0..1 to use in place of the dataset's own, for `normalize: dataset`
    overrides : KEY=VALUE settings on top of the recipe
    limit : only the first so many images of each split; only into a new cache
    dry_run : plan and estimate; write nothing
    strict : commit nothing if a single image fails, or if class ids mean other classes than before
    max_failures : images, or a share like '1%'; beyond it nothing is committed. None: the larger of 1 % and 10
    allow_shrink : permit a build that drops more than half of a split
    rerender : make new tensors beside the old where this environment renders other pixels
    retry_failed : try images again that are known not to decode or render
    checksum : hash every file, whatever its time stamps say
    refresh_stats : take the statistics of the images as they are now; tensors are normalised anew, nothing is decoded
    shard_mib : size of a shard of new tensors
    stall_s : longest that one image may take
    decoder : import path of the function that decodes, like `preprocess.decode:decode`
    progress : told how far the build is; True: a bar in a terminal or a notebook, and in a log a line now and then
    announce : told, before anything is rendered, what a changed recipe costs; None: what progress=True shows, if it is

    Raises
    ------
    RecipeError, UsageError : nothing was touched
    FailureBudgetExceeded, ShrinkRefused, ShiftRefused, PixelsWouldDiffer : nothing was committed
    LockedError : another builder works on this cache
    StorageError : disk full or denied; what is finished is kept for the next build
    IntegrityError, FormatError : the cache is damaged, or of another version
    WorkerError : worker processes cannot be started
    """
    timer = Timer()
    source_path, cache_path = layout.given_path(source), layout.given_path(cache)
    check_arguments(source_path, cache_path, device, limit, shard_mib, workers)
    options = PlanOptions(decoder, device, stats, limit, rerender, retry_failed, checksum, refresh_stats)
    settled = list(overrides)
    writer.refuse_foreign(cache_path)

    def planned(previous: Cache | None) -> Plan:
        with timer.stage("plan"):
            chosen = chosen_recipe(recipe, settled, source_path, previous)
            plan = make_plan(source_path, cache_path, chosen, previous, options)
        if strict:
            refuse_shifting(plan)
        return plan

    plan = None
    with _watched(progress, announce) as (watcher, tell):
        settings = _Settings(
            workers,
            FailureBudget(0 if strict else max_failures),
            allow_shrink,
            recipe is not None,
            shard_mib,
            stall_s,
            decoder,
            watcher,
            tell,
        )
        if dry_run or not writer.is_ours(cache_path):
            with _Previous(cache_path) as previous:  # what can be refused is refused before a folder is made
                plan = planned(previous)
                if dry_run:
                    return _estimate(plan, previous, settings, timer)
        writer.claim_folder(cache_path)
        with BuildersLock(cache_path), _Previous(cache_path) as previous:
            if plan is None or previous is not None:
                plan = planned(previous)
            with _way_out_of_a_full_disk(cache_path, previous):
                return _build(plan, previous, settings, timer)


@contextlib.contextmanager
def _watched(
    progress: Progress | bool | None, announce: Callable[[str], None] | None
) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """Who watches a build, and who is told what it costs."""
    if progress is True:
        from preprocess.progress import progress_bar

        with progress_bar() as shown:
            yield shown, announce or shown.say
    else:
        yield progress or Silent(), announce or (lambda text: None)


def _build(plan: Plan, previous: Cache | None, settings: _Settings, timer: Timer) -> BuildReport:
    """Render what is missing and publish; the builders' lock is held."""
    cache = plan.cache
    stock = Stock(plan, settings.shard_mib)
    recovered, old_folders = writer.recover(cache)
    with timer.stage("hash"):
        read = hash_first(plan, known_sizes(previous), settings.workers_of(plan), settings.stall_s, settings.progress)
    note_read_formerly(plan, previous)
    splits = plan.members()
    # Shards of an interrupted build with another recipe may still be wanted by whoever goes on with that one.
    ours = {rendering.pixels_id for rendering in plan.renderings.values()}
    others = [shard for shard in recovered if shard.pixels_id not in ours]
    if others:
        old_folders = [path for path in old_folders if path not in {shard.path.parent for shard in others}]
        kept = in_units(sum(shard.chunk_bytes * len(shard.rows) for shard in others))
        plan.departures.append(
            f"{kept} that an interrupted build with another recipe has finished are kept for its next run; "
            "'decant gc --drop-unfinished' frees them"
        )
    if previous is not None and is_current(previous.snapshot, plan, stock, splits):
        settings.budget.check(plan.sources)
        writer.clear_pending(old_folders)
        _leave_hint(plan, previous, read)
        return _report(plan, previous.snapshot, timer, up_to_date=True)
    if not settings.allow_shrink:
        refuse_shrinking(plan, previous, splits, recipe_given=settings.recipe_given)
    folder = writer.begin(cache)
    with timer.stage("resume"):
        stock.add_recovered(recovered)
    check_disk(plan, stock, splits, settings.workers_of(plan), previous)
    _announce(plan, stock, splits, previous, settings)
    setup = Setup(folder, tuple(plan.distinct()), settings.decoder, plan.recipe.max_pixels)
    with WorkerPool(setup, settings.workers_of(plan), settings.stall_s) as pool:
        run = Run(plan, stock, folder, pool, settings.workers_of(plan), settings.budget, settings.progress, timer)
        with timer.stage("render"):
            run.render_missing(splits)
        with timer.stage("normalise"):
            run.settle_statistics(splits)
        if previous is not None and is_current(previous.snapshot, plan, stock, splits):
            writer.clear_pending([*old_folders, folder])  # what was tried again failed again
            _leave_hint(plan, previous, read)
            return _report(plan, previous.snapshot, timer, up_to_date=True)
        with timer.stage("normalise"):
            while not run.normalise(splits):
                with timer.stage("render"):
                    run.render_missing(splits)
    with timer.stage("commit"):
        commit = writer.Commit(cache, folder)
        snapshot = publish(plan, stock, splits, commit, timer.total_s())
        writer.clear_pending([*old_folders, folder])
    report = _report(plan, snapshot, timer, run)
    tell_effort(report, plan, snapshot, run, commit.flush_s)
    return report


def _leave_hint(plan: Plan, previous: Cache, read: int) -> None:
    """Spare the next build what this one has found out about the snapshot, if it had to read files for it."""
    if read or any(table.read_formerly is None for table in previous.splits.values()):
        writer.leave_scan_hint(plan.cache, previous.snapshot.name, plan.scanned_ns, plan.read_formerly)


def _estimate(plan: Plan, previous: Cache | None, settings: _Settings, timer: Timer) -> BuildReport:
    """What a build would do: counts, disk, and time from images rendered here."""
    with timer.stage("hash"):
        hash_first(plan, known_sizes(previous), settings.workers_of(plan), settings.stall_s, settings.progress)
        note_read_formerly(plan, previous)
    stock, splits = Stock(plan, settings.shard_mib), plan.members()
    if not settings.allow_shrink:
        refuse_shrinking(plan, previous, splits, recipe_given=settings.recipe_given)
    for name, numbers in splits.items():
        stock.missing(name, numbers)  # names the images that are known to fail
    _announce(plan, stock, splits, previous, settings)
    report = _report(plan, previous.snapshot if previous is not None else None, timer)
    report.dry_run = True
    labels = {name: plan.sources.labels[plan.survivors(numbers)] for name, numbers in splits.items()}
    report.samples = {name: len(column) for name, column in labels.items()}
    report.class_counts, report.unlabelled = class_counts(plan.classes, labels), unlabelled(labels)
    report.failures = failure_rows(plan, splits)
    report.peak_bytes, report.rendered = stock.needed(splits, settings.workers_of(plan))
    wanted = sum(count * report.variants[name] for name, count in report.samples.items())
    report.reused = max(0, wanted - report.rendered)
    report.free_bytes = free_bytes(plan.cache)
    report.estimated_s = estimated_s(plan, stock, splits, settings.workers_of(plan), settings.decoder)
    return report


def _report(
    plan: Plan, snapshot: Snapshot | None, timer: Timer, run: Run | None = None, *, up_to_date: bool = False
) -> BuildReport:
    report = BuildReport(str(plan.cache), up_to_date=up_to_date, classes=len(plan.classes), shift=plan.shift)
    report.variants = {name: plan.variants(name) for name in plan.recipe.named_splits}
    report.engines = {name: rendering.engine for name, rendering in plan.renderings.items()}
    report.rendered = run.rendered if run is not None else 0
    report.normalised = run.normalised if run is not None else 0
    if snapshot is not None:
        report.snapshot = snapshot.name
        report.samples = {name: len(table) for name, table in snapshot.splits.items()}
        labels = {name: table["label"] for name, table in snapshot.splits.items()}
        report.class_counts, report.unlabelled = class_counts(snapshot.classes, labels), unlabelled(labels)
        report.failures = [dict(failure) for failure in snapshot.failures]
        first = next(iter(snapshot.splits.values()))
        report.mean, report.std = list(first.mean), list(first.std)
        report.cache_bytes, report.reclaimable_bytes = disk_usage(plan.cache, snapshot)
        stored = sum(len(table) * table.variants for table in snapshot.splits.values())
        report.reused = max(0, stored - report.rendered)
    report.departures = list(plan.departures)
    report.read_formerly = counts(plan.read_formerly)
    if snapshot is not None:
        report.departures += duplicates(snapshot.splits)
    if snapshot is not None and snapshot.recipe["normalize"] == "dataset":  # a dry run may have another recipe
        pinned, now = (first.mean, first.std), current_statistics(snapshot.splits, math.prod(snapshot.recipe["size"]))
        if now is not None:
            report.drift = drift(pinned, now)
            report.departures += filter(None, [drift_in_words(pinned, now)])
    report.departures += lost_in_decoding(run.noted) if run is not None else []
    if snapshot is not None and run is not None:
        report.departures += enlarged(snapshot, plan)
    report.seconds = {stage: round(seconds, 3) for stage, seconds in timer.seconds.items()}
    return report


def _announce(plan: Plan, stock: Stock, splits: Splits, previous: Cache | None, settings: _Settings) -> None:
    """Say what another recipe costs, before it does."""
    changes = recipe_changes(previous.snapshot.recipe, plan.recipe.canonical()) if previous is not None else []
    if not changes:
        return
    work = work_of(plan, stock, splits, previous).values()
    cost = (
        f"{sum(one.render for one in work):,} variants to render, {sum(one.normalise for one in work):,} to normalise "
        f"anew, {in_units(sum(one.added_bytes for one in work))} more on disk"
    )
    keys = "; ".join(f"{key} {change}" for key, change in changes[:_CHANGES_SHOWN])
    more = f"; and {len(changes) - _CHANGES_SHOWN} more" if len(changes) > _CHANGES_SHOWN else ""
    plan.departures.append(f"the recipe changed: {keys}{more}: {cost}")
    settings.announce(plan.departures[-1])


class _Previous:
    """The snapshot in force, opened for a `with` block; None for a cache that has none yet."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._opened: Cache | None = None

    def __enter__(self) -> Cache | None:
        try:
            self._opened = open_cache(self._cache)
        except NotFoundError:
            self._opened = None
        return self._opened

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()


def check_arguments(
    source: Path, cache: Path, device: str, limit: int | None, shard_mib: float, workers: int | None
) -> None:
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is unknown{nearest(device, DEVICES)}")
    for name, value in (("limit", limit), ("workers", workers)):
        if value is not None and value < 1:
            raise UsageError(f"{name}: 1 or more expected, found {value}")
    if not 0 < shard_mib < math.inf:
        raise UsageError(f"shard_mib: more than 0 expected, found {shard_mib}")
    check_folder(source)
    inside, outside = Path(os.path.realpath(cache)), Path(os.path.realpath(source))  # `resolve` raises of a loop
    if inside == outside or outside in inside.parents:
        raise UsageError(f"CACHE {str(cache)!r} lies inside SOURCE {str(source)!r}; name a folder outside of it")
    if inside in outside.parents and (cache / layout.METADATA).exists():
        raise UsageError(f"SOURCE {str(source)!r} lies inside CACHE {str(cache)!r}; name a folder outside of it")


def processors() -> int:
    """How many this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def chosen_recipe(given: RecipeLike, overrides: list[str], source: Path, previous: Cache | None) -> Recipe:
    """The recipe as the user means it: given, or the cache's own, or the default; with the overrides on top."""
    if given is None and previous is not None:
        kept = previous.snapshot
        given = Recipe.from_dict(kept.recipe).reopened(splits_written=kept.splits_written)
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
    if base.get("splits") is None and any(override.startswith("splits.") for override in overrides):
        # splits.train.variants=4 on a recipe for every split that is found: the others are still meant.
        found = presumed_splits(source, previous.snapshot if previous is not None else None)
        values = with_overrides({**base, "splits": {name: {} for name, _ in found}}, overrides)
        splits = values["splits"] if isinstance(values["splits"], Mapping) else {}
        added = [split for name, split in splits.items() if name not in dict(found)]
        if all(isinstance(split, Mapping) and "from" in split for split in added):
            return Recipe.from_dict(values)
        base = {**base, "splits": {name: {"folder": folder} for name, folder in found}}
    return Recipe.from_dict(with_overrides(base, overrides))


def known_sizes(previous: Cache | None) -> np.ndarray:
    """Sizes of the files that a snapshot knows, failed ones included: int64 (n,)."""
    if previous is None:
        return np.zeros(0, np.int64)
    failed = np.array([failure["size"] for failure in previous.snapshot.failures], np.int64)
    return np.concatenate([failed, *(table["size"] for table in previous.splits.values())])


@contextlib.contextmanager
def _way_out_of_a_full_disk(cache: Path, previous: Cache | None) -> Iterator[None]:
    """Says of a disk that fills up what `gc` would free on it."""
    try:
        yield
    except StorageError as error:
        advice = reclaimable(cache, previous).removesuffix("; ") if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        if not advice:
            raise
        raise StorageError(error.errno, f"{error}; {advice}") from error
