"""Threads that move batches. What they call leaves the interpreter (memcpy, OpenCV), so they run side by side."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise


def copy_threads() -> int:
    """At most 4, and under torchrun this rank's share of the processors."""
    try:
        processors = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        processors = os.cpu_count() or 1
    return max(1, min(4, processors // max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))))


class CopyThreads:
    """Runs a function over parts of a range, one part in the calling thread; started when first needed."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: ThreadPoolExecutor | None = None

    def over(self, items: int, work: Callable[[int, int], None]) -> None:
        """Call `work(start, end)` for parts that together make up 0 … `items`."""
        count = min(self.count, items)
        if count <= 1:
            work(0, items)
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.count - 1, "decant-copy")
        edges = [items * part // count for part in range(count + 1)]
        others = [self._pool.submit(work, a, b) for a, b in pairwise(edges[1:])]
        try:
            work(edges[0], edges[1])
        finally:
            wait(others)  # whatever happens, nobody goes on with what the caller may take away now
        for other in others:
            other.result()

    def forget(self) -> None:
        """A forked child has none of its parent's threads."""
        self._pool = None


THREADS = CopyThreads(copy_threads())
os.register_at_fork(after_in_child=THREADS.forget)
