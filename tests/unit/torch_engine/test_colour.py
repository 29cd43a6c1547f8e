"""What mixes channels or knows the whole image, as Albumentations and OpenCV compute it."""

import cv2
import numpy as np
import pytest
import torch

from preprocess.augment import library
from preprocess.torch_engine.colour import COMPILERS, UNSUPPORTED, Contrast, Hsv, Saturation
from preprocess.torch_engine.conversions import convert
from preprocess.torch_engine.images import Images
from preprocess.torch_engine.tables import Table
from tests.unit.torch_engine.parity import differences, drawn, found, pictures, slivers

A = library()
METHODS = ["weighted_average", "from_lab", "desaturation", "average", "max", "pca"]
ONE = (1, 1)


@pytest.mark.parametrize("method", METHODS)
def test_gray_is_equal(method):
    # Albumentations loses an axis of an image of one row or column.
    assert not differences(COMPILERS, A.ToGray(method=method), pictures(), draws=1).any()


def test_gray_of_gray_is_nothing():
    assert COMPILERS["ToGray"](A.ToGray(), {}, (5, 5), 1) == []


def test_gray_of_another_number_of_channels_is_not_supported():
    assert "num_output_channels: 1" in UNSUPPORTED["ToGray"](A.ToGray(num_output_channels=1), 3)
    assert UNSUPPORTED["ToGray"](A.ToGray(), 3) is None
    assert UNSUPPORTED["ToGray"](A.ToGray(), 1) is None


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("contrast", [(0.2, 3), (0, 0), (1, 1)])
def test_contrast_is_equal(contrast, channels):
    transform = A.ColorJitter(ONE, contrast, ONE, (0, 0))
    assert not differences(COMPILERS, transform, pictures(channels) + slivers(channels)).any()


def test_the_mean_is_that_of_the_image_without_its_padding():
    white, black = np.full((2, 3, 3), 255, np.uint8), np.zeros((30, 50, 3), np.uint8)
    assert (found([white, black], [[Contrast(0.5)], [Contrast(0.5)]])[0] == 255).all()


@pytest.mark.parametrize("saturation", [(0, 0), (0, 3), (0.5, 0.5)])
def test_saturation_is_equal(saturation):
    levels = differences(COMPILERS, A.ColorJitter(ONE, ONE, saturation, (0, 0)), pictures() + slivers())
    assert levels.max() <= 1
    assert levels.mean() < 1e-4  # none on a processor with fused multiplication


def test_hue_is_equal_in_whole_blocks_of_a_row_and_in_what_is_left_over():
    images = [np.random.default_rng(0).integers(0, 256, (40, width, 3), dtype=np.uint8) for width in (31, 32, 33, 95)]
    assert not differences(COMPILERS, A.ColorJitter(ONE, ONE, ONE, (-0.5, 0.5)), images).any()


@pytest.mark.parametrize("channels", [1, 3])
def test_all_of_colour_jitter_in_any_order_is_equal(channels):
    transform = A.ColorJitter((0, 3), (0, 3), (0, 3), (-0.5, 0.5))
    levels = differences(COMPILERS, transform, pictures(channels) + slivers(channels), draws=3)
    assert levels.mean() < 1e-3  # none on a processor with fused multiplication


def test_colour_jitter_is_done_in_the_order_drawn():
    params = {"brightness": 1.5, "contrast": 0.5, "saturation": 0.5, "hue": 0.1, "order": [3, 1, 0, 2]}
    actions = COMPILERS["ColorJitter"](A.ColorJitter(), params, (5, 5), 3)
    assert [type(action) for action in actions] == [Hsv, Contrast, Table, Saturation]
    assert [type(action) for action in COMPILERS["ColorJitter"](A.ColorJitter(), params, (5, 5), 1)] == [
        Contrast,
        Table,
    ]


def test_factors_of_one_are_nothing():
    params = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "order": [0, 1, 2, 3]}
    assert COMPILERS["ColorJitter"](A.ColorJitter(), params, (5, 5), 3) == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("limits", [(20, 30, 20), (180, 200, 200), (0, 0.9, 0.9), (0, 40, 0), (0, 0, 90), (0.4, 0, 0)])
def test_hue_saturation_and_value_are_equal(limits, channels):
    images = pictures(channels) + slivers(channels)
    assert not differences(COMPILERS, A.HueSaturationValue(*limits), images).any()


def test_no_shift_is_nothing():
    image = pictures()[0]
    transform = A.HueSaturationValue(0, 0, 0)
    assert COMPILERS["HueSaturationValue"](transform, drawn(transform, image, 0), image.shape[:2], 3) == []


@pytest.mark.parametrize("name", ["RGB2HSV", "HSV2RGB", "RGB2LAB", "RGB2YCrCb", "YCrCb2RGB"])
def test_conversions_are_opencvs(name):
    for image in pictures():
        batch = Images.of([torch.from_numpy(image).permute(2, 0, 1)])
        own = cv2.cvtColor(image, getattr(cv2, f"COLOR_{name}"))
        np.testing.assert_array_equal(convert(batch, name).image(0).permute(1, 2, 0).numpy(), own)
