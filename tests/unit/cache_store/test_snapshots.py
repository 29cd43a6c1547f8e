"""The history of a cache, and stepping back in it."""

import itertools
import json
import shutil

import pytest

from cache_store import layout
from cache_store.errors import IntegrityError, LockedError, NotFoundError
from cache_store.gc import collect_garbage
from cache_store.lock import BuildersLock
from cache_store.reader import open_cache, read_root
from cache_store.snapshots import history, history_as_json, rollback
from cache_store.verify import verify
from tests.unit.cache_store.stores import SLOTS, contents, flip_bit, killed_at, make_cache, spec, tensor


@pytest.fixture
def cache(tmp_path):
    for samples in (2, 3, 1):
        make_cache(tmp_path / "cache", samples)
    return tmp_path / "cache"


def test_history_lists_snapshots_newest_first(cache):
    entries = history(cache)

    assert [(e.name, e.current, e.parent, e.samples) for e in entries] == [
        ("000003", True, "000002", {"train": 1}),
        ("000002", False, "000001", {"train": 3}),
        ("000001", False, None, {"train": 2}),
    ]
    assert str(entries[0]) == "* 000003  2024-01-02T03:04:05Z  train 1, 2 classes, 1 failed, after 000002"
    assert [entry["name"] for entry in json.loads(history_as_json(entries))] == ["000003", "000002", "000001"]


def test_history_names_a_damaged_snapshot_and_goes_on(cache):
    flip_bit(layout.snapshot_dir(cache, "000002") / "train" / "zarr.json")

    assert [bool(entry.damage) for entry in history(cache)] == [False, True, False]


def test_step_back_and_forth(cache):
    assert rollback(cache, "000001") == ("000003", "000001")
    with open_cache(cache) as opened:
        assert opened.snapshot.name == "000001"
        assert opened.image("train", 1).tobytes() == tensor(1).tobytes()
    assert read_root(cache).last == 3
    assert verify(cache).sound

    assert rollback(cache, "000002") == ("000001", "000002")
    assert rollback(cache, "000003") == ("000002", "000003")
    assert verify(cache).sound
    assert read_root(cache).former == {}


def test_copy_without_pending_can_be_stepped_back(cache):
    shutil.rmtree(cache / "pending")

    assert rollback(cache, "000002") == ("000003", "000002")


def test_step_to_where_it_is_changes_nothing(cache):
    before = contents(cache / "snapshots"), (cache / "zarr.json").read_bytes()

    assert rollback(cache, "000003") == ("000003", "000003")

    assert (contents(cache / "snapshots"), (cache / "zarr.json").read_bytes()) == before


def test_next_build_goes_on_from_there_under_a_new_number(cache):
    rollback(cache, "000001")
    make_cache(cache, SLOTS)

    assert [(e.name, e.current, e.parent) for e in history(cache)] == [
        ("000004", True, "000001"),
        ("000003", False, "000002"),
        ("000002", False, "000001"),
        ("000001", False, None),
    ]
    assert verify(cache).sound


@pytest.mark.parametrize("left", ["000003", "000002"])
def test_what_was_left_behind_is_still_vouched_for(cache, left):
    rollback(cache, "000001")
    make_cache(cache, SLOTS)
    own = layout.snapshot_dir(cache, left) / "zarr.json"
    own.write_bytes(own.read_bytes().replace(b"2024-", b"2025-"))  # as good as before, to whom does not know

    assert [finding.file for finding in verify(cache).findings] == [f"snapshots/{left}/zarr.json"]


@pytest.mark.parametrize("name", ["000004", "1", "../000001", ""])
def test_snapshots_that_are_not_there_are_named(cache, name):
    with pytest.raises(NotFoundError, match="there are: 000001, 000002, 000003"):
        rollback(cache, name)


@pytest.mark.parametrize("file", ["zarr.json", "train/zarr.json", "train/inode/c.0"])
def test_damaged_snapshot_is_not_stepped_to(cache, file):
    flip_bit(layout.snapshot_dir(cache, "000002") / file, 30 if file.endswith("json") else 3)

    with pytest.raises(IntegrityError):
        rollback(cache, "000002")
    assert read_root(cache).snapshot == "000003"


def test_snapshot_without_its_tensors_is_not_stepped_to(cache):
    shutil.rmtree(layout.tensors_dir(cache, spec().tensors_id))

    with pytest.raises(IntegrityError):
        rollback(cache, "000002")


def test_two_never_work_at_once(cache):
    with BuildersLock(cache), pytest.raises(LockedError):
        rollback(cache, "000001")


def test_killed_at_any_system_call_one_or_the_other_is_in_force(cache):
    seen = []
    for number in itertools.count():
        killed = killed_at(number, lambda: rollback(cache, "000001"))
        seen.append(read_root(cache).snapshot)
        assert verify(cache).sound
        rollback(cache, "000003")
        if not killed:
            break
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {"000001", "000003"}


@pytest.mark.parametrize("command", [lambda cache: rollback(cache, "000002"), collect_garbage], ids=["rollback", "gc"])
def test_a_copy_without_pending_is_sound_after_a_command_that_needs_it(cache, command):
    shutil.rmtree(layout.pending_dir(cache))

    command(cache)

    assert layout.pending_dir(cache).is_dir()
    assert verify(cache).sound
