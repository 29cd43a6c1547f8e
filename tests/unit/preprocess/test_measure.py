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


def test_files_that_cannot_be_measured_are_passed_over(tmp_path):
    found = folder_of(tmp_path, b"", png(values(0, 4095))[:90], png(values(0, 255) % 256).replace(b"IDAT", b"XXXX"))
    assert (found.measured, found.window) == (0, None)
    assert measure(tmp_path, ["gone.png"]).window is None
    assert measure(tmp_path, []).window is None


def test_of_many_files_some_are_measured(tmp_path):
    found = folder_of(tmp_path, *[png(values(number, 4000 + number)) for number in range(40)])
    assert found.measured == 16
    assert found.window == (0, 4039), "the first and the last are among them"
