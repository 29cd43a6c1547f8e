"""A process that measures, as the appraisal sees it: what goes wrong there costs one figure, not the verdict."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Pipe
from pathlib import Path
from typing import Any

_HOME = str(Path(__file__).resolve().parent.parent.parent)
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); from preprocess.verdict.measures import main; main(int(sys.argv[2]))"
)
_START_S = 90.0
_LOOK_S = 0.1
_END_S = 2.0


class Unmeasured(Exception):
    """A figure that could not be measured; why."""


class Hand:
    """Starts the process when the block begins, again if it was lost, and ends it with all that it has started.

    Parameters
    ----------
    folder : a temporary one, for what its libraries leave on disk
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._is_new = True  # it has not said yet that it is ready

    def __enter__(self) -> "Hand":
        with contextlib.suppress(Unmeasured):  # told when something is to be measured
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def ready(self) -> None:
        """Wait until it has imported what it needs.

        Raises
        ------
        Unmeasured : it cannot be started
        """
        if self._process is None:
            self._start()
        if self._is_new:
            self._answer(_START_S)
            self._is_new = False

    def ask(self, what: str, limit_s: float, **request: Any) -> Any:
        """The answer to one of `measures.REQUESTS`.

        Parameters
        ----------
        limit_s : after which the process is given up

        Raises
        ------
        Unmeasured : it failed, was lost, or takes too long
        """
        self.ready()
        try:
            self._connection.send((what, request))
        except OSError:
            raise self._lost() from None
        return self._answer(limit_s)

    def _start(self) -> None:
        self._connection, theirs = Pipe()
        try:
            # -P and the inserted path: a preprocess.py in the user's folder must not be taken for ours. A session of
            # its own: Ctrl-C reaches us alone, and we end it with all its workers.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START, _HOME, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(self._folder / "torch")},
                start_new_session=True,
            )
        except OSError as error:
            raise Unmeasured(f"cannot start a process: {error.strerror}") from error
        finally:
            theirs.close()
        self._is_new = True

    def _answer(self, limit_s: float) -> Any:
        ends = time.monotonic() + limit_s
        try:
            while not self._connection.poll(_LOOK_S):
                # Its workers may hold the other end of the pipe open, so its death is not always told by it.
                if self._process is not None and self._process.poll() is not None and not self._connection.poll():
                    raise self._lost()
                if time.monotonic() > ends:
                    self._end()
                    raise Unmeasured(f"no answer for {limit_s:.0f} s")
            done, value = self._connection.recv()
        except (EOFError, ConnectionError):
            raise self._lost() from None
        if not done:
            raise Unmeasured(value)
        return value

    def _lost(self) -> Unmeasured:
        process = self._process
        status = None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(_END_S)
        self._end()
        how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
        return Unmeasured(f"the measuring process ended with {how}")

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        self._connection.close()
        if process.poll() is None:  # its group is still its own; workers that outlive it end by themselves
            os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # stuck in the kernel: it dies when the call returns
                process.wait(_END_S)
