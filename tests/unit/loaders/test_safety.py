"""What a reader is safe from: damage, newer snapshots, leaks, and files that are cut under it."""

import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader

from cache_store.errors import IntegrityError, UsageError
from loaders import CachedDataset
from preprocess import build
from tests.helpers import TINY, image_folder, write_image

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def photos(tmp_path):
    return image_folder(tmp_path / "photos")


@pytest.fixture
def cache(photos, tmp_path):
    build(photos, tmp_path / "cache", TINY, workers=1)
    return tmp_path / "cache"


@pytest.fixture
def shard(cache):
    (found,) = cache.glob("tensors/*/image/c.*")
    return found


def damage(cache, shard, sample):
    """Flip a bit in the middle of a sample's chunk."""
    from cache_store import open_cache

    with open_cache(cache) as opened:
        slot = int(opened.split("train")["slot"][sample, 0])
    data = bytearray(shard.read_bytes())
    data[slot * (384 + 4) + 100] ^= 1
    shard.write_bytes(data)


# -- check="first" -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_a_damaged_image_is_found_when_it_is_first_touched(cache, shard, io):
    damage(cache, shard, 5)
    dataset = CachedDataset(cache, check="first", io=io)
    assert len(dataset.__getitems__([0, 1, 2, 3, 4, 6, 7])) == 7

    for _ in range(2):  # not only once
        with pytest.raises(IntegrityError) as caught:
            dataset.__getitems__([4, 5, 6])
        assert "sample 'dog/001.png' variant 0 has checksum" in str(caught.value)
        assert "the manifest says" in str(caught.value)
        assert "run: decant repair SOURCE CACHE" in str(caught.value)
        assert str(shard) in str(caught.value)
    with pytest.raises(IntegrityError, match=r"dog/001\.png"):
        dataset[5]


def test_without_the_check_it_is_not(cache, shard):
    before = CachedDataset(cache)[5][0]
    damage(cache, shard, 5)

    assert not torch.equal(CachedDataset(cache)[5][0], before)


def test_an_image_is_checked_once(cache, monkeypatch):
    dataset = CachedDataset(cache, check="first")
    dataset[0]
    counted = []
    checksums = dataset._gatherer.checksums
    monkeypatch.setattr(dataset._gatherer, "checksums", lambda slots: counted.append(len(slots)) or checksums(slots))

    for _ in range(3):
        dataset.__getitems__([0, 1, 2, 1])

    assert counted == [3, 0, 0]


def test_swapped_images_of_valid_checksums_are_found(cache, shard):
    """Each chunk's own checksum is right, but it is not the sample's."""
    data = bytearray(shard.read_bytes())
    data[:388], data[388:776] = data[388:776], data[:388]
    shard.write_bytes(data)
    dataset = CachedDataset(cache, check="first")

    with pytest.raises(IntegrityError, match="the manifest says"):
        dataset.__getitems__(range(8))


@pytest.mark.parametrize(("name", "value"), [("io", "direct"), ("check", "always")])
def test_unknown_ways_are_refused(cache, name, value):
    with pytest.raises(UsageError, match=f"{name}: .* expected, found '{value}'"):
        CachedDataset(cache, **{name: value})


# -- refresh -----------------------------------------------------------------------------------------------------------


def test_refresh_moves_to_the_newest_snapshot(photos, cache):
    dataset = CachedDataset(cache, dtype=torch.float32)
    assert dataset.refresh() == "000001"
    before = dataset[0][0]
    write_image(photos / "dog" / "new.png", 99)
    build(photos, cache, workers=1)

    assert dataset.refresh() == "000002"

    assert len(dataset) == 9
    assert dataset.samples[-1] == ("dog/new.png", 1)
    assert torch.equal(dataset[0][0], before)
    with CachedDataset(cache, dtype=torch.float32) as fresh:
        assert torch.equal(dataset[8][0], fresh[8][0])
    assert dataset.snapshot_id == "000002"


def test_refresh_refuses_to_shift_class_ids(photos, cache):
    dataset = CachedDataset(cache)
    write_image(photos / "ant" / "new.png", 99)
    build(photos, cache, workers=1)

    with pytest.raises(UsageError, match=r"class ids differ .*'cat' 0 -> 1, 'dog' 1 -> 2"):
        dataset.refresh()
    assert dataset.snapshot_id == "000001"
    assert len(list(dataset)) == 8


def test_a_class_more_at_the_end_shifts_nothing(photos, cache):
    dataset = CachedDataset(cache)
    write_image(photos / "eel" / "new.png", 99)
    build(photos, cache, workers=1)

    dataset.refresh()

    assert dataset.classes == ["cat", "dog", "eel"]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_refresh_refuses_while_workers_read_the_old_snapshot(photos, cache, context):
    dataset = CachedDataset(cache)
    loader = DataLoader(dataset, 4, num_workers=1, persistent_workers=True, multiprocessing_context=context)
    assert len(list(loader)) == 2
    write_image(photos / "dog" / "new.png", 99)
    build(photos, cache, workers=1)

    with pytest.raises(UsageError, match=r"worker process \d+ still reads snapshot 000001"):
        dataset.refresh()
    del loader
    gc.collect()
    assert dataset.refresh() == "000002"


def test_refresh_refuses_what_the_dataset_was_opened_for(photos, cache):
    crops = [{"RandomCrop": {"height": 8, "width": 8}}]
    more = TINY | {"splits": {"train": {"folder": ".", "variants": 3, "transforms": crops}}}
    build(photos, cache, more, workers=1)
    dataset = CachedDataset(cache, variant=2)
    build(photos, cache, TINY, workers=1)

    with pytest.raises(LookupError, match="has variants 0 to 0, there is no 2"):
        dataset.refresh()
    assert dataset.snapshot_id == "000002"
    assert dataset[0][0].shape == (3, 8, 8)


# -- leaks -------------------------------------------------------------------------------------------------------------


def usage():
    """Open descriptors and maps of this process."""
    return len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("closes", [True, False])
def test_a_thousand_opened_datasets_leak_nothing(cache, closes, io):
    def open_and_read():
        dataset = CachedDataset(cache, io=io, check="first")
        dataset.__getitems__([0, 3])
        if closes:
            dataset.close()

    for _ in range(20):
        open_and_read()
    gc.collect()
    before = usage()
    for _ in range(1000):
        open_and_read()
    gc.collect()
    after = usage()

    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 10


# -- files that are cut under a live map -------------------------------------------------------------------------------


@pytest.mark.parametrize(("io", "ends"), [("mmap", -7), ("pread", 0)])
def test_a_file_that_is_cut_under_a_reader(cache, shard, io, ends):
    """As documented: SIGBUS for a map, an error for a file that is read."""
    code = """
        import os, sys
        from cache_store.errors import IntegrityError
        from loaders import CachedDataset
        dataset = CachedDataset(sys.argv[1], io=sys.argv[3])
        dataset[0]
        os.truncate(sys.argv[2], 0)
        try:
            dataset.__getitems__(range(8))
        except IntegrityError as error:
            print(error)
    """

    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), cache, shard, io],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == ends, ran.stderr
    if io == "pread":
        assert str(shard) in ran.stdout
