"""Measuring: contenders in processes of their own, in turn, checked after they were timed; and tables of figures."""

import ctypes
import multiprocessing
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from bench_engine import files_of
from contenders import Apart, Contender, GivenUp, WrongValue, memory_now

SIZE = 224
LEAD_S = 0.2

ANSWER_S = 300.0
"""A contender that says nothing for this long ends the run."""

NO_GPU = "not measured: no GPU"

_PR_SET_PDEATHSIG = 1
_RESET_PEAK = "5"


@dataclass
class Settings:
    """What was asked for.

    Attributes
    ----------
    photos : folder of JPEG files; None: drawn ones
    work : folder for stores
    rounds : turns of each contender that count; one before them does not
    images : for what is measured an image at a time
    stored : images in stores and of training loops
    scale : images of the smallest point of each series in the last section
    doublings : of it
    """

    photos: Path | None
    work: Path
    rounds: int
    images: int
    stored: int
    scale: int
    doublings: int
    cuda: bool = field(default_factory=torch.cuda.is_available)

    def files(self, count: int) -> list[bytes]:
        """So many JPEG files that every decoder reads alike: upright ones, neither CMYK nor cut."""
        return self._upright[:: max(1, len(self._upright) // count)][:count]

    @cached_property
    def _upright(self) -> list[bytes]:
        from preprocess.header import read_header

        wanted = max(self.images, self.stored)
        count = wanted
        if self.photos is not None:
            count = sum(path.suffix.lower() in (".jpg", ".jpeg") for path in self.photos.rglob("*"))
        headers = ((data, read_header(data)) for data in files_of(self.photos, count))
        found = [data for data, header in headers if header and _is_plain(header)]
        if len(found) < wanted:
            sys.exit(f"{self.photos} holds {len(found)} upright JPEG files, {wanted} are wanted")
        return found


def _is_plain(header: Any) -> bool:
    return header.format == "JPEG" and header.orientation == 1 and header.channels in (1, 3)


# -- contenders --------------------------------------------------------------------------------------------------------


class Technique(Contender):
    """One way to do something.

    Attributes
    ----------
    least_s : a turn goes on for at least so long, whole passes at a time
    private_before : bytes of private memory of its process before it was made
    cuda : whether its memory is that of the GPU
    """

    least_s = 0.05
    private_before = 0
    cuda = False
    _pass_s = 0.0

    def epoch(self) -> tuple[int, float]:
        """Images and seconds of as many passes as fill `least_s`.

        Short ones have a pass before that does not count: a virtual machine takes free memory back between the turns,
        and who asks for fresh memory would wait for it only because of the others' turns.
        """
        if self._pass_s < LEAD_S:
            self.drain()
        begun, images, passes = time.perf_counter(), 0, 0
        while True:
            images += self.drain()
            passes += 1
            if self.cuda:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - begun
            if seconds >= self.least_s:
                self._pass_s = seconds / passes
                return images, seconds

    def memory(self) -> int:
        """Peak of private memory in a pass, beyond what its process had before there was a technique; bytes.

        Mapped files, which include the libraries themselves, are not in it.
        """
        if self.cuda:
            return torch.cuda.max_memory_allocated()
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
        before = memory_now()
        self.drain()
        return private(before) - self.private_before + memory_now()["VmHWM"] - before["VmRSS"]

    def extra(self) -> dict[str, Any]:
        """More figures; asked for after the check."""
        return {}

    def check(self) -> None:
        """Raises WrongValue if what it gives is not what it should give."""
        raise NotImplementedError


class EachInput(Technique):
    """A function, called with one input after the other.

    Parameters
    ----------
    function : gives an array or a tensor
    inputs : what it gets: an image each, or a batch
    expected : called with the number of an input, gives the right answer
    tolerance : the largest mean difference from it
    images : in an input
    threads : of torch and OpenCV
    cuda : wait for the GPU before the clock is read
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        inputs: Sequence[Any],
        expected: Callable[[int], np.ndarray],
        tolerance: float,
        *,
        images: int = 1,
        threads: int = 1,
        cuda: bool = False,
    ) -> None:
        set_threads(threads)
        self.function, self.inputs, self.expected, self.tolerance = function, inputs, expected, tolerance
        self.images, self.cuda = images, cuda

    def drain(self) -> int:
        for each in self.inputs:
            self.function(each)
        return len(self.inputs) * self.images

    def answer(self, each: Any) -> Any:
        """What is compared with the expected."""
        return self.function(each)

    def check(self) -> None:
        for number, each in enumerate(self.inputs):
            compare(self.answer(each), self.expected(number), self.tolerance)


def compare(found: Any, expected: np.ndarray, tolerance: float) -> None:
    """Hold an answer against the right one.

    Raises
    ------
    WrongValue : another shape, or a mean difference beyond the tolerance
    """
    if isinstance(found, torch.Tensor):
        found = found.cpu().numpy()
    if found.shape != expected.shape:
        raise WrongValue(f"shape {expected.shape} expected, found {found.shape}")
    apart = float(np.abs(found.astype(np.float64) - expected.astype(np.float64)).mean())
    if not apart <= tolerance:
        raise WrongValue(f"the answer is {apart:.4g} off in the mean, {tolerance:g} is allowed")


def planes_last(image: torch.Tensor) -> torch.Tensor:
    """(C, H, W) as (H, W, C), a view: how Pillow and OpenCV lay out an image."""
    return image.permute(1, 2, 0)


def set_threads(count: int) -> None:
    torch.set_num_threads(count)
    cv2.setNumThreads(count)


def processors() -> int:
    return len(os.sched_getaffinity(0))


# -- processes ---------------------------------------------------------------------------------------------------------


def apart(make: Callable[[], Technique]) -> Apart:
    """A technique in a process of its own, forked after everything was imported, so that its memory is its own."""
    return Apart(multiprocessing.get_context("fork"), ANSWER_S, _in_a_fork, make)


def _in_a_fork(make: Callable[[], Technique]) -> Technique:
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # forked siblings hold our pipe open: it has no end of file
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)  # what was freed before the fork would be used again, and not count
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    before = private(memory_now())
    technique = make()
    technique.private_before = before
    return technique


def alone(name: str, function: Callable[[], Any]) -> tuple[Any, int]:
    """What a function gives in a process of its own, and the peak of private memory that it took there, bytes."""

    class Once(Technique):
        def run(self) -> Any:
            return function()

        def memory(self) -> int:
            """The peak of the resident set less its size now is what was freed; private memory grew by the rest."""
            now = memory_now()
            return now["VmHWM"] - now["VmRSS"] + private(now) - self.private_before

    process = apart(Once)
    try:
        return process.ask("run"), process.ask("memory")
    except GivenUp as error:
        sys.exit(f"{name}: {error}")
    finally:
        process.close()


def private(now: Mapping[str, int]) -> int:
    return now["RssAnon"] + now["RssShmem"]


# -- measuring ---------------------------------------------------------------------------------------------------------


def measure(section: str, contenders: Mapping[str, Callable[[], Technique] | str], rounds: int) -> dict[str, Any]:
    """Rounds of one turn of each contender, each round beginning with another one; then memory, then the checks.

    Parameters
    ----------
    contenders : name -> makes the technique; or why there is none

    Returns
    -------
    name -> {ms, low, high: an image; images_per_s; peak_mb}, or {missing: why}

    A wrong answer, or a contender that fails, ends the program.
    """
    processes: dict[str, Apart] = {}
    seconds: dict[str, list[float]] = {}
    found: dict[str, Any] = {}
    name = ""
    try:
        for name, make in contenders.items():
            if not isinstance(make, str):
                processes[name], seconds[name] = apart(make), []
        names = list(processes)
        for number in range(-1, rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                images, taken = processes[name].ask("epoch")
                if number >= 0:
                    seconds[name].append(taken / images)
        for name, make in contenders.items():
            if isinstance(make, str):
                found[name] = {"missing": make}
                continue
            peak = processes[name].ask("memory")
            processes[name].ask("check")
            found[name] = figures(seconds[name]) | {"peak_mb": peak / 1e6} | processes[name].ask("extra")
            say(section, name, f"{found[name]['ms']:10.4f} ms an image {peak / 1e6:8.1f} MB")
    except GivenUp as error:
        sys.exit(f"{section}, {name}: {error}")
    finally:
        for each in processes.values():
            each.close()
    return found


def figures(seconds: Sequence[float]) -> dict[str, float]:
    median = statistics.median(seconds)
    return {"ms": median * 1e3, "low": min(seconds) * 1e3, "high": max(seconds) * 1e3, "images_per_s": 1 / median}


def say(section: str, name: str, what: str) -> None:
    print(f"{section:11} {name:44} {what}", file=sys.stderr)


# -- tables ------------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A Markdown table; columns from `left` on are numbers, to the right."""
    ruler = ["---" if place < left else "---:" for place in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *rows))


def plain_table(first: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The three columns that every technique has."""
    return table([first, "ms an image", "(low to high)", "images/s", "peak MB"], [row(*each) for each in found.items()])


def row(name: str, each: Mapping[str, Any]) -> list[str]:
    if "missing" in each:
        return [name, each["missing"], "", "", ""]
    return [name, short(each["ms"]), f"{short(each['low'])}–{short(each['high'])}", whole(each), peak(each)]


def whole(each: Mapping[str, Any]) -> str:
    return f"{float(short(each['images_per_s']).replace(',', '')):,.0f}"


def peak(each: Mapping[str, Any]) -> str:
    return "< 1" if each["peak_mb"] < 1 else f"{each['peak_mb']:,.0f}"


def short(value: float) -> str:
    """Three digits that count."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    digits = 2 - int(np.floor(np.log10(abs(rounded))))
    return f"{rounded:,.{max(0, digits)}f}"
