"""What headers say of a folder, without a look at the pixels."""

import os

import cv2
import numpy as np

from preprocess import census as module
from preprocess.census import take_census
from preprocess.reading import propose_splits
from preprocess.recipe import Recipe
from preprocess.scan import scan
from tests import jpegs
from tests.helpers import picture, write_image
from tests.tiffs import tiff


def census_of(folder):
    return take_census(folder, scan(folder, Recipe().with_splits(propose_splits(folder))))


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_sizes_are_those_of_the_upright_image(tmp_path):
    put(tmp_path / "turned.jpg", jpegs.inserted(jpegs.jpeg(0, 40, 56), jpegs.exif(6)))
    write_image(tmp_path / "plain.png", 1, 24, 32)

    found = census_of(tmp_path)

    assert found.size_hw.tolist() == [[24, 32], [56, 40]]
    assert found.formats == {"JPEG": 1, "PNG": 1}


def test_a_header_behind_a_long_preview_is_found(tmp_path):
    preview = b"".join(jpegs.segment(0xFFE2, bytes(65_000)) for _ in range(4))
    put(tmp_path / "a.jpg", jpegs.inserted(jpegs.jpeg(), preview))

    assert census_of(tmp_path).size_hw.tolist() == [[40, 56]]


def test_what_has_no_header_is_told_from_what_is_damaged(tmp_path):
    put(tmp_path / "empty.jpg", b"")
    put(tmp_path / "text.png", b"no image")
    put(tmp_path / "cut.jpg", jpegs.jpeg()[:30])
    put(tmp_path / "page.tiff", cv2.imencode(".tiff", picture(1))[1].tobytes())
    os.symlink("nowhere", tmp_path / "gone.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")  # the scan passes it over; nothing here may wait for it
    write_image(tmp_path / "good.png", 1)

    found = census_of(tmp_path)

    assert (found.files, found.looked_at, len(found.headers)) == (6, 6, 1)
    assert sorted([*found.unreadable.examples, "text.png"]) == ["cut.jpg", "empty.jpg", "gone.jpg", "text.png"]
    assert found.unreadable.count == 4
    assert found.unsized.examples == ["page.tiff"]
    assert found.formats == {"JPEG": 1, "PNG": 1, "TIFF": 1}


def test_of_many_files_some_are_looked_at_evenly_in_each_split(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_MOST_FILES", 8)
    for split, count in (("train", 29), ("val", 11)):
        for number in range(1, count + 1):  # known by its height
            image = cv2.imencode(".png", picture(0, number, 4))[1].tobytes()
            put(tmp_path / split / "cat" / f"{number:02}.png", image)

    found = census_of(tmp_path)

    assert (found.files, found.looked_at) == (40, 9)  # each share is rounded up
    assert found.size_hw[:, 0].tolist() == [1, 6, 12, 17, 23, 29, 1, 6, 11]


def test_other_formats_say_how_deep_they_are(tmp_path):
    deep = np.zeros((64, 64, 3), np.uint16)
    files = {"deep.pgm": b"P5 2 2 4095\n" + bytes(8), "plain.pgm": b"P5 2 2 255\n" + bytes(4)}
    files["deep.jp2"] = cv2.imencode(".jp2", deep)[1].tobytes()
    files["plain.jp2"] = cv2.imencode(".jp2", deep.astype(np.uint8))[1].tobytes()
    files["deep.avif"] = b"\0\0\0\x14ftypavif\0\0\0\0mif1\0\0\0\x0cav1C\x81\x20\x4c\0"
    for name, data in files.items():
        put(tmp_path / name, data)
    assert sorted(census_of(tmp_path).deep) == ["deep.avif", "deep.jp2", "deep.pgm"]


def test_a_tiff_says_how_deep_it_is_and_what_a_decode_would_drop(tmp_path):
    deep, plain = np.zeros((4, 5, 3), np.uint16), np.zeros((40, 50), np.uint8)
    put(tmp_path / "deep.tif", tiff(deep))
    put(tmp_path / "many.tif", tiff(np.zeros((4, 5, 6), np.uint8)))
    # Its second directory lies beyond what is read of other formats.
    put(tmp_path / "pages.tif", tiff(np.zeros((300, 400), np.uint8), pages=[(plain, {})]))
    put(tmp_path / "plain.tif", tiff(plain))
    put(tmp_path / "float.tif", tiff(np.zeros((4, 5), np.float32)))
    put(tmp_path / "deep.png", cv2.imencode(".png", deep)[1].tobytes())

    found = census_of(tmp_path)

    assert sorted(found.deep) == ["deep.png", "deep.tif"]
    assert found.surplus.examples == ["many.tif"]
    assert found.pages.examples == ["pages.tif"]
    assert found.unsized.count == 5
