"""The reading side of a worker: reads and hashes a job's files and asks the builder what to render of them; for an
engine that works in batches, in threads, some jobs ahead."""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import numpy as np

from cache_store.canonical import DIGEST_BYTES, digest_of
from preprocess.clock import READ, StageClock
from preprocess.errors import SourceError
from preprocess.jobs import Failure, Hashed, ReadJob, Wanted
from preprocess.read import read_source
from preprocess.render import File
from preprocess.scan import STAT

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

KEPT_BYTES = 32 << 20
"""Encoded bytes that a job keeps between hashing and rendering; files beyond are read a second time."""

AHEAD_BYTES = 256 << 20
AHEAD_JOBS = 16
"""How far reading runs ahead of rendering, whichever comes first. A job may keep `KEPT_BYTES` whatever others do."""

_THREADS = 8
_TICK_S = 0.2


@dataclass(slots=True)
class Prepared:
    """A job whose files were read.

    Attributes
    ----------
    kept : bytes of files by place, as far as there was room; whoever renders them takes them out
    """

    job: ReadJob
    hashed: Hashed
    kept: dict[int, bytes]
    wanted: Wanted

    def files(self, name: Callable[[int], int] = lambda place: place) -> list[File]:
        """What is to be rendered, each called by what `name` gives for its place in the job."""
        return [
            File(name(place), self._reading(place), self.hashed.digests[place].tobytes(), variants)
            for place, variants in self.wanted.files
            if place not in self.hashed.failures
        ]

    def _reading(self, place: int) -> Callable[[], bytes]:
        def read() -> bytes:
            data = self.kept.pop(place, None)
            return data if data is not None else self._again(place)

        return read

    def _again(self, place: int) -> bytes:
        data, _ = read_source(self.job.paths[place], self.job.max_bytes)
        if digest_of(data) != self.hashed.digests[place].tobytes():
            raise SourceError("read", "the file changed while it was read")
        return data


Read = tuple[bytes, tuple[int, int, int, int], bytes] | Failure
"""A file's bytes, its `scan.STAT` and its digest; or why it cannot be read."""


def read_one(path: bytes, max_bytes: int) -> Read:
    try:
        data, stat = read_source(path, max_bytes)
    except SourceError as error:
        return Failure(error.stage, error.reason)
    return data, stat, digest_of(data)


def gathered(job: ReadJob, answers: Iterable[Read], room_bytes: int) -> tuple[Hashed, dict[int, bytes]]:
    """What reading a job's files gave, and the bytes of the first of them, as many as there is room for.

    Parameters
    ----------
    answers : one a file, in turn
    """
    digests, stats = np.zeros((len(job), DIGEST_BYTES), np.uint8), np.zeros(len(job), STAT)
    failures: dict[int, Failure] = {}
    kept: dict[int, bytes] = {}
    for place, answer in enumerate(answers):
        if isinstance(answer, Failure):
            failures[place] = answer
            continue
        data, stats[place], digest = answer
        digests[place] = np.frombuffer(digest, np.uint8)
        if len(data) <= room_bytes:
            kept[place] = data
            room_bytes -= len(data)
    return Hashed(digests, stats, failures, job.job_id), kept


class _Stopped(Exception):
    """Nobody wants what the reader would read."""


class Reader:
    """Reads jobs ahead in threads, as they come.

    It is alone in receiving messages of the builder, until it has got one that is no job for it, or is stopped. A
    thread of its own receives them as they come, whatever else waits: a builder that is held up while it sends hears
    nothing, and everybody would wait for everybody.

    Parameters
    ----------
    first : the job to begin with
    ours : whether a message is a job for this reader
    send : sends to the builder; safe to be called from here
    clock : of this thread: told of the time in which files are read, however many at a time

    Attributes
    ----------
    at : the file that is waited for: its job and its place; None: none
    rest : the message that ended it; None before the end
    """

    def __init__(
        self,
        connection: Connection,
        first: ReadJob,
        ours: Callable[[Any], bool],
        send: Callable[[Any], None],
        clock: StageClock,
    ) -> None:
        self._connection, self._ours, self._send, self._clock = connection, ours, send, clock
        self._todo: deque[Any] = deque([first])
        self._answers_due: deque[Wanted] = deque()
        self._ready: deque[Prepared] = deque()
        self._begun: list[Prepared] = []  # whose bytes may not all be taken yet
        self._changed = threading.Condition()
        self._idle = self._over = self._stop = False
        self._error: BaseException | None = None
        self._lost: BaseException | None = None  # the connection
        self.at: tuple[int, int] | None = None
        self.rest: Any = None
        self._threads = [
            threading.Thread(target=target, name=f"decant-{name}", daemon=True)
            for name, target in (("receiver", self._receive), ("reader", self._serve))
        ]
        for thread in self._threads:
            thread.start()

    # -- the caller's side

    def next(self, tick: Callable[[], None]) -> Prepared | None:
        """The next job, without taking it; None: none is under way, for now or for ever (`over`).

        Parameters
        ----------
        tick : called while this waits, several times a second

        Raises
        ------
        EOFError, OSError : the builder is gone; or whatever else has ended the reader
        """
        with self._changed:
            while not (self._ready or self._idle or self._over):
                self._changed.wait(_TICK_S)
                tick()
            if self._ready:
                return self._ready[0]
            if self._error is not None:
                raise self._error
            return None

    def await_more(self, tick: Callable[[], None]) -> None:
        """Wait until a job is under way, or the reader has ended."""
        with self._changed:
            while self._idle and not (self._ready or self._over):
                self._changed.wait(_TICK_S)
                tick()

    def take(self) -> Prepared:
        """The job that `next` gave."""
        with self._changed:
            prepared = self._ready.popleft()
            self._begun.append(prepared)
            self._changed.notify_all()
            return prepared

    @property
    def over(self) -> bool:
        with self._changed:
            return self._over and not self._ready

    def stop(self) -> None:
        """End the threads, unless a file does not let one go."""
        with self._changed:
            self._stop = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(5)

    # -- the threads' side

    def _receive(self) -> None:
        try:
            while not self._stop:
                if not self._connection.poll(_TICK_S):
                    continue
                message = self._connection.recv()
                with self._changed:
                    (self._answers_due if isinstance(message, Wanted) else self._todo).append(message)
                    self._changed.notify_all()
                if not isinstance(message, Wanted) and not self._ours(message):
                    return
        except BaseException as error:  # such as EOFError; raised by whoever waits for a job
            with self._changed:
                self._lost = error
                self._changed.notify_all()

    def _received(self, messages: "deque[Any]") -> Any:
        """The next of these, when it has come; `_changed` is held."""
        while not messages:
            if self._stop:
                raise _Stopped
            if self._lost is not None:
                raise self._lost
            self._changed.wait(_TICK_S)
        return messages.popleft()

    def _serve(self) -> None:
        from concurrent.futures import ThreadPoolExecutor

        try:
            with ThreadPoolExecutor(_THREADS, "decant-read") as threads:
                while self._ours(job := self._next_job()):
                    self._await_room()
                    self._prepare(job, threads)
            self.rest = job
        except _Stopped:
            pass
        except BaseException as error:  # raised by whoever waits for a job
            self._error = error
        finally:
            with self._changed:
                self._over = True
                self._changed.notify_all()

    def _next_job(self) -> Any:
        with self._changed:
            if not self._todo:
                self._idle = True
                self._changed.notify_all()
            job = self._received(self._todo)
            self._idle = False
            self._changed.notify_all()
            return job

    def _await_room(self) -> None:
        with self._changed:
            while len(self._ready) >= AHEAD_JOBS or (self._ready and self._room_bytes() <= 0):
                if self._stop:
                    raise _Stopped
                self._changed.wait(_TICK_S)  # bytes are taken without a word

    def _room_bytes(self) -> int:
        self._begun = [prepared for prepared in self._begun if prepared.kept]
        kept = [data for prepared in (*self._ready, *self._begun) for data in list(prepared.kept.values())]
        return AHEAD_BYTES - sum(map(len, kept))

    def _prepare(self, job: ReadJob, threads: "ThreadPoolExecutor") -> None:
        with self._changed:
            room = max(KEPT_BYTES, self._room_bytes())
        self._clock.enter(READ)
        hashed, kept = gathered(job, self._answers(job, threads), room)
        self._clock.stop()
        self._send(hashed)
        with self._changed:
            wanted: Wanted = self._received(self._answers_due)
        needed = {place for place, _ in wanted.files}
        with self._changed:
            kept = {place: data for place, data in kept.items() if place in needed}
            self._ready.append(Prepared(job, hashed, kept, wanted))
            self._changed.notify_all()

    def _answers(self, job: ReadJob, threads: "ThreadPoolExecutor") -> Iterator[Read]:
        """What reading each file gives, in turn; no more of them are in memory than there are threads, twice."""
        futures: deque[Future[Read]] = deque()
        paths = iter(job.paths)
        for place in range(len(job)):
            while len(futures) < 2 * _THREADS and (path := next(paths, None)) is not None:
                futures.append(threads.submit(read_one, path, job.max_bytes))
            if self._stop:
                raise _Stopped
            self.at = job.job_id, place
            yield futures.popleft().result()
        self.at = None


def read_singly(job: ReadJob, take_up: Callable[[int], None]) -> tuple[Hashed, dict[int, bytes]]:
    """Read and hash a job's files one by one; `take_up` is told of the place of each before."""

    def answers(paths: Sequence[bytes]) -> Iterable[Read]:
        for place, path in enumerate(paths):
            take_up(place)
            yield read_one(path, job.max_bytes)

    return gathered(job, answers(job.paths), KEPT_BYTES)
