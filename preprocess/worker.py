"""One worker process: takes jobs, renders, writes shards into `pending/<build id>/`. No zarr, no lock, and torch
only for an engine that needs it.

Started by `process`; ends when its pipe closes, after a long rest, and at once when the builder dies.
"""

import contextlib
import ctypes
import itertools
import os
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cache_store.durable import read_error, remove_file, start_writeback
from cache_store.errors import IntegrityError, StorageError
from cache_store.normalise import denormalise, normalisation_table
from cache_store.records import PendingShard, write_record
from cache_store.shard import ShardReader, ShardWriter
from preprocess.augment import library
from preprocess.clock import NORMALISE, READ, WRITE
from preprocess.engines import renderer_of
from preprocess.jobs import (
    DEVICE_LOST,
    READY,
    REST,
    Done,
    Failure,
    Job,
    NormaliseJob,
    Part,
    ReadJob,
    Setup,
    Wanted,
    is_streamed,
)
from preprocess.reader import Prepared, read_singly
from preprocess.render import Normaliser, Stored
from preprocess.shards import JobShards
from preprocess.state import WorkerState

IDLE_S = 60.0
"""How long a worker waits for another build of the same builder; it holds some 100 MB."""

_PR_SET_PDEATHSIG = 1

_FILES = 10_240
"""Open files that a worker should be allowed: each job that it has begun has up to one for each variant, and often the
limit is 1,024 at first. More than this macOS refuses."""


def main(connection_fd: int, state_fd: int, parent: int) -> None:
    """Serve jobs until the pipe closes."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # these reach the whole group; the builder decides
    _die_with(parent)
    _allow_files()
    connection, state = Connection(connection_fd), WorkerState(state_fd)
    library(without_torch=True)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while serve_a_build(connection, state):
            _give_back_memory()


def serve_a_build(connection: Connection, state: WorkerState) -> bool:
    """Do the jobs of one build, until it gives this worker a rest; whether another build came in time for the next."""
    worker = Worker(connection.recv(), state)
    connection.send(READY)
    job = connection.recv()
    while job != REST:
        try:
            if is_streamed(job):
                job = worker.stream(job, connection)
                continue
            worker.run(job, connection)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            if worker.is_lost():  # perhaps by one image: the pool finds out which
                _die(error)
            state.idle()
            connection.send(error)  # not about one image: the builder raises it
        job = connection.recv()
    del worker
    return connection.poll(IDLE_S)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the builder dies (Linux); elsewhere the closed pipe ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _die(error: Exception) -> None:
    """End at once, with a line about an error that nothing can be done after."""
    line, _, _ = str(error).partition("\n")  # what follows is advice on debugging CUDA
    print(f"{type(error).__name__}: {line}", file=sys.stderr, flush=True)
    os._exit(DEVICE_LOST)


def _allow_files() -> None:
    """Raise this process's own limit of open files as far as it may; a refusal leaves it as it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _give_back_memory() -> None:
    """Images of all sizes leave holes in the heap; a build of a million must not need more than one of a thousand."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc
    if trim is not None:
        trim(0)


class Worker:
    """Renders the jobs of one build."""

    def __init__(self, setup: Setup, state: WorkerState) -> None:
        cv2.setNumThreads(1)  # one process a core; threads of each would only fight
        self._folder = setup.folder
        self._state = state
        self._clock = state.clock
        self._renderers = [
            renderer_of(r, setup.decoder, setup.max_pixels, self._clock, setup.number) for r in setup.renderings
        ]

    def run(self, job: Job, connection: Connection) -> None:
        """Do one job and answer on `connection`."""
        self._state.start_job(job.job_id)
        if isinstance(job, NormaliseJob):
            done = self._normalise(job)
        else:
            done = self._read_and_render(job, connection)
        done = replace(done, spent_ns=self._clock.take(), job_id=job.job_id)
        _give_back_memory()
        self._state.idle()
        connection.send(done)

    def stream(self, first: ReadJob, connection: Connection) -> Any:
        """Do jobs that `is_streamed` holds for, as long as they come, and answer each; the message that is none."""
        from preprocess.stream import Stream

        try:
            return Stream(self._renderers, self._folder, self._state, connection).run(first)
        finally:
            _give_back_memory()

    def is_lost(self) -> bool:
        """Whether nothing can be rendered any more in this process."""
        return any(renderer.is_lost() for renderer in self._renderers)

    def _read_and_render(self, job: ReadJob, connection: Connection) -> Done:
        self._clock.enter(READ)
        hashed, kept = read_singly(job, self._state.take_up)
        self._clock.stop()
        self._state.put_down()
        connection.send(hashed)
        wanted: Wanted = connection.recv()
        self._state.put_down()
        return self._render(Prepared(job, hashed, kept, wanted))

    def _render(self, prepared: Prepared) -> Done:
        job, hashed = prepared.job, prepared.hashed
        renderer = self._renderers[job.rendering]
        failures: dict[int, Failure] = dict(hashed.failures)
        notes: dict[int, tuple[str, ...]] = {}
        shards = JobShards(self._folder, job, renderer.rendering, prepared.wanted)
        files = prepared.files()
        for place in range(len(job) - len(files)):
            self._state.count(failed=place < len(failures))  # those that need no rendering
        batches = [[file] for file in files] if job.singly else [files]
        with shards:
            for result in itertools.chain.from_iterable(renderer.stored(b, self._state.take_up) for b in batches):
                if isinstance(result, Stored):
                    self._clock.enter(WRITE)
                    shards.append(result, result.fetch(), hashed.digests[result.place])
                    result.release()
                    continue
                if result.error is not None:
                    failures[result.place] = Failure(result.error.stage, result.error.reason)
                if result.notes:
                    notes[result.place] = result.notes
                self._state.count(failed=result.error is not None)
            self._state.put_down()
            self._clock.enter(WRITE)
        return Done(shards.finished, failures, notes, transforms_ns=renderer.transforms_ns())

    def _normalise(self, job: NormaliseJob) -> Done:
        """Write the job's tensors anew; damaged ones are left out and named, as their sources may still be there."""
        self._clock.enter(NORMALISE)
        first = job.parts[0].shard
        mean, std = job.statistics or (None, None)
        path = self._folder / f"{job.job_id:08d}-n.shard"
        rows = np.concatenate([part.shard.rows for part in job.parts])
        target = PendingShard(path, first.pixels_id, mean, std, job.slots, first.shape, rows)
        normalise = Normaliser(job.statistics, first.shape) if job.statistics else None
        damaged: dict[int, Failure] = {}
        with ShardWriter(path, job.slots, target.chunk_bytes) as writer:
            for item, planes in enumerate(self._planes_of(job.parts)):
                if isinstance(planes, Failure):
                    damaged[item] = planes
                else:
                    rows["checksum"][item] = writer.append(planes if normalise is None else normalise(planes))
                self._state.count(failed=item in damaged)
            self._state.put_down()
        target = replace(target, rows=np.delete(rows, list(damaged)))
        if not len(target.rows):
            remove_file(path)
            return Done((), damaged)
        start_writeback(path)
        write_record(target)
        return Done((target,), damaged)

    def _planes_of(self, parts: tuple[Part, ...]) -> Iterator[np.ndarray | Failure]:
        """uint8 (C, H, W) of each tensor in turn, valid until the next one; or what is wrong with it."""
        item = itertools.count()
        for part in parts:
            shard = part.shard
            table = normalisation_table(shard.mean, shard.std) if shard.mean and shard.std else None
            stored = np.empty(shard.shape, shard.dtype)
            try:
                reader = ShardReader(shard.path, shard.slots, shard.chunk_bytes)
            except (IntegrityError, OSError) as error:
                yield from [_damage(shard.path, error)] * len(part.places)
                continue
            with reader:
                for place, row in zip(part.places.tolist(), shard.rows, strict=True):
                    self._state.take_up(next(item))
                    try:
                        if reader.read_into(place, stored) != row["checksum"]:
                            raise IntegrityError(f"{str(shard.path)!r}: slot {place} holds another tensor")
                        planes = stored if table is None else denormalise(stored, table)
                    except (IntegrityError, OSError, ValueError) as error:
                        yield _damage(shard.path, error)
                    else:
                        yield planes


def _damage(path: Path, error: Exception) -> Failure:
    """Why finished tensors cannot be read; a refusal of the system is raised."""
    if isinstance(error, OSError):
        error = read_error(repr(str(path)), path, error)
        if isinstance(error, StorageError):
            raise error
    return Failure("read", str(error))
