"""A worker that reads, renders and writes at once, over many jobs; its builder is this process."""

import errno
import os
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Pipe
from pathlib import Path

import numpy as np
import pytest

from cache_store.canonical import digest_of
from cache_store.errors import StorageError
from cache_store.records import read_record
from preprocess import Recipe, reader
from preprocess.clock import DECODE, READ, RENDER, WRITE
from preprocess.jobs import REST, Done, Hashed, ReadJob, Setup, Wanted
from preprocess.render import DECODER
from preprocess.state import WorkerState
from preprocess.torch_engine.renderer import TorchRenderer
from preprocess.torch_engine.staging import Staging
from preprocess.worker import Worker
from tests.helpers import TINY, write_image

pytest.importorskip("torch")


@pytest.fixture
def files(tmp_path):
    return tuple(os.fsencode(write_image(tmp_path / f"{i:02d}.png", i, 30 + i, 40)) for i in range(12))


def rendering(**changes):
    recipe = Recipe.from_dict(TINY | {"normalize": {"mean": [0.5] * 3, "std": [0.25] * 3}} | changes)
    return recipe.rendering("train", "opencv+torch", "").with_statistics(recipe.fixed_statistics)


class Builder:
    """Sends jobs, answers what is hashed, and takes notes of all in the order in which it comes."""

    def __init__(self, folder, *renderings, wants=lambda job, place: (0,)):
        folder.mkdir(exist_ok=True)
        self.state = WorkerState(WorkerState.create())
        self._wants = wants
        self._ours, self._theirs = Pipe()
        self._worker = Worker(Setup(folder, renderings, DECODER, 10**8), self.state)
        self.heard = []
        self.left = self.error = None

    def _stream(self, first):
        try:
            self.left = self._worker.stream(first, self._theirs)
        except Exception as error:
            self.error = error

    def send(self, *messages):
        for message in messages:
            self._ours.send(message)

    def start(self, *jobs):
        self.jobs = {job.job_id: job for job in jobs}
        self._thread = threading.Thread(target=self._stream, args=(jobs[0],), daemon=True)
        self._thread.start()
        self.send(*jobs[1:])

    def hear(self, done, answer=True):
        """Until so many jobs are done, or the worker gives up."""
        while len(self.done) < done and (self._ours.poll(0.05) or self._thread.is_alive()):
            if not self._ours.poll(0.05):
                continue
            message = self._ours.recv()
            self.heard.append(message)
            if isinstance(message, Hashed) and answer:
                job = self.jobs[message.job_id]
                places = [place for place in range(len(job)) if place not in message.failures]
                wanted = [(place, self._wants(job, place)) for place in places]
                self.send(Wanted(tuple((place, k) for place, k in wanted if k)))

    def end(self, message=REST):
        self.send(message)
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def done(self):
        return {message.job_id: message for message in self.heard if isinstance(message, Done)}


def jobs_of(files, size, rendering=0, first_id=1, variants=1):
    return [
        ReadJob(first_id + n, rendering, np.arange(len(part)), part, variants, 8, in_batches=True)
        for n, part in enumerate(files[start : start + size] for start in range(0, len(files), size))
    ]


def chunks(done):
    """(digest, variant) -> checksum and sums, of all jobs."""
    return {
        (row["digest"].tobytes(), int(row["variant"])): (row["checksum"], row["sum"].tolist(), row["sumsq"].tolist())
        for answer in done.values()
        for shard in answer.shards
        for row in shard.rows
    }


@pytest.fixture
def alone(tmp_path, files):
    """What jobs give that are done one after the other, file by file."""

    def run(jobs, *renderings):
        builder = Builder(tmp_path / "alone", *renderings)
        found = {}
        for job in jobs:
            thread = threading.Thread(target=builder._worker.run, args=(replace(job, singly=True), builder._theirs))
            thread.start()
            builder._ours.recv()
            builder.send(Wanted(tuple((place, tuple(range(job.variants))) for place in range(len(job)))))
            found[job.job_id] = builder._ours.recv()
            thread.join()
        return chunks(found)

    return run


def test_many_jobs_give_what_each_gives_alone(tmp_path, files, alone):
    jobs = jobs_of(files, 3, variants=2)
    builder = Builder(tmp_path / "stream", rendering(), wants=lambda job, place: (0, 1))
    builder.start(*jobs)
    builder.hear(4)
    assert (builder.state.done, builder.state.failed) == (0, 0)
    builder.end()

    assert builder.left == REST
    assert sorted(builder.done) == [1, 2, 3, 4]
    assert [message.job_id for message in builder.heard if isinstance(message, Hashed)] == [1, 2, 3, 4]
    assert chunks(builder.done) == alone(jobs, rendering())
    for answer in builder.done.values():
        (shard,) = answer.shards
        assert shard.path.name.startswith(f"{answer.job_id:08d}-")
        assert (read_record(shard.record_path).rows == shard.rows).all()
        assert len(shard.rows) == 6
    assert builder.state.busy_s() == 0


def test_batches_go_across_the_bounds_of_jobs(tmp_path, files, monkeypatch):
    batches, real = [], TorchRenderer._decode

    def counted(self, batch, begin):
        batches.append(len(batch))
        time.sleep(0.2)  # meanwhile all is read
        return real(self, batch, begin)

    monkeypatch.setattr(TorchRenderer, "_decode", counted)
    builder = Builder(tmp_path / "stream", rendering())
    builder.start(*jobs_of(files, 2))
    builder.hear(6)
    builder.end()

    assert sum(batches) == 12
    assert max(batches) > 2


def test_a_batch_does_not_wait_for_jobs_that_nobody_has_sent(tmp_path, files):
    """The builder sends more only when it hears of an end."""
    builder = Builder(tmp_path / "stream", rendering())
    jobs = jobs_of(files, 3)
    builder.start(jobs[0])
    for number, job in enumerate(jobs, 1):
        builder.hear(number)
        assert number in builder.done
        builder.jobs[job.job_id + 1] = jobs[number] if number < len(jobs) else None
        if number < len(jobs):
            builder.send(jobs[number])
    time.sleep(0.1)
    assert builder.state.busy_s() == 0
    builder.end()


def test_jobs_of_two_renderings_are_kept_apart(tmp_path, files):
    plain, gray = rendering(), rendering(channels="gray", normalize={"mean": [0.5], "std": [0.25]})
    jobs = [
        *jobs_of(files[:4], 2, 0, 1),
        *jobs_of(files[4:8], 2, 1, 3),
        *jobs_of(files[8:], 2, 0, 5),
    ]
    builder = Builder(tmp_path / "stream", plain, gray)
    builder.start(*jobs)
    builder.hear(6)
    builder.end()

    assert {job: answer.shards[0].shape[0] for job, answer in builder.done.items()} == {
        1: 3, 2: 3, 3: 1, 4: 1, 5: 3, 6: 3,
    }  # fmt: skip


def test_failures_notes_and_what_is_not_wanted_belong_to_their_job(tmp_path, files):
    Path(os.fsdecode(files[1])).write_bytes(b"no image")
    paths = (*files[:4], b"/nowhere", *files[5:])
    builder = Builder(
        tmp_path / "stream", rendering(), wants=lambda job, place: () if job.paths[place] == files[7] else (0,)
    )
    builder.start(*jobs_of(paths, 3))
    builder.hear(4)
    builder.end()

    assert {(job, place): f.stage for job, answer in builder.done.items() for place, f in answer.failures.items()} == {
        (1, 1): "decode",
        (2, 1): "read",
    }
    assert {job: sum(len(s.rows) for s in answer.shards) for job, answer in builder.done.items()} == {
        1: 2, 2: 2, 3: 2, 4: 3,
    }  # fmt: skip


def test_a_job_of_which_nothing_is_wanted_ends_without_a_file(tmp_path, files):
    builder = Builder(tmp_path / "stream", rendering(), wants=lambda job, place: ())
    builder.start(*jobs_of(files, 6))
    builder.hear(2)
    builder.end()

    assert all(answer.shards == () for answer in builder.done.values())
    assert list((tmp_path / "stream").iterdir()) == []


def test_shards_are_finished_job_by_job_not_at_the_end(tmp_path, files, monkeypatch):
    """A kill costs what is under way, and no more."""
    builder = Builder(tmp_path / "stream", rendering())
    jobs = jobs_of(files, 6)
    builder.start(jobs[0])
    builder.hear(1)
    assert [shard.record_path.exists() for shard in builder.done[1].shards] == [True]
    builder.end()


def test_a_refused_write_ends_the_stream_and_leaves_no_file(tmp_path, files, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cache_store.durable.os.writev", refuse)
    builder = Builder(tmp_path / "stream", rendering())
    builder.start(*jobs_of(files, 2))
    builder.hear(6)
    builder._thread.join(10)

    assert isinstance(builder.error, StorageError)
    assert "disk is full" in str(builder.error)
    assert list((tmp_path / "stream").iterdir()) == []


def test_a_device_that_breaks_ends_the_stream(tmp_path, files, monkeypatch):
    def broken(self):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr("preprocess.torch_engine.staging.Staged.arrays", broken)
    builder = Builder(tmp_path / "stream", rendering())
    builder.start(*jobs_of(files, 2))
    builder.hear(6)
    builder._thread.join(10)

    assert "illegal memory access" in str(builder.error)
    assert builder.state.busy_s() > 0, "the worker may end over it, and then it was at work"


def test_a_device_that_stays_broken_holds_nobody_up(tmp_path, files, monkeypatch):
    """Each copy fails when it is fetched and when it is released, in more batches than are on their way at a time."""

    class Broken:
        def synchronize(self):
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    copy = Staging.copy

    def copied(self, tensors, readers):
        staged = copy(self, tensors, readers)
        staged._event = Broken()
        return staged

    monkeypatch.setattr(Staging, "copy", copied)
    monkeypatch.setattr("preprocess.torch_engine.renderer.BATCH_FILES", 1)
    builder = Builder(tmp_path / "stream", rendering())
    builder.start(*jobs_of(files, 1))
    thread = builder._thread
    ends = time.monotonic() + 20
    while thread.is_alive() and time.monotonic() < ends:
        if builder._ours.poll(0.05) and isinstance(builder._ours.recv(), Hashed):
            builder.send(Wanted(((0, (0,)),)))

    assert not thread.is_alive()
    assert "illegal memory access" in str(builder.error)


def test_a_builder_that_is_gone_ends_the_stream(tmp_path, files):
    builder = Builder(tmp_path / "stream", rendering())
    builder.start(*jobs_of(files, 6))
    builder.hear(1)
    builder._ours.close()
    builder._thread.join(10)

    assert isinstance(builder.error, EOFError | OSError)


def test_a_message_that_is_no_such_job_is_handed_back(tmp_path, files):
    builder = Builder(tmp_path / "stream", rendering())
    jobs = jobs_of(files, 6)
    builder.start(jobs[0])
    builder.hear(1)
    builder.end(replace(jobs[1], singly=True))

    assert builder.left.job_id == 2


def test_reading_runs_ahead_no_further_than_it_may(tmp_path, files, monkeypatch):
    monkeypatch.setattr(reader, "AHEAD_JOBS", 2)
    go, real = threading.Event(), TorchRenderer._decode

    def held(self, batch, begin):
        go.wait(20)
        return real(self, batch, begin)

    monkeypatch.setattr(TorchRenderer, "_decode", held)
    monkeypatch.setattr("preprocess.torch_engine.renderer.BATCH_FILES", 1)
    builder = Builder(tmp_path / "stream", rendering())
    builder.start(*jobs_of(files, 2))
    threading.Timer(1, go.set).start()
    began = time.monotonic()
    before = []
    while time.monotonic() - began < 0.8:
        if builder._ours.poll(0.05):
            message = builder._ours.recv()
            builder.heard.append(message)
            before.append(message.job_id)
            builder.send(Wanted(((0, (0,)), (1, (0,)))))
    assert before == [1, 2, 3]  # one is rendered, two are ready; the next is not even read
    builder.hear(6)
    builder.end()
    assert sorted(builder.done) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("ahead_bytes", [1, 1 << 30])
def test_bytes_that_were_not_kept_are_read_again(tmp_path, files, monkeypatch, ahead_bytes, alone):
    monkeypatch.setattr(reader, "AHEAD_BYTES", ahead_bytes)
    monkeypatch.setattr(reader, "KEPT_BYTES", 1)
    builder = Builder(tmp_path / "stream", rendering())
    builder.start(*jobs_of(files, 3))
    builder.hear(4)
    builder.end()

    assert chunks(builder.done) == alone(jobs_of(files, 3), rendering())


def test_a_file_that_changes_before_it_is_rendered_is_a_failure(tmp_path, files, monkeypatch):
    monkeypatch.setattr(reader, "AHEAD_BYTES", 1)
    monkeypatch.setattr(reader, "KEPT_BYTES", 1)
    builder = Builder(tmp_path / "stream", rendering())
    builder.start(*jobs_of(files[:3], 3))
    while not builder._ours.poll(0.05):
        pass
    hashed = builder._ours.recv()
    assert hashed.digests[1].tobytes() == digest_of(Path(os.fsdecode(files[1])).read_bytes())
    Path(os.fsdecode(files[1])).write_bytes(b"another")
    builder.send(Wanted(tuple((place, (0,)) for place in range(3))))
    builder.hear(1)
    builder.end()

    assert builder.done[1].failures[1].reason == "the file changed while it was read"


def test_a_file_that_is_long_in_being_read_is_the_one_in_hand(tmp_path, files, monkeypatch):
    go, real = threading.Event(), reader.read_one

    def stuck(path, max_bytes):
        if path == files[4]:
            go.wait(20)
        return real(path, max_bytes)

    monkeypatch.setattr(reader, "read_one", stuck)
    builder = Builder(tmp_path / "stream", rendering())
    builder.start(*jobs_of(files, 3))
    hearing = threading.Thread(target=builder.hear, args=(4,), daemon=True)
    hearing.start()
    ends = time.monotonic() + 10
    while (builder.state.job_id, builder.state.item) != (2, 1):
        assert time.monotonic() < ends
        time.sleep(0.01)
    time.sleep(0.6)
    assert builder.state.busy_s() >= 0.5  # it does not begin anew
    go.set()
    hearing.join(20)
    builder.end()
    assert sorted(builder.done) == [1, 2, 3, 4]


def test_times_of_all_threads_are_told_once(tmp_path, files):
    builder = Builder(tmp_path / "stream", rendering())
    began = time.monotonic_ns()
    builder.start(*jobs_of(files, 3))
    builder.hear(4)
    took = time.monotonic_ns() - began
    builder.end()

    spent = np.sum([answer.spent_ns for answer in builder.done.values()], axis=0)
    assert all(spent[stage] > 0 for stage in (READ, DECODE, RENDER, WRITE))
    assert spent.sum() < 3 * took
    assert (builder.state.spent_ns >= 0).all()
    assert builder.state.spent_ns.sum() < took
