"""Blur and sharpening: OpenCV's sums, with each image's own borders."""

import numpy as np
import pytest

from preprocess.augment import library
from preprocess.torch_engine.filters import COMPILERS, UNSUPPORTED, Blur
from tests.unit.torch_engine.parity import differences, drawn, found, pictures, slivers

A = library()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "transform",
    [
        A.GaussianBlur(),
        A.GaussianBlur(blur_limit=(3, 15), sigma_limit=(0.2, 4)),
        A.GaussianBlur(sigma_limit=(5, 9)),  # kernels of up to 63 taps, larger than most of the images
        A.Sharpen(),
        A.Sharpen(alpha=(0, 1), lightness=(0, 5)),
    ],
    ids=str,
)
def test_filters_in_single_precision_are_equal(transform, channels):
    levels = differences(COMPILERS, transform, pictures(channels) + slivers(channels))
    assert levels.max() <= 1
    assert (levels > 0).mean() < 1e-4  # OpenCV does not fuse what is left over of a row


@pytest.mark.parametrize("kernel", [(3, 0.5), (5, 1.0), (11, 3.3), (31, 10)])
def test_sharpening_by_a_blur_in_fixed_point_is_equal(kernel):
    size, sigma = kernel
    transform = A.Sharpen(alpha=(0.1, 1), method="gaussian", kernel_size=size, sigma=sigma)
    assert not differences(COMPILERS, transform, pictures() + slivers()).any()


def test_borders_are_mirrored_in_each_image_not_in_the_batch():
    """A blur of one value is that value; noise lies behind each border."""
    images = [np.full((height, width, 3), 77, np.uint8) for height, width in ((1, 1), (2, 9), (9, 2), (30, 30))]
    blur = Blur(np.full(9, 1 / 9))
    assert all((image == 77).all() for image in found(images, [[blur]] * len(images)))


def test_kernels_of_different_sizes_share_a_batch():
    small, large = Blur(np.full(9, 1 / 9)), Blur(np.full(15, 1 / 15))
    assert small.group == large.group != Blur(np.full(17, 1 / 17)).group
    images = pictures()[:2]
    together = found(images, [[small], [large]])
    np.testing.assert_array_equal(together[0], found(images[:1], [[small]])[0])
    np.testing.assert_array_equal(together[1], found(images[1:], [[large]])[0])


def test_a_kernel_of_one_tap_is_nothing():
    image = pictures()[0]
    transform = A.GaussianBlur(sigma_limit=(0.1, 0.2))
    assert COMPILERS["GaussianBlur"](transform, drawn(transform, image, 0), image.shape[:2], 3) == []


def test_what_albumentations_fails_at_is_not_supported():
    assert UNSUPPORTED["GaussianBlur"](A.GaussianBlur(sigma_limit=0), 3)
    assert UNSUPPORTED["GaussianBlur"](A.GaussianBlur(), 3) is None
    assert UNSUPPORTED["Sharpen"](A.Sharpen(method="gaussian"), 1)
    assert UNSUPPORTED["Sharpen"](A.Sharpen(method="gaussian"), 3) is None
    assert UNSUPPORTED["Sharpen"](A.Sharpen(), 1) is None
