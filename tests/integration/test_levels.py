"""Sources of which 8 bits, a page or three colours would lose most: listed, or taken as the recipe says."""

import shutil
import warnings

import cv2
import numpy as np
import pytest

from cache_store.reader import open_cache
from preprocess import build, preview, repair, status, write_report
from preprocess.errors import FailureBudgetExceeded, SourceError
from preprocess.levels import apply_window
from preprocess.proposal import propose_recipe
from preprocess.recipe import Recipe
from preprocess.show import show
from tests.helpers import write_image
from tests.integration.checks import assert_as_rendered, assert_sound, failures, paths
from tests.tiffs import tiff
from tests.unit.cache_store.stores import flip_bit

SIDE = 20
SPLITS = {"train": {"folder": ".", "transforms": [{"Resize": {"height": SIDE, "width": SIDE}}]}}
RECIPE = {"size": SIDE, "dtype": "uint8", "splits": SPLITS}
OF_OLD = "tests.decoders:of_old"
DEEP, BANDS, PAGES = "cat/deep.png", "cat/bands.tif", "dog/pages.tif"


def values(seed: int) -> np.ndarray:
    """12 bits."""
    return np.random.default_rng(seed).integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)


def recipe(**decode):
    return RECIPE | {"decode": decode}


@pytest.fixture
def scans(tmp_path):
    folder = tmp_path / "scans"
    for seed, name in enumerate(("cat/plain.png", "dog/plain.png")):
        write_image(folder / name, seed, SIDE, SIDE)
    small = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    (folder / DEEP).write_bytes(cv2.imencode(".png", values(0))[1].tobytes())
    (folder / BANDS).write_bytes(tiff(np.stack([small] * 5, axis=-1)))
    (folder / PAGES).write_bytes(tiff(small, pages=[(small[::-1], {})]))
    return folder


def stored(cache, path):
    with open_cache(cache) as opened:
        return opened.image("train", paths(cache).index(path), 0)


def test_odd_files_are_listed_and_the_rest_is_built(scans, tmp_path):
    report = build(scans, tmp_path / "cache", RECIPE, workers=1)

    assert report.samples == {"train": 2}
    found = failures(tmp_path / "cache")
    assert {path: stage for path, (stage, _) in found.items()} == dict.fromkeys((DEEP, BANDS, PAGES), "decode")
    for path, line in ((DEEP, "levels: ["), (BANDS, "extra_channels: drop"), (PAGES, "pages: first")):
        assert f"decode: {{{line}" in found[path][1]


def test_a_folder_of_them_stops_the_build_with_the_line_that_admits_them(tmp_path):
    for number in range(11):
        path = tmp_path / "scans" / "cat" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", values(number))[1].tobytes())
    with pytest.raises(FailureBudgetExceeded, match=r"decode: \{levels: \[\d+, \d+\]\}"):
        build(tmp_path / "scans", tmp_path / "cache", RECIPE, workers=1)
    report = build(tmp_path / "scans", tmp_path / "cache", recipe(levels=[0, 4095]), workers=1)
    assert any(line.startswith("images with 16-bit, 11: window [0, 4095] onto 0..255") for line in report.departures)


def test_8_bits_in_16_are_no_black_cache_without_a_word(tmp_path):
    for number in range(2):
        path = tmp_path / "scans" / "cat" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", values(number) >> 4)[1].tobytes())
    said = build(tmp_path / "scans", tmp_path / "plain", RECIPE, workers=1).departures
    (line,) = [line for line in said if line.startswith("images with 16-bit values of which few levels are left, 2: ")]
    assert "write decode: {levels: [0, 255]}" in line

    decode = propose_recipe(tmp_path / "scans").recipe.canonical()["decode"]
    assert decode["levels"] == [0, 255]
    build(tmp_path / "scans", tmp_path / "cache", RECIPE | {"decode": decode}, workers=1)
    assert np.array_equal(stored(tmp_path / "cache", "cat/0.png")[0], values(0) >> 4)


def test_a_window_is_in_the_tensors_and_in_what_is_said(scans, tmp_path):
    cache = tmp_path / "cache"
    report = build(scans, cache, recipe(levels=[100, 4000], extra_channels="drop", pages="first"), workers=1)

    assert not report.failures
    expected = apply_window(values(0), (100, 4000))
    assert np.array_equal(stored(cache, DEEP), np.stack([expected] * 3))
    assert_as_rendered(cache, scans)
    said = "\n".join(report.departures)
    for line in ("16-bit, 1: window [100, 4000]", "beyond the window, 1: clipped", "several pages, 1", "channels, 1"):
        assert line in said
    assert "of 16-bit values window [100, 4000] onto 0..255" in show(cache)
    report = write_report(cache, tmp_path / "page.html")
    assert "of 16-bit values window [100, 4000] onto 0..255" in (tmp_path / "page.html").read_text()
    assert not any("levels" in remark for remark in report.remarks)


def test_a_preview_shows_what_a_build_does(scans, tmp_path):
    refused = preview(scans, RECIPE, tmp_path / "a.png")
    assert sorted(one.path for one in refused.sources if one.reason) == sorted((DEEP, BANDS, PAGES))
    taken = preview(scans, recipe(levels=[0, 4095], extra_channels="drop", pages="first"), tmp_path / "b.png")
    assert not [one for one in taken.sources if one.reason]
    assert any("window [0, 4095]" in line for line in taken.departures)


def test_keys_that_only_admit_retry_those_files_and_render_no_other(scans, tmp_path):
    cache = tmp_path / "cache"
    before = build(scans, cache, RECIPE, workers=1)
    plain = stored(cache, "dog/plain.png")

    admitted = build(scans, cache, recipe(levels="high-byte", pages="first", extra_channels="drop"), workers=1)
    assert (before.rendered, admitted.rendered, admitted.reused) == (2, 3, 2)
    assert not admitted.failures
    assert np.array_equal(stored(cache, DEEP), np.stack([(values(0) >> 8).astype(np.uint8)] * 3))

    window = build(scans, cache, recipe(levels=[0, 4095], pages="first", extra_channels="drop"), workers=1)
    assert window.rendered == 5, "a window is another rendering"
    assert np.array_equal(stored(cache, "dog/plain.png"), plain), "of which files of 8 bits have the same pixels"


def test_a_cache_of_before_stays_as_it_is(scans, tmp_path):
    cache = tmp_path / "cache"
    assert not build(scans, cache, RECIPE, workers=1, decoder=OF_OLD).failures
    before = stored(cache, DEEP)

    assert status(scans, cache).up_to_date
    again = build(scans, cache, RECIPE, workers=1)
    assert again.up_to_date
    (scans / "dog" / "new.png").write_bytes(cv2.imencode(".png", values(9))[1].tobytes())
    later = build(scans, cache, workers=1)
    assert (later.samples, later.rendered) == ({"train": 5}, 0), "a new one is refused, the old ones are not decoded"
    assert [failure["path"] for failure in later.failures] == ["dog/new.png"]
    assert np.array_equal(stored(cache, DEEP), before)
    assert "1 of 5 samples looked at use fewer than 64 of 256 levels" in show(cache)
    remarks = write_report(cache, tmp_path / "page.html").remarks
    assert any(
        remark.startswith("1 of 5 stored images shown below use fewer than 64 of 256 levels") for remark in remarks
    )
    with pytest.warns(UserWarning, match="rendered as before: 16-bit"):
        assert np.array_equal(Recipe.of(cache).render(scans / DEEP, "train"), before)
    with pytest.raises(SourceError, match="levels"):
        Recipe(**RECIPE).render(scans / DEEP, "train")


@pytest.mark.parametrize("decoder", [OF_OLD, None])
def test_repair_renders_them_as_they_were(scans, tmp_path, decoder):
    cache = tmp_path / "cache"
    if decoder is None:
        build(scans, cache, recipe(levels=[0, 4095], extra_channels="drop", pages="first"), workers=1)
    else:
        build(scans, cache, RECIPE, workers=1, decoder=decoder)
    whole = shutil.copytree(cache, tmp_path / "whole")
    (shard,) = cache.glob("tensors/*/*/c.0.0.0.0")
    for place in range(5):
        flip_bit(shard, place * (3 * SIDE * SIDE + 4) + 7)

    report = repair(scans, cache)

    assert report.rendered == 5
    assert_sound(cache)
    for path in paths(cache):
        assert np.array_equal(stored(cache, path), stored(whole, path))


@pytest.mark.parametrize("levels", [[0, 4095], "high-byte"])
def test_torch_decodes_them_alike(scans, tmp_path, levels):
    given = recipe(levels=levels, extra_channels="drop", pages="first")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for device in ("cpu", "torch-cpu"):
            assert not build(scans, tmp_path / device, given, workers=1, device=device).failures
    for path in paths(tmp_path / "cpu"):
        assert np.array_equal(stored(tmp_path / "cpu", path), stored(tmp_path / "torch-cpu", path))
