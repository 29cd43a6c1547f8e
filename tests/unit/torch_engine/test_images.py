"""Images of different sizes in one tensor."""

import numpy as np
import pytest
import torch

from preprocess.torch_engine.images import Images

SIZES = [(3, 5), (1, 1), (4, 2)]


def image(place, channels=3):
    """uint8 (C, h, w), of values that no other has, none of them 0."""
    height, width = SIZES[place]
    values = np.random.default_rng(place).integers(1, 256, (channels, height, width), dtype=np.uint8)
    return torch.from_numpy(values)


def batch(*places, channels=3):
    return Images.of([image(place, channels) for place in places])


def with_garbage(images):
    """The same images, with something else around them."""
    pixels = torch.where(images.inside, images.pixels, torch.full_like(images.pixels, 77))
    return Images(pixels, images.sizes)


@pytest.mark.parametrize("channels", [1, 3])
def test_each_image_is_in_the_top_left_corner_of_its_place(channels):
    images = batch(0, 1, 2, channels=channels)

    assert images.pixels.shape == (3, channels, 4, 5)
    assert images.sizes.tolist() == [[3, 5], [1, 1], [4, 2]]
    assert len(images) == 3
    for place in range(3):
        assert torch.equal(images.image(place), image(place, channels))


def test_a_batch_is_a_copy():
    original = image(0)
    images = Images.of([original])
    images.pixels.zero_()
    assert original.all()


def test_images_in_any_memory_layout_are_taken():
    upright = image(0).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert not upright.is_contiguous()
    assert torch.equal(Images.of([upright]).image(0), image(0))


def test_inside_is_true_for_the_pixels_of_images_alone():
    images = with_garbage(batch(0, 1, 2))

    assert images.inside.shape == (3, 1, 4, 5)
    assert images.inside.sum(dim=(1, 2, 3)).tolist() == [15, 1, 8]
    assert not torch.where(images.inside, torch.zeros_like(images.pixels), images.pixels - 77).any()


def test_some_of_them_take_no_more_room_than_they_need():
    some = with_garbage(batch(0, 1, 2))[np.array([2, 1])]

    assert some.pixels.shape == (2, 3, 4, 2)
    assert some.sizes.tolist() == [[4, 2], [1, 1]]
    assert torch.equal(some.image(0), image(2))
    assert torch.equal(some.image(1), image(1))


def test_some_of_them_are_a_copy_and_may_be_the_same_one_twice():
    images = batch(0, 1)
    some = images[np.array([0, 0])]
    some.pixels[0].zero_()
    assert torch.equal(images.image(0), image(0))
    assert torch.equal(some.image(1), image(0))


def test_joined_batches_follow_each_other_whatever_room_they_have():
    wide = Images(torch.full((1, 3, 9, 20), 77, dtype=torch.uint8), np.array([[1, 1]]))
    wide.pixels[0, :, :1, :1] = image(1)

    joined = Images.joined([wide, with_garbage(batch(0, 2))])

    assert joined.pixels.shape == (3, 3, 4, 5)
    assert joined.sizes.tolist() == [[1, 1], [3, 5], [4, 2]]
    for place, which in enumerate((1, 0, 2)):
        assert torch.equal(joined.image(place), image(which))


def test_a_single_batch_is_joined_without_a_copy():
    images = batch(0, 2)
    assert Images.joined([images]) is images
