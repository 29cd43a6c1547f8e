"""Reading ahead, seen from the builder's end of the pipe. What becomes of what is read: `test_stream.py`."""

import threading
from multiprocessing.connection import Pipe

import numpy as np

from preprocess.clock import StageClock
from preprocess.jobs import ReadJob
from preprocess.reader import Reader

LONG = tuple(b"/%05d" % number + b"x" * 2000 for number in range(50))


def test_a_builder_can_always_send_whatever_the_worker_waits_for():
    """Else the worker, held up in an answer that nobody hears, and the builder, held up in a job, wait for ever."""
    ours, theirs = Pipe()
    jobs = [ReadJob(n, 0, np.arange(50), LONG, 1, 8, in_batches=True) for n in range(48)]
    held = threading.Event()
    reader = Reader(theirs, jobs[0], lambda message: isinstance(message, ReadJob), lambda _: held.wait(), StageClock())
    sender = threading.Thread(target=lambda: [ours.send(job) for job in jobs[1:]], daemon=True)  # 5 MB
    sender.start()
    sender.join(20)

    assert not sender.is_alive()
    reader._stop = True
    held.set()
    reader.stop()
