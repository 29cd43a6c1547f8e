"""Which way a file is read, decided by its header alone. The manifest keeps the name of the way for every slot.

A way that changes the pixels of a kind of file gets a new name; slots that were read in the former way stay valid under
theirs. `decode` can still read every file in the former way, so that `repair` brings back the same bits.
"""

import struct

from preprocess.boxes import avif_orientation
from preprocess.errors import SourceError
from preprocess.header import Header, sniff
from preprocess.jpeg2000_header import read_jpeg2000_header
from preprocess.pnm_header import read_pnm_header
from preprocess.tiff import why_not
from preprocess.tiff_header import read_tiff_header

OPENCV = "opencv"
NVJPEG = "nvjpeg"
PILLOW = "pillow"
"""A variant of a format that OpenCV does not read."""
TURNED = "opencv+turned"
"""OpenCV, then turned by an orientation that decant 0.1 did not look for."""
SCALED = "opencv+scaled"
"""OpenCV, then scaled from the file's own largest value to 255."""
UNPACKED = "unpacked"
"""The samples as they lie in the file, where OpenCV mixes up their colours."""

DECODERS = (OPENCV, NVJPEG, PILLOW, TURNED, SCALED, UNPACKED)
"""Names for the values of the manifest's column `decoder`. New ones come last."""
FORMER = DECODERS.index(OPENCV)
"""What stands in that column of all slots that were read in a former way."""

FORMERLY = {
    TURNED: "whose orientation was not applied (AVIF's irot and imir, ImageMagick's raw profile in a PNG, an EXIF "
    "block with a doubled prefix) or was applied wrongly (in tiles of a TIFF)",
    SCALED: "of PFM, or of PNM with a largest value other than 255 and 65535, which came out too dark",
    UNPACKED: "of PAM with several samples a pixel or of BMP with masks of its own, whose colours were mixed up",
}
"""What slots under the former name `opencv` hold of files that are read in a new way now; follows 'images '."""

_BMP_BITFIELDS = 3
_OPENCV_MASKS = {16: ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)), 32: ((0xFF0000, 0xFF00, 0xFF),)}
"""Bits of a pixel -> the masks of its colours that OpenCV takes for granted behind a short header."""
_TIFF_GRAY, _TIFF_PALETTE = (0, 1), 3
_TIFF_OF_PILLOW = frozenset({34925, 50000})  # LZMA, Zstandard: not in OpenCV's libtiff
_TIFF_KINDS_OF_PILLOW = (0, 1, 2, 3, 5, 6)  # gray, RGB, palette, CMYK, YCbCr
_TURNED_IN_TILES = (2, 3, 6, 7)  # OpenCV turns each tile, and leaves it in its place
_SUN_RGB = 3  # a raster with red first


def reader_of(data: bytes, header: Header | None) -> str:
    """The name of the way that a file is read on the CPU: one of `DECODERS`.

    Parameters
    ----------
    data : the whole file
    header : what `read_header` says of it

    Raises
    ------
    SourceError : stage "decode": OpenCV would read this variant wrongly, and Pillow does not read it
    """
    if header is not None:
        if header.indirect and header.orientation != 1:
            return TURNED
        return _OF_KNOWN[header.format](data) if header.format in _OF_KNOWN else OPENCV
    find = _OF_OTHERS.get(sniff(data) or "")
    return OPENCV if find is None else find(data)


def _of_bmp(data: bytes) -> str:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == 12:
        return OPENCV
    pixel_bits, compression = struct.unpack_from("<HI", data, 28)
    if compression != _BMP_BITFIELDS or pixel_bits not in _OPENCV_MASKS or len(data) < 66:
        return OPENCV
    if pixel_bits == 32 and header_bytes > 52:
        return OPENCV  # which reads the masks of longer headers
    is_usual = struct.unpack_from("<III", data, 54) in _OPENCV_MASKS[pixel_bits]
    return OPENCV if is_usual and (header_bytes == 40 or pixel_bits == 32) else UNPACKED


def _of_gif(data: bytes) -> str:
    """Pillow where the first frame leaves the canvas: browsers show it, OpenCV refuses it."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[at] == 0x21:
        at += 2
        while block_bytes := data[at]:
            at += block_bytes + 1
        at += 1
    if len(data) < at + 9:
        return OPENCV
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, at + 1)
    return PILLOW if left + frame_width > width or top + frame_height > height else OPENCV


def _of_tiff(data: bytes) -> str:
    header = read_tiff_header(data)
    if header is None:
        return OPENCV
    if header.compression in _TIFF_OF_PILLOW:
        plain = header.sample_format == 1 and header.photometric in _TIFF_KINDS_OF_PILLOW
        if not plain or not (header.bits <= 8 or (header.bits, header.samples, header.photometric) == (16, 1, 1)):
            raise SourceError("decode", why_not(header))
        return PILLOW
    small = (2, 4) if header.photometric in _TIFF_GRAY else (2,) if header.photometric == _TIFF_PALETTE else ()
    if header.samples == 1 and header.bits in small:
        return PILLOW
    return TURNED if header.tiled and header.orientation in _TURNED_IN_TILES else OPENCV


def _of_jpeg2000(data: bytes) -> str:
    header = read_jpeg2000_header(data)
    if header is None:
        return OPENCV
    if header.subsampled:
        raise SourceError("decode", "JPEG 2000 with subsampled components, which is not supported; save it as PNG")
    return PILLOW if min(header.bits) < 8 or header.cmyk else OPENCV


def _of_pnm(data: bytes) -> str:
    if data[1:2] in b"fF":
        return SCALED
    header = read_pnm_header(data)
    if header is None:
        return OPENCV
    if data[:2] == b"P7" and (header.samples > 1 or header.largest == 1):
        if header.samples > 4:
            raise SourceError("decode", f"PAM with {header.samples} samples a pixel, which is not supported")
        return UNPACKED
    if header.bitmap or (header.plain and header.largest < 255):
        return OPENCV  # which scales these, and only these
    return OPENCV if header.largest in (255, 65535) else SCALED


def _of_avif(data: bytes) -> str:
    return OPENCV if avif_orientation(data) == 1 else TURNED


def _of_sun(data: bytes) -> str:
    if len(data) < 24:
        return OPENCV
    pixel_bits, kind = struct.unpack_from(">I4xI", data, 12)
    if pixel_bits == 1 or (pixel_bits, kind) == (32, _SUN_RGB):
        raise SourceError("decode", f"Sun raster of {pixel_bits} bits a pixel, which is not supported; save it as PNG")
    return PILLOW if kind == _SUN_RGB else OPENCV


_OF_KNOWN = {"BMP": _of_bmp, "GIF": _of_gif}
_OF_OTHERS = {
    "TIFF": _of_tiff,
    "JPEG 2000": _of_jpeg2000,
    "PNM": _of_pnm,
    "AVIF": _of_avif,
    "Sun raster": _of_sun,
}
