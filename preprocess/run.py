"""Has workers hash, render and normalise what a plan lacks; the client of their pool."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from cache_store.normalise import normalisation_table
from preprocess.budget import FailureBudget
from preprocess.claims import Claims
from preprocess.clock import STAGES, by_stage
from preprocess.errors import FailureBudgetExceeded, RecipeError
from preprocess.hashing import hash_files
from preprocess.jobs import Done, Failure, Files, Hashed, Job, NormaliseJob, ReadJob, Wanted
from preprocess.paths import by_checksum
from preprocess.pipeline import WorkerPool
from preprocess.plan import REMEMBERED_STAGES, Plan
from preprocess.read import most_bytes
from preprocess.rendering import OPENCV, Rendering
from preprocess.scan import Tally
from preprocess.statistics import exact_statistics, statistics_split
from preprocess.stock import Stock
from preprocess.timer import Timer

_JOBS_A_WORKER = 8
_LEAST_IMAGES_A_JOB = 8


class Progress(Protocol):
    """Who watches a build; every call is cheap and may be ignored. Who also has `work` is a `WorkWatcher`."""

    def stage(self, name: str, total: int) -> None:
        """A stage of `total` images begins."""

    def update(self, done: int, failed: int) -> None:
        """So many images of the stage are done, and so many failed."""


@runtime_checkable
class WorkWatcher(Protocol):
    """Who also wants to know what takes the time."""

    def work(self, spent_s: Mapping[str, float]) -> None:
        """What workers have spent on each of `clock.STAGES` so far, all of them together."""


class Silent:
    """Progress that nobody watches."""

    def stage(self, name: str, total: int) -> None: ...

    def update(self, done: int, failed: int) -> None: ...


def hash_first(plan: Plan, known_sizes: np.ndarray, threads: int, stall_s: float, progress: Progress) -> int:
    """Settle by digest which files are known by another name or time, before planning what to render.

    The rest of the unknown files are hashed by the job that renders them (docs/decisions/003).

    Parameters
    ----------
    known_sizes : of files that the snapshot in force knows

    Returns
    -------
    how many files were read
    """
    sources = plan.sources
    wanted = ~sources.known
    wanted[wanted] = np.isin(sources.stats["size"][wanted], known_sizes)
    for split in plan.recipe.named_splits.values():
        if split.from_ is not None:  # the digest decides which split a file belongs to
            wanted[slice(*sources.ranges[split.from_])] = True
    numbers = plan.survivors(np.flatnonzero(wanted & ~sources.known))
    if not len(numbers):
        return 0
    progress.stage("hash", len(numbers))
    root = os.fsencode(plan.source)
    most = most_bytes(plan.recipe.max_pixels)
    answer = hash_files(Files(root, sources.paths, numbers), threads, stall_s, progress.update, most)
    sources.take(numbers, answer)
    for place, failure in answer.failures.items():
        sources.failures[int(numbers[place])] = failure
    return len(numbers)


@dataclass(slots=True)
class Run:
    """The part of a build that workers do.

    Attributes
    ----------
    folder : `pending/<build id>/`
    rendered : variants rendered so far
    normalised : variants that this build did not render, written anew without decoding
    noted : what decoding dropped ('16-bit', 'alpha') -> sources
    spent_ns : time of all workers by `clock.STAGES`
    transforms_ns : of each rendering's transforms, by pixels_id; without those of an engine that does not tell
    """

    plan: Plan
    stock: Stock
    folder: Path
    pool: WorkerPool
    workers: int
    budget: FailureBudget
    progress: Progress
    timer: Timer
    rendered: int = 0
    normalised: int = 0
    noted: dict[str, Tally] = field(default_factory=dict)
    spent_ns: np.ndarray = field(default_factory=lambda: np.zeros(len(STAGES), np.int64))
    transforms_ns: dict[str, np.ndarray] = field(default_factory=dict)
    _staged: set[Path] = field(default_factory=set)  # shards that this build rendered
    _damaged: int = 0
    _renderings: list[Rendering] = field(default_factory=list)
    _claims: dict[str, Claims] = field(default_factory=dict)
    _job_ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def render_missing(self, splits: dict[str, np.ndarray]) -> None:
        """Run waves of jobs until nothing is missing. One is the rule; another follows where a file that equal ones
        waited for could not be rendered after all."""
        self._renderings = self.plan.distinct()
        for wave in itertools.count():
            jobs: list[ReadJob] = []
            self._claims.clear()
            for number, rendering in enumerate(self._renderings):
                names = [name for name, r in self.plan.renderings.items() if r.pixels_id == rendering.pixels_id]
                for k in sorted({self.plan.variants(name) for name in names}, reverse=True):
                    parts = [self.stock.missing(n, splits[n]) for n in names if self.plan.variants(n) == k]
                    jobs += self._read_jobs(np.concatenate(parts), number, k, self.stock.slots(rendering))
            if not jobs:
                return
            if wave == 0:
                self.progress.stage("render", sum(len(job) for job in jobs))
            self._do(jobs)
            self.stock.refresh()

    def settle_statistics(self, splits: dict[str, np.ndarray]) -> None:
        """The dataset's own mean and std, from the sums of all its variants, unless they are known."""
        plan = self.plan
        self.budget.check(plan.sources)
        survivors = {name: plan.survivors(numbers) for name, numbers in splits.items()}
        if not any(len(numbers) for numbers in survivors.values()):
            raise FailureBudgetExceeded(
                f"none of {len(plan.sources):,} images could be used; nothing was committed. First ones:\n"
                + self.budget.examples(plan.sources)
            )
        if plan.statistics is not None:
            return
        name = statistics_split({name: len(numbers) for name, numbers in survivors.items()})
        rendering = plan.renderings[name]
        catalog, rows = self.stock.look(rendering).catalog, self.stock.find(name, survivors[name])
        sums, sums_of_squares = catalog.column("sum", rows), catalog.column("sumsq", rows)
        mean, std = exact_statistics(sums, sums_of_squares, rendering.pixels)
        for channel, value in enumerate(std):
            if value == 0:
                std[channel] = 1.0
                text = f"channel {channel} has the same value in every pixel of {name!r}; its std is taken as 1"
                plan.departures.append(text)
        try:
            normalisation_table(mean, std)
        except ValueError as error:
            raise RecipeError(f"normalize: the statistics of {name!r} cannot be used: {error}") from None
        plan.statistics = tuple(mean), tuple(std)
        self.stock.refresh()

    def normalise(self, splits: dict[str, np.ndarray]) -> bool:
        """One pass over finished tensors that hold other values than the final ones; no image is decoded again.

        False if some turned out to be damaged: their images are missing now.
        """
        jobs = self.stock.normalise_jobs(splits, self.new_job_id)
        if not jobs:
            return True
        self.progress.stage("normalise", sum(len(job) for job in jobs))
        damaged = self._damaged
        self._do(jobs)
        self.stock.refresh()
        return self._damaged == damaged

    def _do(self, jobs: Sequence[Job]) -> None:
        with self.timer.stage("start"):
            self.pool.start(jobs)
        self.pool.run(jobs, self)

    def _read_jobs(self, numbers: np.ndarray, rendering: int, variants: int, slots: int) -> list[ReadJob]:
        """Jobs of at most S images, as many as keep all workers busy to the end.

        Images are taken in the order of a checksum of their paths: every shard then holds a mixture of classes, so
        that reading shard by shard is close to reading at random (docs/decisions/002).
        """
        root, paths = os.fsencode(self.plan.source), self.plan.sources.paths
        in_batches = self._renderings[rendering].engine != OPENCV
        order = numbers[by_checksum(paths.take(numbers))]
        least = count = -(-len(order) // slots)
        if count < self.workers * _JOBS_A_WORKER:
            even = -(-count // self.workers) * self.workers
            count = max(least, min(even, -(-len(order) // _LEAST_IMAGES_A_JOB)))
        size = -(-len(order) // count) if count else 1
        jobs, most = [], most_bytes(self.plan.recipe.max_pixels)
        for start in range(0, len(order), size):
            items = order[start : start + size]
            files = Files(root, paths, items)
            job = ReadJob(self.new_job_id(), rendering, items, files, variants, slots, in_batches=in_batches)
            jobs.append(replace(job, max_bytes=most))
        return jobs

    # -- what the pool tells ------------------------------------------------------------------------------------------

    def new_job_id(self) -> int:
        return next(self._job_ids)

    def hashed(self, job: ReadJob, answer: Hashed) -> Wanted:
        """Note what was read, and ask for the variants that nothing else provides."""
        good = self.plan.sources.take(job.items, answer)
        rendering = self._renderings[job.rendering]
        key = rendering.pixels_id
        found = self.stock.look(rendering).catalog.find(answer.digests, job.variants)
        refused = self.plan.refused.get(key, {})
        claims = self._claims.setdefault(key, Claims(self.plan.sources.digests))
        wanted = []
        for place in good.tolist():
            missing = tuple(np.flatnonzero(found[place] < 0).tolist())
            if not missing or answer.digests[place].tobytes() in refused:
                continue  # there already, or known to be unusable
            if not claims.claim(int(job.items[place])):
                continue  # an equal file is on its way
            wanted.append((place, missing))
        return Wanted(tuple(wanted))

    def done(self, job: Job, answer: Done) -> None:
        self.spent_ns += answer.spent_ns
        if isinstance(job, NormaliseJob):
            served = self.stock.take_normalised(job, answer.shards, list(answer.failures))
            for path in served:  # the disk has room for the next ones
                path.unlink(missing_ok=True)
            self._damaged += len(answer.failures)
            mine = sum(len(part.places) for part in job.parts if part.shard.path in self._staged)
            self.normalised += sum(len(shard.rows) for shard in answer.shards) - mine
            return
        if answer.transforms_ns:
            key, spent = self._renderings[job.rendering].pixels_id, np.array(answer.transforms_ns)
            self.transforms_ns[key] = self.transforms_ns.get(key, 0) + spent
        self.stock.add(answer.shards)
        self._staged |= {shard.path for shard in answer.shards}
        self.rendered += sum(len(shard.rows) for shard in answer.shards)
        for place, failure in answer.failures.items():
            self._fail(job, place, failure)
        for place, notes in answer.notes.items():
            for note in notes:
                self.noted.setdefault(note, Tally()).add(self.plan.sources.paths[job.items[place]])
        self.budget.check(self.plan.sources)

    def poisoned(self, job: ReadJob, reason: str) -> None:
        stage = "decode" if self.plan.sources.known[job.items[0]] else "read"
        self._fail(job, 0, Failure(stage, reason))
        self.budget.check(self.plan.sources)

    def dropped(self, job: Job) -> None:
        if isinstance(job, ReadJob) and (claims := self._claims.get(self._renderings[job.rendering].pixels_id)):
            claims.release(job.items)
        for path in self.folder.glob(f"{job.job_id:08d}-*"):
            path.unlink(missing_ok=True)

    def update(self, done: int, failed: int, spent_ns: np.ndarray) -> None:
        if isinstance(self.progress, WorkWatcher):
            self.progress.work(by_stage(self.spent_ns + spent_ns))
        self.progress.update(done, failed)

    def _fail(self, job: ReadJob, place: int, failure: Failure) -> None:
        sources, number = self.plan.sources, int(job.items[place])
        sources.failures[number] = failure
        if failure.stage in REMEMBERED_STAGES and sources.known[number]:
            refused = self.plan.refused.setdefault(self._renderings[job.rendering].pixels_id, {})
            refused[sources.digests[number].tobytes()] = failure
