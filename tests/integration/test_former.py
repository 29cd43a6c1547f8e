"""A cache whose files an earlier version has read differently: it stays valid, says so, and is replaced when asked."""

import numpy as np
import pytest

from cache_store import open_cache
from cache_store.manifest import SplitTable
from preprocess import former, publish, repair
from preprocess.builder import build
from preprocess.survey import status
from tests.helpers import image_folder, write_image
from tests.unit.cache_store.stores import flip_bit
from tests.unit.preprocess.test_header import png_with
from tests.unit.preprocess.test_readers import PNG_PROFILES, pnm, tiff

RECIPE = {
    "size": 8,
    "dtype": "uint8",
    "splits": {"train": {"folder": ".", "variants": 2, "transforms": [{"Resize": {"height": 8, "width": 8}}]}},
}
TURNED, DARK, MIXED = "cat/turned.png", "dog/dark.pgm", "dog/mixed.pam"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Photos, and a cache of them as the first version left it."""
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    (photos / TURNED).write_bytes(png_with(PNG_PROFILES["zTXt"](6)))
    (photos / DARK).write_bytes(pnm(5, 100, np.arange(720).reshape(20, 36) % 101))
    (photos / MIXED).write_bytes(pnm(7, 255, np.arange(2160).reshape(20, 36, 3) % 251))
    with monkeypatch.context() as patch:
        patch.setattr(publish, "SplitTable", lambda *fields: SplitTable(*fields[:6]))
        build(photos, cache, RECIPE, workers=1, decoder="tests.decoders:formerly")
    return tmp_path


def rows(cache) -> dict[str, tuple[str, bytes]]:
    """Path -> how the manifest says that it was read, and the tensor of its last variant."""
    with open_cache(cache) as opened:
        table = opened.split("train")
        names = [table.decoders[number] for number in table["decoder"][:, -1]]
        return {
            path.decode(): (name, opened.image("train", number, 1).tobytes())
            for number, (path, name) in enumerate(zip(table.paths(), names, strict=True))
        }


def test_tensors_of_a_former_reading_are_kept_counted_and_replaced_when_asked(place, monkeypatch):
    photos, cache = place / "photos", place / "cache"
    before = rows(cache)
    expected = {"opencv+turned": 1, "opencv+scaled": 1, "unpacked": 1}

    found = status(photos, cache)
    assert (found.up_to_date, found.read_formerly) == (True, expected)
    assert sum("--rerender replaces them" in note for note in found.departures) == 3

    report = build(photos, cache, workers=1)
    assert (report.up_to_date, report.read_formerly) == (True, expected)
    with monkeypatch.context() as patch:  # the look is taken once
        patch.setattr(former, "beginning", lambda path: pytest.fail("headers are read again"))
        assert build(photos, cache, workers=1).read_formerly == expected

    write_image(photos / "cat" / "new.png", 99)
    report = build(photos, cache, workers=1)
    assert (report.rendered, report.read_formerly) == (2, expected)
    assert {path: row for path, row in rows(cache).items() if path in before} == before
    with monkeypatch.context() as patch:  # the snapshot itself knows it now
        patch.setattr(former, "beginning", lambda path: pytest.fail("headers are read again"))
        assert status(photos, cache).read_formerly == expected

    report = build(photos, cache, workers=1, rerender=True)
    assert (report.rendered, report.read_formerly) == (6, expected)
    build(photos, place / "fresh", RECIPE, workers=1)
    assert rows(cache) == rows(place / "fresh")
    assert {path for path, row in rows(cache).items() if row != before.get(path)} == {
        TURNED,
        DARK,
        MIXED,
        "cat/new.png",
    }
    for options in ({}, {"rerender": True}):
        report = build(photos, cache, workers=1, **options)
        assert (report.up_to_date, set(report.read_formerly.values())) == (True, {0})


def test_what_was_replaced_does_not_come_back(place):
    photos, cache = place / "photos", place / "cache"
    build(photos, cache, workers=1, rerender=True)
    after = rows(cache)
    data = (photos / TURNED).read_bytes()
    (photos / TURNED).unlink()
    build(photos, cache, workers=1)
    (photos / TURNED).write_bytes(data)
    write_image(photos / "cat" / "new.png", 99)  # something is missing: former snapshots are asked
    assert build(photos, cache, workers=1).rendered == 2
    assert {path: row for path, row in rows(cache).items() if path in after} == after


def test_repair_reads_as_the_manifest_says(place):
    photos, cache = place / "photos", place / "cache"
    before = rows(cache)
    (shard, *_) = cache.glob("tensors/*/image/c.*")
    with open_cache(cache) as opened:
        table = opened.split("train")
        number = [path.decode() for path in table.paths()].index(TURNED)
        slot, slots = int(table["slot"][number, 1]), opened.tensors("train").slots
    flip_bit(shard.with_name(f"c.{slot // slots}.0.0.0"), (3 * 8 * 8 + 4) * (slot % slots))
    report = repair(photos, cache)
    assert (report.rendered, report.remaining) == (1, [])
    assert rows(cache) == before


def test_what_an_earlier_version_could_not_read_is_tried_again(tmp_path, monkeypatch):
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    (photos / "cat" / "four.tif").write_bytes(tiff(4)[0])
    with monkeypatch.context() as patch:
        patch.setattr(publish, "SplitTable", lambda *fields: SplitTable(*fields[:6]))
        report = build(photos, cache, RECIPE, workers=1, decoder="tests.decoders:formerly")
    assert [failure["path"] for failure in report.failures] == ["cat/four.tif"]
    report = build(photos, cache, workers=1)
    assert (report.rendered, report.failures) == (2, [])
    assert rows(cache)["cat/four.tif"][0] == "pillow"
