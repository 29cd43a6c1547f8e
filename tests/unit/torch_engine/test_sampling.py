"""Samplings fold without a pixel's difference, and a pixel does not depend on what else is in the batch."""

from dataclasses import replace
from itertools import product

import cv2
import numpy as np
import pytest
import torch

from preprocess import augment
from preprocess.torch_engine import images as batches
from preprocess.torch_engine.images import Images
from preprocess.torch_engine.resizing import resized
from preprocess.torch_engine.sampling import Sampling, Taps
from tests.torch_images import run, scene, unbatch


def taps(index) -> Taps:
    return Taps(np.asarray(index, np.int64)[:, None])


def copies(size_hw):
    """Ways of copying from an image, by name."""
    height, width = size_hw
    rows, columns = np.arange(height), np.arange(width)
    return {
        "crop": Sampling(taps(rows[height // 4 :]), taps(columns[: width // 2 + 1])),
        "flip": Sampling(taps(rows), taps(columns[::-1])),
        "turn": Sampling(taps(rows[::-1]), taps(columns), transposed=True),
        "pad": Sampling(taps([-1, *rows, -1, -1]), taps([-1, *columns]), fill=(9, 80, 200)),
        "pad in another colour": Sampling(taps([*rows, -1]), taps([*columns, -1]), fill=(0, 0, 1)),
        "mirror": Sampling(taps(np.abs(np.arange(-3, height)) % height), taps(columns)),
    }


def resizes(size_hw):
    return {name: resized(size_hw, (31, 44), code) for name, code in augment.INTERPOLATIONS.items()}


KINDS = (*copies((8, 8)), *resizes((8, 8)))
FOLDS = {
    (first, second): first in ("crop", "flip", "mirror", "nearest", "nearest_exact")
    for first, second in product(KINDS, augment.INTERPOLATIONS)
    if second not in ("nearest", "nearest_exact")
}
"""Whether a resize that sums folds into what comes before it."""


def sampling_of(kind, size_hw) -> Sampling:
    return (copies(size_hw) | resizes(size_hw))[kind]


@pytest.mark.parametrize(("first", "second"), list(product(KINDS, KINDS)))
def test_folded_samplings_give_the_pixels_of_one_after_the_other(first, second):
    image = scene(40, 56, 3)
    one = sampling_of(first, (40, 56))
    two = sampling_of(second, one.size_hw)
    both = one.then(two)
    if both is None:
        assert not FOLDS.get((first, second), False)
        return
    assert FOLDS.get((first, second), True)
    (middle,) = run([image], [one])
    (expected,) = run([middle], [two])
    (found,) = run([image], [both])
    assert both.size_hw == expected.shape[:2]
    np.testing.assert_array_equal(found, expected)


def test_borders_of_two_colours_do_not_fold_unless_nothing_of_them_is_left():
    padded = copies((8, 8))["pad"]
    other = copies(padded.size_hw)["pad in another colour"]
    assert padded.then(other) is None
    inner = padded.then(Sampling(taps(range(1, 9)), taps(range(1, 9))))
    assert inner is not None
    assert inner.fill is None
    assert inner.then(copies((8, 8))["pad in another colour"]) is not None


def test_copies_are_what_their_indices_say():
    image = scene(6, 5, 3)
    found = run([image] * 3, [copies((6, 5))[name] for name in ("flip", "turn", "pad")])
    np.testing.assert_array_equal(found[0], image[:, ::-1])
    np.testing.assert_array_equal(found[1], image[::-1].transpose(1, 0, 2))
    np.testing.assert_array_equal(
        found[2], cv2.copyMakeBorder(image, 1, 2, 1, 0, cv2.BORDER_CONSTANT, value=(9, 80, 200))
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_pixels_do_not_depend_on_batch_order_neighbours_and_padding(kind, channels, monkeypatch):
    sizes = [(40, 56), (1, 1), (7, 90), (33, 2), (128, 30), (64, 64)]
    images = [scene(*size, channels, seed) for seed, size in enumerate(sizes)]
    actions = [sampling_of(kind, size) for size in sizes]
    if channels == 1:
        actions = [replace(action, fill=action.fill and action.fill[:1]) for action in actions]
    alone = [run([image], [action])[0] for image, action in zip(images, actions, strict=True)]
    order = [3, 0, 5, 1, 4, 2]
    for at_once in (1, 10_000, 1 << 20):
        monkeypatch.setitem(batches._VALUES_AT_ONCE, "cpu", at_once)
        shuffled = run([images[i] for i in order], [actions[i] for i in order], room=(140, 200))
        for place, found in zip(order, shuffled, strict=True):
            np.testing.assert_array_equal(found, alone[place])


def test_the_given_images_may_lie_anyhow_in_memory():
    image = scene(20, 30, 3)
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    action = sampling_of("linear", (20, 30))
    (found,) = unbatch(Sampling.run(Images(pixels, np.array([[20, 30]])), [action]))
    np.testing.assert_array_equal(found, run([image], [action])[0])
