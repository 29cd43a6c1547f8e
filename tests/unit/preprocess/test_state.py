"""A worker's state, seen from both ends of the shared memory."""

import os
import time

import pytest

from preprocess.state import WorkerState


@pytest.fixture
def both_ends():
    fd = WorkerState.create()
    return WorkerState(os.dup(fd)), WorkerState(fd)


def test_the_builder_sees_what_the_worker_says(both_ends):
    worker, builder = both_ends

    worker.start_job()
    worker.take_up(5)
    worker.count(failed=False)
    worker.count(failed=False)
    worker.count(failed=True)

    assert (builder.item, builder.done, builder.failed) == (5, 2, 1)


def test_nothing_is_in_hand_before_the_first_job_and_the_clock_stands(both_ends):
    _, builder = both_ends

    assert builder.busy_s() == 0
    assert (builder.done, builder.failed) == (0, 0)


def test_the_clock_runs_from_the_item_in_hand(both_ends):
    worker, builder = both_ends
    worker.start_job()

    time.sleep(0.05)
    assert builder.busy_s() >= 0.05
    worker.take_up(0)

    assert builder.busy_s() < 0.05


def test_the_clock_runs_between_items_too(both_ends):
    """A worker that hangs while it finishes a shard has no item in hand; it must not hang for ever."""
    worker, builder = both_ends
    worker.start_job()
    worker.take_up(3)
    worker.put_down()

    time.sleep(0.02)

    assert builder.item == -1
    assert builder.busy_s() >= 0.02


def test_an_idle_worker_is_never_late(both_ends):
    worker, builder = both_ends
    worker.start_job()
    worker.take_up(3)
    worker.idle()

    time.sleep(0.02)

    assert builder.busy_s() == 0
    assert builder.item == -1


def test_a_new_job_begins_its_counts_anew(both_ends):
    worker, builder = both_ends
    worker.start_job()
    worker.count(failed=True)
    worker.start_job()

    assert (builder.item, builder.done, builder.failed) == (-1, 0, 0)


def test_the_state_needs_no_open_file(both_ends):
    """Workers of a long build must not use up descriptors; the map keeps the memory."""
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    states = [WorkerState(WorkerState.create()) for _ in range(20)]

    if before is not None:
        # Python's own map keeps one duplicate each; ours is closed.
        assert len(os.listdir("/proc/self/fd")) - before <= len(states)


def test_the_item_in_hand_is_one_of_a_job(both_ends):
    worker, builder = both_ends
    worker.start_job(7)
    worker.take_up(2)
    assert (builder.job_id, builder.item, builder.begun) == (7, 2, 7)

    worker.begin(9)
    worker.take_up(1, 8)
    assert (builder.job_id, builder.item, builder.begun) == (8, 1, 9)


def test_what_was_told_with_the_end_of_a_job_is_not_counted_again(both_ends):
    worker, builder = both_ends
    worker.start_job()
    for failed in (False, False, True):
        worker.count(failed=failed)
    worker.uncount(done=1, failed=1)

    assert (builder.done, builder.failed) == (1, 0)


def test_times_of_all_threads_are_added_up_and_told_once(both_ends):
    worker, builder = both_ends
    worker.start_job()
    for stage, clock in enumerate((worker.clock, *worker.other_clocks)):
        clock.spent_ns[stage] += 10 + stage
    assert builder.spent_ns.tolist() == [10, 11, 12, 0, 0]
    assert worker.tell() == (10, 11, 12, 0, 0)
    worker.clock.spent_ns[0] += 5

    assert builder.spent_ns.tolist() == [5, 0, 0, 0, 0]
    worker.start_job()
    assert builder.spent_ns.tolist() == [0] * 5
