"""Paths as arrays: the same as the strings they stand for."""

import os

import numpy as np
import pytest

from cache_store.manifest import split_strings
from preprocess import paths
from preprocess.paths import encode_paths, find_keys, path_keys

NAMES = ["cat/1.png", "cat/10.png", "", "dög/ü.jpg", "line\nbreak.png", "not\udcff utf-8.png", "x" * 5000, "cat/1.pnG"]


def test_paths_are_their_bytes_one_behind_the_other():
    data, ends = encode_paths(NAMES)

    assert split_strings(data, ends) == [os.fsencode(name) for name in NAMES]
    assert [len(part) for part in encode_paths([])] == [0, 0]


@pytest.mark.parametrize("block_bytes", [1, 7, 1 << 20])
def test_equal_paths_have_equal_keys_wherever_they_stand(monkeypatch, block_bytes):
    monkeypatch.setattr(paths, "_BLOCK_BYTES", block_bytes)
    keys = path_keys(*encode_paths(NAMES)).tolist()

    assert len(set(keys)) == len(NAMES)
    assert path_keys(*encode_paths(NAMES[::-1])).tolist() == keys[::-1]
    assert len(path_keys(*encode_paths([]))) == 0


def test_names_that_differ_in_one_byte_or_in_their_order_have_other_keys():
    names = [f"{a}/{b}.png" for a in range(200) for b in range(200)]

    assert len(set(path_keys(*encode_paths(names)).tolist())) == len(names)


def test_keys_are_found_where_they_are():
    known = np.array([7, 3, 9], np.uint64)

    assert find_keys(known, np.array([9, 1, 7, 3, 10], np.uint64)).tolist() == [2, -1, 0, 1, -1]
    assert find_keys(known[:0], known).tolist() == [-1, -1, -1]
    assert find_keys(known, known[:0]).tolist() == []
