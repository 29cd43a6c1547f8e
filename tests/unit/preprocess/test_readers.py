"""Files that are read in another way than OpenCV's usual one: which ones, and with which pixels."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, features

from preprocess.boxes import avif_orientation
from preprocess.decode import decode, decoder_table
from preprocess.errors import SourceError
from preprocess.header import read_header, sniff
from preprocess.jpeg2000_header import read_jpeg2000_header
from preprocess.pnm_header import read_pnm_header
from preprocess.readers import OPENCV, PILLOW, SCALED, TURNED, reader_of
from tests.jpegs import segment
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
    samples = 3 if values.ndim == 3 else 1
    if kind == 7:
        kind_of = "RGB" if samples == 3 else "GRAYSCALE"
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
    if (kind, largest) == (7, 1):  # OpenCV takes it for packed bits
        with pytest.raises(SourceError, match="PAM with MAXVAL 1, which is not supported"):
            decode(data)
        return
    expected = values * 255 / largest
    if values.ndim == 2:
        expected = np.repeat(expected[..., np.newaxis], 3, axis=2)
    decoded = decode(data)
    assert np.abs(decoded.image - expected).max() <= (1 if largest < 255 or largest == 65535 else 0.5)
    assert decoded.image.max() == 255
    exact = largest in (255, 65535) or (kind in (2, 3) and largest < 255)
    assert decoded.reader == way(data) == (OPENCV if exact else SCALED)
    kind = "16-bit" if largest == 65535 else "a largest value above 255"
    assert decoded.notes == (kind,) * (largest > 255)
    assert np.abs(decode(data, channels="gray").image.astype(int) - decode(data).image[..., :1]).max() <= 255


def test_values_beyond_the_largest_are_full_brightness():
    data = pnm(5, 100, np.full((HEIGHT, WIDTH), 200))
    assert (decode(data).image == 255).all()


def test_pnm_as_the_first_version_read_it():
    data = pnm(5, 100, gray(101))
    assert np.array_equal(decode(data, reader=OPENCV, channels="gray").image[..., 0], gray(101))


def test_numbers_that_end_with_the_file():
    data = pnm(2, 255, gray())[:-1]
    assert way(data) == PILLOW
    assert np.array_equal(decode(data, channels="gray").image[..., 0], gray())


@pytest.mark.parametrize(
    "data", [b"P5", b"P5 1", b"P5 1 1", b"P5\n0 1\n255\n", b"P9 1 1 1 ", b"P7\nWIDTH 1\n", b"P5\n1 1\n0\n"]
)
def test_pnm_headers_that_make_no_sense(data):
    assert read_pnm_header(data) is None


# Pillow


def tiff(bits: int, photometric: int = 1, compression: int = 1) -> tuple[bytes, np.ndarray]:
    """A TIFF of one gray sample of 2 or 4 bits, and its values."""
    values = gray(1 << bits)
    packed = np.packbits(
        np.unpackbits(values[..., np.newaxis], axis=2)[..., -bits:].reshape(HEIGHT, -1), axis=1
    ).tobytes()
    fields = {256: WIDTH, 257: HEIGHT, 258: bits, 259: compression, 262: photometric, 273: 8, 277: 1, 278: HEIGHT}
    fields[279] = len(packed)
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


@pytest.mark.parametrize("header_bytes", [40, 52, 56, 108, 124])
@pytest.mark.parametrize("masks", [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)], ids=["565", "555"])
def test_bmps_of_16_bits(header_bytes, masks):
    data, expected = bmp(header_bytes, 16, masks)
    assert np.abs(decode(data).image - expected).max() <= 8  # OpenCV leaves the low bits empty
    assert decode(data).reader == (OPENCV if header_bytes == 40 else PILLOW)


def test_bmps_whose_masks_opencv_does_not_read():
    data, expected = bmp(40, 32, (0xFF0000, 0xFF00, 0xFF))
    assert np.array_equal(decode(data).image, expected)
    data, _ = bmp(40, 32, (0xFF, 0xFF00, 0xFF0000))
    with pytest.raises(SourceError, match="colour masks 000000ff, 0000ff00, 00ff0000, which is not supported"):
        decode(data)


def test_sun_rasters_with_red_first():
    head = struct.pack(">8I", 0x59A66A95, WIDTH, HEIGHT, 24, 3 * HEIGHT * WIDTH, 3, 0, 0)
    data = head + colours().tobytes()
    assert (way(data), decode(data).reader) == (PILLOW, PILLOW)
    assert np.array_equal(decode(data).image, colours())


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
