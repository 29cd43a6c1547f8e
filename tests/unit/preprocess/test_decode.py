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

import preprocess.decode
from preprocess.decode import decoder_table, upright
from preprocess.errors import SourceError
from preprocess.header import IMAGE_EXTENSIONS, read_header
from preprocess.levels import apply_window

HEIGHT, WIDTH = 36, 56  # OpenJPEG writes nothing smaller than 32
ABLE = {name for name, able, _ in decoder_table() if able}
ROOT = Path(__file__).parents[3]


def pixels(channels: int = 3, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Smooth, and without any symmetry: no flip, turn or swap of channels leaves it as it is."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 240 // width, y * 230 // height, (x + y) * 60 // (height + width), 255 - x * 200 // width]
    return np.stack(planes[:channels], axis=-1).astype(np.uint8)


def picture(mode: str = "RGB") -> Image.Image:
    if mode == "RGBA":
        return Image.fromarray(pixels(4))
    if mode == "LA":
        return Image.merge("LA", [picture("L"), picture("RGBA").getchannel("A")])
    if mode == "I;16":
        return Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257)
    if mode == "F":
        return Image.fromarray(pixels()[..., 0].astype(np.float32))
    rgb = Image.fromarray(pixels())
    return rgb.quantize(16) if mode == "P" else rgb.convert(mode)


def encode(image: Image.Image, file_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def cv2_encode(extension: str, image: np.ndarray) -> bytes:
    return cv2.imencode(extension, image)[1].tobytes()


def cv2_decode(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def exif(orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


def second() -> dict[str, object]:
    return {"save_all": True, "append_images": [picture("P").rotate(180)], "duration": 40}


def huge_png(width: int, height: int) -> bytes:
    """A few dozen bytes that promise width x height pixels."""

    def chunk(kind: bytes, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def decode(data: bytes, **options) -> preprocess.decode.Decoded:
    """The decoder under test, which takes several pages only when told to."""
    return preprocess.decode.decode(data, **({"pages": "first"} | options))


def reason(data: bytes, **options) -> str:
    with pytest.raises(SourceError) as caught:
        decode(data, **options)
    assert caught.value.stage == "decode"
    assert "\n" not in caught.value.reason
    return caught.value.reason


FILES = {
    "JPEG": encode(picture(), "JPEG"),
    "JPEG 4:4:4": encode(picture(), "JPEG", subsampling=0),
    "JPEG gray": encode(picture("L"), "JPEG"),
    "JPEG progressive": encode(picture(), "JPEG", progressive=True),
    "JPEG CMYK": encode(picture("CMYK"), "JPEG"),
    "PNG": encode(picture(), "PNG"),
    "PNG gray": encode(picture("L"), "PNG"),
    "PNG 1 bit": encode(picture("1"), "PNG"),
    "PNG palette": encode(picture("P"), "PNG"),
    "PNG palette, tRNS": encode(picture("P"), "PNG", transparency=b"\0\x80"),
    "PNG gray, tRNS": encode(picture("L"), "PNG", transparency=7),
    "PNG gray, alpha": encode(picture("LA"), "PNG"),
    "PNG alpha": encode(picture("RGBA"), "PNG"),
    "PNG 16 bits": encode(picture("I;16"), "PNG"),
    "PNG 16 bits, alpha": cv2_encode(".png", pixels(4).astype(np.uint16) * 257),
    "WebP": encode(picture(), "WEBP"),
    "WebP alpha": encode(picture("RGBA"), "WEBP"),
    "WebP lossless": encode(picture(), "WEBP", lossless=True),
    "WebP lossless, alpha": encode(picture("RGBA"), "WEBP", lossless=True),
    "WebP animated": encode(picture(), "WEBP", **second()),
    "BMP": encode(picture(), "BMP"),
    "BMP palette": encode(picture("P"), "BMP"),
    "BMP padded": encode(picture("RGBA"), "BMP"),
    "GIF": encode(picture("P"), "GIF"),
    "GIF transparent": encode(picture("P"), "GIF", transparency=3),
    "GIF animated": encode(picture("P"), "GIF", **second()),
    "TIFF": encode(picture(), "TIFF", compression="tiff_lzw"),
    "TIFF palette": encode(picture("P"), "TIFF"),
    "TIFF two pages": encode(picture(), "TIFF", save_all=True, append_images=[picture().rotate(180)]),
    "TIFF 16 bits": encode(picture("I;16"), "TIFF"),
    "TIFF alpha": encode(picture("RGBA"), "TIFF"),
    "JPEG 2000": encode(picture(), "JPEG2000"),
    "JPEG 2000 16 bits": cv2_encode(".jp2", pixels().astype(np.uint16) * 257),
    "PNM": encode(picture(), "PPM"),
    "PNM gray": encode(picture("L"), "PPM"),
    "PNM PAM": cv2_encode(".pam", pixels()),
    "PNM PFM": cv2_encode(".pfm", pixels().astype(np.float32)),
    "Radiance HDR": cv2_encode(".hdr", pixels().astype(np.float32) / 255),
    "Sun raster": cv2_encode(".ras", pixels()),
}
if "AVIF" in ABLE:
    FILES["AVIF"] = cv2_encode(".avif", pixels())
    FILES["AVIF alpha"] = cv2_encode(".avif", pixels(4))
FILES = {name: data for name, data in FILES.items() if not name.startswith("GIF") or "GIF" in ABLE}

UNLIKE_OPENCV = ("PNM PAM", "PNM PFM")  # whose colours it mixes up, whose brightness it does not scale
every_file = pytest.mark.parametrize("name", FILES)
needs_gif = pytest.mark.skipif("GIF" not in ABLE, reason="this OpenCV cannot decode GIF")


# Pixels


@pytest.mark.parametrize("name", [name for name in FILES if name not in UNLIKE_OPENCV])
def test_rgb_is_opencv_s_bgr_the_other_way_round(name):
    decoded = decode(FILES[name])
    assert np.array_equal(decoded.image, cv2_decode(FILES[name])[..., ::-1])
    assert decoded.image.shape == (HEIGHT, WIDTH, 3)
    assert decoded.image.dtype == np.uint8
    assert decoded.image.flags.c_contiguous
    assert decoded.source_hw == (HEIGHT, WIDTH)


@every_file
def test_gray_has_one_channel(name):
    decoded = decode(FILES[name], channels="gray")
    assert decoded.image.shape == (HEIGHT, WIDTH, 1)
    assert decoded.image.dtype == np.uint8
    assert decoded.image.flags.c_contiguous
    expected = cv2_decode(FILES[name], cv2.IMREAD_GRAYSCALE)
    if name not in UNLIKE_OPENCV:
        assert np.array_equal(decoded.image[..., 0], expected)


@pytest.mark.parametrize("name", ["PNG", "WebP lossless", "BMP", "TIFF", "JPEG 2000", "PNM", "PNM PAM"])
def test_lossless_pixels_are_those_of_the_source(name):
    lossless = {**FILES, "JPEG 2000": encode(picture(), "JPEG2000", irreversible=False)}
    image = decode(lossless[name]).image
    assert np.array_equal(image, pixels())


@pytest.mark.parametrize("name", ["JPEG CMYK", "AVIF alpha"])
def test_colours_agree_with_pillow(name):
    if name not in FILES:
        pytest.skip("this OpenCV cannot decode AVIF")
    expected = np.asarray(Image.open(io.BytesIO(FILES[name])).convert("RGB"))
    assert np.abs(decode(FILES[name]).image.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("name", ["GIF animated", "WebP animated", "TIFF two pages"])
def test_the_first_frame(name):
    if name not in FILES:
        pytest.skip("this OpenCV cannot decode GIF")
    first = np.asarray(Image.open(io.BytesIO(FILES[name])).convert("RGB"))
    assert np.abs(decode(FILES[name]).image.astype(int) - first).mean() < 3


def test_content_decides_and_each_call_gives_a_new_array():
    first, second_ = decode(FILES["PNG"]).image, decode(FILES["PNG"]).image
    first[:] = 0
    assert np.array_equal(second_, pixels())


# Orientation


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """What EXIF 2.32, table 6 says, by numpy."""
    image = image.swapaxes(0, 1) if orientation >= 5 else image
    rows, columns = {1: (1, 1), 2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[
        orientation
    ]
    return image[::rows, ::columns]


@pytest.mark.parametrize("channels", ["rgb", "gray"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_upright_as_exif_says(file_format, orientation, channels):
    options = {"lossless": True} if file_format == "WEBP" else {}
    plain = decode(encode(picture(), file_format, **options), channels=channels)
    tag = exif(orientation)[6:] if file_format == "PNG" else exif(orientation)
    decoded = decode(encode(picture(), file_format, exif=tag, **options), channels=channels)
    assert np.array_equal(decoded.image, turned(plain.image, orientation))
    assert decoded.image.flags.c_contiguous
    assert decoded.source_hw == decoded.image.shape[:2] == ((HEIGHT, WIDTH) if orientation < 5 else (WIDTH, HEIGHT))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_is_as_upright_as_opencv_makes_it(orientation):
    data = encode(picture(), "JPEG", exif=exif(orientation))
    assert np.array_equal(decode(data).image, cv2_decode(data)[..., ::-1])


def test_a_jpeg_is_upright_though_xmp_comes_before_exif():
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
    jpeg = encode(picture(), "JPEG", exif=exif(6))
    data = jpeg[:2] + struct.pack(">HH", 0xFFE1, len(xmp) + 2) + xmp + jpeg[2:]
    assert decode(data).source_hw == (WIDTH, HEIGHT)


def test_a_tiff_is_turned_once():
    decoded = decode(encode(picture(), "TIFF", tiffinfo={274: 6}))
    assert np.array_equal(decoded.image, turned(pixels(), 6))
    assert decoded.source_hw == (WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright(orientation):
    for image in (pixels(), pixels(1)[..., 0]):
        result = upright(image, orientation)
        assert np.array_equal(result, turned(image, orientation))
        assert result.flags.c_contiguous


# Reduced decodes


@pytest.mark.parametrize(
    ("target", "factor"),
    [((30, 20), 8), ((31, 20), 4), ((30, 21), 4), ((60, 40), 4), ((61, 40), 2), ((120, 79), 2), ((120, 80), 1)],
)
@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_a_jpeg_is_reduced_as_far_as_twice_the_target(target, factor, channels):
    source_hw = (479, 317)  # halves: 240 x 159, 120 x 80, 60 x 40
    data = encode(Image.fromarray(pixels(3, *source_hw)), "JPEG")
    decoded = decode(data, channels=channels, reduce_to=target)
    assert decoded.source_hw == source_hw
    assert decoded.image.shape[:2] == tuple(-(-side // factor) for side in source_hw)
    if factor > 1:
        flag = getattr(cv2, f"IMREAD_REDUCED_{'COLOR' if channels == 'rgb' else 'GRAYSCALE'}_{factor}")
        expected = cv2_decode(data, flag).reshape(decoded.image.shape)
        assert np.array_equal(decoded.image, expected[..., ::-1])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_reduced_jpeg_is_upright_and_its_target_too(mode):
    image = Image.fromarray(pixels(3, 320, 480)).convert(mode)
    data = encode(image, "JPEG", exif=exif(6), progressive=True)
    decoded = decode(data, reduce_to=(120, 80))
    assert decoded.source_hw == (480, 320)
    assert decoded.image.shape == (240, 160, 3)
    assert np.array_equal(decoded.image, cv2_decode(data, cv2.IMREAD_REDUCED_COLOR_2)[..., ::-1])
    assert decode(data, reduce_to=(80, 120)).image.shape == (480, 320, 3), "1/2 would leave 160 < 2 x 120"


@pytest.mark.parametrize("name", [name for name in FILES if not name.startswith("JPEG") or "2000" in name])
def test_only_a_jpeg_is_reduced(name):
    assert decode(FILES[name], reduce_to=(2, 2)).image.shape == (HEIGHT, WIDTH, 3)


# Notes


@every_file
def test_notes_name_what_is_dropped(name):
    words = {
        "16-bit": ("16 bits",),
        "float": ("PFM", "HDR"),
        "alpha": ("alpha", "tRNS", "transparent"),
        "several frames": ("animated",),
        "CMYK": ("CMYK",),
        "several pages": ("pages",),
    }
    expected = tuple(note for note, some in words.items() if any(word in name for word in some))
    assert decode(FILES[name]).notes == decode(FILES[name], channels="gray").notes == expected


def test_a_bitmap_with_an_alpha_mask():
    head = struct.pack("<IiiHHIIiiIIIIII", 108, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    head = head.ljust(108, b"\0")
    data = b"BM" + struct.pack("<IHHI", 14 + len(head) + 8, 0, 0, 14 + len(head)) + head + bytes([3, 2, 1, 9] * 2)
    decoded = decode(data)
    assert decoded.notes == ("alpha",)
    assert decoded.image.tolist() == [[[1, 2, 3]] * 2]


# The cap


@pytest.mark.parametrize("side", [30_000, 50_000])
def test_a_header_that_promises_too_much_is_refused_before_it_is_decoded(side):
    expected = f"{side} x {side} = {side * side // 10**6} Mpx is over the cap of 179 Mpx (decode.max_megapixels)"
    assert reason(huge_png(side, side)) == expected


@every_file
def test_the_cap_is_exact_for_every_format(name):
    assert decode(FILES[name], max_pixels=HEIGHT * WIDTH).source_hw == (HEIGHT, WIDTH)
    text = reason(FILES[name], max_pixels=HEIGHT * WIDTH - 1)
    assert text == "56 x 36 = 0.002016 Mpx is over the cap of 0.002015 Mpx (decode.max_megapixels)"


def test_the_cap_counts_the_source_not_the_reduced_image():
    data = encode(Image.fromarray(pixels(3, 320, 480)), "JPEG")
    assert "over the cap" in reason(data, max_pixels=320 * 480 - 1, reduce_to=(8, 8))


def test_opencv_s_own_limit_is_the_backstop(tmp_path):
    path = tmp_path / "image.tiff"
    path.write_bytes(FILES["TIFF"])
    code = (
        "import sys, pathlib\n"
        "from preprocess.decode import decode\n"
        "from preprocess.errors import SourceError\n"
        "try:\n    decode(pathlib.Path(sys.argv[1]).read_bytes())\n"
        "except SourceError as error:\n    print(error.reason)"
    )
    environment = {**os.environ, "OPENCV_IO_MAX_IMAGE_PIXELS": "900"}
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("larger than OPENCV_IO_MAX_IMAGE_PIXELS")
    assert "decode.max_megapixels" in done.stdout


# Failures


def test_empty():
    assert reason(b"") == "empty file"


def test_what_is_no_image():
    assert reason(b"<!DOCTYPE html><html>") == "not an image that OpenCV can decode (starts with b'<!DOCTYPE html><')"
    assert reason(bytes(4096)).startswith(r"not an image that OpenCV can decode (starts with b'\x00")


@pytest.mark.parametrize("kept", [0.3, 0.5, 0.9, 1])
@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("JPEG") and "2000" not in name])
def test_a_cut_jpeg_fails(name, kept):
    data = FILES[name]
    assert reason(data[: int(len(data) * kept) - 10]) == "JPEG data is cut or damaged"


def test_a_reduced_decode_of_a_cut_jpeg_fails():
    data = encode(Image.fromarray(pixels(3, 320, 480)), "JPEG")
    assert reason(data[:-500], reduce_to=(8, 8)) == "JPEG data is cut or damaged"


@pytest.mark.parametrize("name", [name for name in FILES if name != "TIFF two pages"])  # its first page survives
def test_a_file_cut_in_half_fails(name):
    data = FILES[name]
    assert reason(data[: len(data) // 2]).partition(":")[0].endswith((" data is cut", " data is cut or damaged"))


def test_a_jpeg_of_twelve_bits():
    data = bytearray(FILES["JPEG"])
    data[data.index(b"\xff\xc0") + 4] = 12
    assert reason(bytes(data)) == "JPEG with 12 bits a component; OpenCV decodes 8"


def test_pixels_that_opencv_reads_but_does_not_convert():
    assert reason(encode(picture("F"), "TIFF")) == "its pixels are float32, which OpenCV does not turn into 8 bits"


def test_a_format_without_a_decoder():
    assert reason(b"\0\0\0\x18ftypheic" + bytes(50)) == (
        "HEIC, which decant does not decode; convert it to JPEG or PNG"
    )


@pytest.mark.parametrize("name", [name for name in FILES if read_header(FILES[name])])
def test_hostile_bytes_decode_or_fail_with_a_reason(name):
    chance = random.Random(name)
    for _ in range(50):
        damaged = bytearray(FILES[name])
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        if read_header(bytes(damaged)) is None:
            continue  # nothing but OpenCV's own limit would bound what it allocates
        try:
            image = decode(bytes(damaged), max_pixels=100_000).image
        except SourceError:
            continue
        assert image.dtype == np.uint8
        assert image.shape[2] == 3


# The table


def test_decoder_table():
    table = decoder_table()
    names = [name for name, _, _ in table]
    assert len(set(names)) == len(names) == 17
    assert {"JPEG", "progressive JPEG", "CMYK JPEG", "PNG", "16-bit PNG", "WebP", "BMP", "TIFF"} <= ABLE
    for name, able, remark in table:
        if not able:
            assert any(why in remark for why in (cv2.__version__, "OPENCV_IO_ENABLE_OPENEXR", "not supported")), name


def test_decoder_table_believes_only_a_decode(monkeypatch):
    monkeypatch.setattr(preprocess.decode, "_imdecode", lambda data, flags: None)
    assert not any(able for _, able, _ in decoder_table.__wrapped__())


@needs_gif
def test_decoder_table_agrees_with_a_decode():
    assert decode(FILES["GIF"]).source_hw == (HEIGHT, WIDTH)


def photos() -> list[Path]:
    folder = os.environ.get("DECANT_PHOTOS") or ROOT.parent / "shared" / "photos"
    paths = sorted(p for p in Path(folder).glob("**/*") if p.suffix.lower() in IMAGE_EXTENSIONS)
    return paths[:: max(1, len(paths) // 200)][:200]


@pytest.mark.skipif(not photos(), reason="no photos: set DECANT_PHOTOS to a folder of images")
def test_real_photos_decode_as_opencv_decodes_them():
    for path in photos():
        data = path.read_bytes()
        decoded = decode(data)
        assert decoded.source_hw == decoded.image.shape[:2] == read_header(data).upright_hw, path
        assert np.array_equal(decoded.image, cv2.cvtColor(cv2_decode(data), cv2.COLOR_BGR2RGB)), path


# Windows


def twelve_bits(channels: int) -> np.ndarray:
    """BGR or gray, as OpenCV writes it."""
    return np.random.default_rng(channels).integers(0, 4096, (HEIGHT, WIDTH, channels)).astype(np.uint16)


@pytest.mark.parametrize("extension", [".png", ".tiff", ".pnm"])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_window_has_the_values_of_every_format(extension, count):
    if extension == ".pnm" and count == 4:
        extension, count = ".ppm", 3
    image = twelve_bits(count)
    data = cv2_encode({".pnm": ".pgm" if count == 1 else ".ppm"}.get(extension, extension), image)
    assert "levels: [" in reason(data)
    colours = np.ascontiguousarray(image[..., 2::-1] if count > 1 else image)
    expected = apply_window(colours, (0, 4095))
    decoded = decode(data, levels=(0, 4095))
    assert np.array_equal(decoded.image, np.broadcast_to(expected, decoded.image.shape))
    assert decoded.notes == ("window [0, 4095]",) + ("alpha",) * (count == 4)
    gray = apply_window(cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)[..., None] if count > 1 else colours, (0, 4095))
    assert np.abs(decode(data, levels=(0, 4095), channels="gray").image.astype(int) - gray).max() <= 1


@pytest.mark.skipif("JPEG 2000" not in ABLE, reason="this OpenCV reads no JPEG 2000")
def test_the_depth_that_a_jpeg_2000_declares_is_its_own():
    image = twelve_bits(1)[..., 0]
    # What 16 bits move down by half of their range before coding, 12 bits move up by half of theirs.
    data = bytearray(encode(Image.fromarray(image + np.uint16((1 << 15) - (1 << 11))), "JPEG2000"))
    data[data.index(b"\xff\x4f\xff\x51") + 42] = 12 - 1
    found = decode(bytes(data), channels="gray")
    assert np.array_equal(found.image[..., 0], image >> 4)
    assert found.notes == ("9 to 15 bits",)
    found = decode(bytes(data), channels="gray", levels=(0, 4095))
    assert np.array_equal(found.image[..., 0], apply_window(image, (0, 4095)))


@pytest.mark.skipif("AVIF" not in ABLE, reason="this OpenCV reads no AVIF")
@pytest.mark.parametrize("bits", [10, 12])
def test_an_avif_of_more_than_8_bits_keeps_the_upper_8(bits):
    image = np.repeat(np.arange(1 << bits, dtype=np.uint16).reshape(32, -1, 1), 3, axis=2)
    data = bytes(cv2.imencode(".avif", image, (cv2.IMWRITE_AVIF_DEPTH, bits))[1])
    assert decode(data).notes == ("9 to 15 bits",)


def test_the_window_that_a_png_is_proposed_is_the_one_of_its_sbit():
    data = cv2_encode(".png", twelve_bits(1))
    sbit = b"sBIT\x0c"
    data = data[:33] + struct.pack(">I", 1) + sbit + struct.pack(">I", zlib.crc32(sbit)) + data[33:]
    assert "levels: [0, 4095]" in reason(data)


@every_file
def test_files_of_8_bits_and_floats_are_left_as_they_are(name):
    plain = decode(FILES[name])
    if "16-bit" not in plain.notes:
        windowed = decode(FILES[name], levels=(0, 9), extra_channels="drop")
        assert np.array_equal(windowed.image, plain.image)
        assert windowed.notes == plain.notes
