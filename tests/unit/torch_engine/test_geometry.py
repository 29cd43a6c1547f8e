"""Albumentations' own pixels are the measure: the same where only places change, and almost all where values do."""

import cv2
import numpy as np
import pytest

from preprocess import augment
from preprocess.torch_engine.geometry import COMPILERS
from tests.torch_images import SIZES, draw, folded, run_all, scene, scenes

A = augment.library()

BORDERS = tuple(augment.BORDER_MODES.values())
TO_THE_BIT = {
    **{
        f"{name} {interpolation}": (
            lambda name=name, size=size, code=code: getattr(A, name)(**size, interpolation=code)
        )
        for name, size in (
            ("Resize", {"height": 50, "width": 70}),
            ("SmallestMaxSize", {"max_size": 40}),
            ("LongestMaxSize", {"max_size_hw": (60, 90)}),
            ("RandomResizedCrop", {"size": (48, 60)}),
        )
        for interpolation, code in augment.INTERPOLATIONS.items()
        if interpolation != "cubic"
    },
    "Resize shrinking by area": lambda: A.Resize(60, 60, area_for_downscale="image"),
    "Resize to a half": lambda: A.Resize(32, 40, area_for_downscale="image"),
    "SmallestMaxSize shrinking by area": lambda: A.SmallestMaxSize([30, 90], area_for_downscale="image_mask"),
    "RandomResizedCrop shrinking by area": lambda: A.RandomResizedCrop([40, 30], area_for_downscale="image"),
    **{
        f"{cls} {border}": lambda cls=cls, border=border, more=more: getattr(A, cls)(
            100, 90, border_mode=border, fill=199.5, **more
        )
        for border in BORDERS
        for cls, more in (
            ("CenterCrop", {"pad_if_needed": True}),
            ("RandomCrop", {"pad_if_needed": True, "pad_position": "random"}),
            ("PadIfNeeded", {"position": "random"}),
        )
    },
    "PadIfNeeded to a multiple": lambda: A.PadIfNeeded(None, None, pad_height_divisor=32, pad_width_divisor=10, fill=7),
    "PadIfNeeded in colour": lambda: A.PadIfNeeded(120, 120, fill=(300, 20.5, -1)),
    "RandomCrop of the smallest": lambda: A.RandomCrop(1, 1),
    "HorizontalFlip": lambda: A.HorizontalFlip(p=1),
    "VerticalFlip": lambda: A.VerticalFlip(p=1),
    "Transpose": lambda: A.Transpose(p=1),
    "RandomRotate90": lambda: A.RandomRotate90(p=1),
    "D4": lambda: A.D4(p=1),
    "Affine by nothing": lambda: A.Affine(p=1),
    **{
        f"{cls} {interpolation} {border}": lambda cls=cls, code=code, border=border: getattr(A, cls)(
            interpolation=code, border_mode=border, fill=90, p=1
        )
        for cls in ("Rotate", "Perspective")
        for interpolation, code in (("nearest", cv2.INTER_NEAREST), ("lanczos4", cv2.INTER_LANCZOS4))
        for border in BORDERS
    },
}
BENT = {"scale": (0.5, 1.6), "translate_percent": (-0.2, 0.2), "rotate": (-180, 180), "shear": (-20, 20), "p": 1}
ALMOST = {
    "Resize cubic": lambda: A.Resize(50, 70, interpolation=cv2.INTER_CUBIC),
    "RandomResizedCrop cubic": lambda: A.RandomResizedCrop((48, 60), interpolation=cv2.INTER_CUBIC),
    **{
        f"{name} {interpolation} {border}": lambda make=make, code=code, border=border: make(
            interpolation=code, border_mode=border, fill=90
        )
        for name, make in (
            ("Affine", lambda **how: A.Affine(**BENT, **how)),
            ("Perspective", lambda **how: A.Perspective(scale=(0.05, 0.2), p=1, **how)),
        )
        for interpolation, code in (("linear", cv2.INTER_LINEAR), ("cubic", cv2.INTER_CUBIC), ("area", cv2.INTER_AREA))
        for border in BORDERS
    },
    "Affine that fits": lambda: A.Affine(rotate=(-90, 90), scale=(0.5, 1.5), fit_output=True, fill=(9, 8, 7), p=1),
    "ShiftScaleRotate": lambda: A.ShiftScaleRotate(border_mode=cv2.BORDER_REFLECT_101, p=1),
    "Rotate, cropped": lambda: A.Rotate(limit=30, crop_border=True, p=1),
    "Perspective that fits": lambda: A.Perspective(fit_output=True, keep_size=False, fill=(9, 8, 7), p=1),
    "Perspective of its own size": lambda: A.Perspective(keep_size=False, p=1),
}


def both(make, channels):
    """Pixels by Albumentations and by us, for every picture that Albumentations can do."""
    transform = make()
    expected, images, actions = [], [], []
    for seed, image in enumerate(scenes(channels)):
        if min(image.shape[:2]) == 1 and never_ends(transform):
            continue
        params = draw(transform, image, seed)
        try:
            expected.append(transform.apply(image, **params))
        except ValueError:
            with pytest.raises(ValueError, match="crop"):
                compiled(transform, params, image)
        else:
            images.append(image)
            actions.append(compiled(transform, params, image))
    return expected, run_all(images, actions)


def never_ends(transform):
    """OpenCV 5.0 does not come back from such a warp of a single row or column."""
    cubic = type(transform) in (A.Affine, A.Perspective) and transform.interpolation == cv2.INTER_CUBIC
    return cubic and transform.border_mode == cv2.BORDER_REFLECT_101


def compiled(transform, params, image):
    return folded(COMPILERS[type(transform).__name__](transform, params, image.shape[:2], image.shape[2]))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", TO_THE_BIT)
def test_pixels_are_those_of_albumentations(name, channels):
    expected, found = both(TO_THE_BIT[name], channels)
    assert len(found) >= 4
    for theirs, ours in zip(expected, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.filterwarnings("ignore:ShiftScaleRotate is a special case:UserWarning")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ALMOST)
def test_almost_all_pixels_are_those_of_albumentations_and_the_others_differ_by_one_level(name, channels):
    expected, found = both(ALMOST[name], channels)
    assert [image.shape for image in found] == [image.shape for image in expected]
    differences = np.concatenate([np.abs(o.astype(int) - e).ravel() for o, e in zip(found, expected, strict=True)])
    assert differences.max() <= 1
    # A cubic resize is IPP's where OpenCV is built with it; OpenCV's own rounds the weights to 11 bits.
    assert differences.mean() < (0.06 if name in ("Resize cubic", "RandomResizedCrop cubic") else 0.001)


def test_albumentations_gives_one_number_to_the_first_channel_only_when_it_changes_perspective():
    transform = A.Perspective(scale=(0.3, 0.3), fit_output=True, fill=200, p=1)
    image = np.zeros((60, 60, 3), np.uint8)
    params = draw(transform, image, 0)
    (out,) = run_all([image], [compiled(transform, params, image)])
    assert out.max(axis=(0, 1)).tolist() == [200, 0, 0]
    np.testing.assert_array_equal(out, transform.apply(image, **params))


@pytest.mark.parametrize(
    "transform",
    [
        A.Resize(64, 80),
        A.SmallestMaxSize(64),
        A.LongestMaxSize(80),
        A.CenterCrop(64, 80),
        A.CenterCrop(64, 80, pad_if_needed=True),
        A.RandomResizedCrop((64, 80), scale=(1, 1), ratio=(80 / 64, 80 / 64)),
        A.PadIfNeeded(10, 10),
        A.Affine(p=1),
        A.Rotate(limit=(0, 0), p=1),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_where_nothing_happens_nothing_is_done(transform):
    image = scene(64, 80, 3)
    assert compiled(transform, draw(transform, image, 0), image) == []


@pytest.mark.parametrize("times", range(4))
def test_a_quarter_turn_that_was_drawn_is_done_as_often(times):
    image = scene(20, 30, 3)
    (out,) = run_all([image], [COMPILERS["RandomRotate90"](A.RandomRotate90(), {"factor": times}, (20, 30), 3)])
    np.testing.assert_array_equal(out, np.rot90(image, times))


@pytest.mark.parametrize("element", ["e", "r90", "r180", "r270", "v", "hvt", "h", "t"])
def test_every_symmetry_of_the_square_is_done(element):
    image = scene(20, 30, 3)
    (out,) = run_all([image], [COMPILERS["D4"](A.D4(), {"group_element": element}, (20, 30), 3)])
    np.testing.assert_array_equal(out, A.D4().apply(image, element))


def test_a_crop_with_all_that_follows_a_resize_is_one_action():
    steps = [A.RandomResizedCrop((40, 50)), A.HorizontalFlip(p=1), A.RandomRotate90(p=1), A.CenterCrop(30, 30)]
    for seed, size_hw in enumerate(SIZES):
        image = expected = scene(*size_hw, 3, seed)
        actions = []
        for step in steps:
            params = draw(step, expected, seed)
            actions += COMPILERS[type(step).__name__](step, params, expected.shape[:2], 3)
            expected = step.apply(expected, **params)
        assert len(folded(actions)) == 1
        (out,) = run_all([image], [folded(actions)])
        np.testing.assert_array_equal(out, expected)
