import io
import random
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from preprocess.tiff_header import TiffHeader, read_tiff_header
from tests.tiffs import Field, tiff

VARIANTS = [(order, big) for order in "<>" for big in (False, True)]


def read(data: bytes) -> TiffHeader:
    header = read_tiff_header(data)
    assert header is not None
    return header


@pytest.mark.parametrize(("order", "big"), VARIANTS)
def test_fields_are_read_in_both_byte_orders_and_both_sizes_of_offset(order, big):
    pixels = np.zeros((3, 4, 5), np.uint16)
    fields = {
        274: Field("H", 6),
        280: Field("H", 7),
        281: Field("H", 4095),
        338: Field("H", 2, 0),
        34675: Field("B", *b"profile"),
    }
    header = read(tiff(pixels, photometric=2, fields=fields, order=order, big=big))
    assert header == TiffHeader(3, 4, 16, 5, (2, 0), 2, False, 1, 1, 6, 1, 7, 4095, b"profile")
    assert header.surplus == 1


@pytest.mark.parametrize(("order", "big"), VARIANTS)
def test_pages_are_directories_that_are_neither_smaller_versions_nor_masks(order, big):
    page = np.zeros((3, 4), np.uint8)
    kinds = [0, 1, 2, 4, 9]  # full, reduced, page, mask, Aperio's macro image
    more = [tiff_page(page, {254: Field("I", kind)}) for kind in kinds]
    assert read(tiff(page, order=order, big=big)).pages == 1
    assert read(tiff(page, order=order, big=big, pages=more)).pages == 3
    old = [tiff_page(page, {255: Field("H", kind)}) for kind in (2, 3)]
    assert read(tiff(page, order=order, big=big, pages=old)).pages == 2


def tiff_page(pixels, fields):
    return pixels, fields


def test_first_directory_that_is_a_thumbnail_counts_beside_the_image_behind_it():
    thumbnail, image = np.zeros((3, 4), np.uint8), np.zeros((30, 40), np.uint8)
    assert read(tiff(thumbnail, fields={254: Field("I", 1)}, pages=[(image, {})])).pages == 2


def test_chain_of_directories_that_runs_in_a_circle_ends():
    data = bytearray(tiff(np.zeros((3, 4), np.uint8)))
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    struct.pack_into("<I", data, directory + 2 + 12 * count, directory)
    assert read(bytes(data)).pages == 1


def test_values_that_the_file_leaves_out_have_their_defaults():
    data = tiff(np.zeros((3, 4), np.uint8), leave_out={258, 259, 262, 277, 284, 339})
    assert read(data) == TiffHeader(3, 4, 1, 1, (), -1, False, 1, 1, 1, 1, None, None, None)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA", "CMYK", "I;16", "F", "P"])
def test_pillow_and_the_reader_agree(mode):
    buffer = io.BytesIO()
    Image.new(mode, (4, 3)).save(buffer, "TIFF")
    header = read(buffer.getvalue())
    samples, bits = {"1": (1, 1), "I;16": (1, 16), "F": (1, 32), "P": (1, 8)}.get(mode, (len(mode), 8))
    assert (header.height, header.width, header.samples, header.bits) == (3, 4, samples, bits)
    assert header.sample_format == (3 if mode == "F" else 1)
    assert header.surplus == 0


def test_files_of_opencv_are_read():
    header = read(bytes(cv2.imencode(".tiff", np.zeros((3, 4, 3), np.uint16))[1]))
    assert (header.height, header.width, header.samples, header.bits, header.compression) == (3, 4, 3, 16, 5)


def test_other_formats_and_cut_headers_are_none():
    data = tiff(np.zeros((3, 4), np.uint8))
    (directory,) = struct.unpack_from("<I", data, 4)
    assert read_tiff_header(b"") is None
    assert read_tiff_header(b"\x89PNG\r\n\x1a\n" + data) is None
    for cut in range(directory + 2 + 11 * 12):
        header = read_tiff_header(data[:cut])
        assert header is None or cut >= directory + 2 + 12 * 2  # height and width are the first two entries


def test_nonsense_never_raises_and_never_takes_long():
    chance = random.Random(0)
    whole = tiff(np.zeros((3, 4, 5), np.uint16), pages=[(np.zeros((3, 4), np.uint8), {})], big=True)
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(8, len(data))] = chance.choice((0, 1, 2, 127, 128, 255, chance.randrange(256)))
        read_tiff_header(bytes(data))
