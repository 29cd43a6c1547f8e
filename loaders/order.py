"""The order of an epoch: every sample once, shuffled over shards and inside a window of them."""

import numpy as np


def epoch_order(shards: np.ndarray, window_shards: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of the samples that reads the shards one after the other, a few of them mixed at a time.

    The shards are put into a random order; a sample of the r-th of them is drawn a place in r … r + window. So at any
    moment samples come from `window_shards` neighbours, in random order, and new shards come in at a steady pace.

    Parameters
    ----------
    shards : int64 (n,), the shard that each sample is in
    window_shards : 1 or more
    seed, epoch : choose the permutation; the same for every process, whatever the versions of its libraries

    Returns
    -------
    int64 (n,)
    """
    # The raw numbers of a bit generator are promised to stay as they are, those of NumPy's distributions are not.
    draws = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
    present, which = np.unique(shards, return_inverse=True)
    rank = np.empty(len(present), np.int64)
    rank[np.argsort(draws.random_raw(len(present)), kind="stable")] = np.arange(len(present))
    fraction = (draws.random_raw(len(shards)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.argsort(rank[which] + fraction * min(window_shards, len(present)), kind="stable")


def share_of(order: np.ndarray, start: int, rank: int, ranks: int, drop_last: bool) -> np.ndarray:
    """What is left of an epoch's order from `start` on, for one rank: every `ranks`-th, as many for each rank.

    Parameters
    ----------
    drop_last : leave the tail out that does not fill all ranks; otherwise samples from the front of the order fill up
    """
    rest = order[start:]
    count = share_length(len(order), start, ranks, drop_last)
    if not drop_last and count * ranks > len(rest):
        rest = np.concatenate([rest, np.resize(order, count * ranks - len(rest))])
    return rest[rank : count * ranks : ranks]


def share_length(samples: int, start: int, ranks: int, drop_last: bool) -> int:
    """Number of samples that each rank gets."""
    left = samples - start
    return left // ranks if drop_last else -(-left // ranks)
