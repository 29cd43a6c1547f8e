"""When a watched folder is built: after it has come to rest, again after a change, on after a failure. On a clock that
the tests move."""

import os

import pytest

from cache_store.errors import LockedError
from preprocess.builder import build
from preprocess.errors import FailureBudgetExceeded, RecipeError, UsageError
from preprocess.report import BuildReport
from preprocess.scan import signature
from preprocess.watching import watch
from tests.helpers import TINY, image_folder, picture, write_image
from tests.integration.checks import assert_as_rendered, failures, paths


class Stage:
    """A clock whose time passes in `sleep` alone, and what happens on it."""

    def __init__(self, photos):
        self.photos = photos
        self.time = 100.0
        self.script = []
        self.builds = []
        self.told = []
        self.outcomes = []
        self.slow_look_s = 0.0

    def at(self, seconds, action):
        self.script.append((100.0 + seconds, action))

    def now(self):
        self.time += self.slow_look_s
        return self.time

    def sleep(self, seconds):
        ends = self.time + seconds
        for due, action in sorted(self.script, key=lambda step: step[0]):
            if due <= ends:
                self.script.remove((due, action))
                action()
        self.time = ends

    def rebuild(self):
        self.builds.append(self.time - 100.0)
        if self.outcomes and (outcome := self.outcomes.pop(0)) is not None:
            raise outcome
        return BuildReport("cache", snapshot="000001", samples={"train": 2}, seconds={"plan": 0.25, "render": 0.5})

    def run(self, until, rebuild=None, **options):
        def stop():
            raise KeyboardInterrupt

        self.at(until, stop)
        settings = {"settle_s": 2, "poll_s": 1, "now": self.now, "sleep": self.sleep} | options
        with pytest.raises(KeyboardInterrupt):
            watch(self.photos, rebuild or self.rebuild, lambda outcome: self.told.append(str(outcome)), **settings)


@pytest.fixture
def stage(tmp_path):
    return Stage(image_folder(tmp_path / "photos", count=1))


def test_a_folder_at_rest_is_built_once(stage):
    stage.run(20)

    assert stage.builds == [2]
    assert stage.told == ["built snapshot 000001: train 2; 0 variants rendered, 0.8 s"]


def test_it_is_built_again_when_it_has_come_to_rest_after_a_change(stage):
    for second in (10, 11, 12, 13):
        stage.at(second + 0.5, lambda second=second: write_image(stage.photos / "cat" / f"{second}.png", second))

    stage.run(30)

    assert stage.builds == [2, 16]  # the last change is seen at 14


CHANGES = {
    "a new image": lambda photos: write_image(photos / "cat" / "new.png", 9),
    "an image that is gone": lambda photos: (photos / "cat" / "000.png").unlink(),
    "an edited image": lambda photos: write_image(photos / "cat" / "000.png", 99),
    "a renamed image": lambda photos: (photos / "cat" / "000.png").rename(photos / "cat" / "001.png"),
    "a renamed class": lambda photos: (photos / "dog").rename(photos / "wolf"),
    "a class without images": lambda photos: (photos / "owl").mkdir(),
    "an image further down": lambda photos: write_image(photos / "cat" / "more" / "deep" / "1.png", 9),
    "an image beside the classes": lambda photos: write_image(photos / "loose.png", 9),
    "a time stamp": lambda photos: os.utime(photos / "cat" / "000.png", (1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_change_is(stage, change):
    stage.at(10.5, lambda: CHANGES[change](stage.photos))

    stage.run(30)

    assert stage.builds == [2, 13]


def test_what_no_build_reads_is_no_change(stage):
    stage.at(10.5, lambda: (stage.photos / "cat" / "notes.txt").write_text("x"))
    stage.at(11.5, lambda: (stage.photos / "cat" / ".hidden.png").write_text("x"))

    stage.run(30)

    assert stage.builds == [2]


def test_a_changed_recipe_file_is_a_change(stage, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("size: 8")
    stage.at(10.5, lambda: recipe.write_text("size: 16"))
    stage.at(20.5, recipe.unlink)

    stage.run(40, recipe=recipe)

    assert stage.builds == [2, 13, 23]


def test_the_time_to_settle_is_as_asked_for(stage):
    stage.at(10.5, lambda: write_image(stage.photos / "cat" / "new.png", 9))

    stage.run(40, settle_s=5, poll_s=2)

    assert stage.builds == [6, 18]  # looks at 0, 2, 4, 6, …; seen at 12


def test_a_folder_that_takes_long_to_look_at_is_looked_at_less_often(stage):
    stage.slow_look_s = 3.0
    looked = []
    plain = stage.sleep
    stage.sleep = lambda seconds: (looked.append(seconds), plain(seconds))

    stage.run(100)

    assert min(looked) >= 4 * 3


def test_a_failed_build_says_why_and_the_next_change_is_waited_for(stage):
    stage.outcomes = [FailureBudgetExceeded("3 of 4 images failed;\n  cat/a.png: decode: cut"), None]
    stage.at(10.5, lambda: write_image(stage.photos / "cat" / "new.png", 9))

    stage.run(100)

    assert stage.builds == [2, 13]
    assert stage.told[0] == "failed: 3 of 4 images failed; cat/a.png: decode: cut"
    assert stage.told[1].startswith("built snapshot 000001")


def test_a_cache_that_somebody_else_builds_is_tried_again_and_said_once(stage):
    stage.outcomes = [LockedError("process 7 builds"), LockedError("process 7 builds"), None]

    stage.run(200)

    assert stage.builds == [2, 32, 62]
    assert [line[:24] for line in stage.told] == ["failed: process 7 builds", "built snapshot 000001: t"]


def test_what_cannot_be_meant_ends_it_at_the_first_build_and_not_later(stage):
    settings = {"now": stage.now, "sleep": stage.sleep}
    stage.outcomes = [RecipeError("size: what?")]
    with pytest.raises(RecipeError, match="size: what"):
        watch(stage.photos, stage.rebuild, stage.told.append, **settings)
    with pytest.raises(UsageError, match="does not exist"):
        watch(stage.photos / "nowhere", stage.rebuild, stage.told.append, **settings)
    for name in ("settle", "poll"):
        for value in (-1.0, float("nan"), float("inf")):
            with pytest.raises(UsageError, match=f"{name}: seconds, 0 or more, expected"):
                watch(stage.photos, stage.rebuild, stage.told.append, **{f"{name}_s": value})
    stage.builds.clear()
    began = stage.time
    stage.outcomes = [None, RecipeError("size: what?"), None]
    stage.at(began + 10.5 - 100, lambda: write_image(stage.photos / "cat" / "new.png", 9))
    stage.at(began + 20.5 - 100, lambda: write_image(stage.photos / "cat" / "newer.png", 9))

    stage.run(began + 40 - 100)

    assert len(stage.builds) == 3
    assert stage.told[1] == "failed: size: what?"


def test_a_bug_of_ours_ends_it(stage):
    stage.outcomes = [ZeroDivisionError("a bug")]

    with pytest.raises(ZeroDivisionError):
        watch(stage.photos, stage.rebuild, stage.told.append, now=stage.now, sleep=stage.sleep)


def test_an_empty_folder_or_one_that_is_unmounted_is_waited_for(tmp_path):
    (tmp_path / "photos").mkdir()
    stage = Stage(tmp_path / "photos")
    stage.at(10.5, lambda: image_folder(stage.photos, count=1))
    stage.at(20.5, lambda: stage.photos.rename(tmp_path / "away"))
    stage.at(30.5, lambda: (tmp_path / "away").rename(stage.photos))

    stage.run(50)

    assert stage.builds == [13, 33]
    assert [line.partition(" '")[0] for line in stage.told] == [
        "waiting: SOURCE",
        "built snapshot 000001: train 2; 0 variants rendered, 0.8 s",
        "waiting: SOURCE",
        "built snapshot 000001: train 2; 0 variants rendered, 0.8 s",
    ]
    assert stage.told[0].endswith("holds no image")
    assert stage.told[2].endswith("does not exist")


def test_a_file_that_is_written_slowly_is_waited_for(stage, tmp_path):
    data = write_image(tmp_path / "whole.png", 9).read_bytes()
    slow = stage.photos / "cat" / "slow.png"
    for i in range(8):  # one part every 1.5 s, which is less than the time to settle
        stage.at(10 + 1.5 * i, lambda i=i: slow.write_bytes(data[: len(data) * (i + 1) // 8]))
    cache = tmp_path / "cache"

    def rebuild():
        stage.builds.append(stage.time - 100)
        return build(stage.photos, cache, TINY, workers=1)

    stage.run(40, rebuild)

    assert stage.builds == [2, 23]
    assert failures(cache) == {}
    assert paths(cache) == ["cat/000.png", "cat/slow.png", "dog/000.png"]
    assert_as_rendered(cache, stage.photos)


def test_a_file_that_is_caught_half_written_is_mended_by_the_next_build(stage, tmp_path):
    data = write_image(tmp_path / "whole.png", 9).read_bytes()
    slow = stage.photos / "cat" / "slow.png"
    stage.at(10.5, lambda: slow.write_bytes(data[: len(data) // 2]))  # and a pause that is longer than it takes
    stage.at(20.5, lambda: slow.write_bytes(data))
    cache, left_out = tmp_path / "cache", []

    def rebuild():
        report = build(stage.photos, cache, TINY, workers=1)
        left_out.append(failures(cache))
        return report

    stage.run(40, rebuild)

    assert [list(found) for found in left_out] == [[], ["cat/slow.png"], []]
    assert "; 1 image left out, such as cat/slow.png: decode: " in stage.told[1]
    assert stage.told[2].startswith("built snapshot 00000")
    assert paths(cache) == ["cat/000.png", "cat/slow.png", "dog/000.png"]
    assert_as_rendered(cache, stage.photos)


def test_the_signature_follows_no_loop_and_survives_any_name(tmp_path):
    photos = image_folder(tmp_path / "photos", count=1)
    (photos / "cat" / "again").symlink_to(photos)
    name = os.fsencode(photos / "cat") + b"/\xff\n.png"
    with open(name, "wb") as file:
        file.write(picture(1).tobytes())
    (photos / "cat" / "broken.png").symlink_to("nowhere")

    first, count = signature(photos)

    assert signature(photos) == (first, count)
    os.rename(name, name.replace(b"\xff", b"\xfe"))
    assert signature(photos)[0] != first
    assert count == 4
