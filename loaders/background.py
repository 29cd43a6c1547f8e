"""Threads that work ahead of training, and end before Python does.

A daemon thread that returns from torch or another C++ library while Python ends is made to exit there and then, and
takes the whole process along ("terminate called without an active exception"). A script may leave in the middle of an
epoch, by sys.exit or an error, so those that are still at work are stopped and waited for.
"""

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable

_PATIENCE_S = 5.0
"""For the batches that are being fetched when Python ends; a loader that is stuck must not keep it from ending."""


class Background:
    """Runs `work` in a thread of its own, which starts at once.

    Parameters
    ----------
    work : returns soon after `stop` was called
    stop : tells it; may be called more than once
    """

    def __init__(self, name: str, work: Callable[[], None], stop: Callable[[], None]) -> None:
        self._stop = weakref.WeakMethod(stop)  # whose it is has this, and must not wait for the garbage collector
        self._thread = threading.Thread(target=work, name=name, daemon=True)
        _AT_WORK.add(self)
        self._thread.start()

    def stop(self) -> None:
        """Tell it; returns at once."""
        if (stop := self._stop()) is not None:
            stop()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout_s)


_AT_WORK: "weakref.WeakSet[Background]" = weakref.WeakSet()
os.register_at_fork(after_in_child=_AT_WORK.clear)  # a forked child has none of these threads, but maybe their locks


@atexit.register
def _end_all() -> None:
    left = list(_AT_WORK)
    for each in left:
        each.stop()
    ends = time.monotonic() + _PATIENCE_S
    for each in left:
        each.join(max(0.0, ends - time.monotonic()))
