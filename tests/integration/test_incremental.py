"""A change of one image costs one image; a change of the recipe costs what it changes."""

import json
import os
import shutil
import time

import cv2
import numpy as np
import pytest

from cache_store import layout
from cache_store.reader import open_cache, snapshot_names
from preprocess import RecipeError
from preprocess.builder import build
from preprocess.scan import stat_of
from tests.helpers import TINY, image_folder, picture, write_image
from tests.integration.checks import assert_as_rendered, contents, failures, labels, paths, pixel_statistics, statistics

RESIZE = {"Resize": {"height": 8, "width": 8}}
CROP = {"CenterCrop": {"height": 8, "width": 8}}
FLIP = {"HorizontalFlip": {"p": 0.5}}


FIRST, SECOND = "000002", "000003"
"""The snapshot that a test begins with, and the next one."""


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("incremental")
    build(image_folder(folder / "photos"), folder / "cache", TINY, workers=1)
    return folder


@pytest.fixture
def built(original, tmp_path):
    """Eight images and a cache of them, which has seen these very files."""
    for name in ("photos", "cache"):
        shutil.copytree(original / name, tmp_path / name)
    report = build(tmp_path / "photos", tmp_path / "cache", workers=1)
    assert (report.rendered, report.snapshot) == (0, FIRST)
    return tmp_path / "photos", tmp_path / "cache"


def again(built, **options):
    """The next build, checked against its sources."""
    photos, cache = built
    report = build(photos, cache, workers=1, **options)
    assert_as_rendered(cache, photos)
    assert report.rendered + report.reused == sum(
        report.samples[name] * report.variants[name] for name in report.samples
    )
    return report


def test_nothing_changed(built):
    assert again(built).up_to_date
    assert snapshot_names(built[1])[-1] == FIRST


def test_an_added_image(built):
    write_image(built[0] / "cat" / "new.png", 123)

    report = again(built)

    assert (report.rendered, report.reused, report.snapshot) == (1, 8, SECOND)
    assert "cat/new.png" in paths(built[1])


def test_an_edited_image(built):
    before = contents(built[1])
    write_image(built[0] / "cat" / "001.png", 123)

    report = again(built)

    assert (report.rendered, report.reused) == (1, 7)
    assert contents(built[1], FIRST) == before
    assert contents(built[1]) != before


def test_an_edit_that_keeps_size_and_time(built):
    """An edit within the clock's tick, or a tool that restores the time stamp: the change time tells."""
    path = built[0] / "cat" / "001.png"
    found = path.stat()
    other = write_image(built[0].parent / "other.png", 5).read_bytes()
    padded = max(len(other), found.st_size)
    path.write_bytes(path.read_bytes().ljust(padded, b"\0"))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    again(built)
    path.write_bytes(other.ljust(padded, b"\0"))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    assert again(built).rendered == 1


def test_an_edit_that_no_time_stamp_tells(built, monkeypatch):
    """A file system that keeps time stamps coarsely: files as new as the newest are read again, whatever they say."""

    def coarse(found):
        size, modified, changed, inode = stat_of(found)
        return size, modified // 10**15 * 10**15, changed // 10**15 * 10**15, inode

    monkeypatch.setattr("preprocess.scan.stat_of", coarse)
    monkeypatch.setattr("preprocess.read.stat_of", coarse)
    again(built)
    path = built[0] / "cat" / "001.png"
    size = path.stat().st_size
    path.write_bytes(cv2.imencode(".png", picture(5, 8, 8))[1].tobytes().ljust(size, b"\0"))
    assert path.stat().st_size == size

    assert again(built).rendered == 1


def test_a_renamed_image(built):
    (built[0] / "cat" / "001.png").rename(built[0] / "cat" / "zebra.png")

    report = again(built)

    assert (report.rendered, report.snapshot) == (0, SECOND)
    assert paths(built[1])[:4] == ["cat/000.png", "cat/002.png", "cat/003.png", "cat/zebra.png"]


def test_a_deleted_image(built):
    (built[0] / "cat" / "001.png").unlink()

    report = again(built)

    assert (report.rendered, report.samples, report.snapshot) == (0, {"train": 7}, SECOND)


def shard_files(cache):
    return sorted((path, path.stat().st_mtime_ns) for path in cache.glob("tensors/*/image/c.*"))


def test_a_class_that_is_renamed_and_one_that_is_deleted_write_nothing_but_the_manifest(built):
    photos, cache = built
    before = shard_files(cache)
    (photos / "cat").rename(photos / "zebra")
    renamed = again(built)
    shutil.rmtree(photos / "dog")

    deleted = again(built, allow_shrink=True)

    assert (renamed.rendered, renamed.samples) == (0, {"train": 8})
    assert (deleted.rendered, deleted.samples, deleted.classes) == (0, {"train": 4}, 1)
    assert paths(cache) == [f"zebra/{i:03d}.png" for i in range(4)]
    assert shard_files(cache) == before


def test_an_image_that_moves_to_another_class_is_relabelled(built):
    photos, cache = built
    before = shard_files(cache)
    (photos / "cat" / "001.png").rename(photos / "dog" / "001b.png")

    assert again(built).rendered == 0
    assert labels(cache) == [0] * 3 + [1] * 5
    assert shard_files(cache) == before


def test_a_few_new_images_of_several_variants_make_one_shard(tmp_path):
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    build(photos, cache, with_transforms(RESIZE, FLIP, variants=3), workers=2)
    before = len(shard_files(cache))
    for number in range(5):
        write_image(photos / "cat" / f"new{number}.png", 200 + number)

    assert again((photos, cache)).rendered == 15
    assert len(shard_files(cache)) == before + 1


def test_a_touched_image(built):
    os.utime(built[0] / "cat" / "001.png")

    assert again(built).rendered == 0


def test_two_images_that_change_places(built):
    one, other = built[0] / "cat" / "001.png", built[0] / "dog" / "002.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)

    assert again(built).rendered == 0


def test_an_image_that_comes_back(built):
    path = built[0] / "cat" / "001.png"
    data = path.read_bytes()
    path.unlink()
    again(built)
    path.write_bytes(data)

    assert again(built).rendered == 0


def test_an_image_that_turns_bad_and_good_again(built):
    path = built[0] / "cat" / "001.png"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    again(built)
    assert list(failures(built[1])) == ["cat/001.png"]
    assert len(paths(built[1])) == 7
    path.write_bytes(data)

    assert again(built).rendered == 0
    assert failures(built[1]) == {}


def test_a_snapshot_for_each_change_and_every_one_still_opens(built):
    photos, cache = built
    states = [contents(cache)]
    for number in range(3):
        write_image(photos / "cat" / f"new {number}.png", 200 + number)
        again(built)
        states.append(contents(cache))
    assert again(built).up_to_date

    assert snapshot_names(cache)[1:] == [FIRST, SECOND, "000004", "000005"]
    assert [contents(cache, name) for name in snapshot_names(cache)[1:]] == states
    with open_cache(cache) as opened:
        assert opened.snapshot.parent == "000004"


def test_old_files_are_not_even_read(built):
    """Files whose time stamps lie well before the last scan are known by them; `checksum` reads them all the same."""
    time.sleep(2.1)  # the doubt about time stamps is 2 s wide
    write_image(built[0] / "dog" / "new.png", 321)
    again(built)
    assert again(built).up_to_date

    class Reading:
        hashed = 0

        def stage(self, name, total):
            if name == "hash":
                self.hashed += total

        def update(self, done, failed): ...

    quick, thorough = Reading(), Reading()
    assert again(built, progress=quick).up_to_date
    assert again(built, progress=thorough, checksum=True).up_to_date
    assert quick.hashed <= 1
    assert thorough.hashed == 9


class Hashed:
    """Counts the files that were read before any was rendered."""

    count = 0

    def stage(self, name, total):
        self.count += total * (name == "hash")

    def update(self, done, failed): ...


def read_by(built, **options):
    watcher = Hashed()
    assert again(built, progress=watcher, **options).up_to_date
    return watcher.count


def test_files_as_new_as_the_newest_are_read_once_more_and_then_believed(built):
    assert read_by(built) == 8  # all were written within the two seconds of doubt
    time.sleep(2.1)
    assert read_by(built) == 8
    assert read_by(built) == 0
    path = built[0] / "cat" / "001.png"
    path.write_bytes(path.read_bytes())
    watcher = Hashed()

    assert again(built, progress=watcher).rendered == 0
    assert watcher.count == 1


@pytest.mark.parametrize("hint", [b"", b"{", b"[]", b'{"snapshot": "000001", "scanned_ns": 1}', b"\xff\x00", None])
def test_a_note_of_the_last_look_that_cannot_be_believed_is_passed_over(built, hint):
    time.sleep(2.1)
    again(built)
    assert read_by(built) == 0
    file = layout.scan_hint(built[1])
    future = json.dumps({"snapshot": FIRST, "scanned_ns": time.time_ns() + 10**12}).encode()
    file.write_bytes(future if hint is None else hint)

    assert read_by(built) == 8


# -- the recipe --------------------------------------------------------------------------------------------------------


def with_transforms(*transforms, **train):
    return {"size": 8, "splits": {"train": {"folder": ".", "transforms": list(transforms), **train}}}


def test_another_recipe_renders_anew_and_the_former_one_nothing(built):
    cache = built[1]
    first = contents(cache)

    changed = again(built, recipe=with_transforms({"Resize": {"height": 12, "width": 12}}, CROP))
    back = again(built, recipe=TINY)

    assert (changed.rendered, changed.reused) == (8, 0)
    assert (back.rendered, back.reused) == (0, 8)
    assert contents(cache) == first
    assert snapshot_names(cache)[1:] == [FIRST, SECOND, "000004"]


def test_a_recipe_written_in_other_words_is_the_same_recipe(built):
    words = {
        "normalize": "dataset",
        "splits": {"train": {"transforms": [{"Resize": {"width": 8, "height": 8, "p": 1}}], "folder": "."}},
        "size": [8, 8],
    }

    assert again(built, recipe=words).up_to_date


def test_more_variants_render_only_the_new_ones(tmp_path):
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    build(photos, cache, with_transforms(RESIZE, FLIP, variants=2), workers=1)
    before = contents(cache)["splits"]["train"]["samples"]

    grown = again((photos, cache), recipe=with_transforms(RESIZE, FLIP, variants=4))
    shrunk = again((photos, cache), recipe=with_transforms(RESIZE, FLIP, variants=1))

    assert (grown.rendered, grown.reused) == (16, 16)
    assert [images[:2] for *_, images in contents(cache, "000002")["splits"]["train"]["samples"]] == [
        images for *_, images in before
    ]
    assert (shrunk.rendered, shrunk.reused) == (0, 8)


def test_a_change_of_val_leaves_train_alone(tmp_path):
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    image_folder(photos / "train")
    image_folder(photos / "val", count=2, first_seed=50)

    def recipe(val):
        return {"size": 8, "splits": {"train": {"transforms": [RESIZE]}, "val": {"transforms": val}}}

    build(photos, cache, recipe([RESIZE]), workers=1)
    before = contents(cache)["splits"]

    report = again((photos, cache), recipe=recipe([{"Resize": {"height": 10, "width": 10}}, CROP]))

    after = contents(cache)["splits"]
    assert report.rendered == 4
    assert before["val"]["tensors_id"] == before["train"]["tensors_id"]
    assert after["val"]["tensors_id"] != before["val"]["tensors_id"]
    assert after["train"] == before["train"]
    assert (after["val"]["mean"], after["val"]["std"]) == (before["val"]["mean"], before["val"]["std"])


def test_one_setting_of_a_cache_with_the_default_recipe(tmp_path):
    photos, cache = image_folder(tmp_path / "photos", count=2), tmp_path / "cache"
    build(photos, cache, workers=1, overrides=["size=8"])

    report = again((photos, cache), overrides=["size=10"])

    assert report.rendered == 4
    with open_cache(cache) as opened:
        assert opened.tensors("train").shape == (3, 10, 10)
        assert opened.snapshot.recipe["size"] == [10, 10]
    assert again((photos, cache)).up_to_date  # the cache's own recipe is the new one


def test_a_setting_that_the_transforms_contradict_is_refused(built):
    with pytest.raises(RecipeError, match="splits.train.transforms"):
        build(*built, workers=1, overrides=["size=9"])

    assert snapshot_names(built[1])[-1] == FIRST


def test_another_split_folder_joins_a_cache_with_the_default_recipe(tmp_path):
    photos, cache = tmp_path / "photos", tmp_path / "cache"
    image_folder(photos / "train", count=2)
    build(photos, cache, {"size": 8}, workers=1)
    image_folder(photos / "val", count=1, first_seed=50)

    report = again((photos, cache))

    assert report.samples == {"train": 4, "val": 2}
    assert report.rendered == 2


# -- statistics --------------------------------------------------------------------------------------------------------


def test_the_datasets_statistics_are_exact(built):
    mean, std = statistics(built[1])

    np.testing.assert_allclose([mean, std], pixel_statistics(built[1]), rtol=1e-12)


def test_statistics_stay_pinned_when_images_join(built):
    image_folder(built[0], ("owl",), count=8, first_seed=900)

    report = again(built)

    assert statistics(built[1]) == statistics(built[1], FIRST)
    assert report.rendered == 8
    assert not np.allclose(pixel_statistics(built[1]), statistics(built[1]), rtol=1e-6)


def test_statistics_stay_pinned_when_the_transforms_change(built):
    again(built, recipe=with_transforms({"Resize": {"height": 12, "width": 12}}, CROP))

    assert statistics(built[1]) == statistics(built[1], FIRST)


def test_statistics_are_those_of_the_newest_snapshot_that_had_them(built):
    first = statistics(built[1])
    again(built, recipe=TINY | {"normalize": "imagenet"})
    assert statistics(built[1])[0] == (0.485, 0.456, 0.406)

    report = again(built, recipe=TINY)

    assert statistics(built[1]) == first
    assert report.rendered == 0


def test_other_channels_have_statistics_of_their_own(built):
    again(built, recipe=TINY | {"channels": "gray"})

    assert len(statistics(built[1])[0]) == 1


def test_given_statistics_take_the_place_of_the_datasets_own(tmp_path):
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    given = (0.25, 0.5, 0.75), (0.2, 0.3, 0.4)

    build(photos, cache, TINY, workers=1, stats=given)

    assert statistics(cache) == given
    assert_as_rendered(cache, photos)
    assert again((photos, cache)).up_to_date  # pinned from now on


@pytest.mark.parametrize("given", [((0.5,), (0.2,)), ((0.5,) * 3, (0.0,) * 3), ((123.675,) * 3, (58.4,) * 3)])
def test_statistics_that_cannot_be_meant_are_refused(tmp_path, given):
    image_folder(tmp_path / "photos", count=1)

    with pytest.raises(RecipeError, match="stats"):
        build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, stats=given)

    assert not (tmp_path / "cache").exists()


def test_images_of_one_colour_have_a_deviation_of_one(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    for i in range(3):
        pixels = np.full((10, 12 + i, 3), (10, 20, 30), np.uint8)
        (tmp_path / "photos" / "cat" / f"{i}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    assert report.std == [1.0, 1.0, 1.0]
    assert report.mean == pytest.approx([30 / 255, 20 / 255, 10 / 255])
    assert sum("its std is taken as 1" in line for line in report.departures) == 3


def test_a_uint8_cache_keeps_pixels_and_the_same_statistics(tmp_path):
    photos = image_folder(tmp_path / "photos")
    build(photos, tmp_path / "bytes", TINY | {"dtype": "uint8"}, workers=1)
    build(photos, tmp_path / "halves", TINY, workers=1)

    assert statistics(tmp_path / "bytes") == statistics(tmp_path / "halves")
    with open_cache(tmp_path / "bytes") as opened:
        assert opened.tensors("train").dtype == np.uint8
    assert_as_rendered(tmp_path / "bytes", photos)
    assert build(photos, tmp_path / "bytes", workers=1).up_to_date
