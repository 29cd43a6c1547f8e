"""Contenders: what is timed in turn, if need be in a process of its own, and checked after it was timed."""

import contextlib
import time
from collections.abc import Callable
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any


class WrongValue(Exception):
    """A contender gave something else than the right answer."""


class GivenUp(Exception):
    """A contender in another process failed, ended or stopped answering; why."""


class Contender:
    """Something that delivers an epoch."""

    def drain(self) -> int:
        """Deliver one epoch; the number of samples."""
        raise NotImplementedError

    def epoch(self) -> tuple[int, float]:
        """Samples and seconds of one epoch."""
        begun = time.perf_counter()
        samples = self.drain()
        return samples, time.perf_counter() - begun

    def check(self) -> None:
        """Compare what is delivered with what was stored, if anything was; raises WrongValue."""

    def close(self) -> None:
        """Let go of processes and maps."""


class Apart:
    """A contender in a process of its own, which is asked for one method's result after the other.

    Parameters
    ----------
    context : how the process starts
    patience_s : one that says nothing for so long is given up
    make : called with `arguments` there, gives the contender

    Raises
    ------
    GivenUp : it could not be made
    """

    def __init__(
        self, context: BaseContext, patience_s: float, make: Callable[..., Contender], *arguments: Any
    ) -> None:
        self._patience_s = patience_s
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, make, arguments))  # type: ignore[attr-defined]
        self._process.start()
        there.close()
        try:
            self._answer()
        except GivenUp:
            self.close()
            raise

    def ask(self, what: str) -> Any:
        """What the method of this name returns.

        Raises
        ------
        GivenUp
        """
        self._here.send(what)
        return self._answer()

    def close(self) -> None:
        """Close the contender, and end its process."""
        if self._process.is_alive():
            with contextlib.suppress(OSError):  # it ended by itself
                self._here.send(None)  # forked siblings hold the pipe open: to close it would tell nothing
            self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._here.close()

    def _answer(self) -> Any:
        try:
            if not self._here.poll(self._patience_s):
                self._process.kill()
                raise GivenUp(f"no answer for {self._patience_s:.0f} s")
            done, value = self._here.recv()
        except (EOFError, ConnectionError):
            self._process.join(10)
            raise GivenUp(f"its process ended with status {self._process.exitcode}") from None
        if not done:
            raise GivenUp(value)
        return value


def _serve(connection: Any, make: Callable[..., Contender], arguments: tuple[Any, ...]) -> None:
    try:
        contender = make(*arguments)
        connection.send((True, None))
        while (what := _next(connection)) is not None:
            connection.send((True, getattr(contender, what)()))
        contender.close()
    except BaseException as error:
        connection.send((False, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"))


def _next(connection: Any) -> Any:
    """What is asked; None if nothing more will be."""
    with contextlib.suppress(EOFError):
        return connection.recv()
    return None


def memory_now() -> dict[str, int]:
    """The memory lines of /proc/self/status, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("Vm", "Rss"))}
