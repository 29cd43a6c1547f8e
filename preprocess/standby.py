"""One idle worker process, kept for the next build of this process: starting one costs more than ten small images.

It is handed out only to a build of the same decoder, pixel cap, environment and folder; it ends by itself after
`worker.IDLE_S`, with the builder, or when a build finds it unfit. A forked child never touches its parent's worker.
"""

import atexit
import contextlib
import os
import threading
import time

from preprocess.jobs import READY, REST, Setup
from preprocess.process import Terms, WorkerProcess

_ANSWER_S = 5.0
"""Longest that an idle worker may take for a new setup; it has imported everything already."""


class Standby:
    """Room for one worker; safe to use from several threads.

    Not promised: that a worker is there. A change of umask or of limits reaches only workers started after it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: WorkerProcess | None = None

    def take(self, setup: Setup) -> WorkerProcess | None:
        """The idle worker, ready for a build with `setup`; None if there is none that fits."""
        with self._lock:
            worker, self._kept = self._kept, None
        if worker is None or (worker.terms == Terms.of(setup) and _answers(worker, setup)):
            return worker
        worker.end()
        return None

    def keep(self, worker: WorkerProcess) -> None:
        """Have a worker rest that is ready and has no job; one that rests already makes room."""
        try:
            worker.connection.send(REST)
        except OSError:
            worker.end()
            return
        with self._lock:
            former, self._kept = self._kept, worker
        if former is not None:
            former.end()

    def clear(self) -> None:
        """End the idle worker."""
        with self._lock:
            kept, self._kept = self._kept, None
        if kept is not None:
            kept.end()

    def forget(self) -> None:
        """In a forked child: the worker is the parent's."""
        self._lock = threading.Lock()
        if self._kept is not None:
            self._kept.disown()
            self._kept = None


def _answers(worker: WorkerProcess, setup: Setup) -> bool:
    with contextlib.suppress(OSError, EOFError):  # it has gone
        worker.connection.send(setup)
        if worker.connection.poll(_ANSWER_S) and worker.connection.recv() == READY:
            worker.born = time.monotonic()
            return True
    return False


STANDBY = Standby()
atexit.register(STANDBY.clear)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=STANDBY.forget)
