"""Reading ahead: whole shards in the order of their first use, only what is needed, only what is not in memory."""

import mmap
import os
import threading
import time
from itertools import islice

import numpy as np
import pytest
from torch.utils.data import DataLoader

from cache_store import open_cache
from loaders import CachedDataset, ShardShuffleSampler, ahead
from preprocess import build
from tests.helpers import TINY, image_folder

SIDE = 64
CHUNK = 3 * SIDE * SIDE * 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten shards of four slots, 96 KiB each."""
    root = tmp_path_factory.mktemp("ahead")
    image_folder(root / "photos", count=20)
    recipe = TINY | {
        "size": SIDE,
        "splits": {"train": {"folder": ".", "transforms": [{"Resize": {"height": SIDE, "width": SIDE}}]}},
    }
    build(root / "photos", root / "cache", recipe, workers=1, shard_mib=4 * CHUNK / (1 << 20))
    return root / "cache"


@pytest.fixture
def reader(folder):
    with open_cache(folder) as cache:
        yield cache.tensors("train")


def forget(path):
    """Have the kernel drop a file from memory."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def is_resident(path, offset):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)


@pytest.fixture
def cold(reader):
    path = reader.shard_file(1)
    forget(path)
    if is_resident(path, 5000):
        pytest.skip("this file system keeps its files in memory")
    return path


def test_chunks_that_are_not_in_memory_are_asked_for_once(reader, cold):
    assert ahead.ask_for(reader, 1, np.arange(4)) == 4 * (CHUNK + 4) - 4
    deadline = time.monotonic() + 10
    while not is_resident(cold, 3 * CHUNK) and time.monotonic() < deadline:
        time.sleep(0.01)

    assert is_resident(cold, 3 * CHUNK)
    assert ahead.ask_for(reader, 1, np.arange(4)) == 0


def test_only_what_is_needed_is_asked_for(reader, cold, monkeypatch):
    monkeypatch.setattr(ahead, "_MERGED_GAP_BYTES", mmap.PAGESIZE)

    assert ahead.ask_for(reader, 1, np.array([0, 1, 3])) == 3 * CHUNK + 4


def test_each_shard_has_its_turn_at_its_first_use():
    slots = np.array([9, 1, 8, 0, 9, 14, 3])

    found = [(first, shard, places.tolist()) for first, shard, places in ahead._by_first_use(slots, 4)]

    assert found == [(0, 2, [0, 1, 1]), (1, 0, [0, 1, 3]), (5, 3, [2])]
    assert ahead._by_first_use(slots[:0], 4) == []


@pytest.fixture
def asked(monkeypatch):
    """Shards that were asked for, by threads of this test: one that a former test has left may be late."""
    found = []
    others = set(threading.enumerate()) - {threading.current_thread()}

    def ask_for(reader, shard, places):
        if threading.current_thread() not in others:
            found.append(shard)

    monkeypatch.setattr(ahead, "ask_for", ask_for)
    return found


def wait_until(done):
    deadline = time.monotonic() + 10
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "decant-ahead"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_asks_a_few_shards_ahead(folder, asked, monkeypatch, workers):
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 8 * CHUNK)
    monkeypatch.setattr("loaders.sampler._HINT_SAMPLES", 4)
    dataset = CachedDataset(folder)
    sampler = ShardShuffleSampler(dataset, window_shards=1)
    loader = DataLoader(
        dataset, batch_size=4, sampler=sampler, num_workers=workers, prefetch_factor=1 if workers else None
    )
    batches = iter(loader)

    next(batches)
    time.sleep(0.3)
    few = len(asked)
    for number, _ in enumerate(batches, start=2):  # no faster than the thread, which has no more to ask after the end
        wait_until(lambda: len(asked) >= min(10, number + 1))  # noqa: B023

    assert 2 <= few <= 7
    assert sorted(asked) == list(range(10))
    wait_until(lambda: not threads())
    assert not threads()


def test_a_pass_that_is_left_ends_its_thread(folder, asked):
    dataset = CachedDataset(folder)
    sampler = ShardShuffleSampler(dataset)
    list(islice(iter(sampler), 3))
    list(sampler)

    wait_until(lambda: not threads())
    assert not threads()


def test_a_loop_that_is_left_ends_its_thread_at_once(folder, asked, monkeypatch):
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 4 * CHUNK)
    monkeypatch.setattr("loaders.sampler._HINT_SAMPLES", 4)
    sampler = ShardShuffleSampler(CachedDataset(folder), window_shards=1)
    before = set(threads())
    for _ in DataLoader(sampler.dataset, batch_size=4, sampler=sampler):
        assert set(threads()) - before
        break

    wait_until(lambda: not set(threads()) - before)
    assert not set(threads()) - before
    assert sampler.state_dict()["position"] == 4


def test_variants_that_are_drawn_when_fetched_cannot_be_asked_for(folder, asked, tmp_path):
    image_folder(tmp_path / "photos", count=2)
    crops = [{"RandomCrop": {"height": 8, "width": 8}}]
    build(
        tmp_path / "photos",
        tmp_path / "cache",
        TINY | {"splits": {"train": {"folder": ".", "variants": 2, "transforms": crops}}},
        workers=1,
    )
    dataset = CachedDataset(tmp_path / "cache")
    sampler = ShardShuffleSampler(dataset)

    list(sampler)
    assert asked == []
    sampler.set_epoch(0)
    indices = iter(sampler)
    next(indices)
    wait_until(lambda: asked)
    assert asked == [0]


def test_a_shard_that_is_gone_is_left_to_the_batch_that_needs_it(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "cache")
    dataset = CachedDataset(tmp_path / "cache")
    shards = dataset.shards(0)
    dataset._opened().tensors("train").shard_file(3).unlink()
    sampler = ShardShuffleSampler(dataset)
    order = list(sampler)

    wait_until(lambda: not threads())
    whole = [index for index in order if shards[index] != 3]
    assert len(dataset.__getitems__(whole)) == 36
