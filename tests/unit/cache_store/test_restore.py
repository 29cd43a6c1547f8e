"""Metadata and tables that can be had without a single pixel."""

import shutil

import pytest

from cache_store import layout
from cache_store.restore import restore
from cache_store.verify import examine, verify
from tests.unit.cache_store.stores import SLOTS, flip_bit, make_cache, spec


@pytest.fixture
def cache(tmp_path):
    make_cache(tmp_path / "cache", SLOTS + 1)
    make_cache(tmp_path / "cache", 2)
    return tmp_path / "cache"


def restored(cache):
    files = []
    while new := restore(examine(cache, shards=False), lambda finding, digest: None):
        files += new
        assert len(files) < 20
    return files


@pytest.mark.parametrize(
    "name",
    [
        "zarr.json",
        "tensors/zarr.json",
        "snapshots/zarr.json",
        "pending/zarr.json",
        "snapshots/000002/train/slot/zarr.json",
        "snapshots/000002/train/path/zarr.json",
        "snapshots/000002/failures/zarr.json",
        "snapshots/000002/failures/c.0",  # the other snapshot has the same
    ],
)
def test_lost_file_comes_back(cache, name):
    before = (cache / name).read_bytes()
    (cache / name).unlink()

    assert restored(cache) == [name]
    assert (cache / name).read_bytes() == before
    assert verify(cache).sound


def test_lost_folder_of_a_file_comes_back_with_it(cache):
    shutil.rmtree(cache / "snapshots" / "000002" / "failures")

    assert sorted(restored(cache)) == ["snapshots/000002/failures/c.0", "snapshots/000002/failures/zarr.json"]
    assert verify(cache).sound


@pytest.mark.parametrize(
    "name",
    [
        "zarr.json",
        "snapshots/000001/zarr.json",
        "snapshots/000002/zarr.json",
        "snapshots/000002/train/zarr.json",
        "snapshots/000002/train/sum/c.0.0.0",
        f"tensors/{spec().tensors_id}/zarr.json",
        f"tensors/{spec().tensors_id}/image/zarr.json",
    ],
)
def test_flipped_bit_is_flipped_back(cache, name):
    before = (cache / name).read_bytes()
    for byte in range(3, len(before), len(before) // 3):
        flip_bit(cache / name, byte, 4)

        assert restored(cache) == [name]
        assert (cache / name).read_bytes() == before


def test_what_cannot_be_told_stays_as_it_is(cache):
    path = cache / "snapshots" / "000002" / "train" / "checksum" / "c.0.0"
    path.write_bytes(bytes(100))

    assert restored(cache) == []
    assert path.read_bytes() == bytes(100)


def test_root_points_to_the_newest_whole_snapshot(cache):
    (cache / "zarr.json").unlink()
    (layout.snapshot_dir(cache, "000002") / "train" / "sum" / "c.0.0.0").unlink()

    restored(cache)

    report = verify(cache)
    assert report.snapshot == "000001"
    assert [finding.snapshot for finding in report.findings] == ["000002"]


@pytest.mark.parametrize("length", [1, 5 * SLOTS + 1])
def test_length_that_no_array_can_have_is_that_of_its_shards(cache, length):
    path = layout.image_dir(cache, spec().tensors_id) / "zarr.json"
    before = path.read_bytes()
    path.write_bytes(before.replace(b"    12,\n", b"    %d,\n" % length, 1))

    assert restored(cache) == [f"tensors/{spec().tensors_id}/image/zarr.json"]
    assert path.read_bytes() == before


def test_length_that_numbers_may_have_been_taken_for_is_kept(cache):
    path = layout.image_dir(cache, spec().tensors_id) / "zarr.json"
    path.write_bytes(path.read_bytes().replace(b"    12,\n", b"    20,\n", 1))
    long = path.read_bytes()

    restored(cache)

    assert path.read_bytes() == long
    assert verify(cache).sound


def test_folder_in_place_of_a_file_is_left_where_it_is(cache):
    (cache / "tensors" / "zarr.json").unlink()
    (cache / "tensors" / "zarr.json").mkdir()

    assert restored(cache) == []
