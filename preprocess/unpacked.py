"""Pixels of files whose samples lie in them unpacked, and whose colours OpenCV mixes up: PAM, and BMP with masks."""

import struct
from collections.abc import Callable

import cv2
import numpy as np

from preprocess.errors import SourceError
from preprocess.levels import BY_MAXIMUM, HIGH, Levels, to_8_bits
from preprocess.pnm_header import read_pnm_header

_PAM_END = b"ENDHDR"


def read_unpacked(
    data: bytes, channels: str, levels: Levels, check_cap: Callable[[tuple[int, int]], None]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels, and what was dropped.

    Parameters
    ----------
    data : the whole file, for which `readers.reader_of` said so
    channels : "rgb" or "gray"
    levels : what becomes of 16-bit values, as for `decode.decode`
    check_cap : raises of a (height, width) that is too large

    Returns
    -------
    uint8 (H, W, 3) RGB or (H, W, 1) gray, C-contiguous, a copy; notes as in `decode.Decoded`

    Raises
    ------
    SourceError : stage "decode": cut, over the cap, or masks that are not supported
    """
    if data[:2] == b"BM":
        return _as_asked(_bmp(data, check_cap), channels), ()
    samples, largest = _pam(data, check_cap)
    alpha = ("alpha",) * (samples.shape[2] in (2, 4))
    colours = samples[..., : 3 if samples.shape[2] > 2 else 1]
    if largest > 255:
        values = _as_asked(colours, channels)
        kind = HIGH if largest == 65535 else BY_MAXIMUM
        image, notes = to_8_bits(lambda: scaled(values, largest), lambda: values, levels, lambda: largest, kind)
        return image, notes + alpha
    return _as_asked(scaled(colours, largest), channels), alpha


def scaled(values: np.ndarray, largest: int) -> np.ndarray:
    """Values of 0..`largest` -> uint8, a copy: of 65535 the high byte, else scaled to 0..255 and rounded once."""
    every = np.arange(largest + 1)
    table = every >> 8 if largest == 65535 else (every * 510 + largest) // (2 * largest)
    return table.astype(np.uint8)[np.minimum(values, largest)]


def _pam(data: bytes, check_cap: Callable[[tuple[int, int]], None]) -> tuple[np.ndarray, int]:
    """uint8 or uint16 (H, W, samples), and the value that means full brightness."""
    header = read_pnm_header(data)
    assert header is not None, "its header called for this"
    check_cap((header.height, header.width))
    shape = header.height, header.width, header.samples
    start = data.index(b"\n", data.index(_PAM_END)) + 1
    values = _values(data, start, ">u2" if header.largest > 255 else "u1", shape, "PAM")
    return values.astype(np.uint16 if header.largest > 255 else np.uint8), header.largest


def _bmp(data: bytes, check_cap: Callable[[tuple[int, int]], None]) -> np.ndarray:
    """uint8 (H, W, 3) RGB of a bitmap that says which bits of a pixel are red, green and blue."""
    (start,) = struct.unpack_from("<I", data, 10)
    width, height, pixel_bits = struct.unpack_from("<ii2xH", data, 18)
    masks = struct.unpack_from("<III", data, 54)
    check_cap((abs(height), width))
    stored = 32 * -(-width * pixel_bits // 32) // pixel_bits  # a row ends at a multiple of four bytes
    values = _values(data, start, f"<u{pixel_bits // 8}", (abs(height), stored), "BMP")[:, :width]
    planes = []
    for mask in masks:
        low = mask & -mask
        largest = mask // low if low else 0
        if not largest or largest & (largest + 1) or largest > 255 or mask >> pixel_bits:
            shown = ", ".join(f"{each:08x}" for each in masks)
            raise SourceError("decode", f"BMP with the colour masks {shown}, which is not supported; save it as PNG")
        planes.append(scaled((values & mask) // low, largest))
    return np.stack(planes, axis=-1)[:: 1 if height < 0 else -1]  # the lowest row comes first


def _values(data: bytes, start: int, kind: str, shape: tuple[int, ...], name: str) -> np.ndarray:
    count, dtype = int(np.prod(shape, dtype=np.int64)), np.dtype(kind)
    if len(data) < start + count * dtype.itemsize:
        there = max(0, len(data) - start)
        raise SourceError(
            "decode", f"{name} data is cut: {count * dtype.itemsize:,} bytes of pixels expected, {there:,} found"
        )
    return np.frombuffer(data, dtype, count, start).reshape(shape)


def _as_asked(pixels: np.ndarray, channels: str) -> np.ndarray:
    """(H, W, 1 or 3) of 8 or 16 bits -> (H, W, 3) RGB or (H, W, 1) gray, C-contiguous."""
    pixels = np.ascontiguousarray(pixels)
    if channels == "gray" and pixels.shape[2] == 3:
        return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., np.newaxis]
    return np.repeat(pixels, 3, axis=2) if channels == "rgb" and pixels.shape[2] == 1 else pixels
