"""Holes: where, in which colour, and over each other."""

import numpy as np
import pytest

from preprocess.augment import library
from preprocess.torch_engine.holes import COMPILERS, UNSUPPORTED, Holes
from tests.unit.torch_engine.parity import differences, found, pictures, slivers

A = library()


@pytest.mark.parametrize(
    ("channels", "fill"),
    [(3, 0), (3, 200), (3, (1, 200, 3.7)), (3, "random_uniform"), (1, 9), (1, (5,)), (1, "random_uniform")],
)
def test_every_value_is_albumentations_own(channels, fill):
    for transform in (
        A.CoarseDropout(fill=fill),
        A.CoarseDropout((3, 8), (0.1, 0.9), (0.3, 0.9), fill=fill),  # they overlap
    ):
        assert not differences(COMPILERS, transform, pictures(channels) + slivers(channels)).any()


def test_holes_in_pixels_are_cut_out_too():
    images = [image for image in pictures() if min(image.shape[:2]) >= 5]
    assert not differences(COMPILERS, A.CoarseDropout((1, 4), (2, 5), (1, 5), fill=99), images).any()


def test_two_sets_of_holes_are_one_with_the_later_on_top():
    first = Holes(np.array([[0, 0, 4, 4], [8, 8, 9, 9]]), np.uint8([[1, 1, 1], [2, 2, 2]]))
    second = Holes(np.array([[2, 2, 6, 6]]), np.uint8([[3, 4, 5]]))
    image = pictures()[0]
    folded = first.then(second)
    own = found([found([image], [[first]])[0]], [[second]])[0]
    np.testing.assert_array_equal(found([image], [[folded]])[0], own)
    assert (own[3, 3] == [3, 4, 5]).all()
    assert (own[8, 8] == 2).all()


def test_no_holes_are_nothing():
    params = {"holes": np.empty((0, 4), np.int64), "seed": 0}
    assert COMPILERS["CoarseDropout"](A.CoarseDropout(), params, (5, 5), 3) == []


@pytest.mark.parametrize("fill", ["random", "inpaint_telea", "inpaint_ns"])
def test_fills_of_more_than_a_colour_are_not_supported(fill):
    assert fill in UNSUPPORTED["CoarseDropout"](A.CoarseDropout(fill=fill), 3)


def test_colours_are_supported():
    for fill in (0, (1, 2, 3), "random_uniform"):
        assert UNSUPPORTED["CoarseDropout"](A.CoarseDropout(fill=fill), 3) is None
