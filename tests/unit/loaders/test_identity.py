"""A snapshot is its digest, not its number: a cache that was built anew from other images is refused."""

import pickle
import shutil
import warnings

import pytest
import torch
from torch.utils.data import DataLoader

from cache_store import layout
from cache_store.errors import IntegrityError, NotFoundError, UsageError
from cache_store.reader import open_cache
from loaders import CachedDataset
from preprocess import build
from tests.helpers import TINY, image_folder

REFUSED = "snapshot 000001 with digest [0-9a-f]{32} expected, found 000001 with digest [0-9a-f]{32}"


KINDS = {"first": {}, "other": {"first_seed": 500}, "classes": {"first_seed": 500, "classes": ("ant", "cat", "dog")}}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Caches of different images; as the statistics are given, even their tensors have one name."""
    folder = tmp_path_factory.mktemp("identity")
    for name, images in KINDS.items():
        build(
            image_folder(folder / f"{name} photos", **images),
            folder / name,
            TINY | {"normalize": "imagenet"},
            workers=1,
        )
    return folder


@pytest.fixture
def place(built, tmp_path):
    shutil.copytree(built / "first", tmp_path / "cache")
    (tmp_path / "built").symlink_to(built)
    return tmp_path


def replace(place, by="other"):
    """The cache is deleted and built anew from other images."""
    shutil.rmtree(place / "cache")
    shutil.copytree(place / "built" / by, place / "cache")


def test_a_pickled_dataset(place):
    dataset = CachedDataset(place / "cache")
    frozen, before = pickle.dumps(dataset), open_cache(place / "cache").digest()
    assert torch.equal(pickle.loads(frozen)[0][0], dataset[0][0])
    replace(place)

    for use in (lambda ds: ds[0], lambda ds: ds.__getitems__([0]), lambda ds: ds.targets, lambda ds: ds.failures):
        with pytest.raises(NotFoundError, match=REFUSED) as caught:
            use(pickle.loads(frozen))
    assert before in str(caught.value)
    assert open_cache(place / "cache").digest() in str(caught.value)


def test_a_dataset_that_is_opened_again(place):
    dataset = CachedDataset(place / "cache")
    dataset[0]
    dataset.close()
    replace(place)

    with pytest.raises(NotFoundError, match=REFUSED):
        dataset[0]


@pytest.mark.parametrize("io", ["mmap", "pread"])
def test_a_dataset_that_is_open_but_has_not_read_the_shard_yet(place, io):
    """Its table would lead into the new cache's shard."""
    dataset = CachedDataset(place / "cache", io=io)
    dataset.shards(0)  # reads the table
    replace(place)

    with pytest.raises(NotFoundError, match=REFUSED):
        dataset[0]


def test_a_table_that_was_not_read_yet(place):
    """Paths would be the new cache's, while images and labels in memory are the old one's."""
    dataset = CachedDataset(place / "cache")
    image, _ = dataset[0]
    replace(place)

    assert torch.equal(dataset[0][0], image)
    with pytest.raises(NotFoundError, match=REFUSED):
        dataset.samples  # noqa: B018


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers(place, context):
    dataset = CachedDataset(place / "cache")
    replace(place)

    with pytest.raises(NotFoundError, match=REFUSED):
        next(iter(DataLoader(dataset, batch_size=2, num_workers=1, multiprocessing_context=context)))


def test_a_snapshot_that_is_not_the_current_one(place):
    frozen = pickle.dumps(CachedDataset(place / "cache"))
    replace(place)
    photos = shutil.copytree(place / "built" / "other photos", place / "photos")
    image_folder(photos, first_seed=900, count=5)
    build(photos, place / "cache", workers=1)

    with pytest.raises(NotFoundError, match=REFUSED):
        pickle.loads(frozen)[0]


def test_a_cache_that_is_gone(place):
    dataset = CachedDataset(place / "cache")
    shutil.rmtree(place / "cache")

    with pytest.raises(IntegrityError, match="cache"):
        dataset[0]


def test_a_copy_that_takes_the_caches_place_is_the_same(place):
    dataset = CachedDataset(place / "cache")
    shutil.copytree(place / "cache", place / "copy")
    shutil.rmtree(place / "cache")
    (place / "copy").rename(place / "cache")

    assert torch.equal(dataset[3][0], CachedDataset(place / "cache")[3][0])


def test_refresh_moves_to_another_cache_as_to_any_newer_snapshot(place):
    dataset = CachedDataset(place / "cache")
    before = dataset[0][0]
    replace(place)

    assert dataset.refresh() == "000001"
    assert torch.equal(dataset[0][0], CachedDataset(place / "cache")[0][0])
    assert not torch.equal(dataset[0][0], before)
    assert dataset.identity()["digest"] == open_cache(place / "cache").digest()


def test_refresh_refuses_another_cache_with_other_class_ids(place):
    dataset = CachedDataset(place / "cache")
    image = dataset[0][0]
    replace(place, "classes")

    with pytest.raises(UsageError, match="'cat' 0 -> 1"):
        dataset.refresh()
    assert torch.equal(dataset[0][0], image)


def pickled_before_digests(dataset):
    """What a former version pickled."""
    state = {k: v for k, v in dataset.__getstate__().items() if k not in ("_digest", "_own", "_targets", "_samples")}
    old = object.__new__(CachedDataset)
    vars(old).update({k: v for k, v in state.items() if k != "_checked"})
    return old


def test_a_pickle_without_a_digest_is_compared_by_what_it_knows(place):
    old = pickled_before_digests(CachedDataset(place / "cache"))
    with pytest.warns(UserWarning, match="carry no digest: snapshot 000001") as told:
        image, _ = (old[0], old.targets)[0]
    assert len(told) == 1
    assert torch.equal(image, CachedDataset(place / "cache")[0][0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(pickle.loads(pickle.dumps(old))[0][0], image)

    another = pickled_before_digests(CachedDataset(place / "cache"))
    replace(place, "classes")
    with pytest.raises(NotFoundError, match="is not the one of the pickled dataset: samples 8 expected, 12 found"):
        another[0]


def test_a_restored_file_of_the_same_bytes_is_the_same_snapshot(place):
    """As `repair` puts one in the place of a damaged one, while a training run reads the cache."""
    dataset = CachedDataset(place / "cache")
    file = layout.snapshot_dir(place / "cache", "000001") / layout.METADATA
    data = file.read_bytes()
    file.unlink()
    file.write_bytes(data)

    assert dataset[0][0].shape == (3, 8, 8)
