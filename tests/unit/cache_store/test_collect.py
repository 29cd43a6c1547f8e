"""What gc and compaction remove, what they keep, and what a kill at any step leaves."""

import itertools
import os
import shutil

import numpy as np
import pytest

from cache_store import layout, writer
from cache_store.errors import IntegrityError, LockedError, NotFoundError, UsageError
from cache_store.gc import collect_garbage
from cache_store.lock import BuildersLock
from cache_store.manifest import join_strings
from cache_store.reader import open_cache, read_root, snapshot_names
from cache_store.snapshots import rollback
from cache_store.verify import verify
from cache_store.writer import Commit
from tests.unit.cache_store.stores import (
    SLOTS,
    contents,
    flip_bit,
    killed_at,
    make_cache,
    pending_shard,
    pending_shards,
    snapshot_of,
    spec,
    split_table,
    tensor,
)

TENSORS = spec().tensors_id


def shards(cache, dtype="float16"):
    names = os.listdir(layout.image_dir(cache, spec(dtype).tensors_id))
    return sorted(n for name in names if (n := layout.shard_number(name)) is not None)


def keep_some(cache, chosen):
    """A snapshot of some samples of the one in force, in the same slots."""
    with open_cache(cache) as opened:
        table = opened.split("train")
        paths = [table.paths()[i] for i in chosen]
        columns = {name: np.array(table[name][chosen]) for name in table.columns if name != "path"}
        columns["path"], columns["path_end"] = join_strings(paths)
        tensors = opened.snapshot.tensors
        split = type(table)(table.tensors_id, table.mean, table.std, 1, table.decoders, columns)
    commit = Commit(cache, build := writer.begin(cache))
    commit.tensors = tensors
    commit.publish(snapshot_of(commit, {"train": split}))
    writer.clear_pending([build])


def held(cache):
    """path -> tensor of all samples."""
    with open_cache(cache) as opened:
        table = opened.split("train")
        return {path: opened.image("train", i).tobytes() for i, path in enumerate(table.paths())}


def expected(samples):
    return {b"cat/\xff%03d.png" % i: tensor(i).tobytes() for i in samples}


@pytest.fixture
def cache(tmp_path):
    """Snapshots 1 (shards 0, 1), 2 (uint8) and 3 (shard 2)."""
    make_cache(tmp_path / "cache", SLOTS + 1)
    make_cache(tmp_path / "cache", 2, dtype="uint8")
    make_cache(tmp_path / "cache", 3)
    return tmp_path / "cache"


@pytest.fixture
def sparse(tmp_path):
    """12 samples in 3 shards, then a snapshot of 4 of them: 1, 1 and 2 used of four places each."""
    make_cache(tmp_path / "cache", 3 * SLOTS)
    keep_some(tmp_path / "cache", [1, 6, 9, 10])
    return tmp_path / "cache"


# -- gc ----------------------------------------------------------------------------------------------------------------


def test_one_snapshot_stays_with_what_it_needs(cache):
    before = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())

    report = collect_garbage(cache)

    assert (report.removed, report.kept, report.leased) == (["000001", "000002"], ["000003"], [])
    assert (report.shards, report.tensors) == (2, 1)
    assert shards(cache) == [2]
    assert not layout.tensors_dir(cache, spec("uint8").tensors_id).exists()
    assert held(cache) == expected(range(3))
    assert verify(cache).sound
    after = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    assert before - after == report.freed_bytes - len((cache / "pending" / "lock").read_bytes())
    assert collect_garbage(cache).freed_bytes == 0


@pytest.mark.parametrize(("keep", "kept"), [(2, ["000002", "000003"]), (3, ["000001", "000002", "000003"])])
def test_as_many_stay_as_asked_for(cache, keep, kept):
    assert collect_garbage(cache, keep).kept == kept
    assert snapshot_names(cache) == kept
    assert verify(cache).sound


def test_the_one_in_force_stays_however_old(cache):
    rollback(cache, "000001")

    report = collect_garbage(cache)

    assert report.kept == ["000001", "000003"]
    assert held(cache) == expected(range(SLOTS + 1))
    assert verify(cache).sound


def test_what_somebody_reads_stays_and_is_named(cache):
    own = layout.snapshot_dir(cache, "000001") / "zarr.json"
    with open_cache(cache, "000001") as reader:
        report = collect_garbage(cache)

        assert report.leased == ["000001"]
        assert "in use, so not removed: 000001" in str(report)
        assert reader.image("train", SLOTS).tobytes() == tensor(SLOTS).tobytes()
        assert verify(cache).sound  # though nobody is left whose parent it was
        year = own.read_bytes().index(b"2024") + 3
        flip_bit(own, year)
        assert [f.file for f in verify(cache).findings] == ["snapshots/000001/zarr.json"]
        flip_bit(own, year)
    assert collect_garbage(cache).removed == ["000001"]
    assert verify(cache).sound


def test_numbers_are_never_given_out_again(cache):
    make_cache(cache, 1, dtype="uint8")  # the last snapshot has none of the float16 tensors
    rollback(cache, "000001")
    collect_garbage(cache)  # keeps 1 (shards 0 and 1) and 4; shard 2 was the last
    assert shards(cache) == [0, 1, 2]
    assert layout.shard_file(cache, TENSORS, 2).stat().st_size == 16 * SLOTS + 4
    assert verify(cache).sound

    make_cache(cache, 2)

    assert shards(cache) == [0, 1, 2, 3]
    assert read_root(cache).snapshot == "000005"
    assert verify(cache).sound


def test_leftovers_of_killed_builds_go_but_not_their_work(cache):
    build = writer.begin(cache)
    pending_shards(build, 3)
    (cache / "pending" / "zarr.json.part").write_bytes(b"half")
    (cache / "pending" / "gc-dead").mkdir()
    litter = writer.begin(cache)
    os.makedirs(layout.snapshot_dir(cache, "000004") / "train")

    report = collect_garbage(cache)

    assert report.unfinished_bytes > 0
    assert "are kept for the next one; --drop-unfinished removes them" in str(report)
    assert (build.exists(), litter.exists()) == (True, False)
    assert sorted(os.listdir(cache / "pending")) == sorted(["lock", "zarr.json", build.name])
    assert not layout.snapshot_dir(cache, "000004").exists()
    assert collect_garbage(cache, drop_unfinished=True).unfinished_bytes == 0
    assert not build.exists()


def test_shards_that_a_killed_commit_had_adopted_are_work_too(cache):
    build = writer.begin(cache)
    Commit(cache, build).adopt(TENSORS, pending_shards(build, 3))

    collect_garbage(cache)

    found, _ = writer.recover(cache)
    assert [writer.verify_pending(shard) for shard in found] == [True]


def test_damaged_snapshot_that_is_to_be_kept_stops_it(cache):
    path = layout.snapshot_dir(cache, "000003") / "train" / "slot" / "c.0.0"
    flip_bit(path)
    before = contents(cache / "tensors"), contents(cache / "snapshots")

    with pytest.raises(IntegrityError, match="needs is not known, so nothing was removed"):
        collect_garbage(cache)
    assert (contents(cache / "tensors"), contents(cache / "snapshots")) == before


@pytest.mark.parametrize("file", ["zarr.json", "train/slot/c.0.0"])
def test_damaged_snapshot_that_is_not_kept_goes(cache, file):
    (layout.snapshot_dir(cache, "000001") / file).unlink()

    collect_garbage(cache)

    assert verify(cache).sound


def test_refusals(cache, tmp_path):
    with pytest.raises(UsageError, match="1 or more"):
        collect_garbage(cache, 0)
    with pytest.raises(NotFoundError):
        collect_garbage(tmp_path)
    assert os.listdir(tmp_path) == ["cache"]
    with BuildersLock(cache), pytest.raises(LockedError):
        collect_garbage(cache)


# -- compaction --------------------------------------------------------------------------------------------------------


def test_partly_used_shards_are_packed(sparse):
    report = collect_garbage(sparse, compact=True)

    assert (report.compacted, report.moved) == ("000003", 4)
    assert report.kept == ["000003"]
    assert shards(sparse) == [3]
    assert held(sparse) == expected([1, 6, 9, 10])
    with open_cache(sparse) as opened:
        assert opened.snapshot.parent == "000002"
        assert opened.split("train")["slot"].tolist() == [[12], [13], [14], [15]]
    assert verify(sparse).sound


def test_a_second_time_there_is_nothing_to_gain(sparse):
    collect_garbage(sparse, compact=True)

    assert collect_garbage(sparse, compact=True).compacted is None


def test_well_filled_shards_stay(cache):
    rollback(cache, "000001")  # four of four, and one of four that is full of nothing else

    assert collect_garbage(cache, compact=True).compacted is None


def test_small_commits_are_merged(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 1)
    writer.claim_folder(cache)
    build = writer.begin(cache)
    commit = Commit(cache, build)
    commit.ensure_tensors(spec())
    made = [pending_shard(build, f"{n}-0", [(n, 0)]) for n in range(3)]
    numbers = commit.adopt(TENSORS, made)
    commit.publish(snapshot_of(commit, {"train": split_table(made, numbers, 3, 1)}))
    writer.clear_pending([build])

    report = collect_garbage(cache, compact=True)

    assert report.moved == 3
    assert shards(cache) == [4]
    assert held(cache) == expected(range(3))


def test_shards_of_a_snapshot_in_use_outlive_compaction(sparse):
    with open_cache(sparse) as reader:
        report = collect_garbage(sparse, compact=True)

        assert report.leased == ["000002"]
        assert shards(sparse) == [0, 1, 2, 3]
        assert reader.image("train", 3).tobytes() == tensor(10).tobytes()
    collect_garbage(sparse)
    assert shards(sparse) == [3]


def test_damaged_chunk_is_not_carried_over(sparse):
    flip_bit(layout.shard_file(sparse, TENSORS, 1), 2 * (120 + 4))

    with pytest.raises(IntegrityError, match="checksum"):
        collect_garbage(sparse, compact=True)
    assert read_root(sparse).snapshot == "000002"
    assert [e for e in os.listdir(sparse / "pending") if e not in ("lock", "zarr.json", "source")] == []


# -- kills -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compact", [False, True])
def test_killed_at_any_system_call_every_kept_snapshot_is_whole(sparse, tmp_path, compact):
    make_cache(sparse, 2, dtype="uint8")
    rollback(sparse, "000002")
    kills = 0
    for number in itertools.count(0, 13 if compact else 2):
        cache = shutil.copytree(sparse, tmp_path / f"{number}")
        killed = killed_at(number, lambda cache=cache: collect_garbage(cache, keep=2, compact=compact))
        kills += killed

        assert held(cache) == expected([1, 6, 9, 10])
        with open_cache(cache, "000003") as opened:
            assert opened.image("train", 1).tobytes() == tensor(1, dtype="uint8").tobytes()
        assert verify(cache).sound, (number, str(verify(cache)))
        collect_garbage(cache, keep=2, compact=compact)
        assert verify(cache).sound
        assert held(cache) == expected([1, 6, 9, 10])
        assert [e for e in os.listdir(cache / "pending") if e not in ("lock", "zarr.json", "source")] == []
        shutil.rmtree(cache)
        if not killed:
            break
    assert kills > 5


# -- at the same time --------------------------------------------------------------------------------------------------


def test_readers_and_verify_see_whole_snapshots_whatever_builds_and_gc_do_meanwhile(cache):
    done = cache.parent / "done"
    readers = []
    for check in (False, True):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                while not done.exists():
                    held(cache)
                    assert not check or verify(cache).sound
                status = 0
            finally:
                os._exit(status)
        readers.append(pid)
    try:
        for number in range(12):
            with BuildersLock(cache):
                make_cache(cache, 2 + number % 5)
            collect_garbage(cache, compact=number % 3 == 0)
    finally:
        done.touch()
        ends = [os.waitpid(pid, 0)[1] for pid in readers]

    assert ends == [0, 0]
    assert verify(cache).sound
