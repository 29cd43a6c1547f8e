"""What follows from the snapshot is not assigned: it would change no sample."""

import pickle

import pytest

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

    with pytest.raises(UsageError, match=f"{name} cannot be assigned: .*{instead}"):
        setattr(dataset, name, before)

    assert getattr(dataset, name, None) == before


def test_other_attributes_are_the_users(dataset):
    dataset.transform, dataset.note = None, 5

    assert dataset.note == 5
    assert pickle.loads(pickle.dumps(dataset)).note == 5
