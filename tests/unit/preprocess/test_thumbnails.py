"""Small pictures as data URIs: exact when small, and bounded in all."""

import numpy as np
import pytest

from preprocess.thumbnails import MAX_SIDE, fitted, thumbnails
from tests.helpers import picture
from tests.markup import pixels


def noise(side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_small_pictures_stay_as_they_are():
    (made,) = thumbnails([noise(32)], 1 << 20)

    assert made.uri.startswith("data:image/png;base64,")
    np.testing.assert_array_equal(pixels(made.uri), noise(32))


def test_larger_ones_are_shrunk_and_keep_their_shape():
    image = picture(1, 300, 600)[..., ::-1]
    (made,) = thumbnails([image], 1 << 20)

    assert (made.height, made.width) == (MAX_SIDE // 2, MAX_SIDE)
    assert np.abs(pixels(made.uri).astype(int) - fitted(image, MAX_SIDE)).mean() < 4


def test_too_many_bytes_make_all_of_them_smaller():
    images = [noise(200, seed) for seed in range(4)]
    free = sum(len(made.uri) for made in thumbnails(images, 1 << 20))
    bounded = thumbnails(images, free // 2)

    assert sum(len(made.uri) for made in bounded) <= free // 2
    assert {made.width for made in bounded} < {64, 96}
    assert thumbnails([], 0) == []


@pytest.mark.parametrize("shape", [(1, 2000, 3), (2000, 1, 3)])
def test_thin_pictures_keep_a_pixel(shape):
    (made,) = thumbnails([np.zeros(shape, np.uint8)], 1 << 20)

    assert sorted((made.height, made.width)) == [1, MAX_SIDE]
