"""One shard file: Zarr v3's `sharding_indexed` codec, written front to back and read chunk by chunk.

    chunk CRC32C | chunk CRC32C | …                     each chunk: raw little-endian tensor of one slot
    offset, nbytes (uint64, little-endian) x S CRC32C   the index; a missing chunk has 2**64 - 1 twice

Format: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html with the index at the
end and the inner codecs `bytes` (little) and `crc32c`. A writer keeps the index in memory (16 bytes a slot), no chunk.
"""

import os
import stat
from pathlib import Path

import google_crc32c
import numpy as np

from cache_store.durable import AppendFile
from cache_store.errors import REPAIR, IntegrityError

MISSING = np.uint64(2**64 - 1)
CHECKSUM_BYTES = 4
_INDEX_ENTRY_BYTES = 16


OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
"""How a shard is opened for reading: a pipe in its place must not hang us."""


def checksum(data: np.ndarray | bytes | memoryview) -> int:
    """CRC32C (Castagnoli) of a contiguous buffer, 0..2**32 - 1."""
    if isinstance(data, np.ndarray):
        data = data.reshape(-1).view(np.uint8)
    elif not isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8)  # the library takes bytes and arrays, but no memoryview
    return int(google_crc32c.value(data))


def index_bytes(slots: int) -> int:
    """Size of the index at the end of a shard of `slots` slots, its checksum included."""
    return slots * _INDEX_ENTRY_BYTES + CHECKSUM_BYTES


def empty_shard(slots: int) -> bytes:
    """A whole shard file without a chunk: gc leaves one where the last shard was, as its number must not be reused."""
    index = np.full((slots, 2), MISSING, "<u8")
    return index.tobytes() + checksum(index).to_bytes(CHECKSUM_BYTES, "little")


class ShardWriter:
    """Writes one shard; slots are filled or skipped in order from 0, the index is written by `close`.

    Parameters
    ----------
    path : the new file; must not exist
    slots : S, the number of slots in the shard
    chunk_bytes : size of one chunk without its checksum

    Leaving a `with` block by an exception removes the file: a shard without an index is never left behind.
    """

    def __init__(self, path: Path, slots: int, chunk_bytes: int) -> None:
        self._file = AppendFile(path)
        self._chunk_bytes = chunk_bytes
        self._index = np.full((slots, 2), MISSING, "<u8")
        self.filled = 0

    def append(self, chunk: np.ndarray) -> int:
        """Write a C-contiguous, little-endian chunk into the next slot; returns its CRC32C."""
        if chunk.nbytes != self._chunk_bytes:
            raise ValueError(f"a chunk of {self._chunk_bytes} bytes expected, {chunk.nbytes} found")
        value = checksum(chunk)
        self._index[self.filled] = (self._file.size_bytes, self._chunk_bytes + CHECKSUM_BYTES)
        self._file.write([chunk, value.to_bytes(CHECKSUM_BYTES, "little")])
        self.filled += 1
        return value

    def copy(self, stored: bytes) -> None:
        """Write a chunk and the checksum beside it as they lie in another shard, right or wrong."""
        if len(stored) != self._chunk_bytes + CHECKSUM_BYTES:
            raise ValueError(f"{self._chunk_bytes + CHECKSUM_BYTES} bytes expected, {len(stored)} found")
        self._index[self.filled] = (self._file.size_bytes, len(stored))
        self._file.write([stored])
        self.filled += 1

    def skip(self) -> None:
        """Leave the next slot without a chunk."""
        self.filled += 1

    def close(self) -> None:
        """Write the index and keep the file; if that fails, the file is removed."""
        try:
            self._file.write([self._index, checksum(self._index).to_bytes(CHECKSUM_BYTES, "little")])
        except BaseException:
            self._file.discard()
            raise
        self._file.close()

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._file.discard()

    def discard(self) -> None:
        """Remove the file."""
        self._file.discard()


def read_index(tail: bytes | memoryview, file_bytes: int, slots: int, chunk_bytes: int, where: str) -> np.ndarray:
    """Offsets of a shard's chunks out of its last `index_bytes(slots)` bytes, checked against the file's size.

    Returns
    -------
    int64 (slots,) : where each chunk starts; -1 where there is none

    Raises
    ------
    IntegrityError : the index's checksum is wrong, or an entry points outside the file; `where` opens the message
    """
    expected_bytes = index_bytes(slots)
    if len(tail) != expected_bytes:
        raise IntegrityError(
            f"{where}: an index of {expected_bytes} bytes expected, {len(tail)} found: the file is cut"
        )
    entries, stored = tail[:-CHECKSUM_BYTES], int.from_bytes(tail[-CHECKSUM_BYTES:], "little")
    found = checksum(entries)
    if found != stored:
        raise IntegrityError(f"{where}: its index has checksum {found:08x}, {stored:08x} is written beside it")
    index = np.frombuffer(entries, "<u8").reshape(slots, 2)
    present = ~((index[:, 0] == MISSING) & (index[:, 1] == MISSING))
    size = np.uint64(chunk_bytes + CHECKSUM_BYTES)
    limit = file_bytes - expected_bytes - int(size)  # the last byte at which a chunk can start
    wrong = present & ((index[:, 1] != size) | (limit < 0) | (index[:, 0] > np.uint64(max(limit, 0))))
    if wrong.any():
        slot = int(np.flatnonzero(wrong)[0])
        raise IntegrityError(
            f"{where}: slot {slot} is said to be {index[slot, 1]} bytes at {index[slot, 0]}, "
            f"which does not fit a chunk of {size} bytes in a file of {file_bytes}"
        )
    return np.where(present, index[:, 0], np.uint64(0)).astype(np.int64) - (~present).astype(np.int64)


def index_of(descriptor: int, slots: int, chunk_bytes: int, where: str) -> np.ndarray:
    """What `read_index` says of an open shard file.

    Raises
    ------
    OSError : it cannot be read
    IntegrityError : as `read_index`
    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise IntegrityError(f"{where} is not a regular file; {REPAIR}")
    size = found.st_size
    wanted = min(index_bytes(slots), size)
    tail = os.pread(descriptor, wanted, size - wanted)
    return read_index(tail, size, slots, chunk_bytes, where)


class ShardReader:
    """Reads one shard by `pread` into the caller's buffer; maps nothing, so that a build's memory stays small.

    Raises
    ------
    IntegrityError : cut file, wrong index, or (from `read_into`) a chunk whose checksum is wrong
    OSError : the file cannot be opened or read
    """

    def __init__(self, path: Path, slots: int, chunk_bytes: int) -> None:
        self.path = path
        self._chunk_bytes = chunk_bytes
        self._fd = os.open(path, OPEN_FLAGS)
        try:
            self.offsets = index_of(self._fd, slots, chunk_bytes, f"shard {str(path)!r}")
        except BaseException:
            os.close(self._fd)
            raise

    def read_into(self, slot: int, out: np.ndarray) -> int:
        """Fill `out` (contiguous, of the chunk's size) with the chunk in `slot`; returns its CRC32C."""
        offset = int(self.offsets[slot])
        if offset < 0:
            raise IntegrityError(f"shard {str(self.path)!r}: slot {slot} is empty")
        stored = bytearray(CHECKSUM_BYTES)
        found_bytes = os.preadv(self._fd, [out.reshape(-1).view(np.uint8), stored], offset)
        if found_bytes != self._chunk_bytes + CHECKSUM_BYTES:
            raise IntegrityError(f"shard {str(self.path)!r}: slot {slot} is cut after {found_bytes} bytes")
        value = checksum(out)
        if value != int.from_bytes(stored, "little"):
            raise IntegrityError(
                f"shard {str(self.path)!r}: slot {slot} has checksum {value:08x}, "
                f"{int.from_bytes(stored, 'little'):08x} is written beside it"
            )
        return value

    def __enter__(self) -> "ShardReader":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
