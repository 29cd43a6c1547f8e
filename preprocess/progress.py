"""Progress on stderr with rate, time left, what bounds the work and failures: bars in a terminal or a notebook, and in
a log a line now and then."""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from preprocess.report import in_units

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


_BAR_CHARACTERS = 12
"""All columns have room in 80 characters, at a million images."""

_LATELY_S = 5.0
"""What bounds a build is told from the last few seconds."""


_QUIET_S = 10.0
"""Work that is over by then needs no line in a log."""

_LINE_S, _LINE_SHARE, _LONGEST_S = 30.0, 0.05, 600.0
"""Two lines of a log are so long apart; after `_LONGEST_S` also so much of the work, or at most `_LONGEST_S`."""


@contextlib.contextmanager
def progress_bar(*, transient: bool = False) -> "Iterator[_Bar | _Lines]":
    """For a `with` block a bar, or lines where there is no terminal. A transient bar is gone after it."""
    if not _shows_bars():
        yield _Lines()
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
def bytes_bar(name: str) -> Iterator[Callable[[int, int, int], None]]:
    """For a `with` block what shows bytes done, bytes in all, and findings, as a bar or as lines."""
    if not _shows_bars():
        pace = _Pace()

        def tell(done: int, total: int, findings: int) -> None:
            share = done / total if total else 0.0
            if pace.is_due(share):
                found = f", {findings:,} damaged" if findings else ""
                _write(f"{name} {in_units(done)} of {in_units(total)} ({share:.0%}){found}")

        yield tell
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


def _shows_bars() -> bool:
    """Whether stderr is a terminal, or this is a notebook."""
    if sys.stderr is not None and sys.stderr.isatty():
        return True
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console(stderr=True).is_jupyter


def _write(text: str, *, timed: bool = True) -> None:
    """A line of a log, with the time of day; a log that cannot be written ends no build."""
    head = f"{time.strftime('%H:%M:%S')}  " if timed else ""
    with contextlib.suppress(OSError, AttributeError):  # or a stderr that is closed
        sys.stderr.write(f"{head}{text}\n")
        sys.stderr.flush()


def rate(count: int, elapsed_s: float) -> str:
    """Images a second, as a word of a line."""
    speed = count / elapsed_s
    return f"{speed:,.0f}/s" if speed >= 1 else f"{speed * 3600:,.0f}/h"


class _Pace:
    """When the next line of a log is due."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._told_s, self._told_share = self._since - _LINE_S + _QUIET_S, -1.0
        self.has_told = False

    def is_due(self, share: float, *, anew: bool = False) -> bool:
        """Whether to tell that this share of the work is done; if so, it counts as told.

        Parameters
        ----------
        anew : a stage begins, which is told at once where lines are told at all
        """
        now = time.monotonic()
        waited, gained = now - self._told_s, share - self._told_share
        is_young = now - self._since < _LONGEST_S
        enough = gained >= _LINE_SHARE or is_young or waited >= _LONGEST_S
        due = self.has_told if anew else waited >= _LINE_S and enough
        if due or anew:
            self._told_share = share
        if due:
            self._told_s, self.has_told = now, True
        return due


class _Lines:
    """Progress as lines of a log."""

    def __init__(self) -> None:
        self._pace = _Pace()
        self._name, self._total, self._since, self._bound = "", 0, time.monotonic(), ""
        self._lately = Lately()

    def say(self, text: str) -> None:
        _write(text, timed=False)

    def stage(self, name: str, total: int) -> None:
        if not self._name:
            self._pace = _Pace()  # from here on there is something to tell
        self._name, self._total, self._since, self._bound = name, total, time.monotonic(), ""
        self._lately = Lately()
        if self._pace.is_due(0.0 if self._pace.has_told else -1.0, anew=True) and total:
            _write(f"{name} {total:,} images")

    def update(self, done: int, failed: int) -> None:
        both = done + failed
        share = both / self._total if self._total else 1.0
        if not self._pace.is_due(share):
            return
        parts = [f"{self._name} {both:,} of {self._total:,} ({share:.0%})"]
        elapsed = time.monotonic() - self._since
        if both and elapsed:
            left = (self._total - both) * elapsed / both
            parts += [rate(both, elapsed), f"about {left:,.0f} s left"]
        parts += [self._bound] if self._bound else []
        parts += [f"{failed:,} failed"] if failed else []
        _write(", ".join(parts))

    def work(self, spent_s: Mapping[str, float]) -> None:
        self._bound = self._lately.bound(spent_s, time.monotonic())


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
        shown = rate(done + failed, task.elapsed) if task.elapsed else ""
        failures = f"{failed:,} failed" if failed else ""
        self._bar.update(self._task, completed=done + failed, rate=shown, failures=failures)

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
