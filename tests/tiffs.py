"""TIFF files written by hand: every variant that Pillow and OpenCV do not write."""

import struct
from typing import NamedTuple

import numpy as np

_CODES = {"B": 1, "H": 3, "I": 4, "b": 6, "h": 8, "i": 9, "f": 11, "d": 12, "Q": 16}


class Field:
    """The values of one field: a letter of struct, and the numbers."""

    def __init__(self, letter: str, *values: float) -> None:
        self.letter, self.values = letter, values


class _Variant(NamedTuple):
    order: str
    big: bool


def tiff(pixels: np.ndarray, *, order: str = "<", big: bool = False, pages=(), **options) -> bytes:
    """An uncompressed TIFF.

    Parameters
    ----------
    pixels : (H, W) or (H, W, samples), integer or float; written as it is
    order : "<" or ">"
    big : BigTIFF
    pages : (pixels, fields) of each directory that follows the first
    options : of the first directory, see `_directory`
    """
    variant = _Variant(order, big)
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, 16) if big else struct.pack(order + "HI", 42, 8)
    data = mark + head
    directories = [(pixels, options), *((page, {"fields": fields}) for page, fields in pages)]
    for index, (array, settings) in enumerate(directories):
        data += _directory(np.asarray(array), variant, len(data), index + 1 == len(directories), **settings)
    return data


def _directory(
    array,
    variant,
    at,
    last,
    *,
    photometric=None,
    planar=False,
    fields=None,
    leave_out=(),
    bits=None,
    strip=None,
    tile=None,
) -> bytes:
    """One directory, its values and its pixels, to be placed at offset `at`.

    `strip` replaces the pixels' bytes, for samples that no array has, of `bits` bits each; `tile` is the side of tiles.
    """
    order, big = variant
    if array.ndim == 2:
        array = array[:, :, np.newaxis]
    height, width, samples = array.shape
    typed = array.astype(array.dtype.newbyteorder(order))
    parts = [typed[:, :, index : index + 1] for index in range(samples)] if planar else [typed]
    planes = [block for part in parts for block in (_tiles(part, tile) if tile else [strip or part.tobytes()])]
    entries = {
        256: Field("I", width),
        257: Field("I", height),
        258: Field("H", *[bits or array.itemsize * 8] * samples),
        259: Field("H", 1),
        262: Field("H", photometric if photometric is not None else 2 if samples >= 3 else 1),
        273: Field("I", *[0] * len(planes)),
        277: Field("H", samples),
        278: Field("I", height),
        279: Field("I", *map(len, planes)),
        284: Field("H", 2 if planar else 1),
        339: Field("H", *[{"u": 1, "i": 2, "f": 3}[array.dtype.kind]] * samples),
        **(fields or {}),
    }
    offsets = 324 if tile else 273
    if tile:
        entries |= {322: Field("I", tile), 323: Field("I", tile), 324: entries.pop(273), 325: entries.pop(279)}
        del entries[278]
    for tag in leave_out:
        entries.pop(tag, None)
    entry_bytes, offset = (20, "Q") if big else (12, "I")
    body_at = at + struct.calcsize(offset) + (8 if big else 2) + entry_bytes * len(entries)
    body = b"".join(planes)
    starts = [body_at + sum(map(len, planes[:index])) for index in range(len(planes))]
    entries[offsets] = Field("I", *starts)
    out = struct.pack(order + ("Q" if big else "H"), len(entries))
    for tag, field in sorted(entries.items()):
        value = struct.pack(f"{order}{len(field.values)}{field.letter}", *field.values)
        out += struct.pack(order + ("HHQ" if big else "HHI"), tag, _CODES[field.letter], len(field.values))
        if len(value) <= struct.calcsize(offset):
            out += value.ljust(struct.calcsize(offset), b"\0")
        else:
            out += struct.pack(order + offset, body_at + len(body))
            body += value
    following = 0 if last else body_at + len(body)
    return out + struct.pack(order + offset, following) + body


def _tiles(part: np.ndarray, side: int) -> list[bytes]:
    """Squares of side by side pixels, row by row, those at the edges filled up."""
    height, width, _ = part.shape
    padded = np.pad(part, ((0, -height % side), (0, -width % side), (0, 0)))
    return [
        padded[top : top + side, left : left + side].tobytes()
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
