"""One shard file against itself and against what the snapshots expect of it; every byte of it is read.

Memory: the index and one window, whatever the file claims to be.
"""

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import google_crc32c
import numpy as np

from cache_store.errors import IntegrityError
from cache_store.shard import CHECKSUM_BYTES, index_bytes, read_index
from cache_store.wary import RegularFile, Unreadable

_WINDOW_BYTES = 4 << 20
_SHOWN = 4


@dataclass(slots=True)
class ShardState:
    """What one shard file is like.

    Attributes
    ----------
    problems : a line each; none: every byte is accounted for and right
    lost : places in the shard that a snapshot needs and that do not hold what it expects
    sound : place -> offset of each chunk that can be kept
    unsound : place -> offset of each other chunk that the index has
    """

    problems: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)
    sound: dict[int, int] = field(default_factory=dict)
    unsound: dict[int, int] = field(default_factory=dict)


def check_shard(
    path: Path,
    slots: int,
    chunk_bytes: int,
    places: np.ndarray,
    checksums: np.ndarray,
    count: Callable[[int], None] = lambda read_bytes: None,
) -> ShardState:
    """Read a whole shard.

    Parameters
    ----------
    slots, chunk_bytes : S, and the size of a chunk without its checksum
    places : int64 (n,), ascending: places in the shard that snapshots need; a place may come twice
    checksums : uint32 (n,), what the chunk in each has to be
    count : told of the bytes as they are read

    Raises
    ------
    StorageError : the system refused to read it
    """
    state = ShardState()
    needed = sorted(set(places.tolist()))
    try:
        with RegularFile(path) as file:
            _check(file, state, slots, chunk_bytes, places, checksums, count)
    except Unreadable as error:
        if needed or path.exists():  # otherwise gc was faster, and nobody minds
            state.problems.append(str(error))
    except IntegrityError as error:
        state.problems.append(str(error).removeprefix(": "))
    state.lost = [place for place in needed if place not in state.sound]
    return state


def _check(
    file: RegularFile,
    state: ShardState,
    slots: int,
    chunk_bytes: int,
    places: np.ndarray,
    checksums: np.ndarray,
    count: Callable[[int], None],
) -> None:
    tail = np.empty(min(index_bytes(slots), file.size_bytes), np.uint8)
    file.read_into(tail, file.size_bytes - len(tail))
    count(len(tail))
    offsets = read_index(tail.tobytes(), file.size_bytes, slots, chunk_bytes, "")
    present = np.flatnonzero(offsets >= 0)
    present = present[np.argsort(offsets[present], kind="stable")]
    stride, body = chunk_bytes + CHECKSUM_BYTES, file.size_bytes - len(tail)
    tiled = body == len(present) * stride and np.array_equal(offsets[present], np.arange(len(present)) * stride)
    if not tiled:
        state.problems.append(f"its {len(present)} chunks do not fill the {body} bytes before the index one by one")
    values = None
    if tiled and stride <= _WINDOW_BYTES:
        with contextlib.suppress(Unreadable):  # a failing medium: then find out where it does
            values = _in_rows(file, len(present), stride, count)
    if values is None:
        values = _one_by_one(file, body, offsets[present], chunk_bytes, count)
    found, stored = values
    torn = found != stored
    in_place = np.full(slots, -1, np.int64)
    in_place[present] = found
    there = offsets[places] >= 0
    unlike = np.zeros(slots, bool)
    unlike[places[there & (in_place[places] != checksums)]] = True
    other = unlike[present] & ~torn
    for good, where in ((~torn & ~other, state.sound), (torn | other, state.unsound)):
        where.update(zip(present[good].tolist(), offsets[present[good]].tolist()))
    for lost, what in (
        (present[torn], "do not have the checksum that is written beside them"),
        (present[other], "are not the ones that the snapshots expect there"),
        (np.unique(places[~there]), "are missing"),
    ):
        if len(lost):
            shown = ", ".join(map(str, np.sort(lost)[:_SHOWN].tolist())) + (", …" if len(lost) > _SHOWN else "")
            state.problems.append(f"{len(lost)} of {slots} chunks {what} (places {shown})")


def _in_rows(
    file: RegularFile, chunks: int, stride: int, count: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """Checksums of chunks that lie one behind the other, as computed and as written beside them: int64 (chunks,)."""
    found, stored = np.empty(chunks, np.int64), np.empty(chunks, np.int64)
    at_once = _WINDOW_BYTES // stride
    window = np.empty((min(at_once, chunks), stride), np.uint8)
    if_sound = _checksums_of_sound_rows(min(at_once, chunks), stride)
    for start in range(0, chunks, at_once):
        rows = window[: min(at_once, chunks - start)]
        file.read_into(rows.reshape(-1), start * stride)
        count(rows.size)
        end = start + len(rows)
        stored[start:end] = rows[:, -CHECKSUM_BYTES:].copy().view("<u4")[:, 0]
        if google_crc32c.value(rows.reshape(-1)) == if_sound[len(rows)]:
            found[start:end] = stored[start:end]
        else:  # some are not: which?
            found[start:end] = [google_crc32c.value(row) for row in rows[:, :-CHECKSUM_BYTES]]
    return found, stored


@functools.lru_cache(maxsize=8)
def _checksums_of_sound_rows(count: int, stride: int) -> list[int]:
    """CRC32C over 0, 1, … `count` rows of `stride` bytes, each of them data followed by their own CRC32C.

    It is the same whatever the data are. One call then tells that thousands of small chunks are sound, where a call for
    each would cost as much as summing up its bytes.

    Bytes followed by their CRC have a CRC that does not depend on them (the residue), and CRCs are affine: with s
    after some rows, the next row m gives crc(s, m) = crc(s, 0) ^ crc(0, 0) ^ crc(0, m), 0 in place of m being as many
    zero bytes (Williams, "A painless guide to CRC error detection algorithms", 1993).
    """
    zeros = bytes(stride)
    data = zeros[CHECKSUM_BYTES:]
    residue = google_crc32c.value(data + google_crc32c.value(data).to_bytes(CHECKSUM_BYTES, "little"))
    values, of_zeros = [0], google_crc32c.value(zeros)
    for _ in range(count):
        values.append(google_crc32c.extend(values[-1], zeros) ^ of_zeros ^ residue)
    return values


def _one_by_one(
    file: RegularFile, end: int, offsets: np.ndarray, chunk_bytes: int, count: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """The same of chunks anywhere before `end`; what cannot be read has -1 and -2."""
    found, stored = np.full(len(offsets), -1, np.int64), np.full(len(offsets), -2, np.int64)
    window = _Window(file, end, count)
    for number, offset in enumerate(offsets.tolist()):
        with contextlib.suppress(Unreadable):
            found[number] = window.checksum(offset, chunk_bytes)
            stored[number] = window.stored_checksum(offset + chunk_bytes)
    return found, stored


class _Window:
    """A moving piece of the file, so that small chunks cost no system call each and large ones little memory."""

    def __init__(self, file: RegularFile, end: int, count: Callable[[int], None]) -> None:
        self._file, self._end, self._count = file, end, count
        self._buffer = np.empty(min(_WINDOW_BYTES, max(end, 0)), np.uint8)
        self._from = self._to = 0

    def _view(self, offset: int, length: int) -> np.ndarray:
        """Bytes from `offset` on, at most `length` of them and at least one."""
        if not self._from <= offset < self._to:
            part = self._buffer[: self._end - offset]
            self._from = self._to = 0  # if the read fails, the window holds nothing
            self._file.read_into(part, offset)
            self._count(len(part))
            self._from, self._to = offset, offset + len(part)
        return self._buffer[offset - self._from : min(offset + length, self._to) - self._from]

    def checksum(self, offset: int, length: int) -> int:
        value = 0
        while length:
            part = self._view(offset, length)
            value = google_crc32c.extend(value, part)
            offset, length = offset + len(part), length - len(part)
        return value

    def stored_checksum(self, offset: int) -> int:
        stored = b""
        while len(stored) < CHECKSUM_BYTES:
            stored += self._view(offset + len(stored), CHECKSUM_BYTES - len(stored)).tobytes()
        return int.from_bytes(stored, "little")
