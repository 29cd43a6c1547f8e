"""`decant status` tells what became of the files and what a build would do, and leaves no trace."""

import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from cache_store import NotFoundError, StorageError, layout
from cache_store import UsageError as StoreUsageError
from cache_store.writer import unfinished
from preprocess import FailureBudgetExceeded, ShrinkRefused, UsageError, status
from preprocess.builder import build
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import SHARDS_OF_FOUR, stop_at

RESIZE = {"Resize": {"height": 8, "width": 8}}


def everything(folder):
    """Path, content and time stamp of all files."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def built(tmp_path):
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    build(photos, cache, TINY, workers=1)
    return photos, cache


def asked(built):
    before = everything(built[1])
    report = status(*built)
    assert everything(built[1]) == before
    str(report)
    json.loads(report.to_json())
    return report


def files(report):
    found = report.files
    return {name: getattr(found, name) for name in found.__dataclass_fields__ if getattr(found, name)}


def test_an_unchanged_folder_is_up_to_date(built):
    build(*built, workers=1)  # has seen these very files

    report = asked(built)

    assert report.up_to_date
    assert (files(report), report.failed) == ({}, [])
    assert "up to date" in str(report)
    assert build(*built, workers=1).up_to_date


def test_every_change_is_told_by_its_name(built):
    photos, cache = built
    image_folder(photos, ("owl",), count=1, first_seed=50)
    write_image(photos / "cat" / "000.png", 77, 30, 30)
    (photos / "cat" / "001.png").rename(photos / "cat" / "zebra.png")
    (photos / "cat" / "002.png").rename(photos / "dog" / "was a cat.png")
    (photos / "dog" / "003.png").unlink()

    report = asked(built)

    assert files(report) == {
        "new": ["owl/000.png"],
        "edited": ["cat/000.png"],
        "renamed": [("cat/001.png", "cat/zebra.png")],
        "relabelled": [("cat/002.png", "dog/was a cat.png")],
        "removed": ["dog/003.png"],
    }
    assert not report.up_to_date
    assert report.work["train"].render == 2
    assert report.work["train"].why == ["2 images that are new, edited or unread"]
    for line in ("new (1):", "edited (1):", "    cat/001.png -> cat/zebra.png", "relabelled (1):", "removed (1):"):
        assert line in str(report).splitlines()
    assert build(photos, cache, workers=1).rendered == 2


def test_a_touched_file_and_one_that_takes_anothers_place_are_no_edit_or_two(built):
    photos, _ = built
    os.utime(photos / "cat" / "000.png")
    one, other = photos / "cat" / "001.png", photos / "cat" / "002.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)

    report = asked(built)

    assert files(report) == {"edited": ["cat/001.png", "cat/002.png"]}
    assert report.work["train"].render == 0
    assert "nothing is rendered" in str(report)


def test_a_duplicate_is_new_and_costs_nothing(built):
    photos, _ = built
    shutil.copy(photos / "cat" / "000.png", photos / "cat" / "again.png")

    report = asked(built)

    assert files(report) == {"new": ["cat/again.png"]}
    assert report.work["train"].render == 0


def test_failed_files_are_named_until_they_are_mended(built):
    photos, cache = built
    bad = photos / "cat" / "bad.png"
    bad.write_bytes(b"no image")
    build(photos, cache, workers=1)

    failing = asked(built)
    write_image(bad, 9)
    mended = asked(built)

    assert [f["path"] for f in failing.failed] == ["cat/bad.png"]
    assert files(failing) == {}
    assert "    cat/bad.png: decode:" in str(failing)
    assert (files(mended), mended.failed) == ({"edited": ["cat/bad.png"]}, [])
    assert mended.work["train"].render == 1


def test_drift_is_that_of_the_build(built):
    image_folder(built[0], ("owl",), count=8, first_seed=900)
    report = build(*built, workers=1)

    found = asked(built)

    assert found.drift == report.drift > 0
    assert found.mean == report.mean != found.mean_now
    assert f"a drift of {report.drift:.2g} standard deviations" in str(found)


def test_what_an_interrupted_build_has_finished_is_not_asked_for_again(built):
    photos, cache = built
    image_folder(photos, ("owl",), count=8, first_seed=50)
    with pytest.raises(KeyboardInterrupt):
        build(photos, cache, workers=1, shard_mib=SHARDS_OF_FOUR, progress=stop_at("render", 4))
    finished = sum(len(shard.rows) for shard in unfinished(cache))

    assert finished
    assert asked(built).work["train"].render == 8 - finished
    assert build(photos, cache, workers=1).rendered == 8 - finished


def test_a_split_folder_that_joins_is_told_with_its_reason(tmp_path):
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    image_folder(photos / "train", count=2)
    build(photos, cache, {"size": 8}, workers=1)
    image_folder(photos / "val", count=1, first_seed=50)

    report = asked((photos, cache))

    assert report.work["val"].render == 2
    assert report.work["val"].why == ["the cache has no such split yet"]
    assert report.work["train"].render == 0


def test_images_in_two_splits_and_under_two_labels_are_named(tmp_path):
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    image_folder(photos / "train", count=2)
    image_folder(photos / "val", count=1, first_seed=50)
    shutil.copy(photos / "train" / "cat" / "000.png", photos / "val" / "dog" / "leak.png")
    recipe = {"size": 8, "splits": {name: {"transforms": [RESIZE]} for name in ("train", "val")}}

    built = build(photos, cache, recipe, workers=1)

    for notes in (built.departures, build(photos, cache, workers=1).departures, asked((photos, cache)).departures):
        assert "leakage: 1 image is in 'train' and in 'val' (train/cat/000.png = val/dog/leak.png)" in notes
        assert "1 image has several labels (train/cat/000.png = val/dog/leak.png)" in notes


def test_the_folder_is_found_by_the_caches_hint(built, tmp_path):
    assert status(None, built[1]).source == str(built[0])
    os.rename(built[0], tmp_path / "moved")

    with pytest.raises(StoreUsageError, match=r"is not there any more.*decant status SOURCE CACHE"):
        status(None, built[1])
    layout.source_hint(built[1]).unlink()
    with pytest.raises(StoreUsageError, match="does not say where its images are"):
        status(None, built[1])
    assert files(status(tmp_path / "moved", built[1])) == {}


def test_a_cache_without_a_snapshot_is_not_found(tmp_path):
    image_folder(tmp_path / "photos", count=1)

    with pytest.raises(NotFoundError):
        status(tmp_path / "photos", tmp_path / "nothing")

    assert not (tmp_path / "nothing").exists()


def test_the_command(built, decant, tmp_path):
    photos, cache = built
    write_image(photos / "cat" / "new.png", 5)

    text = decant("status", photos, cache).stdout
    found = json.loads(decant("status", cache, "--json").stdout)

    assert "    cat/new.png" in text.splitlines()
    assert found["files"]["new"] == ["cat/new.png"]
    assert found["work"]["train"]["render"] == 1
    assert decant("status", tmp_path / "nothing", code=4).stdout == ""
    assert decant("status", tmp_path / "no folder", cache, code=2).stdout == ""
    assert "found 3 folders" in decant("status", photos, cache, cache, code=2).stderr


def test_a_changed_recipe_says_what_it_costs_before_it_starts(built, decant):
    photos, cache = built
    told = []

    class Working:
        def stage(self, name, total):
            told.append(name)

        def update(self, done, failed): ...

    report = build(photos, cache, TINY | {"normalize": "imagenet"}, workers=1, announce=told.append, progress=Working())

    text = next(line for line in told if line.startswith("the recipe changed: normalize dataset -> "))
    assert text.endswith(": 0 variants to render, 8 to normalise anew, 3.0 KiB more on disk")
    assert told.index(text) < told.index("normalise")
    assert text in report.departures

    noisy = decant("build", photos, cache, "--set", "seed=7", "--workers", "1", "--dry-run").stderr
    assert noisy == "the recipe changed: seed 0 -> 7: 8 variants to render, 0 to normalise anew, 3.0 KiB more on disk\n"
    told.clear()
    build(photos, cache, workers=1, announce=told.append)
    assert told == []


def test_equal_images_among_many():
    from preprocess.duplicates import _groups

    random = np.random.default_rng(0)
    digests = random.integers(0, 256, (1000, 16), dtype=np.uint8)
    digests[[3, 700, 900]] = digests[5]
    digests[17] = digests[999]
    digests[20, :8] = digests[21, :8]  # equal in eight bytes, and not in all

    assert [group.tolist() for group in _groups(digests)] == [[3, 5, 700, 900], [17, 999]]


# -- what a build would be refused for ---------------------------------------------------------------------------------


def refused(built, error, **options):
    """What `status` foretells; a build then raises the very same."""
    report = asked(built)
    with pytest.raises(error) as caught:
        build(*built, workers=1, **options)
    assert (report.refused, report.exit_code) == (str(caught.value), caught.value.exit_code)
    text = str(report)
    assert f"a build would be refused (exit code {report.exit_code}): {report.refused}" in text
    assert "a build would:" not in text
    assert "new manifest" not in text
    return report


def test_a_split_that_shrank_too_much_is_foretold(built):
    for path in sorted(built[0].rglob("*.png"))[:-2]:
        path.unlink()

    assert "would shrink from 8 to 2" in refused(built, ShrinkRefused).refused


def test_too_many_known_failures_are_foretold(built):
    for number in range(11):
        (built[0] / "cat" / f"bad {number:02d}.png").write_bytes(b"no image")
    build(*built, workers=1, max_failures=11)
    write_image(built[0] / "cat" / "new.png", 5)

    assert "11 of 20 images failed, the budget is 10" in refused(built, FailureBudgetExceeded).refused
    build(*built, workers=1, max_failures=11)
    assert "11 of 20 images failed" in refused(built, FailureBudgetExceeded).refused  # although it is up to date


def test_a_full_disk_is_foretold(built, monkeypatch):
    write_image(built[0] / "cat" / "new.png", 5)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=2, f_frsize=16))
    monkeypatch.setattr("preprocess.survey.processors", lambda: 1)  # as the build has: each worker needs some room

    assert "32 B are free" in refused(built, StorageError).refused


def test_a_folder_in_doubt_is_refused_as_by_a_build(tmp_path):
    photos, cache = image_folder(tmp_path / "photos", count=1), tmp_path / "cache"
    build(photos, cache, {"size": 8}, workers=1)
    write_image(photos / "train" / "1.png", 5)

    with pytest.raises(UsageError, match=r"named like splits \('train'\)") as caught:
        status(photos, cache)
    with pytest.raises(UsageError) as of_build:
        build(photos, cache, workers=1)
    assert str(caught.value) == str(of_build.value)


def test_class_ids_that_would_shift_are_told_first(built):
    image_folder(built[0], ("ant",), count=1, first_seed=70)

    report = asked(built)

    assert report.shift.startswith("class ids shift: 'cat' 0 -> 1, 'dog' 1 -> 2;")
    assert str(report).splitlines()[0] == report.shift
    assert str(report).count("class ids shift") == 1
    assert (report.refused, report.exit_code) == (None, 0)
