"""The boxes of an ISO base media file, as far as HEIF says there what an image is and how it stands. Decodes nothing.

ISO/IEC 14496-12 (boxes), 23008-12 (items, irot, imir). Bytes are untrusted: every offset is checked, every walk ends.
"""

import struct
from collections.abc import Iterator

_MOST_BOXES = 4096

# irot counts quarter turns anticlockwise and comes before imir, whose axis 0 swaps top and bottom, 1 left and right.
_ORIENTATIONS = {
    (0, None): 1, (0, 0): 4, (0, 1): 2,
    (1, None): 8, (1, 0): 5, (1, 1): 7,
    (2, None): 3, (2, 0): 2, (2, 1): 4,
    (3, None): 6, (3, 0): 7, (3, 1): 5,
}  # fmt: skip


def brands(data: bytes) -> frozenset[bytes]:
    """The major and compatible brands of a file that begins with `ftyp`, four bytes each; none for any other file."""
    if data[4:8] != b"ftyp":
        return frozenset()
    length = int.from_bytes(data[:4])
    names = data[8:12] + data[16 : min(length, len(data))]
    return frozenset(names[at : at + 4] for at in range(0, len(names) - 3, 4))


def avif_orientation(data: bytes) -> int:
    """How the primary item is to be turned, as an EXIF orientation 1..8; 1 where the file does not say or is cut.

    An EXIF block in an AVIF does not count: the properties `irot` and `imir` alone do.
    """
    try:
        return _ORIENTATIONS[_turn_and_mirror(data)]
    except (struct.error, IndexError, KeyError):
        return 1


def _turn_and_mirror(data: bytes) -> tuple[int, int | None]:
    meta = dict(_boxes(data, 0, len(data)))[b"meta"]
    inside = dict(_boxes(data, meta[0] + 4, meta[1]))  # 4: version and flags
    primary, _ = inside[b"pitm"]
    item = _unsigned(data, primary + 4, 2 if data[primary] == 0 else 4)
    properties = dict(_boxes(data, *inside[b"iprp"]))
    known = list(_boxes(data, *properties[b"ipco"]))
    turn, axis = 0, None
    for number in _associated(data, properties[b"ipma"][0], item):
        kind, (start, _) = known[number - 1]
        if kind == b"irot":
            turn = data[start] & 3
        elif kind == b"imir":
            axis = data[start] & 1
    return turn, axis


def _associated(data: bytes, at: int, item: int) -> Iterator[int]:
    """The numbers, from 1, of an item's properties."""
    version, wide = data[at], data[at + 3] & 1
    entries = _unsigned(data, at + 4, 4)
    at += 8
    for _ in range(min(entries, _MOST_BOXES)):
        entry = _unsigned(data, at, 2 if version == 0 else 4)
        at += 2 if version == 0 else 4
        count = data[at]
        at += 1
        for _ in range(count):
            number = _unsigned(data, at, 2) & 0x7FFF if wide else data[at] & 0x7F
            at += 2 if wide else 1
            if entry == item and number:
                yield number


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, tuple[int, int]]]:
    """Type, and start and end of the content, of each box in a range."""
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = end if length == 0 else start + length
        if stop < content or stop > end:
            return
        yield kind, (content, stop)
        start = stop


def _unsigned(data: bytes, at: int, count: int) -> int:
    if at + count > len(data):
        raise IndexError(at)
    return int.from_bytes(data[at : at + count])
