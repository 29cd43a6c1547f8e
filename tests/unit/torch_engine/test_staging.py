"""Batches come to the host whole, and no buffer is used again before all of its readers are done."""

import threading

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
