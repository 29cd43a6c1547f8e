import re

import numpy as np
import pytest

from preprocess.errors import SourceError
from preprocess.levels import (
    BEYOND,
    BY_MAXIMUM,
    FEW,
    FEW_IN_WINDOW,
    LEAST_LEVELS,
    UPPER,
    apply_window,
    distinct,
    noted_window,
    signed,
    spread_of,
    suggested,
    to_8_bits,
    window_note,
)

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


def convert(values, levels=None, declared=None):
    return to_8_bits(lambda: (values >> 8).astype(np.uint8), lambda: values, levels, lambda: declared)


def spread(*values, dtype=np.uint16):
    return spread_of(np.array(values, dtype))


def refusal(values, declared=None, kind="16-bit"):
    with pytest.raises(SourceError) as caught:
        to_8_bits(lambda: (values >> 8).astype(np.uint8), lambda: values, None, lambda: declared, kind)
    return caught.value.reason


def advised(reason):
    low, high = map(int, re.search(r"levels: \[(-?\d+), (-?\d+)\]", reason).groups())
    return low, high


def test_few_levels_of_many_values_are_refused_with_what_to_write():
    twelve = EVERY >> 4

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
    def window(*images, declared=None):
        return suggested(images, declared).window

    low, high = spread(500, 900), spread(700, 3000)
    assert window(low, high) == (500, 3000)
    assert window(low, high, declared=3100) == (0, 3100)
    assert window(low, high, declared=2900) == (500, 3000)
    assert window(low, high, declared=65535) == (500, 3000)
    assert window(spread(-3, 9, dtype=np.int16), declared=31) == (-3, 9)
    assert window(spread(400, 400)) == (400, 401)
    assert window(spread(65535)) == (65534, 65535)
    assert window(spread(3, 200), spread(0, 9)) == (0, 255), "values of 8 bits are kept as they are"


HOT = np.append(EVERY.ravel()[:4096], np.uint16(65535))


@pytest.mark.parametrize(
    ("values", "declared", "expected"),
    [
        (HOT, None, (0, 4100)),
        (EVERY[:16], 65534, (0, 4095)),
        (EVERY[:16], 32767, (0, 4095)),
        (np.append(EVERY[:16], np.full(30, 50_000, np.uint16)), None, (0, 4100)),
        (np.append(EVERY[:16] + np.uint16(61_000), np.zeros(30, np.uint16)), None, (61_000, 65_100)),
    ],
)
def test_the_window_that_a_refusal_names_keeps_enough(values, declared, expected):
    reason = refusal(values, declared)
    assert advised(reason) == expected
    assert distinct(apply_window(values, expected)) >= LEAST_LEVELS
    beyond = int(values.min()) < expected[0] or int(values.max()) > expected[1]
    assert ("leaves out the lowest and the highest" in reason) == beyond


def test_where_no_window_helps_a_refusal_says_so():
    halves = np.append(EVERY.ravel()[:150], EVERY.ravel()[-150:])
    reason = refusal(halves)
    assert "keeps 2 levels of 300 values; no one window of 0 to 65535 keeps 64 either" in reason
    assert "levels: [lo, hi]" in reason
    white = np.append(EVERY.ravel()[:300], np.full(1 << 17, 65535, np.uint16))
    assert "no one window" in refusal(white)


def test_a_refusal_says_what_would_be_kept():
    assert "9 to 15 bits, of which the upper 8 keep 16 levels" in refusal(EVERY[:16], kind=UPPER)
    assert "and scaled to 0..255 it keeps 16 levels" in refusal(EVERY[:16], kind=BY_MAXIMUM)
    assert to_8_bits(lambda: (EVERY >> 8).astype(np.uint8), lambda: EVERY, None, lambda: None, UPPER)[1] == (UPPER,)


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (np.arange(241), f"{FEW}, window [0, 255]"),
        (np.arange(16), f"{FEW}, window [0, 255]"),
        (np.arange(2), f"{FEW}, window [0, 255]"),
        (np.array([0, 1, 2, 256]), "16-bit"),
        (np.array([7, 7]), "16-bit"),
        (np.arange(200) * 128, "16-bit"),
        (np.arange(200) * 2 + 1000, f"{FEW}, window [768, 1535]"),
        (np.append(np.arange(100), np.arange(100) + 65400), FEW),
        (np.append(np.tile(np.arange(200), 10), 65535), f"{FEW}, window [0, 255]"),
    ],
)
def test_few_levels_of_few_values_are_taken_but_told(values, note):
    values = values.astype(np.uint16)
    image, notes = convert(values)
    assert np.array_equal(image, values >> 8)
    assert notes == (note,)
    assert convert(values, "high-byte")[1] == ("16-bit",), "the recipe says so"


def test_a_window_that_keeps_few_levels_of_many_values_is_told():
    assert convert(EVERY[:16], (0, 65535))[1] == ("window [0, 65535]", FEW_IN_WINDOW)
    assert convert(HOT, (0, 40_000))[1] == ("window [0, 40000]", FEW_IN_WINDOW, BEYOND)
    assert convert(EVERY[:16], (4000, 4090))[1] == ("window [4000, 4090]", BEYOND), "91 values in it keep 91 levels"
    assert convert(EVERY[:1, :255], (0, 65535))[1] == ("window [0, 65535]",), "as many as are not refused"
    assert convert(EVERY.view(np.int16)[-16:], (-32768, 32767))[1][1:] == (FEW_IN_WINDOW,)


def test_values_below_zero_are_refused_with_their_range():
    assert "levels: [-1000, 3000]" in signed(np.array([-1000, 3000], np.int16)).reason
    assert "convert it" in signed(np.array([-1, 3], np.int8)).reason


def test_a_note_of_a_window_is_recognised():
    assert noted_window(window_note((-5, 4095))) == "[-5, 4095]"
    assert noted_window("16-bit") is None
