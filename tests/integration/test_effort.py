"""A build says what its workers were at, and what would make it faster."""

import json

import pytest

from preprocess import build
from preprocess.clock import STAGES
from tests import decoders
from tests.helpers import TINY, image_folder, write_image

SPLITS = {
    "train": {
        "folder": ".",
        "variants": 2,
        "transforms": [
            {"GaussianBlur": {"blur_limit": [31, 31], "p": 1}},
            {"OneOf": [{"CLAHE": {"p": 1}}]},
            {"Resize": {"height": 8, "width": 8}},
        ],
    }
}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.setenv(decoders.FOLDER, str(tmp_path))
    return image_folder(tmp_path / "photos")


def test_a_slow_decoder_bounds_the_build(photos, tmp_path, monkeypatch):
    monkeypatch.setenv(decoders.SLEEP_S, "0.1")

    report = build(photos, tmp_path / "cache", TINY, workers=1, decoder="tests.decoders:decode")

    assert list(report.stages) == [*STAGES, "sync"]
    assert 0.8 <= report.stages["decode"] <= report.seconds["render"]
    assert sum(report.stages.values()) <= sum(report.seconds.values())
    assert report.advice.startswith("Bound by decoding (")
    lines = str(report).splitlines()
    assert next(line for line in lines if line.startswith("  workers at decode "))
    assert " ".join(lines).endswith(report.advice)


def test_seconds_are_the_mean_of_the_workers(photos, tmp_path, monkeypatch):
    monkeypatch.setenv(decoders.SLEEP_S, "0.1")
    monkeypatch.setattr("preprocess.pipeline._FEW_ITEMS", 0)
    monkeypatch.setattr("preprocess.run._LEAST_IMAGES_A_JOB", 1)

    report = build(photos, tmp_path / "cache", TINY, workers=2, decoder="tests.decoders:decode")

    assert 0.4 <= report.stages["decode"] < 0.8


@pytest.mark.parametrize("other", [[], ["CLAHE"]], ids=["decided by shape", "decided by pixels"])
def test_each_transform_of_the_recipe_is_timed(photos, tmp_path, other):
    transforms = [*SPLITS["train"]["transforms"][:1], *other, *SPLITS["train"]["transforms"][2:]]
    splits = {"train": SPLITS["train"] | {"transforms": transforms}}

    report = build(photos, tmp_path / "cache", TINY | {"splits": splits}, workers=1)

    assert [one["name"] for one in report.transforms] == ["GaussianBlur", *other, "Resize"]
    assert all(one["splits"] == ["train"] for one in report.transforms)
    seconds = {one["name"]: one["seconds"] for one in report.transforms}
    assert seconds["GaussianBlur"] > 0
    assert sum(seconds.values()) <= report.stages["render"] + 0.002  # each is rounded
    assert json.loads(report.to_json())["transforms"] == report.transforms


def test_the_dearest_transform_of_this_recipe_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("preprocess.advice._LEAST_S", 0)
    splits = {"train": SPLITS["train"] | {"variants": 30}}

    report = build(photos, tmp_path / "cache", TINY | {"normalize": "imagenet", "splits": splits}, workers=1)

    dearest = max(report.transforms, key=lambda one: one["seconds"])["name"]
    assert f"{dearest} of train takes" in report.advice
    assert report.advice.startswith("Bound by the transforms (")
    assert dearest in ("GaussianBlur", "CLAHE")
    assert "behind Resize it would have fewer pixels" in report.advice


def test_nothing_to_do_takes_no_workers(photos, tmp_path):
    build(photos, tmp_path / "cache", TINY, workers=1)

    report = build(photos, tmp_path / "cache", workers=1)

    assert (report.stages, report.transforms, report.advice) == ({}, [], "")
    assert "workers at" not in str(report)


def test_the_torch_engine_does_not_time_single_transforms(photos, tmp_path):
    report = build(photos, tmp_path / "cache", TINY, workers=1, device="torch-cpu")

    assert report.transforms == []
    assert report.stages["render"] > 0
    assert report.stages["decode"] > 0


@pytest.mark.parametrize(("suffix", "larger"), [(".jpg", 6.0), (".png", 0.0)])
def test_a_reduced_decode_is_advised_for_jpegs_alone_whatever_their_names(tmp_path, monkeypatch, suffix, larger):
    for number in range(4):
        made = write_image(tmp_path / "photos" / "cat" / f"{number}{suffix}", number, 48, 64)
        made.rename(made.with_suffix(".png" if suffix == ".jpg" else ".jpg"))
    told = []
    monkeypatch.setattr("preprocess.effort.advice", lambda *_, **known: told.append(known["times_larger"]) or "")
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)
    assert told == [larger]
