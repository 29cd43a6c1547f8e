"""Another normalisation is arithmetic on what is stored: no image is decoded for it."""

import json
import os

import numpy as np
import pytest

from cache_store import layout
from cache_store.reader import open_cache
from preprocess import UsageError
from preprocess.builder import build
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import (
    SHARDS_OF_FOUR,
    Watcher,
    assert_as_rendered,
    contents,
    pixel_statistics,
    statistics,
    stop_at,
)
from tests.integration.processes import decoded

NOTING = "tests.decoders:decode"
RESIZE = {"Resize": {"height": 8, "width": 8}}
FLIP = {"HorizontalFlip": {"p": 0.5}}
TWO_VARIANTS = {"size": 8, "splits": {"train": {"folder": ".", "variants": 2, "transforms": [RESIZE, FLIP]}}}


@pytest.fixture
def built(tmp_path, notes):
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    build(photos, cache, TINY, workers=1, decoder=NOTING, shard_mib=SHARDS_OF_FOUR)
    return photos, cache


def again(built, recipe=None, **options):
    """The next build, which must not decode more than it says; checked against its sources."""
    photos, cache = built
    before = decoded()
    report = build(photos, cache, recipe, workers=1, decoder=NOTING, **{"shard_mib": SHARDS_OF_FOUR} | options)
    assert_as_rendered(cache, photos)
    assert (decoded() - before) * report.variants["train"] == report.rendered
    return report


def shards(cache):
    """Variants that each shard of the snapshot in force holds, sorted."""
    with open_cache(cache) as opened:
        table = opened.split("train")
        slots = opened.tensors("train").slots
        found = {}
        for sample in table["slot"]:
            for k, slot in enumerate(sample.tolist()):
                found.setdefault(slot // slots, []).append(k)
    return sorted(sorted(ks) for ks in found.values())


@pytest.mark.parametrize(
    "change",
    [
        {"normalize": "imagenet"},
        {"normalize": {"mean": [0.1, 0.2, 0.3], "std": [0.3, 0.2, 0.1]}},
        {"dtype": "uint8"},
        {"dtype": "uint8", "normalize": "imagenet"},
    ],
    ids=["imagenet", "numbers", "bytes", "bytes and imagenet"],
)
def test_another_normalisation_or_type_decodes_nothing_nor_does_the_way_back(built, change):
    first = contents(built[1])

    there = again(built, TINY | change)
    back = again(built, TINY)

    assert (there.rendered, there.reused, there.normalised) == (0, 8, 8)
    assert (back.rendered, back.reused, back.normalised) == (0, 8, 0)
    assert contents(built[1]) == first


def test_statistics_that_were_never_computed_come_from_stored_sums(tmp_path, notes):
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    build(photos, cache, TINY | {"normalize": "imagenet"}, workers=1, decoder=NOTING)

    report = again((photos, cache), TINY)

    assert (report.rendered, report.normalised) == (0, 8)
    np.testing.assert_allclose(statistics(cache), pixel_statistics(cache), rtol=1e-12)


def test_refreshed_statistics_are_those_of_a_fresh_build_and_decode_nothing(tmp_path, built):
    pinned = statistics(built[1])
    image_folder(built[0], ("owl",), count=8, first_seed=900)
    again(built)
    assert statistics(built[1]) == pinned

    report = again(built, refresh_stats=True)

    build(built[0], tmp_path / "fresh", TINY, workers=1)
    assert contents(built[1]) == contents(tmp_path / "fresh")
    assert (report.rendered, report.normalised, report.drift) == (0, 16, 0)
    assert again(built).up_to_date  # pinned from now on


def test_images_that_join_as_statistics_are_refreshed_are_rendered_alone(tmp_path, built):
    image_folder(built[0], ("owl",), count=2, first_seed=900)

    report = again(built, refresh_stats=True)

    build(built[0], tmp_path / "fresh", TINY, workers=1)
    assert contents(built[1]) == contents(tmp_path / "fresh")
    assert (report.rendered, report.normalised) == (2, 8)


def test_statistics_that_are_right_already_are_left_alone(built):
    before = contents(built[1])

    report = again(built, refresh_stats=True)

    assert report.up_to_date or report.normalised == 0  # time stamps may have been in doubt
    assert contents(built[1]) == before
    assert again(built, refresh_stats=True).up_to_date


@pytest.mark.parametrize("options", [{"recipe": TINY | {"normalize": "imagenet"}}, {"stats": ((0.5,) * 3, (0.2,) * 3)}])
def test_there_is_nothing_to_refresh_where_statistics_are_given(built, options):
    before = contents(built[1])

    with pytest.raises(UsageError, match="refresh_stats"):
        build(*built, workers=1, refresh_stats=True, **options)

    assert contents(built[1]) == before


def test_drift_is_reported_in_standard_deviations(built):
    assert again(built).drift < 1e-9
    for i in range(8):
        path = write_image(built[0] / "dark" / f"{i}.png", 0)
        path.write_bytes(_black(10 + i))

    report = again(built)

    pinned, now = statistics(built[1]), pixel_statistics(built[1])
    expected = np.max(np.abs(np.array(pinned) - np.array(now)) / np.array(pinned[1]))
    assert report.drift == pytest.approx(expected)
    assert report.drift > 0.5
    assert any("--refresh-stats" in line for line in report.departures)
    assert again(built).drift == report.drift  # an unchanged folder is told so again
    assert not any("--refresh-stats" in line for line in again(built, refresh_stats=True).departures)


def _black(side):
    import cv2

    return cv2.imencode(".png", np.zeros((side, side, 3), np.uint8))[1].tobytes()


def test_a_refresh_that_is_stopped_in_the_middle_goes_on_from_there(tmp_path, built):
    image_folder(built[0], ("owl",), count=8, first_seed=900)
    again(built)
    before = contents(built[1])
    with pytest.raises(KeyboardInterrupt):
        build(*built, workers=1, refresh_stats=True, shard_mib=SHARDS_OF_FOUR, progress=stop_at("normalise", 4))
    assert contents(built[1]) == before
    assert list((built[1] / "pending").glob("*/*.record"))

    report = again(built, refresh_stats=True)

    build(built[0], tmp_path / "fresh", TINY, workers=1)
    assert contents(built[1]) == contents(tmp_path / "fresh")
    assert (report.rendered, report.reused) == (0, 16)
    assert 0 < report.normalised <= 12
    assert list((built[1] / "pending").glob("*/")) == []


def test_a_refresh_that_is_stopped_and_not_wanted_any_more_leaves_nothing(built):
    image_folder(built[0], ("owl",), count=8, first_seed=900)
    again(built)
    with pytest.raises(KeyboardInterrupt):
        build(*built, workers=1, refresh_stats=True, shard_mib=SHARDS_OF_FOUR, progress=stop_at("normalise", 4))

    report = again(built)

    assert (report.rendered, report.normalised) == (0, 0)
    assert list((built[1] / "pending").glob("*/")) == []


def test_only_what_the_snapshot_needs_is_normalised(built):
    (built[0] / "cat" / "001.png").unlink()
    again(built)

    assert again(built, TINY | {"normalize": "imagenet"}).normalised == 7


def test_tensors_of_another_shard_size_are_put_together_anew(built):
    """Back to statistics whose tensors have four slots a shard, with images staged in shards of sixteen."""
    first = statistics(built[1])
    again(built, TINY | {"normalize": "imagenet"}, shard_mib=SHARDS_OF_FOUR * 4)
    image_folder(built[0], ("owl",), count=6, first_seed=900)
    again(built, shard_mib=SHARDS_OF_FOUR * 4)

    report = again(built, TINY)

    assert statistics(built[1]) == first
    assert (report.rendered, report.normalised) == (0, 6)
    with open_cache(built[1]) as opened:
        assert opened.tensors("train").slots == 4


def test_staged_tensors_that_come_out_as_former_ones_take_their_shard_size(built):
    """The refreshed statistics are those of tensors that exist, with another S than what was staged."""
    pinned = statistics(built[1])
    new = write_image(built[0] / "cat" / "new.png", 77)
    data = new.read_bytes()
    again(built, refresh_stats=True)
    drifted = statistics(built[1])
    new.unlink()
    again(built, refresh_stats=True)
    assert statistics(built[1]) == pinned
    new.write_bytes(data)
    edited = write_image(built[0] / "cat" / "000.png", 0, 30, 30)

    again(built, refresh_stats=True, shard_mib=SHARDS_OF_FOUR * 4)
    edited.write_bytes(write_image(built[0].parent / "same.png", 0).read_bytes())
    report = again(built, refresh_stats=True, shard_mib=SHARDS_OF_FOUR * 4)

    assert statistics(built[1]) == drifted
    assert report.rendered == 0


def test_variants_stay_in_shards_of_their_own(tmp_path, notes):
    photos, cache = image_folder(tmp_path / "photos", count=6), tmp_path / "cache"
    build(photos, cache, TWO_VARIANTS, workers=1, decoder=NOTING, shard_mib=SHARDS_OF_FOUR)

    again((photos, cache), TWO_VARIANTS | {"normalize": "imagenet"})

    assert shards(cache) == [[0] * 4] * 3 + [[1] * 4] * 3


def test_few_tensors_are_put_into_one_shard(tmp_path, notes):
    photos, cache = image_folder(tmp_path / "photos", count=1), tmp_path / "cache"
    build(photos, cache, TWO_VARIANTS, workers=1, decoder=NOTING)
    for i in range(3):
        write_image(photos / "cat" / f"new{i}.png", 100 + i)
        again((photos, cache), shard_mib=32)
    assert len(shards(cache)) == 4

    again((photos, cache), TWO_VARIANTS | {"normalize": "imagenet"}, shard_mib=32)

    assert shards(cache) == [[0] * 5 + [1] * 5]


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "swapped"])
def test_tensors_that_turn_out_to_be_damaged_are_rendered_from_their_sources(tmp_path, built, damage):
    with open_cache(built[1]) as opened:
        tensors_id = opened.split("train").tensors_id
    files = [layout.shard_file(built[1], tensors_id, number) for number in range(2)]
    data = [file.read_bytes() for file in files]
    if damage == "flipped":
        files[0].write_bytes(bytes([data[0][0] ^ 1]) + data[0][1:])
    elif damage == "cut":
        files[0].write_bytes(data[0][:-3])
    elif damage == "missing":
        files[0].unlink()
    else:
        files[0].write_bytes(data[1])
        files[1].write_bytes(data[0])
    lost = {"flipped": 1, "cut": 4, "missing": 4, "swapped": 8}[damage]

    report = again(built, TINY | {"normalize": "imagenet"})

    assert (report.rendered, report.reused) == (lost, 8 - lost)
    build(built[0], tmp_path / "fresh", TINY | {"normalize": "imagenet"}, workers=1)
    assert contents(built[1]) == contents(tmp_path / "fresh")


def test_the_folder_of_images_is_not_even_read_for_another_normalisation(built):
    """Beyond what doubt about time stamps asks for."""
    for path in built[0].rglob("*.png"):
        os.utime(path, ns=(10**18, 10**18))
    again(built)

    watcher = Watcher()

    report = again(built, TINY | {"normalize": "imagenet"}, progress=watcher)

    assert report.normalised == 8
    assert "render" not in watcher.stages


def test_the_command(built, decant):
    photos, cache = built
    image_folder(photos, ("owl",), count=8, first_seed=900)

    pinned = json.loads(decant("build", photos, cache, "--json").stdout)
    refreshed = decant("build", photos, cache, "--refresh-stats").stdout

    assert pinned["drift"] > 0
    assert "  variants   0 rendered, 16 reused, 16 of them normalised anew" in refreshed.splitlines()
    assert decant("build", photos, cache, "--refresh-stats", "--set", "normalize=imagenet", code=2).stdout == ""


@pytest.mark.parametrize("size", [6, 12])
def test_a_dry_run_with_another_size_measures_drift_by_the_size_that_is_stored(built, size):
    photos, cache = built
    resize = [{"Resize": {"height": size, "width": size}}]
    recipe = TINY | {"size": size, "splits": {"train": {"folder": ".", "transforms": resize}}}

    report = build(photos, cache, recipe, workers=1, dry_run=True)

    assert (report.rendered, report.drift) == (8, 0.0)
    assert not any("standard deviations off" in note for note in report.departures)


def test_a_dry_run_with_another_normalisation_measures_no_drift_from_constants(tmp_path):
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    build(photos, cache, TINY | {"normalize": "imagenet"}, workers=1)

    report = build(photos, cache, TINY, workers=1, dry_run=True)

    assert report.drift == 0.0
