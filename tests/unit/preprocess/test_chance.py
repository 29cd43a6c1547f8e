"""A split whose transforms are settled gives the same pixels whatever its random state is."""

import numpy as np
import pytest

from preprocess.augment import Pipeline, resolve
from preprocess.chance import _SETTLED, draws
from tests.helpers import picture

ARGUMENTS = {
    "CenterCrop": {"height": 8, "width": 9},
    "Crop": {"x_min": 1, "y_min": 2, "x_max": 9, "y_max": 11},
    "LongestMaxSize": {"max_size": 20},
    "PadIfNeeded": {"min_height": 60, "min_width": 70},
    "Resize": {"height": 8, "width": 9},
    "SmallestMaxSize": {"max_size": 20},
}


def canonical(*transforms):
    return resolve(list(transforms), "here")[0]


@pytest.mark.parametrize("name", sorted(_SETTLED))
def test_what_is_settled_ignores_the_random_state(name):
    transforms = canonical({name: ARGUMENTS.get(name, {}) | {"p": 1}})
    pipeline = Pipeline(transforms)
    image = picture(0, 40, 50)

    assert not draws(transforms)
    first = pipeline(image, 0)
    for state in range(1, 30):
        np.testing.assert_array_equal(pipeline(image, state), first)


@pytest.mark.parametrize(
    "transforms",
    [
        [{"HorizontalFlip": {"p": 0.5}}],
        ["GaussianBlur"],
        [{"RandomCrop": {"height": 4, "width": 4}}],
        [{"SmallestMaxSize": {"max_size": [20, 30]}}],
        [{"PadIfNeeded": {"min_height": 60, "min_width": 70, "position": "random"}}],
        [{"OneOf": [{"HorizontalFlip": {"p": 1}}, {"VerticalFlip": {"p": 1}}]}],
        [{"Sequential": {"transforms": [{"HorizontalFlip": {"p": 1}}], "p": 0.5}}],
        [{"Sequential": {"transforms": [{"HorizontalFlip": {"p": 0.5}}], "p": 1}}],
    ],
    ids=lambda transforms: next(iter(transforms[0])) if isinstance(transforms[0], dict) else transforms[0],
)
def test_what_draws_is_known(transforms):
    assert draws(canonical(*transforms))


@pytest.mark.parametrize(
    "transforms",
    [
        [],
        [{"GaussianBlur": {"p": 0}}],
        [{"Sequential": {"transforms": [{"Resize": {"height": 4, "width": 4}}], "p": 1}}],
        [{"Sequential": {"transforms": [{"HorizontalFlip": {"p": 0.5}}], "p": 0}}],
    ],
)
def test_what_never_draws_is_known(transforms):
    assert not draws(canonical(*transforms))
