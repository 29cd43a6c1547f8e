"""The worker pool with a client that only takes notes; the workers are real processes."""

import contextlib
import itertools
import os
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cache_store.errors import StorageError
from preprocess import Recipe, pipeline
from preprocess.clock import STAGES
from preprocess.errors import WorkerError
from preprocess.jobs import DEVICE_LOST, Done, NormaliseJob, Part, ReadJob, Setup, Wanted
from preprocess.pipeline import WorkerPool, _how_it_died
from preprocess.process import WorkerProcess
from preprocess.standby import STANDBY
from tests import decoders
from tests.helpers import TINY, write_image
from tests.integration.processes import children, running

EVIL = "tests.decoders:decode"


class Client:
    """Wants variant 0 of every file, once."""

    def __init__(self, first_id=100, on_hashed=None):
        self.finished, self.poison, self.thrown, self.updates = [], [], [], []
        self._ids = itertools.count(first_id)
        self._on_hashed = on_hashed or (lambda: None)

    def hashed(self, job, answer):
        self._on_hashed()
        return Wanted(tuple((place, (0,)) for place in range(len(job)) if place not in answer.failures))

    def done(self, job, answer):
        assert isinstance(answer, Done)
        self.finished.append((job, answer))

    def poisoned(self, job, reason):
        self.poison.append((job.items[0], reason))

    def new_job_id(self):
        return next(self._ids)

    def dropped(self, job):
        self.thrown.append(job.job_id)

    def update(self, done, failed, spent_ns):
        self.updates.append((done, failed))
        assert spent_ns.shape == (len(STAGES),)

    @property
    def rendered(self):
        """Digest of every row of every finished shard."""
        return sorted(row["digest"].tobytes() for _, answer in self.finished for s in answer.shards for row in s.rows)


@pytest.fixture(autouse=True)
def nobody_waits():
    """No test meets the worker that another one has left."""
    STANDBY.clear()
    yield
    STANDBY.clear()


@pytest.fixture
def all_at_once(monkeypatch):
    """As with many items: all workers are started before the first job is done."""
    monkeypatch.setattr(pipeline, "_FEW_ITEMS", 0)


@pytest.fixture
def notes(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv(decoders.FOLDER, str(tmp_path / "notes"))
    return tmp_path / "notes"


@pytest.fixture
def files(tmp_path):
    return [write_image(tmp_path / f"{i:02d}.png", i) for i in range(6)]


@pytest.fixture
def setup(tmp_path):
    recipe = Recipe.from_dict(TINY | {"normalize": "imagenet"})
    rendering = recipe.rendering("train", "opencv", "").with_statistics(recipe.fixed_statistics)
    (tmp_path / "pending").mkdir()
    return Setup(tmp_path / "pending", (rendering,), EVIL, 10**8)


def jobs_of(files, size):
    paths = [os.fsencode(path) for path in files]
    return [
        ReadJob(
            number + 1, 0, np.arange(start, min(start + size, len(paths))), tuple(paths[start : start + size]), 1, 8
        )
        for number, start in enumerate(range(0, len(paths), size))
    ]


def spoil(path, action):
    with open(path, "ab") as file:
        file.write(action)


def ours() -> list[int]:
    """Worker processes of this process. Other tests may have left it a helper of multiprocessing's own."""
    found = []
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):  # gone meanwhile
            if b"preprocess.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_every_job_is_done_once_by_no_more_workers_than_jobs(setup, files, notes, all_at_once):
    client = Client()
    with WorkerPool(setup, 4, 60) as pool:
        pool.run(jobs_of(files, 3), client)
        workers = ours()
        pool.run([replace(jobs_of(files[:1], 1)[0], job_id=9)], client)  # the same workers serve the next run
        assert ours() == workers

    assert len(workers) == 2
    assert ours() in ([workers[0]], [workers[1]])  # one waits for the next build
    assert [tuple(job.items) for job, _ in sorted(client.finished[:2], key=lambda pair: pair[0].job_id)] == [
        (0, 1, 2),
        (3, 4, 5),
    ]
    assert len(client.rendered) == 7
    assert len(set(client.rendered)) == 6
    assert max(client.updates) == (6, 0)
    assert client.thrown == client.poison == []


def test_nothing_to_run_starts_nothing(setup, notes):
    with WorkerPool(setup, 4, 60) as pool:
        pool.run([], Client())

        assert ours() == []


def test_failures_are_counted_apart(setup, files, notes):
    files[2].write_bytes(b"no image")
    client = Client()
    with WorkerPool(setup, 1, 60) as pool:
        pool.run(jobs_of(files, 6), client)

    assert client.updates[-1] == (5, 1)
    ((_, answer),) = client.finished
    assert list(answer.failures) == [2]


def test_a_suspect_is_tried_alone_in_a_worker_that_has_done_nothing_yet(setup, files, notes, all_at_once):
    """A worker that an earlier image has damaged would be a poor judge."""
    spoil(files[1], b"KILL")
    size = files[1].stat().st_size
    client = Client()
    with WorkerPool(setup, 2, 60) as pool:
        pool.run(jobs_of(files, 2), client)

    calls = [tuple(map(int, line.split())) for line in decoders.noted().read_text().splitlines()]
    tries = [number for number, (_, length) in enumerate(calls) if length == size]
    assert len(tries) == 2
    judge = calls[tries[1]][0]
    assert [pid for pid, _ in calls].index(judge) == tries[1], "the judge had work before"
    assert client.poison == []
    assert len(client.rendered) == len(set(client.rendered)) == 6


def test_a_poisonous_item_is_told_with_how_it_killed(setup, files, notes):
    spoil(files[0], b"SEGV")
    spoil(files[4], b"EXIT")
    client = Client()
    with WorkerPool(setup, 1, 60) as pool:
        pool.run(jobs_of(files, 6), client)

    assert sorted(client.poison) == [
        (0, "alone in a fresh worker process: killed by SIGSEGV"),
        (4, "alone in a fresh worker process: ended with exit code 3"),
    ]
    assert len(client.rendered) == 4
    assert max(client.updates) == (4, 2)


def test_what_a_dead_worker_had_begun_is_dropped_before_its_job_is_given_to_another(setup, files, notes):
    spoil(files[3], b"KILL")
    client = Client()
    with WorkerPool(setup, 1, 60) as pool:
        pool.run(jobs_of(files, 6), client)

    assert client.thrown == [1]
    assert all(job.job_id >= 100 for job, _ in client.finished)
    assert sorted(item for job, _ in client.finished for item in job.items) == list(range(6))


def test_a_worker_that_dies_with_nothing_in_hand_is_replaced_and_its_job_tried_again(setup, files, notes):
    """It waits for the builder's answer when it is killed: no image can be blamed."""
    killed = []

    def kill_once():
        if not killed:
            killed.extend(ours())
            os.kill(killed[0], signal.SIGKILL)

    client = Client(on_hashed=kill_once)
    with WorkerPool(setup, 1, 60) as pool:
        pool.run(jobs_of(files, 6), client)

    assert len(killed) == 1
    assert len(client.rendered) == 6
    assert client.poison == []


def test_a_worker_that_hangs_with_nothing_in_hand_is_replaced(setup, files, notes):
    stopped = []

    def stop_once():
        if not stopped:
            stopped.extend(ours())
            os.kill(stopped[0], signal.SIGSTOP)

    client, began = Client(on_hashed=stop_once), time.monotonic()
    with WorkerPool(setup, 1, 1) as pool:
        pool.run(jobs_of(files, 6), client)

    assert time.monotonic() - began < 15
    assert len(client.rendered) == 6
    assert not running(stopped[0])


def test_a_job_that_ends_its_worker_again_and_again_ends_the_build(setup, files, notes):
    def kill():
        os.kill(ours()[0], signal.SIGKILL)

    with WorkerPool(setup, 1, 60) as pool:
        with pytest.raises(WorkerError, match=r"ended 3 times in the same job \(killed by SIGKILL\)"):
            pool.run(jobs_of(files, 6), Client(on_hashed=kill))

    assert ours() == []


def test_a_worker_may_open_more_files_than_its_builder(setup, files, notes):
    """One for each variant of each job that it has begun."""
    found = []

    def look():
        (line,) = [s for s in Path(f"/proc/{ours()[0]}/limits").read_text().splitlines() if "open files" in s]
        found.append(int(line.split()[3]))

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = 256
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
    try:
        with WorkerPool(setup, 1, 60) as pool:
            pool.run(jobs_of(files[:1], 1), Client(on_hashed=look))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert found[0] > few


def test_a_refused_write_reaches_the_builder_as_it_is(setup, files, notes, tmp_path):
    (tmp_path / "pending").rmdir()

    with WorkerPool(setup, 1, 60) as pool, pytest.raises(StorageError, match="cannot create") as caught:
        pool.run(jobs_of(files, 6), Client())

    assert caught.value.exit_code == 7


def test_shards_are_normalised_by_jobs_too(setup, files, notes):
    client, second = Client(), Client()
    with WorkerPool(setup, 2, 60) as pool:
        pool.run(jobs_of(files, 3), client)
        shards = [shard for _, answer in client.finished for shard in answer.shards]
        statistics = ((0.5,) * 3, (0.25,) * 3)
        pool.run([NormaliseJob(50 + i, (Part.whole(shard),), statistics, 8) for i, shard in enumerate(shards)], second)

    normalised = [shard for _, answer in second.finished for shard in answer.shards]
    assert sorted(len(shard.rows) for shard in normalised) == [3, 3]
    assert all((shard.mean, shard.std) == statistics for shard in normalised)
    assert second.rendered == client.rendered
    assert all(
        np.isin(s.rows["checksum"], np.concatenate([t.rows["checksum"] for t in shards])).sum() == 0 for s in normalised
    )


def test_leaving_by_an_exception_ends_the_workers(setup, files, notes, all_at_once):
    pids = []

    def fail():
        pids.extend(ours())
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"), WorkerPool(setup, 2, 60) as pool:
        pool.run(jobs_of(files, 3), Client(on_hashed=fail))

    assert len(pids) == 2
    assert not any(running(pid) for pid in pids)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (3, "ended with exit code 3"),
        (0, "ended with exit code 0"),
        (-11, "killed by SIGSEGV"),
        (-250, "killed by signal 250"),
        (None, "does not react to being killed"),
        (DEVICE_LOST, "the GPU failed"),
    ],
)
def test_how_a_worker_died_in_words(code, words):
    assert _how_it_died(code) == words


# -- several jobs at a time -------------------------------------------------------------------------------------------


@pytest.fixture
def in_batches(setup):
    """A setup whose engine works in batches, and jobs of two files each for it."""
    (rendering,) = setup.renderings
    return replace(setup, renderings=(replace(rendering, engine="opencv+torch"),))


def batch_jobs(files, size=2):
    return [replace(job, in_batches=True) for job in jobs_of(files, size)]


def test_a_worker_that_works_in_batches_has_several_jobs_at_a_time(in_batches, files, notes):
    begun = []

    class Watching(Client):
        def hashed(self, job, answer):
            begun.append(("hashed", job.job_id))
            return super().hashed(job, answer)

        def done(self, job, answer):
            begun.append(("done", job.job_id))
            super().done(job, answer)

    client = Watching()
    with WorkerPool(in_batches, 1, 60) as pool:
        pool.run(batch_jobs(files), client)

    assert begun[:3] == [("hashed", 1), ("hashed", 2), ("hashed", 3)]
    assert [kind for kind, _ in begun[3:]] == ["done"] * 3
    assert len(client.rendered) == len(set(client.rendered)) == 6
    assert client.updates[-1] == (6, 0)
    assert max(client.updates) == (6, 0)


def test_other_jobs_come_one_by_one_before_and_after_those(setup, in_batches, files, notes):
    both = replace(setup, renderings=(*in_batches.renderings, *setup.renderings))
    plain = [replace(job, job_id=job.job_id + 10, rendering=1) for job in jobs_of(files, 2)]
    jobs = [plain[0], *batch_jobs(files), *plain[1:]]
    client = Client()
    with WorkerPool(both, 1, 60) as pool:
        pool.run(jobs, client)

    assert sorted(job.job_id for job, _ in client.finished) == [1, 2, 3, 11, 12, 13]
    assert len(client.rendered) == 12


@pytest.mark.parametrize(("spoilt", "workers"), [([3], 1), ([1, 4], 2)])
def test_a_poisonous_item_among_many_jobs_costs_only_itself(in_batches, files, notes, spoilt, workers):
    for place in spoilt:
        spoil(files[place], b"SEGV")
    client = Client()
    with WorkerPool(in_batches, workers, 60) as pool:
        pool.run(batch_jobs(files), client)

    reason = "alone in a fresh worker process: killed by SIGSEGV"
    assert sorted(client.poison) == [(place, reason) for place in spoilt]
    assert len(client.rendered) == len(set(client.rendered)) == 6 - len(spoilt)
    assert client.updates[-1] == (6 - len(spoilt), len(spoilt))


def test_an_image_over_which_the_gpu_fails_costs_only_itself(in_batches, files, notes):
    """The device tells of it when the copy is fetched; whatever is in hand then, the pool finds the image."""
    spoil(files[3], b"LOST")
    client = Client()
    with WorkerPool(in_batches, 1, 60) as pool:
        pool.run(batch_jobs(files), client)

    why = "the GPU failed: RuntimeError: CUDA error: an illegal memory access was encountered"
    assert client.poison == [(3, f"alone in a fresh worker process: {why}")]
    assert len(client.rendered) == len(set(client.rendered)) == 5


def test_a_worker_with_many_jobs_that_is_killed_by_an_outsider_costs_none(in_batches, files, notes):
    spoil(files[3], b"KILL")
    client = Client()
    with WorkerPool(in_batches, 1, 60) as pool:
        pool.run(batch_jobs(files), client)

    assert client.poison == []
    assert len(client.rendered) == len(set(client.rendered)) == 6


def test_an_item_that_hangs_among_many_jobs_costs_only_itself(in_batches, files, notes):
    spoil(files[2], b"HANG")
    client = Client()
    with WorkerPool(in_batches, 1, 2) as pool:
        pool.run(batch_jobs(files), client)

    assert client.poison == [(2, "alone in a fresh worker process: no answer within 2 s")]
    assert len(client.rendered) == 5


def test_a_refused_write_of_a_worker_with_many_jobs_reaches_the_builder(in_batches, files, notes, tmp_path):
    (tmp_path / "pending").rmdir()

    with WorkerPool(in_batches, 1, 60) as pool, pytest.raises(StorageError, match="cannot create") as caught:
        pool.run(batch_jobs(files), Client())

    assert caught.value.exit_code == 7


def test_a_worker_that_replaces_another_has_its_number(setup, files, notes, all_at_once, monkeypatch):
    numbers, start = [], pipeline.WorkerProcess.start
    monkeypatch.setattr(pipeline.WorkerProcess, "start", lambda setup: numbers.append(setup.number) or start(setup))
    spoil(files[5], b"KILL")
    client = Client()
    with WorkerPool(setup, 3, 60) as pool:
        pool.run(jobs_of(files, 2), client)

    assert numbers[:3] == [0, 1, 2]
    assert set(numbers) == {0, 1, 2}
    assert len(client.rendered) == 6


@pytest.mark.parametrize(("engine", "kept"), [("opencv", 1), ("nvjpeg+torch", 0)])
def test_a_worker_on_a_gpu_does_not_wait_for_the_next_build(setup, monkeypatch, engine, kept):
    """It would keep memory of the GPU that training wants."""
    workers, resting = [SimpleNamespace(ready=True, jobs=[], ended=0) for _ in range(2)], []
    for worker in workers:
        worker.end = lambda worker=worker: setattr(worker, "ended", 1)
    monkeypatch.setattr(STANDBY, "keep", resting.append)

    with WorkerPool(replace(setup, renderings=(replace(setup.renderings[0], engine=engine),)), 2, 60) as pool:
        pool._workers = workers.copy()

    assert len(resting) == kept
    assert sum(worker.ended for worker in workers) == 2 - kept


class Dead(WorkerProcess):
    """A worker as it was when it died, without the process."""

    @staticmethod
    def of(item, item_job, begun):
        """By the state in which it died."""
        state = SimpleNamespace(item=item, job_id=item_job, begun=begun)
        silent = SimpleNamespace(send=lambda job: None)
        process = SimpleNamespace(returncode=-signal.SIGSEGV)
        return Dead(process, silent, state, None, 0.0, -1, ready=True)


@pytest.fixture
def buried(setup, monkeypatch):
    """Gives jobs to a worker that finishes some of them and dies: what is tried next, as (items, singly, alone)."""

    def bury(jobs, done, worker, queued=None):
        pool = WorkerPool(setup, 1, 60)
        pool._workers = [worker]
        monkeypatch.setattr(pool, "_spawn", lambda number: None)
        queued = {entry.job.job_id: entry for entry in queued or map(pipeline._Queued, jobs)}
        for entry in queued.values():
            worker.give(entry.job)
        worker.jobs = [job for job in worker.jobs if job.job_id not in done]
        queue = pipeline.deque()
        pool._bury(worker, queue, queued, Client(), pipeline.Totals())
        return [(tuple(entry.job.items), entry.job.singly, entry.alone) for entry in queue]

    return bury


@pytest.mark.parametrize(
    ("item_job", "tried"),
    [
        (1, [((0,), True, True), ((1,), True, False), ((2, 3), True, False)]),
        (3, [((0, 1), True, False), ((2, 3), True, False)]),
    ],
    ids=["one that is not done", "one that is done"],
)
def test_all_jobs_that_were_begun_are_done_again_one_by_one_though_the_last_of_them_is_done(
    buried, files, item_job, tried
):
    """One of which nothing is wanted is done as soon as it is begun, while others wait for their batch."""
    jobs = batch_jobs([*files, *files])
    found = buried(jobs, done=[3], worker=Dead.of(0, item_job, begun=3))
    assert found == [*tried, *[(tuple(job.items), False, False) for job in jobs[3:]]]


def test_of_jobs_that_were_only_sent_the_first_counts_as_begun(buried, files):
    """Else a job that kills its worker before it is begun would do so for ever."""
    jobs = batch_jobs(files)
    assert buried(jobs, done=[1], worker=Dead.of(0, 2, begun=1)) == [
        ((2,), True, True),
        ((3,), True, False),
        ((4, 5), False, False),
    ]
    assert [singly for _, singly, _ in buried(jobs, done=[1], worker=Dead.of(0, 1, begun=99))] == [True, False]


def test_a_worker_that_had_nothing_left_begins_anew(buried, files):
    """Numbers of jobs come again in the next build, which may have the same worker."""
    jobs = batch_jobs(files)
    worker = Dead.of(0, 2, begun=3)
    for job in (jobs[2], jobs[0]):
        worker.give(job)
        worker.jobs.clear()
    assert [singly for _, singly, _ in buried(jobs, done=[], worker=worker)] == [True, True, True, True]


def test_jobs_that_overlapped_are_done_again_one_by_one_though_no_item_was_in_hand(buried, files):
    """The writer may be alone with a batch that the device fails over. One by one, an item is in hand: a death without
    one is then none of the images' fault, and happens so often and no more."""
    jobs = batch_jobs(files)
    assert buried(jobs, done=[], worker=Dead.of(-1, 2, begun=2)) == [
        ((0, 1), True, False),
        ((2, 3), True, False),
        ((4, 5), False, False),
    ]
    singly = [pipeline._Queued(replace(job, singly=True), attempts=2) for job in jobs]
    with pytest.raises(WorkerError, match="ended 3 times in the same job"):
        buried(jobs, done=[], worker=Dead.of(-1, 1, begun=1), queued=singly)
