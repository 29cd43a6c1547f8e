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
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np

from preprocess.boxes import avif_orientation
from preprocess.depth import bits_of, declared_maximum
from preprocess.errors import SourceError
from preprocess.header import Header, read_header, sniff, unusual_jpeg
from preprocess.levels import BY_MAXIMUM, HIGH, UPPER, Levels, signed, to_8_bits
from preprocess.pnm_header import read_pnm_header
from preprocess.profiles import profile_note
from preprocess.readers import OPENCV, PILLOW, SCALED, TURNED, UNPACKED, reader_of
from preprocess.tiff import Admitted, check_admitted, check_packed, decode_tiff, dropped, tiff_values, why_not
from preprocess.tiff_header import read_tiff_header, with_orientation
from preprocess.unpacked import read_unpacked, scaled

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
    notes : what the decode dropped or left as it is, see `departures.lost_in_decoding`
    reader : the way that the file was read, one of `readers.DECODERS`
    """

    image: np.ndarray
    source_hw: tuple[int, int]
    notes: tuple[str, ...]
    reader: str = OPENCV


def decode(
    data: bytes,
    *,
    channels: str = "rgb",
    max_pixels: int = MAX_PIXELS,
    reduce_to: tuple[int, int] | None = None,
    reader: str | None = None,
    levels: Levels = None,
    extra_channels: str | None = None,
    pages: str | None = None,
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
    reader : read the file in this way, one that a manifest has recorded; None: the way that its header calls for
    levels : (lo, hi): that range of 16-bit values becomes 0..255, linearly, and what is beyond is clipped; images of 8
        bits stay as they are. "high-byte": what None does, whatever it keeps
    extra_channels : "drop": the colours of a TIFF that has more samples than these and one alpha
    pages : "first": the first page of a TIFF that has several

    Returns
    -------
    Decoded : a new array each time. 16-bit components keep their high byte unless `levels` says otherwise; dropped
        alpha uncovers whatever colour lies under transparent pixels, except in a TIFF with unassociated alpha, whose
        colours libtiff multiplies by it where no window is given.

    Raises
    ------
    SourceError : stage "decode": empty, no image, cut or damaged, over the cap, of a kind that the installed OpenCV
        cannot decode; or an image that needs one of the last three arguments: 16-bit values of which fewer than 64 of
        at least 256 would be kept, values below 0, extra samples, pages. The reason says which
    """
    if not data:
        raise SourceError("decode", "empty file")
    try:
        return _decode(data, channels, max_pixels, reduce_to, reader, Admitted(levels, extra_channels, pages))
    except cv2.error as error:
        raise SourceError("decode", f"OpenCV says: {' '.join(error.err.split())}") from error


def _decode(
    data: bytes,
    channels: str,
    max_pixels: int,
    reduce_to: tuple[int, int] | None,
    reader: str | None,
    admitted: Admitted,
) -> Decoded:
    header = read_header(data)
    way = reader or reader_of(data, header)
    if way == PILLOW:
        return _decode_with_pillow(data, header, channels, max_pixels, admitted)
    if way == UNPACKED:
        image, lost = read_unpacked(data, channels, admitted.levels, lambda hw: check_cap(hw, max_pixels))
        return Decoded(image, image.shape[:2], lost + (header_notes(data, header) if header else ()), way)
    if header is None:
        if reader is None and (tiff := read_tiff_header(data)) is not None:
            found = _decode_other(data, channels, max_pixels, admitted, way)
            check_packed(data, tiff)
            return found
        return _decode_other(data, channels, max_pixels, admitted, way)
    if header.indirect and way == OPENCV:
        header = replace(header, orientation=1)
    check_cap(header.upright_hw, max_pixels)
    flags = _KNOWN_FLAGS[channels]
    reduced = reduction(header, reduce_to)

    def stored(more_flags: int = 0) -> np.ndarray:
        image = _imdecode(data, flags | reduced | more_flags)
        if image is None:
            raise SourceError("decode", _why_not(data, header))
        return image

    notes: tuple[str, ...] = ()
    if header.bits <= 8:
        image = stored()
    else:
        image, notes = to_8_bits(
            stored, lambda: stored(cv2.IMREAD_ANYDEPTH), admitted.levels, lambda: declared_maximum(data)
        )
    if header.orientation != 1:
        image = upright(image, header.orientation)
    notes += header_notes(data, header)
    return Decoded(_with_channel_axis(image), header.upright_hw if reduced else image.shape[:2], notes, way)


def deep_values(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray | None:
    """The colours of a file in its own 16-bit values, for a look at their range; None if they have 8 bits.

    Returns
    -------
    uint16 or int16 (H, W, ...), of the first page, without alpha and other samples

    Raises
    ------
    SourceError : as `decode`, apart from what the recipe may admit
    """
    header, tiff, data = read_header(data), read_tiff_header(data), _ended(data)
    if header is not None:
        check_cap(header.upright_hw, max_pixels)
    if tiff is not None:
        check_cap((tiff.height, tiff.width), max_pixels)
        return tiff_values(data, tiff, _imdecode)
    values = _imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if values is None:
        raise SourceError("decode", _why_not(data, header))
    return values if values.dtype.itemsize == 2 and values.dtype.kind in "iu" else None


def header_notes(data: bytes, header: Header) -> tuple[str, ...]:
    """What a decode of a file with this header drops or leaves as it is, its depth apart; as `Decoded.notes`."""
    if not (header.alpha or header.frames or header.profile or header.channels == 4):
        return ()
    notes = ("alpha",) * header.alpha + ("several frames",) * header.frames + ("CMYK",) * (header.channels == 4)
    return notes + profile_note(data) if header.profile else notes


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
        ("16-bit PNG", ".png", deep, (), "the high byte of each component is kept, or decode.levels"),
        ("WebP", ".webp", pixels, (), "first frame"),
        ("BMP", ".bmp", pixels, (), ""),
        ("TIFF", ".tiff", pixels, (), "8 to 16 bits a component; of pages and extra samples what decode says"),
        ("GIF", ".gif", pixels, (), "first frame"),
        ("JPEG 2000", ".jp2", pixels, (), ""),
        ("AVIF", ".avif", pixels, (), ""),
        ("PNM", ".ppm", pixels, (), ""),
        ("Radiance HDR", ".hdr", real, (), "clipped to 0..1"),
        ("OpenEXR", ".exr", real, (), "OpenCV needs to be built with it and OPENCV_IO_ENABLE_OPENEXR=1"),
        ("Sun raster", ".ras", pixels, (), ""),
        ("JPEG XL", ".jxl", pixels, (), ""),
    )
    never = [("HEIC", False, "not supported; convert such files to JPEG or PNG")]
    table = []
    for name, extension, image, parameters, remark in samples:
        try:
            data = bytes(cv2.imencode(extension, image, parameters)[1]) if extension else _CMYK_JPEG
            able = bool(data) and _imdecode(data, cv2.IMREAD_COLOR) is not None
        except (cv2.error, SourceError):
            able = False
        table.append((name, able, remark if able or name == "OpenEXR" else f"not in this OpenCV ({cv2.__version__})"))
    return table + never


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


def _decode_with_pillow(
    data: bytes, header: Header | None, channels: str, max_pixels: int, admitted: Admitted
) -> Decoded:
    from preprocess.pillow_reader import read_with_pillow

    if (tiff := read_tiff_header(data)) is not None:
        check_admitted(tiff, admitted)
    name = header.format if header else sniff(data) or ""
    pixels, notes = read_with_pillow(data, name, channels, max_pixels, admitted.levels)
    notes += header_notes(data, header) if header else (dropped(tiff) if tiff else ()) + profile_note(data)
    return Decoded(pixels, pixels.shape[:2], tuple(dict.fromkeys(notes)), PILLOW)


def _decode_other(data: bytes, channels: str, max_pixels: int, admitted: Admitted, way: str) -> Decoded:
    """Decode what `read_header` cannot read; a second, unchanged decode tells what the first one dropped."""
    tiff, data = read_tiff_header(data), _ended(data)
    turn = 1
    if way == TURNED:
        turn = tiff.orientation if tiff is not None else avif_orientation(data)
        if tiff is not None:
            data = with_orientation(data, 1)
    if tiff is not None:
        check_cap((tiff.height, tiff.width) if tiff.orientation < 5 else (tiff.width, tiff.height), max_pixels)
        check_admitted(tiff, admitted)
        stored = tiff if turn == 1 else replace(tiff, orientation=1)
        found = decode_tiff(data, stored, channels, admitted.levels, _imdecode)
        if found is not None:
            notes = (*found[1], *dropped(tiff), *profile_note(data))
            turned = _with_channel_axis(upright(found[0], turn))
            return Decoded(turned, turned.shape[:2], notes, way)
    flags = _OTHER_FLAGS[channels]
    image = _imdecode(data, flags)
    if image is not None:
        check_cap(image.shape[:2], max_pixels)
    unchanged = _imdecode(data, cv2.IMREAD_UNCHANGED)
    if image is None:
        if unchanged is None:
            raise SourceError("decode", _why_not(data, None))
        if unchanged.ndim == 2:  # gray that OpenCV does not turn into colour, such as a bare JPEG 2000 codestream
            flags = cv2.IMREAD_GRAYSCALE
            image = _imdecode(data, flags)
        if image is None:
            raise SourceError("decode", f"its pixels are {unchanged.dtype}, which OpenCV does not turn into 8 bits")
    if way == SCALED and unchanged is not None:
        image = _scaled(data, unchanged, channels)
    notes = (_notes(unchanged) if tiff is None else dropped(tiff)) + profile_note(data)
    notes += ("several frames",) * (data[4:12] == b"ftypavis")
    if unchanged is not None and unchanged.dtype.kind == "i" and unchanged.min() < 0:
        raise signed(unchanged)
    if unchanged is not None and unchanged.dtype.itemsize == 2:
        shallow, anydepth = image, flags | cv2.IMREAD_ANYDEPTH
        image, depth = to_8_bits(
            lambda: shallow,
            lambda: shallow if (deep := _imdecode(data, anydepth)) is None else deep,
            admitted.levels,
            lambda: declared_maximum(data),
            _depth_kind(data, way),
        )
        notes = depth + notes
    if channels == "rgb":
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB)
    elif image.ndim == 3:  # OpenCV gives colour out of a PFM even when asked for gray
        image = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    image = upright(image, turn)
    return Decoded(_with_channel_axis(image), image.shape[:2], notes, way)


def _ended(data: bytes) -> bytes:
    """The same file; numbers written as text end with a line, as OpenCV takes the end of the data for a cut number."""
    header = read_pnm_header(data)
    return data + b"\n" if header is not None and header.plain and not data[-1:].isspace() else data


def _scaled(data: bytes, unchanged: np.ndarray, channels: str) -> np.ndarray:
    """8-bit pixels, BGR or gray, of a PNM whose largest value becomes 255, or a PFM whose 1.0 does; rounded once."""
    if unchanged.dtype.kind == "f":
        return _as_asked(np.rint(np.clip(np.nan_to_num(unchanged), 0, 1) * 255).astype(np.uint8), channels)
    header = read_pnm_header(data)
    assert header is not None, "its header called for this"
    return _as_asked(scaled(unchanged, header.largest), channels)


def _depth_kind(data: bytes, way: str) -> str:
    """How a file of more than 8 bits, no TIFF, becomes 8 bits; see `to_8_bits`."""
    if way == SCALED:
        return BY_MAXIMUM
    return UPPER if sniff(data) != "PNM" and 8 < (bits_of(data) or 0) < 16 else HIGH


def _as_asked(image: np.ndarray, channels: str) -> np.ndarray:
    """Gray or colour pixels, alpha dropped, as `_OTHER_FLAGS` gives them: BGR, or gray."""
    if image.ndim == 3 and image.shape[2] == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    if channels == "rgb" and image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    return image


def _with_channel_axis(image: np.ndarray) -> np.ndarray:
    return image if image.ndim == 3 else image[:, :, np.newaxis]


def _notes(unchanged: np.ndarray | None) -> tuple[str, ...]:
    """What an unchanged decode shows that one to 8 bits a colour drops; its depth in integers apart."""
    if unchanged is None:
        return ()
    return ("float",) * (unchanged.dtype.kind == "f") + ("alpha",) * (unchanged.ndim == 3 and unchanged.shape[2] == 4)


def check_cap(hw: tuple[int, int], max_pixels: int) -> None:
    """Raise SourceError for a source of more pixels than `decode.max_megapixels` allows."""
    height, width = hw
    if height * width > max_pixels:
        size = f"{width} x {height} = {height * width / 1e6:.9g} Mpx"
        raise SourceError("decode", f"{size} is over the cap of {max_pixels / 1e6:.9g} Mpx (decode.max_megapixels)")


def _why_not(data: bytes, header: Header | None) -> str:
    """The likeliest reason why OpenCV gave None, in one line."""
    from preprocess.pillow_reader import pillow_reads

    name = header.format if header else sniff(data)
    if name is None:
        return f"not an image that OpenCV can decode (starts with {data[:16]!r})"
    if name == "HEIC":
        return "HEIC, which decant does not decode; convert it to JPEG or PNG"
    if name not in {format_ for format_, able, _ in decoder_table() if able}:
        return f"{name}, which this OpenCV ({cv2.__version__}) cannot decode"
    if name == "JPEG" and header and header.bits != 8:
        return f"JPEG with {header.bits} bits a component; OpenCV decodes 8"
    if name == "JPEG" and (kind := unusual_jpeg(data)):
        return f"{kind} JPEG, which this OpenCV ({cv2.__version__}) cannot decode; convert it to PNG"
    tiff = read_tiff_header(data)
    reason = why_not(tiff) if tiff is not None else f"{name} data is cut or damaged"
    if reason.endswith("damaged") and pillow_reads(data):
        return f"{name} of a variant that OpenCV does not read, although Pillow does, is not supported; save it as PNG"
    return reason
