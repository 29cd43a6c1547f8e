"""Builds again whenever a folder of images has come to rest. It is looked at from time to time: a network file system
tells nobody what another machine writes."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from cache_store import layout
from cache_store.errors import CacheStoreError, LockedError, StorageError
from preprocess.errors import PreprocessError, UsageError
from preprocess.report import BuildReport, printable
from preprocess.scan import signature

_PASSING = (LockedError, StorageError)
"""What may be over although SOURCE does not change."""

_RETRY_S = 30.0
_MOST_OF_THE_TIME = 4
"""A folder whose every look takes long is left alone so many times as long."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a folder's coming to rest.

    Attributes
    ----------
    build : what a build did; None if there was none, or if it failed
    reason : why it failed, or why there was nothing to build; None after a build
    exit_code : that of the failure; 0 after a build, and while there is nothing to build
    """

    build: BuildReport | None = None
    reason: str | None = None
    exit_code: int = 0

    @property
    def event(self) -> str:
        """'built', 'up to date', 'failed' or 'waiting'."""
        if self.build is not None:
            return "up to date" if self.build.up_to_date else "built"
        return "failed" if self.exit_code else "waiting"

    def to_json(self, at: datetime) -> str:
        """All of it, and the time, as one JSON object on one line."""
        head = {"time": at.isoformat(timespec="seconds"), "event": self.event}
        return json.dumps(head | asdict(self))

    def __str__(self) -> str:
        return f"{self.event}: {self.reason}" if self.build is None else _in_words(self.build)


def watch(
    source: str | os.PathLike[str],
    rebuild: Callable[[], BuildReport],
    tell: Callable[[Outcome], None],
    *,
    recipe: str | os.PathLike[str] | None = None,
    settle_s: float = 2,
    poll_s: float = 1,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> NoReturn:
    """Build once SOURCE is found at rest, and again after every change. Ends by an exception alone.

    A file that is being written changes from look to look, and is waited for; one that is caught half written changes
    later, which brings the next build.

    Parameters
    ----------
    source : folder of images
    rebuild : builds
    tell : given what came of each build, and why none can be made
    recipe : a file whose change is a change as well
    settle_s : how long nothing may have changed before a build
    poll_s : between two looks
    now, sleep : the clock

    Raises
    ------
    UsageError : SOURCE is no folder, or times that cannot be meant; what the first build raises if it cannot be meant
        (exit code 2). Later failures are told, and the next change is waited for
    """
    for name, seconds in (("settle", settle_s), ("poll", poll_s)):
        if not 0 <= seconds < math.inf:
            raise UsageError(f"{name}: seconds, 0 or more, expected, found {seconds}")
    source_path = layout.given_path(source)
    signature(source_path)
    seen: object = None
    built: object = None
    told: str | None = None
    since, again_at, is_first = 0.0, math.inf, True
    while True:
        began = now()
        found, lacking = _look(source_path, recipe)
        if found != seen:
            seen, since = found, now()
        if (seen != built or began >= again_at) and began - since >= settle_s:
            built, again_at, outcome = seen, math.inf, Outcome(reason=lacking)
            if not lacking:
                try:
                    outcome = Outcome(rebuild())
                except (PreprocessError, CacheStoreError) as error:
                    if is_first and error.exit_code == UsageError.exit_code:
                        raise
                    outcome = Outcome(reason=" ".join(str(error).split()), exit_code=error.exit_code)
                    if isinstance(error, _PASSING):
                        again_at = now() + _RETRY_S
                is_first = False
            if outcome.reason != told or again_at == math.inf:  # a lock that lasts is told once
                tell(outcome)
            told = outcome.reason
            continue
        sleep(max(poll_s, _MOST_OF_THE_TIME * (now() - began)))


def _look(source: Path, recipe: str | os.PathLike[str] | None) -> tuple[object, str]:
    """What changes when a build could have another outcome; and why there is nothing to build, if so."""
    try:
        digest, images = signature(source)
    except UsageError as error:
        return str(error), str(error)
    lacking = "" if images else f"SOURCE {str(source)!r} holds no image"
    if recipe is None:
        return digest, lacking
    try:
        found = os.stat(layout.given_path(recipe))
    except OSError as error:
        return (digest, error.errno), lacking
    return (digest, found.st_mtime_ns, found.st_size, found.st_ino), lacking


def _in_words(report: BuildReport) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in report.samples.items())
    if report.up_to_date:
        line = f"up to date: snapshot {report.snapshot}: {counts}"
    else:
        rendered = f"{report.rendered:,} variant{'s' * (report.rendered != 1)} rendered"
        line = f"built snapshot {report.snapshot}: {counts}; {rendered}, {sum(report.seconds.values()):.1f} s"
    if report.shift:
        line = f"{report.shift}; {line}"
    if not report.failures:
        return line
    first, count = report.failures[0], len(report.failures)
    return (
        f"{line}; {count:,} image{'s' * (count != 1)} left out, "
        f"such as {printable(first['path'])}: {first['stage']}: {first['reason']}"
    )
