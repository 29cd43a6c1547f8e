"""Slow ways are told once: after 1,000 single samples in a process, or when a subclass overrides `__getitem__`."""

import os
import subprocess
import sys
import textwrap
import warnings

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset
from torchdata.stateful_dataloader import StatefulDataLoader

import loaders
from cache_store.errors import UsageError
from loaders import Batch, CachedDataset, advice
from preprocess import build
from tests.helpers import TINY, image_folder
from tests.integration.processes import ROOT


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Eight images."""
    folder = tmp_path_factory.mktemp("advice")
    build(image_folder(folder / "photos"), folder / "cache", TINY, workers=1)
    return folder / "cache"


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """As in a process that has fetched nothing yet."""
    monkeypatch.setattr(advice, "_singles", advice._Singles())


class Wrapper(Dataset):
    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self.inner[index % len(self.inner)]


@pytest.mark.parametrize("kind", [Wrapper, lambda dataset: ConcatDataset([dataset] * 2)])
def test_a_wrapper_is_told_after_1000_samples_and_never_again(cache, kind):
    loader = DataLoader(kind(CachedDataset(cache)), batch_size=4)

    def passes(samples):
        done = 0
        while done < samples:
            done += sum(len(labels) for _, labels in loader)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        passes(976)
    with pytest.warns(
        UserWarning, match="1,000 samples were fetched one at a time.*ConcatDataset.*loaders.Batch"
    ) as told:
        passes(3000)

    assert len(told) == 1


def test_the_warning_shows_the_users_line(cache):
    dataset = CachedDataset(cache)

    with pytest.warns(UserWarning, match="1,000 samples") as told:
        [dataset[0] for _ in range(1000)]

    assert told[0].filename == __file__


def test_whole_batches_are_never_told(cache):
    dataset = CachedDataset(cache)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(200):
            dataset[list(range(8))]
            dataset.__getitems__(list(range(8)))


class Doubled(CachedDataset):
    def __getitem__(self, index):
        image, label = super().__getitem__(index)
        return image * 2, label, index


class Deeper(Doubled):
    pass


class Both(CachedDataset):
    """Looks after its batches itself, by asking ours."""

    def __getitem__(self, index):
        return (*super().__getitem__(index), index)

    def __getitems__(self, indices):
        return [(*sample, index) for sample, index in zip(super().__getitems__(indices), indices, strict=True)]


class BothOverDoubled(Doubled):
    def __getitem__(self, index):
        return (*super().__getitem__(index), "mine")

    def __getitems__(self, indices):
        return [(*sample, "mine") for sample in super().__getitems__(indices)]


class Mixin:
    def __getitem__(self, index):
        return (*super().__getitem__(index), index)


class WithMixin(Mixin, CachedDataset):
    pass


class AboveBoth(Both):
    """Its samples, although a class below looks after batches."""

    def __getitem__(self, index):
        image, label, number = super().__getitem__(index)
        return image * 3, label, number


class BatchesAboveThat(AboveBoth):
    def __getitems__(self, indices):
        return [(*sample, "mine") for sample in super().__getitems__(indices)]

    def __getitem__(self, index):
        return (*super().__getitem__(index), "mine")


KINDS = [Doubled, Deeper, Both, BothOverDoubled, WithMixin, AboveBoth, BatchesAboveThat]


@pytest.mark.filterwarnings("ignore:.*overrides __getitem__")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_an_override_of_getitem_is_what_batches_are_made_of(cache, kind, workers):
    dataset = kind(cache)
    samples = [dataset[i] for i in (5, 2)]

    ((images, labels, indices, *rest),) = DataLoader(dataset, batch_size=2, sampler=[5, 2], num_workers=workers)

    assert torch.equal(images, torch.stack([sample[0] for sample in samples]))
    assert labels.tolist() == [sample[1] for sample in samples]
    assert indices.tolist() == [5, 2]
    assert rest == ([("mine", "mine")] if kind in (BothOverDoubled, BatchesAboveThat) else [])


@pytest.mark.filterwarnings("ignore:.*overrides __getitem__")
def test_a_getitem_that_is_put_into_the_class_later_counts(cache, monkeypatch):
    plain = CachedDataset.__getitem__
    monkeypatch.setattr(CachedDataset, "__getitem__", lambda self, index: (plain(self, index)[0] * 0 + 7, index))

    ((images, indices),) = DataLoader(CachedDataset(cache), batch_size=2, sampler=[5, 2])

    assert (images == 7).all()
    assert indices.tolist() == [5, 2]


class BySize(CachedDataset):
    def __getitem__(self, index):
        number, size = index
        image, label = super().__getitem__(number)
        return image[:, :size, :size], label


class ByPath(CachedDataset):
    def __getitem__(self, index):
        return super().__getitem__([path for path, _ in self.samples].index(index))


@pytest.mark.filterwarnings("ignore:.*overrides __getitem__")
@pytest.mark.parametrize("workers", [0, 1])
def test_an_override_gets_its_own_kind_of_index(cache, workers):
    batches = [[(0, 8), (7, 8)], [(1, 4), (2, 4)]]
    sizes = [x.shape[-1] for x, _ in DataLoader(BySize(cache), batch_sampler=batches, num_workers=workers)]
    by_path = ByPath(cache)
    paths = [by_path.samples[i][0] for i in (6, 1)]
    ((_, labels),) = DataLoader(by_path, batch_size=2, sampler=paths, num_workers=workers)

    assert sizes == [8, 4]
    assert labels.tolist() == [1, 0]


class Forwarding(Dataset):
    """Passes everything on that it lacks, `__getitems__` too."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        if name == "inner":
            raise AttributeError(name)
        return getattr(self.inner, name)

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        image, label = self.inner[index]
        return image * 0 + 7, label


class ForwardingWhole(Forwarding):
    def __getitems__(self, indices):
        images, labels = self.inner[indices]
        return Batch(images * 0 + 7, labels)


@pytest.mark.filterwarnings("ignore:.*single samples")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", [Forwarding, ForwardingWhole])
@pytest.mark.parametrize(
    "around",
    [
        lambda wrapper: wrapper,
        lambda wrapper: Subset(wrapper, range(8)),
        lambda wrapper: loaders.ConcatDataset([wrapper]),
        lambda wrapper: type(wrapper)(wrapper),
    ],
)
def test_a_wrapper_that_forwards_what_it_lacks_gives_its_own_samples(cache, workers, kind, around):
    wrapper = around(kind(CachedDataset(cache)))

    for loader in (DataLoader(wrapper, batch_size=4, num_workers=workers), StatefulDataLoader(wrapper, batch_size=4)):
        assert all((images == 7).all() for images, _ in loader)


@pytest.mark.filterwarnings("ignore:.*single samples")
@pytest.mark.parametrize("workers", [0, 1])
def test_such_a_wrapper_around_subsets_gets_its_own_indices(cache, workers):
    dataset = CachedDataset(cache)
    wrapper = Forwarding(Subset(Subset(dataset, [7, 0, 5]), [2, 0]))

    ((images, labels),) = DataLoader(wrapper, batch_size=2, sampler=[1, 0], num_workers=workers)

    assert (images == 7).all()
    assert labels.tolist() == [dataset[7][1], dataset[5][1]]


def test_such_a_wrapper_around_a_concatenation(cache):
    wrapper = Forwarding(loaders.ConcatDataset([CachedDataset(cache)]))

    with pytest.warns(UserWarning, match="Forwarding has no __getitems__ but that .*loaders.Batch") as told:
        assert all((images == 7).all() for images, _ in DataLoader(wrapper, batch_size=4))

    assert len(told) == 1


@pytest.mark.filterwarnings("error")
def test_a_forwarding_wrapper_with_batches_of_its_own_is_not_told(cache):
    assert len(list(DataLoader(ForwardingWhole(CachedDataset(cache)), batch_size=4))) == 2


class Mixed(CachedDataset):
    def __getitem__(self, index):
        image, label, *_ = super().__getitem__(index)
        return image + 1, label, str(index)


@pytest.mark.filterwarnings("ignore:.*overrides __getitem__")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_transform_gets_the_whole_batch_of_an_override(cache, workers):
    seen = {"batch_transform": lambda images, labels: (images.flip(0), labels * 10 + len(labels))}
    plain = CachedDataset(cache)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*batches of one")
        loader = DataLoader(Mixed(cache, **seen), batch_size=3, sampler=[7, 0, 1], num_workers=workers)
        ((images, labels, names),) = loader

    assert torch.equal(images, torch.stack([plain[i][0] + 1 for i in (1, 0, 7)]))
    assert labels.tolist() == [13, 3, 3]
    assert names == ("7", "0", "1")


@pytest.mark.filterwarnings("ignore:.*overrides __getitem__")
def test_a_batch_transform_needs_pairs_of_an_override(cache):
    class Named(CachedDataset):
        def __getitem__(self, index):
            return {"image": super().__getitem__(index)[0]}

    dataset = Named(cache, batch_transform=lambda images, labels: (images, labels))

    with pytest.raises(UsageError, match="batch_transform: samples .* expected, Named.__getitem__ gives dict"):
        dataset.__getitems__([0, 1])


@pytest.mark.parametrize("around", [lambda dataset: dataset, lambda dataset: ConcatDataset([dataset])])
def test_a_batch_transform_of_single_samples_is_told_at_once(cache, around):
    dataset = around(CachedDataset(cache, batch_transform=lambda images, labels: (images, labels)))

    with pytest.warns(UserWarning, match="batch_transform sees batches of one.*loaders.ConcatDataset") as told:
        [dataset[0] for _ in range(3)]

    assert len(told) == 1
    assert told[0].filename == __file__ or isinstance(dataset, ConcatDataset)


def test_an_override_is_told_once(cache):
    with pytest.warns(UserWarning, match=r"Doubled overrides __getitem__.*extras\(\).*targets=") as told:
        [list(DataLoader(Doubled(cache), batch_size=4)) for _ in range(2)]

    assert len(told) == 1


def test_a_subclass_that_overrides_other_things_keeps_whole_batches(cache):
    class Named(CachedDataset):
        def __init__(self, *args):
            super().__init__(*args)
            self.name = "mine"

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        batch = Named(cache).__getitems__([0, 1])
    assert batch.images.shape == (2, 3, 8, 8)


RUN = """
import sys
from torch.utils.data import DataLoader, Dataset
from loaders import CachedDataset

class Wrapper(Dataset):
    def __init__(self, inner):
        self.inner = inner
    def __len__(self):
        return 4000
    def __getitem__(self, index):
        return self.inner[index % 8]

if __name__ == "__main__":
    data = Wrapper(CachedDataset(sys.argv[1]))
    for _ in range(int(sys.argv[3])):
        for _ in DataLoader(data, batch_size=100, num_workers=2, multiprocessing_context=sys.argv[2]):
            pass
"""


@pytest.mark.parametrize(("context", "epochs"), [("fork", 2), ("spawn", 1)])
def test_workers_are_told_once_in_a_run(cache, tmp_path, context, epochs):
    file = tmp_path / "train.py"
    file.write_text(textwrap.dedent(RUN))

    run = subprocess.run(
        [sys.executable, file, cache, context, str(epochs)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert 1 <= run.stderr.count("one at a time") <= 2, run.stderr  # 2: both came to it at the same moment
