"""The worker that a build leaves for the next one; the workers are real processes."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from multiprocessing.connection import Pipe
from pathlib import Path

import numpy as np
import pytest

from preprocess import Recipe, worker
from preprocess.jobs import READY, REST, ReadJob, Setup, Wanted
from preprocess.pipeline import WorkerPool
from preprocess.render import DECODER
from preprocess.standby import STANDBY
from preprocess.state import WorkerState
from tests import decoders
from tests.helpers import TINY, write_image
from tests.integration.processes import ROOT, running, wait_until
from tests.unit.preprocess.test_pipeline import Client, jobs_of, ours, spoil

EVIL = "tests.decoders:decode"


@pytest.fixture(autouse=True)
def nobody_waits():
    STANDBY.clear()
    yield
    STANDBY.clear()


@pytest.fixture
def setup(tmp_path):
    recipe = Recipe.from_dict(TINY | {"normalize": "imagenet"})
    rendering = recipe.rendering("train", "opencv", "").with_statistics(recipe.fixed_statistics)
    (tmp_path / "pending").mkdir()
    return Setup(tmp_path / "pending", (rendering,), DECODER, 10**8)


@pytest.fixture
def files(tmp_path):
    return [write_image(tmp_path / f"{i:02d}.png", i) for i in range(4)]


@pytest.fixture
def notes(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv(decoders.FOLDER, str(tmp_path / "notes"))


def work(setup, files, first_job=1):
    """Run a pool to its end; the worker process that is left."""
    client = Client()
    with WorkerPool(setup, 2, 60) as pool:
        pool.run([replace(job, job_id=first_job + job.job_id) for job in jobs_of(files, 2)], client)
    assert len(client.rendered) == len(files)
    return ours()


def test_the_next_build_takes_the_worker_over_with_its_own_folder_and_rendering(tmp_path, setup, files):
    first = work(setup, files)
    recipe = Recipe.from_dict(TINY | {"normalize": "imagenet", "size": 4, "splits": None})
    rendering = recipe.with_splits([("train", ".")]).rendering("train", "opencv", "")
    (tmp_path / "other").mkdir()
    client = Client()

    with WorkerPool(Setup(tmp_path / "other", (rendering,), DECODER, 10**8), 2, 60) as pool:
        pool.run(jobs_of(files, 4), client)

    assert len(first) == 1
    assert ours() == first
    (shard,) = client.finished[0][1].shards
    assert (shard.path.parent, shard.shape) == (tmp_path / "other", (3, 4, 4))


@pytest.mark.parametrize("change", ["decoder", "pixels", "environment", "folder"])
def test_a_worker_of_other_terms_is_not_taken(tmp_path, setup, files, notes, monkeypatch, change):
    (former,) = work(setup, files)
    if change == "decoder":
        setup = replace(setup, decoder=EVIL)
    elif change == "pixels":
        setup = replace(setup, max_pixels=10**7)
    elif change == "environment":
        monkeypatch.setenv("OPENCV_CPU_DISABLE", "AVX2")
    else:
        monkeypatch.chdir(tmp_path)

    (now,) = work(setup, files, first_job=10)

    assert now != former
    assert not running(former)


def test_a_worker_that_was_killed_while_it_rested_is_replaced_in_silence(setup, files):
    (former,) = work(setup, files)
    os.kill(former, signal.SIGKILL)

    (now,) = work(setup, files, first_job=10)

    assert now != former


def test_a_build_that_fails_leaves_no_worker(setup, files):
    def fail():
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"), WorkerPool(setup, 2, 60) as pool:
        pool.run(jobs_of(files, 4), Client(on_hashed=fail))

    assert ours() == []


def test_a_worker_that_has_rested_judges_no_suspect(setup, files, notes):
    setup = replace(setup, decoder=EVIL)
    (former,) = work(setup, files[:2])
    spoil(files[3], b"KILL")
    client = Client()

    with WorkerPool(setup, 1, 60) as pool:
        pool.run([replace(jobs_of(files[3:], 1)[0], job_id=10)], client)

    tries = [int(line.split()[0]) for line in decoders.noted().read_text().splitlines()][2:]
    assert tries[0] == former
    assert len(tries) == 2
    assert tries[1] != former
    assert client.poison == []


def test_few_slow_items_get_all_workers_after_all(setup, files, notes, monkeypatch):
    monkeypatch.setenv(decoders.SLEEP_S, "0.6")
    client = Client()
    with WorkerPool(replace(setup, decoder=EVIL), 2, 60) as pool:
        pool.run(jobs_of(files, 1), client)

        assert len(ours()) == 2
    assert len(client.rendered) == 4


def test_a_forked_child_starts_its_own_and_leaves_its_parents_alone(tmp_path, setup, files):
    before = work(setup, files)

    child = os.fork()
    if child == 0:
        try:
            mine = work(replace(setup, folder=tmp_path), files, first_job=50)
            STANDBY.clear()
            os._exit(0 if len(mine) == 1 and mine != before else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert work(setup, files, first_job=10) == before


def test_it_dies_with_its_builder(tmp_path):
    """However that one ends: at its end, or by a signal that nobody can catch."""
    write_image(tmp_path / "photos" / "cat" / "0.png", 1)
    script = (
        "import os, signal, sys\n"
        "from preprocess import build\n"
        "from tests.unit.preprocess.test_pipeline import ours\n"
        f"build({str(tmp_path / 'photos')!r}, sys.argv[1], {TINY!r})\n"
        "print(*ours(), flush=True)\n"
        "sys.argv[2] == 'killed' and os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for how in ("killed", "ended"):
        done = subprocess.run(
            [sys.executable, "-c", script, tmp_path / how, how],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        (pid,) = map(int, done.stdout.split())
        wait_until(lambda pid=pid: not running(pid))


def test_a_worker_ends_by_itself_after_a_long_rest(tmp_path, setup, files, monkeypatch):
    monkeypatch.setattr(worker, "IDLE_S", 0.05)
    builder, theirs = Pipe()
    state = WorkerState(WorkerState.create())
    answers = []
    thread = threading.Thread(target=lambda: answers.append(worker.serve_a_build(theirs, state)))
    thread.start()
    for message in (setup, ReadJob(1, 0, np.array([0]), (os.fsencode(files[0]),), 1, 8)):
        builder.send(message)
    assert builder.recv() == READY
    builder.recv()
    builder.send(Wanted(()))
    builder.recv()
    builder.send(REST)
    thread.join(10)

    assert answers == [False]


def test_a_build_with_the_worker_of_the_former_one_isolates_crashes_too(tmp_path, notes):
    from preprocess import build

    for i in range(3):
        write_image(tmp_path / "photos" / "cat" / f"{i}.png", i)
    build(tmp_path / "photos", tmp_path / "cache", TINY, decoder=EVIL)
    assert len(ours()) == 1
    bad = write_image(tmp_path / "photos" / "cat" / "bad.png", 7)
    spoil(bad, b"SEGV")
    write_image(tmp_path / "photos" / "cat" / "new.png", 8)

    report = build(tmp_path / "photos", tmp_path / "cache", decoder=EVIL)

    assert (report.rendered, [Path(f["path"]).name for f in report.failures]) == (1, ["bad.png"])
    assert "killed by SIGSEGV" in report.failures[0]["reason"]


def test_a_working_folder_that_was_removed_is_no_obstacle(tmp_path, setup, files, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()

    assert work(setup, files) == work(setup, files, first_job=10)
