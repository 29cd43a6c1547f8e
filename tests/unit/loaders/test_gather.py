"""Gathering: every slot's bytes, whatever the number of open shards, threads and samples, mapped or read."""

import os
import threading
import time

import numpy as np
import pytest
import torch

from cache_store import open_cache
from cache_store.errors import IntegrityError
from loaders.gather import Gatherer
from loaders.shards import FileShards, MappedShards
from loaders.threads import CopyThreads
from preprocess import build
from tests.helpers import TINY, image_folder

KINDS = [MappedShards, FileShards]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards of four slots; the last one has a free slot."""
    root = tmp_path_factory.mktemp("gather")
    image_folder(root / "photos", count=11)
    build(root / "photos", root / "cache", TINY, workers=1, shard_mib=4 * 384 / (1 << 20))
    return root / "cache"


@pytest.fixture(scope="module")
def opened(folder):
    with open_cache(folder) as cache:
        yield cache


def gathered(gatherer: Gatherer, slots: np.ndarray) -> np.ndarray:
    out = torch.empty((len(slots), 3, 8, 8), dtype=torch.float16)
    gatherer.gather(slots, out)
    return out.numpy()


@pytest.mark.parametrize("most", [1, 2, 100])
@pytest.mark.parametrize("kind", KINDS)
def test_every_row_is_its_slot(opened, kind, most):
    reader, slots = opened.tensors("train"), opened.split("train")["slot"][:, 0]
    assert reader.slots == 4
    shards = kind(reader, int(slots.max()) + 1, most)
    gatherer = Gatherer(shards)

    for seed in range(20):
        asked = np.random.default_rng(seed).choice(slots, 1 + seed * 3)
        expected = np.stack([reader.chunk(int(slot)) for slot in asked])
        np.testing.assert_array_equal(gathered(gatherer, asked), expected)
        assert len(shards._open) <= most


@pytest.mark.parametrize("kind", KINDS)
def test_batches_that_are_copied_by_several_threads(opened, kind, monkeypatch):
    monkeypatch.setattr("loaders.gather.THREADED_BYTES", 1)
    monkeypatch.setattr("loaders.gather.THREADS", CopyThreads(3))
    reader, slots = opened.tensors("train"), opened.split("train")["slot"][:, 0]
    asked = np.random.default_rng(1).choice(slots, 500)

    found = gathered(Gatherer(kind(reader, int(slots.max()) + 1, 3)), asked)

    np.testing.assert_array_equal(found, np.stack([reader.chunk(int(slot)) for slot in asked]))


@pytest.mark.parametrize("kind", KINDS)
def test_several_threads_may_gather_at_once(opened, kind):
    reader, slots = opened.tensors("train"), opened.split("train")["slot"][:, 0]
    gatherer = Gatherer(kind(reader, int(slots.max()) + 1, 2))
    expected = np.stack([reader.chunk(int(slot)) for slot in slots])
    wrong = []

    def work(seed: int) -> None:
        order = np.random.default_rng(seed).permutation(len(slots))
        for _ in range(50):
            if not np.array_equal(gathered(gatherer, slots[order]), expected[order]):
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_slot_is_no_image(opened, kind):
    used = set(opened.split("train")["slot"].reshape(-1).tolist())
    free = sorted(set(range((max(used) // 4 + 1) * 4)) - used)

    with pytest.raises(IntegrityError, match=f"slot {free[0]} is empty"):
        gathered(Gatherer(kind(opened.tensors("train"), free[0] + 1)), np.array(free[:1]))


@pytest.mark.parametrize("kind", KINDS)
def test_no_slots_give_no_rows(opened, kind):
    assert gathered(Gatherer(kind(opened.tensors("train"), 4)), np.zeros(0, np.int64)).shape == (0, 3, 8, 8)


def test_files_that_are_read_are_held_open_in_bounds_and_closed_in_the_end(opened):
    reader, slots = opened.tensors("train"), opened.split("train")["slot"][:, 0]
    before = len(os.listdir("/proc/self/fd"))
    gatherer = Gatherer(FileShards(reader, int(slots.max()) + 1, 2))
    for _ in range(3):
        gathered(gatherer, slots)
        assert len(os.listdir("/proc/self/fd")) <= before + 2

    del gatherer

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_is_cut_while_it_is_read_is_an_error(folder, tmp_path):
    """A mapped one would end the process."""
    import shutil

    shutil.copytree(folder, tmp_path / "cache")
    with open_cache(tmp_path / "cache") as cache:
        reader = cache.tensors("train")
        gatherer = Gatherer(FileShards(reader, 4))
        gathered(gatherer, np.array([0]))
        os.truncate(reader.shard_file(0), 400)

        with pytest.raises(IntegrityError, match=r"c\.0\.0\.0\.0.* slot 3 is cut after 0 bytes"):
            gathered(gatherer, np.array([3]))


@pytest.mark.parametrize("kind", KINDS)
def test_asking_ahead_changes_no_bytes(opened, kind, monkeypatch):
    reader, slots = opened.tensors("train"), opened.split("train")["slot"][:, 0]
    asked = []
    gatherer = Gatherer(kind(reader, int(slots.max()) + 1))
    ask = gatherer._shards.ask
    monkeypatch.setattr(gatherer._shards, "ask", lambda *given: (asked.append(len(given[0])), ask(*given)))

    found = [gathered(gatherer, slots) for _ in range(3)]

    np.testing.assert_array_equal(found[0], np.stack([reader.chunk(int(slot)) for slot in slots]))
    assert asked[:1] == [len(slots)]  # the first batch may be cold


def test_only_batches_after_a_cold_one_ask_ahead(opened, monkeypatch):
    class Usage:
        ru_majflt, ru_inblock = 0, 100

    monkeypatch.setattr("loaders.gather.resource.getrusage", lambda _: Usage)
    slots = opened.split("train")["slot"][:4, 0]
    gatherer = Gatherer(MappedShards(opened.tensors("train"), int(slots.max()) + 1))
    asked = []
    monkeypatch.setattr(gatherer._shards, "ask", lambda *_: asked.append(batch))
    for batch in range(6):
        if batch == 3:
            Usage.ru_inblock += 8
        gathered(gatherer, slots)

    assert asked == [0, 3]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("items", [0, 1, 2, 3, 7, 256])
def test_threads_do_each_item_once(count, items):
    threads = CopyThreads(count)
    seen = np.zeros(items, int)

    def work(start: int, end: int) -> None:
        seen[start:end] += 1

    threads.over(items, work)

    assert (seen == 1).all()


def test_a_part_that_fails_waits_for_the_others():
    """Their shards may be unmapped as soon as it is over."""
    started, busy = threading.Event(), threading.Event()

    def work(start: int, end: int) -> None:
        if start == 0:
            started.wait(10)
            raise KeyError("broken")
        busy.set()
        started.set()
        time.sleep(0.2)
        busy.clear()

    with pytest.raises(KeyError):
        CopyThreads(2).over(2, work)

    assert started.is_set()
    assert not busy.is_set()
