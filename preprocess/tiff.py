"""TIFFs that need more than a call of OpenCV: several pages, extra samples, 10 to 16 bits, signs."""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np

from preprocess.depth import declared_maximum
from preprocess.errors import SourceError
from preprocess.levels import HIGH, UPPER, Levels, signed, to_8_bits
from preprocess.tiff_header import COLOUR_SAMPLES, TiffHeader
from preprocess.tiff_samples import is_plain, packed_blocks, read_samples

Imdecode = Callable[[bytes, int], np.ndarray | None]

_PACKED_BITS = (10, 12, 14)
_MIN_IS_WHITE, _INKS, _LAB = 0, 5, (8, 9, 10)
_COMPRESSIONS = frozenset({1, 2, 3, 4, 5, 7, 8, 32773, 32946})
"""None, three of fax machines, LZW, JPEG, deflate, PackBits, deflate by its old number: what OpenCV's libtiff has."""
_DEFLATE, _CODES, _USUAL = (8, 32946), (5, 32773), (1, 2, 3)
_UNSPECIFIED = 0
_SIGN = np.uint16(0x8000)
_OTHER_KINDS = {3: "float", 4: "undefined", 5: "complex integer", 6: "complex"}


class Admitted(NamedTuple):
    """What the recipe says of files that would be refused, see `decode.decode`."""

    levels: Levels = None
    extra_channels: str | None = None
    pages: str | None = None


def check_admitted(header: TiffHeader, admitted: Admitted) -> None:
    """Refuse a file of which a decode would drop pages or channels, unless the recipe says so.

    Raises
    ------
    SourceError : the reason says what to write into the recipe
    """
    if header.is_thumbnail:
        raise SourceError(
            "decode",
            f"TIFF whose first image, {header.width} x {header.height}, is a thumbnail of another one in the file; "
            "save that one as a file of its own",
        )
    found, keys, kept = [], [], []
    if header.pages > 1 and admitted.pages is None:
        found.append(f"{header.pages:,} pages")
        keys.append("pages: first")
        kept.append("the first page")
    if header.surplus and admitted.extra_channels is None:
        found.append(f"{header.samples:,} samples a pixel")
        keys.append("extra_channels: drop")
        kept.append("gray" if COLOUR_SAMPLES.get(header.photometric, 1) == 1 else "the colours")
    if found:
        raise SourceError(
            "decode",
            f"TIFF with {' and '.join(found)}; write decode: {{{', '.join(keys)}}} in the recipe to keep "
            f"{' and '.join(kept)} alone",
        )


def decode_tiff(
    data: bytes, header: TiffHeader, channels: str, levels: Levels, imdecode: Imdecode
) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """Decode a file of extra samples, of 10 to 16 bits, or of signed values.

    Parameters
    ----------
    imdecode : as `cv2.imdecode` does; may raise SourceError

    Returns
    -------
    uint8 (H, W) or (H, W, 3) RGB, upright, and notes on its depth; None of any other file: OpenCV decodes it

    Raises
    ------
    SourceError : as for `decode.decode`
    """
    deep = header.bits in (*_PACKED_BITS, 16) and header.sample_format in (1, 2, 4)
    if not (deep or header.surplus or header.sample_format == 2):
        return None
    packed_planes = header.bits in _PACKED_BITS and header.planar and header.samples > 1
    if packed_planes or (header.surplus and not is_plain(header)):
        raise SourceError("decode", why_not(header))
    if not deep and not is_plain(header):
        return None

    def shallow() -> np.ndarray:
        image = None if header.surplus else _opencvs(data, channels, imdecode)
        if image is None:
            image = np.right_shift(values(), header.bits - 8).astype(np.uint8)
            image = 255 - image if header.photometric == _MIN_IS_WHITE else image
        return image

    def values() -> np.ndarray:
        return _values(data, header, channels, imdecode)

    if header.sample_format == 2 and not (deep and isinstance(levels, tuple)) and (found := values()).min() < 0:
        raise signed(found)
    if deep:
        kind = HIGH if header.bits == 16 else UPPER
        image, notes = to_8_bits(shallow, values, levels, lambda: declared_maximum(data), kind)
    else:
        image, notes = shallow(), ()
    if isinstance(levels, tuple) and deep and header.photometric == _MIN_IS_WHITE:
        image = 255 - image
    return _as_wanted(image, channels), notes


def tiff_values(data: bytes, header: TiffHeader, imdecode: Imdecode) -> np.ndarray | None:
    """The file's own values, uint16 or int16; None if they have not 10 to 16 bits. Raises as `decode_tiff`."""
    if header.bits not in (*_PACKED_BITS, 16) or header.sample_format not in (1, 2, 4):
        return None
    if header.surplus and not is_plain(header):
        raise SourceError("decode", why_not(header))
    return _values(data, header, "rgb", imdecode)


def dropped(header: TiffHeader) -> tuple[str, ...]:
    """Notes on what a decode leaves out of a file that is admitted."""
    extra = header.samples - COLOUR_SAMPLES.get(header.photometric, header.samples)
    # A sample of which nothing is said at all is taken for alpha by most readers.
    alpha = extra == 1 and header.extra_samples[:1] != (_UNSPECIFIED,)
    notes = ("alpha",) * alpha + ("extra channels",) * (extra > 0 and not alpha)
    notes = (*notes, *("several pages",) * (header.pages > 1), *("CMYK",) * (header.photometric == _INKS))
    return (*notes, *("CIE Lab",) * (header.photometric in _LAB))


def check_packed(data: bytes, header: TiffHeader) -> None:
    """Refuse a file whose packed data are damaged inside: OpenCV passes on the black that libtiff puts there.

    Deflate has a checksum for each strip or tile. Damage in LZW and PackBits is found by Pillow, in kinds of files that
    it knows well; in data packed like a JPEG's or a fax's it shows in the picture alone.

    Raises
    ------
    SourceError : stage "decode"
    """
    if header.compression in _DEFLATE:
        for number, block in enumerate(blocks := packed_blocks(data)):
            unpacking, said = zlib.decompressobj(), "it ends early"
            try:
                unpacking.decompress(block)
            except zlib.error as error:
                said = str(error)
            if not unpacking.eof:
                what = f"TIFF data is damaged: part {number + 1:,} of {len(blocks):,} does not unpack ({said})"
                raise SourceError("decode", what)
    elif header.compression in _CODES and header.bits == 8 and header.photometric in _USUAL and not header.planar:
        from preprocess.pillow_reader import complaint

        if said := complaint(data):
            raise SourceError("decode", f"TIFF data is damaged: {said}")


def why_not(header: TiffHeader) -> str:
    """The likeliest reason why a file that is admitted cannot be decoded."""
    usual = header.bits in (*_PACKED_BITS, 8, 16) and header.sample_format == 1 and header.samples <= 4
    usual = usual and not (header.bits > 8 and (header.photometric == _INKS or (header.bits < 16 and header.planar)))
    if (usual and header.compression in _COMPRESSIONS) or is_plain(header):
        return "TIFF data is cut or damaged"
    kind = _OTHER_KINDS.get(header.sample_format, "signed" if header.sample_format == 2 else "")
    words = f"TIFF with {header.bits}-bit {f'{kind} ' * bool(kind)}samples, {header.samples:,} a pixel"
    more = f"photometric interpretation {header.photometric}, compression {header.compression}"
    more += ", in planes" * header.planar
    return f"{words} ({more}), is not supported"


def _opencvs(data: bytes, channels: str, imdecode: Imdecode) -> np.ndarray | None:
    """What OpenCV makes of it: uint8, upright, 0 is black."""
    image = imdecode(data, cv2.IMREAD_COLOR if channels == "rgb" else cv2.IMREAD_GRAYSCALE)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if image is not None and channels == "rgb" else image


def _values(data: bytes, header: TiffHeader, channels: str, imdecode: Imdecode) -> np.ndarray:
    """The file's own values, upright: (H, W) or (H, W, 3) RGB, as the file has them or gray is asked for.

    Raises
    ------
    SourceError : OpenCV gives none
    """
    from preprocess.decode import upright

    values = read_samples(data, header, lambda one: imdecode(one, cv2.IMREAD_UNCHANGED)) if is_plain(header) else None
    if values is not None:
        values = upright(values[..., 0] if values.shape[2] == 1 else values, header.orientation)
    else:
        values = imdecode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if values is None or values.dtype.itemsize != 2:
            raise SourceError("decode", why_not(header))
        values = cv2.cvtColor(values, cv2.COLOR_BGR2RGB)
        values = np.right_shift(values, 16 - header.bits)  # OpenCV moves 10 to 14 bits up
        if COLOUR_SAMPLES.get(header.photometric) == 1:
            values = values[..., 0]
    return _gray(values) if channels == "gray" else values


def _gray(values: np.ndarray) -> np.ndarray:
    """RGB -> gray, as OpenCV weighs them; of signed values, which it does not weigh, moved up and back."""
    if values.ndim == 2:
        return values
    if values.dtype != np.int16:
        return cv2.cvtColor(values, cv2.COLOR_RGB2GRAY)
    moved = cv2.cvtColor(np.bitwise_xor(values.view(np.uint16), _SIGN), cv2.COLOR_RGB2GRAY)
    return np.bitwise_xor(moved, _SIGN).view(np.int16)


def _as_wanted(image: np.ndarray, channels: str) -> np.ndarray:
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if channels == "rgb" and image.ndim == 2 else image
