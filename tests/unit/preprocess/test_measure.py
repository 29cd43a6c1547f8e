import cv2
import numpy as np
import pytest

from preprocess.measure import measure
from tests.tiffs import Field, tiff

RNG = np.random.default_rng(0)


def values(low: int, high: int) -> np.ndarray:
    image = RNG.integers(low, high + 1, (40, 50))
    image[0, :2] = low, high
    return image


def folder_of(folder, *files: bytes):
    for number, data in enumerate(files):
        (folder / f"{number}.png").write_bytes(data)
    return measure(folder, [f"{number}.png" for number in range(len(files))])


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image.astype(np.uint16))[1].tobytes()


def test_the_window_holds_all_values_that_were_seen(tmp_path):
    found = folder_of(tmp_path, png(values(7, 3000)), png(values(50, 4000)))
    assert (found.measured, found.refused, found.window) == (2, 2, (7, 4000))
    assert "2 of 2 16-bit images" in found.why
    assert "7 to 4,000" in found.why


def test_what_all_files_declare_is_taken_where_they_keep_to_it(tmp_path):
    fields = {281: Field("H", 4095)}
    deep = [tiff(values(7, high).astype(np.uint16), fields=fields) for high in (3000, 4000)]
    found = folder_of(tmp_path, *deep)
    assert found.window == (0, 4095)
    assert "4,095 is the most that they declare" in found.why
    assert folder_of(tmp_path, *deep, png(values(9, 3000))).window == (7, 4000), "not all declare it"
    beyond = tiff(values(7, 5000).astype(np.uint16), fields=fields)
    assert folder_of(tmp_path, *deep, beyond).window == (7, 5000)


@pytest.mark.parametrize("images", [[values(0, 65535)], [values(0, 4095), values(0, 65535)]])
def test_where_the_high_byte_is_as_good_there_is_no_window(tmp_path, images):
    found = folder_of(tmp_path, *map(png, images))
    assert found.window is None
    assert found.refused == len(images) - 1


def test_signed_values_need_a_window(tmp_path):
    found = folder_of(tmp_path, tiff(values(-1000, 3000).astype(np.int16)))
    assert found.window == (-1000, 3000)


def test_8_bits_in_16_need_a_window(tmp_path):
    found = folder_of(tmp_path, png(values(0, 240)), tiff(values(3, 200).astype(np.int16)))
    assert (found.measured, found.refused, found.flat, found.window) == (2, 0, 2, (0, 255))
    assert "2 of 2 16-bit images" in found.why


def test_odd_pixels_do_not_make_the_window_useless(tmp_path):
    images = [values(0, 4095) for _ in range(3)]
    for image in images:
        image[0, 0] = 65535
    found = folder_of(tmp_path, *map(png, images))
    assert (found.refused, found.window) == (3, (0, 4100))
    assert "their values are 0 to 65,535, and the lowest and the highest 0.1 % of an image's were left out" in found.why


def test_a_window_that_suits_most_is_written_and_the_others_are_counted(tmp_path):
    dark = [png(values(0, 600)) for _ in range(2)]
    found = folder_of(tmp_path, *[png(values(0, 4095)) for _ in range(3)], *dark)
    assert (found.refused, found.window) == (5, (0, 4095))
    assert "2 keep few levels in this window, too" in found.why
    assert folder_of(tmp_path, png(values(0, 4095)), *dark, png(values(0, 65535))).window is None


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_samples_lose_no_more_than_their_lower_bits(tmp_path, bits):
    image = values(0, (1 << bits) - 1)
    digits = (image[..., np.newaxis] >> np.arange(bits - 1, -1, -1)) & 1
    strip = np.packbits(digits.reshape(len(image), -1).astype(np.uint8), axis=1).tobytes()
    found = folder_of(tmp_path, tiff(image.astype(np.uint16), bits=bits, strip=strip))
    assert (found.measured, found.refused, found.flat, found.window) == (1, 0, 0, None)


@pytest.mark.parametrize(("highest", "maxval", "window"), [(4095, 65535, (0, 4095)), (1023, 1023, None)])
def test_pnm_is_measured_by_what_is_scaled(tmp_path, highest, maxval, window):
    data = f"P5\n50 40\n{maxval}\n".encode() + values(0, highest).astype(">u2").tobytes()
    found = folder_of(tmp_path, data)
    assert (found.measured, found.window) == (1, window)


@pytest.mark.skipif(not cv2.haveImageWriter("a.jp2"), reason="this OpenCV has no JPEG 2000")
def test_jpeg_2000_is_measured(tmp_path):
    lossless = (cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)
    data = cv2.imencode(".jp2", values(0, 4095).astype(np.uint16), lossless)[1].tobytes()
    assert folder_of(tmp_path, data).window == (0, 4095)


@pytest.mark.skipif(not cv2.haveImageWriter("a.avif"), reason="this OpenCV has no AVIF")
def test_avif_is_measured(tmp_path):
    def avif(highest):
        image = np.repeat(np.linspace(0, highest, 4096).astype(np.uint16).reshape(64, 64, 1), 3, axis=2)
        return cv2.imencode(".avif", image, (cv2.IMWRITE_AVIF_DEPTH, 12, cv2.IMWRITE_AVIF_QUALITY, 100))[1].tobytes()

    assert folder_of(tmp_path, avif(4095)).window is None
    dark = folder_of(tmp_path, avif(600))
    assert dark.refused == 1
    assert dark.window is not None
    assert dark.window[1] < 1000


def test_files_that_cannot_be_measured_are_passed_over(tmp_path):
    found = folder_of(tmp_path, b"", png(values(0, 4095))[:90], png(values(0, 255) % 256).replace(b"IDAT", b"XXXX"))
    assert (found.measured, found.window) == (0, None)
    assert measure(tmp_path, ["gone.png"]).window is None
    assert measure(tmp_path, []).window is None


def test_of_many_files_some_are_measured(tmp_path):
    found = folder_of(tmp_path, *[png(values(number, 4000 + number)) for number in range(40)])
    assert found.measured == 16
    assert found.window == (0, 4039), "the first and the last are among them"
