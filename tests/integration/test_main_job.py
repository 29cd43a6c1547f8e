"""The main job, end to end: a folder of images in, batches out."""

import numpy as np
import torch
from torch.utils.data import DataLoader

from loaders import CachedDataset
from preprocess import build
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
