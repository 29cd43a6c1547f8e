"""ShardShuffleSampler: all samples, every rank's share, and going on at the exact next sample."""

import contextlib
import copy
import io
import json
import pickle
import socket
import sys
import types
import warnings
import weakref
from itertools import islice

import numpy as np
import pytest
import torch
import torch.distributed
import torch.multiprocessing
from torch.utils.data import BatchSampler, DataLoader, Subset
from torch.utils.data.distributed import DistributedSampler

from cache_store.errors import UsageError
from loaders import CachedDataset, ShardShuffleSampler, to_device
from preprocess import build
from tests.helpers import TINY, image_folder, write_image

COUNT = 60


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """60 images of 4 classes in shards of 4; two variants of each."""
    root = tmp_path_factory.mktemp("sampler")
    image_folder(root / "photos", classes=("a", "b", "c", "d"), count=COUNT // 4)
    crops = [{"RandomCrop": {"height": 8, "width": 8}}]
    recipe = TINY | {"splits": {"train": {"folder": ".", "variants": 2, "transforms": crops}}}
    build(root / "photos", root / "cache", recipe, workers=1, shard_mib=4 * 384 / (1 << 20))
    return root / "cache"


class Numbered(CachedDataset):
    """Gives each sample's number as its label."""

    def __getitems__(self, indices):
        batch = super().__getitems__(indices)
        batch.labels = torch.as_tensor(indices)
        return batch

    def numbers(self):
        """A dataset that takes and gives lists of numbers, and knows nothing of images."""
        return Echo(len(self))


class Echo(torch.utils.data.Dataset):
    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index


@pytest.fixture
def dataset(cache):
    with Numbered(cache) as opened:
        yield opened


def numbers(batches):
    return [int(n) for _, labels in batches for n in labels]


def order_of(dataset, epoch, **arguments):
    """What a single rank sees."""
    sampler = ShardShuffleSampler(dataset, **arguments)
    sampler.set_epoch(epoch)
    return list(sampler)


# -- the order ---------------------------------------------------------------------------------------------------------


def test_every_sample_once_an_epoch_in_another_order(dataset):
    first, second = order_of(dataset, 0), order_of(dataset, 1)

    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second
    assert order_of(dataset, 0) == first
    assert order_of(dataset, 0, seed=1) != first
    assert order_of(dataset, 3, shuffle=False) == list(range(COUNT))


def test_without_set_epoch_the_order_repeats_as_torchs_does(dataset):
    sampler = ShardShuffleSampler(dataset)

    assert list(sampler) == list(sampler)
    assert dataset.epoch is None


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("batch_size", [7, 64])
def test_a_loader_gets_the_samplers_order(dataset, workers, batch_size):
    sampler = ShardShuffleSampler(dataset, seed=3)
    loader = DataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=workers)

    assert numbers(loader) == list(sampler)
    assert len(loader) == -(-COUNT // batch_size)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
def test_ranks_together_see_the_order_of_one(dataset, ranks, drop_last):
    samplers = [ShardShuffleSampler(dataset, ranks, rank, drop_last=drop_last) for rank in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(5)
    shares = [list(sampler) for sampler in samplers]

    assert {len(share) for share in shares} == {len(samplers[0])}
    together = [index for step in zip(*shares, strict=True) for index in step]
    alone = order_of(dataset, 5)
    assert together == (alone[: COUNT // ranks * ranks] if drop_last else (alone + alone)[: -(-COUNT // ranks) * ranks])


def test_the_epoch_reaches_the_dataset(dataset):
    sampler = ShardShuffleSampler(dataset)
    sampler.set_epoch(3)

    assert dataset.epoch == 3


def test_it_is_a_distributed_sampler_to_who_asks(dataset):
    """Lightning wraps every other kind in one of its own, which would deal the samples out twice."""
    sampler = ShardShuffleSampler(dataset, 2, 1)

    assert isinstance(sampler, DistributedSampler)
    assert (sampler.num_replicas, sampler.rank, sampler.drop_last, sampler.shuffle, sampler.epoch) == (
        2,
        1,
        False,
        True,
        0,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed: an integer of 0 or more"),
        ({"window_shards": 0}, "window_shards: an integer of 1 or more"),
        ({"num_replicas": 2, "rank": 2}, "a rank of 0 to 1 expected, found 2"),
        ({"num_replicas": 2, "rank": -1}, "found -1"),
        ({"num_replicas": 2.0, "rank": 0}, "num_replicas: an integer expected, found 2.0"),
        ({"seed": 1.5}, "seed: an integer of 0 or more expected, found 1.5"),
        ({"seed": None}, "seed: an integer of 0 or more expected, found None"),
    ],
)
def test_what_cannot_be_meant_is_refused(dataset, arguments, message):
    with pytest.raises(UsageError, match=message):
        ShardShuffleSampler(dataset, **arguments)


def test_a_subclass_with_another_length_is_refused(cache, dataset):
    class Fewer(CachedDataset):
        def __len__(self):
            return 5

    with pytest.raises(UsageError, match=r"the 60 samples .*, and Fewer has 5 \(its __len__\); use shuffle=True"):
        ShardShuffleSampler(Fewer(cache))


def test_only_our_dataset_has_shards(dataset):
    with pytest.raises(UsageError, match="a CachedDataset expected, found Subset"):
        ShardShuffleSampler(Subset(dataset, [0]))


# -- what a sampler keeps alive ---------------------------------------------------------------------------------------


def in_a_function(loader, sampler):
    alive, former = [], None
    for epoch in range(3):
        sampler.set_epoch(epoch)
        for images, _ in loader:
            loss = images.float().mean()
        if former is not None:
            alive += [each() is not None for each in former]
        former = weakref.ref(loss), weakref.ref(images)
    return alive


class Trainer:
    def __init__(self, loader, sampler):
        self.loader, self.sampler = loader, sampler

    def fit(self):
        alive, former = [], None
        for epoch in range(3):
            self.sampler.set_epoch(epoch)
            for images, _ in self.loader:
                loss = images.float().mean()
            len(self.loader)
            if former is not None:
                alive += [each() is not None for each in former]
            former = weakref.ref(loss), weakref.ref(images)
        return alive


@pytest.mark.parametrize("train", [in_a_function, lambda *arguments: Trainer(*arguments).fit()])
def test_batches_and_losses_of_a_training_loop_are_not_kept(dataset, train):
    sampler = ShardShuffleSampler(dataset)

    assert train(DataLoader(dataset, batch_size=30, sampler=sampler), sampler) == [False] * 4


def test_a_state_is_plain_numbers(dataset):
    sampler = ShardShuffleSampler(dataset, seed=np.int64(3), window_shards=torch.tensor(2))
    sampler.set_epoch(np.int64(1))
    file = io.BytesIO()
    torch.save(sampler.state_dict(np.int64(8)), file)
    file.seek(0)

    state = torch.load(file, weights_only=True)

    assert json.loads(json.dumps(state)) == state
    assert (state["seed"], state["window_shards"], state["epoch"], state["position"]) == (3, 2, 1, 8)
    with pytest.raises(UsageError, match="samples_seen: an integer of 0 or more expected, found 8.0"):
        sampler.state_dict(8.0)


def test_a_sampler_that_a_former_version_pickled_keeps_its_ranks(dataset):
    sampler = ShardShuffleSampler(dataset, 2, 1)
    state = sampler.__getstate__() | {"num_replicas": 2, "rank": 1}
    del state["_given"]
    former = ShardShuffleSampler.__new__(ShardShuffleSampler)
    former.__setstate__(state)

    assert list(former) == list(sampler)


# -- resuming ----------------------------------------------------------------------------------------------------------


def resumed(cache, state, **arguments):
    dataset = Numbered(cache)
    sampler = ShardShuffleSampler(dataset, **arguments)
    sampler.load_state_dict(state)
    return dataset, sampler


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_goes_on_at_the_next_sample_trained(cache, dataset, workers, given):
    """Workers have fetched eight batches ahead; the state counts those that training got."""
    sampler = ShardShuffleSampler(dataset, seed=9)
    sampler.set_epoch(2)
    loader = DataLoader(
        dataset, batch_size=4, sampler=sampler, num_workers=workers, prefetch_factor=4 if workers else None
    )
    batches = iter(loader)
    before = numbers(islice(batches, 3))
    state = sampler.state_dict(12 if given else None)
    state = pickle.loads(pickle.dumps(state))

    again, other = resumed(cache, state)
    rest = DataLoader(again, batch_size=4, sampler=other, num_workers=workers)

    assert len(rest) == 15  # a whole epoch's, also before a pass that gives fewer
    after = numbers(rest)
    assert before + after == order_of(dataset, 2, seed=9)
    assert again.epoch == 2
    assert len(rest) == 15
    other.set_epoch(3)
    assert numbers(rest) == order_of(dataset, 3, seed=9)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_thread_that_fetches_ahead_counts_as_not_seen(cache, dataset, workers):
    sampler = ShardShuffleSampler(dataset)
    sampler.set_epoch(0)
    loader = to_device(DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers), "cpu", prefetch=3)
    batches = iter(loader)
    before = numbers(islice(batches, 5))
    state = sampler.state_dict()
    batches.close()

    assert state == sampler.state_dict()
    again, other = resumed(cache, state)
    assert before + numbers(to_device(DataLoader(again, batch_size=4, sampler=other), "cpu")) == order_of(dataset, 0)


def test_persistent_workers_count_each_pass_from_its_start(cache, dataset):
    sampler = ShardShuffleSampler(dataset)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=1, persistent_workers=True)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        numbers(loader)
    sampler.set_epoch(2)
    batches = iter(loader)
    before = numbers(islice(batches, 2))
    state = sampler.state_dict()

    assert before + numbers(DataLoader(*resumed_pair(cache, state))) == order_of(dataset, 2)


def resumed_pair(cache, state):
    dataset, sampler = resumed(cache, state)
    return dataset, 4, None, sampler


@pytest.mark.parametrize(("ranks", "later"), [(2, 1), (1, 3), (3, 2), (4, 4)])
def test_going_on_with_another_number_of_ranks(cache, dataset, ranks, later):
    samplers = [ShardShuffleSampler(dataset, ranks, rank) for rank in range(ranks)]
    for sampler in samplers:
        sampler.set_epoch(1)
    shares = [numbers(islice(DataLoader(dataset, batch_size=3, sampler=sampler), 2)) for sampler in samplers]
    before = [index for step in zip(*shares, strict=True) for index in step]
    states = [sampler.state_dict(6) for sampler in samplers]
    assert all(state == states[0] for state in states)

    rest = [list(resumed(cache, states[0], num_replicas=later, rank=rank)[1]) for rank in range(later)]

    together = before + [index for step in zip(*rest, strict=True) for index in step]
    assert together[:COUNT] == order_of(dataset, 1)
    assert len(together) - COUNT < later


def test_a_resumed_pass_may_be_interrupted_again(cache, dataset):
    sampler = ShardShuffleSampler(dataset, seed=4)
    sampler.set_epoch(0)
    seen = []
    for _ in range(3):
        batches = iter(DataLoader(dataset, batch_size=5, sampler=sampler))
        seen += numbers(islice(batches, 2))
        state = sampler.state_dict()
        dataset, sampler = resumed(cache, state)
    seen += list(sampler)

    assert seen == order_of(dataset, 0, seed=4)


def test_a_state_of_the_end_of_an_epoch(cache, dataset):
    """An epoch that is over gives nothing more; the loop goes on to the next."""
    sampler = ShardShuffleSampler(dataset)
    sampler.set_epoch(1)
    assert len(numbers(DataLoader(dataset, batch_size=8, sampler=sampler))) == COUNT
    _, other = resumed(cache, sampler.state_dict(COUNT + 4))

    other.set_epoch(1)
    assert list(other) == []
    other.set_epoch(2)
    assert list(other) == order_of(dataset, 2)


def test_setting_the_epoch_again_keeps_the_place_another_one_does_not(cache, dataset):
    sampler = ShardShuffleSampler(dataset)
    sampler.set_epoch(4)
    next(iter(DataLoader(dataset, batch_size=10, sampler=sampler)))
    state = sampler.state_dict()

    _, same = resumed(cache, state)
    same.set_epoch(4)
    _, other = resumed(cache, state)
    other.set_epoch(5)

    assert len(same) == COUNT
    assert list(same) == order_of(dataset, 4)[10:]
    assert len(other) == COUNT


def test_after_another_epoch_was_set_the_state_is_that_epochs_start(cache, dataset):
    sampler = ShardShuffleSampler(dataset)
    sampler.set_epoch(4)
    next(iter(DataLoader(dataset, batch_size=10, sampler=sampler)))
    sampler.set_epoch(5)

    assert list(resumed(cache, sampler.state_dict())[1]) == order_of(dataset, 5)


def test_before_the_first_pass_the_state_is_its_start(cache, dataset):
    sampler = ShardShuffleSampler(dataset, seed=7)
    sampler.set_epoch(1)

    assert list(resumed(cache, sampler.state_dict())[1]) == order_of(dataset, 1, seed=7)


def test_variants_that_were_drawn_stay_drawn(cache, dataset):
    """set_epoch was never called: resuming must not fix the variant."""
    sampler = ShardShuffleSampler(dataset)
    next(iter(sampler))

    again, _ = resumed(cache, sampler.state_dict())

    assert again.epoch is None


def test_a_state_of_another_snapshot_is_refused(tmp_path):
    photos = image_folder(tmp_path / "photos", count=2)
    build(photos, tmp_path / "cache", TINY, workers=1)
    state = ShardShuffleSampler(CachedDataset(tmp_path / "cache")).state_dict()
    write_image(photos / "cat" / "new.png", 99)
    build(photos, tmp_path / "cache", workers=1)
    sampler = ShardShuffleSampler(CachedDataset(tmp_path / "cache"))

    with pytest.raises(UsageError, match=r"state is of snapshot 000001 .* the dataset is at snapshot 000002"):
        sampler.load_state_dict(state)
    ShardShuffleSampler(CachedDataset(tmp_path / "cache", snapshot="000001")).load_state_dict(state)


def test_a_state_of_another_cache_with_a_snapshot_of_the_same_name_is_refused(tmp_path, dataset):
    build(image_folder(tmp_path / "photos", count=30), tmp_path / "cache", TINY, workers=1)

    with pytest.raises(UsageError, match="the same positions may be other samples there"):
        ShardShuffleSampler(dataset).load_state_dict(
            ShardShuffleSampler(CachedDataset(tmp_path / "cache")).state_dict()
        )


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"position": -1}, {"position": COUNT + 1}, {"seed": "x"}, {"epoch": None}, {"split": "val"}],
)
def test_a_state_that_is_none_is_refused(dataset, change):
    sampler = ShardShuffleSampler(dataset)
    state = sampler.state_dict() | change

    with pytest.raises(UsageError):
        sampler.load_state_dict(state)
    state = sampler.state_dict()
    wrong = {"position": 3.7, "epoch": -3, "shuffle": "False", "window_shards": 0, "seed": "1", "dataset_epoch": True}
    for name, value in wrong.items():
        with pytest.raises(UsageError, match=f"what state_dict.* gave expected.*{name}: .* expected, found {value!r}"):
            sampler.load_state_dict(state | {name: value})
    with pytest.raises(UsageError, match=r"what state_dict\(\) of a ShardShuffleSampler gave expected, found \{\}"):
        sampler.load_state_dict({})


def test_samples_seen_have_to_be_possible(dataset):
    with pytest.raises(UsageError, match="0 or more expected, found -1"):
        ShardShuffleSampler(dataset).state_dict(-1)


class Pairs(BatchSampler):
    """A batch sampler that does not say how large its batches are."""

    def __init__(self, sampler):
        self.sampler = sampler

    def __iter__(self):
        indices = iter(self.sampler)
        yield from ([index, next(indices)] for index in indices)

    def __len__(self):
        return len(self.sampler) // 2


def test_with_a_batch_sampler_of_unknown_size_the_number_has_to_be_given(dataset):
    sampler = ShardShuffleSampler(dataset)
    batches = iter(DataLoader(dataset, batch_sampler=Pairs(sampler)))
    numbers(islice(batches, 3))

    with pytest.raises(UsageError, match="cannot be known with a batch sampler of type Pairs"):
        sampler.state_dict()
    assert sampler.state_dict(6)["position"] == 6


@pytest.mark.parametrize("wrapped", ["batch_sampler", "sampler"])
def test_batches_fetched_ahead_of_a_batch_sampler_count_as_not_seen(cache, dataset, wrapped):
    sampler = ShardShuffleSampler(dataset)
    options = {"batch_size": None} if wrapped == "sampler" else {}
    loader = DataLoader(dataset.numbers(), **{wrapped: BatchSampler(sampler, 4, False)}, **options)
    batches = iter(to_device(loader, "cpu", prefetch=3))
    for _ in range(5):
        next(batches)

    assert sampler.state_dict()["position"] == 20
    batches.close()


def test_the_epoch_may_be_set_until_the_first_sample_is_asked_for(dataset):
    """Lightning makes its iterator before it tells the epoch."""
    sampler = ShardShuffleSampler(dataset)
    indices = iter(sampler)
    sampler.set_epoch(3)

    assert list(islice(indices, 5)) == order_of(dataset, 3)[:5]
    assert sampler.state_dict()["epoch"] == 3
    assert sampler.state_dict()["position"] == 5


def test_an_earlier_epoch_gives_up_a_loaded_place_and_says_so(cache, dataset):
    """Accelerate and Fabric count the epochs of a resumed run from 0."""
    sampler = ShardShuffleSampler(dataset)
    sampler.set_epoch(2)
    next(iter(DataLoader(dataset, batch_size=10, sampler=sampler)))
    _, other = resumed(cache, sampler.state_dict())

    with pytest.warns(UserWarning, match=r"is of epoch 2, and its place \(sample 10\) is given up"):
        other.set_epoch(0)
    with warnings.catch_warnings(action="error"):
        list(other)
        other.set_epoch(1)
        other.set_epoch(0)


def test_an_epoch_that_comes_after_its_samples_were_handed_to_workers_is_told(dataset):
    sampler = ShardShuffleSampler(dataset)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=1)
    batches = iter(loader)

    with pytest.warns(UserWarning, match="workers have been given samples of epoch 0 already"):
        sampler.set_epoch(1)
    assert numbers(batches) == order_of(dataset, 0)
    with warnings.catch_warnings(action="error", category=UserWarning):
        sampler.set_epoch(2)


# -- lengths -----------------------------------------------------------------------------------------------------------


def lengths(sampler):
    assert sampler.num_samples == len(sampler)
    assert sampler.total_size == len(sampler) * sampler.num_replicas
    return len(sampler)


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("ranks", [1, 7])
def test_the_length_is_a_whole_epochs_at_any_time(cache, dataset, ranks, drop_last):
    whole = COUNT // 7 + (not drop_last) if ranks == 7 else COUNT
    sampler = ShardShuffleSampler(dataset, ranks, 0, drop_last=drop_last)
    assert lengths(sampler) == whole
    batches = iter(DataLoader(dataset, batch_size=2, sampler=sampler))
    next(batches)
    assert lengths(sampler) == whole

    again, other = resumed(cache, sampler.state_dict(), num_replicas=ranks, rank=0, drop_last=drop_last)
    assert lengths(other) == whole
    loader = DataLoader(again, batch_size=2, sampler=other)
    rest = iter(loader)
    next(rest)
    assert lengths(other) == whole
    assert 1 + 1 + len(list(rest)) == len(loader)
    assert lengths(other) == whole


def test_the_length_follows_a_refreshed_dataset(tmp_path):
    photos = image_folder(tmp_path / "photos", count=2)
    build(photos, tmp_path / "cache", TINY, workers=1)
    dataset = CachedDataset(tmp_path / "cache")
    sampler = ShardShuffleSampler(dataset)
    write_image(photos / "cat" / "new.png", 99)
    build(photos, tmp_path / "cache", workers=1)
    dataset.refresh()

    assert lengths(sampler) == 5


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda sampler: pickle.loads(pickle.dumps(sampler))])
def test_a_copy_goes_on_where_the_original_would(cache, dataset, copied):
    sampler = ShardShuffleSampler(dataset, seed=3)
    sampler.set_epoch(1)
    next(iter(DataLoader(dataset, batch_size=10, sampler=sampler)))
    _, other = resumed(cache, sampler.state_dict())

    assert list(copied(other)) == order_of(dataset, 1, seed=3)[10:]


# -- whoever shares out again ------------------------------------------------------------------------------------------


@pytest.fixture
def of_two(monkeypatch):
    """torch.distributed, as it looks to one of two processes that agree."""

    def become(rank):
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: rank)

    def gather(everybody, mine):
        everybody[:] = [mine] * len(everybody)

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    become(0)
    return become


class EverySecondBatch(BatchSampler):
    """What Accelerate makes of a batch sampler."""

    def __init__(self, batch_sampler, process_index, split_batches=False):
        self.batch_sampler, self.num_processes, self.process_index = batch_sampler, 2, process_index
        self.batch_size, self.split_batches = batch_sampler.batch_size, split_batches

    def __iter__(self):
        if self.split_batches:
            half = self.batch_size // 2
            return (batch[half * self.process_index :][:half] for batch in self.batch_sampler)
        return islice(iter(list(self.batch_sampler)), self.process_index, None, 2)

    def __len__(self):
        return len(self.batch_sampler) // (1 if self.split_batches else 2)


class InLine:
    """A sampler in the place of a dataset."""

    def __init__(self, sampler):
        self.sampler = sampler

    def __len__(self):
        return len(self.sampler)


class EverySecond(DistributedSampler):
    """What Lightning, Catalyst and many scripts make of samplers that they do not know."""

    def __init__(self, sampler, rank):
        super().__init__(InLine(sampler), 2, rank, shuffle=False)

    def __iter__(self):
        order = list(self.dataset.sampler)
        return (order[index] for index in super().__iter__())


def shared_again(kind, dataset, sampler, rank):
    if kind == "sampler":
        return DataLoader(dataset, batch_size=3, sampler=EverySecond(sampler, rank))
    batches = BatchSampler(sampler, 6, False)
    return DataLoader(dataset, batch_sampler=EverySecondBatch(batches, rank, split_batches=kind == "split"))


KINDS = ["batches", "split", "sampler"]


@pytest.mark.parametrize("kind", KINDS)
def test_each_sample_arrives_once_where_the_loader_shares(dataset, of_two, kind):
    seen = []
    for rank in range(2):
        of_two(rank)
        sampler = ShardShuffleSampler(dataset)
        loader = shared_again(kind, dataset, sampler, rank)
        assert len(loader) == (5 if kind == "batches" else 10)
        batches = iter(loader)
        seen += numbers(islice(batches, 2))
        step = 12 if kind == "batches" else 6  # of both ranks
        assert sampler.state_dict()["position"] == 2 * step
        assert sampler.state_dict(step)["position"] == 2 * step
        seen += numbers(batches)

    assert sorted(seen) == list(range(COUNT))


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_a_share_is_refused(dataset, of_two, kind):
    of_two(1)
    sampler = ShardShuffleSampler(dataset, num_replicas=2, rank=1)

    with pytest.raises(UsageError, match=r"a share of a share: .* among 2 processes.* without num_replicas and rank"):
        len(shared_again(kind, dataset, sampler, 1))
    with pytest.raises(UsageError, match="a share of a share"):
        next(iter(shared_again(kind, dataset, sampler, 1)))


def test_the_whole_may_be_shared_again(dataset, of_two):
    seen = []
    for rank in range(2):
        seen += numbers(shared_again("batches", dataset, ShardShuffleSampler(dataset, num_replicas=1, rank=0), rank))

    assert sorted(seen) == list(range(COUNT))


def test_a_sampler_that_only_knows_the_ranks_shares_nothing(dataset, of_two):
    """A wrapper that passes for a DistributedSampler, and hands on what this one gives."""

    class Handing(DistributedSampler):
        def __init__(self, dataset, inner):
            super().__init__(dataset)
            self.inner = inner

        def __iter__(self):
            return (index for index in self.inner)

    seen = []
    for rank in range(2):
        of_two(rank)
        seen += numbers(DataLoader(dataset, sampler=Handing(dataset, ShardShuffleSampler(dataset, 2, rank))))

    assert sorted(seen) == list(range(COUNT))


def test_ranks_that_come_after_the_sampler_count(dataset, request):
    sampler = ShardShuffleSampler(dataset)
    assert len(sampler) == COUNT
    request.getfixturevalue("of_two")(1)

    assert (sampler.num_replicas, sampler.rank, lengths(sampler)) == (2, 1, COUNT // 2)
    assert list(sampler) == order_of(dataset, 0, num_replicas=1, rank=0)[1::2]


def test_with_an_accelerator_lengths_are_the_whole_and_a_loader_apart_is_told(dataset, of_two, monkeypatch):
    of_two(1)
    state = types.SimpleNamespace(AcceleratorState=types.SimpleNamespace(_shared_state={"device": "cpu"}))
    monkeypatch.setitem(sys.modules, "accelerate.state", state)
    sampler = ShardShuffleSampler(dataset)
    given = ShardShuffleSampler(dataset, num_replicas=2, rank=1)

    assert (sampler.num_replicas, sampler.rank, lengths(sampler)) == (1, 0, COUNT)
    with pytest.warns(UserWarning, match="an Accelerator, which did not prepare this loader"):
        share = list(sampler)
    assert lengths(given) == COUNT // 2
    with warnings.catch_warnings(action="error"):
        assert share == list(given)


# -- torchdata ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 4, 15])
def test_torchdatas_stateful_loader(cache, dataset, workers, taken):
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    options = {"batch_size": 4, "num_workers": workers, "prefetch_factor": 4 if workers else None}
    sampler = ShardShuffleSampler(dataset, seed=2)
    sampler.set_epoch(1)
    loader = stateful(dataset, sampler=sampler, **options)
    batches = iter(loader)
    before = numbers(islice(batches, taken))
    state = copy.deepcopy(loader.state_dict())
    del batches

    again = Numbered(cache)
    other = stateful(again, sampler=ShardShuffleSampler(again, seed=2), **options)
    other.load_state_dict(state)

    assert before + numbers(other) == order_of(dataset, 1, seed=2)


# -- ranks -------------------------------------------------------------------------------------------------------------


def _rank(rank, port, folder, snapshots, seeds, results):
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    try:
        dataset = CachedDataset(folder, snapshot=snapshots[rank])
        sampler = ShardShuffleSampler(dataset, seed=seeds[rank])
        sampler.set_epoch(1)
        results[rank] = list(sampler)
    except UsageError as error:
        results[rank] = str(error)
    finally:
        torch.distributed.destroy_process_group()


def two_ranks(folder, snapshots, seeds=(0, 0)):
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with torch.multiprocessing.Manager() as manager:
        results = manager.dict()
        torch.multiprocessing.spawn(_rank, (port, folder, snapshots, seeds, results), nprocs=2)
        return dict(results)


@pytest.fixture(scope="module")
def two_snapshots(tmp_path_factory):
    root = tmp_path_factory.mktemp("ranks")
    photos = image_folder(root / "photos", count=3)
    build(photos, root / "cache", TINY, workers=1)
    write_image(photos / "cat" / "new.png", 99)
    build(photos, root / "cache", workers=1)
    return root / "cache"


def test_ranks_of_torch_distributed_share_an_epoch(two_snapshots):
    shares = two_ranks(two_snapshots, ("000001", "000001"))

    assert sorted(shares[0] + shares[1]) == list(range(6))


def test_ranks_refuse_to_mix_snapshots(two_snapshots):
    said = two_ranks(two_snapshots, ("000001", "000002"))

    for message in said.values():
        assert "ranks would mix samples: rank 0 has snapshot '000001'" in message
        assert "rank 1 has snapshot '000002'" in message


def test_ranks_refuse_to_mix_orders(two_snapshots):
    said = two_ranks(two_snapshots, (None, None), (0, 1))

    assert all("rank 0 has seed 0, rank 1 has seed 1" in message for message in said.values())
