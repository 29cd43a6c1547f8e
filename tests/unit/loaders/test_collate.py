"""A plain DataLoader gets the gathered batch itself; everybody else sees a list of samples."""

import gc
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    DataLoader,
    Dataset,
    SequentialSampler,
    Subset,
    random_split,
)

from cache_store.errors import UsageError
from loaders import Batch, CachedDataset
from preprocess import build
from tests.helpers import TINY, image_folder
from tests.integration.processes import ROOT


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("collate")
    image_folder(root / "photos", count=10)
    build(root / "photos", root / "cache", TINY, workers=1)
    return root / "cache"


@pytest.fixture(scope="module")
def dataset(folder):
    with CachedDataset(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(dataset):
    return torch.stack([dataset[i][0] for i in range(len(dataset))])


def as_list(batch):
    return list(batch)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_what_default_collate_would_make(dataset, expected, workers):
    loader = DataLoader(dataset, batch_size=8, num_workers=workers)
    batches = list(loader)

    assert [len(labels) for _, labels in batches] == [8, 8, 4]
    assert all(isinstance(batch, list) for batch in batches)
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == dataset.targets


def test_nothing_is_copied_on_the_way(dataset):
    batch = dataset.__getitems__([3, 1, 2])

    images, labels = torch.utils.data.default_collate(batch)

    assert images.data_ptr() == batch.images.data_ptr()
    assert labels.tolist() == [dataset.targets[i] for i in (3, 1, 2)]


def test_a_batch_is_a_sequence_of_samples(dataset, expected):
    batch = dataset.__getitems__([5, 0, -1])

    assert len(batch) == 3
    for (image, label), index in zip(batch, (5, 0, 19), strict=True):
        assert torch.equal(image, expected[index])
        assert label == dataset.targets[index]
        assert isinstance(label, int)
    assert len(batch[1:]) == 2
    assert torch.equal(batch[-1][0], expected[19])
    with pytest.raises(IndexError):
        batch[3]


@pytest.mark.parametrize("kind", [np.array, torch.tensor, list])
def test_the_callers_indices_stay_as_they_are(dataset, expected, kind):
    indices = kind([3, -1, 0])

    batch = dataset.__getitems__(indices)

    assert list(indices) == [3, -1, 0]
    assert torch.equal(batch.images, expected[[3, 19, 0]])


def test_samples_that_somebody_regroups_are_collated_all_the_same(dataset, expected):
    batch = dataset.__getitems__([4, 7])

    images, labels = torch.utils.data.default_collate([batch[1], batch[0]])

    assert torch.equal(images, expected[[7, 4]])
    assert labels.tolist() == [dataset.targets[7], dataset.targets[4]]


@pytest.mark.parametrize("workers", [0, 2])
def test_wrapping_datasets_and_a_collate_function_of_the_users_own(dataset, expected, workers):
    subset = Subset(dataset, [9, 3, 12])
    ((images, _),) = DataLoader(subset, batch_size=3, num_workers=workers)
    assert torch.equal(images, expected[[9, 3, 12]])

    parts = random_split(dataset, [15, 5], generator=torch.Generator().manual_seed(0))
    ((images, _),) = DataLoader(parts[1], batch_size=5, num_workers=workers)
    assert torch.equal(images, expected[parts[1].indices])

    both = ConcatDataset([dataset, dataset])
    images = torch.cat([images for images, _ in DataLoader(both, batch_size=7, num_workers=workers)])
    assert torch.equal(images, torch.cat([expected, expected]))

    ((first, *_),) = DataLoader(Subset(dataset, [2, 1]), batch_size=2, collate_fn=as_list, num_workers=workers)
    assert torch.equal(first[0], expected[2])


def test_batches_that_are_kept_never_change(dataset, expected):
    kept = []
    for epoch in range(6):
        loader = DataLoader(dataset, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(epoch))
        for images, _ in loader:
            kept.append((images[1:3], images[1:3].clone()))
    gc.collect()

    assert all(torch.equal(seen, copy) for seen, copy in kept)


WARNING_IN_A_RUN = """
import sys, warnings
from torch.utils.data import DataLoader
from loaders import CachedDataset

loader = DataLoader(CachedDataset(sys.argv[1]), batch_size=2, num_workers=2, multiprocessing_context=sys.argv[2])
for _ in range(2):
    for _ in loader:
        pass
"""


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_two_workers_and_two_epochs_are_one_warning(folder, tmp_path, context):
    file = tmp_path / "train.py"
    file.write_text(f"if __name__ == '__main__':\n{textwrap.indent(WARNING_IN_A_RUN, '    ')}")

    run = subprocess.run(
        [sys.executable, file, folder, context],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert run.stderr.count("num_workers=0") == 1, run.stderr


# -- further columns ---------------------------------------------------------------------------------------------------


class Extended(CachedDataset):
    def extras(self, indices):
        paths = [self.samples[i][0] for i in indices.tolist()]
        return indices, paths, indices.numpy() * np.float32(0.5), [int(i) for i in indices]


@pytest.mark.filterwarnings("ignore:.*batches of one")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("transforms", [{}, {"transform": abs}, {"batch_transform": lambda x, y: (x * 2, y)}])
def test_extras_are_collated_as_from_single_samples(folder, workers, transforms):
    dataset = Extended(folder, **transforms)
    wanted = [5, 0, 19]
    expected = torch.utils.data.default_collate([dataset[i] for i in wanted])

    ((*batch,),) = DataLoader(dataset, batch_size=3, sampler=[5, 0, -1], num_workers=workers)

    assert len(batch) == len(expected) == 6
    for mine, theirs in zip((*batch, *dataset[wanted]), expected * 2, strict=True):
        if isinstance(theirs, torch.Tensor):
            assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
            assert torch.equal(mine, theirs)
        else:
            assert mine == theirs
    assert batch[2].tolist() == wanted
    assert batch[3] == tuple(dataset.samples[i][0] for i in wanted)


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        (torch.zeros(3), "extras: a tuple of columns expected, found Tensor"),
        ([[1, 2, 3]], "extras: a tuple of columns expected, found list"),
        (None, "extras: a tuple of columns expected, found NoneType"),
        ((torch.zeros(2),), "one entry for each of 3 samples expected, found 2 entries"),
        (("a",), "found 1 entries"),
        ((5,), "found int"),
        ((torch.tensor(5),), "found a single value"),
    ],
)
def test_extras_that_do_not_fit_are_refused(folder, columns, complaint):
    class Wrong(CachedDataset):
        def extras(self, indices):
            return columns

    with pytest.raises(UsageError, match=complaint):
        Wrong(folder).__getitems__([0, 1, 2])


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        (lambda x, y: x, "a pair .* expected, found Tensor"),
        (lambda x, y: None, "a pair .* expected, found NoneType"),
        (lambda x, y: {"images": x, "labels": y}, "a pair .* expected, found dict"),
        (lambda x, y: (x, y, y), "a pair .* expected, found a tuple of 3"),
        (lambda x, y: (x, y[:1]), "labels of a batch: 2 expected, one for each image, found 1"),
        (lambda x, y: (x[:1], y[:1]), ".*one entry for each of 1 samples expected, found 2 entries"),
    ],
)
def test_what_a_batch_transform_may_not_give(folder, changed, complaint):
    dataset = Extended(folder, batch_transform=changed)

    with pytest.raises(UsageError, match=f"^batch_transform: {complaint}"):
        dataset[[0, 1]]


def test_what_a_batch_transform_may_give(folder):
    fewer = CachedDataset(folder, batch_transform=lambda x, y: [x[:2], y[:2]])
    views = CachedDataset(folder, batch_transform=lambda x, y: ([x, x * 2], (y, y.flip(0), 0.3)))

    (kept,) = DataLoader(fewer, batch_size=20)
    ((two, labels),) = DataLoader(views, batch_size=20)

    assert [len(each) for each in (*kept, fewer.__getitems__(range(20)))] == [2, 2, 2]
    assert [len(each) for each in two] == [20, 20]
    assert labels[2] == 0.3


def test_labels_of_another_length_are_refused():
    with pytest.raises(UsageError, match="labels of a batch: 4 expected, one for each image, found 9"):
        Batch(torch.zeros(4, 3, 2, 2), torch.zeros(9))


class Wrapper(Dataset):
    """As docs/howto/training-loop.md shows it."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        image, label = self.inner[index]
        return image, label + 1, index

    def __getitems__(self, indices):
        images, labels = self.inner[indices]
        return Batch(images, labels + 1, torch.tensor(indices))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrapping_dataset_has_whole_batches(dataset, expected, workers):
    ((images, labels, indices),) = DataLoader(Wrapper(dataset), batch_size=3, sampler=[7, 3, 12], num_workers=workers)

    assert torch.equal(images, expected[[7, 3, 12]])
    assert labels.tolist() == [dataset.targets[i] + 1 for i in (7, 3, 12)]
    assert indices.tolist() == [7, 3, 12]


def test_labels_of_a_batch_transform_keep_their_type_in_samples(folder):
    dataset = CachedDataset(folder, batch_transform=lambda x, y: (x, y / 4))

    batch = dataset.__getitems__([11, 12])

    assert batch[0][1].item() == dataset[11][1].item() == 0.25


# -- torch's bulk loading ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_sampler_as_sampler_gives_every_sample(dataset, expected, workers):
    sampler = BatchSampler(SequentialSampler(dataset), batch_size=8, drop_last=False)

    batches = list(DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=workers))

    assert [len(labels) for _, labels in batches] == [8, 8, 4]
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)
    assert torch.cat([labels for _, labels in batches]).tolist() == dataset.targets


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_a_list_of_integers_is_a_batch(dataset, expected, kind):
    images, labels = dataset[kind([3, -1])]

    assert torch.equal(images, expected[[3, 19]])
    assert (labels.dtype, labels.tolist()) == (torch.int64, [0, 1])


def test_no_integers_are_an_empty_batch(folder):
    for changes in ({}, {"transform": abs, "batch_transform": lambda x, y: (x, y), "crop": 4, "flip": True}):
        images, labels = CachedDataset(folder, dtype=torch.float32, **changes)[[]]

        assert images.shape == (0, 3, 4, 4) if changes else (0, 3, 8, 8)
        assert (images.dtype, labels.dtype, labels.shape) == (torch.float32, torch.int64, (0,))


def test_transforms_apply_to_bulk_loading_too(folder, expected):
    dataset = CachedDataset(
        folder,
        transform=lambda image: image + 1,
        target_transform=lambda label: label * 0.5,
        batch_transform=lambda images, labels: (images * 2, labels + 1),
    )

    images, labels = dataset[[4, 15]]

    assert torch.equal(images, (expected[[4, 15]] + 1) * 2)
    assert (labels.dtype, labels.tolist()) == (torch.float64, [1.0, 1.5])


@pytest.mark.parametrize("index", [True, slice(0, 3), (3, 4), 1.0, "3", None, [True] * 20, [[3, 4]], [3.0], range(3)])
def test_an_index_of_another_kind_is_a_type_error(dataset, index):
    with pytest.raises(TypeError, match="index: an integer, or for a batch a list of integers"):
        dataset[index]
    if not isinstance(index, tuple | range):
        with pytest.raises(TypeError, match="index: an integer"):
            dataset.__getitems__(index if isinstance(index, list) else [index])
