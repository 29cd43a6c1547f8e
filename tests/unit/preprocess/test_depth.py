import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from preprocess.depth import bits_of, declared_maximum
from tests.tiffs import Field, tiff

VALUES = np.zeros((40, 50), np.uint16)


def png(bits: bytes | None, colour: bool = False) -> bytes:
    image = np.zeros((4, 5, 3), np.uint16) if colour else np.zeros((4, 5), np.uint16)
    data = cv2.imencode(".png", image)[1].tobytes()
    if bits is None:
        return data
    chunk = struct.pack(">I", len(bits)) + b"sBIT" + bits + struct.pack(">I", zlib.crc32(b"sBIT" + bits))
    return data[:33] + chunk + data[33:]


def jpeg_2000(bits: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(VALUES).save(buffer, "JPEG2000")
    data = bytearray(buffer.getvalue())
    data[data.index(b"\xff\x4f\xff\x51") + 42] = bits - 1
    return bytes(data)


def avif(bits: int) -> bytes:
    """As much of one as says so."""
    flags = {8: 0x0C, 10: 0x4C, 12: 0x6C}[bits]
    return b"\0\0\0\x14ftypavif\0\0\0\0mif1" + b"\0\0\0\x0cav1C\x81\x20" + bytes([flags, 0])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (png(None), None),
        (png(b"\x0c"), 4095),
        (png(b"\x0a\x0c\x0a", colour=True), 4095),
        (png(b"\x00"), None),
        (tiff(VALUES), 65535),
        (tiff(VALUES, bits=12, strip=b""), 4095),
        (tiff(VALUES, fields={281: Field("H", 1023)}), 1023),
        (b"P5 50 40 4095\n", 4095),
        (b"P6\n# maxval 7\n50 40\n1023\n", 1023),
        (b"P7\nWIDTH 5\nHEIGHT 4\nDEPTH 1\nMAXVAL 16383\nENDHDR\n", 16383),
        (jpeg_2000(16), 65535),
        (jpeg_2000(12), 4095),
        (avif(12), 4095),
        (b"", None),
        (b"\xff\xd8\xff", None),
        (b"P5 50", None),
    ],
)
def test_what_a_file_declares(data, expected):
    assert declared_maximum(data) == expected


@pytest.mark.parametrize(
    ("data", "bits"),
    [
        (avif(8), 8),
        (avif(10), 10),
        (avif(12), 12),
        (avif(12)[:-2], None),
        (jpeg_2000(12), 12),
        (b"P5 50 40 255\n", 8),
        (b"P5 50 40 1023\n", 10),
        (b"P6 50 40 65535\n", 16),
        (b"P5 50", None),
        (png(None), None),
    ],
)
def test_the_bits_that_a_header_names(data, bits):
    assert bits_of(data) == bits


@pytest.mark.parametrize("data", [png(b"\x0c"), tiff(VALUES), jpeg_2000(12), b"P5 50 40 4095\n", avif(12)])
def test_a_cut_file_raises_nothing(data):
    for end in range(0, min(len(data), 300)):
        declared_maximum(data[:end])
