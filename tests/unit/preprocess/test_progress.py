"""Bars that fit a terminal of 80 columns, and say what takes the time now."""

import io
from types import SimpleNamespace

import pytest
import rich.console

from preprocess import progress
from preprocess.progress import Lately, bytes_bar, progress_bar


@pytest.fixture
def terminal(monkeypatch):
    """stderr as a terminal of 80 columns without colours; what is written there."""
    written = io.StringIO()

    class Console(rich.console.Console):
        def __init__(self, **options):
            super().__init__(file=written, force_terminal=True, width=80, no_color=True, color_system=None)

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(rich.console, "Console", Console)
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=Terminal()))
    return written


def test_what_bounds_is_told_of_the_last_seconds_only():
    lately = Lately()

    assert lately.bound({"decode": 0.0, "render": 0.0}, 0.0) == ""
    assert lately.bound({"decode": 3.0, "render": 1.0}, 1.0) == "decode 75%"
    assert lately.bound({"decode": 3.0, "render": 3.0}, 2.0) == "decode 50%"
    assert lately.bound({"decode": 4.0, "render": 9.0}, 7.0) == "render 86%"


def test_nothing_is_said_before_anything_was_done():
    assert Lately().bound({"read": 0.0}, 5.0) == ""


def test_a_bar_of_a_million_images_has_room_in_80_columns(terminal):
    with progress_bar() as bar:
        bar.stage("normalise", 5_124_668)
        bar._bar.tasks[0].start_time -= 300
        bar.work({"normalise": 0.0, "render": 1.0})
        bar.work({"normalise": 1.0, "render": 1.0})
        bar.update(1_124_668, 1_234)
        bar._bar.refresh()
    last = terminal.getvalue().replace("\r", "\n").split("\n")
    line = next(line for line in reversed(last) if "1125902/5124668" in line)

    assert "normalise 100%" in line
    assert "1,234 failed" in line
    assert "/s" in line


def test_each_stage_is_told_by_itself(terminal):
    with progress_bar() as bar:
        bar.stage("render", 10)
        bar.work({"normalise": 0.0, "render": 0.0})
        bar.work({"normalise": 0.0, "render": 9.0})
        bar.stage("normalise", 10)
        bar.work({"normalise": 0.0, "render": 9.0})
        bar.work({"normalise": 0.5, "render": 9.0})
        bar._bar.refresh()
        texts = [task.fields["bound"] for task in bar._bar.tasks]

    assert texts == ["render 100%", "normalise 100%"]


# -- without a terminal ------------------------------------------------------------------------------------------------


@pytest.fixture
def log(monkeypatch):
    """stderr as a file, and a clock to be moved."""
    clock = SimpleNamespace(now=1000.0, stderr=io.StringIO())
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=clock.stderr, modules={}))
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    clock.lines = lambda: [line[10:] for line in clock.stderr.getvalue().splitlines()]
    return clock


def test_a_build_of_a_moment_leaves_nothing_in_a_log(log):
    with progress_bar() as lines:
        for stage in ("hash", "render", "normalise"):
            lines.stage(stage, 100)
            for done in range(100):
                log.now += 0.01
                lines.update(done, 0)
    assert log.lines() == []


def test_a_log_gets_a_line_soon_then_every_half_minute_and_at_each_stage(log):
    with progress_bar() as lines:
        lines.stage("render", 900)
        lines.work({"decode": 0.0})
        for second in range(100):
            log.now += 1
            lines.work({"decode": float(second), "render": 0.1})
            lines.update(second * 9, second // 20)
        lines.stage("normalise", 40)
    assert log.lines() == [
        "render 81 of 900 (9%), 8/s, about 101 s left, decode 100%",
        "render 352 of 900 (39%), 9/s, about 62 s left, decode 100%, 1 failed",
        "render 624 of 900 (69%), 9/s, about 31 s left, decode 100%, 3 failed",
        "render 895 of 900 (99%), 9/s, about 1 s left, decode 100%, 4 failed",
        "normalise 40 images",
    ]


def test_what_a_build_says_before_it_begins_stands_in_a_log_as_it_is(log):
    with progress_bar() as lines:
        lines.say("the recipe changed: a \udcff")
    assert log.stderr.getvalue() == "the recipe changed: a \udcff\n"


def test_a_build_of_days_leaves_no_line_every_half_minute(log):
    with progress_bar() as lines:
        lines.stage("render", 10**7)
        for minute in range(24 * 60):
            log.now += 60
            lines.update(minute * 1000, 0)
    assert 20 < len(log.lines()) <= 24 * 6 + 20


def test_a_check_of_bytes_leaves_lines_as_well(log):
    with bytes_bar("verify") as show:
        for second in range(50):
            log.now += 1
            show(second << 30, 50 << 30, second // 30)
    assert log.lines() == ["verify 9.0 GiB of 50.0 GiB (18%)", "verify 39.0 GiB of 50.0 GiB (78%), 1 damaged"]


@pytest.mark.parametrize("stderr", [None, SimpleNamespace(isatty=lambda: False)])
def test_a_log_that_cannot_be_written_ends_nothing(monkeypatch, stderr):
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stderr, modules={}))
    with progress_bar() as lines:
        lines.say("a line")


def test_a_notebook_gets_bars(monkeypatch):
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=io.StringIO(), modules={"IPython": None}))
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    assert progress._shows_bars()
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: False)
    assert not progress._shows_bars()
