"""What a worker is at, in memory that it shares with the builder: costs nothing to say, and outlives a crash.

int64: place in the job of the item in hand (-1: none), when it was taken up (CLOCK_MONOTONIC, ns; 0: idle), items
done and items failed in this job, then what this job took so far, in ns by stage. The builder only reads.
"""

import mmap
import os
import tempfile
import time

import numpy as np

from preprocess.clock import STAGES, StageClock

_COUNTERS = 4
_FIELDS = _COUNTERS + len(STAGES)


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
    clock : the worker's; what it adds up is seen by the builder
    """

    def __init__(self, fd: int) -> None:
        self._map = mmap.mmap(fd, _FIELDS * 8)
        os.close(fd)
        self._values = np.frombuffer(self._map, np.int64)
        self.clock = StageClock(self._values[_COUNTERS:])

    @staticmethod
    def create() -> int:
        """A descriptor of an unnamed file of the right size, to be inherited."""
        fd = unnamed_file()
        os.truncate(fd, _FIELDS * 8)
        return fd

    # -- worker's side

    def start_job(self) -> None:
        self.clock.take()
        self._values[:_COUNTERS] = (-1, time.monotonic_ns(), 0, 0)

    def take_up(self, item: int) -> None:
        self._values[0] = item
        self._values[1] = time.monotonic_ns()

    def put_down(self) -> None:
        """No item is in hand, but the job goes on: shards are being finished, or an answer awaited."""
        self.take_up(-1)

    def count(self, *, failed: bool) -> None:
        self._values[3 if failed else 2] += 1

    def idle(self) -> None:
        self._values[:_COUNTERS] = (-1, 0, 0, 0)

    # -- builder's side

    @property
    def item(self) -> int:
        return int(self._values[0])

    @property
    def done(self) -> int:
        return int(self._values[2])

    @property
    def failed(self) -> int:
        return int(self._values[3])

    @property
    def spent_ns(self) -> np.ndarray:
        """Of the job in hand: int64 (len(STAGES),), a copy."""
        return self._values[_COUNTERS:].copy()

    def busy_s(self) -> float:
        """Seconds since the item in hand was taken up; 0 when idle."""
        since = int(self._values[1])
        return (time.monotonic_ns() - since) / 1e9 if since else 0.0
