"""TIFFs that OpenCV alone would misread or drop half of: held against the samples they were written from."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from preprocess.decode import decode
from preprocess.errors import SourceError
from preprocess.levels import apply_window
from preprocess.tiff_header import first_fields
from preprocess.tiff_samples import packed_blocks
from tests.tiffs import Field, tiff

GRAY, WHITE_IS_0, RGB = 1, 0, 2
RNG = np.random.default_rng(0)


def samples(count: int, dtype=np.uint16, top: int = 4095) -> np.ndarray:
    return RNG.integers(0, top + 1, (33, 47, count)).astype(dtype)


def reason(data: bytes, **options) -> str:
    with pytest.raises(SourceError) as caught:
        decode(data, **options)
    assert caught.value.stage == "decode"
    return caught.value.reason


def packed(image: np.ndarray, bits: int) -> bytes:
    """Rows of samples of so many bits each, whole bytes a row."""
    rows = []
    for row in image.reshape(len(image), -1):
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(int(text, 2).to_bytes(len(text) // 8))
    return b"".join(rows)


@pytest.mark.parametrize("colour", [GRAY, RGB])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_a_window_has_the_samples_as_they_are_written(colour, planar, order, big):
    image = samples(3 if colour == RGB else 1)
    found = decode(tiff(image, photometric=colour, planar=planar, order=order, big=big), levels=(0, 4095))
    assert np.array_equal(found.image, np.broadcast_to(apply_window(image, (0, 4095)), found.image.shape))
    assert found.notes == ("window [0, 4095]",)


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("kind", [0, 1, 2])
def test_alpha_touches_no_colour_of_a_window(count, planar, kind):
    image, colours = samples(count), count - 1
    data = tiff(image, photometric=RGB if count == 4 else GRAY, planar=planar, fields={338: Field("H", kind)})
    found = decode(data, levels=(0, 4095))
    expected = apply_window(np.ascontiguousarray(image[..., :colours]), (0, 4095))
    assert np.array_equal(found.image, np.broadcast_to(expected, found.image.shape))
    assert found.notes == ("window [0, 4095]", "alpha" if kind else "extra channels")


@pytest.mark.parametrize("order", ["<", ">"])
def test_where_0_is_white_it_is_white_in_a_window_too(order):
    image = samples(1)
    data = tiff(image, photometric=WHITE_IS_0, order=order)
    expected = 255 - apply_window(image, (0, 4095))
    assert np.array_equal(decode(data, levels=(0, 4095), channels="gray").image, expected)
    assert np.array_equal(decode(data, levels=(0, 4095)).image, np.repeat(expected, 3, axis=2))
    high = decode(data, levels="high-byte", channels="gray").image
    assert high.min() >= 255 - 16, "and in the high byte"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_window_is_upright_as_the_high_byte_is(orientation):
    ramp = (np.arange(33)[:, None] * 1500 + np.arange(47) * 20).astype(np.uint16)
    data = tiff(ramp, fields={274: Field("H", orientation)})
    by_window, by_byte = (decode(data, levels=levels).image.astype(int) for levels in ((0, 65535), "high-byte"))
    assert by_window.shape == by_byte.shape
    assert np.abs(by_window - by_byte).max() <= 1


@pytest.mark.parametrize("count", [3, 4, 5, 8])
@pytest.mark.parametrize(("colour", "kept"), [(GRAY, 1), (RGB, 3)])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_extra_samples_are_refused_or_dropped(count, colour, kept, planar, dtype):
    image = samples(count, dtype, np.iinfo(dtype).max)
    data = tiff(image, photometric=colour, planar=planar)
    if count <= kept + 1:
        assert decode(data).notes == ("16-bit",) * (dtype == np.uint16) + ("alpha",) * (count == kept + 1)
        return
    text = reason(data)
    assert f"TIFF with {count} samples a pixel" in text
    assert "decode: {extra_channels: drop}" in text
    found = decode(data, extra_channels="drop")
    expected = image[..., :kept] if dtype == np.uint8 else (image[..., :kept] >> 8).astype(np.uint8)
    assert np.array_equal(found.image, np.broadcast_to(expected, found.image.shape))
    assert found.notes == ("16-bit",) * (dtype == np.uint16) + ("extra channels",)
    if dtype == np.uint16:
        windowed = decode(data, extra_channels="drop", levels=(0, 65535)).image
        expected = apply_window(np.ascontiguousarray(image[..., :kept]), (0, 65535))
        assert np.array_equal(windowed, np.broadcast_to(expected, windowed.shape))


@pytest.mark.parametrize("compression", ["raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate"])
@pytest.mark.parametrize("predictor", [1, 2])
def test_compressed_samples_are_read(compression, predictor):
    """Pillow writes up to four; one of them is declared to be no colour's, so that RGB counts as gray and two more."""
    image = np.cumsum(samples(3, np.uint8, 3), axis=1).astype(np.uint8)
    buffer = io.BytesIO()
    options = {} if predictor == 1 or compression in ("raw", "packbits") else {"tiffinfo": {317: 2}}
    Image.fromarray(image).save(buffer, "TIFF", compression=compression, **options)
    data = buffer.getvalue()
    at = data.index(b"\x06\x01\x03\x00\x01\x00\x00\x00\x02\x00")  # photometric: RGB
    data = data[: at + 8] + b"\x01" + data[at + 9 :]
    assert first_fields(data).one(317, 1) == (2 if options else 1)
    found = decode(data, extra_channels="drop", channels="gray")
    assert np.array_equal(found.image, image[..., :1])


@pytest.mark.parametrize("planar", [False, True])
def test_tiles_are_read(planar):
    image = samples(5)
    data = tiff(image, photometric=GRAY, planar=planar, tile=16)
    found = decode(data, extra_channels="drop", levels=(0, 4095), channels="gray")
    assert np.array_equal(found.image, apply_window(np.ascontiguousarray(image[..., :1]), (0, 4095)))


def test_pages_are_refused_or_the_first_is_kept():
    first, second = samples(1, np.uint8, 255), samples(1, np.uint8, 255)
    data = tiff(first, pages=[(second, {})] * 4)
    assert reason(data) == (
        "TIFF with 5 pages; write decode: {pages: first} in the recipe to keep the first page alone"
    )
    found = decode(data, pages="first", channels="gray")
    assert np.array_equal(found.image, first)
    assert found.notes == ("several pages",)


def test_all_that_is_to_be_written_is_said_at_once():
    data = tiff(samples(5), photometric=RGB, pages=[(samples(5), {})])
    assert "decode: {pages: first, extra_channels: drop} in the recipe" in reason(data)


@pytest.mark.parametrize("kind", [1, 4])
def test_smaller_versions_and_masks_are_no_pages(kind):
    image = samples(1, np.uint8, 255)
    data = tiff(image, pages=[(image[::2, ::2], {254: Field("I", kind)})])
    assert decode(data).notes == ()


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("count", [1, 3])
def test_packed_samples_keep_their_upper_8_bits_or_have_a_window_in_their_own_units(bits, count):
    image = samples(count, np.uint16, (1 << bits) - 1)
    data = tiff(image, bits=bits, strip=packed(image, bits))
    found = decode(data)
    assert np.array_equal(found.image, np.broadcast_to((image >> bits - 8).astype(np.uint8), found.image.shape))
    assert found.notes == ("9 to 15 bits",)
    found = decode(data, levels=(100, 900))
    assert np.array_equal(found.image, np.broadcast_to(apply_window(image, (100, 900)), found.image.shape))


def test_the_window_that_is_proposed_is_the_declared_one_or_what_there_is():
    image = samples(1)
    image[0, :2, 0] = 3, 4000
    low, high = int(image.min()), int(image.max())
    assert f"levels: [{low}, {high}]" in reason(tiff(image))
    assert "levels: [0, 4095]" in reason(tiff(image, fields={281: Field("H", 4095)}))
    assert f"levels: [{low}, {high}]" in reason(tiff(image, fields={281: Field("H", 1000)})), "which it goes beyond"


def test_signed_samples_need_a_window_where_they_are_below_zero():
    image = samples(1, np.int16, 3000) - np.int16(1024)
    image[0, :2, 0] = -1024, 1976
    assert "signed 16-bit values from -1024 to 1976; write decode: {levels: [-1024, 1976]}" in reason(tiff(image))
    assert "signed" in reason(tiff(image), levels="high-byte")
    found = decode(tiff(image), levels=(-1024, 1976), channels="gray")
    assert np.array_equal(found.image, apply_window(image, (-1024, 1976)))
    positive = samples(1, np.int16, 32767)
    assert decode(tiff(positive)).notes == ("16-bit",)
    assert "signed 8-bit" in reason(tiff(samples(1, np.int16, 200).astype(np.int8)), levels=(0, 9))


def test_signed_colours_are_weighed_for_gray():
    image = samples(3, np.int16, 3000) - np.int16(1024)
    found = decode(tiff(image), levels=(-1024, 2047), channels="gray").image[..., 0]
    gray = image.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(found - (gray + 1024) * 255 / 3071).max() < 0.6


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (samples(2, np.float32), "32-bit float samples, 2 a pixel"),
        (samples(5, np.float32), "5 samples a pixel"),
        (samples(1, np.uint32), "which OpenCV does not turn into 8 bits"),
    ],
)
def test_what_is_not_supported_is_not_called_damaged(image, words):
    text = reason(tiff(image, photometric=GRAY))
    assert words in text
    assert "damaged" not in text
    assert "damaged" not in reason(tiff(image, photometric=GRAY), extra_channels="drop")


def test_a_cut_file_is_called_damaged():
    data = tiff(samples(5, np.uint8, 255), photometric=GRAY)
    assert reason(data[:-900], extra_channels="drop") == "TIFF data is cut or damaged"


def test_the_cap_counts_before_anything_is_decoded():
    data = tiff(samples(1), leave_out={257}, fields={256: Field("I", 40_000)})
    assert reason(data).startswith("TIFF data") or "cut" in reason(data)
    data = tiff(samples(1), fields={256: Field("I", 40_000), 257: Field("I", 40_000)})
    assert "is over the cap" in reason(data)


def test_files_of_8_bits_are_left_as_they_are_by_all_keys():
    for count, colour in itertools.product((1, 3), (WHITE_IS_0, RGB)):
        data = tiff(samples(count, np.uint8, 255), photometric=colour if count == 3 else WHITE_IS_0)
        if count == 3 and colour == WHITE_IS_0:
            continue
        plain, keyed = decode(data), decode(data, levels=(0, 9), extra_channels="drop", pages="first")
        assert np.array_equal(plain.image, keyed.image)
        assert plain.notes == keyed.notes == ()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_damage_inside_of_packed_data_is_no_black_band(compression, mode):
    picture = Image.fromarray(np.cumsum(np.random.default_rng(0).integers(0, 3, (90, 80, 3)), axis=1).astype(np.uint8))
    buffer = io.BytesIO()
    picture.convert(mode).save(buffer, "TIFF", compression=compression, strip_size=4000)
    data = buffer.getvalue()
    assert decode(data).source_hw == (90, 80)
    blocks = packed_blocks(data)
    assert len(blocks) > 1
    at = data.index(blocks[1]) + len(blocks[1]) // 3
    damaged = data[:at] + bytes(len(blocks[1]) // 3) + data[at + len(blocks[1]) // 3 :]
    with pytest.raises(SourceError, match="TIFF data is damaged: "):
        decode(damaged)
    assert decode(damaged, reader="opencv").source_hw == (90, 80)  # a tensor that is committed comes back as it was
