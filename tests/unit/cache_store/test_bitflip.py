import random

import pytest

from cache_store.bitflip import by_checksum, by_trial
from cache_store.shard import checksum


def flipped(data, place, bit):
    return data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]


def with_checksum(data):
    return data + checksum(data).to_bytes(4, "little")


@pytest.mark.parametrize("size", [1, 2, 63, 1000])
def test_every_flipped_bit_is_found_by_the_checksum(size):
    stored = with_checksum(random.Random(size).randbytes(size))

    for place in range(len(stored)):
        for bit in range(0, 8, 1 if size < 100 else 7):
            assert by_checksum(flipped(stored, place, bit)) == stored


def test_flipped_bit_in_a_large_table_is_found():
    stored = with_checksum(random.Random(0).randbytes(100_000))

    assert by_checksum(flipped(stored, 3, 5)) == stored


@pytest.mark.parametrize("stored", [b"", b"abc", b"abcd"])
def test_what_holds_no_data_is_beyond_help(stored):
    assert by_checksum(stored) is None


def test_two_flipped_bits_are_none():
    stored = with_checksum(bytes(50))

    assert by_checksum(flipped(flipped(stored, 3, 1), 30, 2)) is None
    assert by_trial(b"ab", lambda data: data == b"cc") is None


def test_what_is_too_long_is_not_tried():
    assert by_trial(b"a" * 4, lambda data: data == b"aaca") == b"aaca"
    assert by_trial(b"a" * 20_000, lambda data: True) is None
