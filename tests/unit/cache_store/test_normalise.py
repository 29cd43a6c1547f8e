import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_store.normalise import denormalise, inverse_table, mean_and_std, normalisation_table, normalise

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def statistics(seed):
    random = np.random.default_rng(seed)
    return random.uniform(0.05, 0.95, 3).tolist(), random.uniform(0.05, 0.6, 3).tolist()


RANDOM = [statistics(seed) for seed in range(5)]


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "std"), [IMAGENET, ((0.0,), (1.0,)), ((0.5,), (0.5,)), *RANDOM])
def test_table_is_computed_in_float64_and_rounded_once(mean, std):
    table = normalisation_table(mean, std)

    assert table.dtype == np.float16
    assert table.shape == (len(mean), 256)
    for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
        for level in range(256):
            assert table[channel, level] == np.float16((level / 255 - m) / s)


def test_no_table_is_rounded_twice():
    random = np.random.default_rng(0)
    for mean, std in zip(
        random.uniform(0.05, 0.95, 200).tolist(), random.uniform(0.05, 0.6, 200).tolist(), strict=True
    ):
        (row,) = normalisation_table([mean], [std])
        assert row.tolist() == [float(np.float16((level / 255 - mean) / std)) for level in range(256)]


@pytest.mark.parametrize(("mean", "std"), [IMAGENET, *RANDOM])
def test_every_level_has_a_value_of_its_own(mean, std):
    for row in normalisation_table(mean, std):
        assert len(set(row.tolist())) == 256


def test_statistics_in_0_to_255_are_refused_with_a_hint():
    with pytest.raises(ValueError) as caught:
        normalisation_table((0.4, 123.675), (0.2, 58.4))

    assert str(caught.value).startswith("channel 1: mean 123.675 with std 58.4 leaves ")
    assert str(caught.value).endswith("mean and std are meant in 0..1: divide them by 255")


@pytest.mark.parametrize(
    ("mean", "std", "found"),
    [
        (0.5, 0.0, "not finite"),
        (0.5, math.nan, "not finite"),
        (math.nan, 0.5, "not finite"),
        (math.inf, 0.5, "not finite"),
        (0.5, math.inf, "leaves 1 of the 256 levels"),
        (0.5, 1e-9, "not finite"),  # beyond float16
        (0.5, 1e12, "levels apart"),
        (4.5, 1.1, "leaves 254 of the 256 levels apart"),
        (0.5, -0.25, "a std above 0 expected, found -0.25"),
    ],
)
def test_unusable_statistics_are_refused(mean, std, found):
    with pytest.raises(ValueError, match=found):
        normalisation_table((0.5, mean), (0.5, std))


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.5, 0.5)), ((0.5, 0.5), (0.5,)), ((0.5, 0.5, 0.5), (0.5,))])
def test_one_mean_and_one_std_a_channel(mean, std):
    with pytest.raises(ValueError, match="one mean and one std a channel"):
        normalisation_table(mean, std)


# -- there and back ----------------------------------------------------------------------------------------------------


def test_pixels_become_the_values_of_their_channel():
    image = np.array([[[0, 255]], [[7, 7]], [[128, 1]]], np.uint8)
    table = normalisation_table(*IMAGENET)

    stored = normalise(image, table)

    assert stored.dtype == np.float16
    assert stored.flags.c_contiguous
    assert stored.tolist() == [
        [[table[0, 0], table[0, 255]]],
        [[table[1, 7], table[1, 7]]],
        [[table[2, 128], table[2, 1]]],
    ]


@pytest.mark.parametrize(("mean", "std"), [IMAGENET, *RANDOM])
def test_normalised_pixels_come_back_bit_for_bit(mean, std):
    table = normalisation_table(mean, std)
    image = np.stack([np.roll(np.arange(256, dtype=np.uint8), shift).reshape(16, 16) for shift in range(3)])

    stored = normalise(image, table)

    assert np.array_equal(denormalise(stored, table), image)
    assert normalise(denormalise(stored, table), table).tobytes() == stored.tobytes()


def test_views_are_read_as_they_are():
    wide = np.random.default_rng(0).integers(0, 256, (3, 6, 10), dtype=np.uint8)
    table = normalisation_table(*IMAGENET)

    stored = normalise(wide[:, ::2, 1:9], table)

    assert np.array_equal(denormalise(stored, table), wide[:, ::2, 1:9])


@pytest.mark.parametrize("foreign", [0.123, math.nan, math.inf, -0.0])
def test_value_that_is_not_of_the_table_is_refused(foreign):
    table = normalisation_table((0.0, 0.0), (1.0, 1.0))
    stored = normalise(np.zeros((2, 2, 2), np.uint8), table)
    stored[1, 0, 1] = foreign

    with pytest.raises(ValueError, match="channel 1 holds values"):
        denormalise(stored, table)


def test_values_of_another_channel_are_refused():
    table = normalisation_table(*IMAGENET)
    stored = normalise(np.full((3, 1, 1), 9, np.uint8), table)

    with pytest.raises(ValueError, match="channel 0"):
        denormalise(stored[::-1], table)


def test_inverse_table_knows_256_of_65536_values():
    table = normalisation_table(*IMAGENET)

    inverse = inverse_table(table)

    assert inverse.shape == (3, 65536)
    assert ((inverse >= 0).sum(axis=1) == 256).all()
    for channel in range(3):
        assert inverse[channel, table[channel].view(np.uint16)].tolist() == list(range(256))


# -- exact statistics --------------------------------------------------------------------------------------------------


def sums(pixels):
    """Sums of uint8 (channel, pixel)."""
    wide = pixels.astype(np.int64)
    return wide.sum(axis=1), (wide**2).sum(axis=1)


@pytest.mark.parametrize("seed", range(5))
def test_mean_and_std_agree_with_numpy(seed):
    random = np.random.default_rng(seed)
    low, high = sorted(random.choice(257, 2, replace=False))
    pixels = random.integers(low, high, (3, random.integers(2, 5000)), dtype=np.uint8)

    mean, std = mean_and_std(*sums(pixels), pixels.shape[1])

    assert mean == pytest.approx((pixels / 255.0).mean(axis=1), rel=1e-12)
    assert std == pytest.approx((pixels / 255.0).std(axis=1), rel=1e-12, abs=1e-12)


@given(st.lists(st.integers(0, 255), min_size=1, max_size=50))
def test_mean_and_std_are_the_rationals_rounded(levels):
    (mean,), (std,) = mean_and_std([sum(levels)], [sum(v * v for v in levels)], len(levels))

    exact = Fraction(sum(levels), 255 * len(levels))
    variance = sum((Fraction(v, 255) - exact) ** 2 for v in levels) / len(levels)
    assert mean == float(exact)
    assert std == math.sqrt(float(variance))


@pytest.mark.parametrize("level", [0, 1, 77, 255])
@pytest.mark.parametrize("pixels", [1, 3, 10**6 + 3, 10**13])
def test_constant_channel_has_deviation_zero_exactly(level, pixels):
    assert mean_and_std([level * pixels], [level**2 * pixels], pixels) == ([level / 255], [0.0])


@pytest.mark.parametrize("kind", [int, np.int64, np.uint64])
def test_totals_of_a_huge_dataset_lose_nothing(kind):
    # 8e12 pixels, half 100 and half 101: a variance of 1/4 level, far below what float64 sums could resolve.
    half = 4 * 10**12
    total, squares = half * (100 + 101), half * (100**2 + 101**2)
    assert total > 8e14

    mean, std = mean_and_std([kind(total)], [kind(squares)], kind(2 * half))

    assert mean == [201 / 510]
    assert std == [0.5 / 255]


def test_sums_of_parts_give_the_statistics_of_the_whole():
    pixels = np.random.default_rng(3).integers(0, 256, (2, 1000), dtype=np.uint8)
    parts = [sums(pixels[:, at : at + 77]) for at in range(0, 1000, 77)]

    together = mean_and_std(sum(p[0] for p in parts), sum(p[1] for p in parts), 1000)

    assert together == mean_and_std(*sums(pixels), 1000)
