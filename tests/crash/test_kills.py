"""SIGKILL at every named step and at random instants: the old snapshot or the new one, and the next build completes.

DECANT_KILLS chooses how many random instants are tried (`make soak` sets it).
"""

import os
import random
import shutil
import signal
import time

import pytest

from cache_store.errors import NotFoundError
from cache_store.gc import collect_garbage
from cache_store.verify import verify
from preprocess import build
from tests.crash.victim import STEPS, start
from tests.helpers import image_folder, write_image
from tests.integration.checks import SHARDS_OF_FOUR, contents

KILLS = int(os.environ.get("DECANT_KILLS", "25"))

_RESIZE = [{"Resize": {"height": 8, "width": 8}}]
_CROP = [{"RandomCrop": {"height": 8, "width": 8}}]
OLD = {"size": 8, "splits": {"train": {"folder": ".", "transforms": _RESIZE}}}
NEW = {"size": 8, "splits": {"train": {"folder": ".", "variants": 2, "transforms": _CROP}}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`photos` as they are now; `before`: the cache as it was; `after`: as it shall be; `fresh`: in a new folder."""
    root = tmp_path_factory.mktemp("kills")
    photos = image_folder(root / "photos", count=8)
    build(photos, root / "before", OLD, workers=1, shard_mib=SHARDS_OF_FOUR)
    for i in range(4):
        write_image(photos / "dog" / f"new{i}.png", 50 + i)
    (photos / "cat" / "000.png").unlink()
    shutil.copytree(root / "before", root / "after")
    for cache in (root / "after", root / "fresh"):
        build(photos, cache, NEW, workers=1, shard_mib=SHARDS_OF_FOUR)
    return root


def die(place, cache, step, count=1):
    """Build in a process that kills itself at a step; whether it got there."""
    process = start(place / "photos", cache, NEW, step, count)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def check(place, cache, *, existed):
    """The old state or the new one; the next build makes the new one; nothing is left over."""
    after = contents(place / ("after" if existed else "fresh"))
    try:
        assert contents(cache) in ([contents(place / "before"), after] if existed else [after])
    except NotFoundError:
        assert not existed
    build(place / "photos", cache, NEW, workers=1, shard_mib=SHARDS_OF_FOUR)
    assert contents(cache) == after
    collect_garbage(cache)
    report = verify(cache)
    assert not report.findings
    assert not report.notes
    assert {path.name for path in (cache / "pending").iterdir()} <= {"zarr.json", "lock", "source", "scanned"}
    assert not list(cache.rglob("*.part"))


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize(
    ("existed", "when"),
    [(True, "before"), (True, "after"), (False, "before")],
    ids=["update", "update, after", "first"],
)
def test_killed_at_a_step(place, tmp_path, name, when, existed):
    cache = tmp_path / "cache"
    if existed:
        shutil.copytree(place / "before", cache)

    assert die(place, cache, f"{when}:{name}"), "the step was never reached"

    check(place, cache, existed=existed)


@pytest.mark.parametrize("count", [2, 5, 13])
@pytest.mark.parametrize("name", ["rename", "replace", "flush", "table", "folder", "shard"])
def test_killed_at_a_later_call_of_a_step(place, tmp_path, name, count):
    """Moving the third shard of five, for one."""
    shutil.copytree(place / "before", tmp_path / "cache")

    die(place, tmp_path / "cache", f"before:{name}", count)

    check(place, tmp_path / "cache", existed=True)


@pytest.fixture(scope="module")
def duration_s(place, tmp_path_factory):
    """What an undisturbed build takes, from start to end."""
    cache = tmp_path_factory.mktemp("kills") / "cache"
    shutil.copytree(place / "before", cache)
    began = time.monotonic()
    assert not die(place, cache, "never")
    return time.monotonic() - began


@pytest.mark.parametrize("number", range(KILLS))
def test_killed_at_a_random_instant(place, tmp_path, duration_s, number):
    """Most of the time goes into starting a worker: two thirds of the kills fall into the second half."""
    cache = tmp_path / "cache"
    shutil.copytree(place / "before", cache)
    draw = random.Random(number)
    after_s = duration_s * (draw.uniform(0.5, 1.05) if number % 3 else draw.uniform(0, 0.5))
    process = start(place / "photos", cache, NEW, "never")
    time.sleep(after_s)
    process.kill()
    process.join()

    check(place, cache, existed=True)
