"""ConcatDataset: several datasets as one, in whole batches."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset as TorchConcatDataset
from torch.utils.data import Subset, default_collate

from cache_store.errors import UsageError
from loaders.advice import say
from loaders.collate import Batch
from loaders.gather import THREADED_BYTES
from loaders.indices import integer, integers, within
from loaders.memory import batch_memory, plain_memory
from loaders.overrides import Overridable, forwards
from loaders.threads import THREADS

_WHERE = "the concatenation"


class ConcatDataset(Overridable, TorchConcatDataset[Any]):
    """`torch.utils.data.ConcatDataset` at the speed of whole batches; `first + second` of CachedDatasets is one.

    The samples of a batch are fetched from each dataset together, and put into the order that was asked for.

    Parameters
    ----------
    datasets : one or more; those without `__getitems__` are asked for sample after sample

    Raises
    ------
    UsageError : CachedDatasets, or Subsets of them, of which classes of one name have different ids (unless `targets`
        or `target_transform` gives their labels), or pixels beside normalised images (unless transformed). Another
        `mean` and `std` is warned of
    """

    def __init__(self, datasets: Iterable[Any]) -> None:
        super().__init__(datasets)
        _check_fit(self.datasets)

    def __getitem__(self, index: Any) -> Any:
        """A sample of one of the datasets; of a list of integers, a 1-d array or tensor the batch, as CachedDataset.

        Raises
        ------
        TypeError : an index of another kind
        IndexError : beyond the last sample
        """
        number = integer(index)
        if number is None:
            whole = self._whole(integers(index, (list,)))
            batch = whole.collated() if isinstance(whole, Batch) else default_collate(list(whole))
            return tuple(batch) if isinstance(batch, list) else batch
        (number,) = within(integers([number]), len(self), _WHERE).tolist()
        which = bisect_right(self.cumulative_sizes, number)
        return self.datasets[which][number - (self.cumulative_sizes[which - 1] if which else 0)]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        """A whole batch, as `DataLoader` asks for it; of single samples where a subclass overrides `__getitem__`.

        Raises
        ------
        TypeError : an index that is no integer
        IndexError : beyond the last sample
        """
        if (found := self._single(indices)) is not None:
            single, asked = found
            return [single(index) for index in asked]
        return self._whole(integers(indices))

    def _whole(self, numbers: np.ndarray) -> Sequence[Any]:
        within(numbers, len(self), _WHERE)
        if not len(numbers):
            return _fetched(self.datasets[0], [])
        which = np.searchsorted(self.cumulative_sizes, numbers, side="right")
        parts, places = [], []
        for number in np.unique(which).tolist():
            here = np.flatnonzero(which == number)
            start = self.cumulative_sizes[number - 1] if number else 0
            parts.append(_fetched(self.datasets[number], (numbers[here] - start).tolist()))
            places.append(here)
        if len(parts) == 1:
            return parts[0]
        for part, here in zip(parts, places, strict=True):
            if len(part) != len(here):
                raise UsageError(
                    f"ConcatDataset: {len(here)} samples were asked of one dataset, and {len(part)} came; a "
                    "batch_transform that drops or adds samples cannot be part of it"
                )
        merged = _merged(parts, places)
        return _in_order(parts, places) if merged is None else merged


def _check_fit(datasets: Sequence[Any]) -> None:
    """Refuse CachedDatasets that mean different things by a label or by a value; warn of other statistics."""
    ids: dict[str, tuple[int, str]] = {}
    values: dict[bool, Any] = {}  # whether they are pixels: the first dataset
    for each in _cached(datasets):
        here = f"{each._path!r}, split {each.split!r}"
        for name, number in each.class_to_idx.items() if each._own is each.target_transform is None else ():
            known, there = ids.setdefault(name, (number, here))
            if known != number:
                raise UsageError(
                    f"ConcatDataset: class {name!r} is {known} in {there} and {number} in {here}; list "
                    "'classes' in both recipes to pin them, or open one with targets= or target_transform="
                )
        if each.transform is not None or each.batch_transform is not None:
            continue
        first = values.setdefault(each._dtype == torch.uint8, each)
        if len(values) > 1:
            raise UsageError(
                f"ConcatDataset: {values[True]._path!r} gives pixels (uint8) and {values[False]._path!r} "
                "normalised images; open both with the same dtype="
            )
        if each._dtype != torch.uint8 and (each.mean, each.std) != (first.mean, first.std):
            say(
                f"ConcatDataset: {first._path!r} and {here} are normalised with different mean and std, "
                "so the same pixels have different values; fix `normalize` in both recipes, or take pixels: "
                "CachedDataset(…, dtype=torch.uint8) out of caches with dtype: uint8"
            )


def _cached(datasets: Sequence[Any]) -> Iterator[Any]:
    """The CachedDatasets of which others are made."""
    from loaders.dataset import CachedDataset

    for each in datasets:
        if isinstance(each, TorchConcatDataset):
            yield from _cached(each.datasets)
        elif isinstance(each, Subset):
            yield from _cached([each.dataset])
        elif isinstance(each, CachedDataset):
            yield each


def _fetched(dataset: Any, indices: list[int]) -> Sequence[Any]:
    whole = None if forwards(dataset) else getattr(dataset, "__getitems__", None)
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
