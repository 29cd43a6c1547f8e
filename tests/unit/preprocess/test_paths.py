"""Paths as arrays: the same as the strings they stand for."""

import os
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_store.manifest import split_strings
from preprocess import paths
from preprocess.paths import Paths, by_checksum, find_keys, path_keys

NAMES = ["cat/1.png", "cat/10.png", "", "dög/ü.jpg", "line\nbreak.png", "not\udcff utf-8.png", "x" * 5000, "cat/1.pnG"]


def keys_of(names):
    paths = Paths(names)
    return path_keys(paths.data, paths.ends)


def test_paths_are_their_bytes_one_behind_the_other():
    paths = Paths(NAMES)

    assert split_strings(paths.data, paths.ends) == [os.fsencode(name) for name in NAMES]
    assert (len(paths), list(paths), paths[-1], paths[1]) == (len(NAMES), NAMES, NAMES[-1], NAMES[1])
    assert [paths.encoded(number) for number in range(len(paths))] == [os.fsencode(name) for name in NAMES]
    with pytest.raises(IndexError):
        paths[len(NAMES)]


def test_no_paths():
    for empty in (Paths(), Paths([]), Paths.joined([]), Paths(NAMES)[:0], Paths(NAMES).take(np.zeros(0, np.int64))):
        assert (list(empty), len(empty.data), len(empty.ends)) == ([], 0, 0)


@given(st.lists(st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), max_size=5)), st.data())
def test_joined_cut_and_chosen_paths_are_those_of_lists(names, data):
    cut = data.draw(st.integers(0, len(names)))
    paths = Paths.joined([Paths(names[:cut]), Paths(names[cut:])])
    chosen = data.draw(st.lists(st.integers(0, len(names) - 1))) if names else []

    assert list(paths) == names
    assert paths == names
    assert paths != [*names, "x"]
    assert list(paths[:cut]) == names[:cut]
    assert list(paths[cut:]) == names[cut:]
    assert list(paths.take(np.array(chosen, np.int64))) == [names[number] for number in chosen]


def test_paths_by_checksum_and_equal_checksums_by_name():
    names = [f"{number}.png" for number in range(500)] + ["codding", "plumless", "gnu", "exhibiters", "schlager"]
    assert zlib.crc32(b"codding") == zlib.crc32(b"gnu")
    assert zlib.crc32(b"exhibiters") == zlib.crc32(b"schlager")

    order = by_checksum(Paths(names))

    assert [names[number] for number in order] == sorted(names, key=lambda name: (zlib.crc32(name.encode()), name))
    assert [names[::-1][number] for number in by_checksum(Paths(names[::-1]))] == [names[number] for number in order]
    assert len(by_checksum(Paths())) == 0


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
def test_equal_paths_have_equal_keys_wherever_they_stand(monkeypatch, block_bytes):
    monkeypatch.setattr(paths, "_BLOCK_BYTES", block_bytes)
    keys = keys_of(NAMES).tolist()

    assert len(set(keys)) == len(NAMES)
    assert keys_of(NAMES[::-1]).tolist() == keys[::-1]
    assert len(keys_of([])) == 0


def test_names_that_differ_in_one_byte_or_in_their_order_have_other_keys():
    names = [f"{a}/{b}.png" for a in range(200) for b in range(200)]

    assert len(set(keys_of(names).tolist())) == len(names)


def test_keys_are_found_where_they_are():
    known = np.array([7, 3, 9], np.uint64)

    assert find_keys(known, np.array([9, 1, 7, 3, 10], np.uint64)).tolist() == [2, -1, 0, 1, -1]
    assert find_keys(known[:0], known).tolist() == [-1, -1, -1]
    assert find_keys(known, known[:0]).tolist() == []
