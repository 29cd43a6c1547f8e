"""ConcatDataset: several datasets as one, in whole batches."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset as TorchConcatDataset

from loaders.collate import Batch
from loaders.gather import THREADED_BYTES
from loaders.indices import integers, within
from loaders.memory import batch_memory, plain_memory
from loaders.threads import THREADS


class ConcatDataset(TorchConcatDataset[Any]):
    """`torch.utils.data.ConcatDataset` at the speed of whole batches; `first + second` of CachedDatasets is one.

    The samples of a batch are fetched from each dataset together, and put into the order that was asked for.

    Parameters
    ----------
    datasets : one or more; those without `__getitems__` are asked for sample after sample
    """

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        """A whole batch, as `DataLoader` asks for it.

        Raises
        ------
        TypeError : an index that is no integer
        IndexError : beyond the last sample
        """
        numbers = within(integers(indices), len(self), "the concatenation")
        which = np.searchsorted(self.cumulative_sizes, numbers, side="right")
        parts, places = [], []
        for number in np.unique(which).tolist():
            here = np.flatnonzero(which == number)
            start = self.cumulative_sizes[number - 1] if number else 0
            parts.append(_fetched(self.datasets[number], (numbers[here] - start).tolist()))
            places.append(here)
        if len(parts) == 1:
            return parts[0]
        merged = _merged(parts, places)
        return _in_order(parts, places) if merged is None else merged


def _fetched(dataset: Any, indices: list[int]) -> Sequence[Any]:
    whole = getattr(dataset, "__getitems__", None)
    fetched: Sequence[Any] = whole(indices) if callable(whole) else [dataset[index] for index in indices]
    return fetched


def _merged(parts: Sequence[Sequence[Any]], places: list[np.ndarray]) -> Batch | None:
    """One batch; None: the parts do not have the same columns."""
    columns = [(part.images, part.labels, *part.extras) for part in parts if isinstance(part, Batch)]
    if len(columns) < len(parts) or len({len(each) for each in columns}) > 1:
        return None
    if len({_kinds(each) for each in columns}) > 1:
        return None
    images, *others = (_merged_column(each, places) for each in zip(*columns, strict=True))
    return Batch(images, *others)


def _kinds(columns: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple((each.dtype, each.shape[1:]) if isinstance(each, torch.Tensor) else tuple for each in columns)


def _merged_column(parts: tuple[Any, ...], places: list[np.ndarray]) -> Any:
    if not isinstance(parts[0], torch.Tensor):
        return _in_order(parts, places)
    count = sum(map(len, parts))
    memory = batch_memory if parts[0].dim() == 4 else plain_memory
    out = memory((count, *parts[0].shape[1:]), parts[0].dtype)
    rows = _as_bytes(out)
    for part, here in zip(parts, places, strict=True):
        data = _as_bytes(part)

        def copy(a: int, b: int, data: np.ndarray = data, here: np.ndarray = here) -> None:
            rows[here[a:b]] = data[a:b]

        if rows.nbytes < THREADED_BYTES:
            copy(0, len(here))
        else:
            THREADS.over(len(here), copy)
    return out


def _as_bytes(tensor: torch.Tensor) -> np.ndarray:
    """Each sample's memory as uint8 (n, bytes), a view."""
    flat = tensor.contiguous().view(len(tensor), -1) if tensor[0].numel() else tensor.new_empty(len(tensor), 0)
    return flat.view(torch.uint8).numpy()


def _in_order(parts: Sequence[Sequence[Any]], places: list[np.ndarray]) -> list[Any]:
    samples: list[Any] = [None] * sum(map(len, parts))
    for part, here in zip(parts, places, strict=True):
        for sample, place in zip(part, here.tolist(), strict=True):
            samples[place] = sample
    return samples
