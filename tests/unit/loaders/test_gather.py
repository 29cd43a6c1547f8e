"""Gathering: every slot's bytes, whatever the number of maps, threads and samples."""

import threading

import numpy as np
import pytest

from cache_store import open_cache
from cache_store.errors import IntegrityError
from loaders.gather import Gatherer
from loaders.threads import CopyThreads
from preprocess import build
from tests.helpers import TINY, image_folder


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Ten shards of four slots."""
    root = tmp_path_factory.mktemp("gather")
    image_folder(root / "photos", count=20)
    build(root / "photos", root / "cache", TINY, workers=1, shard_mib=4 * 384 / (1 << 20))
    with open_cache(root / "cache") as cache:
        yield cache


def gathered(gatherer: Gatherer, slots: np.ndarray) -> np.ndarray:
    out = np.empty((len(slots), 3, 8, 8), np.float16)
    gatherer.gather(slots, out)
    return out


@pytest.mark.parametrize("max_maps", [1, 2, 100])
def test_every_row_is_its_slot(opened, max_maps):
    reader, slots = opened.tensors("train"), opened.split("train")["slot"][:, 0]
    assert reader.slots == 4
    gatherer = Gatherer(reader, int(slots.max()) + 1, max_maps=max_maps)

    for seed in range(20):
        asked = np.random.default_rng(seed).choice(slots, 1 + seed * 3)
        expected = np.stack([reader.chunk(int(slot)) for slot in asked])
        np.testing.assert_array_equal(gathered(gatherer, asked), expected)
        assert len(gatherer._maps) <= max_maps


def test_several_threads_may_gather_at_once(opened):
    reader, slots = opened.tensors("train"), opened.split("train")["slot"][:, 0]
    gatherer = Gatherer(reader, int(slots.max()) + 1, max_maps=2)
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


def test_an_empty_slot_is_no_image(opened):
    reader = opened.tensors("train")
    used = set(opened.split("train")["slot"].reshape(-1).tolist())
    free = sorted(set(range((max(used) // 4 + 1) * 4)) - used)
    if not free:
        pytest.skip("every slot is filled")

    with pytest.raises(IntegrityError, match=f"slot {free[0]} is empty"):
        gathered(Gatherer(reader, free[0] + 1), np.array(free[:1]))


def test_no_slots_give_no_rows(opened):
    assert gathered(Gatherer(opened.tensors("train"), 4), np.zeros(0, np.int64)).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
@pytest.mark.parametrize("items", [0, 1, 2, 3, 7, 256])
def test_threads_do_each_item_once(count, items):
    threads = CopyThreads()
    threads.count = count
    seen = np.zeros(items, int)

    def work(start: int, end: int) -> None:
        seen[start:end] += 1

    threads.over(items, work)

    assert (seen == 1).all()
