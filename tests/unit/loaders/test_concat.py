"""ConcatDataset: the samples that torch's gives, in whole batches."""

import pickle
import warnings

import pytest
import torch
from torch.utils.data import ConcatDataset as TorchConcatDataset
from torch.utils.data import DataLoader, Dataset, Subset, default_collate

from cache_store.errors import UsageError
from loaders import CachedDataset, ConcatDataset
from loaders.collate import Batch
from preprocess import build
from tests.helpers import TINY, image_folder

FIXED = TINY | {"normalize": {"mean": [0.4] * 3, "std": [0.2] * 3}}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two caches of eight images."""
    found = []
    for number in range(2):
        folder = tmp_path_factory.mktemp("concat")
        build(image_folder(folder / "photos", first_seed=100 * number), folder / "cache", FIXED, workers=1)
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


def test_indices_as_of_a_cached_dataset(parts):
    both = ConcatDataset(parts)
    images, labels = both[[9, -16]]

    assert torch.equal(images, torch.stack([parts[1][1][0], parts[0][0][0]]))
    assert labels.tolist() == [parts[1][1][1], parts[0][0][1]]
    assert torch.equal(both[torch.tensor(-1)][0], parts[1][7][0])
    assert [len(column) for column in both[[]]] == [0, 0]
    assert len(both.__getitems__([])) == 0
    assert [len(labels) for _, labels in DataLoader(both, sampler=[[0, 9], [1]], batch_size=None)] == [2, 1]
    for wrong in (16, -17):
        with pytest.raises(IndexError, match=f"the concatenation has samples 0 to 15, there is no {wrong}"):
            both[wrong]
    for wrong in (True, 1.0, slice(3)):
        with pytest.raises(TypeError, match="index: an integer"):
            both[wrong]


@pytest.mark.filterwarnings("ignore:.*overrides __getitem__")
def test_a_subclass_that_overrides_getitem(parts):
    class Sevens(ConcatDataset):
        def __getitem__(self, index):
            image, label = super().__getitem__(index)
            return image * 0 + 7, label

    sevens = Sevens(parts)

    assert (next(iter(DataLoader(sevens, batch_size=4, sampler=INDICES[:4])))[0] == 7).all()
    assert (next(iter(DataLoader(Subset(sevens, [9, 1]), batch_size=2)))[0] == 7).all()


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Caches of other class ids, of bytes, and of another mean."""
    folder = tmp_path_factory.mktemp("others")
    image_folder(folder / "shifted", classes=("bird", "cat", "dog"))
    image_folder(folder / "photos")
    for name, changes in (
        ("bytes", {"dtype": "uint8"}),
        ("wide", {"normalize": {"mean": [0.5] * 3, "std": [1.0] * 3}}),
    ):
        build(folder / "photos", folder / f"{name}.cache", TINY | changes, workers=1)
    build(folder / "shifted", folder / "shifted.cache", FIXED, workers=1)
    return folder


@pytest.mark.parametrize("around", [lambda each: each, lambda each: Subset(Subset(each, [0, 1]), [1])])
def test_caches_that_do_not_fit_are_refused(parts, others, around):
    shifted, pixels = others / "shifted.cache", others / "bytes.cache"

    with pytest.raises(UsageError, match=r"class 'cat' is 0 in .* and 1 in .*shifted.cache.*targets="):
        ConcatDataset([parts[0], around(CachedDataset(shifted))])
    with pytest.raises(UsageError, match=r"class 'cat'"):
        CachedDataset(shifted) + ConcatDataset([around(parts[0])])
    with pytest.raises(UsageError, match=r"bytes.cache' gives pixels \(uint8\) and .* normalised images.*dtype="):
        ConcatDataset([parts[0], around(CachedDataset(pixels, dtype=torch.uint8))])


def test_caches_that_are_made_to_fit(parts, others):
    shifted, pixels = others / "shifted.cache", others / "bytes.cache"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*different mean")
        ConcatDataset([parts[0], CachedDataset(shifted, targets=[0] * 12)])
        ConcatDataset([parts[0], CachedDataset(shifted, target_transform=lambda label: label - 1)])
        ConcatDataset([parts[0], CachedDataset(pixels, dtype=torch.uint8, transform=lambda image: image / 255)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ConcatDataset([parts[0], parts[0]])


def test_a_part_that_gives_fewer_samples_is_refused(parts):
    fewer = CachedDataset(parts[1]._path, batch_transform=lambda images, labels: (images[:1], labels[:1]))

    with pytest.raises(UsageError, match="2 samples were asked of one dataset, and 1 came"):
        (parts[0] + Subset(fewer, range(8))).__getitems__([0, 8, 9])


def test_other_statistics_are_warned_of(parts, others):
    with pytest.warns(UserWarning, match="normalised with different mean and std") as told:
        parts[0] + Subset(CachedDataset(others / "wide.cache"), [0])

    assert [each.filename for each in told] == [__file__]


def test_it_is_one_of_torchs_and_can_be_pickled(parts):
    both = pickle.loads(pickle.dumps(ConcatDataset(parts)))

    assert isinstance(both, TorchConcatDataset)
    assert torch.equal(both.__getitems__(INDICES).images, ConcatDataset(parts).__getitems__(INDICES).images)
