"""A dataset's mean and std out of the integer sums that are kept of every stored tensor; reads no pixel."""

from collections.abc import Mapping

import numpy as np

from cache_store.manifest import SplitTable
from cache_store.normalise import mean_and_std
from preprocess.rendering import Statistics

NOTABLE_DRIFT = 0.01
"""In standard deviations; a network that normalises its activations does not feel less."""


def statistics_split(counts: Mapping[str, int]) -> str:
    """The split whose images give the dataset's statistics: `train` if it has any, else the first that has.

    Parameters
    ----------
    counts : split -> its number of images, in the order of the recipe; not all 0
    """
    first = sorted(counts, key=lambda name: name != "train")
    return next(name for name in first if counts[name])


def exact_statistics(sums: np.ndarray, sums_of_squares: np.ndarray, pixels: int) -> tuple[list[float], list[float]]:
    """mean and std in 0..1 of all stored tensors together, exact but for one rounding.

    Parameters
    ----------
    sums, sums_of_squares : uint64 (…, C), of each tensor
    pixels : of a tensor, a channel
    """
    channels = sums.shape[-1]
    return mean_and_std(
        _total(sums.reshape(-1, channels)),
        _total(sums_of_squares.reshape(-1, channels)),
        sums.size // channels * pixels,
    )


def _total(values: np.ndarray) -> list[int]:
    """Sum of each column as a Python integer: 64 bits may not hold it, two halves of 32 do."""
    low, high = values & np.uint64(0xFFFFFFFF), values >> np.uint64(32)
    halves = zip(low.sum(axis=0).tolist(), high.sum(axis=0).tolist(), strict=True)
    return [low_sum + (high_sum << 32) for low_sum, high_sum in halves]


def drift(pinned: Statistics, now: Statistics) -> float:
    """How far pinned statistics are from those of the images as they are, in pinned standard deviations: the larger of
    the shift of a channel's mean and the change of its std."""
    (mean, std), (mean_now, std_now) = pinned, now
    return max(max(abs(m - n), abs(s - t)) / s for m, s, n, t in zip(mean, std, mean_now, std_now, strict=True))


def current_statistics(splits: Mapping[str, SplitTable], pixels: int) -> Statistics | None:
    """Those of the images that a snapshot has; None if it has none."""
    counts = {name: len(table) for name, table in splits.items()}
    if not any(counts.values()):
        return None
    table = splits[statistics_split(counts)]
    mean, std = exact_statistics(table["sum"], table["sumsq"], pixels)
    return tuple(mean), tuple(std)


def drift_in_words(pinned: Statistics, now: Statistics) -> str:
    """For a note; empty below `NOTABLE_DRIFT`."""
    amount = drift(pinned, now)
    if amount < NOTABLE_DRIFT:
        return ""
    values = "], [".join(", ".join(f"{value:.4f}" for value in one) for one in now)
    return (
        f"the pinned mean and std are {amount:.2g} standard deviations off those of the images as they are now, "
        f"[{values}]; --refresh-stats takes these, without decoding an image"
    )
