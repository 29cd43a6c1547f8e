"""How many bits an image says that its components have, and the largest value. Decodes nothing."""

from preprocess.header import sniff
from preprocess.jpeg2000_header import read_jpeg2000_header
from preprocess.pnm_header import read_pnm_header
from preprocess.tiff_header import read_tiff_header

_BEGINNING_BYTES = 4096
_AV1_HIGH, _AV1_TWELVE = 0x40, 0x20


def declared_maximum(data: bytes) -> int | None:
    """What a PNG's sBIT, a TIFF's MaxSampleValue or bits, a PNM's maxval, a JPEG 2000's or AVIF's bits say.

    Parameters
    ----------
    data : the whole file, of any format

    Returns
    -------
    int, or None where the format or the file says nothing. Never raises on the content of `data`
    """
    kind = sniff(data)
    if kind == "PNG":
        return _of_png(data)
    if kind == "TIFF":
        header = read_tiff_header(data)
        if header is None:
            return None
        highest = (1 << header.bits) - 1
        return int(header.max_value) if header.max_value and 0 < header.max_value < highest else highest
    if kind == "PNM":
        pnm = read_pnm_header(data)
        return pnm.largest if pnm else None
    if kind in ("JPEG 2000", "AVIF"):
        bits = bits_of(data)
        return (1 << bits) - 1 if bits else None
    return None


def bits_of(data: bytes) -> int | None:
    """Bits of a component of a PNM, a JPEG 2000 or an AVIF; None of other formats, and where the file does not say.

    Parameters
    ----------
    data : the whole file, or its beginning
    """
    kind = sniff(data)
    if kind == "PNM":
        pnm = read_pnm_header(data)
        return pnm.largest.bit_length() if pnm else None
    if kind == "JPEG 2000":
        codestream = read_jpeg2000_header(data)
        return codestream.bits[0] if codestream else None
    return _of_avif(data) if kind == "AVIF" else None


def _of_avif(data: bytes) -> int | None:
    """The first av1C is that of the colours: a mark and version, profile and level, then bits that tell the depth."""
    at = data.find(b"av1C")
    if at < 0 or len(data) < at + 7:
        return None
    flags = data[at + 6]
    return 8 if not flags & _AV1_HIGH else 12 if flags & _AV1_TWELVE else 10


def _of_png(data: bytes) -> int | None:
    """sBIT stands between the header and the palette or the pixels; its length is that of one byte a channel."""
    at = data.find(b"sBIT", 33, _BEGINNING_BYTES)
    if at < 0:
        return None
    length = int.from_bytes(data[at - 4 : at])
    bits = data[at + 4 : at + 4 + min(length, 3)]  # alpha, the fourth, does not count
    return (1 << max(bits)) - 1 if bits and 1 <= max(bits) <= 16 else None
