"""File names by the million as two arrays, and which of them are the same as others; no Python object for each."""

import itertools
import os
import secrets
from collections.abc import Sequence

import numpy as np

_BLOCK_BYTES = 1 << 20
_RANDOM = np.random.default_rng(secrets.randbits(64))


def encode_paths(paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """All paths as bytes one behind the other, and where each ends: uint8 (bytes,), int64 (n,)."""
    if not paths:
        return np.zeros(0, np.uint8), np.zeros(0, np.int64)
    data = np.frombuffer(os.fsencode("\0".join(paths) + "\0"), np.uint8)  # the one byte that no name has
    stops = np.flatnonzero(data == 0)
    return data[data != 0], stops - np.arange(len(stops))


def path_keys(data: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """A number for each path, equal for equal paths: uint64 (n,).

    Two different ones of n paths agree with a probability below n² / 2**63, whoever chose the names: the weights of
    the bytes are drawn anew in each process.
    """
    keys = np.zeros(len(ends), np.uint64)
    starts = np.concatenate([[0], ends[:-1]])
    lengths = ends - starts
    weights = _weights(int(lengths.max(initial=0)))
    cuts = [0, *np.searchsorted(ends, np.arange(_BLOCK_BYTES, len(data), _BLOCK_BYTES)).tolist(), len(ends)]
    for first, last in itertools.pairwise(cuts):
        if first == last:
            continue
        begin, end = int(starts[first]), int(ends[last - 1])
        block_starts = starts[first:last] - begin
        place = np.arange(end - begin) - np.repeat(block_starts, lengths[first:last])
        terms = (data[begin:end].astype(np.uint64) + np.uint64(1)) * weights[place]
        filled = lengths[first:last] > 0
        keys[first:last][filled] = np.add.reduceat(terms, block_starts[filled]) if filled.any() else 0
    return keys


def _weights(count: int) -> np.ndarray:
    """The first so many weights; always the same ones within a process."""
    global _drawn  # noqa: PLW0603
    while len(_drawn) < count:
        _drawn = np.concatenate([_drawn, _RANDOM.integers(0, 1 << 64, 4096, np.uint64) | np.uint64(1)])
    return _drawn


_drawn = np.zeros(0, np.uint64)


def find_keys(known: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """For each asked key its place among the known ones, -1 if it is none of them: int64 (n,)."""
    if not len(known) or not len(asked):
        return np.full(len(asked), -1, np.int64)
    order = np.argsort(known, kind="stable")
    place = order[np.minimum(np.searchsorted(known, asked, sorter=order), len(known) - 1)]
    return np.where(known[place] == asked, place, -1)
