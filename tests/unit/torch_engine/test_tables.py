"""Pointwise operations: exactly Albumentations' values, and one table for many of them."""

import numpy as np
import pytest
import torch

from preprocess.augment import library
from preprocess.torch_engine import holes
from preprocess.torch_engine.tables import COMPILERS, UNSUPPORTED, Table, look_up, tabulate
from tests.unit.torch_engine.parity import differences, drawn, expected, found, pictures, slivers

A = library()

POINTWISE = [
    A.InvertImg(),
    A.Posterize(num_bits=(1, 7)),
    A.RGBShift(90, 60, (-30, 200)),
    A.RandomBrightnessContrast(0.8, 0.8),
    A.RandomBrightnessContrast(0.8, 0.8, ensure_safe_range=True),
    A.RandomGamma((20, 300)),
    A.Solarize((0, 1)),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("transform", POINTWISE, ids=str)
def test_every_value_is_albumentations_own(transform, channels):
    assert not differences(COMPILERS, transform, pictures(channels) + slivers(channels)).any()


def test_channels_can_be_posterized_differently():
    assert not differences(COMPILERS, A.Posterize([(1, 2), (3, 4), (6, 7)]), pictures() + slivers()).any()


def test_a_row_of_tables_is_one_table():
    image = pictures()[0]
    actions, own = [], image
    for seed, transform in enumerate(POINTWISE):
        params = drawn(transform, image, seed)
        actions += COMPILERS[type(transform).__name__](transform, params, image.shape[:2], 3)
        own = expected(transform, params, own)
    folded = actions[0]
    for action in actions[1:]:
        folded = folded.then(action)
    np.testing.assert_array_equal(found([image], [[folded]])[0], own)


def test_a_table_does_not_fold_with_anything_else():
    hole = holes.Holes(np.zeros((1, 4), np.int64), np.zeros((1, 3), np.uint8))
    assert Table(np.zeros((3, 256), np.uint8)).then(hole) is None


def test_what_changes_nothing_is_no_action():
    assert tabulate(lambda ramp: ramp, 3) == []
    assert len(tabulate(lambda ramp: np.maximum(ramp, 1), 3)) == 1


def test_each_image_and_channel_has_its_own_table():
    pixels = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).to(torch.uint8)
    tables = torch.randint(0, 256, (2, 3, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = look_up(pixels, tables)
    for image in range(2):
        for channel in range(3):
            assert torch.equal(found[image, channel], tables[image, channel][pixels[image, channel].long()])


def test_brightness_relative_to_the_mean_is_not_supported():
    unsupported = UNSUPPORTED["RandomBrightnessContrast"]
    assert "mean" in unsupported(A.RandomBrightnessContrast(brightness_by_max=False), 3)
    assert unsupported(A.RandomBrightnessContrast(), 3) is None
