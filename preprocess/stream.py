"""A worker whose engine works in batches: reading, rendering and writing go on at once, over many jobs.

    reader thread   jobs -> files read and hashed, `Hashed` sent, `Wanted` received      `reader.Reader`
    this thread     batches of files, across the bounds of jobs -> results of the device  `Stream.run`
    writer thread   results -> checksums, shards, `Done` sent                             `_Writer`

Jobs stay small: a job's shards are finished when its last file is, whatever becomes of the worker afterwards.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from preprocess.clock import WRITE, StageClock
from preprocess.engines import AnyRenderer
from preprocess.jobs import Done, Failure, ReadJob, is_streamed
from preprocess.reader import Prepared, Reader
from preprocess.render import File, Finished, Stored
from preprocess.rendering import Rendering
from preprocess.shards import JobShards
from preprocess.state import WorkerState

_PLACE_BITS = 32
_PLACE = (1 << _PLACE_BITS) - 1


class Stream:
    """Does jobs as they come, until there comes something else.

    Parameters
    ----------
    renderers : by `ReadJob.rendering`; their clock is the state's
    folder : where shards go
    """

    def __init__(
        self, renderers: Sequence[AnyRenderer], folder: Path, state: WorkerState, connection: Connection
    ) -> None:
        self._renderers, self._folder, self._state = renderers, folder, state
        self._connection = connection
        self._sending = threading.Lock()

    def run(self, first: ReadJob) -> Any:
        """Do jobs, `first` and what follows, and answer each; the message that is none of them.

        Raises
        ------
        StorageError, EOFError, OSError : the disk refuses, or the builder is gone; or whatever else has ended a thread
        """
        state = self._state
        state.start_job(first.job_id)
        reading, writing = state.other_clocks
        reader = Reader(self._connection, first, is_streamed, self._send, reading)
        writer = _Writer(self._send, state, writing)
        try:
            while not reader.over:
                prepared = reader.next(self._ticking(reader))
                if prepared is None:
                    self._rest(reader, writer)
                    continue
                renderer = self._renderers[prepared.job.rendering]
                for result in renderer.stored(self._files(prepared.job.rendering, reader, writer), self._take_up):
                    writer.put(result)
            writer.drain()
        finally:
            reader.stop()
            writer.stop()
        state.idle()  # not after an error: if that ends the process, the builder sees what was in hand
        return reader.rest

    def _files(self, rendering: int, reader: Reader, writer: "_Writer") -> Iterator[File | None]:
        """Files of all jobs in turn that are of one rendering; None where none is under way."""
        while True:
            self._state.clock.stop()
            prepared = reader.next(self._ticking(reader))
            if prepared is None and not reader.over:
                yield None
                self._rest(reader, writer)
                continue
            if prepared is None or prepared.job.rendering != rendering:
                return
            job_id = reader.take().job.job_id
            self._state.begin(job_id)
            files = prepared.files(lambda place, job_id=job_id: job_id << _PLACE_BITS | place)  # type: ignore[misc]
            writer.begin(prepared, self._renderers[rendering].rendering, self._folder, len(files))
            yield from files

    def _rest(self, reader: Reader, writer: "_Writer") -> None:
        """Nothing is under way: what was begun is brought to its end, and then there is no hurry."""
        self._state.put_down()
        writer.drain()
        self._state.idle()
        reader.await_more(lambda: None)

    def _ticking(self, reader: Reader) -> Callable[[], None]:
        """Blames the file that reading waits for, once for each, as long as the device waits for it."""
        told: list[tuple[int, int] | None] = [None]

        def tick() -> None:
            if (at := reader.at) is not None and at != told[0]:
                job_id, place = told[0] = at
                self._state.take_up(place, job_id)

        return tick

    def _take_up(self, name: int) -> None:
        if name < 0:
            self._state.put_down()
        else:
            self._state.take_up(name & _PLACE, name >> _PLACE_BITS)

    def _send(self, message: Any) -> None:
        with self._sending:
            self._connection.send(message)


class _Open:
    """A job that is being written."""

    def __init__(self, prepared: Prepared, rendering: Rendering, folder: Path, files: int) -> None:
        self.job, self.digests, self.left = prepared.job, prepared.hashed.digests, files
        self.shards = JobShards(folder, prepared.job, rendering, prepared.wanted)
        self.failures: dict[int, Failure] = dict(prepared.hashed.failures)
        self.notes: dict[int, tuple[str, ...]] = {}


class _Writer:
    """The thread that writes; `begin` a job before its results are put.

    Once it has failed it writes no more, but goes on releasing what it is given: others wait for that.
    """

    def __init__(self, send: Callable[[Any], None], state: WorkerState, clock: StageClock) -> None:
        self._send, self._state, self._clock = send, state, clock
        self._open: dict[int, _Open] = {}
        self._queue: queue.Queue[_Open | Stored | Finished | None] = queue.Queue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._serve, name="decant-writer", daemon=True)
        self._thread.start()

    # -- the caller's side

    def begin(self, prepared: Prepared, rendering: Rendering, folder: Path, files: int) -> None:
        """Results of so many files of a job will come."""
        self.put(_Open(prepared, rendering, folder, files))

    def put(self, result: _Open | Stored | Finished) -> None:
        """A result, to be written in its turn; it waits in memory, of which those who make results have only so much.

        Raises
        ------
        StorageError, OSError : what an earlier one has met
        """
        self._queue.put(result)
        self._check()

    def drain(self) -> None:
        """Wait until all is written."""
        self._queue.join()
        self._check()

    def stop(self) -> None:
        """End the thread, and remove what is not finished."""
        self._queue.put(None)
        self._thread.join()
        for job in self._open.values():
            job.shards.discard()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    # -- the thread's side

    def _serve(self) -> None:
        while (result := self._queue.get()) is not None:
            try:
                if self._error is None:
                    self._take(result)
            except BaseException as error:  # raised by whoever puts the next
                self._error = error
            try:
                if isinstance(result, Stored):
                    result.release()
            except BaseException as error:  # of a broken device
                self._error = self._error or error
            finally:
                self._queue.task_done()

    def _take(self, result: _Open | Stored | Finished) -> None:
        if isinstance(result, _Open):
            self._open[result.job.job_id] = result
            for place in range(len(result.job) - result.left):  # those that need no rendering
                self._state.count(failed=place < len(result.failures))
            self._end_if_whole(result)
            return
        job, place = self._open[result.place >> _PLACE_BITS], result.place & _PLACE
        if isinstance(result, Stored):
            chunk = result.fetch()  # waits for the device, which is no time of this stage
            self._clock.enter(WRITE)
            job.shards.append(result, chunk, job.digests[place])
            self._clock.stop()
            return
        if result.error is not None:
            job.failures[place] = Failure(result.error.stage, result.error.reason)
        if result.notes:
            job.notes[place] = result.notes
        self._state.count(failed=result.error is not None)
        job.left -= 1
        self._end_if_whole(job)

    def _end_if_whole(self, job: _Open) -> None:
        if job.left:
            return
        self._clock.enter(WRITE)
        try:
            job.shards.finish()
        finally:
            job.shards.discard()
        del self._open[job.job.job_id]
        self._clock.stop()
        done = Done(job.shards.finished, job.failures, job.notes, self._state.tell(), job_id=job.job.job_id)
        self._state.uncount(done=len(job.job) - len(job.failures), failed=len(job.failures))
        self._send(done)
