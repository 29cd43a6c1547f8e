"""A time budget that is shared out."""

import pytest

from preprocess.verdict.clock import Clock


def test_a_part_is_a_share_of_what_is_left_within_bounds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = Clock(60)

    now[0] += 20
    assert (clock.spent_s(), clock.left_s()) == (20, 40)
    assert clock.part(0.25, 1, 100) == pytest.approx(10)
    assert clock.part(0.25, 1, 5) == 5
    now[0] += 50
    assert clock.left_s() == -10
    assert clock.part(0.25, 1, 5) == 1
