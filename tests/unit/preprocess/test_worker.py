"""What a worker answers to a job; in this process."""

import errno
import os
import resource
import threading
from dataclasses import replace
from multiprocessing.connection import Pipe
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cache_store.canonical import digest_of
from cache_store.errors import StorageError
from cache_store.records import read_record
from cache_store.shard import ShardReader
from preprocess import Recipe, worker
from preprocess.jobs import DEVICE_LOST, REST, Done, Hashed, NormaliseJob, Part, ReadJob, Setup, Wanted
from preprocess.render import DECODER
from preprocess.state import WorkerState
from preprocess.worker import Worker
from tests.helpers import TINY, write_image


def _worker(folder, **changes):
    recipe = Recipe.from_dict(TINY | {"normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}} | changes)
    rendering = recipe.rendering("train", "opencv", "").with_statistics(recipe.fixed_statistics)
    state = WorkerState(WorkerState.create())
    return Worker(Setup(folder, (rendering,), DECODER, 10**8), state), state


def _answers(job, served, wanted):
    """Run a job in a thread of its own, say what is wanted, and collect both answers."""
    ours, theirs = Pipe()
    thread = threading.Thread(target=served.run, args=(job, theirs))
    thread.start()
    hashed = ours.recv()
    ours.send(wanted)
    done = ours.recv()
    thread.join()
    return hashed, done


@pytest.fixture
def files(tmp_path):
    return tuple(os.fsencode(write_image(tmp_path / f"{i}.png", i)) for i in range(3))


def test_a_job_is_read_then_what_is_wanted_is_rendered(tmp_path, files):
    served, state = _worker(tmp_path)
    job = ReadJob(7, 0, np.array([10, 11, 12]), files, 1, 4)

    hashed, done = _answers(job, served, Wanted(((0, (0,)), (2, (0,)))))

    assert isinstance(hashed, Hashed)
    assert [row.tobytes() for row in hashed.digests] == [
        digest_of(Path(os.fsdecode(path)).read_bytes()) for path in files
    ]
    assert isinstance(done, Done)
    (shard,) = done.shards
    assert [row["digest"].tobytes() for row in shard.rows] == [hashed.digests[i].tobytes() for i in (0, 2)]
    assert (read_record(shard.record_path).rows == shard.rows).all()
    assert (state.done, state.item, state.busy_s()) == (0, -1, 0)


def test_a_failed_read_leaves_the_rest_of_the_job(tmp_path, files):
    served, _ = _worker(tmp_path)
    job = ReadJob(7, 0, np.array([0, 1, 2]), (files[0], b"/nowhere", files[2]), 1, 4)

    hashed, done = _answers(job, served, Wanted(((0, (0,)), (2, (0,)))))

    assert list(hashed.failures) == [1]
    assert not hashed.digests[1].any()
    assert done.failures == hashed.failures
    assert len(done.shards[0].rows) == 2


def test_a_job_of_which_nothing_is_wanted_writes_nothing(tmp_path, files):
    served, _ = _worker(tmp_path)

    _, done = _answers(ReadJob(7, 0, np.array([0, 1, 2]), files, 1, 4), served, Wanted(()))

    assert replace(done, spent_ns=(), transforms_ns=()) == Done(job_id=7)
    assert list(tmp_path.glob("*.shard")) == []


def test_a_job_that_fits_into_one_shard_makes_one_and_a_larger_one_a_shard_a_variant(tmp_path, files):
    served, _ = _worker(tmp_path)
    variants = (0, 1)

    _, small = _answers(ReadJob(1, 0, np.array([0]), files[:1], 2, 4), served, Wanted(((0, variants),)))
    _, large = _answers(
        ReadJob(2, 0, np.array([0, 1, 2]), files, 2, 4), served, Wanted(tuple((i, variants) for i in range(3)))
    )

    assert [shard.rows["variant"].tolist() for shard in small.shards] == [[0, 1]]
    assert [shard.rows["variant"].tolist() for shard in large.shards] == [[0, 0, 0], [1, 1, 1]]


def test_a_write_that_is_refused_is_no_images_failure_and_leaves_no_file(tmp_path, files, monkeypatch):
    served, _ = _worker(tmp_path)

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    ours, theirs = Pipe()
    ours.send(Wanted(((0, (0,)),)))
    monkeypatch.setattr("cache_store.durable.os.writev", refuse)

    with pytest.raises(StorageError, match="disk is full"):
        served.run(ReadJob(7, 0, np.array([0]), files[:1], 1, 4), theirs)

    assert list(tmp_path.glob("*.shard")) == []
    assert list(tmp_path.glob("*.record*")) == []


def test_normalising_a_staged_shard_gives_what_rendering_at_once_gives(tmp_path, files):
    (tmp_path / "staged").mkdir()
    (tmp_path / "baked").mkdir()
    staging, _ = _worker(tmp_path / "staged", normalize="dataset")
    baking, _ = _worker(tmp_path / "baked")
    job, wanted = ReadJob(1, 0, np.array([0, 1, 2]), files, 1, 4), Wanted(tuple((i, (0,)) for i in range(3)))
    _, staged = _answers(job, staging, wanted)
    _, baked = _answers(job, baking, wanted)
    assert staged.shards[0].dtype == np.uint8

    ours, theirs = Pipe()
    staging.run(NormaliseJob(2, (Part.whole(staged.shards[0]),), ((0.5,) * 3, (0.25,) * 3), 4), theirs)
    normalised = ours.recv().shards[0]

    assert normalised.path.read_bytes() == baked.shards[0].path.read_bytes()
    assert (normalised.rows == baked.shards[0].rows).all()


def test_a_normalised_shard_can_be_brought_to_other_statistics_without_its_sources(tmp_path, files):
    served, _ = _worker(tmp_path)
    job, wanted = ReadJob(1, 0, np.array([0, 1, 2]), files, 1, 4), Wanted(tuple((i, (0,)) for i in range(3)))
    _, first = _answers(job, served, wanted)
    ours, theirs = Pipe()

    served.run(NormaliseJob(2, (Part.whole(first.shards[0]),), ((0.3,) * 3, (0.2,) * 3), 4), theirs)
    other = ours.recv().shards[0]
    served.run(NormaliseJob(3, (Part.whole(other),), ((0.5,) * 3, (0.25,) * 3), 4), theirs)
    back = ours.recv().shards[0]

    assert other.rows["checksum"].tolist() != first.shards[0].rows["checksum"].tolist()
    assert back.path.read_bytes() == first.shards[0].path.read_bytes()
    with ShardReader(other.path, other.slots, other.chunk_bytes) as reader:
        chunk = np.empty(other.shape, other.dtype)
        assert reader.read_into(0, chunk) == other.rows["checksum"][0]


# -- open files -------------------------------------------------------------------------------------------------------

ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ((1024, 1 << 20), [(10_240, 1 << 20)]),
        ((1024, 4096), [(4096, 4096)]),
        ((256, ENDLESS), [(10_240, ENDLESS)]),
        ((1024, 1024), []),
        ((1 << 16, 1 << 20), []),
        ((ENDLESS, ENDLESS), []),
    ],
    ids=str,
)
def test_the_limit_of_open_files_is_raised_as_far_as_it_may_and_never_lowered(monkeypatch, limits, expected):
    found = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: found.append(pair))
    worker._allow_files()
    assert found == expected


@pytest.mark.parametrize("error", [OSError(errno.EPERM, "Operation not permitted"), ValueError("not allowed")], ids=str)
def test_a_limit_that_cannot_be_raised_stays(monkeypatch, error):
    def refuse(which, pair):
        raise error

    monkeypatch.setattr(resource, "getrlimit", lambda which: (1024, 1 << 20))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    worker._allow_files()


# -- a device that is lost --------------------------------------------------------------------------------------------


class Exited(BaseException):
    pass


@pytest.fixture
def serves(monkeypatch, tmp_path):
    """Gives a worker one job, over which it fails so; (what it sent, whether it had the job in hand, exit code)."""

    def serve(error, lost, in_batches):
        class Failing(Worker):
            def run(self, job, connection):
                self._state.start_job(job.job_id)
                raise error

            stream = run

            def is_lost(self):
                return lost

        def leave(code):
            raise Exited(code)

        monkeypatch.setattr(worker, "Worker", Failing)
        monkeypatch.setattr(worker.os, "_exit", leave)
        ours, theirs = Pipe()
        state = WorkerState(WorkerState.create())
        for message in (
            Setup(tmp_path, (), DECODER, 10**8),
            ReadJob(1, 0, np.arange(1), (b"",), 1, 8, in_batches=in_batches),
        ):
            ours.send(message)
        ours.send(REST)
        monkeypatch.setattr(worker, "IDLE_S", 0)
        code = None
        try:
            worker.serve_a_build(theirs, state)
        except Exited as exited:
            (code,) = exited.args
        sent = []
        while ours.poll():
            sent.append(ours.recv())
        return sent[1:], state.busy_s() > 0, code

    return serve


@pytest.mark.parametrize("in_batches", [True, False])
def test_a_worker_whose_device_is_lost_dies_with_its_work_in_hand(serves, capfd, in_batches):
    error = RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be reported elsewhere")
    assert serves(error, lost=True, in_batches=in_batches) == ([], True, DEVICE_LOST)
    assert capfd.readouterr().err == "RuntimeError: CUDA error: device-side assert triggered\n"


@pytest.mark.parametrize("in_batches", [True, False])
def test_any_other_error_is_the_builders(serves, in_batches):
    sent, busy, code = serves(StorageError("disk is full"), lost=False, in_batches=in_batches)
    assert [type(message) for message in sent] == [StorageError]
    assert (busy, code) == (False, None)


@pytest.mark.parametrize("lost", [True, False])
def test_a_worker_asks_each_of_its_renderers_whether_its_device_is_lost(tmp_path, lost):
    served, _ = _worker(tmp_path)
    assert not served.is_lost()
    served._renderers.append(SimpleNamespace(is_lost=lambda: lost))
    assert served.is_lost() == lost
