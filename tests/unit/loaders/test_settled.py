"""What follows from the snapshot is not assigned: it would change no sample."""

import copy
import pickle

import numpy as np
import pytest
import torch

from cache_store.errors import UsageError
from loaders import CachedDataset
from preprocess import build
from tests.helpers import TINY, image_folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("settled")
    build(image_folder(folder / "photos"), folder / "cache", TINY, workers=1)
    return CachedDataset(folder / "cache")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("classes", "targets="),
        ("class_to_idx", "targets="),
        ("targets", "targets="),
        ("samples", "Subset"),
        ("imgs", "Subset"),
        ("mean", "normalize"),
        ("std", "normalize"),
        ("shape", "crop="),
        ("variants", "variant="),
        ("split", "split="),
        ("snapshot_id", "snapshot="),
        ("failures", "build"),
        ("transforms", "batch_transform"),
    ],
)
def test_assignment_is_refused_and_says_what_to_do(dataset, name, instead):
    before = getattr(dataset, name, None)

    for value in ("another", [0], torch.zeros(3), np.zeros(3), None):
        with pytest.raises(UsageError, match=f"{name} cannot be assigned: .*{instead}"):
            setattr(dataset, name, value)

    assert getattr(dataset, name, None) == before


@pytest.mark.parametrize(
    "name", ["classes", "class_to_idx", "targets", "samples", "mean", "shape", "variants", "split"]
)
def test_what_is_in_force_may_be_assigned(dataset, name):
    before = getattr(dataset, name)

    setattr(dataset, name, before)
    setattr(dataset, name, copy.deepcopy(before))

    assert getattr(dataset, name) is before or name == "shape"


def test_a_subclass_that_keeps_its_arguments(dataset):
    class Kept(CachedDataset):
        def __init__(self, root, split):
            super().__init__(root, split)
            self.split = split

    assert Kept(dataset._path, "train").split == "train"


def test_other_attributes_are_the_users(dataset):
    dataset.transform, dataset.note = None, 5

    assert dataset.note == 5
    assert pickle.loads(pickle.dumps(dataset)).note == 5
