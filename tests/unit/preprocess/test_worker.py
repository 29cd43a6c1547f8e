"""Reading a source, and what a worker answers; in this process."""

import errno
import os
import threading
from multiprocessing.connection import Pipe

import numpy as np
import pytest

from cache_store.canonical import digest_of
from cache_store.errors import StorageError
from cache_store.records import read_record
from cache_store.shard import ShardReader
from preprocess import Recipe, worker
from preprocess.errors import SourceError
from preprocess.jobs import Done, Hashed, NormaliseJob, ReadJob, Setup, Wanted
from preprocess.render import DECODER
from preprocess.scan import stat_of
from preprocess.state import WorkerState
from preprocess.worker import Worker, read_source
from tests.helpers import TINY, write_image


def test_a_file_comes_with_the_stat_that_it_was_read_under(tmp_path):
    (tmp_path / "a").write_bytes(b"some bytes")

    data, numbers = read_source(os.fsencode(tmp_path / "a"))

    assert data == b"some bytes"
    assert numbers == stat_of(os.stat(tmp_path / "a"))


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.EACCES, "Permission denied"),
        (errno.EIO, "Input/output error"),
        (errno.ESTALE, "Stale file handle"),
        (errno.ENOENT, "No such file"),
        (errno.ELOOP, "symbolic links"),
    ],
)
def test_a_refused_open_is_the_files_failure(tmp_path, monkeypatch, number, reason):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(worker.os, "open", refuse)

    with pytest.raises(SourceError, match=reason) as caught:
        read_source(b"any")

    assert caught.value.stage == "read"


def _failing_open(monkeypatch, after_bytes):
    """`open` whose files fail with EIO, as a bad sector does."""

    class Failing:
        def __init__(self, fd, *_, **__):
            self._fd = fd

        def readall(self):
            os.read(self._fd, after_bytes)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(worker, "open", Failing, raising=False)


def test_a_failing_medium_is_the_files_failure_and_leaks_no_descriptor(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"some bytes")
    _failing_open(monkeypatch, 4)
    closed = []
    close = os.close
    monkeypatch.setattr(worker.os, "close", lambda fd: (closed.append(fd), close(fd)))

    with pytest.raises(SourceError, match="Input/output error"):
        read_source(os.fsencode(tmp_path / "a"))

    assert len(closed) == 1


@pytest.mark.parametrize("change", ["grows", "is cut", "is rewritten"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch, change):
    path = tmp_path / "a"
    path.write_bytes(b"some bytes")
    fstat, calls = os.fstat, []

    def fstat_then_change(fd):
        calls.append(fd)
        if len(calls) == 2:  # the read is over; an edit shows in the second look
            if change == "grows":
                path.write_bytes(b"some bytes and more")
            elif change == "is cut":
                os.truncate(path, 3)
            else:
                path.write_bytes(b"same bytes")
                os.utime(path, ns=(1, 1))
        return fstat(fd)

    monkeypatch.setattr(worker.os, "fstat", fstat_then_change)

    with pytest.raises(SourceError, match="changed while it was read"):
        read_source(os.fsencode(path))


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")

    with pytest.raises(SourceError, match="not a regular file"):
        read_source(os.fsencode(tmp_path / "a.jpg"))


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(SourceError, match="not a regular file|Is a directory"):
        read_source(os.fsencode(tmp_path))


# -- jobs ------------------------------------------------------------------------------------------------------------


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
    job = ReadJob(7, 0, (10, 11, 12), files, 1, 4)

    hashed, done = _answers(job, served, Wanted(((0, (0,)), (2, (0,)))))

    assert isinstance(hashed, Hashed)
    assert [row.tobytes() for row in hashed.digests] == [digest_of(open(path, "rb").read()) for path in files]
    assert isinstance(done, Done)
    (shard,) = done.shards
    assert [row["digest"].tobytes() for row in shard.rows] == [hashed.digests[i].tobytes() for i in (0, 2)]
    assert (read_record(shard.record_path).rows == shard.rows).all()
    assert (state.done, state.item, state.busy_s()) == (0, -1, 0)


def test_a_failed_read_leaves_the_rest_of_the_job(tmp_path, files):
    served, _ = _worker(tmp_path)
    job = ReadJob(7, 0, (0, 1, 2), (files[0], b"/nowhere", files[2]), 1, 4)

    hashed, done = _answers(job, served, Wanted(((0, (0,)), (2, (0,)))))

    assert list(hashed.failures) == [1]
    assert not hashed.digests[1].any()
    assert done.failures == hashed.failures
    assert len(done.shards[0].rows) == 2


def test_a_job_of_which_nothing_is_wanted_writes_nothing(tmp_path, files):
    served, _ = _worker(tmp_path)

    _, done = _answers(ReadJob(7, 0, (0, 1, 2), files, 1, 4), served, Wanted(()))

    assert done == Done()
    assert list(tmp_path.glob("*.shard")) == []


def test_a_job_that_fits_into_one_shard_makes_one_and_a_larger_one_a_shard_a_variant(tmp_path, files):
    served, _ = _worker(tmp_path)
    variants = (0, 1)

    _, small = _answers(ReadJob(1, 0, (0,), files[:1], 2, 4), served, Wanted(((0, variants),)))
    _, large = _answers(ReadJob(2, 0, (0, 1, 2), files, 2, 4), served, Wanted(tuple((i, variants) for i in range(3))))

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
        served.run(ReadJob(7, 0, (0,), files[:1], 1, 4), theirs)

    assert list(tmp_path.glob("*.shard")) == []
    assert list(tmp_path.glob("*.record*")) == []


def test_normalising_a_staged_shard_gives_what_rendering_at_once_gives(tmp_path, files):
    (tmp_path / "staged").mkdir()
    (tmp_path / "baked").mkdir()
    staging, _ = _worker(tmp_path / "staged", normalize="dataset")
    baking, _ = _worker(tmp_path / "baked")
    job, wanted = ReadJob(1, 0, (0, 1, 2), files, 1, 4), Wanted(tuple((i, (0,)) for i in range(3)))
    _, staged = _answers(job, staging, wanted)
    _, baked = _answers(job, baking, wanted)
    assert staged.shards[0].dtype == np.uint8

    ours, theirs = Pipe()
    staging.run(NormaliseJob(2, staged.shards[0], ((0.5,) * 3, (0.25,) * 3)), theirs)
    normalised = ours.recv().shards[0]

    assert normalised.path.read_bytes() == baked.shards[0].path.read_bytes()
    assert (normalised.rows == baked.shards[0].rows).all()


def test_a_normalised_shard_can_be_brought_to_other_statistics_without_its_sources(tmp_path, files):
    served, _ = _worker(tmp_path)
    job, wanted = ReadJob(1, 0, (0, 1, 2), files, 1, 4), Wanted(tuple((i, (0,)) for i in range(3)))
    _, first = _answers(job, served, wanted)
    ours, theirs = Pipe()

    served.run(NormaliseJob(2, first.shards[0], ((0.3,) * 3, (0.2,) * 3)), theirs)
    other = ours.recv().shards[0]
    served.run(NormaliseJob(3, other, ((0.5,) * 3, (0.25,) * 3)), theirs)
    back = ours.recv().shards[0]

    assert other.rows["checksum"].tolist() != first.shards[0].rows["checksum"].tolist()
    assert back.path.read_bytes() == first.shards[0].path.read_bytes()
    with ShardReader(other.path, other.slots, other.chunk_bytes) as reader:
        chunk = np.empty(other.shape, other.dtype)
        assert reader.read_into(0, chunk) == other.rows["checksum"][0]
