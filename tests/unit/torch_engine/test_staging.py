"""Batches come to the host whole, and no buffer is used again before all of its readers are done."""

import gc
import threading
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from preprocess.torch_engine.staging import Staging

NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NO_CUDA])]


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


def batch(seed, device, n=3):
    rng = np.random.default_rng(seed)
    planes = torch.from_numpy(rng.integers(0, 256, (n, 3, 7, 5), dtype=np.uint8)).to(device)
    return [planes.half(), torch.from_numpy(rng.integers(0, 2**40, (n, 2, 3))).to(device)]


def test_tensors_of_any_type_arrive(device):
    staging = Staging(device)
    for seed in range(5):
        given = [*batch(seed, device), torch.arange(7, dtype=torch.uint8, device=device)[::2]]
        staged = staging.copy(given, 1)
        for found, expected in zip(staged.arrays(), given, strict=True):
            np.testing.assert_array_equal(found, expected.cpu().numpy())
        staged.release()


def test_a_buffer_is_used_again_when_its_last_reader_is_done(device):
    staging = Staging(device)
    first = staging.copy(batch(0, device), 2)
    kept = [array.copy() for array in first.arrays()]
    first.release()
    second = staging.copy(batch(1, device), 1)
    for found, expected in zip(first.arrays(), kept, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not np.shares_memory(first.arrays()[0], second.arrays()[0])
    first.release()
    third = staging.copy(batch(2, device), 1)
    assert np.shares_memory(first.arrays()[0], third.arrays()[0])


def test_a_larger_batch_gets_a_larger_buffer(device):
    staging = Staging(device)
    staging.copy(batch(0, device, 1), 1).release()
    given = batch(1, device, 50)
    np.testing.assert_array_equal(staging.copy(given, 1).arrays()[0], given[0].cpu().numpy())


def test_room_is_awaited_when_three_batches_are_on_their_way(device):
    staging = Staging(device)
    held = [staging.copy(batch(seed, device), 1) for seed in range(3)]
    waiting = threading.Thread(target=staging.await_room, daemon=True)
    waiting.start()
    waiting.join(0.1)
    assert waiting.is_alive()
    held[1].release()
    waiting.join(5)
    assert not waiting.is_alive()


def test_what_is_copied_from_is_kept_until_it_is_copied(device):
    """Nothing that comes later may be given its memory: on a GPU the copy may not have begun."""
    staging = Staging(device)
    given = batch(0, device)
    expected = [tensor.cpu().numpy().copy() for tensor in given]
    staged = staging.copy(given, 1)
    del given
    _ = [torch.full((3, 3, 7, 5), 9, dtype=torch.float16, device=device) for _ in range(50)]
    for found, wanted in zip(staged.arrays(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_what_is_copied_from_can_be_given_up_before_anybody_fetches(device):
    staging = Staging(device)
    given = [batch(seed, device) for seed in range(2)]
    expected = [tensors[0].cpu().numpy().copy() for tensors in given]
    watched = [weakref.ref(tensor) for tensors in given for tensor in tensors]
    staged = [staging.copy(tensors, 1) for tensors in given]
    del given
    gc.collect()
    assert all(tensor() is not None for tensor in watched)
    assert staging.let_go()
    gc.collect()
    assert not any(tensor() is not None for tensor in watched)
    assert not staging.let_go()
    for found, wanted in zip(staged, expected, strict=True):
        np.testing.assert_array_equal(found.arrays()[0], wanted)
        found.release()


def test_nothing_is_given_up_before_its_copy_is_over():
    staging, order = Staging(torch.device("cpu")), []
    staged = staging.copy(batch(0, torch.device("cpu")), 1)
    staged._event = SimpleNamespace(synchronize=lambda: order.append(len(staged._sources)))
    assert staging.let_go()
    assert (order, staged._sources) == ([2], [])
    staged.release()
    assert order == [2], "it was waited for"


def test_a_copy_that_cannot_be_begun_takes_no_room(monkeypatch):
    staging = Staging(torch.device("cpu"))

    def refuse(*_, **__):
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.Tensor, "copy_", refuse)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="out of memory"):
            staging.copy(batch(0, torch.device("cpu")), 1)
    waiting = threading.Thread(target=staging.await_room, daemon=True)
    waiting.start()
    waiting.join(5)
    assert not waiting.is_alive()
