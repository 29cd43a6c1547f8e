"""ConcatDataset: the samples that torch's gives, in whole batches."""

import pickle

import pytest
import torch
from torch.utils.data import ConcatDataset as TorchConcatDataset
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from loaders import CachedDataset, ConcatDataset
from loaders.collate import Batch
from preprocess import build
from tests.helpers import TINY, image_folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two caches of eight images."""
    found = []
    for number in range(2):
        folder = tmp_path_factory.mktemp("concat")
        build(image_folder(folder / "photos", first_seed=100 * number), folder / "cache", TINY, workers=1)
        found.append(CachedDataset(folder / "cache"))
    return found


class Plain(Dataset):
    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self.inner[index]


def same(one, other):
    assert len(one) == len(other)
    for mine, theirs in zip(one, other, strict=True):
        assert mine == theirs if isinstance(mine, tuple) else mine.dtype == theirs.dtype and torch.equal(mine, theirs)


INDICES = [9, 0, 15, 8, 7, -1, 3, 3, -16]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_what_torchs_gives(parts, workers):
    ours, theirs = ConcatDataset(parts), TorchConcatDataset(parts)

    for indices in (INDICES, list(range(16)), [4]):
        batches = [
            list(DataLoader(each, batch_size=5, sampler=indices, num_workers=workers)) for each in (ours, theirs)
        ]
        for mine, expected in zip(*batches, strict=True):
            same(mine, expected)


def test_whole_batches_are_fetched(parts):
    assert isinstance(ConcatDataset(parts).__getitems__(INDICES), Batch)
    assert isinstance(ConcatDataset([parts[0], Subset(parts[1], [3, 1])]).__getitems__([9, 0, 8]), Batch)
    assert isinstance((parts[0] + parts[1]).__getitems__(INDICES), Batch)
    assert isinstance(ConcatDataset([ConcatDataset(parts), parts[0]]).__getitems__([20, 1, 9]), Batch)


class WithPath(CachedDataset):
    def extras(self, indices):
        return indices, [self.samples[i][0] for i in indices.tolist()]


def other(kind, dataset):
    cache = dataset._path
    return {
        "plain": lambda: Plain(dataset),
        "another type of label": lambda: CachedDataset(cache, targets=torch.zeros(8, dtype=torch.int64)),
        "transform": lambda: CachedDataset(cache, transform=lambda image: image),
        "extras on both": lambda: WithPath(cache),
    }[kind]()


@pytest.mark.parametrize("kind", ["plain", "another type of label", "transform", "extras on both"])
def test_parts_of_different_kinds(parts, kind):
    mixed = [WithPath(parts[0]._path) if kind == "extras on both" else parts[0], other(kind, parts[1])]
    ours, theirs = ConcatDataset(mixed), TorchConcatDataset(mixed)

    (mine,), (expected,) = (list(DataLoader(each, batch_size=9, sampler=INDICES)) for each in (ours, theirs))

    same(mine, expected)


def test_parts_that_do_not_fit_together_fail_as_torchs_do(parts):
    mixed = [parts[0], CachedDataset(parts[1]._path, crop=4)]

    with pytest.raises(RuntimeError, match="stack expects each tensor to be equal size"):
        default_collate(ConcatDataset(mixed).__getitems__(INDICES))


def test_an_index_that_names_no_sample(parts):
    both = ConcatDataset(parts)

    with pytest.raises(IndexError, match="the concatenation has samples 0 to 15, there is no 16"):
        both.__getitems__([0, 16])
    with pytest.raises(TypeError, match="index: an integer"):
        both.__getitems__([0, 1.0])


def test_it_is_one_of_torchs_and_can_be_pickled(parts):
    both = pickle.loads(pickle.dumps(ConcatDataset(parts)))

    assert isinstance(both, TorchConcatDataset)
    assert torch.equal(both.__getitems__(INDICES).images, ConcatDataset(parts).__getitems__(INDICES).images)
