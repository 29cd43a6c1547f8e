"""uint8 <-> float16 by table, and exact statistics out of integer sums. Pure arithmetic, no I/O."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

LEVELS = 256


def normalisation_table(mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """What each 8-bit level becomes: (v / 255 - mean) / std, computed in float64 and rounded once.

    Parameters
    ----------
    mean, std : one value a channel, in 0..1

    Returns
    -------
    float16 (C, 256)

    Raises
    ------
    ValueError : a value is not finite, std is not above 0, or two levels of a channel get the same value (nothing
        could tell them apart any more); the message gives the channel and what is likely wrong
    """
    levels = np.arange(LEVELS, dtype=np.float64) / 255.0
    mean64, std64 = np.asarray(mean, np.float64), np.asarray(std, np.float64)
    if mean64.ndim != 1 or mean64.shape != std64.shape:
        raise ValueError(f"one mean and one std a channel expected, found {mean64.shape} and {std64.shape}")
    with np.errstate(all="ignore"):
        table = ((levels[None, :] - mean64[:, None]) / std64[:, None]).astype(np.float16)
    for channel, row in enumerate(table):
        if std64[channel] < 0:
            raise ValueError(f"channel {channel}: a std above 0 expected, found {std64[channel]:g}")
        distinct = len(np.unique(row)) if np.isfinite(row).all() else 0
        if distinct != LEVELS:
            found = f"leaves {distinct} of the 256 levels apart" if distinct else "gives values that are not finite"
            scale = max(abs(float(mean64[channel])), abs(float(std64[channel])))
            hint = (
                "mean and std are meant in 0..1: divide them by 255"
                if scale > 1
                else "mean and std are meant in 0..1, and std well above 0"
            )
            raise ValueError(
                f"channel {channel}: mean {mean64[channel]:g} with std {std64[channel]:g} {found} in float16; {hint}"
            )
    return table


def normalise(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Scale 8-bit pixels to zero mean and unit variance in half precision.

    Parameters
    ----------
    image : uint8 (C, H, W)
    table : float16 (C, 256), from `normalisation_table`

    Returns
    -------
    float16 (C, H, W), C-contiguous, a copy
    """
    out = np.empty(image.shape, np.float16)
    for channel, plane in enumerate(image):
        np.take(table[channel], plane, out=out[channel], mode="clip")
    return out


def denormalise(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The 8-bit pixels that `normalise` made `image` from; exact, as every level has a value of its own.

    Parameters
    ----------
    image : float16 (C, H, W)
    table : float16 (C, 256)

    Returns
    -------
    uint8 (C, H, W), a copy

    Raises
    ------
    ValueError : a value is not in the table
    """
    out = np.empty(image.shape, np.uint8)
    for channel, (plane, inverse) in enumerate(zip(image, inverse_table(table), strict=True)):
        levels = np.take(inverse, plane.view(np.uint16))
        if (levels < 0).any():
            raise ValueError(f"channel {channel} holds values that the normalisation table lacks")
        out[channel] = levels
    return out


def inverse_table(table: np.ndarray) -> np.ndarray:
    """int16 (C, 65536): the level of each float16 bit pattern, -1 for one that the table lacks."""
    inverse = np.full((len(table), 1 << 16), -1, np.int16)
    for channel, row in enumerate(table):
        inverse[channel, row.view(np.uint16)] = np.arange(LEVELS, dtype=np.int16)
    return inverse


def mean_and_std(total: Sequence[int], total_of_squares: Sequence[int], pixels: int) -> tuple[list[float], list[float]]:
    """Mean and (population) standard deviation, in 0..1, of 8-bit pixels given by their exact sums.

    Each is the exact rational number, rounded once (the deviation: a second time by the square root).

    Parameters
    ----------
    total, total_of_squares : one integer a channel, over all pixels
    pixels : number of pixels a channel, at least 1
    """
    mean, std, pixels = [], [], int(pixels)  # a NumPy integer would overflow
    for s, q in zip(total, total_of_squares, strict=True):
        mean.append(float(Fraction(int(s), 255 * pixels)))
        variance = Fraction(pixels * int(q) - int(s) ** 2, (255 * pixels) ** 2)
        std.append(math.sqrt(variance))
    return mean, std
