"""cv2's warps are the measure; what is kept of a canvas changes no pixel of it."""

import cv2
import numpy as np
import pytest

from preprocess import augment
from preprocess.torch_engine import images as batches
from preprocess.torch_engine.resizing import CUBIC, LANCZOS4, LINEAR, NEAREST, resized
from preprocess.torch_engine.sampling import Sampling, Taps
from preprocess.torch_engine.warp import Warp
from tests.torch_images import run, scene

TURN = np.array([[0.9, -0.5, 20.3], [0.4, 1.1, -12.8]])
TILT = np.array([[1.05, 0.08, -9.0], [0.03, 0.96, 5.0], [1e-3, -5e-4, 1.0]])
FILL = (200, 30, 90)
KINDS = [(code, perspective) for code in (NEAREST, LINEAR, CUBIC, LANCZOS4) for perspective in (False, True)]


def taps(index) -> Taps:
    return Taps(np.asarray(index, np.int64)[:, None])


def warp(canvas_hw, interpolation, perspective, mode=cv2.BORDER_CONSTANT, channels=3) -> Warp:
    if perspective:
        matrix = cv2.invert(TILT)[1]
    else:
        matrix = np.vstack([cv2.invertAffineTransform(TURN), [0, 0, 1]])
    canvas = Sampling(taps(range(canvas_hw[0])), taps(range(canvas_hw[1])))
    return Warp(matrix, perspective, interpolation, mode, FILL[:channels], canvas)


def by_opencv(image, canvas_hw, interpolation, perspective, mode=cv2.BORDER_CONSTANT):
    function, matrix = (cv2.warpPerspective, TILT) if perspective else (cv2.warpAffine, TURN)
    out = function(image, matrix, canvas_hw[::-1], flags=interpolation, borderMode=mode, borderValue=FILL)
    return out.reshape(*canvas_hw, image.shape[2])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", augment.BORDER_MODES.values(), ids=augment.BORDER_MODES)
@pytest.mark.parametrize(("interpolation", "perspective"), KINDS)
def test_warps_are_opencvs(interpolation, perspective, mode, channels):
    cases = [((64, 80), (64, 80)), ((90, 70), (128, 160)), ((2, 3), (40, 48)), ((150, 200), (75, 99))]
    if (interpolation, mode) != (CUBIC, cv2.BORDER_REFLECT_101):  # OpenCV 5.0 does not come back from this
        cases += [((1, 1), (32, 32)), ((1, 30), (20, 17)), ((30, 1), (20, 17))]
    images = [scene(*source, channels, seed) for seed, (source, _) in enumerate(cases)]
    found = run(images, [warp(canvas, interpolation, perspective, mode, channels) for _, canvas in cases])
    expected = [
        by_opencv(image, canvas, interpolation, perspective, mode)
        for image, (_, canvas) in zip(images, cases, strict=True)
    ]
    differences = np.concatenate([np.abs(f.astype(int) - e).ravel() for f, e in zip(found, expected, strict=True)])
    if interpolation in (NEAREST, LANCZOS4):
        assert differences.max() == 0
    else:
        assert differences.max() <= 1
        assert differences.mean() < 0.001


@pytest.mark.parametrize(("interpolation", "perspective"), KINDS)
def test_crops_flips_turns_and_pads_after_a_warp_are_part_of_it(interpolation, perspective):
    image = scene(60, 70, 3)
    one = warp((60, 70), interpolation, perspective)
    canvas = expected = run([image], [one])[0]
    for following, pixels in (
        (Sampling(taps(range(10, 50)), taps(range(60)[::-1])), lambda c: c[10:50, 59::-1]),
        (Sampling(taps(range(40)), taps(range(60)), transposed=True), lambda c: c.transpose(1, 0, 2)),
        (
            Sampling(taps([-1, *range(60)]), taps(range(40)), fill=(1, 2, 3)),
            lambda c: np.pad(c, ((1, 0), (0, 0), (0, 0))),
        ),
    ):
        one = one.then(following)
        expected = pixels(expected)
    expected = expected.copy()
    expected[0] = (1, 2, 3)
    (found,) = run([image], [one])
    np.testing.assert_array_equal(found, expected)
    assert not np.array_equal(canvas[10:50, 59::-1], canvas[10:50, :60])


def test_sums_and_other_warps_do_not_fold_into_a_warp():
    one = warp((60, 70), LINEAR, False)
    assert one.then(resized((60, 70), (30, 30), cv2.INTER_AREA)) is None
    assert one.then(warp((60, 70), LINEAR, False)) is None


@pytest.mark.parametrize("mode", [cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT])
@pytest.mark.parametrize(("interpolation", "perspective"), KINDS)
def test_pixels_do_not_depend_on_batch_order_neighbours_and_padding(interpolation, perspective, mode, monkeypatch):
    sizes = [(40, 56), (1, 1), (7, 90), (33, 2), (70, 30)]
    images = [scene(*size, 3, seed) for seed, size in enumerate(sizes)]
    actions = [
        warp(canvas, interpolation, perspective, mode) for canvas in [(9, 80), (40, 40), (1, 1), (64, 33), (50, 50)]
    ]
    alone = [run([image], [action])[0] for image, action in zip(images, actions, strict=True)]
    order = [3, 0, 1, 4, 2]
    for at_once in (1, 10_000, 1 << 20):
        monkeypatch.setitem(batches._VALUES_AT_ONCE, "cpu", at_once)
        shuffled = run([images[i] for i in order], [actions[i] for i in order], room=(90, 120))
        for place, found in zip(order, shuffled, strict=True):
            np.testing.assert_array_equal(found, alone[place])


def test_coordinates_that_are_not_numbers_or_endless_are_far_outside():
    matrix = np.array([[1.0, 0, 0], [0, 1.0, 0], [1.0, 0, 0]])  # the first column of the canvas is divided by zero
    canvas = Sampling(taps(range(4)), taps(range(4)))
    image = np.full((4, 4, 3), 50, np.uint8)
    (found,) = run([image], [Warp(matrix, True, LINEAR, cv2.BORDER_CONSTANT, FILL, canvas)])
    assert (found[:, 0] == FILL).all()
    assert (found[0, 1:] == 50).all()
