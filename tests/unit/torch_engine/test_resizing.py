"""cv2.resize is the measure."""

import cv2
import numpy as np
import pytest

from preprocess import augment
from preprocess.torch_engine.resizing import resized
from tests.torch_images import run, scene

TARGETS = (
    (1, 1),
    (1, 40),
    (37, 1),
    (50, 50),
    (32, 40),
    (16, 20),
    (150, 90),
    (21, 203),
    (64, 39),
    (63, 300),
    (128, 160),
)
SOURCES = ((64, 80), (1, 1), (1, 9), (7, 1), (3, 300), (49, 98), (131, 57))


def resizes(code, channels):
    """Ours and OpenCV's, of all sources to all targets."""
    pairs = [(source, target) for source in SOURCES for target in TARGETS if source != target]
    images = [scene(*source, channels, seed) for seed, (source, _) in enumerate(pairs)]
    ours = run(images, [resized(source, target, code) for source, target in pairs])
    theirs = [
        cv2.resize(image, target[::-1], interpolation=code).reshape(*target, channels)
        for image, (_, target) in zip(images, pairs, strict=True)
    ]
    return ours, theirs


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [name for name in augment.INTERPOLATIONS if name != "cubic"])
def test_a_resize_is_opencvs_to_the_bit(name, channels):
    for ours, theirs in zip(*resizes(augment.INTERPOLATIONS[name], channels), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_cubic_resize_is_at_most_one_level_from_opencvs_and_hardly_ever(channels):
    ours, theirs = resizes(cv2.INTER_CUBIC, channels)
    differences = np.concatenate([np.abs(o.astype(int) - t).ravel() for o, t in zip(ours, theirs, strict=True)])
    assert differences.max() <= 1
    assert differences.mean() < 0.06  # with IPP 100 times less


def test_a_shrink_that_opencv_does_not_find_whole_is_a_mean_all_the_same():
    """1 / (1 / 49) is not 49: OpenCV takes its way for fractions, and so do we."""
    image = scene(49, 98, 3)
    (out,) = run([image], [resized((49, 98), (1, 2), cv2.INTER_AREA)])
    np.testing.assert_allclose(out[0], image.reshape(49, 2, 49, 3).mean(axis=(0, 2)), atol=0.51)
