"""The pool: memory comes back when nobody can see it any more, and not before."""

import gc
import os

import numpy as np
import pytest
import torch

from loaders.buffers import BufferPool

HALF = np.dtype(np.float16)


def address(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_buffer_is_used_again_once_the_last_view_is_gone():
    pool = BufferPool()
    tensor = torch.from_numpy(pool.take((4, 8), HALF))
    first = tensor.data_ptr()
    view = tensor[1:3]
    del tensor
    gc.collect()
    other = pool.take((4, 8), HALF)
    assert address(other) != first

    del view
    gc.collect()

    assert address(pool.take((4, 8), HALF)) == first


@pytest.mark.parametrize(
    "look",
    [
        lambda t: t[2:],
        lambda t: t.numpy(),
        lambda t: t.untyped_storage(),
        lambda t: memoryview(t.numpy()),
        torch.utils.dlpack.to_dlpack,
        lambda t: t.view(torch.int16).reshape(-1)[5],
        lambda t: t.detach(),
    ],
    ids=["slice", "numpy", "storage", "memoryview", "dlpack", "scalar view", "detached"],
)
def test_whatever_looks_at_a_buffer_keeps_it(look):
    pool = BufferPool()
    tensor = torch.from_numpy(pool.take((4, 8), HALF)).fill_(7)
    first = tensor.data_ptr()
    seen = look(tensor)
    del tensor
    gc.collect()

    taken = [pool.take((4, 8), HALF) for _ in range(6)]

    assert all(address(array) != first for array in taken)
    del seen


def test_old_batches_never_change():
    pool = BufferPool()
    kept = []
    for number in range(40):
        batch = torch.from_numpy(pool.take((16, 16), HALF)).fill_(number)
        if number % 3 == 0:
            kept.append((number, batch[number % 16]))
    assert all((row == number).all() for number, row in kept)


def test_free_buffers_are_bounded():
    pool = BufferPool()
    arrays = [pool.take((1 << 20,), np.dtype(np.uint8)) for _ in range(20)]
    del arrays
    gc.collect()

    assert sum(len(free) for free in pool._free.values()) <= 4


def test_a_forked_child_does_not_write_into_its_parents_buffers():
    pool = BufferPool()
    array = pool.take((1024,), np.dtype(np.uint8))
    array[:] = 1
    child = os.fork()
    if child == 0:
        array[:] = 2
        os._exit(0)
    os.waitpid(child, 0)

    assert (array == 1).all()


def test_an_empty_batch_is_no_special_case():
    assert BufferPool().take((0, 3, 8, 8), HALF).shape == (0, 3, 8, 8)
