"""An environment that renders other pixels than the one that filled the cache is noticed before it mixes them."""

import pytest

from cache_store.reader import snapshot_names
from preprocess import PixelsWouldDiffer, cli, probe
from preprocess.builder import build
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import assert_sound, contents


@pytest.fixture
def built(tmp_path):
    photos, cache = image_folder(tmp_path / "photos", count=2), tmp_path / "cache"
    build(photos, cache, TINY, workers=1)
    return photos, cache


@pytest.fixture
def elsewhere(monkeypatch):
    """Another OpenCV, say: the probe comes out differently."""

    def enter():
        monkeypatch.setattr(probe, "probe", lambda rendering, decoder: "0" * 32)

    return enter


def test_other_pixels_are_refused_and_both_ways_out_named(built, elsewhere):
    photos, cache = built
    before = contents(cache)
    write_image(photos / "cat" / "new.png", 99)
    elsewhere()

    with pytest.raises(PixelsWouldDiffer) as caught:
        build(photos, cache, workers=1)

    assert caught.value.exit_code == 8
    assert "go back to the former environment" in str(caught.value)
    assert "--rerender" in str(caught.value)
    assert "split 'train'" in str(caught.value)
    assert contents(cache) == before


def test_what_changed_is_named(built, elsewhere, monkeypatch):
    from preprocess import environment

    elsewhere()
    versions = environment.versions()
    monkeypatch.setattr(environment, "versions", lambda engine: versions | {"opencv": "99.0"})

    with pytest.raises(PixelsWouldDiffer, match=f"changed: opencv {versions['opencv']} -> 99.0;"):
        build(*built, workers=1)


def test_the_command_exits_with_8(built, elsewhere, monkeypatch, capsys):
    elsewhere()
    monkeypatch.setattr("sys.argv", ["decant", "build", *map(str, built), "--workers", "1"])
    monkeypatch.setattr("signal.signal", lambda *_: None)

    with pytest.raises(SystemExit) as caught:
        cli.main()

    assert caught.value.code == 8
    assert "--rerender" in capsys.readouterr().err


def test_rerender_makes_new_tensors_beside_the_old(built, elsewhere):
    photos, cache = built
    before = contents(cache)
    elsewhere()

    report = build(photos, cache, workers=1, rerender=True)

    assert report.rendered == 4
    assert snapshot_names(cache) == ["000001", "000002"]
    assert contents(cache, "000001") == before
    after = contents(cache)["splits"]["train"]
    assert after["tensors_id"] != before["splits"]["train"]["tensors_id"]
    assert after["samples"] == before["splits"]["train"]["samples"]  # only the probe was made up
    assert_sound(cache)
    assert build(photos, cache, workers=1).up_to_date  # from now on this environment is the cache's


def test_back_in_the_former_environment_its_tensors_are_found_again(built, elsewhere, monkeypatch):
    photos, cache = built
    before = contents(cache)
    with monkeypatch.context() as patch:
        patch.setattr(probe, "probe", lambda rendering, decoder: "0" * 32)
        build(photos, cache, workers=1, rerender=True)
    with pytest.raises(PixelsWouldDiffer):
        build(photos, cache, workers=1)

    report = build(photos, cache, workers=1, rerender=True)

    assert report.rendered == 0
    assert contents(cache) == before


def test_another_recipe_asks_for_nothing_of_the_former_environment(built, elsewhere):
    elsewhere()

    report = build(*built, TINY | {"seed": 5}, workers=1)

    assert report.rendered == 4


def test_a_dry_run_refuses_too(built, elsewhere):
    elsewhere()

    with pytest.raises(PixelsWouldDiffer):
        build(*built, workers=1, dry_run=True)
