"""The order of an epoch: a permutation, the same everywhere, shuffled over shards and inside a window."""

import numpy as np
import pytest

from loaders.order import epoch_order, share_length, share_of

SHARDS = np.repeat(np.arange(40), 25)


@pytest.mark.parametrize("window", [1, 3, 16, 1000])
@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_every_sample_once(window, count):
    order = epoch_order(SHARDS[:count], window, 0, 0)

    assert sorted(order.tolist()) == list(range(count))


def test_seed_and_epoch_choose_the_order():
    orders = {(s, e): tuple(epoch_order(SHARDS, 4, s, e)) for s in range(3) for e in range(3)}

    assert len(set(orders.values())) == 9
    assert tuple(epoch_order(SHARDS, 4, 1, 2)) == orders[1, 2]


def test_the_order_is_the_same_for_ever():
    """A run that is resumed with newer libraries goes on with the same samples."""
    assert epoch_order(np.arange(12) // 3, 2, seed=5, epoch=3).tolist() == [4, 5, 3, 9, 7, 8, 10, 11, 6, 0, 1, 2]


def test_at_any_time_samples_come_from_a_window_of_shards():
    order = epoch_order(SHARDS, 4, 0, 0)
    first, last = np.zeros(40, int), np.zeros(40, int)
    for shard in range(40):
        places = np.flatnonzero(SHARDS[order] == shard)
        first[shard], last[shard] = places[0], places[-1]

    open_shards = [int(((first <= p) & (last >= p)).sum()) for p in range(1000)]

    assert max(open_shards) <= 6
    assert np.mean(open_shards[200:800]) > 3
    assert len(set(SHARDS[order[300:400]])) >= 4  # mixed, not one after the other


def test_a_window_of_all_shards_mixes_everything():
    order = epoch_order(SHARDS, 1000, 0, 0)

    half = SHARDS[order[250:750]]
    assert len(set(half.tolist())) == 40


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("start", [0, 1, 10, 22, 23])
def test_ranks_share_what_is_left(ranks, start, drop_last):
    order = np.random.default_rng(0).permutation(23)
    shares = [share_of(order, start, rank, ranks, drop_last) for rank in range(ranks)]

    assert {len(share) for share in shares} == {share_length(23, start, ranks, drop_last)}
    together = np.stack(shares, axis=1).reshape(-1)  # step by step, all ranks
    left = order[start:]
    if drop_last:
        assert together.tolist() == left[: len(left) // ranks * ranks].tolist()
    else:
        assert together[: len(left)].tolist() == left.tolist()
        assert len(together) - len(left) < ranks
        assert together[len(left) :].tolist() == order[: len(together) - len(left)].tolist()


def test_more_ranks_than_samples():
    order = np.array([2, 0, 1])

    assert [share_of(order, 0, rank, 8, False).tolist() for rank in range(8)] == [
        [2],
        [0],
        [1],
        [2],
        [0],
        [1],
        [2],
        [0],
    ]
    assert [share_of(order, 0, rank, 8, True).tolist() for rank in range(8)] == [[]] * 8
