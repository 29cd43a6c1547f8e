"""CachedDataset: index -> (tensor, label), out of mapped shards."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cache_store import layout
from cache_store.errors import NotFoundError, UsageError
from cache_store.normalise import normalisation_table, normalise
from cache_store.reader import Cache, open_cache

_NOT_SET = -1
_DTYPES = (torch.float16, torch.float32, torch.bfloat16)


class CachedDataset(Dataset[tuple[torch.Tensor, int]]):
    """One split of a cache as a map-style dataset.

    Every process maps the cache for itself when it first needs it; a pickled dataset carries the name of its snapshot,
    so that all workers see the same one whatever is built meanwhile.

    Parameters
    ----------
    cache : folder of the cache
    split : name of the split
    snapshot : name of a snapshot; None: the one in force now
    dtype : of the images: torch.float16, torch.float32 or torch.bfloat16, normalised; torch.uint8: the 8-bit pixels
        of a uint8 cache as they are. None: float16
    variant : always this variant; None: see `set_epoch`
    transform : called with each image, gives what the dataset returns in its place
    target_transform : the same for labels

    Attributes
    ----------
    classes : names of all classes, by class id; class_to_idx : the inverse
    targets : class id of each sample, -1 for unlabelled ones
    samples : (path relative to SOURCE, class id) of each sample
    failures : path, stage and reason of each image that the build left out
    mean, std : in force, in 0..1, one value a channel
    snapshot_id : name of the snapshot
    variants : K

    Raises
    ------
    NotFoundError : no such cache, split, snapshot or sample
    IntegrityError : missing or damaged bytes; names sample and file
    """

    def __init__(
        self,
        cache: str | os.PathLike[str],
        split: str = "train",
        snapshot: str | None = None,
        *,
        dtype: torch.dtype | None = None,
        variant: int | None = None,
        transform: Callable[[torch.Tensor], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        self._path = os.path.abspath(os.fspath(cache))
        self._split = split
        self._dtype = dtype
        self.transform, self.target_transform = transform, target_transform
        opened = open_cache(self._path, snapshot)
        self._cache: Cache | None = opened
        self.snapshot_id = opened.snapshot.name
        table = opened.split(split)
        self.variants = table.variants
        if variant is not None and not 0 <= variant < self.variants:
            opened.close()
            raise NotFoundError(f"split {split!r} has variants 0 to {self.variants - 1}, there is no {variant}")
        stored = opened.tensors(split).dtype
        allowed = _DTYPES if stored != np.uint8 else (*_DTYPES, torch.uint8)
        if dtype is not None and dtype not in allowed:
            opened.close()
            *names, last = (str(each).removeprefix("torch.") for each in allowed)
            raise UsageError(f"dtype {dtype}: {', '.join(names)} or {last} expected, as the cache holds {stored.name}")
        self._table = (
            normalisation_table(table.mean, table.std) if stored == np.uint8 and dtype != torch.uint8 else None
        )
        self._fixed_variant = variant
        self._epoch = torch.full((1,), _NOT_SET, dtype=torch.int64).share_memory_()  # workers see it change
        self._length = len(table)
        self.mean, self.std = list(table.mean), list(table.std)
        self.classes = list(opened.snapshot.classes)
        self.class_to_idx = {name: number for number, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """Image (C, H, W) in memory of its own, writable, and class id.

        Raises
        ------
        IndexError : beyond the last sample
        """
        number = int(index)
        if not -self._length <= number < self._length:
            raise IndexError(f"sample {number} of {self._length}")
        number %= self._length
        opened = self._opened()
        stored = opened.image(self._split, number, self._variant())
        image = torch.from_numpy(np.array(stored) if self._table is None else normalise(stored, self._table))
        if self._dtype is not None:
            image = image.to(self._dtype)
        label = int(opened.split(self._split)["label"][number])
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )

    def set_epoch(self, epoch: int) -> None:
        """From now on variant `epoch` mod K, in this process and in every worker that has the dataset already."""
        if epoch < 0:
            raise UsageError(f"epoch: 0 or more expected, found {epoch}")
        self._epoch[0] = epoch

    def _variant(self) -> int:
        """The fixed one; else that of the epoch; else drawn from torch's generator of this process."""
        if self._fixed_variant is not None:
            return self._fixed_variant
        if self.variants == 1:
            return 0
        epoch = int(self._epoch[0])
        return epoch % self.variants if epoch != _NOT_SET else int(torch.randint(self.variants, ()))

    @property
    def targets(self) -> list[int]:
        labels: list[int] = self._opened().split(self._split)["label"].tolist()
        return labels

    @property
    def samples(self) -> list[tuple[str, int]]:
        paths = self._opened().split(self._split).paths()
        return [(os.fsdecode(path), label) for path, label in zip(paths, self.targets, strict=True)]

    @property
    def failures(self) -> list[dict[str, Any]]:
        listed = self._opened().snapshot.failures
        return [dict(f) | {"path": layout.text_to_name(f["path"])} for f in listed]

    def _opened(self) -> Cache:
        if self._cache is None:
            self._cache = open_cache(self._path, self.snapshot_id)
        return self._cache

    def close(self) -> None:
        """Give up the hold on the snapshot; the next access takes it again."""
        if self._cache is not None:
            self._cache.close()
            self._cache = None

    def __enter__(self) -> "CachedDataset":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": None}
