"""Each moment belongs to one stage."""

import time

import pytest

from preprocess.clock import DECODE, READ, STAGES, WRITE, StageClock, by_stage


@pytest.fixture
def now(monkeypatch):
    """A clock that is set by hand, in ns."""
    at = [1_000]
    monkeypatch.setattr(time, "monotonic_ns", lambda: at[0])
    return at


def test_time_belongs_to_the_stage_entered_last(now):
    clock = StageClock()
    for stage, takes in ((READ, 5), (DECODE, 7), (READ, 11), (WRITE, 2)):
        clock.enter(stage)
        now[0] += takes
    clock.stop()
    now[0] += 1_000  # of no stage

    clock.enter(READ)
    assert by_stage(clock.spent_ns) == {name: pytest.approx(s / 1e9) for name, s in zip(STAGES, (16, 7, 0, 2, 0))}


def test_what_is_taken_is_counted_once(now):
    clock = StageClock()
    clock.enter(DECODE)
    now[0] += 3

    assert clock.take() == (0, 3, 0, 0, 0)
    now[0] += 50
    assert clock.take() == (0, 0, 0, 0, 0)
