"""What a worker is at, in memory that it shares with the builder: costs nothing to say, and outlives a crash.

int64: place in its job of the item in hand (-1: none), when it was taken up (CLOCK_MONOTONIC, ns; 0: idle), items
done and items failed in the jobs in hand, the item's job, the last job that was begun; then times in ns by stage: of
each thread, and what the builder was told of them. The builder only reads; each row of times has one writer.
"""

import mmap
import os
import tempfile
import time

import numpy as np

from preprocess.clock import STAGES, StageClock

_COUNTERS = 6
_CLOCKS = 3
_FIELDS = _COUNTERS + (_CLOCKS + 1) * len(STAGES)


def unnamed_file() -> int:
    """A descriptor of an empty file without a name: in memory where the system can, so that no disk can be full."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decant", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:  # macOS
        return os.dup(file.fileno())


class WorkerState:
    """One worker's state over an inherited descriptor.

    Parameters
    ----------
    fd : of a file of `create`; it is closed, the map stays

    Attributes
    ----------
    clock : of the worker's main thread; what it adds up is seen by the builder
    other_clocks : of further threads; where stages overlap, times of all threads are added up
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _FIELDS * 8)
        os.close(fd)
        self._values = np.frombuffer(self._map, np.int64)
        rows = self._values[_COUNTERS:].reshape(_CLOCKS + 1, len(STAGES))
        self._times, self._told = rows[:_CLOCKS], rows[_CLOCKS]
        self.clock, *self.other_clocks = (StageClock(row) for row in self._times)

    @staticmethod
    def create() -> int:
        """A descriptor of an unnamed file of the right size, to be inherited."""
        fd = unnamed_file()
        os.truncate(fd, _FIELDS * 8)
        return fd

    # -- worker's side

    def start_job(self, job_id: int = 0) -> None:
        """The first job after a rest; no other thread is at work."""
        self.clock.stop()
        self._times[:] = 0
        self._told[:] = 0
        self._values[:_COUNTERS] = (-1, time.monotonic_ns(), 0, 0, job_id, job_id)

    def begin(self, job_id: int) -> None:
        """One more job is begun; those that were sent after it are not."""
        self._values[5] = job_id

    def take_up(self, item: int, job_id: int | None = None) -> None:
        """An item is in hand; of the same job as before, unless that is given."""
        if job_id is not None:
            self._values[4] = job_id
        self._values[0] = item
        self._values[1] = time.monotonic_ns()

    def put_down(self) -> None:
        """No item is in hand, but the job goes on: shards are being finished, or an answer awaited."""
        self.take_up(-1)

    def count(self, *, failed: bool) -> None:
        self._values[3 if failed else 2] += 1

    def uncount(self, *, done: int, failed: int) -> None:
        """The builder is told so many with the end of their job."""
        self._values[2] -= done
        self._values[3] -= failed

    def tell(self) -> tuple[int, ...]:
        """What all threads took since the last time, in ns by stage: for the builder, who is told now."""
        new = self._times.sum(axis=0) - self._told
        self._told += new
        return tuple(new.tolist())

    def idle(self) -> None:
        self._values[:4] = (-1, 0, 0, 0)

    # -- builder's side

    @property
    def item(self) -> int:
        return int(self._values[0])

    @property
    def job_id(self) -> int:
        """Of the item."""
        return int(self._values[4])

    @property
    def begun(self) -> int:
        """The last job that was begun."""
        return int(self._values[5])

    @property
    def done(self) -> int:
        return int(self._values[2])

    @property
    def failed(self) -> int:
        return int(self._values[3])

    @property
    def spent_ns(self) -> np.ndarray:
        """What no finished job has told yet: int64 (len(STAGES),), a copy."""
        spent: np.ndarray = self._times.sum(axis=0) - self._told
        return spent

    def busy_s(self) -> float:
        """Seconds since the item in hand was taken up; 0 when idle."""
        since = int(self._values[1])
        return (time.monotonic_ns() - since) / 1e9 if since else 0.0
