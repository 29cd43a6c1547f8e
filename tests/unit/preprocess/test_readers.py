"""Files that are read in another way than OpenCV's usual one: which ones, and with which pixels."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from preprocess.boxes import avif_orientation
from preprocess.decode import decode, decoder_table, upright
from preprocess.errors import SourceError
from preprocess.header import read_header, sniff
from preprocess.jpeg2000_header import read_jpeg2000_header
from preprocess.pnm_header import read_pnm_header
from preprocess.readers import OPENCV, PILLOW, SCALED, TURNED, UNPACKED, reader_of
from tests.jpegs import segment
from tests.tiffs import Field
from tests.tiffs import tiff as written_tiff
from tests.unit.preprocess.test_header import png_chunk, png_with, tiff_block

HEIGHT, WIDTH = 20, 36
ABLE = {name for name, able, _ in decoder_table() if able}
needs_avif = pytest.mark.skipif(
    "AVIF" not in ABLE or not features.check("avif"), reason="this OpenCV or Pillow has no AVIF"
)


def colours() -> np.ndarray:
    """A picture that no flip and no turn leaves as it is: uint8 (H, W, 3) RGB."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = 250, 10, 10
    image[: HEIGHT // 2, WIDTH // 2 :] = 10, 250, 10
    image[HEIGHT // 2 :, : WIDTH // 2] = 10, 10, 250
    return image


def gray(levels: int = 256) -> np.ndarray:
    return (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) % levels).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def way(data: bytes) -> str:
    return reader_of(data, read_header(data))


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


# Orientation


def raw_profile(orientation: int, name: bytes = b"exif") -> bytes:
    block = b"Exif\0\0" + tiff_block(orientation)
    digits = block.hex().encode()
    lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return b"\n" + name + b"\n" + str(len(block)).rjust(8).encode() + b"\n" + lines + b"\n"


PNG_PROFILES = {
    "doubled prefix": lambda o: png_chunk(b"eXIf", b"Exif\0\0" + tiff_block(o)),
    "tripled prefix": lambda o: png_chunk(b"eXIf", b"Exif\0\0Exif\0\0" + tiff_block(o)),
    "tEXt": lambda o: png_chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(o)),
    "zTXt": lambda o: png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(o))),
    "APP1": lambda o: png_chunk(b"zTXt", b"Raw profile type APP1\0\0" + zlib.compress(raw_profile(o, b"generic"))),
    "iTXt": lambda o: png_chunk(b"iTXt", b"Raw profile type exif\0\0\0\0\0" + raw_profile(o)),
    "packed iTXt": lambda o: png_chunk(b"iTXt", b"Raw profile type exif\0\1\0\0\0" + zlib.compress(raw_profile(o))),
}


@pytest.mark.parametrize("kind", PNG_PROFILES)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientations_that_pngs_keep_in_odd_places(kind, orientation):
    data = png_with(PNG_PROFILES[kind](orientation))
    header = read_header(data)
    assert header.orientation == orientation
    assert way(data) == (OPENCV if orientation == 1 else TURNED)
    plain = png_with(png_chunk(b"eXIf", tiff_block(orientation)))
    decoded = decode(data)
    assert np.array_equal(decoded.image, decode(plain).image)
    assert (decoded.reader, decoded.source_hw) == (way(data), decoded.image.shape[:2])
    assert np.array_equal(decode(data, reader=OPENCV).image, decode(png_with()).image)  # the former way is still known


def test_a_plain_block_counts_before_a_raw_profile_wherever_it_stands():
    chunks = PNG_PROFILES["zTXt"](6), png_chunk(b"eXIf", tiff_block(3))
    for data in (png_with(*chunks), png_with(*reversed(chunks))):
        assert (read_header(data).orientation, way(data)) == (3, OPENCV)


@pytest.mark.parametrize(
    "text",
    [b"", b"\nexif\n", b"\nexif\n      10\nzz", b"\nexif\n      10\n4578", b"\nexif\n 4 \n" + b"0" * 999_999],
)
def test_broken_raw_profiles_say_nothing(text):
    data = png_with(png_chunk(b"tEXt", b"Raw profile type exif\0" + text))
    assert (read_header(data).orientation, way(data)) == (1, OPENCV)
    packed = png_with(png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)[:-6] + b"\xff"))
    assert read_header(packed).orientation == 1


def test_a_doubled_prefix_in_jpeg_and_webp():
    image = Image.fromarray(colours())
    jpeg = saved(image, "JPEG")
    doubled = jpeg[:2] + segment(0xFFE1, b"Exif\0\0Exif\0\0" + tiff_block(6)) + jpeg[2:]
    assert (way(jpeg), way(doubled)) == (OPENCV, TURNED)
    assert np.array_equal(decode(doubled).image, np.rot90(decode(jpeg).image, -1))
    assert np.array_equal(decode(doubled, reader=OPENCV).image, decode(jpeg).image)


@needs_avif
@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_by_irot_and_imir(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(colours()), "AVIF", exif=exif.tobytes(), quality=95)
    assert avif_orientation(data) == orientation
    assert way(data) == (OPENCV if orientation == 1 else TURNED)
    decoded = decode(data)
    assert decoded.image.shape == by_pillow(data).shape
    assert np.abs(decoded.image.astype(int) - by_pillow(data)).mean() < 3
    assert decoded.source_hw == decoded.image.shape[:2]
    assert decode(data, channels="gray").image.shape == (*decoded.image.shape[:2], 1)
    assert decode(data, reader=OPENCV).image.shape == (HEIGHT, WIDTH, 3)


@needs_avif
def test_cut_and_hostile_boxes_say_nothing():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(colours()), "AVIF", exif=exif.tobytes())
    assert {avif_orientation(data[:end]) for end in range(len(data))} <= {1, 6}
    chance = np.random.default_rng(0)
    for _ in range(500):
        damaged = bytearray(data)
        damaged[chance.integers(len(data[:400]))] = chance.integers(256)
        assert 1 <= avif_orientation(bytes(damaged)) <= 8


# PNM


def pnm(kind: int, largest: int, values: np.ndarray) -> bytes:
    if kind == 7:
        samples = values.shape[2] if values.ndim == 3 else 1
        kind_of = ("GRAYSCALE", "GRAYSCALE_ALPHA", "RGB", "RGB_ALPHA")[min(samples, 4) - 1]
        size = f"WIDTH {WIDTH}\nHEIGHT {HEIGHT}\nDEPTH {samples}\nMAXVAL {largest}\n"
        head = f"P7\n# made here\n{size}TUPLTYPE {kind_of}\nENDHDR\n"
    else:
        head = f"P{kind}\n# made here\n{WIDTH} {HEIGHT} # so large\n{largest}\n"
    if kind in (2, 3):
        return head.encode() + b" ".join(b"%d" % value for value in values.ravel()) + b"\n"
    return head.encode() + values.astype(">u2" if largest > 255 else "u1").tobytes()


@pytest.mark.parametrize("kind", [2, 3, 5, 6, 7])
@pytest.mark.parametrize("largest", [1, 3, 100, 254, 255, 256, 1023, 4095, 40000, 65534, 65535])
def test_pnm_has_the_brightness_that_its_largest_value_says(kind, largest):
    shape = (HEIGHT, WIDTH, 3) if kind in (3, 6) else (HEIGHT, WIDTH)
    values = np.random.default_rng(largest).integers(0, largest + 1, shape)
    values.flat[:2] = 0, largest
    data = pnm(kind, largest, values)
    expected = values * 255 / largest
    if values.ndim == 2:
        expected = np.repeat(expected[..., np.newaxis], 3, axis=2)
    decoded = decode(data)
    assert np.abs(decoded.image - expected).max() <= (1 if largest < 255 or largest == 65535 else 0.5)
    assert decoded.image.max() == 255
    exact = largest in (255, 65535) or (kind in (2, 3) and largest < 255)
    usual = OPENCV if exact else SCALED
    assert decoded.reader == way(data) == (UNPACKED if (kind, largest) == (7, 1) else usual)
    kind = "16-bit" if largest == 65535 else "a largest value above 255"
    assert decoded.notes == (kind,) * (largest > 255)
    assert np.abs(decode(data, channels="gray").image.astype(int) - decode(data).image[..., :1]).max() <= 255


def test_values_beyond_the_largest_are_full_brightness():
    data = pnm(5, 100, np.full((HEIGHT, WIDTH), 200))
    assert (decode(data).image == 255).all()


def test_pnm_as_the_first_version_read_it():
    data = pnm(5, 100, gray(101))
    assert np.array_equal(decode(data, reader=OPENCV, channels="gray").image[..., 0], gray(101))


@pytest.mark.parametrize("samples", [2, 3, 4])
@pytest.mark.parametrize("largest", [1, 100, 255, 1000, 65535])
def test_pam_of_several_samples_has_its_own_colours(samples, largest):
    values = np.random.default_rng(samples).integers(0, largest + 1, (HEIGHT, WIDTH, samples))
    values.flat[:samples] = largest
    data = pnm(7, largest, values)
    expected = values[..., :3] if samples > 2 else np.repeat(values[..., :1], 3, axis=2)
    decoded = decode(data)
    assert (decoded.reader, decoded.source_hw) == (UNPACKED, (HEIGHT, WIDTH))
    assert np.abs(decoded.image - expected * 255 / largest).max() <= (1 if largest == 65535 else 0.5)
    deep = ("16-bit" if largest == 65535 else "a largest value above 255",) * (largest > 255)
    assert decoded.notes == deep + ("alpha",) * (samples != 3)
    assert decode(data, channels="gray").image.shape == (HEIGHT, WIDTH, 1)
    if largest > 255:
        assert np.array_equal(decode(data, levels=(0, 500)).image, np.rint(np.clip(expected * 255 / 500, 0, 255)))


def test_pam_that_is_cut_over_the_cap_or_of_more_samples_is_refused():
    data = pnm(7, 255, np.zeros((HEIGHT, WIDTH, 3), int))
    with pytest.raises(SourceError, match="PAM data is cut: 2,160 bytes of pixels expected, 2,159 found"):
        decode(data[:-1])
    with pytest.raises(SourceError, match="over the cap"):
        decode(data, max_pixels=100)
    with pytest.raises(SourceError, match="PAM with 5 samples a pixel, which is not supported"):
        decode(pnm(7, 255, np.zeros((HEIGHT, WIDTH, 5), int)))


@pytest.mark.parametrize(("kind", "largest"), [(2, 255), (2, 1023), (3, 255), (3, 65535)])
def test_numbers_that_end_with_the_file(kind, largest):
    values = np.random.default_rng(0).integers(0, largest + 1, (HEIGHT, WIDTH, 3)[: 2 if kind == 2 else 3])
    data = pnm(kind, largest, values)
    assert way(data[:-1]) == way(data)
    for levels in (None, (0, 500)):
        assert np.array_equal(decode(data[:-1], levels=levels).image, decode(data, levels=levels).image)


def test_pfm_has_full_brightness_at_1():
    values = np.linspace(-0.5, 1.5, HEIGHT * WIDTH, dtype="<f4").reshape(HEIGHT, WIDTH)
    values[0, 0] = np.nan
    for head, samples in (("Pf", 1), ("PF", 3)):
        pixels = np.repeat(values[::-1, :, np.newaxis], samples, axis=2)  # the lowest row comes first
        data = f"{head}\n{WIDTH} {HEIGHT}\n-1.0\n".encode() + pixels.tobytes()
        expected = np.rint(np.clip(np.nan_to_num(values), 0, 1) * 255)
        decoded = decode(data)
        assert (decoded.reader, decoded.notes) == (SCALED, ("float",))
        assert np.array_equal(decoded.image, np.repeat(expected[..., np.newaxis], 3, axis=2))
        assert np.array_equal(decode(data, channels="gray").image[..., 0], expected)


@pytest.mark.parametrize(
    "data", [b"P5", b"P5 1", b"P5 1 1", b"P5\n0 1\n255\n", b"P9 1 1 1 ", b"P7\nWIDTH 1\n", b"P5\n1 1\n0\n"]
)
def test_pnm_headers_that_make_no_sense(data):
    assert read_pnm_header(data) is None


# Pillow


def tiff(bits: int, photometric: int = 1, compression: int = 1, kind: int = 1) -> tuple[bytes, np.ndarray]:
    """A TIFF of one gray sample of so few bits, and its values; of more bits its pixels are not to be read."""
    values = gray(1 << min(bits, 8))
    packed = np.packbits(
        np.unpackbits(values[..., np.newaxis], axis=2)[..., -bits:].reshape(HEIGHT, -1), axis=1
    ).tobytes()
    fields = {256: WIDTH, 257: HEIGHT, 258: bits, 259: compression, 262: photometric, 273: 8, 277: 1, 278: HEIGHT}
    fields |= {279: len(packed), 339: kind}
    directory = struct.pack("<H", len(fields)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items())
    )
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory + bytes(4), values


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("photometric", [0, 1])
def test_tiffs_of_2_and_4_bits(bits, photometric):
    data, values = tiff(bits, photometric)
    expected = values * (255 // ((1 << bits) - 1))
    decoded = decode(data)
    assert (decoded.reader, decoded.notes) == (PILLOW, ())
    assert np.array_equal(decoded.image[..., 0], expected if photometric else 255 - expected)
    assert np.array_equal(decode(data, channels="gray").image[..., 0], decoded.image[..., 0])


@pytest.mark.parametrize("compression", ["zstd", "lzma"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_tiff_compressions_that_opencv_lacks(compression, mode):
    source = (
        Image.fromarray(gray().astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(colours()).convert(mode)
    )
    try:
        data = saved(source, "TIFF", compression=compression)
    except (OSError, KeyError) as error:
        pytest.skip(f"this Pillow does not write it: {error}")
    decoded = decode(data)
    assert (decoded.reader, decoded.notes) == (PILLOW, ("16-bit",) if mode == "I;16" else ())
    expected = np.repeat(gray()[..., np.newaxis], 3, axis=2) if mode == "I;16" else by_pillow(data)
    assert np.array_equal(decoded.image, expected)


def gif(canvas: tuple[int, int], at: tuple[int, int]) -> bytes:
    """A GIF whose only frame lies at (x, y) on a canvas of another size, width and height."""
    data = bytearray(saved(Image.fromarray(gray()), "GIF"))
    data[6:10] = struct.pack("<HH", *canvas)
    frame = data.index(b"\x2c", 13 + 3 * 256)
    data[frame + 1 : frame + 5] = struct.pack("<HH", *at)
    return bytes(data)


@pytest.mark.skipif("GIF" not in ABLE, reason="this OpenCV cannot decode GIF")
def test_gif_frames_beyond_their_canvas():
    inside, beyond = gif((WIDTH + 9, HEIGHT + 9), (4, 5)), gif((WIDTH, HEIGHT), (4, 5))
    assert (way(inside), way(beyond)) == (OPENCV, PILLOW)
    assert np.array_equal(decode(beyond).image, by_pillow(beyond))


def bmp(header_bytes: int, bits: int, masks: tuple[int, int, int]) -> tuple[bytes, np.ndarray]:
    """A BMP with colour masks, and its pixels: float64 (H, W, 3)."""
    values = np.random.default_rng(bits).integers(0, 1 << bits, (HEIGHT, WIDTH))
    body = values.astype(f"<u{bits // 8}").tobytes()
    info = struct.pack("<IiiHHIIiiII", header_bytes, WIDTH, HEIGHT, 1, bits, 3, len(body), 0, 0, 0, 0)
    info = (info + struct.pack("<III", *masks)).ljust(max(header_bytes, 52), b"\0")
    shifts = [(mask & -mask).bit_length() - 1 for mask in masks]
    planes = [((values & mask) >> s) * 255 / (mask >> s) for mask, s in zip(masks, shifts)]
    start = 14 + len(info)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + body, np.stack(planes, axis=-1)[::-1]


MASKS_16 = {
    "565": (0xF800, 0x7E0, 0x1F),
    "555": (0x7C00, 0x3E0, 0x1F),
    "444": (0xF00, 0xF0, 0xF),
    "bgr": (0x1F, 0x7E0, 0xF800),
}


@pytest.mark.parametrize("header_bytes", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("masks", MASKS_16)
def test_bmps_of_16_bits(header_bytes, masks):
    data, expected = bmp(header_bytes, 16, MASKS_16[masks])
    usual = header_bytes == 40 and masks in ("565", "555")
    assert decode(data).reader == (OPENCV if usual else UNPACKED)
    assert np.abs(decode(data).image - expected).max() <= (8 if usual else 0.5)  # OpenCV leaves the low bits empty
    assert decode(data, channels="gray").image.shape == (HEIGHT, WIDTH, 1)


@pytest.mark.parametrize("header_bytes", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("masks", [(0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000), (0xFF000000, 0xFF0000, 0xFF00)])
def test_bmps_of_32_bits(header_bytes, masks):
    data, expected = bmp(header_bytes, 32, masks)
    assert np.array_equal(decode(data).image, expected)
    assert decode(data).reader == (UNPACKED if header_bytes <= 52 and masks[0] != 0xFF0000 else OPENCV)


def test_bmps_with_rows_upside_down_that_are_filled_up_and_cut():
    data, expected = bmp(40, 32, (0xFF, 0xFF00, 0xFF0000))
    flipped = data[:22] + struct.pack("<i", -HEIGHT) + data[26:]
    assert np.array_equal(decode(flipped).image, expected[::-1])
    with pytest.raises(SourceError, match="BMP data is cut"):
        decode(data[:-1])
    with pytest.raises(SourceError, match="colour masks 000003ff, 0000ff00, 00ff0000, which is not supported"):
        decode(data[:54] + struct.pack("<I", 0x3FF) + data[58:])
    odd, expected = bmp(40, 16, MASKS_16["bgr"])
    narrow = odd[:18] + struct.pack("<i", WIDTH - 1) + odd[22:]  # 35 pixels of 2 bytes: 72 bytes a row
    assert np.abs(decode(narrow).image - expected[:, : WIDTH - 1]).max() <= 0.5


def test_sun_rasters_with_red_first():
    head = struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 24, 3 * HEIGHT * WIDTH, 3, 0, 0)
    data = head + colours().tobytes()
    assert (way(data), decode(data).reader) == (PILLOW, PILLOW)
    assert np.array_equal(decode(data).image, colours())
    for bits, kind in ((32, 3), (1, 1)):  # Pillow and OpenCV mix up their channels, or black and white
        other = data[:12] + struct.pack(">I4xI", bits, kind) + data[24:]
        with pytest.raises(SourceError, match=f"Sun raster of {bits} bits a pixel, which is not supported"):
            decode(other)


@pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow has no JPEG 2000")
def test_jpeg_2000_of_few_bits_and_of_cmyk():
    data = saved(Image.fromarray(colours()).convert("CMYK"), "JPEG2000", irreversible=False)
    assert read_jpeg2000_header(data).cmyk
    assert decode(data).reader == PILLOW
    assert np.array_equal(decode(data).image, by_pillow(data))
    plain = saved(Image.fromarray(colours()), "JPEG2000")
    header = read_jpeg2000_header(plain)
    assert (header.height, header.width, header.bits, header.subsampled) == (HEIGHT, WIDTH, (8, 8, 8), False)
    assert way(plain) == OPENCV
    at = plain.index(b"\xff\x4f\xff\x51") + 4 + 38
    narrow, sparse = bytearray(plain), bytearray(plain)
    narrow[at] = 3
    sparse[at + 4] = 2
    assert way(bytes(narrow)) == PILLOW
    narrow[at + 3], narrow[at + 6] = 3, 3  # now its values, moved by 8 and not by 128, are the ends of 0..15
    assert {0, 255} <= set(np.unique(decode(bytes(narrow)).image)) <= set(range(0, 256, 17))
    with pytest.raises(SourceError, match="subsampled"):
        way(bytes(sparse))


def test_a_cut_file_is_a_failure_whatever_the_script_has_told_pillow(monkeypatch):
    from PIL import ImageFile

    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    data = gif((WIDTH, HEIGHT), (4, 5))
    with pytest.raises(SourceError, match="GIF data is cut, damaged or not supported"):
        decode(data[: int(len(data) * 0.9)])
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_pillow_keeps_to_the_cap_and_to_no_cap_of_its_own(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)
    data, _ = tiff(4)
    assert decode(data).reader == PILLOW
    with pytest.raises(SourceError, match=r"over the cap of 0.0001 Mpx"):
        decode(data, max_pixels=100)


@pytest.mark.parametrize(
    ("options", "fields"),
    [({"bits": 16}, {339: 2}), ({"bits": 16}, {262: 0}), ({"bits": 8}, {262: 8}), ({"bits": 12}, {})],
)
@pytest.mark.parametrize("compression", [34925, 50000])
def test_packed_tiffs_that_pillow_would_read_wrongly_are_refused(options, fields, compression):
    data, _ = tiff(options["bits"], fields.get(262, 1), compression, fields.get(339, 1))
    with pytest.raises(
        SourceError, match=f"TIFF with {options['bits']}-bit .*compression {compression}., is not supported"
    ):
        decode(data)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiffs_in_tiles_are_turned_as_a_whole(orientation, dtype):
    values = np.random.default_rng(0).integers(0, 1 << 8 * np.dtype(dtype).itemsize, (100, 70, 3)).astype(dtype)
    data = written_tiff(values, tile=64, fields={274: Field("H", orientation)})
    expected = upright(values if dtype == np.uint8 else (values >> 8).astype(np.uint8), orientation)
    decoded = decode(data)
    assert decoded.image.shape == expected.shape == (*decoded.source_hw, 3)
    # Of 16 bits in tiles OpenCV rounds instead of keeping the high byte.
    assert np.abs(decoded.image.astype(int) - expected).max() <= (dtype == np.uint16)
    assert decoded.reader == (TURNED if orientation in (2, 3, 6, 7) else OPENCV)
    if dtype == np.uint16:
        window = np.rint(upright(values, orientation) * (255 / 65535)).astype(np.uint8)
        assert np.array_equal(decode(data, levels=(0, 65535)).image, window)


def test_a_thumbnail_that_comes_first_is_not_taken_for_the_image():
    small, large = gray()[:4, :6], gray()
    first = {254: Field("I", 1)}
    for pages in (None, "first"):
        with pytest.raises(SourceError, match="first image, 6 x 4, is a thumbnail"):
            decode(written_tiff(small, fields=first, pages=[(large, {})]), pages=pages)
    with pytest.raises(SourceError, match="is a thumbnail"):
        decode(written_tiff(small, fields={**first, 330: Field("I", 8)}))
    assert decode(written_tiff(large, fields=first)).source_hw == large.shape  # the only image of its file


def test_tiffs_of_packed_bits_in_planes_are_refused():
    data = written_tiff(np.zeros((HEIGHT, WIDTH, 3), np.uint16), planar=True, bits=12, strip=bytes(HEIGHT * WIDTH * 2))
    for levels in (None, "high-byte", (0, 4095)):
        with pytest.raises(SourceError, match="TIFF with 12-bit samples, 3 a pixel .*in planes., is not supported"):
            decode(data, levels=levels)


def test_what_opencv_refuses_and_pillow_shows_is_not_called_damaged(monkeypatch):
    whole = saved(Image.fromarray(colours()), "PNG")
    with monkeypatch.context() as patch:
        patch.setattr("preprocess.decode._imdecode", lambda data, flags: None)
        with pytest.raises(SourceError, match="PNG of a variant that OpenCV does not read, although Pillow does"):
            decode(whole)


def test_what_nothing_reads_is_called_what_it_is():
    png = saved(Image.fromarray(colours()), "PNG")
    jpeg = saved(Image.fromarray(colours()), "JPEG")
    sixteen = written_tiff(np.zeros((HEIGHT, WIDTH, 4), np.uint16), photometric=5)
    for data, reason in (
        (png[: len(png) // 2], "PNG data is cut or damaged"),
        (jpeg.replace(b"\xff\xc0", b"\xff\xf7", 1), "LS JPEG, which this OpenCV"),
        (sixteen, "TIFF with 16-bit samples, 4 a pixel .*, is not supported"),
    ):
        with pytest.raises(SourceError, match=reason):
            decode(data)


def test_an_exception_of_opencv_is_a_reason_of_this_file_alone(monkeypatch):
    def broken(image: np.ndarray, code: int) -> np.ndarray:
        raise cv2.error("scn is 2")

    monkeypatch.setattr(cv2, "cvtColor", broken)
    with pytest.raises(SourceError, match="OpenCV says"):
        decode(pnm(5, 100, gray(101)))


# Names


@pytest.mark.parametrize(
    ("major", "compatible", "name"),
    [
        (b"heic", b"mif1heic", "HEIC"),
        (b"mif1", b"mif1heix", "HEIC"),
        (b"mif1", b"", "HEIC"),
        (b"avif", b"avifmif1miaf", "AVIF"),
        (b"mif1", b"mif1avifmiaf", "AVIF"),
        (b"avis", b"", "AVIF"),
        (b"isom", b"iso2mp41", None),
    ],
)
def test_heif_is_named_by_all_of_its_brands(major, compatible, name):
    content = b"ftyp" + major + bytes(4) + compatible
    assert sniff(struct.pack(">I", 4 + len(content)) + content + bytes(8)) == name


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_tiffs_of_more_than_8_bits_keep_their_high_byte(bits):
    values = np.random.default_rng(bits).integers(0, 1 << bits, (HEIGHT, WIDTH))
    digits = (values[..., np.newaxis] >> np.arange(bits - 1, -1, -1)) & 1
    data, _ = tiff(4)
    packed = np.packbits(digits.reshape(HEIGHT, -1).astype(np.uint8), axis=1).tobytes()
    fields = {256: WIDTH, 257: HEIGHT, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: HEIGHT, 279: len(packed)}
    directory = struct.pack("<H", len(fields)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items())
    )
    data = b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory + bytes(4)
    decoded = decode(data)
    assert decoded.notes == ("9 to 15 bits",)
    assert np.array_equal(decoded.image[..., 0], values >> (bits - 8))


def test_a_variant_that_nothing_reads_is_not_called_damaged():
    data, _ = tiff(4, compression=50001)
    with pytest.raises(SourceError, match="compression 50001., is not supported"):
        decode(data.replace(struct.pack("<HHII", 258, 4, 1, 4), struct.pack("<HHII", 258, 4, 1, 8)))


def test_ordinary_files_are_read_in_the_ordinary_way():
    image = Image.fromarray(colours())
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM"):
        assert way(saved(image, kind)) == OPENCV, kind
    assert way(cv2.imencode(".png", gray().astype(np.uint16) * 257)[1].tobytes()) == OPENCV


def test_a_window_is_of_the_files_own_values_whichever_way_it_is_read():
    values = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    window = np.rint(np.clip(values * 255 / 719, 0, 255))
    for data, reader in ((pnm(5, 4095, values), SCALED), (pnm(5, 65535, values), OPENCV)):
        decoded = decode(data, levels=(0, 719))
        assert (decoded.reader, decoded.notes) == (reader, ("window [0, 719]",))
        assert np.array_equal(decoded.image[..., 0], window)
    eight = decode(pnm(5, 100, values % 101), levels=(0, 719))  # 8 bits stay as they are
    assert (eight.reader, eight.notes, eight.image.max()) == (SCALED, (), 255)
    packed = saved(Image.fromarray(gray().astype(np.uint16) * 16), "TIFF", compression="zstd")
    with pytest.raises(SourceError, match=r"decode: \{levels: \[0, 4080\]\}"):
        decode(packed)
    assert decode(packed, levels=(0, 4080)).image.max() == 255
