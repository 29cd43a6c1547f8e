"""targets= in the place of class ids: any type and shape, at the speed of whole batches, the same in every way."""

import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, default_collate

from cache_store.errors import UsageError
from loaders import CachedDataset
from preprocess import build
from tests.helpers import TINY, image_folder, write_image


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Eight images of two classes."""
    folder = tmp_path_factory.mktemp("targets")
    build(image_folder(folder / "photos"), folder / "cache", TINY, workers=1)
    return folder / "cache"


def paths_of(cache):
    return [path for path, _ in CachedDataset(cache).samples]


GIVEN = {
    "int list": list(range(8)),
    "float list": [0.1 * i for i in range(8)],
    "bool list": [i % 2 == 0 for i in range(8)],
    "rows": [[i, i + 1] for i in range(8)],
    "list of tensors": [torch.tensor([i, 0.5]) for i in range(8)],
    **{str(t): torch.arange(8).to(t) for t in (torch.int64, torch.int32, torch.uint8, torch.bool, torch.int16)},
    **{str(t): torch.arange(8).to(t) for t in (torch.float64, torch.float32, torch.float16, torch.bfloat16)},
    "numpy float32": np.linspace(0, 1, 8, dtype=np.float32),
    "numpy big-endian": np.arange(8, dtype=">i4"),
    "objects": np.array(list(range(8)), object),
    "objects of two kinds": np.array([0, 0.5, *range(6)], object),
    "conjugates": torch.arange(8).to(torch.complex64).conj(),
    "multi-label": torch.eye(8),
    "boxes": torch.arange(8 * 6, dtype=torch.float32).reshape(8, 3, 2),
    "needs gradients": torch.ones(8, requires_grad=True),
}


def as_tensor(given):
    """The values as they should be: of the type that was given, and Python's floats in full."""
    if isinstance(given, torch.Tensor):
        return given.detach()
    if isinstance(given[0], torch.Tensor):
        return torch.stack(given)
    array = np.array(list(given))
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))


@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
@pytest.mark.parametrize("by_path", [False, True])
def test_a_batch_is_what_single_samples_are_collated_to(cache, given, by_path):
    expected = as_tensor(given)
    if by_path:
        given = dict(zip(reversed(paths_of(cache)), reversed(list(given)), strict=True))
    dataset = CachedDataset(cache, targets=given)
    indices = [5, 0, 7, 1]

    ((_, labels),) = DataLoader(dataset, batch_size=4, sampler=indices)

    assert labels.dtype == expected.dtype
    assert torch.equal(labels, expected[indices])
    for other in (
        default_collate([dataset[i] for i in indices])[1],
        dataset[indices][1],
        default_collate(list(dataset.__getitems__(indices)))[1],
        next(iter(DataLoader(Subset(dataset, indices), batch_size=4)))[1],
    ):
        assert other.dtype == labels.dtype
        assert torch.equal(other, labels)
    assert dataset.targets == expected.tolist()


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        (torch.arange(8), int),
        (list(range(8)), int),
        ([0.5] * 8, float),
        (torch.zeros(8, dtype=torch.float64), float),
        (torch.zeros(8, dtype=torch.bool), bool),
        (torch.zeros(8), torch.Tensor),
        (torch.zeros(8, 3, dtype=torch.int64), torch.Tensor),
    ],
)
def test_what_a_single_sample_has(cache, given, kind):
    seen = []
    assert type(CachedDataset(cache, targets=given)[0][1]) is kind

    transformed = CachedDataset(cache, targets=given, target_transform=lambda label: seen.append(type(label)) or 3)

    assert [label for _, label in transformed.__getitems__([0, 1])] == [3, 3]
    assert transformed[0][1] == 3
    assert seen == [kind] * 3


def test_targets_are_copies_in_both_directions(cache):
    given = torch.zeros(8, 2)
    dataset = CachedDataset(cache, targets=given)
    given += 1
    dataset[0][1].add_(5)
    dataset[[0, 1]][1].add_(5)

    assert not dataset[[0, 1]][1].any()


def test_targets_and_samples_are_plain_lists_made_once(cache):
    plain, own = CachedDataset(cache), CachedDataset(cache, targets=torch.arange(8) * 0.5)

    for dataset in (plain, own):
        assert type(dataset.targets) is type(dataset.samples) is list
        assert dataset.targets is dataset.targets
        assert dataset.samples is dataset.samples is dataset.imgs
        assert [target for _, target in dataset.samples] == dataset.targets
    assert own.targets == [0.5 * i for i in range(8)]
    assert own.classes == plain.classes


def test_samples_are_what_the_dataset_gives_whatever_became_of_the_list(cache):
    for dataset in (CachedDataset(cache), CachedDataset(cache, targets=list(range(8)))):
        given = dataset.targets[3]
        dataset.targets[3] = 99

        assert dataset.samples[3][1] == dataset[3][1] == given


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_and_pickles_have_them(cache, context):
    dataset = CachedDataset(cache, targets=torch.arange(8) * 0.5)
    assert pickle.loads(pickle.dumps(dataset)).targets == dataset.targets

    labels = [labels for _, labels in DataLoader(dataset, batch_size=3, num_workers=1, multiprocessing_context=context)]

    assert torch.equal(torch.cat(labels), torch.arange(8) * 0.5)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (torch.zeros(7), "8 values expected, one for each sample of split 'train', found 7"),
        ([1], "8 values expected.* found 1"),
        ([], "8 values expected.* found 0"),
        (torch.tensor(3), "8 values expected.* found a single value"),
        (5, "a tensor, an array, a list, or a mapping from path to value expected, found int"),
        ("abcdefgh", "found str"),
        (range(8), "found range"),
        (["a"] * 8, "numbers expected"),
        ([None] * 8, "numbers expected"),
        (np.array(["2020-01-01"] * 8, "datetime64[D]"), "numbers expected"),
        ([2**70] * 8, "numbers expected"),
        ([[1], [1, 2]] * 4, "one shape"),
        ([torch.zeros(1), torch.zeros(2)] * 4, "one shape"),
        ([torch.zeros(1), 2] * 4, "one shape"),
        ([*range(7), None], "numbers expected, found None"),
        ([1, 2, "b", 4, "c", 6, 7, 8], "numbers expected, found 'b'"),
        (np.array([[1, None]] * 8), "numbers expected, found None"),
        (np.ma.array(range(8), mask=[0, 1] * 4), r"masked array; give .filled"),
        ([np.ma.masked] * 8, "masked array"),
        (torch.eye(8).to_sparse(), "dense tensor .* found sparse_coo"),
        (torch.zeros(8, device="meta"), "dense tensor .* found meta"),
        (torch.quantize_per_tensor(torch.zeros(8), 0.1, 0, torch.quint8), "dense tensor .* found quantised"),
    ],
)
def test_targets_that_do_not_fit(cache, given, complaint):
    with pytest.raises(UsageError, match=f"targets: .*{complaint}"):
        CachedDataset(cache, targets=given)


def test_paths_that_do_not_fit_are_named(cache):
    whole = dict.fromkeys(paths_of(cache), 1)

    with pytest.raises(UsageError, match="2 samples of split 'train' have no value: 'cat/001.png', 'dog/003.png'$"):
        CachedDataset(cache, targets={k: v for k, v in whole.items() if k not in ("cat/001.png", "dog/003.png")})
    with pytest.raises(UsageError, match="1 keys are no samples of split 'train': 'bird/7.png'.*such as 'cat/000.png'"):
        CachedDataset(cache, targets=whole | {"bird/7.png": 2})
    with pytest.raises(UsageError, match="8 samples of split 'train' have no value: .*'cat/002.png', …"):
        CachedDataset(cache, targets={f"/photos/{path}": 1 for path in whole})


@pytest.mark.parametrize("change", ["add", "rename"])
def test_other_samples_after_refresh_are_refused_and_the_dataset_stays(tmp_path, change):
    photos = image_folder(tmp_path / "photos")
    build(photos, tmp_path / "cache", TINY, workers=1)
    dataset = CachedDataset(tmp_path / "cache", targets=torch.arange(8))
    if change == "add":
        write_image(photos / "cat" / "new.png", 77)
    else:  # as many as before, in another order
        (photos / "cat" / "000.png").rename(photos / "cat" / "9.png")
    build(photos, tmp_path / "cache", workers=1)

    with pytest.raises(UsageError, match="targets: there are 8 for the samples.*snapshot 000002 has others"):
        dataset.refresh()

    assert dataset.snapshot_id == "000001"
    assert dataset[0][1] == 0


def test_other_pixels_of_the_same_samples_are_no_matter(tmp_path):
    photos = image_folder(tmp_path / "photos")
    build(photos, tmp_path / "cache", TINY, workers=1)
    dataset = CachedDataset(tmp_path / "cache", targets=torch.arange(8))
    write_image(photos / "cat" / "000.png", 99)
    build(photos, tmp_path / "cache", workers=1)

    assert dataset.refresh() == "000002"
    assert dataset.targets == list(range(8))
