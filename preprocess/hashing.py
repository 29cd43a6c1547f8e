"""Hashes files in threads of the builder: reading and hashing leave the interpreter to the others.

A process of its own would have to be started first, and most builds hash few files or none.
"""

import queue
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from cache_store.canonical import DIGEST_BYTES
from preprocess.errors import SourceError
from preprocess.jobs import Failure, Hashed
from preprocess.read import MOST_BYTES, hash_source
from preprocess.scan import STAT

_TICK_S = 0.2


def hash_files(
    paths: Sequence[bytes],
    threads: int,
    stall_s: float,
    progress: Callable[[int, int], None],
    max_bytes: int = MOST_BYTES,
) -> Hashed:
    """Digest and stat of each file.

    Parameters
    ----------
    paths : absolute
    stall_s : a file that takes longer counts as failed; its thread is left behind, as nothing can end it
    progress : told how many are done and how many of all failed
    max_bytes : a larger file counts as failed
    """
    digests, stats = np.zeros((len(paths), DIGEST_BYTES), np.uint8), np.zeros(len(paths), STAT)
    failures: dict[int, Failure] = {}
    todo, lock = iter(range(len(paths))), threading.Lock()
    results: queue.SimpleQueue[tuple[int, bytes, tuple[int, int, int, int], Failure | None]] = queue.SimpleQueue()
    begun: dict[int, float] = {}
    threads = min(threads, len(paths))

    def next_place() -> int | None:
        with lock:
            return next(todo, None)

    def serve() -> None:
        while (place := next_place()) is not None:
            begun[place] = time.monotonic()
            try:
                results.put((place, *hash_source(paths[place], max_bytes), None))
            except SourceError as error:
                results.put((place, b"", (0, 0, 0, 0), Failure(error.stage, error.reason)))

    for _ in range(threads):
        threading.Thread(target=serve, daemon=True).start()
    is_open, left = np.ones(len(paths), bool), len(paths)
    looked = time.monotonic()
    while left:
        try:
            place, digest, numbers, failure = results.get(timeout=_TICK_S)
        except queue.Empty:
            pass
        else:
            if is_open[place]:
                is_open[place], left = False, left - 1
                if failure is not None:
                    failures[place] = failure
                else:
                    digests[place], stats[place] = np.frombuffer(digest, np.uint8), numbers
            begun.pop(place, None)
        now = time.monotonic()
        if left and now - looked < _TICK_S:
            continue  # not at every file: a look costs as much as there are files in hand
        looked = now
        late = [p for p, since in list(begun.items()) if is_open[p] and now - since > stall_s]
        for place in late:
            is_open[place], left = False, left - 1
            failures[place] = Failure("read", f"no answer within {stall_s:g} s")
            threading.Thread(target=serve, daemon=True).start()  # in place of the one that is stuck
        progress(len(paths) - left - len(failures), len(failures))
    return Hashed(digests, stats, failures)
