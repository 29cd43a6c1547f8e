"""Equalised histograms, in both ways, of channels and of luma."""

import numpy as np
import pytest
import torch

from preprocess.augment import library
from preprocess.torch_engine.equalize import COMPILERS, UNSUPPORTED, histograms
from preprocess.torch_engine.images import Images
from tests.unit.torch_engine.parity import differences, pictures, slivers

A = library()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("by_channels", [False, True])
@pytest.mark.parametrize("mode", ["cv", "pil"])
def test_every_value_is_albumentations_own(mode, by_channels, channels):
    transform = A.Equalize(mode=mode, by_channels=by_channels)
    assert not differences(COMPILERS, transform, pictures(channels) + slivers(channels), draws=1).any()


def test_histograms_count_each_image_and_channel_without_padding():
    images = pictures() + slivers()
    batch = Images.of([torch.from_numpy(image).permute(2, 0, 1) for image in images])
    counts = histograms(batch).numpy()
    for image, of_channels in zip(images, counts):
        for channel in range(3):
            own = np.bincount(image[:, :, channel].ravel(), minlength=256)
            np.testing.assert_array_equal(of_channels[channel], own)


def test_a_mask_is_not_supported():
    unsupported = UNSUPPORTED["Equalize"]
    assert "mask" in unsupported(A.Equalize(mask=np.ones((5, 5), np.uint8)), 3)
    assert unsupported(A.Equalize(), 3) is None
