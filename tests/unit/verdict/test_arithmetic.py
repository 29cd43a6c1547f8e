"""Shares of waiting, break-even, and sizes."""

import doctest

import pytest

from preprocess import Recipe
from preprocess.verdict import arithmetic
from preprocess.verdict.arithmetic import break_even, expected_samples, step_s, tensor_bytes, tensors_in, waiting

RECIPE = Recipe.from_dict(
    {
        "size": [8, 16],
        "splits": {
            "train": {"folder": ".", "variants": 3, "transforms": [{"Resize": {"height": 8, "width": 16}}]},
            "val": {"from": "train", "fraction": 0.1, "transforms": [{"Resize": {"height": 8, "width": 16}}]},
            "test": {"from": "train", "fraction": 0.2, "transforms": [{"Resize": {"height": 8, "width": 16}}]},
        },
    }
)


def test_examples_hold():
    assert doctest.testmod(arithmetic).failed == 0


@pytest.mark.parametrize(("load_s", "overlapped", "share"), [(1, False, 0.25), (1, True, 0), (6, True, 0.5)])
def test_waiting_is_what_the_model_does_not_fill(load_s, overlapped, share):
    assert waiting(load_s, 3, overlapped=overlapped) == pytest.approx(share)


def test_a_step_that_overlaps_takes_as_long_as_the_slower_of_both():
    assert (step_s(2, 5, overlapped=True), step_s(5, 2, overlapped=True), step_s(5, 2, overlapped=False)) == (5, 5, 7)


@pytest.mark.parametrize(("build_s", "saved_s", "epochs"), [(10, 5, 2), (10.1, 5, 3), (0.1, 5, 1), (10, 0, None)])
def test_a_build_has_paid_after_whole_epochs_or_never(build_s, saved_s, epochs):
    assert break_even(build_s, saved_s) == epochs


def test_a_split_that_is_divided_by_content_is_expected_to_have_its_share():
    found = expected_samples(RECIPE, {"train": 1000})

    assert found == pytest.approx({"train": 700, "val": 100, "test": 200})
    assert tensors_in(RECIPE, found) == 3 * 700 + 100 + 200


def test_a_tensor_has_its_pixels_and_a_checksum():
    assert (tensor_bytes(RECIPE, "float16"), tensor_bytes(RECIPE, "uint8")) == (8 * 16 * 3 * 2 + 4, 8 * 16 * 3 + 4)


def test_a_gray_tensor_has_one_channel():
    gray = Recipe.from_dict({"size": 8, "channels": "gray"})

    assert tensor_bytes(gray, "uint8") == 8 * 8 + 4
