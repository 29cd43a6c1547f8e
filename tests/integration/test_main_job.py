"""The main job, end to end: a folder of images in, batches out."""

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cache_store import writer
from loaders import CachedDataset
from preprocess import FailureBudgetExceeded, build
from tests import decoders
from tests.helpers import TINY, image_folder


def test_a_folder_becomes_batches(tmp_path):
    image_folder(tmp_path / "photos")

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    assert report.samples == {"train": 8}
    loader = DataLoader(CachedDataset(tmp_path / "cache"), batch_size=8, shuffle=True)
    images, labels = next(iter(loader))
    assert images.dtype == torch.float16
    assert images.shape == (8, 3, 8, 8)
    assert sorted(labels.tolist()) == [0] * 4 + [1] * 4
    np.testing.assert_allclose(images.double().mean((0, 2, 3)), 0, atol=0.01)
    np.testing.assert_allclose(images.double().std((0, 2, 3), correction=0), 1, atol=0.01)


def test_a_second_build_with_nothing_to_do_makes_no_snapshot(tmp_path):
    image_folder(tmp_path / "photos")
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    report = build(tmp_path / "photos", tmp_path / "cache", workers=1)

    assert report.up_to_date
    assert report.snapshot == "000001"
    assert "up to date" in str(report)


def test_what_an_interrupted_build_has_finished_outlives_builds_with_another_recipe(tmp_path, monkeypatch):
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    build(photos, cache, TINY, workers=1)
    other = TINY | {"seed": 1}
    with monkeypatch.context() as patch:
        patch.setattr(writer.Commit, "publish", _interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(photos, cache, other, workers=1)

    between = build(photos, cache, TINY, workers=1)
    after = build(photos, cache, other, workers=1)

    assert between.up_to_date
    assert any("another recipe" in text for text in between.departures)
    assert after.rendered == 0
    assert after.samples == {"train": 8}


def _interrupt(*_):
    raise KeyboardInterrupt


def test_a_stricter_budget_counts_the_failures_that_are_known(tmp_path):
    photos, cache = image_folder(tmp_path / "photos"), tmp_path / "cache"
    (photos / "cat" / "bad.png").write_bytes(b"no image")
    build(photos, cache, TINY, workers=1)
    assert build(photos, cache, workers=1).up_to_date

    with pytest.raises(FailureBudgetExceeded, match="1 of 9 images failed, the budget is 0"):
        build(photos, cache, workers=1, max_failures=0)


def test_a_constant_channel_gets_a_deviation_of_one_and_is_named(tmp_path):
    photos = tmp_path / "photos"
    (photos / "cat").mkdir(parents=True)
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        pixels[..., 2] = 51  # red: OpenCV writes BGR
        (photos / "cat" / f"{number}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    report = build(photos, tmp_path / "cache", TINY, workers=1)

    assert report.mean[0] == 0.2
    assert report.std[0] == 1
    assert report.std[1] not in (0, 1)
    assert any("channel 0 has the same value in every pixel" in text for text in report.departures)
    assert (CachedDataset(tmp_path / "cache")[1][0][0] == 0).all()


def test_an_image_is_decoded_once_for_all_its_variants(tmp_path, monkeypatch):
    monkeypatch.setenv(decoders.FOLDER, str(tmp_path))
    photos = image_folder(tmp_path / "photos")
    four = TINY | {"splits": {"train": TINY["splits"]["train"] | {"folder": ".", "variants": 4}}}

    report = build(photos, tmp_path / "cache", four, workers=2, decoder="tests.decoders:decode")

    assert report.rendered == 32
    assert len(decoders.noted().read_text().splitlines()) == 8
