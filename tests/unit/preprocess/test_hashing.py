"""Hashing many files in threads: every file once, and none waits for a stuck one."""

import os
import threading
import time
from pathlib import Path

import pytest

from cache_store.canonical import digest_of
from preprocess import hashing
from preprocess.errors import SourceError
from preprocess.hashing import hash_files
from preprocess.scan import stat_of


def nobody(done, failed): ...


@pytest.fixture
def files(tmp_path):
    for i in range(50):
        (tmp_path / f"{i:02d}").write_bytes(b"%d" % i * (i % 7))
    return [os.fsencode(tmp_path / f"{i:02d}") for i in range(50)]


@pytest.mark.parametrize("threads", [1, 4, 100])
def test_digest_and_stat_of_every_file_in_order(files, threads):
    answer = hash_files(files, threads, 60, nobody)

    assert [row.tobytes() for row in answer.digests] == [
        digest_of(Path(os.fsdecode(path)).read_bytes()) for path in files
    ]
    assert [row.item() for row in answer.stats] == [stat_of(os.stat(path)) for path in files]
    assert answer.failures == {}


def test_no_file_at_all():
    answer = hash_files([], 4, 60, nobody)

    assert (len(answer.digests), len(answer.stats), answer.failures) == (0, 0, {})


def test_a_file_that_cannot_be_read_is_a_failure_and_the_rest_are_hashed(files):
    os.unlink(files[3])
    os.unlink(files[49])

    answer = hash_files(files, 3, 60, nobody)

    assert {place: failure.stage for place, failure in answer.failures.items()} == {3: "read", 49: "read"}
    assert "No such file" in answer.failures[3].reason
    assert not answer.digests[3].any()
    assert answer.digests[4].tobytes() == digest_of(Path(os.fsdecode(files[4])).read_bytes())


@pytest.mark.parametrize("threads", [1, 2])
def test_a_file_that_hangs_is_given_up_and_the_rest_are_hashed(files, monkeypatch, threads):
    """A network folder that went away: the system call never returns."""
    hash_source, never = hashing.hash_source, threading.Event()

    def hanging(path, max_bytes):
        if path in (files[0], files[20], files[21]):
            never.wait()
            raise SourceError("read", "released at the end of the test")
        return hash_source(path, max_bytes)

    monkeypatch.setattr(hashing, "hash_source", hanging)
    began = time.monotonic()
    try:
        answer = hash_files(files, threads, 0.5, nobody)
    finally:
        never.set()

    assert time.monotonic() - began < 10
    assert sorted(answer.failures) == [0, 20, 21]
    assert {failure.reason for failure in answer.failures.values()} == {"no answer within 0.5 s"}
    assert all(answer.digests[i].any() for i in range(50) if i not in answer.failures)


def test_progress_ends_with_every_file(files):
    os.unlink(files[7])
    told = []

    hash_files(files, 2, 60, lambda done, failed: told.append((done, failed)))

    assert told[-1] == (49, 1)


def test_threads_end_with_the_work(files):
    before = threading.active_count()

    hash_files(files, 4, 60, nobody)
    time.sleep(0.1)

    assert threading.active_count() <= before
