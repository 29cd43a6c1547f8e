"""The sample type that a plain DataLoader collates for nothing.

`DataLoader` asks for a whole batch through `__getitems__`, then calls `default_collate` on what it gets. That looks up
the type of the first element in a table of its own; ours is entered there, and hands over what is gathered already.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data._utils.collate import default_collate_fn_map
from torch.utils.data.dataloader import default_collate


class Sample(tuple[torch.Tensor, int | torch.Tensor]):
    """(image, label) of a gathered batch; the image is a view of the batch's memory."""

    __slots__ = ()


class GatheredBatch(Sequence[Sample]):
    """A batch that looks like a list of samples; they are made when asked for.

    Attributes
    ----------
    images : (n, C, H, W)
    labels : int64 (n,), or what a batch transform has made of it
    """

    def __init__(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(f"the batch has samples 0 to {len(self) - 1}, there is no {place}")
        label = self.labels[place]
        return Sample((self.images[place], int(label) if label.dim() == 0 else label))


def _collate(batch: Sequence[Sample], *, collate_fn_map: object = None) -> Any:
    """What `default_collate` makes of a list of (image, label): a list of the two batches."""
    if isinstance(batch, GatheredBatch):
        return [batch.images, batch.labels]
    return default_collate([tuple(sample) for sample in batch])  # taken apart and put together by somebody else


default_collate_fn_map[Sample] = _collate
