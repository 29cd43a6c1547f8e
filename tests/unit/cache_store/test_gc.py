import os

from cache_store import layout, writer
from cache_store.gc import disk_usage
from cache_store.reader import open_cache
from tests.unit.cache_store.stores import SLOTS, make_cache, spec


def size_of(*paths):
    return sum(path.stat().st_size for path in paths)


def shards(cache, *numbers, dtype="float16"):
    return [layout.shard_file(cache, spec(dtype).tensors_id, number) for number in numbers]


def tables(cache, name):
    return [path for path in layout.snapshot_dir(cache, name).rglob("*") if path.is_file()]


def usage(cache, name=None):
    with open_cache(cache, name) as opened:
        return disk_usage(cache, opened.snapshot)


def test_fresh_cache_uses_all_of_its_shards_and_tables(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 2 * SLOTS + 1)

    assert usage(cache) == (size_of(*shards(cache, 0, 1, 2), *tables(cache, "000001")), 0)


def test_shards_of_former_snapshots_can_be_freed(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 2 * SLOTS)
    make_cache(cache, 3)
    make_cache(cache, 1, dtype="uint8")

    assert usage(cache, "000001") == (
        size_of(*shards(cache, 0, 1), *tables(cache, "000001")),
        size_of(*shards(cache, 2), *shards(cache, 0, dtype="uint8")),
    )
    assert usage(cache) == (
        size_of(*shards(cache, 0, dtype="uint8"), *tables(cache, "000003")),
        size_of(*shards(cache, 0, 1, 2)),
    )


def test_shard_of_which_one_slot_is_used_is_used(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 2 * SLOTS)
    with open_cache(cache) as opened:
        table = opened.split("train")
        columns = {name: table[name] for name in table.columns} | {"slot": table["slot"][:1]}
        opened.snapshot.splits["train"] = type(table)(table.tensors_id, (), (), 0, (), columns)

        used, other = disk_usage(cache, opened.snapshot)

    assert used == size_of(*shards(cache, 0), *tables(cache, "000001"))
    assert other == size_of(*shards(cache, 1))


def test_empty_snapshot_and_unfinished_tensors_are_counted_without_harm(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 0)
    os.makedirs(cache / "tensors" / ("ab" * 16) / "image")
    (layout.image_dir(cache, spec().tensors_id) / "notes.txt").write_bytes(b"not a shard")

    assert usage(cache) == (size_of(*tables(cache, "000001")), 0)


def test_damage_in_former_tensors_does_not_keep_a_build_from_reporting(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 3, dtype="uint8")
    make_cache(cache, 3)
    (layout.image_dir(cache, spec("uint8").tensors_id) / "zarr.json").write_bytes(b"{")

    assert usage(cache)[1] == size_of(*shards(cache, 0, dtype="uint8"))


def test_pending_shards_are_not_counted(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 1)
    before = usage(cache)
    (writer.begin(cache) / "1-0.shard").write_bytes(bytes(1000))

    assert usage(cache) == before
