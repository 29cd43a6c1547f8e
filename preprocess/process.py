"""One worker process as the builder sees it: how it is started, spoken to and ended."""

import contextlib
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

from preprocess.errors import WorkerError
from preprocess.jobs import Job, Setup
from preprocess.state import WorkerState, unnamed_file

_KILL_WAIT_S = 2
_LAST_WORDS_BYTES = 2000
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from preprocess.worker import main; main(*map(int, sys.argv[2:]))"
)
_HOME = str(Path(__file__).resolve().parent.parent)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a worker takes over from the builder at its start, and cannot change."""

    decoder: str
    max_pixels: int
    folder: str
    environment: dict[str, str]

    @staticmethod
    def of(setup: Setup) -> "Terms":
        """Those of a worker that would start now."""
        try:
            folder = os.getcwd()
        except OSError:
            folder = ""  # it was removed
        return Terms(setup.decoder, setup.max_pixels, folder, dict(os.environ))


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """A worker process.

    Attributes
    ----------
    connection : where jobs go and answers come from
    state : what it is at, in shared memory
    terms : it was started on these
    born : when it was started, by the monotonic clock
    ready : it has said so
    used : it was given a job before
    jobs : what it works on, in the order in which it was sent
    sent : number of each job since it last had none, in that order; some may be done
    last_words : end of its stderr, once it is ended
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    state: WorkerState
    terms: Terms
    born: float
    _messages: int
    ready: bool = False
    used: bool = False
    jobs: list[Job] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    last_words: str = ""

    @staticmethod
    def start(setup: Setup) -> "WorkerProcess":
        """Start a worker and send it the setup; it says READY when it has imported what it needs.

        Raises
        ------
        WorkerError : the system refuses to start a process
        """
        terms = Terms.of(setup)
        ours, theirs = Pipe()
        state_fd = WorkerState.create()
        messages = unnamed_file()
        # Caps on sides would be the script's or the shell's; a recipe's cap is on pixels.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV_IO_MAX_IMAGE_")}
        environment |= {
            "NO_ALBUMENTATIONS_UPDATE": "1",
            "OPENCV_IO_MAX_IMAGE_PIXELS": str(setup.max_pixels),
            "OPENCV_LOG_LEVEL": "SILENT",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        # -P and the inserted path: a preprocess.py in the user's folder must not be taken for ours.
        command = [sys.executable, "-P", "-c", _START, _HOME, str(theirs.fileno()), str(state_fd), str(os.getpid())]
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=messages,
                pass_fds=(theirs.fileno(), state_fd),
                env=environment,
            )
        except OSError as error:
            os.close(state_fd)
            raise WorkerError(f"cannot start a worker process: {error.strerror}") from error
        theirs.close()
        worker = WorkerProcess(process, ours, WorkerState(state_fd), terms, time.monotonic(), messages)
        with contextlib.suppress(OSError):  # died at once: the next wait tells
            ours.send(setup)
        return worker

    def give(self, job: Job) -> None:
        """Send it a job."""
        if not self.jobs:
            self.sent.clear()
        self.jobs.append(job)
        self.sent.append(job.job_id)
        self.used = True
        with contextlib.suppress(OSError):  # dead: the next wait tells
            self.connection.send(job)

    def begun(self) -> int:
        """How many of its jobs it may have begun, the first ones: at least one.

        The last one that it began may be done. One that it never came to is the first that it would have begun.
        """
        last = self.sent.index(self.state.begun) if self.state.begun in self.sent else -1
        return max(1, sum(self.sent.index(job.job_id) <= last for job in self.jobs))

    def end(self) -> None:
        """Kill it, and keep its last words; once is enough."""
        if self._messages < 0:
            return
        self.process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it dies when the call returns
            self.process.wait(_KILL_WAIT_S)
        self.connection.close()
        size = os.fstat(self._messages).st_size
        text = os.pread(self._messages, _LAST_WORDS_BYTES, max(0, size - _LAST_WORDS_BYTES))
        os.close(self._messages)
        self._messages = -1
        self.last_words = text.decode(errors="replace").strip()

    def disown(self) -> None:
        """In a forked child: let go of what belongs to the parent, and leave the process alone."""
        self.connection.close()
        os.close(self._messages)
        self._messages = -1
        self.process.returncode = 0  # not ours to wait for
