"""Draws apart from pixels: drawn from a shape, a pipeline does what Albumentations' own call does, bit for bit."""

import itertools
import random

import albumentations as A
import numpy as np
import pytest

from preprocess import decisions
from preprocess.augment import Pipeline, random_state, resolve
from preprocess.decisions import Misshapen, first_other
from preprocess.errors import SourceError

TRANSFORMS = {
    "Affine": (
        {"scale": [0.5, 1.5], "translate_percent": [-0.2, 0.2], "rotate": [-40, 40], "shear": [-10, 10]},
        {"scale": [0.5, 2], "translate_px": [-3, 3], "balanced_scale": True, "fit_output": True, "border_mode": 4},
        {"keep_ratio": True, "scale": [0.8, 1.2], "interpolation": "nearest", "fill": 9},
        {"fit_output": True},
        {"rotate": [-1e-8, 1e-8], "fit_output": True},
    ),
    "CenterCrop": (
        {"height": 2, "width": 3},
        {"height": 20, "width": 6, "pad_if_needed": True},
        {"height": 20, "width": 60, "pad_if_needed": True, "pad_position": "random", "border_mode": "reflect"},
    ),
    "CoarseDropout": (
        {},
        {"num_holes_range": [1, 5], "hole_height_range": [2, 4], "hole_width_range": [1, 3], "fill": 9},
        {"num_holes_range": [2, 8], "hole_height_range": [0.1, 0.5], "fill": [1, 2, 3]},
    ),
    "ColorJitter": ({}, {"brightness": 0.9, "contrast": 0.9, "saturation": 0.9, "hue": 0.3}, {"hue": 0}),
    "D4": ({},),
    "Equalize": ({}, {"mode": "pil", "by_channels": False}),
    "GaussianBlur": ({}, {"blur_limit": [3, 9], "sigma_limit": [0.1, 4]}),
    "HorizontalFlip": ({},),
    "HueSaturationValue": ({}, {"hue_shift_limit": 0, "sat_shift_limit": 0}),
    "InvertImg": ({},),
    "LongestMaxSize": (
        {"max_size": 8},
        {"max_size": [8, 12, 16], "interpolation": "cubic"},
        {"max_size_hw": [5, 9]},
        {"max_size_hw": [6, None]},
    ),
    "NoOp": ({},),
    "PadIfNeeded": (
        {"min_height": 20, "min_width": 30},
        {"min_height": 20, "min_width": 3, "position": "top_left", "fill": [1, 2, 3]},
        {
            "min_height": None,
            "min_width": None,
            "pad_height_divisor": 8,
            "pad_width_divisor": 5,
            "position": "random",
            "border_mode": "replicate",
        },
    ),
    "Perspective": (
        {},
        {"scale": [0.1, 0.4], "keep_size": False},
        {"scale": 0.05, "keep_size": False, "fit_output": True},
        {"scale": 0.3, "fit_output": True, "interpolation": "area"},
    ),
    "Posterize": ({}, {"num_bits": [1, 7]}, {"num_bits": [[1, 3], [2, 5], [1, 7]]}),
    "RGBShift": ({}, {"r_shift_limit": 5, "g_shift_limit": [10, 90], "b_shift_limit": 0}),
    "RandomBrightnessContrast": (
        {},
        {"brightness_limit": 0.9, "contrast_limit": 0.9, "ensure_safe_range": True},
    ),
    "RandomCrop": (
        {"height": 2, "width": 3},
        {"height": 20, "width": 6, "pad_if_needed": True},
        {"height": 20, "width": 60, "pad_if_needed": True, "pad_position": "random", "fill": 7},
    ),
    "RandomGamma": ({}, {"gamma_limit": [20, 300]}),
    "RandomResizedCrop": (
        {"size": [9, 8]},
        {"size": [9, 8], "scale": [0.01, 0.02], "ratio": [0.3, 3], "interpolation": "lanczos4"},
        {"size": [9, 8], "ratio": [3, 4]},
    ),
    "RandomRotate90": ({},),
    "Resize": ({"height": 7, "width": 9}, {"height": 30, "width": 1, "interpolation": "nearest"}),
    "Rotate": (
        {},
        {"limit": 180, "crop_border": True},
        {"limit": 10, "border_mode": "wrap", "interpolation": "cubic"},
    ),
    "Sharpen": ({}, {"method": "gaussian", "kernel_size": 7, "sigma": 2}),
    "ShiftScaleRotate": (
        {},
        {"shift_limit": 0.5, "scale_limit": 0.4, "rotate_limit": 170, "border_mode": "reflect_101", "fill": 3},
    ),
    "SmallestMaxSize": (
        {"max_size": 8},
        {"max_size": [8, 12, 16], "interpolation": "cubic"},
        {"max_size_hw": [5, 9]},
        {"max_size_hw": [None, 9]},
    ),
    "Solarize": ({}, {"threshold_range": [0.1, 0.9]}),
    "ToGray": tuple(
        {"method": method} for method in ("weighted_average", "from_lab", "desaturation", "average", "max", "pca")
    ),
    "Transpose": ({},),
    "VerticalFlip": ({},),
}
SIZES = ((1, 1), (1, 9), (9, 1), (40, 1), (2, 3), (17, 23), (40, 40), (230, 150))


def pipeline(*transforms):
    return Pipeline(resolve(list(transforms), "transforms")[0])


def ordinary(given: Pipeline, image: np.ndarray, state: int) -> np.ndarray:
    """What Albumentations itself makes of it."""
    given._compose.set_random_state(np.random.default_rng(state), random.Random(state))
    return given._compose(image=image)["image"]


def outcome(function, *args):
    """A result, or the error raised in its place: something that can be compared."""
    try:
        return comparable(function(*args))
    except Exception as error:
        return type(error), str(error)


def comparable(value):
    """Equal only if types and all bits of arrays are."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [comparable(item) for item in value]
    return type(value), value


def drawn(given: Pipeline, shape: tuple[int, int, int], state: int) -> list:
    return [(step.transform, comparable(step.params), step.shape) for step in given.decide(shape, state)]


def pixels(shape: tuple[int, int, int], seed: int = 0) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    image.flags.writeable = False
    return image


def applied(given: Pipeline, image: np.ndarray, state: int) -> np.ndarray:
    """The steps of an image, applied one by one; each has the shape that it was said to have."""
    for step in given.decide(image.shape, state):
        image = np.ascontiguousarray(step.transform.apply(image, **step.params))
        assert image.shape == step.shape
        assert image.dtype == np.uint8
    return image


# -- transforms --------------------------------------------------------------------------------------------------------


def every_one():
    return [(name, args) for name, variants in TRANSFORMS.items() for args in variants]


def test_every_transform_that_is_drawn_from_a_shape_is_tried_here():
    assert set(TRANSFORMS) == set(decisions._SIZES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_steps_drawn_from_a_shape_give_the_pixels_and_errors_of_the_ordinary_call(name):
    compared = 0
    for args, channels in itertools.product(TRANSFORMS[name], (3, 1)):
        # What is drawn last depends on all numbers and sizes before it.
        last = {"PadIfNeeded": {"min_height": 64, "min_width": 64, "position": "random"}}
        given = pipeline({"VerticalFlip": {"p": 0.5}}, {name: {"p": 0.8, **args}}, last)
        assert given.other is None
        for number, size in enumerate(SIZES):
            image = pixels((*size, channels), number)
            for state in range(2**63, 2**63 + 6):
                # Of one channel it is a copy, which the library may write into.
                wanted = outcome(ordinary, given, image.copy() if channels == 1 else image, state)
                assert outcome(given, image, state) == wanted
                found = outcome(applied, given, image.copy() if channels == 1 else image, state)
                if found[0] is not Misshapen:
                    assert found == wanted
                    compared += found[0] == np.uint8
    assert compared > len(TRANSFORMS[name]) * len(SIZES) * 2


@pytest.mark.filterwarnings("ignore")
def test_an_image_that_is_a_view_gives_contiguous_pixels_of_the_ordinary_call():
    view = pixels((80, 60, 3))[::2, ::-1]
    for name, args in every_one():
        given = pipeline({name: {"p": 1, **args}})
        for state in range(3):
            wanted = outcome(ordinary, given, view, state)
            assert outcome(given, view, state) == wanted
            assert wanted[0] != np.uint8 or given(view, state).flags.c_contiguous


def test_an_image_that_nothing_is_done_to_is_returned_as_it_is():
    image = pixels((4, 5, 3))
    assert pipeline({"HorizontalFlip": {"p": 0}})(image, 0) is image


def test_nothing_of_an_image_larger_than_the_memory_is_made_to_decide_about_it():
    for name, args in every_one():
        (step,) = pipeline({name: {"p": 1, **args}}).decide((10**6, 10**6, 3), 5)
        assert type(step.transform).__name__ == name
        assert step.shape[2] == 3


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        ({"ToGray": {"p": 1}}, (1, 20, 3)),
        ({"ToGray": {"p": 1}}, (1, 1, 3)),
        ({"Sharpen": {"method": "gaussian", "p": 1}}, (16, 16, 1)),
        ({"Sharpen": {"method": "gaussian", "p": 1}}, (7, 1, 1)),
    ],
)
def test_a_result_with_other_axes_is_refused_by_a_decision_and_left_to_the_ordinary_call(transform, shape):
    given, image = pipeline(transform), pixels(shape)
    with pytest.raises(Misshapen, match=next(iter(transform))):
        given.decide(shape, 0)
    assert given(image, 0).shape != shape
    assert outcome(given, image, 0) == outcome(ordinary, given, image, 0)


def test_a_crop_larger_than_the_image_is_refused_when_it_is_drawn_and_when_it_is_applied():
    given = pipeline({"Transpose": {"p": 1}}, {"RandomCrop": {"height": 10, "width": 31}})
    wanted = outcome(ordinary, given, pixels((30, 40, 3)), 0)
    assert wanted[0].__name__ == "CropSizeError"
    assert "(10, 31) vs (40, 30)" in wanted[1]
    assert outcome(given, pixels((30, 40, 3)), 0) == wanted
    assert outcome(given.decide, (30, 40, 3), 0) == wanted


def test_of_two_transforms_that_refuse_an_image_the_first_is_heard():
    """Its pixels fail before the next draw does."""
    given = pipeline({"CoarseDropout": {"fill": [1, 2, 3], "p": 1}}, {"RandomCrop": {"height": 99, "width": 99}})
    with pytest.raises(ValueError, match="same number of channels"):
        given(pixels((20, 20, 1)), 0)


# -- compositions ------------------------------------------------------------------------------------------------------

NESTED = (
    (
        {"OneOf": {"transforms": [{"HorizontalFlip": {"p": 0.2}}, {"RandomGamma": {"p": 0.9}}, "NoOp"], "p": 0.7}},
        {"SomeOf": {"transforms": [{"Transpose": {}}, {"RGBShift": {}}, {"Affine": {"p": 1}}], "n": 2, "p": 0.9}},
    ),
    (
        {
            "OneOf": {
                "transforms": [
                    {"SomeOf": {"transforms": ["D4", "Solarize", "Posterize"], "n": 3, "replace": True, "p": 0.6}},
                    {"Sequential": {"transforms": ["RandomRotate90", {"Perspective": {"p": 0.4}}], "p": 0.3}},
                    {"Compose": {"transforms": ["ColorJitter", {"OneOf": ["Transpose", "ToGray"]}], "p": 0.8}},
                    {"RandomOrder": {"transforms": ["InvertImg", "HorizontalFlip"], "n": 2, "p": 0.4}},
                ],
                "p": 0.9,
            }
        },
        {"RandomResizedCrop": {"size": [5, 6], "p": 0.5}},
        {"HorizontalFlip": {"p": 0.5}},
    ),
    (
        {
            "RandomOrder": {
                "transforms": [
                    {"PadIfNeeded": {"min_height": 9, "min_width": 7, "position": "random"}},
                    {"Rotate": {"p": 0.7}},
                    {"RandomOrder": {"transforms": ["CoarseDropout", "Equalize"], "n": 1, "p": 0.5}},
                    {"Resize": {"height": 4, "width": 8, "p": 0.5}},
                ],
                "n": 3,
                "p": 0.8,
            }
        },
        {"RandomOrder": {"transforms": ["Transpose", "RandomRotate90"], "n": 4, "replace": True, "p": 1}},
        {"SomeOf": {"transforms": [{"Sequential": ["VerticalFlip"]}, "InvertImg"], "n": 1, "p": 0}},
    ),
    (
        {"Sequential": {"transforms": [{"OneOf": {"transforms": [{"OneOf": {"transforms": ["D4"]}}]}}], "p": 0.5}},
        {"SomeOf": {"transforms": ["Transpose", {"SmallestMaxSize": {"max_size": [5, 7]}}], "n": 1}},
        {"OneOf": {"transforms": [{"Sequential": {"transforms": ["ShiftScaleRotate"], "p": 0.1}}, "Sharpen"]}},
    ),
)


def recorded(given: Pipeline, image: np.ndarray, state: int) -> list:
    """What the transforms of an ordinary call draw, and what shape their results have."""
    steps = []

    def listen(transform):
        def apply_with_params(params, image):
            kept = comparable(params)
            data = type(transform).apply_with_params(transform, params, image=image)
            steps.append((transform, kept, data["image"].shape))
            return data

        return apply_with_params

    transforms = list(leaves(given._compose))
    for transform in transforms:
        transform.apply_with_params = listen(transform)
    ordinary(given, image, state)
    for transform in transforms:
        del transform.apply_with_params
    return steps


def leaves(composition):
    for member in composition.transforms:
        if hasattr(member, "transforms") and isinstance(member, A.BaseCompose):
            yield from leaves(member)
        else:
            yield member


@pytest.mark.filterwarnings("ignore")
def test_ten_thousand_draws_through_nested_compositions_are_those_of_the_ordinary_call():
    pairs = itertools.product((number.to_bytes(16, "big") for number in range(250)), range(10))
    pipelines = [pipeline(*transforms) for transforms in NESTED]
    image, seen = pixels((6, 9, 3)), set()
    for (digest, variant), given in itertools.product(pairs, pipelines):
        state = random_state(0, digest, variant)
        wanted = recorded(given, image, state)
        assert drawn(given, image.shape, state) == wanted
        seen |= {transform for transform, *_ in wanted}
    some = {transform for given in pipelines for transform in leaves(given._compose)}
    assert {type(transform).__name__ for transform in some - seen} == {"InvertImg", "VerticalFlip"}  # of p = 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("transforms", NESTED)
def test_nested_compositions_give_the_pixels_of_the_ordinary_call(transforms):
    given = pipeline(*transforms)
    for state, size in itertools.product(range(12), SIZES):
        image = pixels((*size, 1 + 2 * (state % 2)))
        wanted = outcome(ordinary, given, image, state)
        assert outcome(given, image, state) == wanted


@pytest.mark.parametrize("transforms", NESTED)
def test_a_decision_does_not_depend_on_those_before_it(transforms):
    given = pipeline(*transforms)
    first = [drawn(given, (30, 20, 3), state) for state in range(20)]
    for state in range(20):
        given.decide((5, 50, 1), state + 7)
        given(pixels((8, 8, 3)), state)
        assert drawn(given, (30, 20, 3), state) == first[state]
    assert len({str(steps) for steps in first}) > 10


def test_a_step_is_not_drawn_before_it_is_asked_for():
    given = pipeline({"HorizontalFlip": {"p": 1}}, {"RandomCrop": {"height": 99, "width": 99}})
    steps = decisions.draw(given._compose, (20, 20, 3))
    assert type(next(steps).transform).__name__ == "HorizontalFlip"
    with pytest.raises(Exception, match="exceeds image dimensions"):
        next(steps)


# -- other transforms --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("transforms", "named"),
    [
        (["ElasticTransform"], "ElasticTransform"),
        (["HorizontalFlip", {"Sequential": ["D4", {"OneOf": ["GaussNoise", "MotionBlur"]}]}], "GaussNoise"),
        ([{"CoarseDropout": {"fill": "random"}}], "CoarseDropout with fill='random'"),
        ([{"CoarseDropout": {"fill": "inpaint_ns"}}, "ElasticTransform"], "CoarseDropout with fill='inpaint_ns'"),
        (
            [{"SomeOf": [{"RandomBrightnessContrast": {"brightness_by_max": False}}]}],
            "RandomBrightnessContrast with brightness_by_max=False",
        ),
        ([{"ToGray": {"num_output_channels": 1}}], "ToGray with num_output_channels=1"),
        ([{"Equalize": {"mask_params": ["image"]}}], "Equalize with mask_params=['image']"),
    ],
)
def test_a_transform_that_needs_pixels_is_named_and_renders_as_before(transforms, named):
    given = pipeline(*transforms)
    assert given.other == named
    for state in range(20):
        image = pixels((20, 30, 3), state)
        assert outcome(given, image, state) == outcome(ordinary, given, image, state)


def test_an_equalize_with_a_mask_of_its_own_needs_pixels():
    assert first_other([A.Equalize(mask=lambda image: image[..., 0])]).startswith("Equalize with mask=")
    assert first_other([A.NoOp(), A.Equalize()]) is None


def test_a_pipeline_that_needs_pixels_decides_nothing_without_them():
    with pytest.raises(AssertionError, match="ElasticTransform"):
        pipeline("HorizontalFlip", "ElasticTransform").decide((8, 8, 3), 0)


# -- what would take more memory than a source may ---------------------------------------------------------------------

LARGE = (
    ({"SmallestMaxSize": {"max_size": 20}}, (4, 40), (20, 200)),
    ({"LongestMaxSize": {"max_size": 200}}, (4, 40), (20, 200)),
    ({"Resize": {"height": 70, "width": 60}}, (4, 40), (70, 60)),
    ({"PadIfNeeded": {"min_height": 90, "min_width": 50}}, (4, 40), (90, 50)),
    ({"Pad": {"padding": 9}}, (4, 40), (22, 58)),
    ({"CropAndPad": {"percent": [1, 1], "keep_size": True, "sample_independently": False}}, (4, 40), (12, 120)),
    ({"RandomScale": {"scale_limit": [4, 4]}}, (4, 40), (20, 200)),
    ({"RandomSizedCrop": {"min_max_height": [2, 3], "size": [80, 80]}}, (4, 40), (80, 80)),
    ({"RandomResizedCrop": {"size": [80, 80]}}, (4, 40), (80, 80)),
    ({"CenterCrop": {"height": 30, "width": 30, "pad_if_needed": True}}, (4, 400), (30, 400)),
    ({"RandomCrop": {"height": 30, "width": 30, "pad_if_needed": True}}, (400, 4), (400, 30)),
    ({"Affine": {"scale": [5, 5], "fit_output": True}}, (4, 40), (21, 201)),
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("transform", "hw", "made"), LARGE, ids=[next(iter(one[0])) for one in LARGE])
def test_what_a_transform_would_make_is_known_before_it_is_made(transform, hw, made):
    ((name, args),) = transform.items()
    given = resolve([{name: {**args, "p": 1}}], "transforms")[0]
    image, area = pixels((*hw, 3)), made[0] * made[1]

    np.testing.assert_array_equal(Pipeline(given, area)(image, 0), Pipeline(given)(image, 0))
    sizes = f"{made[0]}x{made[1]} = .* Mpx of its {hw[0]}x{hw[1]} .height x width."
    message = f"^render: {name} would make {sizes}, over the cap of .*max_meg"
    for nothing_before in ([], [{"GaussNoise": {}}]):  # by shape alone, and within the library's own call
        bounded = Pipeline(resolve(nothing_before, "transforms")[0] + given, area - 1)
        with pytest.raises(SourceError, match=message):
            bounded(image, 0)
        if bounded.other is None:
            with pytest.raises(SourceError, match=message):
                bounded.decide((*hw, 3), 0)


@pytest.mark.filterwarnings("ignore")
def test_a_perspective_is_made_in_full_before_it_is_brought_back_to_size():
    given = resolve([{"Perspective": {"scale": [1, 1.5], "fit_output": True, "keep_size": True, "p": 1}}], "t")[0]
    (step,) = Pipeline(given).decide((40, 60, 3), 1)
    assert step.params["max_height"] * step.params["max_width"] > 3000
    assert step.shape == (40, 60, 3)
    with pytest.raises(SourceError, match="Perspective would make"):
        Pipeline(given, 3000).decide((40, 60, 3), 1)


def test_an_image_may_stay_as_large_as_it_came():
    assert Pipeline([{"HorizontalFlip": {"p": 1}}], 10)(pixels((8, 8, 3)), 0).shape == (8, 8, 3)
