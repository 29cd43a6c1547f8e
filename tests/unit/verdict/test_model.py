"""A training step is timed with tensors of any shape."""

import pytest

from preprocess.verdict.model import time_model


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 24)])
def test_a_step_is_timed(shape):
    found = time_model(shape, 1, 4, 0.01)

    assert found["images_per_s"] > 1
    assert found["model"].startswith("resnet18")
