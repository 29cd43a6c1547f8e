"""One bad file never stops or poisons a build: it is left out and listed, and the rest is committed."""

import os
import struct
import sys
import zlib

import pytest

from cache_store.layout import name_to_text
from loaders import CachedDataset
from preprocess import status
from preprocess.builder import build
from preprocess.scan import signature
from tests import decoders
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import Watcher, assert_as_rendered, assert_sound, failures, labels, paths

GOOD = ["cat/000.png", "cat/001.png", "cat/002.png", "cat/003.png", "dog/000.png", "dog/001.png", "dog/002.png"]


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Seven good images among every kind of bad ones."""
    folder = tmp_path_factory.mktemp("bad") / "photos"
    image_folder(folder)
    (folder / "dog" / "003.png").unlink()
    jpeg = write_image(folder / "whole.jpg", 77, 120, 160).read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "cat" / "0005 empty.jpg").touch()
    (folder / "cat" / "0015 half.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "cat" / "html.jpg").write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    (folder / "dog" / "bomb.png").write_bytes(png_header(50_000, 50_000))
    (folder / "dog" / "folder.jpg").mkdir()
    (folder / "dog" / "gone.png").symlink_to(folder / "nowhere.png")
    return folder


@pytest.fixture(scope="module")
def built(photos, tmp_path_factory):
    cache = tmp_path_factory.mktemp("bad") / "cache"
    return cache, build(photos, cache, TINY, workers=2)


def test_bad_files_are_left_out_and_the_rest_close_up(built, photos):
    cache, report = built

    assert report.samples == {"train": 7}
    assert paths(cache) == GOOD
    assert labels(cache) == [0] * 4 + [1] * 3
    assert_as_rendered(cache, photos)


@pytest.mark.parametrize(
    ("path", "stage", "reason"),
    [
        ("cat/0005 empty.jpg", "decode", "empty file"),
        ("cat/0015 half.jpg", "decode", "cut or damaged"),
        ("cat/html.jpg", "decode", "not an image"),
        ("dog/bomb.png", "decode", "50000 x 50000 = 2500 Mpx is over the cap of 179 Mpx"),
        ("dog/gone.png", "read", "No such file"),
    ],
)
def test_each_bad_file_is_listed_with_path_stage_and_reason(built, path, stage, reason):
    cache, report = built

    listed = failures(cache)

    assert set(listed) == {"cat/0005 empty.jpg", "cat/0015 half.jpg", "cat/html.jpg", "dog/bomb.png", "dog/gone.png"}
    assert listed[path][0] == stage
    assert reason in listed[path][1]
    assert [f["path"] for f in report.failures] == list(listed)
    assert path in str(report)
    assert "5 images were left out" in str(report)


def test_a_dataset_lists_the_failures(built):
    cache, _ = built
    with CachedDataset(cache) as dataset:
        assert [f["path"] for f in dataset.failures] == list(failures(cache))
        assert dataset.samples == list(zip(GOOD, [0] * 4 + [1] * 3, strict=True))
        assert dataset.targets == [0] * 4 + [1] * 3


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    image_folder(tmp_path / "photos", count=2)
    write_image(tmp_path / "photos" / "dog" / "x.jpg" / "inside.png", 99)

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    assert report.failures == []
    assert paths(tmp_path / "cache")[2:] == ["dog/000.png", "dog/001.png", "dog/x.jpg/inside.png"]


def test_a_file_that_vanishes_between_scan_and_read_is_listed(tmp_path):
    image_folder(tmp_path / "photos")
    losing = Watcher(lambda stage: (tmp_path / "photos" / "cat" / "001.png").unlink(missing_ok=True))

    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, progress=losing)

    assert failures(tmp_path / "cache") == {"cat/001.png": ("read", "No such file or directory")}
    assert len(paths(tmp_path / "cache")) == 7
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_a_file_edited_between_scan_and_read_enters_as_it_was_read(tmp_path):
    image_folder(tmp_path / "photos")
    edited = tmp_path / "photos" / "cat" / "001.png"
    editing = Watcher(lambda stage: write_image(edited, 4321) if stage == "render" else None)

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, progress=editing)

    assert report.failures == []
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")
    assert build(tmp_path / "photos", tmp_path / "cache", workers=1).up_to_date


@pytest.mark.parametrize("edited", [False, True])
def test_a_file_read_twice_must_be_the_same_both_times(tmp_path, notes, edited):
    """Of a job's files only the first 32 MiB are kept between hashing and rendering; the rest are read again."""
    image_folder(tmp_path / "photos", count=2)
    # A job takes its files by a checksum of their paths: the first is decoded before the last is read again.
    first, _, last = sorted(["cat/000.png", "dog/000.png", "dog/001.png"], key=lambda path: zlib.crc32(path.encode()))
    for name in ("cat/000.png", "dog/000.png", "dog/001.png"):
        with open(tmp_path / "photos" / name, "ab") as file:
            file.write(b"\0" * (17 << 20) + (b"EDIT" if name == first and edited else b"    "))
    (notes / "victim").write_text(str(tmp_path / "photos" / last))

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, decoder="tests.decoders:decode")

    changed = ("read", "the file changed while it was read")
    assert failures(tmp_path / "cache") == ({last: changed} if edited else {})
    assert report.samples == {"train": 3 if edited else 4}
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_equal_files_share_slots_and_are_decoded_once(tmp_path, notes):
    image_folder(tmp_path / "photos", count=3)
    for name in ("cat/copy.png", "dog/copy.png", "dog/other copy.png"):
        (tmp_path / "photos" / name).write_bytes((tmp_path / "photos" / "cat" / "000.png").read_bytes())

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, decoder="tests.decoders:decode")

    assert report.rendered == 6
    assert len(decoders.noted().read_text().splitlines()) == 6
    assert report.samples == {"train": 9}
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_files_equal_to_an_undecodable_one_are_each_listed(tmp_path):
    image_folder(tmp_path / "photos", count=2)
    for name in ("cat/bad.png", "cat/same.png", "dog/too.png"):
        (tmp_path / "photos" / name).write_bytes(b"not an image at all")

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    assert list(failures(tmp_path / "cache")) == ["cat/bad.png", "cat/same.png", "dog/too.png"]
    assert report.samples == {"train": 4}
    assert_sound(tmp_path / "cache")


def test_an_image_that_a_transform_refuses_is_listed(tmp_path):
    image_folder(tmp_path / "photos", count=2)
    write_image(tmp_path / "photos" / "dog" / "small.png", 5, 6, 6)
    recipe = {
        "size": 8,
        "splits": {"train": {"folder": ".", "transforms": [{"CenterCrop": {"height": 8, "width": 8}}]}},
    }

    build(tmp_path / "photos", tmp_path / "cache", recipe, workers=1)

    stage, reason = failures(tmp_path / "cache")["dog/small.png"]
    assert stage == "render"
    assert "(6, 6)" in reason or "crop" in reason.lower()
    assert len(paths(tmp_path / "cache")) == 4


def test_an_image_of_many_variants_that_fails_in_a_late_one_leaves_nothing_behind(tmp_path):
    """Variant 0 of the small image fits, a later one does not: none of it may end up in a slot that counts."""
    image_folder(tmp_path / "photos", count=2)
    write_image(tmp_path / "photos" / "dog" / "small.png", 5, 8, 8)
    transforms = [
        {"RandomScale": {"scale_limit": [-0.5, 0.5], "p": 1.0}},
        {"CenterCrop": {"height": 8, "width": 8}},
    ]
    recipe = {"size": 8, "splits": {"train": {"folder": ".", "variants": 6, "transforms": transforms}}}

    build(tmp_path / "photos", tmp_path / "cache", recipe, workers=1)

    assert list(failures(tmp_path / "cache")) == ["dog/small.png"]
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_a_failed_file_of_an_odd_name_is_listed_under_it(tmp_path):
    image_folder(tmp_path / "photos", count=2)
    odd = "dog/b\udcffd.png"
    (tmp_path / "photos" / odd).write_bytes(b"nothing")

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    assert list(failures(tmp_path / "cache")) == [odd]
    assert report.failures[0]["path"] == name_to_text(odd)
    with CachedDataset(tmp_path / "cache") as dataset:
        assert dataset.failures[0]["path"] == odd


def test_files_that_cannot_be_opened_are_listed_and_tried_again(tmp_path, monkeypatch):
    """By the workers of a first build, and by the threads that hash in a later one."""
    monkeypatch.setattr(os, "open", os.open)  # `tests.unreadable` replaces it in this process, too
    monkeypatch.delitem(sys.modules, "tests.unreadable", raising=False)
    photos, cache = image_folder(tmp_path / "photos", count=2), tmp_path / "cache"
    for number, name in enumerate(("EACCES", "EIO", "ESTALE")):
        write_image(photos / "cat" / f"{name}.png", 60 + number)
    expected = {
        "cat/EACCES.png": ("read", "Permission denied"),
        "cat/EIO.png": ("read", "Input/output error"),
        "cat/ESTALE.png": ("read", "Stale file handle"),
    }

    first = build(photos, cache, TINY, workers=1, decoder="tests.unreadable:decode")
    assert failures(cache) == expected
    second = build(photos, cache, workers=1, decoder="tests.unreadable:decode")
    assert failures(cache) == expected
    monkeypatch.undo()
    third = build(photos, cache, workers=1)

    assert (first.samples, second.up_to_date) == ({"train": 4}, True)
    assert (third.samples, third.rendered, third.failures) == ({"train": 7}, 3, [])
    assert_as_rendered(cache, photos)


def test_a_folder_that_cannot_be_listed_is_a_failure_of_its_own(tmp_path, monkeypatch):
    """As with a network folder that comes and goes. Its images are missed; nothing else is."""
    image_folder(tmp_path / "photos", ("cat", "dog", "owl"), count=2)
    scandir = os.scandir

    def refusing(path):
        if not isinstance(path, int) and os.fspath(path).endswith("owl"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    assert failures(tmp_path / "cache") == {"owl": ("read", "the folder cannot be listed: Permission denied")}
    assert report.samples == {"train": 4}
    monkeypatch.undo()
    assert build(tmp_path / "photos", tmp_path / "cache", workers=1).samples == {"train": 6}
    assert failures(tmp_path / "cache") == {}


@pytest.mark.parametrize("device", ["cpu", "torch-cpu"])
def test_values_at_the_edges_of_their_types(tmp_path, device):
    """A time after 2262 is used, and clamped; a file of holes and a sliver that would be enlarged to gigabytes are
    listed with their sizes and the cap. Nothing else is touched by them."""
    folder = image_folder(tmp_path / "photos", count=2)
    os.utime(folder / "cat" / "001.png", ns=(10**19, 10**19))
    os.utime(folder / "dog" / "000.png", ns=(-(10**9), -(10**9)))
    assert os.stat(folder / "cat" / "001.png").st_mtime_ns >= 1 << 63, "this file system keeps no such time"
    with open(folder / "cat" / "holes.jpg", "wb") as file:
        file.truncate(200 << 30)
    write_image(folder / "dog" / "sliver.png", 9, 2, 20_000)
    recipe = {"size": 224, "dtype": "uint8"}

    report = build(folder, tmp_path / "cache", recipe, device=device, workers=1)

    assert report.samples == {"train": 4}
    found = {failure["path"]: (failure["stage"], failure["reason"]) for failure in report.failures}
    assert found["cat/holes.jpg"] == (
        "read",
        "the file has 200.0 GiB, over the cap of 2.7 GiB, which decode.max_megapixels raises",
    )
    assert found["dog/sliver.png"] == (
        "render",
        "SmallestMaxSize would make 256x2560000 = 655.36 Mpx of its 2x20000 (height x width), over the cap of 179 Mpx "
        "(decode.max_megapixels)",
    )
    assert status(folder, tmp_path / "cache").up_to_date
    assert build(folder, tmp_path / "cache", device=device, workers=1).up_to_date
    assert signature(folder)[1] == 6
