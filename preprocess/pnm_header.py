"""What the header of a PNM or PAM says: size, samples and their largest value. Decodes nothing."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*([0-9]{1,10})(?=[\s#])")
_PAM = re.compile(rb"^(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+([0-9]{1,10})\s*$", re.MULTILINE)
_PAM_END = b"ENDHDR"
_MOST_HEADER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class PnmHeader:
    """The facts of one image.

    Attributes
    ----------
    height, width : pixels
    samples : for each pixel
    largest : the value that means full brightness (maxval); 1 for a bitmap
    plain : its numbers are written as text
    bitmap : one bit a pixel (P1, P4)
    """

    height: int
    width: int
    samples: int
    largest: int
    plain: bool
    bitmap: bool


def read_pnm_header(data: bytes) -> PnmHeader | None:
    """Read the header of a PBM, PGM, PPM (P1 to P6) or PAM (P7); None for other files, and where it makes no sense."""
    kind = data[1:2]
    if data[:1] != b"P" or not kind.isdigit() or not b"1" <= kind <= b"7" or not data[2:3].isspace():
        return None
    if kind == b"7":
        end = data.find(_PAM_END, 0, _MOST_HEADER_BYTES)
        found = {name: int(value) for name, value in _PAM.findall(data[:end])} if end >= 0 else {}
        if set(found) != {b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"}:
            return None
        width, height, samples, largest = (found[name] for name in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
    else:
        numbers, at = [], 2
        for _ in range(2 if kind in b"14" else 3):
            token = _TOKEN.match(data, at, _MOST_HEADER_BYTES)
            if token is None:
                return None
            numbers.append(int(token[1]))
            at = token.end(1)
        width, height, largest = (*numbers, 1)[:3]
        samples = 3 if kind in b"36" else 1
    if not (width and height and samples and 0 < largest < 1 << 16):
        return None
    return PnmHeader(height, width, samples, largest, kind in b"123", kind in b"14")
