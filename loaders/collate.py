"""The sample type that a plain DataLoader collates for nothing.

`DataLoader` asks for a whole batch through `__getitems__`, then calls `default_collate` on what it gets. That looks up
the type of the first element in a table of its own; ours is entered there, and hands over what is gathered already.
"""

from collections.abc import Sequence, Sized
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils.collate import default_collate_fn_map
from torch.utils.data.dataloader import default_collate

from cache_store.errors import UsageError

_AS_NUMBERS = (torch.int64, torch.float64, torch.bool)
"""Types that `default_collate` gives back for Python's numbers; others would not survive as such."""


class Sample(tuple[Any, ...]):
    """(image, label, …) of a gathered batch; the image is a view of the batch's memory."""

    __slots__ = ()


class Batch(Sequence[Sample]):
    """What a dataset's `__getitems__` gives a DataLoader: whole columns, that `default_collate` hands over uncopied.

    It looks like a list of samples, (image, label, …); they are made when asked for. An int64, float64 or bool is
    Python's number there, everything else a tensor: collated again, they have the type of their column.

    Parameters
    ----------
    images : (n, C, H, W)
    labels : (n,) or (n, …); handed over as they are
    extras : further columns, each a tensor, an array or a list of n entries

    Attributes
    ----------
    images, labels : as given
    extras : arrays are tensors now, lists are tuples

    Raises
    ------
    UsageError : columns of different lengths, or a column of another kind
    """

    def __init__(self, images: torch.Tensor, labels: Any, *extras: Any) -> None:
        self.images, self.labels = images, labels
        self._length = len(images)
        self.extras = [as_column(each, self._length) for each in extras]
        self._check_labels()

    def _replace(self, images: Any, labels: Any) -> None:
        """Take other images and labels; other kinds than tensors are handed over as they are.

        Raises
        ------
        UsageError : their lengths differ from one another, or from that of the extras
        """
        if isinstance(images, torch.Tensor) and images.dim() and len(images) != self._length:
            self.extras = [as_column(each, len(images)) for each in self.extras]
            self._length = len(images)
        self.images, self.labels = images, labels
        self._check_labels()

    def _check_labels(self) -> None:
        labels = self.labels
        if isinstance(labels, torch.Tensor | np.ndarray) and labels.ndim and len(labels) != self._length:
            raise UsageError(f"labels of a batch: {self._length} expected, one for each image, found {len(labels)}")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not -self._length <= place < self._length:
            raise IndexError(f"the batch has samples 0 to {len(self) - 1}, there is no {place}")
        extras = [entry(column, place) for column in self.extras]
        return Sample((self.images[place], entry(self.labels, place), *extras))

    def collated(self) -> list[Any]:
        """What `default_collate` would have put together from the samples, uncopied."""
        batch = [self.images, self.labels]
        for each in self.extras:
            batch.append(each if isinstance(each, torch.Tensor) else default_collate(each))
        return batch


def as_column(values: Any, count: int) -> Any:
    """A tensor, or a tuple of what collates otherwise (strings, say), of `count` entries.

    Raises
    ------
    UsageError : another number of entries, or neither a tensor, an array, a list nor a tuple
    """
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.array(values)) if values.dtype.kind in "biufc" else values.tolist()
    is_single = isinstance(values, torch.Tensor) and values.dim() == 0
    if is_single or not isinstance(values, torch.Tensor | list | tuple) or len(values) != count:
        kind = "a single value" if is_single else type(values).__name__
        what = f"{len(values)} entries" if isinstance(values, Sized) and not is_single else kind
        raise UsageError(
            f"a column of a batch: a tensor, an array or a list with one entry for each of {count} samples expected, "
            f"found {what}"
        )
    return values if isinstance(values, torch.Tensor) else tuple(values)


def entry(column: Any, place: int) -> Any:
    """What one sample has of a column."""
    value = column[place]
    if isinstance(value, torch.Tensor) and value.dim() == 0 and value.dtype in _AS_NUMBERS:
        return value.item()
    return value


def entries(column: Any) -> Sequence[Any]:
    """What each sample has of a column."""
    if isinstance(column, torch.Tensor):
        return column.tolist() if column.dim() == 1 and column.dtype in _AS_NUMBERS else column.unbind()
    values: Sequence[Any] = column
    return values


def _collate(batch: Sequence[Sample], *, collate_fn_map: object = None) -> Any:
    """What `default_collate` makes of a list of (image, label): a list of the two batches."""
    if isinstance(batch, Batch):
        return batch.collated()
    return default_collate([tuple(sample) for sample in batch])  # taken apart and put together by somebody else


default_collate_fn_map[Sample] = _collate
