"""Encoded bytes -> uint8 pixels. The only module that calls OpenCV's image codecs.

What OpenCV leaves to chance is settled here: the format is told by content; pixels are counted before they are
allocated; the image comes upright, whichever formats the installed OpenCV turns by itself; a source that loses
something on its way to 8-bit RGB says so; a failure is a `SourceError` with a sentence for the user, never a
`cv2.error` or a None. OpenCV decodes from memory, not from a path: its file reader fills a cut JPEG with gray
and reports success.

OpenCV writes its own complaints about bad files to stderr; `OPENCV_LOG_LEVEL=SILENT` in the environment of the
process stops most of them. `OPENCV_IO_MAX_IMAGE_PIXELS`, set there before cv2 is imported, caps the formats whose
headers we do not read before anything is allocated.
"""

import base64
import functools
from typing import NamedTuple

import cv2
import numpy as np

from preprocess.errors import SourceError
from preprocess.header import Header, read_header, sniff

MAX_PIXELS = 179_000_000

# OpenCV 4.11 turns by the EXIF block of a JPEG only if no other APP1 segment comes first, and never a WebP;
# OpenCV 5 turns both. We turn what `read_header` reads ourselves, so that the pixels are the same with either.
_KNOWN_FLAGS = {
    "rgb": cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION,
    "gray": cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION,
}
# Not IMREAD_COLOR_RGB: OpenCV 5.0 hands an AVIF with alpha, and every PAM, out as BGR in spite of it.
_OTHER_FLAGS = {"rgb": cv2.IMREAD_COLOR, "gray": cv2.IMREAD_GRAYSCALE}

# These single bits ask for the scale only, so that they go with either of the flags above. (IMREAD_REDUCED_COLOR_*
# are the same bits and IMREAD_COLOR, which means BGR and excludes IMREAD_COLOR_RGB.)
_REDUCED_FLAGS = (
    (8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
    (4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    (2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
)


class Decoded(NamedTuple):
    """One decoded image.

    Attributes
    ----------
    image : uint8 (H, W, 3) RGB, or (H, W, 1) gray; C-contiguous, upright, owned by the caller
    source_hw : upright height and width of the source, also when `image` is a reduced decode of it
    notes : what the decode dropped: "16-bit" (more than 8 bits a component, or float), "alpha"
    """

    image: np.ndarray
    source_hw: tuple[int, int]
    notes: tuple[str, ...]


def decode(
    data: bytes,
    *,
    channels: str = "rgb",
    max_pixels: int = MAX_PIXELS,
    reduce_to: tuple[int, int] | None = None,
) -> Decoded:
    """Decode one image file to 8 bits a component, upright.

    Parameters
    ----------
    data : the whole file. Of an animation or a multi-page file the first frame is decoded
    channels : "rgb" or "gray"
    max_pixels : the most pixels a source may have, before any reduction. JPEG, PNG, WebP, BMP and GIF are refused
        before anything is allocated, other formats after the decode
    reduce_to : upright (height, width) that the image is going to be resized to. A JPEG is then decoded at 1/8, 1/4
        or 1/2 of its size (DCT scaling), the smallest at which both sides are still at least twice as long as asked,
        so that the resize that follows still averages. Other formats ignore it

    Returns
    -------
    Decoded : a new array each time. 16-bit components keep their high byte, so a 12-bit source in a 16-bit file
        comes out nearly black; dropped alpha uncovers whatever colour lies under transparent pixels, except in
        a TIFF with unassociated alpha, whose colours libtiff multiplies by it.

    Raises
    ------
    SourceError : stage "decode": empty, no image, cut or damaged, over the cap, or of a kind that the installed
        OpenCV cannot decode; the reason says which
    """
    if not data:
        raise SourceError("decode", "empty file")
    header = read_header(data)
    if header is None:
        return _decode_other(data, channels, max_pixels)
    _check_cap(header.upright_hw, max_pixels)
    flags = _KNOWN_FLAGS[channels]
    reduced = reduction(header, reduce_to)
    image = _imdecode(data, flags | reduced)
    if image is None:
        raise SourceError("decode", _why_not(data, header))
    if header.orientation != 1:
        image = upright(image, header.orientation)
    notes = _notes(header.bits > 8, header.alpha) if header.bits > 8 or header.alpha else ()
    return Decoded(_with_channel_axis(image), header.upright_hw if reduced else image.shape[:2], notes)


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels the way their EXIF orientation says.

    Parameters
    ----------
    image : (H, W) or (H, W, 3), any dtype that OpenCV knows, as stored in the file
    orientation : EXIF 1..8

    Returns
    -------
    C-contiguous (H, W, ...), or (W, H, ...) for orientations 5..8; `image` itself for 1, a copy otherwise
    """
    if orientation == 1:
        return image
    if orientation >= 5:  # rows and columns change places; the pairs below are what remains to be done
        image = cv2.transpose(image)
    flip = {2: 1, 3: -1, 4: 0, 5: None, 6: 1, 7: -1, 8: 0}[orientation]
    return image if flip is None else cv2.flip(image, flip)


def reduction(header: Header, reduce_to: tuple[int, int] | None) -> int:
    """The flag of OpenCV that asks for the reduced decode which `decode` chooses, 0 for the full one."""
    if reduce_to is None or header.format != "JPEG":
        return 0
    for factor, flag in _REDUCED_FLAGS:
        # libjpeg rounds a scaled side up
        if all(-(-source // factor) >= 2 * target for source, target in zip(header.upright_hw, reduce_to, strict=True)):
            return flag
    return 0


@functools.lru_cache(maxsize=1)
def decoder_table() -> list[tuple[str, bool, str]]:
    """What the installed OpenCV decodes, found by letting it decode a tiny image of each format.

    Returns
    -------
    (format, whether it decodes here, remark), one for each format. Computed once a process, in some milliseconds;
    the list is shared, so it is not to be changed. OpenCV itself encodes the images: of these formats it reads
    none that it does not also write, CMYK JPEG apart.
    """
    pixels = np.full((32, 32, 3), (50, 100, 200), np.uint8)
    deep, real = pixels.astype(np.uint16) * 257, pixels.astype(np.float32) / 255
    progressive = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    samples: tuple[tuple[str, str, np.ndarray, tuple[int, ...], str], ...] = (
        ("JPEG", ".jpg", pixels, (), ""),
        ("progressive JPEG", ".jpg", pixels, progressive, ""),
        ("CMYK JPEG", "", pixels, (), "converted without its colour profile"),
        ("PNG", ".png", pixels, (), ""),
        ("16-bit PNG", ".png", deep, (), "the high byte of each component is kept"),
        ("WebP", ".webp", pixels, (), "first frame"),
        ("BMP", ".bmp", pixels, (), ""),
        ("TIFF", ".tiff", pixels, (), "first page; 8 or 16 bits a component"),
        ("GIF", ".gif", pixels, (), "first frame"),
        ("JPEG 2000", ".jp2", pixels, (), ""),
        ("AVIF", ".avif", pixels, (), ""),
        ("PNM", ".ppm", pixels, (), ""),
        ("Radiance HDR", ".hdr", real, (), "clipped to 0..1"),
        ("OpenEXR", ".exr", real, (), "OpenCV needs to be built with it and OPENCV_IO_ENABLE_OPENEXR=1"),
        ("Sun raster", ".ras", pixels, (), ""),
        ("JPEG XL", ".jxl", pixels, (), ""),
    )
    table = []
    for name, extension, image, parameters, remark in samples:
        try:
            data = bytes(cv2.imencode(extension, image, parameters)[1]) if extension else _CMYK_JPEG
            able = bool(data) and _imdecode(data, cv2.IMREAD_COLOR) is not None
        except (cv2.error, SourceError):
            able = False
        table.append((name, able, remark if able or name == "OpenEXR" else f"not in this OpenCV ({cv2.__version__})"))
    return table


# 8 x 8 pixels of one colour, 178 bytes.
_CMYK_JPEG = base64.b64decode(
    "/9j/7gAOQWRvYmUAZAAAAAAA/9sAQwABAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
    "/8AAFAgACAAIBEMRAE0RAFkRAEsRAP/EABUAAQEAAAAAAAAAAAAAAAAAAAoI/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAA4EQwBNAFkASwAAPwBI"
    "CHxjz+H/2Q=="
)


def _imdecode(data: bytes, flags: int) -> np.ndarray | None:
    """`cv2.imdecode`: None where OpenCV gives no reason, SourceError where it does."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in error.err:
            reason = "larger than OPENCV_IO_MAX_IMAGE_PIXELS, _WIDTH or _HEIGHT allows (decode.max_megapixels)"
        else:
            if error.code == cv2.Error.StsNoMem:  # says nothing about the file: tried again by the next build
                raise SourceError("memory", "not enough memory to decode it") from error
            reason = f"OpenCV says: {' '.join(error.err.split())}"
        raise SourceError("decode", reason) from error


def _decode_other(data: bytes, channels: str, max_pixels: int) -> Decoded:
    """Decode what `read_header` cannot read; a second, unchanged decode tells what the first one dropped."""
    image = _imdecode(data, _OTHER_FLAGS[channels])
    if image is not None:
        _check_cap(image.shape[:2], max_pixels)
    unchanged = _imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        if unchanged is None:
            raise SourceError("decode", _why_not(data, None))
        raise SourceError("decode", f"its pixels are {unchanged.dtype}, which OpenCV does not turn into 8 bits")
    if channels == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    elif image.ndim == 3:  # OpenCV gives colour out of a PFM even when asked for gray
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    notes: tuple[str, ...] = ()
    if unchanged is not None:
        notes = _notes(unchanged.dtype != np.uint8, unchanged.ndim == 3 and unchanged.shape[2] == 4)
    return Decoded(_with_channel_axis(image), image.shape[:2], notes)


def _with_channel_axis(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[:, :, np.newaxis]


def _notes(deep: bool, alpha: bool) -> tuple[str, ...]:
    return ("16-bit",) * deep + ("alpha",) * alpha


def _check_cap(hw: tuple[int, int], max_pixels: int) -> None:
    height, width = hw
    if height * width > max_pixels:
        size = f"{width} x {height} = {height * width / 1e6:.9g} Mpx"
        raise SourceError("decode", f"{size} is over the cap of {max_pixels / 1e6:.9g} Mpx (decode.max_megapixels)")


def _why_not(data: bytes, header: Header | None) -> str:
    """The likeliest reason why OpenCV gave None, in one line."""
    name = header.format if header else sniff(data)
    if name is None:
        return f"not an image that OpenCV can decode (starts with {data[:16]!r})"
    if name not in {format_ for format_, able, _ in decoder_table() if able}:
        return f"{name}, which this OpenCV ({cv2.__version__}) cannot decode"
    if name == "JPEG" and header and header.bits != 8:
        return f"JPEG with {header.bits} bits a component; OpenCV decodes 8"
    return f"{name} data is cut or damaged"
