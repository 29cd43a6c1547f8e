"""Progress bars with rate, time left, what bounds the work and failures: on stderr, silent when that is no terminal."""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


_BAR_CHARACTERS = 12
"""All columns have room in 80 characters, at a million images."""

_LATELY_S = 5.0
"""What bounds a build is told from the last few seconds."""


@contextlib.contextmanager
def progress_bar(*, transient: bool = False) -> "Iterator[_Bar | None]":
    """A bar for a `with` block; None where nobody would see it. A transient one is gone after it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:>9}"),
        BarColumn(_BAR_CHARACTERS),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[bound]}"),
        TextColumn("{task.fields[failures]}", style="red"),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=5, transient=transient) as bar:
        yield _Bar(bar)


@contextlib.contextmanager
def bytes_bar(name: str) -> Iterator[Callable[[int, int, int], None] | None]:
    """A bar for a `with` block, told of bytes done, bytes in all, and findings; None where nobody would see it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[findings]}", style="red"),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=5) as bar:
        task = bar.add_task(name, total=None, findings="")

        def show(done: int, total: int, findings: int) -> None:
            found = f"{findings:,} damaged" if findings else ""
            bar.update(task, completed=done, total=total, findings=found)

        yield show


class _Bar:
    def __init__(self, bar: "RichProgress") -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._lately = Lately()

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stage(self, name: str, total: int) -> None:
        if self._task is not None:
            self._bar.stop_task(self._task)
        self._task = self._bar.add_task(name, total=total, rate="", bound="", failures="")
        self._lately = Lately()

    def update(self, done: int, failed: int) -> None:
        if self._task is None:
            return
        task = self._bar.tasks[self._task]
        rate = f"{(done + failed) / task.elapsed:,.0f}/s" if task.elapsed else ""
        failures = f"{failed:,} failed" if failed else ""
        self._bar.update(self._task, completed=done + failed, rate=rate, failures=failures)

    def work(self, spent_s: Mapping[str, float]) -> None:
        if self._task is not None:
            self._bar.update(self._task, bound=self._lately.bound(spent_s, time.monotonic()))


class Lately:
    """Tells which stage workers were at most of the time in the last few seconds."""

    def __init__(self) -> None:
        self._known: deque[tuple[float, dict[str, float]]] = deque()

    def bound(self, spent_s: Mapping[str, float], now_s: float) -> str:
        """The stage and its share, as 'decode 45%'; empty at first.

        Parameters
        ----------
        spent_s : stage -> seconds so far
        now_s : by any clock that goes forward
        """
        self._known.append((now_s, dict(spent_s)))
        while len(self._known) > 2 and now_s - self._known[1][0] >= _LATELY_S:
            self._known.popleft()
        before = self._known[0][1]
        gained = {stage: seconds - before.get(stage, 0.0) for stage, seconds in spent_s.items()}
        total = sum(gained.values())
        if total <= 0:
            return ""
        stage = max(gained, key=gained.__getitem__)
        return f"{stage} {gained[stage] / total:.0%}"
