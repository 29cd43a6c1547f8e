"""File names by the million as two arrays, and which of them are the same as others; no Python object for each."""

import itertools
import os
import secrets
import zlib
from collections.abc import Sequence
from typing import Any, SupportsIndex, overload

import numpy as np

_BLOCK_BYTES = 1 << 20
_RANDOM = np.random.default_rng(secrets.randbits(64))


class Paths(Sequence[str]):
    """File names in order; a str is made only of those that are asked for.

    Attributes
    ----------
    data : uint8 (bytes,), all of them one behind the other
    ends : int64 (n,), where each ends
    """

    def __init__(self, names: Sequence[str] = ()) -> None:
        data = np.frombuffer(os.fsencode("\0".join(names) + "\0"), np.uint8)  # the one byte that no name has
        stops = np.flatnonzero(data == 0)[: len(names)]
        self.data, self.ends = data[data != 0], stops - np.arange(len(stops))

    @staticmethod
    def of(data: np.ndarray, ends: np.ndarray) -> "Paths":
        """Names that are encoded already."""
        paths = Paths()
        paths.data, paths.ends = data, ends
        return paths

    @staticmethod
    def joined(parts: Sequence["Paths"]) -> "Paths":
        """One run of names behind the other."""
        starts = np.cumsum([0, *(len(part.data) for part in parts)])
        data = np.concatenate([np.zeros(0, np.uint8), *(part.data for part in parts)])
        ends = [part.ends + start for part, start in zip(parts, starts)]
        return Paths.of(data, np.concatenate([np.zeros(0, np.int64), *ends]))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Paths": ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return os.fsdecode(self.encoded(range(len(self))[index]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def encoded(self, number: int) -> bytes:
        """One of them as the bytes that the system has."""
        return self.data[int(self.ends[number - 1]) if number else 0 : int(self.ends[number])].tobytes()

    def take(self, numbers: np.ndarray) -> "Paths":
        """Some of them, in the order of `numbers`; a view if they follow each other."""
        if not len(numbers):
            return Paths()
        starts = np.concatenate([[0], self.ends[:-1]])[numbers]
        ends = self.ends[numbers]
        if numbers[-1] - numbers[0] + 1 == len(numbers) and (np.diff(numbers) == 1).all():
            return Paths.of(self.data[starts[0] : ends[-1]], ends - starts[0])
        lengths = ends - starts
        new_ends = np.cumsum(lengths)
        return Paths.of(self.data[np.arange(new_ends[-1]) + np.repeat(starts - new_ends + lengths, lengths)], new_ends)


def by_checksum(paths: Paths) -> np.ndarray:
    """Numbers of the paths in the order of their CRC-32, equal ones in the order of the paths: int64 (n,)."""
    data, ends = memoryview(np.ascontiguousarray(paths.data)), paths.ends.tolist()
    starts = itertools.chain([0], ends)
    checksums = np.fromiter((zlib.crc32(data[a:b]) for a, b in zip(starts, ends)), np.uint32, len(paths))
    order = np.argsort(checksums, kind="stable")
    equal = np.flatnonzero(np.diff(checksums[order]) == 0)
    for run in np.split(equal, np.flatnonzero(np.diff(equal) > 1) + 1) if len(equal) else ():
        part = slice(run[0], run[-1] + 2)
        order[part] = sorted(order[part].tolist(), key=paths.encoded)
    return order


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
