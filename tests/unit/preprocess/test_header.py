import io
import os
import random
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from preprocess.header import IMAGE_EXTENSIONS, Header, read_header, sniff

HEIGHT, WIDTH = 24, 40
OPENCV_5 = pytest.mark.skipif(int(cv2.__version__.split(".")[0]) < 5, reason="OpenCV 4 does not turn these by itself")


def picture(mode: str = "RGB") -> Image.Image:
    """A smooth picture without any symmetry, so that all eight orientations of it differ."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = np.stack([x * 6, y * 10, (x + 2 * y) * 2, 255 - x * 3], axis=-1).astype(np.uint8)
    if mode == "RGBA":
        return Image.fromarray(planes)
    rgb = Image.fromarray(np.ascontiguousarray(planes[..., :3]))
    if mode == "LA":
        return Image.merge("LA", [rgb.convert("L"), Image.fromarray(planes[..., 3])])
    if mode == "I;16":
        return Image.fromarray(planes[..., 0].astype(np.uint16) * 257)
    return rgb.quantize(16) if mode == "P" else rgb.convert(mode)


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def tiff_block(orientation: int, order: str = "<", before: bytes = b"") -> bytes:
    """An EXIF block whose only directory holds the raw entries `before` and the orientation."""
    entries = before + struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(order + "HIH", 42, 8, len(entries) // 12) + entries + bytes(4)


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def exif(orientation: int, order: str = "<", before: bytes = b"") -> bytes:
    return segment(0xE1, b"Exif\0\0" + tiff_block(orientation, order, before))


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


JPEG = encode(picture(), "JPEG")
PNG = encode(picture(), "PNG")
XMP = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>")
SCAN = JPEG.index(b"\xff\xda")
FRAME = JPEG.index(b"\xff\xc0")


def jpeg_with(*segments: bytes, at: int = 2) -> bytes:
    return JPEG[:at] + b"".join(segments) + JPEG[at:]


def png_with(*chunks: bytes, at: int = 33) -> bytes:
    return PNG[:at] + b"".join(chunks) + PNG[at:]


def orientation_of_opencv(data: bytes) -> int:
    """The orientation that OpenCV applies, found by comparing what it gives with and without."""
    buffer = np.frombuffer(data, np.uint8)
    stored = cv2.imdecode(buffer, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    turned = cv2.imdecode(buffer, cv2.IMREAD_COLOR)
    swapped = stored.transpose(1, 0, 2)
    expected = [
        *(stored, stored[:, ::-1], stored[::-1, ::-1], stored[::-1]),
        *(swapped, swapped[:, ::-1], swapped[::-1, ::-1], swapped[::-1]),
    ]
    (found,) = (n for n, image in enumerate(expected, 1) if np.array_equal(image, turned))
    return found


def samples() -> dict[str, bytes]:
    """One real file of every kind that the parser tells apart."""
    return {
        "jpeg": JPEG,
        "jpeg exif": jpeg_with(exif(6, ">")),
        "jpeg gray": encode(picture("L"), "JPEG"),
        "jpeg cmyk": encode(picture("CMYK"), "JPEG"),
        "jpeg progressive": encode(picture(), "JPEG", progressive=True),
        "png": PNG,
        "png exif": png_with(png_chunk(b"eXIf", tiff_block(5))),
        "png palette": encode(picture("P"), "PNG", transparency=b"\0\x80"),
        "webp lossy": encode(picture(), "WEBP"),
        "webp lossless": encode(picture("RGBA"), "WEBP", lossless=True),
        "webp extended": encode(picture("RGBA"), "WEBP", exif=tiff_block(8)),
        "bmp": encode(picture(), "BMP"),
        "bmp palette": encode(picture("P"), "BMP"),
        "gif": encode(picture("P"), "GIF", transparency=3, comment=b"hello"),
    }


# JPEG


@pytest.mark.parametrize(
    ("mode", "options", "channels", "baseline"),
    [("RGB", {}, 3, True), ("L", {}, 1, True), ("CMYK", {}, 4, True), ("RGB", {"progressive": True}, 3, False)],
)
def test_jpeg(mode, options, channels, baseline):
    header = read_header(encode(picture(mode), "JPEG", **options))
    assert header == Header("JPEG", HEIGHT, WIDTH, channels, 8, False, 1, baseline)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_orientation_is_the_one_that_opencv_applies(orientation, order):
    data = jpeg_with(exif(orientation, order))
    header = read_header(data)
    assert header.orientation == orientation == orientation_of_opencv(data)
    assert (header.height, header.width) == (HEIGHT, WIDTH)
    assert header.upright_hw == cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape[:2]


OTHER_ENTRY = struct.pack("<HHII", 0x0100, 4, 1, 7)
ODD_JPEGS = {
    "out of range, low": (jpeg_with(exif(0)), 1),
    "out of range, high": (jpeg_with(exif(9)), 1),
    "not the first entry": (jpeg_with(exif(6, before=OTHER_ENTRY * 20)), 6),
    "the first of two blocks": (jpeg_with(exif(6), exif(3)), 6),
    "the first block is out of range": (jpeg_with(exif(9), exif(3)), 1),
    "behind the frame header": (jpeg_with(exif(6), at=SCAN), 6),
    "fill bytes": (jpeg_with(b"\xff\xff\xff", exif(6)), 6),
    "marker without a length": (jpeg_with(b"\xff\x01", exif(6)), 6),
    "restart marker": (jpeg_with(b"\xff\xd3", exif(6)), 6),
    "no zeros after Exif": (jpeg_with(XMP, segment(0xE1, b"exif\0\0" + tiff_block(6))), 1),
    "not a TIFF block": (jpeg_with(segment(0xE1, b"Exif\0\0XX" + tiff_block(6)[2:])), 1),
    "wrong magic": (jpeg_with(segment(0xE1, b"Exif\0\0II+\0" + tiff_block(6)[4:])), 1),
    "directory outside": (jpeg_with(segment(0xE1, b"Exif\0\0II*\0" + b"\xff" * 4 + tiff_block(6)[8:])), 1),
    "more entries claimed than there": (jpeg_with(segment(0xE1, b"Exif\0\0" + tiff_block(6)[:8] + b"\xff" * 2)), 1),
}


@pytest.mark.parametrize("name", ODD_JPEGS)
def test_odd_exif_in_a_jpeg(name):
    data, orientation = ODD_JPEGS[name]
    assert read_header(data).orientation == orientation == orientation_of_opencv(data)


@OPENCV_5
@pytest.mark.parametrize("first", [XMP, segment(0xE1, b"Exif\0\0XX"), segment(0xE1, b"")])
def test_exif_that_is_not_the_first_app1_segment(first):
    data = jpeg_with(first, exif(6))
    assert read_header(data).orientation == 6 == orientation_of_opencv(data)


def test_a_broken_entry_does_not_hide_the_orientation():
    maker_outside = struct.pack("<HHII", 0x010F, 2, 400, 9999)
    assert read_header(jpeg_with(exif(6, before=maker_outside))).orientation == 6


def test_a_frame_inside_a_thumbnail_or_comment_is_not_the_frame():
    thumbnail = segment(0xE0, b"JFXX\0\x10" + encode(picture().resize((8, 8)), "JPEG")[:600])
    assert read_header(jpeg_with(thumbnail)).upright_hw == (HEIGHT, WIDTH)


def test_bytes_between_segments_are_skipped():
    assert read_header(jpeg_with(b"\0\xff\0abc", at=FRAME)).upright_hw == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("at", "patch"),
    [
        (2, b"\0\x14"),
        (4, b"\0"),
        (4, b"\x21"),
        (5, b"\0\0"),
        (7, b"\0\0"),
        (2, struct.pack(">HBHHB", 8, 8, HEIGHT, WIDTH, 0)),
        (2, struct.pack(">HBHHB", 23, 8, HEIGHT, WIDTH, 5)),
    ],
    ids=["length", "0 bits", "33 bits", "height 0", "width 0", "0 components", "5 components"],
)
def test_a_frame_header_that_makes_no_sense(at, patch):
    frame = JPEG[FRAME : FRAME + at] + patch + JPEG[FRAME + at + len(patch) : FRAME + 19]
    comment = segment(0xFE, bytes(20))  # so that the next marker is found whatever the length says
    assert read_header(JPEG[:FRAME] + frame + comment + JPEG[SCAN:]) is None
    assert read_header(JPEG[: FRAME + 19] + comment + JPEG[SCAN:]) is not None


def test_a_jpeg_is_none_until_its_first_scan():
    assert all(read_header(JPEG[:end]) is None for end in range(SCAN + 4))
    assert read_header(JPEG[: SCAN + 4]) is not None
    assert read_header(jpeg_with(b"\xff\xd9\0\2", at=SCAN)) is None, "an end before the scan"
    assert read_header(jpeg_with(b"\xff\xd8\0\2", at=SCAN)) is None, "a second start"
    assert read_header(JPEG[:FRAME] + JPEG[SCAN:]) is None, "a scan without a frame"
    assert read_header(JPEG[:2] + b"\xff\xfe\0\1" + JPEG[2:]) is None, "a segment shorter than its own length field"


def test_a_walk_over_endless_segments_ends():
    assert read_header(b"\xff\xd8" + b"\xff\xfe\0\2" * 100_000 + JPEG[2:]) is None
    assert read_header(b"\xff\xd8" + b"\xff" * 1_000_000) is None


# PNG


@pytest.mark.parametrize(
    ("mode", "channels", "bits", "alpha"),
    [
        ("1", 1, 1, False),
        ("L", 1, 8, False),
        ("I;16", 1, 16, False),
        ("LA", 1, 8, True),
        ("RGB", 3, 8, False),
        ("RGBA", 3, 8, True),
        ("P", 3, 8, False),
    ],
)
def test_png(mode, channels, bits, alpha):
    header = read_header(encode(picture(mode), "PNG"))
    assert header == Header("PNG", HEIGHT, WIDTH, channels, bits, alpha, 1, False)


@pytest.mark.parametrize(("mode", "transparency"), [("P", b"\0\x80"), ("L", 7), ("RGB", (1, 2, 3))])
def test_png_with_a_transparent_colour(mode, transparency):
    assert read_header(encode(picture(mode), "PNG", transparency=transparency)).alpha


@pytest.mark.parametrize("at", [33, len(PNG) - 12], ids=["before the pixels", "behind the pixels"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_png_orientation_is_the_one_that_opencv_applies(orientation, at):
    data = png_with(png_chunk(b"eXIf", tiff_block(orientation, ">")), at=at)
    assert read_header(data).orientation == orientation == orientation_of_opencv(data)


def test_png_takes_the_first_exif_chunk_and_forgives_jpegs_prefix():
    two = png_with(png_chunk(b"eXIf", tiff_block(6)), png_chunk(b"eXIf", tiff_block(3)))
    assert read_header(two).orientation == 6 == orientation_of_opencv(two)
    prefixed = png_with(png_chunk(b"eXIf", b"Exif\0\0" + tiff_block(6)))
    assert (read_header(prefixed).orientation, read_header(prefixed).indirect) == (6, True)  # OpenCV does not see it


def test_png_needs_all_up_to_its_pixels_and_nothing_behind():
    pixels = PNG.index(b"IDAT") + 4
    assert all(read_header(PNG[:end]) is None for end in range(pixels))
    assert all(read_header(PNG[:end]) == read_header(PNG) for end in range(pixels, len(PNG)))


@pytest.mark.parametrize(
    "ihdr",
    [
        struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0),
        struct.pack(">IIBBBBB", 5, 0, 8, 2, 0, 0, 0),
        struct.pack(">IIBBBBB", 1 << 31, 5, 8, 2, 0, 0, 0),
        struct.pack(">IIBBBBB", 5, 5, 4, 2, 0, 0, 0),
        struct.pack(">IIBBBBB", 5, 5, 8, 5, 0, 0, 0),
    ],
    ids=["width 0", "height 0", "width 2^31", "4-bit RGB", "colour type 5"],
)
def test_a_png_header_that_makes_no_sense(ihdr):
    assert read_header(PNG[:8] + png_chunk(b"IHDR", ihdr) + PNG[33:]) is None


def test_png_without_header_or_pixels():
    assert read_header(PNG[:8] + png_chunk(b"CgBI", bytes(4)) + PNG[8:]) is None, "Apple's variant, which needs iOS"
    assert read_header(PNG[:12] + b"XHDR" + PNG[16:]) is None
    assert read_header(PNG[:11] + b"\x0e" + PNG[12:]) is None, "a header of 14 bytes"
    assert read_header(PNG[:33] + PNG[-12:]) is None, "no pixels"


# WebP


@pytest.mark.parametrize(
    ("mode", "options", "kind", "alpha"),
    [
        ("RGB", {}, b"VP8 ", False),
        ("RGB", {"lossless": True}, b"VP8L", False),
        ("RGBA", {"lossless": True}, b"VP8L", True),
        ("RGBA", {}, b"VP8X", True),
        ("RGB", {"icc_profile": b"profile"}, b"VP8X", False),
        ("RGB", {"save_all": True, "append_images": [picture().rotate(180)]}, b"VP8X", False),
    ],
)
def test_webp(mode, options, kind, alpha):
    data = encode(picture(mode), "WEBP", **options)
    assert data[12:16] == kind
    profile = "icc_profile" in options
    assert read_header(data) == Header("WebP", HEIGHT, WIDTH, 3, 8, alpha, 1, False, profile, "save_all" in options)


def webp_with_exif(payload: bytes, profile: bytes = b"") -> bytes:
    """An extended file whose EXIF chunk, the last one, holds just these bytes."""
    data = encode(picture(), "WEBP", lossless=True, exif=tiff_block(1), icc_profile=profile)
    data = data[: data.index(b"EXIF")] + struct.pack("<4sI", b"EXIF", len(payload)) + payload
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


@OPENCV_5
@pytest.mark.parametrize("profile", [b"", b"of odd length"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_webp_orientation_is_the_one_that_opencv_applies(orientation, profile):
    data = webp_with_exif(tiff_block(orientation), profile)
    assert read_header(data).orientation == orientation == orientation_of_opencv(data)


def test_webp_forgives_jpegs_prefix():
    data = webp_with_exif(b"Exif\0\0" + tiff_block(6))
    assert (read_header(data).orientation, read_header(data).indirect) == (6, True)  # OpenCV does not see it


@OPENCV_5
def test_webp_whose_header_denies_its_exif_chunk():
    data = bytearray(encode(picture(), "WEBP", exif=tiff_block(6)))
    data[20] &= ~0x08
    assert read_header(bytes(data)).orientation == 1 == orientation_of_opencv(bytes(data))


def test_webp_sizes_of_all_bits():
    lossless = struct.pack("<4sI4s4sIBI", b"RIFF", 0, b"WEBP", b"VP8L", 5, 0x2F, 16383 | 8190 << 14)
    assert read_header(lossless).upright_hw == (8191, 16384)
    upscaled = b"RIFF\0\0\0\0WEBPVP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a\x05\x40\x06\x80"
    assert read_header(upscaled).upright_hw == (6, 5)
    extended = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\xff\xff" + b"\x0f\0\0"
    assert read_header(extended).upright_hw == (16, 1 << 24)


@pytest.mark.parametrize(
    "body",
    [
        b"VP8 \x0a\0\0\0\x01\0\0\x9d\x01\x2a\x05\0\x05\0",
        b"VP8 \x0a\0\0\0\x00\0\0\x9d\x01\x2b\x05\0\x05\0",
        b"VP8 \x0a\0\0\0\x00\0\0\x9d\x01\x2a\x00\0\x05\0",
        b"VP8L\x05\0\0\0\x2e\0\0\0\0",
        b"VP8L\x05\0\0\0\x2f\0\0\0\x20",
        b"VP8X\x0a\0\0\0" + bytes(9),
        b"VP9 \x0a\0\0\0" + bytes(20),
    ],
    ids=["no key frame", "start code", "width 0", "signature", "version", "cut", "unknown chunk"],
)
def test_a_webp_header_that_makes_no_sense(body):
    assert read_header(b"RIFF\0\0\0\0WEBP" + body) is None


# BMP


def bmp(header_bytes: int, height: int, pixel_bits: int, alpha_mask: int = 0) -> bytes:
    head = struct.pack("<IiiHHI", header_bytes, WIDTH, height, 1, pixel_bits, 3 if alpha_mask else 0)
    head = (head + bytes(32) + struct.pack("<I", alpha_mask)).ljust(header_bytes, b"\0")[:header_bytes]
    return b"BM" + bytes(12) + head


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1"])
def test_bmp(mode):
    assert read_header(encode(picture(mode), "BMP")) == Header("BMP", HEIGHT, WIDTH, 3, 8, False, 1, False)


def test_bmp_kinds():
    assert read_header(bmp(40, -HEIGHT, 24)).upright_hw == (HEIGHT, WIDTH), "top row first"
    core = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 8)
    assert read_header(core).upright_hw == (HEIGHT, WIDTH), "OS/2"
    assert read_header(bmp(40, HEIGHT, 16)).bits == 5
    assert not read_header(bmp(40, HEIGHT, 32)).alpha, "padding"
    assert not read_header(bmp(108, HEIGHT, 32)).alpha, "a mask of zero"
    assert read_header(bmp(108, HEIGHT, 32, 0xFF000000)).alpha
    assert not read_header(bmp(108, HEIGHT, 24, 0xFF000000)).alpha


def test_a_bmp_header_that_makes_no_sense():
    assert read_header(b"BMW is not a bitmap, and this text is long enough for one") is None
    assert read_header(bmp(40, 0, 24)) is None
    assert read_header(bmp(40, HEIGHT, 7)) is None
    assert read_header(bmp(108, HEIGHT, 32, 0xFF000000)[:60]) is None, "cut before the mask"


# GIF


@pytest.mark.parametrize(
    ("options", "alpha"),
    [
        ({}, False),
        ({"transparency": 3}, True),
        ({"comment": b"a comment before the frame", "transparency": 3}, True),
        ({"save_all": True, "append_images": [picture("P").rotate(180)], "duration": 40}, False),
    ],
)
def test_gif(options, alpha):
    header = read_header(encode(picture("P"), "GIF", **options))
    assert header == Header("GIF", HEIGHT, WIDTH, 3, 8, alpha, 1, False, frames="save_all" in options)


def test_a_gif_header_that_makes_no_sense():
    data = encode(picture("P"), "GIF")
    assert read_header(data[:13] + bytes(len(data))) is None, "no frame"
    assert read_header(data[:6] + bytes(2) + data[8:]) is None, "width 0"
    assert read_header(data[:20]) is None, "cut inside the palette"


# All of them


@pytest.mark.parametrize("data", [b"", b"\xff", b"\xff\xd8\xff", b"BM", b"P", b"<!DOCTYPE html>", bytes(100)])
def test_what_is_no_image(data):
    assert read_header(data) is None


def test_other_formats_are_left_to_the_decoder():
    assert read_header(encode(picture(), "TIFF")) is None
    assert read_header(encode(picture(), "PPM")) is None


@pytest.mark.parametrize("name", samples())
def test_hostile_bytes_never_raise(name):
    data = samples()[name]
    assert read_header(data) is not None
    for end in range(min(len(data), 1500)):
        read_header(data[:end])
    chance = random.Random(name)
    for _ in range(1500):
        damaged = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(min(len(data), chance.choice((40, 200, len(data)))))
            damaged[at] = chance.choice((0, 0xFF, damaged[at] ^ 1 << chance.randrange(8)))
        header = read_header(bytes(damaged[: chance.choice((len(data), chance.randrange(len(data))))]))
        if header is not None:
            assert header.height > 0
            assert header.width > 0
            assert 1 <= header.orientation <= 8
            assert 1 <= header.channels <= 4


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (JPEG[:10], "JPEG"),
        (PNG[:10], "PNG"),
        (b"RIFF\0\0\0\0WEBP", "WebP"),
        (b"GIF89a", "GIF"),
        (b"BM", "BMP"),
        (b"MM\0*", "TIFF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\0\0\0\x20ftypavif", "AVIF"),
        (b"\0\0\0\x20ftypheic", "HEIC"),
        (b"P6\n4 4\n255\n", "PNM"),
        (b"Pumpkin", None),
        (b"P", None),
        (b"", None),
    ],
)
def test_sniff(data, name):
    assert sniff(data) == name


def test_extensions_include_those_of_torchvision():
    assert {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"} <= IMAGE_EXTENSIONS
    assert all(e == e.lower() and e.startswith(".") for e in IMAGE_EXTENSIONS)


def test_the_scanner_pays_for_no_codec():
    code = "import sys, preprocess.header; sys.exit(not {'cv2', 'numpy'}.isdisjoint(sys.modules))"
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def photos() -> list[Path]:
    folder = os.environ.get("DECANT_PHOTOS") or Path(__file__).parents[4] / "shared" / "photos"
    paths = sorted(p for p in Path(folder).glob("**/*") if p.suffix.lower() in IMAGE_EXTENSIONS)
    return paths[:: max(1, len(paths) // 200)][:200]


@pytest.mark.skipif(not photos(), reason="no photos: set DECANT_PHOTOS to a folder of images")
def test_headers_of_real_photos():
    for path in photos():
        data = path.read_bytes()
        header = read_header(data)
        assert header is not None, path
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert header.upright_hw == image.shape[:2], path
