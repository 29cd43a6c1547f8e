"""What the main header of a JPEG 2000 codestream says: depth and sampling of its components. Decodes nothing.

ITU-T T.800 annex A.5.1 (SIZ) and I.5.3.3 (the colour specification box of a JP2 file).
"""

import struct
from dataclasses import dataclass

_START = b"\xff\x4f\xff\x51"  # SOC, and SIZ right behind it
_SIZE = struct.Struct(">H2x8IH")
_MOST_COMPONENTS = 16_384
_CMYK = 12  # EnumCS


@dataclass(frozen=True, slots=True)
class Jpeg2000Header:
    """The facts of one codestream.

    Attributes
    ----------
    height, width : pixels
    bits : of each component
    subsampled : components lie on grids of their own
    cmyk : four components that the file calls CMYK
    """

    height: int
    width: int
    bits: tuple[int, ...]
    subsampled: bool
    cmyk: bool


def read_jpeg2000_header(data: bytes) -> Jpeg2000Header | None:
    """Read the header of a JP2 file or a bare codestream; None where it is cut or makes no sense."""
    at = data.find(_START)
    if at < 0 or len(data) < at + 4 + _SIZE.size:
        return None
    _, right, bottom, left, top, _, _, _, _, count = _SIZE.unpack_from(data, at + 4)
    first = at + 4 + _SIZE.size
    if not 0 < count <= _MOST_COMPONENTS or right <= left or bottom <= top or len(data) < first + 3 * count:
        return None
    components = [tuple(data[first + 3 * i : first + 3 * i + 3]) for i in range(count)]
    colour = data.find(b"colr", 0, at)
    cmyk = count == 4 and colour >= 0 and data[colour + 4 : colour + 5] == b"\x01"
    return Jpeg2000Header(
        bottom - top,
        right - left,
        tuple((depth & 0x7F) + 1 for depth, _, _ in components),
        any((across, down) != (1, 1) for _, across, down in components),
        cmyk and int.from_bytes(data[colour + 7 : colour + 11]) == _CMYK,
    )
