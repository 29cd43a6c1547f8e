"""Undoes a single flipped bit, where something recorded tells the right content from all others."""

from collections.abc import Callable

from cache_store.shard import CHECKSUM_BYTES, checksum

_MOST_BYTES_TO_TRY = 16 << 10
"""Each bit is tried in turn, and every try looks at all of the content: about 2 s at this size."""

_MOST_BYTES_TO_LOCATE = 8 << 20
"""About 16 s."""

_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


def by_trial(data: bytes, right: Callable[[bytes], bool]) -> bytes | None:
    """The content with one bit flipped that makes it right; None if there is none, or it is too long to try."""
    if len(data) > _MOST_BYTES_TO_TRY:
        return None
    changed = bytearray(data)
    for place in range(len(changed)):
        for bit in range(8):
            changed[place] ^= 1 << bit
            if right(bytes(changed)):
                return bytes(changed)
            changed[place] ^= 1 << bit
    return None


def by_checksum(stored: bytes) -> bytes | None:
    """Data followed by their CRC32C, with the one bit flipped that makes both agree.

    A flipped bit changes the checksum by a value that depends on its distance from the end alone, and each bit further
    away by the next of a sequence that does not repeat within 2**31 bits. Damage of another kind may look like one
    flipped bit: whoever asks has to hold the result against a digest.
    """
    data, written = bytearray(stored[:-CHECKSUM_BYTES]), int.from_bytes(stored[-CHECKSUM_BYTES:], "little")
    if len(data) > _MOST_BYTES_TO_LOCATE or len(stored) <= CHECKSUM_BYTES:
        return None
    difference = checksum(bytes(data)) ^ written
    if difference.bit_count() == 1:  # in the checksum itself
        return bytes(data) + checksum(bytes(data)).to_bytes(CHECKSUM_BYTES, "little")
    change = checksum(b"\x80") ^ checksum(b"\x00")
    for distance in range(8 * len(data)):
        if change == difference:
            data[-1 - distance // 8] ^= 0x80 >> distance % 8
            return bytes(data) + stored[-CHECKSUM_BYTES:]
        change = change >> 1 ^ (_POLYNOMIAL if change & 1 else 0)
    return None
