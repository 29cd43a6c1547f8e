"""Runs jobs on worker processes: bounded, with a stall clock and crash isolation. Knows nothing of images.

A worker that dies or hangs is blamed on the item it had in hand only if that item, alone in a fresh worker, does
it again. Until then the rest of its job is given to another worker; what the dead one had begun to write is dropped.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, Protocol

from preprocess.errors import WorkerError
from preprocess.jobs import READY, Done, Hashed, Job, ReadJob, Setup, Wanted
from preprocess.state import WorkerState, unnamed_file

_TICK_S = 0.2
_ATTEMPTS = 3
_START_S = 120
_KILL_WAIT_S = 2
_LAST_WORDS_BYTES = 2000
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from preprocess.worker import main; main(*map(int, sys.argv[2:]))"
)
_HOME = str(Path(__file__).resolve().parent.parent)


class Client(Protocol):
    """Who ordered the jobs."""

    def hashed(self, job: ReadJob, answer: Hashed) -> Wanted: ...

    def done(self, job: Job, answer: Done) -> None: ...

    def poisoned(self, job: ReadJob, reason: str) -> None:
        """The job's only item killed or hung its worker, twice."""

    def new_job_id(self) -> int: ...

    def dropped(self, job: Job) -> None:
        """A worker died in this job: what it had begun to write can go."""

    def update(self, done: int, failed: int) -> None:
        """Items of the present run that are done, and how many of them failed; called several times a second."""


@dataclass(slots=True, eq=False)
class _Worker:
    process: subprocess.Popen[bytes]
    connection: Connection
    state: WorkerState
    messages: int
    born: float
    ready: bool = False
    used: bool = False
    job: Job | None = None
    last_words: str = ""


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
    """A fixed number of worker processes, started when first needed; leaving a `with` block ends them at once.

    Parameters
    ----------
    setup : sent to each worker
    workers : how many processes
    stall_s : longest that one item may take
    """

    def __init__(self, setup: Setup, workers: int, stall_s: float) -> None:
        self._setup = setup
        self._count = workers
        self._stall_s = stall_s
        self._workers: list[_Worker] = []
        self._deaths_at_start = 0

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            self._end(worker)
        self._workers.clear()

    def start(self, jobs: int) -> None:
        """Start as many workers as so many jobs can use, and wait until they are ready."""
        while len(self._workers) < min(self._count, jobs):
            self._workers.append(self._spawn())
        while not all(worker.ready for worker in self._workers):
            for worker in self._await():
                self._hear_ready(worker)
            self._replace_slow_starters()

    def run(self, jobs: Iterable[Job], client: Client) -> None:
        """Run all jobs; returns when each is done or its item poisoned.

        Raises
        ------
        WorkerError : workers cannot be started, or die without an item in hand
        StorageError, IntegrityError : as the worker met it
        """
        queue = deque(_Queued(job) for job in jobs)
        queued = {item.job.job_id: item for item in queue}
        totals = Totals()
        self.start(len(queue))
        while queue or any(worker.job for worker in self._workers):
            for worker in list(self._workers):
                if worker.ready and worker.job is None and (item := self._next(queue, worker)) is not None:
                    queued[item.job.job_id] = item
                    worker.job, worker.used = item.job, True
                    with contextlib.suppress(OSError):  # dead: the next wait tells
                        worker.connection.send(item.job)
            for worker in self._await():
                try:
                    message = worker.connection.recv()
                except (EOFError, OSError):
                    self._bury(worker, queue, queued, client, totals)
                    continue
                self._hear(worker, message, client, totals)
            for worker in list(self._workers):
                if worker.job is not None and worker.state.busy_s() > self._stall_s:
                    worker.process.kill()
                    self._bury(worker, queue, queued, client, totals, hung=True)
            self._replace_slow_starters()
            live = [worker.state for worker in self._workers if worker.job is not None]
            client.update(totals.done + sum(s.done for s in live), totals.failed + sum(s.failed for s in live))

    def _next(self, queue: deque[_Queued], worker: _Worker) -> _Queued | None:
        """What an idle worker does next. A suspect goes to a worker that has done nothing yet: for want of one this
        worker makes room for a new one."""
        for entry in queue:
            if not (entry.alone and worker.used):
                queue.remove(entry)
                return entry
        if queue and all(other.used for other in self._workers):
            self._end(worker)
            self._workers[self._workers.index(worker)] = self._spawn()
        return None

    # -- one worker -----------------------------------------------------------------------------------------------

    def _spawn(self) -> _Worker:
        ours, theirs = Pipe()
        state_fd = WorkerState.create()
        messages = unnamed_file()
        environment = os.environ | {
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "OPENCV_IO_MAX_IMAGE_PIXELS": str(self._setup.max_pixels),
            "OPENCV_LOG_LEVEL": "SILENT",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        # -P and the inserted path: a preprocess.py in the user's folder must not be taken for ours.
        command = [sys.executable, "-P", "-c", _START, _HOME, str(theirs.fileno()), str(state_fd), str(os.getpid())]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                pass_fds=(theirs.fileno(), state_fd),
                env=environment,
            )
        except OSError as error:
            os.close(state_fd)
            raise WorkerError(f"cannot start a worker process: {error.strerror}") from error
        theirs.close()
        worker = _Worker(process, ours, WorkerState(state_fd), messages, time.monotonic())
        with contextlib.suppress(OSError):  # died at once: the next wait tells
            ours.send(self._setup)
        return worker

    def _await(self) -> list[_Worker]:
        ready = wait([worker.connection for worker in self._workers], timeout=_TICK_S)
        return [worker for worker in self._workers if worker.connection in ready]

    def _hear_ready(self, worker: _Worker) -> None:
        try:
            assert worker.connection.recv() == READY
            worker.ready = True
        except (EOFError, OSError):
            self._replace_unready(worker)

    def _hear(self, worker: _Worker, message: Any, client: Client, totals: Totals) -> None:
        if message == READY:
            worker.ready = True
        elif isinstance(message, Exception):
            raise message
        elif isinstance(message, Hashed):
            assert isinstance(worker.job, ReadJob)
            wanted = client.hashed(worker.job, message)
            with contextlib.suppress(OSError):  # dead: the next wait tells
                worker.connection.send(wanted)
        elif isinstance(message, Done):
            assert worker.job is not None
            job, worker.job = worker.job, None
            totals.done += len(job) - len(message.failures)
            totals.failed += len(message.failures)
            client.done(job, message)

    def _bury(
        self,
        worker: _Worker,
        queue: deque[_Queued],
        queued: dict[int, _Queued],
        client: Client,
        totals: Totals,
        *,
        hung: bool = False,
    ) -> None:
        """Replace a dead worker, and decide what becomes of its job."""
        if not worker.ready:
            self._replace_unready(worker)
            return
        item, job = worker.state.item, worker.job
        self._end(worker)
        self._workers[self._workers.index(worker)] = self._spawn()
        if job is None:
            return
        client.dropped(job)
        entry = queued.pop(job.job_id)
        how = f"no answer within {self._stall_s:g} s" if hung else _how_it_died(worker.process.returncode)
        if item >= 0 and isinstance(job, ReadJob):
            if len(job) == 1 and entry.alone:
                totals.failed += 1
                client.poisoned(job, f"alone in a fresh worker process: {how}")
                return
            rest = [place for place in range(len(job)) if place != item]
            if rest:
                queue.appendleft(_Queued(job.part(rest, client.new_job_id())))
            queue.appendleft(_Queued(job.part([item], client.new_job_id()), alone=True))
            return
        if entry.attempts + 1 >= _ATTEMPTS:
            raise WorkerError(
                f"a worker process ended {_ATTEMPTS} times in the same job ({how}){_quoted(worker.last_words)}"
            )
        queue.appendleft(_Queued(replace(job, job_id=client.new_job_id()), entry.attempts + 1))

    def _replace_slow_starters(self) -> None:
        for worker in list(self._workers):
            if not worker.ready and time.monotonic() - worker.born > _START_S:
                self._replace_unready(worker, f"not ready after {_START_S:g} s")

    def _replace_unready(self, worker: _Worker, how: str = "") -> None:
        self._end(worker)
        self._deaths_at_start += 1
        if self._deaths_at_start >= _ATTEMPTS:
            how = how or _how_it_died(worker.process.returncode)
            raise WorkerError(f"worker processes end before their first image ({how}){_quoted(worker.last_words)}")
        self._workers[self._workers.index(worker)] = self._spawn()

    def _end(self, worker: _Worker) -> None:
        if worker.messages < 0:
            return  # ended already, and not replaced because the build was given up
        worker.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it dies when the call returns
            worker.process.wait(_KILL_WAIT_S)
        worker.connection.close()
        size = os.fstat(worker.messages).st_size
        text = os.pread(worker.messages, _LAST_WORDS_BYTES, max(0, size - _LAST_WORDS_BYTES))
        os.close(worker.messages)
        worker.messages = -1
        worker.last_words = text.decode(errors="replace").strip()


def _how_it_died(code: int | None) -> str:
    if code is None:
        return "does not react to being killed"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _quoted(last_words: str) -> str:
    return f"; its last words:\n{last_words}" if last_words else ""
