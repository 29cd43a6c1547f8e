"""Runs jobs on worker processes: bounded, with a stall clock and crash isolation. Knows nothing of images.

A worker that dies or hangs is blamed on the item it had in hand only if that item, alone in a fresh worker, does
it again. Until then the rest of its job is given to another worker, to be done file by file; what the dead one had
begun to write is dropped. Of a worker that had several jobs in hand, all that were begun are done so: any of their
files may have been in the batch that killed it.
"""

import contextlib
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import Any, Protocol

import numpy as np

from preprocess.clock import STAGES
from preprocess.errors import WorkerError
from preprocess.jobs import DEVICE_LOST, READY, Done, Hashed, Job, ReadJob, Setup, Wanted, is_streamed
from preprocess.process import WorkerProcess
from preprocess.rendering import NVJPEG
from preprocess.standby import STANDBY

_TICK_S = 0.2
_ATTEMPTS = 3
_START_S = 120

_FEW_ITEMS = 64
_PATIENCE_S = 0.5
"""Few items get one worker at first: starting another costs more than they do, unless this time proves otherwise."""

_IN_HAND = 48
"""Jobs that a worker may have at a time where it works in batches across them: some that are read, some that are
rendered, some that are written."""


class Client(Protocol):
    """Who ordered the jobs."""

    def hashed(self, job: ReadJob, answer: Hashed) -> Wanted: ...

    def done(self, job: Job, answer: Done) -> None: ...

    def poisoned(self, job: ReadJob, reason: str) -> None:
        """The job's only item killed or hung its worker, twice."""

    def new_job_id(self) -> int: ...

    def dropped(self, job: Job) -> None:
        """A worker died in this job: what it had begun to write can go."""

    def update(self, done: int, failed: int, spent_ns: np.ndarray) -> None:
        """Items of the present run that are done, how many of them failed, and what the jobs that are under way took
        so far, by `clock.STAGES`; called several times a second."""


@dataclass(slots=True, eq=False)
class _Queued:
    job: Job
    attempts: int = 0
    alone: bool = False


@dataclass(slots=True)
class Totals:
    """What finished jobs came to."""

    done: int = 0
    failed: int = 0


class WorkerPool:
    """A bounded number of worker processes, started when first needed; leaving a `with` block ends them at once, but
    for one that is idle: the next build of this process takes it over (`standby`).

    Parameters
    ----------
    setup : sent to each worker
    workers : how many processes at most
    stall_s : longest that one item may take

    Attributes
    ----------
    most : processes there were at a time so far
    """

    def __init__(self, setup: Setup, workers: int, stall_s: float) -> None:
        self._setup = setup
        self._count = workers
        self._stall_s = stall_s
        self._workers: list[WorkerProcess] = []
        self.most = 0
        self._deaths_at_start = 0

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # A worker on a GPU would keep memory there that training wants.
        keeps = kind is None and all(rendering.engine != NVJPEG for rendering in self._setup.renderings)
        idle = [worker for worker in self._workers if worker.ready and not worker.jobs] if keeps else []
        for worker in self._workers:
            if worker not in idle[:1]:
                worker.end()
        self._workers.clear()
        for worker in idle[:1]:
            STANDBY.keep(worker)

    def start(self, jobs: Sequence[Job]) -> None:
        """Start as many workers as these jobs can use, and wait until they are ready."""
        if jobs and not self._workers and (kept := STANDBY.take(self._setup)) is not None:
            self._workers.append(kept)
        few = sum(len(job) for job in jobs) <= _FEW_ITEMS
        self._grow(min(len(jobs), 1 if few else self._count))
        while not all(worker.ready for worker in self._workers):
            for worker in self._await():
                self._hear_ready(worker)
            self._replace_slow_starters()

    def _grow(self, workers: int) -> None:
        while len(self._workers) < workers:
            self._workers.append(self._spawn(len(self._workers)))
        self.most = max(self.most, len(self._workers))

    def run(self, jobs: Sequence[Job], client: Client) -> None:
        """Run all jobs; returns when each is done or its item poisoned.

        Raises
        ------
        WorkerError : workers cannot be started, or die without an item in hand
        StorageError, IntegrityError : as the worker met it
        """
        queue = deque(_Queued(job) for job in jobs)
        queued = {item.job.job_id: item for item in queue}
        totals = Totals()
        self.start(jobs)
        begun = time.monotonic()
        while queue or any(worker.jobs for worker in self._workers):
            if queue and time.monotonic() - begun > _PATIENCE_S:
                self._grow(min(self._count, len(self._workers) + len(queue)))
            self._hand_out(queue, queued)
            for worker in self._await():
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    self._bury(worker, queue, queued, client, totals)
                    continue
                self._hear(worker, message, client, totals)
            for worker in list(self._workers):
                if worker.jobs and worker.state.busy_s() > self._stall_s:
                    worker.process.kill()
                    self._bury(worker, queue, queued, client, totals, hung=True)
            self._replace_slow_starters()
            live = [worker.state for worker in self._workers if worker.jobs]
            under_way = sum((s.spent_ns for s in live), np.zeros(len(STAGES), np.int64))
            client.update(
                totals.done + sum(s.done for s in live), totals.failed + sum(s.failed for s in live), under_way
            )

    def _hand_out(self, queue: deque[_Queued], queued: dict[int, _Queued]) -> None:
        """Give each worker what it has room for, in turn, so that none has much while others have nothing."""
        given = True
        while given:
            given = False
            for worker in list(self._workers):
                if not worker.ready or (entry := self._next(queue, worker)) is None:
                    continue
                given = True
                queued[entry.job.job_id] = entry
                worker.give(entry.job)

    def _next(self, queue: deque[_Queued], worker: WorkerProcess) -> _Queued | None:
        """What a worker does next, or beside what it has. A suspect goes to a worker that has done nothing yet: for
        want of one an idle worker makes room for a new one."""
        if worker.jobs:
            left = len(queue) + sum(len(other.jobs) for other in self._workers)
            room = min(_IN_HAND, max(2, -(-left // self._count)))
            if not (queue and is_streamed(queue[0].job) and is_streamed(worker.jobs[-1]) and len(worker.jobs) < room):
                return None
        for entry in queue:
            if not (entry.alone and worker.used):
                queue.remove(entry)
                return entry
        if queue and all(other.used for other in self._workers):
            worker.end()
            self._respawn(worker)
        return None

    # -- one worker -----------------------------------------------------------------------------------------------

    def _spawn(self, number: int) -> WorkerProcess:
        return WorkerProcess.start(replace(self._setup, number=number))

    def _respawn(self, worker: WorkerProcess) -> None:
        """Another one in its place, with its number."""
        number = self._workers.index(worker)
        self._workers[number] = self._spawn(number)

    def _await(self) -> list[WorkerProcess]:
        ready = wait([worker.connection for worker in self._workers], timeout=_TICK_S)
        return [worker for worker in self._workers if worker.connection in ready]

    def _hear_ready(self, worker: WorkerProcess) -> None:
        try:
            worker.ready = worker.connection.recv() == READY  # the first message is nothing else
        except (EOFError, OSError):
            self._replace_unready(worker)

    def _hear(self, worker: WorkerProcess, message: Any, client: Client, totals: Totals) -> None:
        if message == READY:
            worker.ready = True
        elif isinstance(message, Exception):
            raise message
        elif isinstance(message, Hashed):
            job = _job_of(worker, message)
            assert isinstance(job, ReadJob)
            wanted = client.hashed(job, message)
            with contextlib.suppress(OSError):  # dead: the next wait tells
                worker.connection.send(wanted)
        elif isinstance(message, Done):
            job = _job_of(worker, message)
            worker.jobs.remove(job)
            totals.done += len(job) - len(message.failures)
            totals.failed += len(message.failures)
            client.done(job, message)

    def _bury(
        self,
        worker: WorkerProcess,
        queue: deque[_Queued],
        queued: dict[int, _Queued],
        client: Client,
        totals: Totals,
        *,
        hung: bool = False,
    ) -> None:
        """Replace a dead worker, and decide what becomes of its jobs."""
        if not worker.ready:
            self._replace_unready(worker)
            return
        worker.end()  # from here on its state stands still
        item, item_job, begun = worker.state.item, worker.state.job_id, worker.begun()
        self._respawn(worker)
        died = _how_it_died(worker.process.returncode, worker.last_words)
        how = f"no answer within {self._stall_s:g} s" if hung else died
        again: list[_Queued] = []
        for place, job in enumerate(worker.jobs):
            client.dropped(job)
            entry = queued.pop(job.job_id)
            if isinstance(job, ReadJob) and job.job_id == item_job and 0 <= item < len(job):
                if len(job) == 1 and entry.alone:
                    totals.failed += 1
                    client.poisoned(job, f"alone in a fresh worker process: {how}")
                    continue
                again.insert(0, _Queued(replace(job.part([item], client.new_job_id()), singly=True), alone=True))
                if rest := [other for other in range(len(job)) if other != item]:
                    again.append(_Queued(replace(job.part(rest, client.new_job_id()), singly=True)))
                continue
            entry = _Queued(replace(job, job_id=client.new_job_id()), entry.attempts)
            # Where work overlaps, a device or another thread may fail over a file while none is in hand.
            if place < begun and isinstance(entry.job, ReadJob) and (item >= 0 or is_streamed(entry.job)):
                entry.job = replace(entry.job, singly=True)
            elif place < begun:
                entry.attempts += 1
                if entry.attempts >= _ATTEMPTS:
                    raise WorkerError(
                        f"a worker process ended {_ATTEMPTS} times in the same job ({how}){_quoted(worker.last_words)}"
                    )
            again.append(entry)
        queue.extendleft(reversed(again))

    def _replace_slow_starters(self) -> None:
        for worker in list(self._workers):
            if not worker.ready and time.monotonic() - worker.born > _START_S:
                self._replace_unready(worker, f"not ready after {_START_S:g} s")

    def _replace_unready(self, worker: WorkerProcess, how: str = "") -> None:
        worker.end()
        self._deaths_at_start += 1
        if self._deaths_at_start >= _ATTEMPTS:
            how = how or _how_it_died(worker.process.returncode, worker.last_words)
            raise WorkerError(f"worker processes end before their first image ({how}){_quoted(worker.last_words)}")
        self._respawn(worker)


def _job_of(worker: WorkerProcess, message: Hashed | Done) -> Job:
    return next(job for job in worker.jobs if job.job_id == message.job_id)


def _how_it_died(code: int | None, last_words: str = "") -> str:
    if code is None:
        return "does not react to being killed"
    if code == DEVICE_LOST:
        return ": ".join(["the GPU failed", *last_words.splitlines()[-1:]])
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _quoted(last_words: str) -> str:
    return f"; its last words:\n{last_words}" if last_words else ""
