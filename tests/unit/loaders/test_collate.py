"""A plain DataLoader gets the gathered batch itself; everybody else sees a list of samples."""

import gc
import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split

from loaders import CachedDataset
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
