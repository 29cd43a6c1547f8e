"""One shard: healthy, and in every way not so; the window may be smaller than a chunk, or hold many."""

import errno
import os

import numpy as np
import pytest

from cache_store import shard_check
from cache_store.errors import StorageError
from cache_store.shard import ShardWriter, checksum
from cache_store.shard_check import _checksums_of_sound_rows, check_shard
from tests.unit.cache_store.stores import flip_bit

SLOTS, CHUNK, FILLED = 5, 96, 3


@pytest.fixture(params=[7, 250, 1 << 22], ids=["pieces", "two chunks", "all"])
def shard(tmp_path, request, monkeypatch):
    """A shard of which three of five slots are filled, and what is expected of them."""
    monkeypatch.setattr(shard_check, "_WINDOW_BYTES", request.param)
    rng = np.random.default_rng(0)
    with ShardWriter(tmp_path / "shard", SLOTS, CHUNK) as file:
        checksums = [file.append(rng.integers(0, 256, CHUNK, np.uint8)) for _ in range(FILLED)]
    return tmp_path / "shard", np.array(checksums, np.uint32)


def check(shard, places=(0, 1, 2), checksums=None, count=lambda read_bytes: None):
    path, known = shard
    wanted = known[list(places)] if checksums is None else checksums
    return check_shard(path, SLOTS, CHUNK, np.array(places, np.int64), np.array(wanted, np.uint32), count)


def test_healthy_shard_is_read_once_and_whole(shard):
    counted = []
    state = check(shard, count=counted.append)

    assert (state.problems, state.lost) == ([], [])
    assert state.sound == {0: 0, 1: CHUNK + 4, 2: 2 * (CHUNK + 4)}
    assert sum(counted) == shard[0].stat().st_size


@pytest.mark.parametrize("place", range(FILLED))
@pytest.mark.parametrize("byte", [0, CHUNK - 1, CHUNK, CHUNK + 3])
def test_flipped_bit_loses_its_chunk_alone(shard, place, byte):
    flip_bit(shard[0], place * (CHUNK + 4) + byte)

    state = check(shard)

    assert len(state.problems) == 1
    assert state.lost == [place]
    assert sorted(state.sound) == [n for n in range(FILLED) if n != place]


def test_damage_in_a_chunk_that_nobody_needs_is_found_too(shard):
    flip_bit(shard[0], 5)

    state = check(shard, (1, 2))

    assert len(state.problems) == 1
    assert state.lost == []


def test_missing_chunk_is_lost(shard):
    state = check(shard, (0, 3), [shard[1][0], 5])

    assert state.problems == ["1 of 5 chunks are missing (places 3)"]
    assert state.lost == [3]


def test_slot_of_which_two_checksums_are_expected_is_lost(shard):
    state = check(shard, (1, 1), [shard[1][1], shard[1][1] ^ 1])

    assert state.lost == [1]


def test_damaged_index_loses_all(shard):
    flip_bit(shard[0], -9)

    state = check(shard)

    assert len(state.problems) == 1
    assert (state.lost, state.sound) == ([0, 1, 2], {})


def test_file_that_is_missing_matters_only_to_who_needs_it(tmp_path):
    assert check((tmp_path / "none", np.array([1, 2, 3]))).problems == ["missing"]
    assert check((tmp_path / "none", np.zeros(0)), ()).problems == []


def test_failing_medium_is_damage_and_a_refusal_is_not(shard, monkeypatch):
    real = os.preadv

    def preadv(fd, buffers, offset):
        if offset < CHUNK <= offset + len(buffers[0]) or offset == 0:
            raise OSError(errno.EIO, "Input/output error")
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    state = check(shard)
    assert state.problems
    assert 0 in state.lost

    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StorageError):
        check(shard)


@pytest.mark.parametrize("stride", [5, 8, 129])
def test_sound_rows_have_one_checksum_whatever_they_hold(stride):
    if_sound = _checksums_of_sound_rows(40, stride)
    rows = np.random.default_rng(stride).integers(0, 256, (40, stride), dtype=np.uint8)
    for row in rows:
        row[-4:] = np.frombuffer(checksum(row[:-4]).to_bytes(4, "little"), np.uint8)

    assert [checksum(rows[:count]) if count else 0 for count in range(41)] == if_sound
    rows[17, stride // 2] ^= 4
    assert checksum(rows) != if_sound[-1]
