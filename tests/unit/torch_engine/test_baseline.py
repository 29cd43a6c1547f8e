import random
import struct

import cv2
import numpy as np
import pytest

from preprocess.decode import decode
from preprocess.torch_engine.baseline import jpeg_for_nvjpeg
from tests.jpegs import BIG, NVJPEGS, OPENCVS, adobe, exif, inserted, jpeg, segment, stored

PLAIN = NVJPEGS["4:2:0"]


def markers(data: bytes) -> list[int]:
    """Of the segments up to the scan, one after another without anything between."""
    found, at = [], 2
    while not found or found[-1] != 0xFFDA:
        marker, length = struct.unpack_from(">HH", data, at)
        found.append(marker)
        at += 2 + length
    return found


@pytest.mark.parametrize("name", NVJPEGS)
def test_a_sequential_jpeg_is_nvjpegs_and_keeps_its_pixels(name):
    bare = jpeg_for_nvjpeg(NVJPEGS[name], max_pixels=BIG)

    assert np.array_equal(stored(bytes(bare.data)), stored(NVJPEGS[name]))
    assert (bare.header.height, bare.header.width) == stored(NVJPEGS[name]).shape[:2]


@pytest.mark.parametrize("name", OPENCVS)
def test_any_other_file_is_opencvs(name):
    assert jpeg_for_nvjpeg(OPENCVS[name], max_pixels=BIG) is None


def test_nothing_but_the_image_is_handed_over():
    data = inserted(PLAIN, exif(6), segment(0xFFE2, b"ICC_PROFILE\0"), adobe(1), segment(0xFFFE, b"hello"), b"\xff\xff")
    bare = jpeg_for_nvjpeg(data + jpeg(1), max_pixels=BIG)

    assert bare.data == jpeg_for_nvjpeg(PLAIN, max_pixels=BIG).data
    assert set(markers(bare.data)) == {0xFFC0, 0xFFC4, 0xFFDB, 0xFFDA}
    assert bare.data[:2] == b"\xff\xd8"
    assert bare.data[-2:] == b"\xff\xd9"
    assert bare.header.orientation == 6


def test_restarts_stay_restarts():
    bare = jpeg_for_nvjpeg(NVJPEGS["restarts"], max_pixels=BIG)

    assert 0xFFDD in markers(bare.data)
    assert b"\xff\xd0" in bare.data


@pytest.mark.parametrize(
    ("name", "sampling"),
    [("4:2:0", 0x221111), ("4:2:2", 0x211111), ("4:4:0", 0x121111), ("4:4:4", 0x111111), ("gray", 0x111111)],
)
def test_sampling_is_written_as_opencv_writes_it(name, sampling):
    assert jpeg_for_nvjpeg(NVJPEGS[name], max_pixels=BIG).sampling == sampling


def test_the_cap_is_exact():
    assert jpeg_for_nvjpeg(PLAIN, max_pixels=40 * 56) is not None
    assert jpeg_for_nvjpeg(PLAIN, max_pixels=40 * 56 - 1) is None


@pytest.mark.parametrize(("reduce_to", "is_nvjpegs"), [((10, 14), False), ((11, 14), True), ((10, 15), True)])
def test_a_file_that_is_decoded_at_half_its_size_is_opencvs(reduce_to, is_nvjpegs):
    assert (jpeg_for_nvjpeg(PLAIN, max_pixels=BIG, reduce_to=reduce_to) is not None) == is_nvjpegs


def test_the_size_that_counts_for_a_reduced_decode_is_upright():
    assert jpeg_for_nvjpeg(inserted(PLAIN, exif(6)), max_pixels=BIG, reduce_to=(14, 10)) is None
    assert jpeg_for_nvjpeg(inserted(PLAIN, exif(6)), max_pixels=BIG, reduce_to=(10, 14)) is not None


def test_a_jpeg_is_opencvs_until_its_last_byte():
    assert all(jpeg_for_nvjpeg(PLAIN[:end], max_pixels=BIG) is None for end in range(len(PLAIN)))


def test_hostile_bytes_are_sorted_without_an_error():
    chance = random.Random(0)
    sorted_out = 0
    for _ in range(3000):
        data = bytearray(chance.choice([*NVJPEGS.values(), *OPENCVS.values()]) + b"\0")
        for _ in range(chance.randint(1, 6)):
            data[chance.randrange(min(len(data), 700))] = chance.choice([0, 1, 0xC0, 0xD9, 0xDA, 0xFF])
        sorted_out += jpeg_for_nvjpeg(bytes(data[: chance.randint(1, len(data))]), max_pixels=BIG) is None
    assert 0 < sorted_out < 3000


@pytest.mark.parametrize("mode", [cv2.IMREAD_COLOR_RGB, cv2.IMREAD_GRAYSCALE])
def test_opencv_decodes_what_has_no_huffman_tables(mode):
    """So that such a file would be lost if it were nvJPEG's."""
    found = cv2.imdecode(np.frombuffer(OPENCVS["no Huffman tables"], np.uint8), mode)
    assert np.array_equal(found, cv2.imdecode(np.frombuffer(PLAIN, np.uint8), mode))


def test_what_is_left_as_it_is_in_a_jpeg_is_noted_on_the_gpus_way_too():
    data = inserted(jpeg(), segment(0xFFE2, b"ICC_PROFILE\0\1\1" + b"nonsense" * 20))
    given = jpeg_for_nvjpeg(data, max_pixels=10**6)
    assert given.notes == decode(data).notes == ("colour profile 'that cannot be read'",)
    assert jpeg_for_nvjpeg(jpeg(), max_pixels=10**6).notes == ()
