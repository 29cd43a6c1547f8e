"""What the first bytes of an encoded image say: format, size, depth, alpha, orientation. Decodes nothing.

The scanner asks for sizes, the decoder for the cap on pixels and for what a decode would drop without a
word, the GPU engine for the files that it may take. Bytes are untrusted: every offset is checked, every
walk over segments moves forward and ends after `_MAX_PARTS` steps.
"""

import contextlib
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from preprocess.boxes import brands

IMAGE_EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif"}
    | {".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".avif", ".jxl"}
    | {".jp2", ".j2k", ".j2c", ".jpx"}
    | {".pbm", ".pgm", ".ppm", ".pnm", ".pxm", ".pam", ".pfm"}
    | {".hdr", ".exr", ".sr", ".ras"}
)
"""Lower-case file name endings of an image folder. Some builds of OpenCV lack the decoder for one or another of
them; such files are listed all the same, so that they fail with a reason instead of being passed over."""

HEIC_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
"""Images all the same, of a format that neither OpenCV nor Pillow decodes."""

_MAX_PARTS = 65_536  # segments or chunks; a PNG of 512 MB with libpng's 8 KiB chunks still passes

_JPEG_SCAN = 0xFFDA
_UNUSUAL_FRAMES = {0xFFC3: "lossless", 0xFFC9: "arithmetic", 0xFFCA: "arithmetic", 0xFFCB: "lossless", 0xFFF7: "LS"}
_JPEG_SEGMENT = struct.Struct(">HH")
_JPEG_FRAME = struct.Struct(">BHHB")
_PNG_IHDR = struct.Struct(">I4sIIBB")
_PNG_CHUNK = struct.Struct(">I4s")
_WEBP_CHUNK = struct.Struct("<4sI")
_VP8_FRAME = struct.Struct("<B2x3sHH")
_BMP_CORE = struct.Struct("<HH2xH")
_BMP_INFO = struct.Struct("<ii2xH")

_PNG_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
_RAW_PROFILES = (b"Raw profile type exif", b"Raw profile type APP1")
_RAW_PROFILE = re.compile(rb"\s*\w+\s+\d+\s+([0-9a-fA-F\s]*)")
_MOST_PROFILE_BYTES = 1 << 18  # an EXIF block has at most 64 KiB
_EXIF_PREFIX = b"Exif\0\0"

_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_BMP_HEADER_BYTES = (12, 40, 52, 56, 64, 108, 124)


@dataclass(frozen=True, slots=True)
class Header:
    """The facts of one encoded image.

    Attributes
    ----------
    format : "JPEG", "PNG", "WebP", "BMP" or "GIF"
    height, width : pixels as stored, before the orientation is applied; of a GIF or WebP the canvas
    channels : colour components stored: 1 gray, 3 colour (a palette counts as colour), 4 CMYK; alpha apart
    bits : of one component, not of a palette's index
    alpha : there is an alpha channel, or a colour or palette entry that means transparent
    orientation : EXIF 1..8, 1 if none; that of the first EXIF block that states one, otherwise of another place
    baseline : the JPEG is sequential, 8-bit, Huffman-coded (SOF0); False for every other format
    profile : there is a colour profile, or another statement on the meaning of the colours, see `profiles`
    frames : there are more images behind the first one: an animation, or the parts of an MPO
    indirect : the orientation is not in a plain EXIF block, but behind a doubled prefix or in ImageMagick's raw profile
    """

    format: str
    height: int
    width: int
    channels: int
    bits: int
    alpha: bool
    orientation: int
    baseline: bool
    profile: bool = False
    frames: bool = False
    indirect: bool = False

    @property
    def upright_hw(self) -> tuple[int, int]:
        """Height and width of the image as it is looked at, orientation applied."""
        return (self.height, self.width) if self.orientation < 5 else (self.width, self.height)


def read_header(data: bytes) -> Header | None:
    """Read the header of a JPEG, PNG, WebP, BMP or GIF, told by content.

    Parameters
    ----------
    data : the whole file, or its beginning. PNG and WebP may keep their orientation behind the pixels: when those
        bytes are missing it is reported as 1

    Returns
    -------
    Header, or None for any other format and for a header that is cut or makes no sense. Never raises on the
    content of `data`. A header is no promise that the pixels behind it decode.
    """
    try:
        if data[:3] == b"\xff\xd8\xff":
            return _read_jpeg(data)
        if data[:8] == b"\x89PNG\r\n\x1a\n":
            return _read_png(data)
        if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
            return _read_webp(data)
        if data[:2] == b"BM":
            return _read_bmp(data)
        if data[:6] in (b"GIF87a", b"GIF89a"):
            return _read_gif(data)
    except (struct.error, IndexError):
        pass  # the bytes end before the header does: the same answer as for any other nonsense
    return None


def sniff(data: bytes) -> str | None:
    """Name the image format by its first bytes alone, for messages; None if they are of no format that we know.

    Knows more formats than `read_header`, and names a file even where its header is damaged.
    """
    for name, at, magic in _MAGIC:
        if data.startswith(magic, at):
            return name
    kinds = brands(data)
    for name, known in _BRANDS:
        if kinds & known:
            return name
    if data[:1] == b"P" and data[1:2] in b"1234567fF" and data[2:3].isspace():
        return "PNM"
    return None


_MAGIC: tuple[tuple[str, int, bytes | tuple[bytes, ...]], ...] = (
    ("JPEG", 0, b"\xff\xd8\xff"),
    ("PNG", 0, b"\x89PNG\r\n\x1a\n"),
    ("WebP", 8, b"WEBP"),
    ("GIF", 0, (b"GIF87a", b"GIF89a")),
    ("TIFF", 0, (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    ("JPEG 2000", 0, (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")),
    ("JPEG XL", 0, (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")),
    ("Radiance HDR", 0, (b"#?RADIANCE", b"#?RGBE")),
    ("OpenEXR", 0, b"\x76\x2f\x31\x01"),
    ("Sun raster", 0, b"\x59\xa6\x6a\x95"),
    ("BMP", 0, b"BM"),
)

_BRANDS = (
    ("AVIF", frozenset({b"avif", b"avis"})),
    ("HEIC", frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})),
)
"""Of a file in HEIF's container, whichever of its brands stands first. Some AVIFs name mif1, too."""


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """The segments of a JPEG up to its first scan's header, which is the last one if the file is whole so far.

    ITU-T T.81 annex B. Fill bytes, markers without a length and bytes that belong to nothing are passed over, as
    libjpeg does it.

    Returns
    -------
    (marker, start, end) of each, so that data[start:end] is the segment with its marker; ends early where the bytes
    make no sense.

    Raises
    ------
    struct.error : the bytes end inside of a segment's first four
    """
    at = 2
    for _ in range(_MAX_PARTS):
        marker, length = _JPEG_SEGMENT.unpack_from(data, at)
        if marker < 0xFFC0 or 0xFFD0 <= marker <= 0xFFD7 or marker == 0xFFFF:
            at = data.find(b"\xff", at + 1)
            if at < 0:
                return
            continue
        if marker != _JPEG_SCAN and (length < 2 or marker in (0xFFD8, 0xFFD9)):  # a second start, or an early end
            return
        yield marker, at, at + 2 + length
        if marker == _JPEG_SCAN:
            return
        at += 2 + length


def unusual_jpeg(data: bytes) -> str:
    """The coding of a JPEG that many decoders lack, in one word; empty of all others."""
    with contextlib.suppress(struct.error):
        for marker, _, _ in jpeg_segments(data):
            if marker in _UNUSUAL_FRAMES:
                return _UNUSUAL_FRAMES[marker]
    return ""


def _read_jpeg(data: bytes) -> Header | None:
    """EXIF may stand behind the frame header, so we read on to the first scan."""
    frame = None
    orientation, indirect = 0, False
    profile = frames = False
    for marker, at, end in jpeg_segments(data):
        if marker == _JPEG_SCAN:
            break
        if marker <= 0xFFCF:
            if marker not in (0xFFC4, 0xFFC8, 0xFFCC):  # tables; all the others are frames
                frame = (marker, end - at - 2, *_JPEG_FRAME.unpack_from(data, at + 4))
        elif marker == 0xFFE1 and not orientation and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation, indirect = _stated_orientation(data[at + 10 : end])
        elif marker == 0xFFE2:
            profile = profile or data[at + 4 : at + 16] == b"ICC_PROFILE\0"
            frames = frames or data[at + 4 : at + 8] == b"MPF\0"
    else:
        return None
    if frame is None:
        return None
    start, length, bits, height, width, channels = frame
    # A height of 0 means "told after the first scan" (DNL); libjpeg refuses it.
    if not height or not width or not 1 <= channels <= 4 or not 2 <= bits <= 16 or length != 8 + 3 * channels:
        return None
    turn = orientation or 1
    return Header("JPEG", height, width, channels, bits, False, turn, start == 0xFFC0, profile, frames, indirect)


def _read_png(data: bytes) -> Header | None:
    """PNG third edition, sections 5 and 11: IHDR first, tRNS before the pixels, eXIf anywhere."""
    length, kind, width, height, bits, colour = _PNG_IHDR.unpack_from(data, 8)
    if length != 13 or kind != b"IHDR" or bits not in _PNG_DEPTHS.get(colour, ()):
        return None
    if not 0 < width < 1 << 31 or not 0 < height < 1 << 31:
        return None
    alpha = colour in (4, 6)
    pixels = profile = frames = indirect = False
    orientation = raw = 0
    at = 33
    for _ in range(_MAX_PARTS):
        if pixels and at + 8 > len(data):
            break  # all that the header itself needs has been seen
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        if kind == b"IDAT":
            pixels = True
        elif kind == b"tRNS":
            alpha = True
        elif kind == b"eXIf" and not orientation:
            orientation, indirect = _stated_orientation(data[at + 8 : at + 8 + length])
        elif kind in _PNG_TEXTS and not raw:
            raw = _raw_profile_orientation(kind, data[at + 8 : at + 8 + length])
        elif kind in (b"iCCP", b"cICP"):
            profile = True
        elif kind == b"acTL":
            frames = data[at + 8 : at + 12] > b"\0\0\0\1"
        elif kind == b"IEND":
            break
        at += 12 + length
    if not pixels:
        return None
    if raw and not orientation:
        orientation, indirect = raw, True
    channels = 1 if colour in (0, 4) else 3
    depth = 8 if colour == 3 else bits
    return Header("PNG", height, width, channels, depth, alpha, orientation or 1, False, profile, frames, indirect)


def _read_webp(data: bytes) -> Header | None:
    """RFC 9649: one chunk of lossy (VP8) or lossless (VP8L) data, or an extended header (VP8X) before such chunks."""
    kind = data[12:16]
    if kind == b"VP8 ":
        tag, start, width, height = _VP8_FRAME.unpack_from(data, 20)
        width, height = width & 0x3FFF, height & 0x3FFF  # the upper two bits ask for upscaling, which nobody does
        if tag & 1 or start != b"\x9d\x01\x2a" or not width or not height:
            return None
        return Header("WebP", height, width, 3, 8, False, 1, False)
    if kind == b"VP8L":
        (fields,) = struct.unpack_from("<I", data, 21)
        if data[20] != 0x2F or fields >> 29:
            return None
        alpha = bool(fields >> 28 & 1)
        return Header("WebP", (fields >> 14 & 0x3FFF) + 1, (fields & 0x3FFF) + 1, 3, 8, alpha, 1, False)
    if kind != b"VP8X" or len(data) < 30:
        return None
    flags = data[20]
    width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    orientation, indirect = _webp_orientation(data) if flags & 0x08 else (0, False)
    profile, frames = bool(flags & 0x20), bool(flags & 0x02)
    alpha = bool(flags & 0x10)
    return Header("WebP", height, width, 3, 8, alpha, orientation or 1, False, profile, frames, indirect)


def _webp_orientation(data: bytes) -> tuple[int, bool]:
    at = 30
    for _ in range(_MAX_PARTS):
        if at + 8 > len(data):
            break
        kind, length = _WEBP_CHUNK.unpack_from(data, at)
        if kind == b"EXIF":
            return _stated_orientation(data[at + 8 : at + 8 + length])
        at += 8 + length + (length & 1)
    return 0, False


def _read_bmp(data: bytes) -> Header | None:
    """Windows and OS/2 bitmaps; a negative height means that the top row comes first."""
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes not in _BMP_HEADER_BYTES:
        return None
    width, height, pixel_bits = (_BMP_CORE if header_bytes == 12 else _BMP_INFO).unpack_from(data, 18)
    if width <= 0 or not height or pixel_bits not in (1, 2, 4, 8, 16, 24, 32):
        return None
    # The fourth byte of a 32-bit pixel is padding unless the header names it as a mask.
    alpha = pixel_bits == 32 and header_bytes in (56, 108, 124) and struct.unpack_from("<I", data, 66) != (0,)
    return Header("BMP", abs(height), width, 3, 5 if pixel_bits == 16 else 8, alpha, 1, False)


def _read_gif(data: bytes) -> Header | None:
    """GIF 87a and 89a: the size of the canvas, and whether the first frame has a transparent colour."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    if not width or not height:
        return None
    alpha = False
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    while data[at] == 0x21:  # an extension; the last one before the frame may be its graphic control
        if data[at + 1] == 0xF9:
            alpha = bool(data[at + 3] & 1)
        at += 2
        while block_bytes := data[at]:
            at += block_bytes + 1
        at += 1
    if data[at] != 0x2C:
        return None
    return Header("GIF", height, width, 3, 8, alpha, 1, False, frames=_has_second_frame(data, at))


def _has_second_frame(data: bytes, at: int) -> bool:
    """Whether a GIF goes on with another image behind the one at `at`; not if the data end before it does."""
    flags = data[at + 9 : at + 10]
    if not flags:
        return False
    at += 11 + (3 << (flags[0] & 7) + 1 if flags[0] & 0x80 else 0)
    while at < len(data) and (block_bytes := data[at]):  # the pixels
        at += block_bytes + 1
    at += 1
    while data[at : at + 1] == b"\x21":  # extensions
        at += 2
        while at < len(data) and (block_bytes := data[at]):
            at += block_bytes + 1
        at += 1
    return data[at : at + 1] == b"\x2c"


def _stated_orientation(block: bytes) -> tuple[int, bool]:
    """Orientation of an EXIF block, 0 if not stated, and whether a prefix that does not belong there comes first."""
    plain = block
    while plain.startswith(_EXIF_PREFIX):
        plain = plain[len(_EXIF_PREFIX) :]
    return _exif_orientation(plain), plain is not block


def _raw_profile_orientation(kind: bytes, chunk: bytes) -> int:
    """Orientation in an EXIF block that ImageMagick keeps as text: its name, its length, and its bytes in hex."""
    keyword, _, rest = chunk.partition(b"\0")
    if keyword not in _RAW_PROFILES:
        return 0
    if kind == b"iTXt":  # whether it is compressed, method, language, translated keyword, text
        packed, rest = rest[:1] == b"\1", rest[2:].split(b"\0", 2)[-1]
    else:
        packed, rest = kind == b"zTXt", rest[1:] if kind == b"zTXt" else rest
    try:
        text = zlib.decompressobj().decompress(rest, _MOST_PROFILE_BYTES) if packed else rest[:_MOST_PROFILE_BYTES]
        hexadecimal = _RAW_PROFILE.match(text)
        return _stated_orientation(bytes.fromhex(hexadecimal[1].decode()))[0] if hexadecimal else 0
    except (zlib.error, ValueError):
        return 0


def _exif_orientation(tiff: bytes) -> int:
    """Orientation (tag 0x0112) in the first directory of an EXIF block, 1..8; 1 if out of range, 0 if not stated.

    Like OpenCV, reads the value as 16 bits whatever type the entry claims. Unlike OpenCV, is not put off by
    a broken entry before it.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 0
    try:
        magic, directory = struct.unpack_from(order + "HI", tiff, 2)
        if magic != 42:
            return 0
        (entries,) = struct.unpack_from(order + "H", tiff, directory)
        for at in range(directory + 2, directory + 2 + 12 * entries, 12):
            tag, value = struct.unpack_from(order + "H6xH", tiff, at)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass  # the block ends before its directory does
    return 0
