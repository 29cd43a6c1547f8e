"""Progress bars with rate, time left and failures: on stderr, silent when that is not a terminal."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


@contextlib.contextmanager
def progress_bar(*, transient: bool = False) -> "Iterator[_Bar | None]":
    """A bar for a `with` block; None where nobody would see it. A transient one is gone after it."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
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

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def stage(self, name: str, total: int) -> None:
        if self._task is not None:
            self._bar.stop_task(self._task)
        self._task = self._bar.add_task(name, total=total, rate="", failures="")

    def update(self, done: int, failed: int) -> None:
        if self._task is None:
            return
        task = self._bar.tasks[self._task]
        rate = f"{(done + failed) / task.elapsed:,.0f} images/s" if task.elapsed else ""
        failures = f"{failed:,} failed" if failed else ""
        self._bar.update(self._task, completed=done + failed, rate=rate, failures=failures)
