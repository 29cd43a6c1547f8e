"""Power cuts: whatever of the unflushed changes is lost, a cache opens to its old or its new state, and is built on.

DECANT_CUTS chooses how many are played (`make soak` sets it).
"""

import os
import random
import shutil
from types import SimpleNamespace

import pytest

from cache_store import durable
from cache_store.verify import verify
from preprocess import build
from tests.crash.recorder import Recorder, after_a_cut
from tests.helpers import image_folder, write_image
from tests.integration.checks import SHARDS_OF_FOUR, contents

CUTS = int(os.environ.get("DECANT_CUTS", "500"))

_RESIZE = [{"Resize": {"height": 8, "width": 8}}]
_CROP = [{"RandomCrop": {"height": 8, "width": 8}}]
OLD = {"size": 8, "splits": {"train": {"folder": ".", "transforms": _RESIZE}}}
NEW = {"size": 8, "splits": {"train": {"folder": ".", "variants": 2, "transforms": _CROP}}}


def files_of(cache):
    return {path: path.read_bytes() if path.is_file() else None for path in [cache, *sorted(cache.rglob("*"))]}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A build that adds images to a cache and changes the recipe, as it was recorded."""
    root = tmp_path_factory.mktemp("cuts")
    photos, cache = image_folder(root / "photos", count=6), root / "cache"
    build(photos, cache, OLD, workers=1, shard_mib=SHARDS_OF_FOUR)
    old, before = contents(cache), files_of(cache)
    write_image(photos / "dog" / "new.png", 50)
    (photos / "cat" / "000.png").unlink()
    recorder = Recorder(cache)
    recorder.begin()
    numbers = dict(recorder.files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "os", recorder)
        build(photos, cache, NEW, workers=1, shard_mib=SHARDS_OF_FOUR)
    return root, before, numbers, recorder.steps, old, contents(cache)


def lay_out(survived, former, cache):
    """Write what survived of the cache that was at `former`."""
    for path in sorted(survived):
        target = cache / path.relative_to(former)
        if survived[path] is None:
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.write_bytes(survived[path])


def play(recorded, tmp_path, number):
    """The cache as a power cut left it."""
    root, before, numbers, steps, _, _ = recorded
    draw = random.Random(number)
    survived = after_a_cut(before, numbers, steps[: draw.randint(0, len(steps))], draw)
    lay_out(survived, root / "cache", tmp_path / "cache")
    return tmp_path / "cache"


def test_the_recording_is_whole(recorded, tmp_path):
    """Played to its end with nothing lost it is the new cache."""
    root, before, numbers, steps, _, new = recorded

    lucky = SimpleNamespace(random=lambda: 1.0, choice=lambda options: options[0], randint=lambda low, high: high)
    survived = after_a_cut(before, numbers, steps, lucky)
    lay_out(survived, root, tmp_path)

    assert contents(tmp_path / "cache") == new
    assert verify(tmp_path / "cache").sound
    assert {step.kind for step in steps} == {"folder", "file", "data", "rename", "fsync"}


@pytest.mark.parametrize("tenth", range(10))
def test_after_a_power_cut_the_old_or_the_new_state_opens(recorded, tmp_path, tenth):
    *_, old, new = recorded
    seen = []
    for number in range(tenth, CUTS, 10):
        cache = play(recorded, tmp_path, number)
        seen.append(contents(cache))
        assert seen[-1] in (old, new), f"cut {number}"
        shutil.rmtree(cache)

    assert old in seen  # most cuts fall before the pointer


@pytest.mark.parametrize("number", range(0, CUTS, 20))
def test_the_next_build_after_a_power_cut_completes(recorded, tmp_path, number):
    root, *_, new = recorded
    cache = play(recorded, tmp_path, number)

    build(root / "photos", cache, NEW, workers=1, shard_mib=SHARDS_OF_FOUR)

    assert contents(cache) == new
    assert verify(cache).sound


def test_the_model_finds_a_missing_flush(recorded, tmp_path):
    """Without the fsyncs of files, some cut leaves neither the old nor the new state: the test can fail."""
    root, before, numbers, steps, old, new = recorded
    lax = [step for step in steps if step.kind != "fsync" or step.path.is_dir()]
    broken = 0
    for number in range(100):
        draw = random.Random(number)
        lay_out(after_a_cut(before, numbers, lax, draw), root / "cache", tmp_path / str(number))
        try:
            broken += contents(tmp_path / str(number)) not in (old, new)
        except Exception:
            broken += 1

    assert broken > 10
