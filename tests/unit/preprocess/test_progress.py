"""Bars that fit a terminal of 80 columns, and say what takes the time now."""

import io
from types import SimpleNamespace

import pytest
import rich.console

from preprocess import progress
from preprocess.progress import Lately, progress_bar


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
