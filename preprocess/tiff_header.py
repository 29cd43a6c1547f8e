"""What the directories of a TIFF say, from its bytes alone: depth, samples, pages, profile. Decodes nothing.

TIFF 6.0 and BigTIFF, both byte orders. Bytes are untrusted: every offset is checked, every walk ends after a fixed
number of steps.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import NamedTuple

Bytes = bytes | mmap

_MAX_ENTRIES = 4096  # of a directory; libtiff refuses more
_MAX_DIRECTORIES = 4096
_MAX_SAMPLES = 65_535

_BROKEN = (struct.error, OverflowError)  # an offset beyond the data, and one beyond 2**63

# Tags
_NEW_SUBFILE_TYPE, _SUBFILE_TYPE = 254, 255
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_ORIENTATION, _SAMPLES, _MIN_SAMPLE, _MAX_SAMPLE, _PLANAR = 274, 277, 280, 281, 284
_TILE_OFFSETS, _SUB_DIRECTORIES = 324, 330
_EXTRA_SAMPLES, _SAMPLE_FORMAT, _SMIN_SAMPLE, _SMAX_SAMPLE = 338, 339, 340, 341
_ICC_PROFILE = 34675

_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 7: "B", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""struct's letter for each numeric type of a field; texts and fractions are not asked for."""

_REDUCED_OR_MASK = 0b101  # NewSubfileType: bit 0 a smaller version of another directory, bit 2 a transparency mask
_OLD_REDUCED = 2  # SubfileType, which NewSubfileType replaced

COLOUR_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 4: 1, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3, 32803: 1, 32844: 1, 32845: 3}
"""Samples that a photometric interpretation needs; any beyond them are extra. 0 and 1 are gray, 2 RGB, 3 a palette,
5 CMYK (or other inks), 6 YCbCr."""


class Layout(NamedTuple):
    """How one variant of the format writes its directories."""

    order: str  # struct's "<" or ">"
    first: int  # offset of the offset of the first directory
    counter: struct.Struct  # number of entries
    entry: struct.Struct  # tag, type, count
    offset: struct.Struct  # of a value, and of the next directory

    @property
    def entry_bytes(self) -> int:
        return self.entry.size + self.offset.size


@dataclass(frozen=True, slots=True)
class TiffHeader:
    """The facts of a TIFF's first directory, and how many pages follow it.

    Attributes
    ----------
    height, width : pixels as stored, before the orientation is applied
    bits : of one sample; the most if the samples differ
    samples : for each pixel, extra ones included
    extra_samples : what the file says each extra sample is: 0 unspecified, 1 associated alpha, 2 unassociated alpha;
        may be shorter than the number of extra samples
    photometric : PhotometricInterpretation, -1 if not stated
    planar : each sample has a plane of its own
    sample_format : 1 unsigned, 2 signed, 3 float, 4 undefined, 5 complex integer, 6 complex float
    compression : 1 none, 5 LZW, 7 JPEG, 8 deflate, ...
    orientation : 1..8, 1 if not stated or out of range
    pages : directories in the file's chain that are neither a smaller version of another one nor a mask, the first
        always counted; at most 4096
    min_value, max_value : the range of the samples as the file states it, None where it does not
    profile : the ICC profile, None if there is none
    tiled : its pixels lie in tiles, not in strips
    is_thumbnail : the first directory is a smaller version of another one that the file has, or a mask
    """

    height: int
    width: int
    bits: int
    samples: int
    extra_samples: tuple[int, ...]
    photometric: int
    planar: bool
    sample_format: int
    compression: int
    orientation: int
    pages: int
    min_value: float | None
    max_value: float | None
    profile: bytes | None
    tiled: bool = False
    is_thumbnail: bool = False

    @property
    def surplus(self) -> int:
        """Samples beyond the colour and one alpha."""
        return max(0, self.samples - COLOUR_SAMPLES.get(self.photometric, 1) - 1)


def is_tiff(data: Bytes) -> bool:
    """Whether `data` begins as a TIFF or BigTIFF does."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tiff_header(data: Bytes) -> TiffHeader | None:
    """Read the first directory of a TIFF, told by content, and count its pages.

    Parameters
    ----------
    data : the whole file. A directory may stand anywhere in it, so its beginning is not enough

    Returns
    -------
    TiffHeader, or None for any other format and for a first directory that is cut or makes no sense. Never raises on
    the content of `data`. Pages are counted up to the first directory that lies outside of `data`.
    """
    if not is_tiff(data):
        return None
    layout = _layout(data)
    try:
        directory = _first_directory(data, layout)
        fields = Fields(data, layout, directory)
        height, width = fields.one(_HEIGHT, 0), fields.one(_WIDTH, 0)
        if height < 1 or width < 1 or (fields.has(_BITS) and not fields.all(_BITS)):
            return None
        orientation = fields.one(_ORIENTATION, 1)
        return TiffHeader(
            height,
            width,
            bits=max(fields.all(_BITS) or (1,)),
            samples=fields.one(_SAMPLES, 1),
            extra_samples=fields.all(_EXTRA_SAMPLES),
            photometric=fields.one(_PHOTOMETRIC, -1),
            planar=fields.one(_PLANAR, 1) == 2,
            sample_format=max(fields.all(_SAMPLE_FORMAT) or (1,)),
            compression=fields.one(_COMPRESSION, 1),
            orientation=orientation if 1 <= orientation <= 8 else 1,
            pages=_pages(data, layout),
            min_value=min(fields.all(_SMIN_SAMPLE) or fields.all(_MIN_SAMPLE), default=None),
            max_value=max(fields.all(_SMAX_SAMPLE) or fields.all(_MAX_SAMPLE), default=None),
            profile=fields.raw(_ICC_PROFILE),
            tiled=fields.has(_TILE_OFFSETS),
            is_thumbnail=_is_lesser(data, layout, directory)
            and (fields.has(_SUB_DIRECTORIES) or _next(data, layout, directory) > 0),
        )
    except _BROKEN:
        return None  # the bytes end before the directory does


def _layout(data: Bytes) -> Layout:
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4].strip(b"\0") == b"*":
        return Layout(order, 4, *(struct.Struct(order + form) for form in ("H", "HHI", "I")))
    return Layout(order, 8, *(struct.Struct(order + form) for form in ("Q", "HHQ", "Q")))


def first_fields(data: Bytes) -> "Fields":
    """The fields of the first directory of a TIFF that `read_tiff_header` reads."""
    layout = _layout(data)
    return Fields(data, layout, _first_directory(data, layout))


def _first_directory(data: Bytes, layout: Layout) -> int:
    return int(layout.offset.unpack_from(data, layout.first)[0])


def with_orientation(data: bytes, orientation: int) -> bytes:
    """A TIFF that `read_tiff_header` reads and that states an orientation, with another one in its place."""
    fields = first_fields(data)
    at, layout = fields.entry(_ORIENTATION), fields.layout
    value = struct.pack(f"{layout.order}H", orientation).ljust(layout.offset.size, b"\0")
    entry = layout.entry.pack(_ORIENTATION, 3, 1) + value
    return data[:at] + entry + data[at + len(entry) :]


class Fields:
    """The fields of one directory; of a tag that stands twice the first counts, as in libtiff."""

    def __init__(self, data: Bytes, layout: Layout, directory: int) -> None:
        self._data = data
        self.layout = layout
        self._at: dict[int, int] = {}
        for tag, at in _entries(data, layout, directory, _MAX_ENTRIES):
            self._at.setdefault(tag, at)

    def has(self, tag: int) -> bool:
        """Whether the directory names a field, readable or not."""
        return tag in self._at

    def entry(self, tag: int) -> int:
        """Offset of the entry of a field that the directory names."""
        return self._at[tag]

    def all(self, tag: int) -> tuple:
        """All values of a field; none if it is missing, of a type that is no number, or outside of the data."""
        if tag not in self._at:
            return ()
        _, kind, count = self.layout.entry.unpack_from(self._data, self._at[tag])
        if kind not in _TYPES or not 0 < count <= _MAX_SAMPLES:
            return ()
        form = f"{self.layout.order}{count}{_TYPES[kind]}"
        try:
            return struct.unpack_from(form, self._data, self._value_at(self._at[tag], struct.calcsize(form)))
        except _BROKEN:
            return ()

    def one(self, tag: int, default: int) -> int:
        """The first value of a field as a whole number."""
        values = self.all(tag)
        return int(values[0]) if values and isinstance(values[0], int) else default

    def raw(self, tag: int) -> bytes | None:
        """The bytes of a field of bytes; None if it is missing or reaches beyond the data."""
        if tag not in self._at:
            return None
        _, kind, count = self.layout.entry.unpack_from(self._data, self._at[tag])
        at = self._value_at(self._at[tag], count)
        value = self._data[at : at + count]
        return value if kind in (1, 7) and count and len(value) == count else None

    def _value_at(self, entry: int, value_bytes: int) -> int:
        """Where a value lies: in its entry if it fits there, else where the entry points to."""
        at = entry + self.layout.entry.size
        if value_bytes <= self.layout.offset.size:
            return at
        return int(self.layout.offset.unpack_from(self._data, at)[0])


def _entries(data: Bytes, layout: Layout, directory: int, most: int) -> Iterator[tuple[int, int]]:
    """(tag, offset of the entry) of the first `most` entries of a directory."""
    (count,) = layout.counter.unpack_from(data, directory)
    for index in range(min(count, most)):
        at = directory + layout.counter.size + index * layout.entry_bytes
        tag, _, _ = layout.entry.unpack_from(data, at)
        yield tag, at


def _pages(data: Bytes, layout: Layout) -> int:
    """Directories that hold an image of their own."""
    pages = 0
    seen: set[int] = set()
    directory = _first_directory(data, layout)
    try:
        while directory and directory not in seen and len(seen) < _MAX_DIRECTORIES:
            seen.add(directory)
            if len(seen) == 1 or not _is_lesser(data, layout, directory):
                pages += 1
            directory = _next(data, layout, directory)
    except _BROKEN:
        pass  # the chain ends outside of the data
    return max(pages, 1)


def _next(data: Bytes, layout: Layout, directory: int) -> int:
    """Offset of the directory behind one, 0 for none."""
    (count,) = layout.counter.unpack_from(data, directory)
    end = directory + layout.counter.size + count * layout.entry_bytes
    return int(layout.offset.unpack_from(data, end)[0])


def _is_lesser(data: Bytes, layout: Layout, directory: int) -> bool:
    """Whether a directory holds a thumbnail, a level of a pyramid or a mask of another one."""
    # Entries are sorted by tag and these are the smallest, so the first few are all that need be read.
    for tag, at in _entries(data, layout, directory, 8):
        if tag in (_NEW_SUBFILE_TYPE, _SUBFILE_TYPE):
            _, kind, _ = layout.entry.unpack_from(data, at)
            letter = "H" if kind == 3 else "I"
            (value,) = struct.unpack_from(layout.order + letter, data, at + layout.entry.size)
            return bool(value & _REDUCED_OR_MASK) if tag == _NEW_SUBFILE_TYPE else value == _OLD_REDUCED
    return False
