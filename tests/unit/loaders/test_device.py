"""to_device: the same batches, moved and converted, fetched ahead, with every error and end handed on."""

import threading
import time
from typing import NamedTuple

import pytest
import torch
from torch.utils.data import DataLoader

from cache_store.errors import UsageError
from loaders import CachedDataset, to_device
from preprocess import build
from tests.helpers import TINY, image_folder


@pytest.fixture(scope="module")
def loader(tmp_path_factory):
    root = tmp_path_factory.mktemp("device")
    image_folder(root / "photos", count=10)
    build(root / "photos", root / "cache", TINY, workers=1)
    return DataLoader(CachedDataset(root / "cache"), batch_size=8)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "decant-device"]


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_the_same_batches_converted_every_time(loader, prefetch):
    moved = to_device(loader, "cpu", dtype=torch.float32, memory_format=torch.channels_last, prefetch=prefetch)

    for _ in range(2):
        batches = list(moved)
        assert len(batches) == len(moved) == 3
        for (images, labels), (expected, numbers) in zip(batches, loader, strict=True):
            assert images.dtype == torch.float32
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(images, expected.float())
            assert torch.equal(labels, numbers)
    assert not threads()


def test_without_a_type_batches_are_as_they_are(loader):
    ((images, _), *_) = to_device(loader, "cpu")

    assert images.dtype == torch.float16


class Pair(NamedTuple):
    left: torch.Tensor
    right: object


def test_whatever_a_loader_gives():
    batch = {
        "a": [torch.ones(2), "text"],
        "b": Pair(torch.zeros(1, dtype=torch.int64), None),
        "c": (torch.ones(1, 1, 1, 1),),
    }

    (moved,) = to_device([batch], "cpu", dtype=torch.bfloat16)

    assert moved["a"][0].dtype == torch.bfloat16
    assert moved["a"][1] == "text"
    assert isinstance(moved["b"], Pair)
    assert moved["b"].left.dtype == torch.int64  # labels stay what they are
    assert moved["c"][0].dtype == torch.bfloat16


@pytest.mark.parametrize("prefetch", [1, 3])
def test_batches_are_fetched_ahead_but_not_for_ever(prefetch):
    fetched = []

    def source():
        for number in range(50):
            fetched.append(number)
            yield torch.tensor(number)

    batches = iter(to_device(source(), "cpu", prefetch=prefetch))
    assert int(next(batches)) == 0
    deadline = time.monotonic() + 10
    while len(fetched) < 1 + prefetch and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)

    assert fetched == list(range(1 + prefetch))  # one that is trained on, and so many ahead
    batches.close()
    assert not threads()


def test_an_error_of_the_loader_arrives_after_the_batches_before_it():
    def source():
        yield torch.tensor(1)
        raise KeyError("broken")

    batches = iter(to_device(source(), "cpu"))

    assert int(next(batches)) == 1
    with pytest.raises(KeyError, match="broken"):
        next(batches)
    assert not threads()


def test_a_loop_that_is_left_early_ends_the_thread(loader):
    for _ in to_device(loader, "cpu"):
        break

    assert not threads()


@pytest.mark.parametrize("arguments", [{"prefetch": 0}, {"dtype": torch.int64}, {"dtype": torch.uint8}])
def test_what_cannot_be_meant_is_refused(loader, arguments):
    with pytest.raises(UsageError, match="expected, found"):
        to_device(loader, "cpu", **arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("pin", [True, False])
def test_cuda(loader, pin):
    pinned = DataLoader(loader.dataset, batch_size=8, pin_memory=pin)
    moved = to_device(pinned, "cuda", dtype=torch.float32, memory_format=torch.channels_last)
    for _ in range(20):
        for (images, labels), (expected, numbers) in zip(moved, loader, strict=True):
            assert images.device.type == labels.device.type == "cuda"
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert torch.equal(images.cpu(), expected.float())
            assert torch.equal(labels.cpu(), numbers)
