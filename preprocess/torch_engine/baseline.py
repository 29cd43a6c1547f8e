"""Which files nvJPEG decodes, and what of them it is given.

A file goes to nvJPEG only if it is a JPEG of the kind that every nvJPEG takes, hardware and software, and that means
one thing to all decoders; any other file is OpenCV's. This follows from the file's own bytes and the recipe, never
from a decode or from other files: the same bytes always get the same decoder.
"""

import re
from dataclasses import dataclass

from preprocess.decode import header_notes, reduction
from preprocess.header import Header, jpeg_segments, read_header

_FRAME, _HUFFMAN, _QUANTISATION, _RESTART, _ADOBE = 0xFFC0, 0xFFC4, 0xFFDB, 0xFFDD, 0xFFEE
_KEPT = (_FRAME, _HUFFMAN, _QUANTISATION, _RESTART)

# Luma in the first byte: 4:4:4, 4:2:2, 4:4:0 and 4:2:0. Factors other than 1 mean nothing in a gray file, and lead
# some decoders astray.
_SAMPLINGS = {1: (b"\x11",), 3: (b"\x11\x11\x11", b"\x21\x11\x11", b"\x12\x11\x11", b"\x22\x11\x11")}

_YCBCR = b"\1"  # Adobe's mark for what is also meant without its segment; 0 would be RGB
_WHOLE_SPECTRUM = b"\0\x3f\0"  # what ends the header of a sequential scan; cameras are known that write other bytes
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # within a scan, 0xff is data if 0 follows; restarts belong to it
_END = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class BareJpeg:
    """A JPEG for nvJPEG.

    Attributes
    ----------
    data : the file without all that is not needed for its pixels. Metadata would turn it in libraries that apply
        the orientation, while we apply it ourselves; what follows the image may be anything, even other images
    sampling : of luma and both chromas, six hexadecimal digits as in OpenCV's IMWRITE_JPEG_SAMPLING_FACTOR
    notes : as in `decode.Decoded`
    """

    data: bytearray
    header: Header
    sampling: int
    notes: tuple[str, ...] = ()


def jpeg_for_nvjpeg(data: bytes, *, max_pixels: int, reduce_to: tuple[int, int] | None = None) -> BareJpeg | None:
    """A file as nvJPEG is to have it, or None if OpenCV decodes it.

    nvJPEG's are sequential Huffman-coded JPEGs (SOF0) of 8 bits, gray or YCbCr with usual chroma sampling, in one
    scan that ends in an end-of-image marker, within the cap on pixels. Cut files are not among them: the marker
    looked for is the first one behind the scan, so that those of thumbnails and of further images do not count.

    Parameters
    ----------
    data : the whole file, of any format
    max_pixels, reduce_to : as for `decode.decode`; nvJPEG cannot decode at a part of the size
    """
    header = read_header(data)
    if header is None or not header.baseline or header.bits != 8 or header.channels not in _SAMPLINGS:
        return None
    if header.indirect:
        return None  # turned in a way that has a name of its own in the manifest
    if header.height * header.width > max_pixels or reduction(header, reduce_to):
        return None
    segments = list(jpeg_segments(data))  # up to the header of the scan, as there is a header at all
    frames = [start for marker, start, _ in segments if 0xFFC0 <= marker <= 0xFFCF and marker != _HUFFMAN]
    if len(frames) != 1 or all(marker != _HUFFMAN for marker, _, _ in segments):
        return None  # frames of videos lack the Huffman tables, which libjpeg knows by heart
    components = data[frames[0] + 10 : frames[0] + 10 + 3 * header.channels]
    ids, factors = components[::3], components[1::3]
    if factors not in _SAMPLINGS[header.channels] or ids == b"RGB":
        return None
    adobe = [start for marker, start, _ in segments if marker == _ADOBE and data[start + 4 : start + 9] == b"Adobe"]
    if header.channels == 3 and any(data[start + 15 : start + 16] != _YCBCR for start in adobe):
        return None
    _, scan, scan_end = segments[-1]
    if data[scan + 2 : scan + 5] != bytes([0, 6 + 2 * header.channels, header.channels]):
        return None  # the colours come one after another, in scans of their own
    end = _MARKER.search(data, scan_end)
    if data[scan_end - 3 : scan_end] != _WHOLE_SPECTRUM or end is None or end[0] != _END:
        return None
    bare = bytearray(data[:2])
    for marker, start, stop in segments:
        if marker in _KEPT:
            bare += data[start:stop]
    bare += memoryview(data)[scan : end.end()]
    return BareJpeg(bare, header, int.from_bytes(factors.ljust(3, b"\x11")), header_notes(data, header))
