import numpy as np
import pytest

from preprocess.errors import SourceError
from preprocess.levels import apply_window, distinct, noted_window, signed, suggested, to_8_bits, window_note

EVERY = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)


def exact(value: int, low: int, high: int) -> int:
    """A value's level in whole numbers: rounded to the nearest, a half to the even one."""
    numerator, denominator = (min(max(value, low), high) - low) * 255, high - low
    level, rest = divmod(numerator, denominator)
    return level + (2 * rest > denominator or (2 * rest == denominator and level % 2))


@pytest.mark.parametrize("window", [(0, 4095), (0, 65535), (1000, 1100), (-5, 7), (0, 1020), (65534, 65535)])
def test_each_value_of_a_window_is_rounded_once_and_clipped(window):
    found = apply_window(EVERY, window)
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [exact(value, *window) for value in range(1 << 16)]


def test_signed_values_are_taken_as_such():
    values = EVERY.view(np.int16)
    found = apply_window(values, (-1000, 400))
    assert found.ravel().tolist() == [exact(value, -1000, 400) for value in values.ravel().tolist()]


def test_few_levels_of_many_values_are_refused_with_what_to_write():
    twelve = EVERY >> 4

    def convert(values, levels=None, declared=None):
        return to_8_bits(lambda: (values >> 8).astype(np.uint8), lambda: values, levels, lambda: declared)

    with pytest.raises(SourceError) as caught:
        convert(twelve + 7, declared=4095)  # which it does not keep to
    assert caught.value.stage == "decode"
    assert "keeps 17 levels of 4,096 values" in caught.value.reason
    assert "decode: {levels: [7, 4102]}" in caught.value.reason
    assert "decode: {levels: high-byte}" in caught.value.reason
    with pytest.raises(SourceError, match=r"levels: \[0, 4095\]"):
        convert(twelve[:, :200], declared=4095)
    assert convert(twelve, "high-byte")[1] == ("16-bit",)
    assert convert(twelve, (0, 4095))[1] == ("window [0, 4095]",)
    assert convert(twelve, (0, 4000))[1] == ("window [0, 4000]", "16-bit values beyond the window")


@pytest.mark.parametrize(("values", "refused"), [(255, False), (256, True)])
def test_the_least_number_of_values(values, refused):
    image = np.arange(values, dtype=np.uint16)
    if refused:
        with pytest.raises(SourceError):
            to_8_bits(lambda: (image >> 8).astype(np.uint8), lambda: image, None, lambda: None)
    else:
        assert to_8_bits(lambda: (image >> 8).astype(np.uint8), lambda: image, None, lambda: None)


@pytest.mark.parametrize(("levels", "refused"), [(63, True), (64, False)])
def test_the_least_number_of_levels(levels, refused):
    image = np.arange(levels * 256, dtype=np.uint16)
    if refused:
        with pytest.raises(SourceError, match=f"keeps {levels} levels"):
            to_8_bits(lambda: (image >> 8).astype(np.uint8), lambda: image, None, lambda: None)
    else:
        assert to_8_bits(lambda: (image >> 8).astype(np.uint8), lambda: image, None, lambda: None)


def test_values_that_matter_to_nobody_are_not_asked_for():
    def never():
        raise AssertionError

    rich = (EVERY >> 8).astype(np.uint8)
    for levels in (None, "high-byte"):
        assert to_8_bits(lambda: rich, never, levels, never)[0] is rich


def test_distinct_counts_every_pattern_once():
    assert distinct(EVERY) == 1 << 16
    assert distinct(EVERY.view(np.int16)[::2, ::3]) == 128 * 86
    assert distinct(np.array([[-1, 1, -1]], np.int8)) == 2


def test_a_suggestion_covers_all_images():
    low, high = np.array([5, 9], np.uint16), np.array([7, 30], np.uint16)
    assert suggested([low, high], None) == (5, 30)
    assert suggested([low, high], 31) == (0, 31)
    assert suggested([low, high], 29) == (5, 30)
    assert suggested([low, high], 65535) == (5, 30)
    assert suggested([np.array([-3, 9], np.int16)], 31) == (-3, 9)
    assert suggested([np.array([4, 4], np.uint16)], None) == (4, 5)


def test_values_below_zero_are_refused_with_their_range():
    assert "levels: [-1000, 3000]" in signed(np.array([-1000, 3000], np.int16)).reason
    assert "convert it" in signed(np.array([-1, 3], np.int8)).reason


def test_a_note_of_a_window_is_recognised():
    assert noted_window(window_note((-5, 4095))) == "[-5, 4095]"
    assert noted_window("16-bit") is None
