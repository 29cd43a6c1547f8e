"""Where a batch lives: pooled memory, or in a worker process the shared memory that it travels through anyway."""

import numpy as np
import torch
from torch.utils.data import get_worker_info

from loaders.buffers import POOL


def batch_memory(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of undefined content; its memory is its own until the last view over it is gone."""
    if get_worker_info() is None:
        return pooled(shape, dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    storage = torch.UntypedStorage._new_shared(size)  # what torch's own default_collate does in a worker
    return torch.tensor([], dtype=dtype, device="cpu").set_(storage).view(shape)


def pooled(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The same out of this process's pool."""
    # numpy has no bfloat16: any type of the same width does for the memory.
    return torch.from_numpy(POOL.take(shape, np.dtype(f"u{dtype.itemsize}"))).view(dtype)


def plain_memory(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """The same fresh from the system: for what is too small to be pooled or to be in shared memory from the start."""
    return torch.empty(shape, dtype=dtype, device="cpu")  # whatever device the script made its default


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's memory as unsigned integers of its width, a view."""
    return tensor.view({1: torch.uint8, 2: torch.int16, 4: torch.int32}[tensor.dtype.itemsize]).numpy()
