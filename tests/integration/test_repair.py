"""Whatever is damaged comes back bit for bit where the source is unchanged, and is named where it is not."""

import itertools
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from cache_store import layout
from cache_store.errors import LockedError, NotFoundError
from cache_store.gc import collect_garbage
from cache_store.lock import BuildersLock
from cache_store.reader import read_root
from cache_store.verify import verify
from preprocess import repair
from preprocess.builder import build
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import SHARDS_OF_FOUR, assert_as_rendered
from tests.unit.cache_store.stores import flip_bit, killed_at

CHUNK = 3 * 8 * 8 * 2
RECIPE = TINY | {
    "splits": {
        "train": {
            "folder": ".",
            "variants": 2,
            "transforms": [{"Resize": {"height": 8, "width": 8}}, {"HorizontalFlip": {"p": 0.5}}],
        }
    }
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photos, and a cache of two snapshots of them."""
    root = tmp_path_factory.mktemp("repair")
    image_folder(root / "photos")
    build(root / "photos", root / "cache", RECIPE, workers=1, shard_mib=SHARDS_OF_FOUR)
    (root / "photos" / "cat" / "bad.png").write_bytes(b"x")
    write_image(root / "photos" / "dog" / "new.png", 99)
    build(root / "photos", root / "cache", workers=1)
    assert len(list((root / "cache").glob("tensors/*/image/c.*"))) == 5
    return root


@pytest.fixture
def place(made, tmp_path):
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


def committed(cache: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(cache)): path.read_bytes()
        for path in sorted(cache.rglob("*"))
        if path.is_file() and path.parent.name != "pending"
    }


def shard(cache, number):
    (tensors,) = [entry.name for entry in (cache / "tensors").iterdir() if entry.is_dir()]
    return layout.shard_file(cache, tensors, number)


def assert_mended(place, before):
    report = repair(place / "photos", place / "cache")
    assert report.exit_code == 0, str(report)
    assert committed(place / "cache") == before
    assert sorted(os.listdir(place / "cache" / "pending")) == ["lock", "source", "zarr.json"]
    return report


def test_nothing_to_do(place):
    before = committed(place / "cache")

    report = assert_mended(place, before)

    assert report.files == []
    assert str(report) == f"{place / 'cache'} is sound: nothing to repair"


def test_each_metadata_file_and_shard_comes_back_whichever_is_lost(place):
    """But for those that say of a snapshot what nothing else does."""
    cache = place / "cache"
    before = committed(cache)
    lost = [name for name in before if name.endswith("zarr.json") or "/image/c." in name]
    own = [f"snapshots/{number}{split}/zarr.json" for number in ("000001", "000002") for split in ("", "/train")]
    lost = [name for name in lost if name not in own]
    for name in lost:
        (cache / name).unlink()
    for name in lost:  # one by one
        for other in lost:
            if other != name:
                (cache / other).write_bytes(before[other])
        (cache / name).unlink(missing_ok=True)
        assert name in assert_mended(place, before).files
    assert_as_rendered(cache, place / "photos")


def test_every_flipped_bit_is_mended(place):
    cache = place / "cache"
    before = committed(cache)
    names, rng = [name for name in before if before[name]], random.Random(1)
    for turn in range(300):
        name = names[turn % len(names)] if turn < len(names) else rng.choice(names)
        flip_bit(cache / name, rng.randrange(len(before[name])), rng.randrange(8))
        assert name in assert_mended(place, before).files


def test_two_lost_shards_a_flipped_chunk_and_the_root_at_once(place):
    cache = place / "cache"
    before = committed(cache)
    shard(cache, 0).unlink()
    shard(cache, 1).write_bytes(b"")
    flip_bit(shard(cache, 2), CHUNK + 9)
    (cache / "zarr.json").write_bytes(b"{")
    (cache / "tensors" / "zarr.json").unlink()

    report = assert_mended(place, before)

    assert report.rendered == 4 + 4 + 1


def test_source_is_found_by_the_hint(place):
    before = committed(place / "cache")
    flip_bit(shard(place / "cache", 0), 5)

    assert repair(None, place / "cache").exit_code == 0
    assert committed(place / "cache") == before


def test_only_what_is_damaged_is_rendered(place):
    before = committed(place / "cache")
    flip_bit(shard(place / "cache", 0), 5)

    report = assert_mended(place, before)

    assert (report.rendered, len(report.files)) == (1, 1)


@pytest.mark.parametrize("what", ["files", "chunks"])
def test_swapped_chunks_come_back_without_a_source(place, what):
    cache = place / "cache"
    before = committed(cache)
    if what == "files":
        shard(cache, 0).rename(cache / "aside")
        shard(cache, 1).rename(shard(cache, 0))
        (cache / "aside").rename(shard(cache, 1))
    else:
        data = bytearray(shard(cache, 0).read_bytes())
        size = CHUNK + 4
        data[:size], data[size : 2 * size] = data[size : 2 * size], data[:size]
        shard(cache, 0).write_bytes(data)
    shutil.rmtree(place / "photos")

    report = repair(None, cache)

    assert (report.exit_code, report.rendered) == (0, 0)
    assert committed(cache) == before


def test_damaged_index_is_computed_again_without_rendering(place):
    cache = place / "cache"
    before = committed(cache)
    flip_bit(shard(cache, 3), -10)

    report = assert_mended(place, before)

    assert (report.rendered, report.salvaged) == (0, 4)


def test_slack_is_taken_out(place):
    before = committed(place / "cache")
    data = shard(place / "cache", 0).read_bytes()
    shard(place / "cache", 0).write_bytes(data[: -4 * 16 - 4] + b"slack" + data[-4 * 16 - 4 :])

    assert assert_mended(place, before).rendered == 0


def test_renamed_source_is_found_under_the_name_that_any_snapshot_has(place):
    (place / "photos" / "cat" / "000.png").rename(place / "photos" / "cat" / "a.png")
    build(place / "photos", place / "cache", workers=1)
    before = committed(place / "cache")
    for number in range(5):
        shard(place / "cache", number).unlink()

    assert_mended(place, before)


def test_changed_and_missing_sources_are_named_and_the_rest_is_mended(place):
    cache = place / "cache"
    write_image(place / "photos" / "cat" / "000.png", 4711)
    (place / "photos" / "dog" / "001.png").unlink()
    shard(cache, 0).unlink()
    shard(cache, 1).unlink()
    shard(cache, 2).unlink()
    shard(cache, 3).unlink()

    report = repair(place / "photos", cache)

    assert report.exit_code == 6
    assert report.rendered == 16 - 4
    text = str(report)
    assert "'cat/000.png'" in text
    assert "'dog/001.png'" in text
    assert "SOURCE has no file of this content any more" in text
    lost = {sample.path for finding in verify(cache).findings for sample in finding.samples}
    assert lost == {"cat/000.png", "dog/001.png"}
    assert build(place / "photos", cache, workers=1).snapshot == "000003"  # goes on, and needs none of them
    assert_as_rendered(cache, place / "photos")


def test_other_pixels_are_refused_and_the_damaged_ones_kept(place, monkeypatch):
    cache = place / "cache"
    flip_bit(shard(cache, 0), 5)
    damaged = committed(cache)
    monkeypatch.setattr("preprocess.environment.versions", lambda engine: {"opencv": "9.9"})

    report = repair(place / "photos", cache, decoder="tests.integration.test_repair:upside_down")

    assert report.exit_code == 6
    assert "than the one that filled the cache; changed: opencv" in str(report)
    assert "repair in the former environment, or build with --rerender" in str(report)
    assert committed(cache) == damaged


def upside_down(data, **settings):
    from preprocess.decode import decode

    decoded = decode(data, **settings)
    decoded.image[:] = decoded.image[::-1].copy()
    return decoded


def test_table_that_cannot_be_brought_back_is_built_anew(place):
    cache = place / "cache"
    before = read_root(cache)
    path = layout.snapshot_dir(cache, "000002") / "train" / "sum" / "c.0.0.0"
    path.write_bytes(bytes(path.stat().st_size))

    report = repair(place / "photos", cache)

    assert (report.given_up, report.in_force, report.rebuilt) == ("000002", "000001", "000003")
    assert read_root(cache).last == before.last + 1
    assert_as_rendered(cache, place / "photos")
    assert report.exit_code == 0, str(report)
    assert "snapshot 000002 could not be brought back: 000001 was put in force, and 000003 was built" in str(report)
    assert verify(cache).sound
    assert verify(cache).snapshots == ("000001", "000003")


def test_lost_snapshot_stays_in_force_if_no_other_can_be_built(place, monkeypatch):
    cache = place / "cache"
    path = layout.snapshot_dir(cache, "000002") / "train" / "sum" / "c.0.0.0"
    path.write_bytes(bytes(path.stat().st_size))
    before = committed(cache)
    shutil.rmtree(place / "photos" / "cat")
    shutil.rmtree(place / "photos" / "dog")

    report = repair(place / "photos", cache)

    assert report.exit_code == 6
    assert "a new snapshot in place of 000002 could not be built" in str(report)
    assert committed(cache) == before


def test_table_of_a_former_snapshot_that_cannot_be_brought_back_is_left_to_gc(place):
    path = layout.snapshot_dir(place / "cache", "000001") / "train" / "sum" / "c.0.0.0"
    path.write_bytes(bytes(path.stat().st_size))

    report = repair(place / "photos", place / "cache")

    assert report.exit_code == 6
    assert "tables of 000001 cannot be brought back, nothing needs them: decant gc CACHE" in str(report)
    collect_garbage(place / "cache")
    assert verify(place / "cache").sound


def test_only_snapshot_that_cannot_be_brought_back_is_built_anew_with_its_statistics(tmp_path):
    image_folder(tmp_path / "photos")
    former = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)
    path = layout.snapshot_dir(tmp_path / "cache", "000001") / "train" / "slot" / "c.0.0"
    path.write_bytes(bytes(path.stat().st_size))

    report = repair(tmp_path / "photos", tmp_path / "cache")

    assert (report.given_up, report.in_force, report.rebuilt) == ("000001", None, "000002")
    now = build(tmp_path / "photos", tmp_path / "cache", workers=1)
    assert (now.mean, now.std) == (former.mean, former.std)
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_foreign_files_are_left_alone_and_said(place):
    (place / "cache" / "notes.txt").write_bytes(b"mine")

    report = repair(place / "photos", place / "cache")

    assert report.exit_code == 6
    assert "files that are not ours are left alone" in str(report)
    assert json.loads(report.to_json())["mended"] is False
    assert (place / "cache" / "notes.txt").read_bytes() == b"mine"


def test_what_is_no_cache_stays_untouched(place):
    with pytest.raises(NotFoundError):
        repair(None, place / "photos")
    assert sorted(os.listdir(place / "photos")) == ["cat", "dog"]


def test_two_never_work_at_once(place):
    with BuildersLock(place / "cache"), pytest.raises(LockedError):
        repair(place / "photos", place / "cache")


def test_killed_at_any_system_call_it_goes_on_the_next_time(place):
    cache = place / "cache"
    before = committed(cache)
    for number in itertools.count():
        shard(cache, 0).unlink()
        flip_bit(shard(cache, 1), 5)
        (cache / "tensors" / "zarr.json").unlink()
        killed = killed_at(number, lambda: repair(place / "photos", cache))
        files = set(committed(cache)) - set(before)
        assert files == set()  # nothing half made among what is committed
        assert_mended(place, before)
        if not killed:
            break
    assert number > 10
