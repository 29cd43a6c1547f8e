"""CachedDataset: index -> (tensor, label), out of mapped shards."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from cache_store import layout
from cache_store.errors import IntegrityError, NotFoundError, UsageError
from cache_store.normalise import normalisation_table
from cache_store.reader import Cache, open_cache
from loaders.collate import GatheredBatch
from loaders.convert import normalise_batch
from loaders.gather import Gatherer
from loaders.memory import as_array, batch_memory, pooled

_Memory = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]

_NOT_SET = -1
_DTYPES = (torch.float16, torch.float32, torch.bfloat16)
_TORCH_TYPES = {"float16": torch.float16, "uint8": torch.uint8}


def _plain_memory(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """For a single image: neither a pooled buffer nor shared memory is worth it."""
    return torch.empty(shape, dtype=dtype)


class CachedDataset(Dataset[tuple[torch.Tensor, int]]):
    """One split of a cache as a map-style dataset.

    `DataLoader(dataset, batch_size=256, shuffle=True)` gets whole batches, copied once out of the mapped shards into
    memory that is used again; worker processes would only add a second copy.

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
        self._dtype = dtype or torch.float16
        self.transform, self.target_transform = transform, target_transform
        opened = open_cache(self._path, snapshot)
        self._cache: Cache | None = opened
        self._gatherer: Gatherer | None = None
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
        # Shared, so that workers that are there already see it change: the epoch, and whether a worker has warned.
        self._shared = torch.tensor([_NOT_SET, 0]).share_memory_()
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
        images, labels = self._batch([index], _plain_memory)
        return self._transformed(images[0], int(labels[0]))

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        """A whole batch, as `DataLoader` asks for it: gathered at once, and collated for nothing.

        Raises
        ------
        IndexError : beyond the last sample
        """
        images, labels = self._batch(indices, batch_memory)
        if self.transform is None and self.target_transform is None:
            self._advise()
            return GatheredBatch(images, labels)
        return [self._transformed(image, label) for image, label in zip(images, labels.tolist(), strict=True)]

    def _batch(self, indices: Sequence[int], memory: _Memory) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (n, C, H, W) in memory of their own, and labels (n,)."""
        numbers = np.asarray(indices, np.int64).flatten()  # a copy: the caller's indices stay as they are
        wrong = numbers[(numbers < -self._length) | (numbers >= self._length)]
        if len(wrong):
            raise IndexError(f"sample {wrong[0]} of {self._length}")
        numbers[numbers < 0] += self._length
        opened = self._opened()
        table, reader = opened.split(self._split), opened.tensors(self._split)
        variants = self._variants(len(numbers))
        if self._gatherer is None:
            self._gatherer = Gatherer(reader, int(table["slot"].max(initial=-1)) + 1)
        shape = (len(numbers), *reader.shape)
        images = memory(shape, self._dtype)
        is_stored_type = str(self._dtype).removeprefix("torch.") == reader.dtype.name
        stored = as_array(images if is_stored_type else pooled(shape, _TORCH_TYPES[reader.dtype.name]))
        try:
            self._gatherer.gather(table["slot"][numbers, variants], stored)
        except IntegrityError:
            for number, variant in zip(numbers.tolist(), variants.tolist(), strict=True):
                opened.image(self._split, number, variant)  # says which sample it is
            raise
        if not is_stored_type:
            self._convert(stored, images)
        return images, torch.from_numpy(table["label"][numbers])

    def _convert(self, stored: np.ndarray, images: torch.Tensor) -> None:
        """Stored values into `images`: 8-bit ones through the table, then to the dataset's type."""
        if self._table is None:
            images.copy_(torch.from_numpy(stored).view(torch.float16))
            return
        halves = images if self._dtype == torch.float16 else pooled(tuple(images.shape), torch.float16)
        normalise_batch(stored, self._table, as_array(halves).view(np.float16))
        if halves is not images:
            images.copy_(halves)

    def _transformed(self, image: torch.Tensor, label: int) -> tuple[Any, Any]:
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )

    def _advise(self) -> None:
        """Say once a run, not once a worker, that worker processes cost speed here."""
        if get_worker_info() is not None and not self._shared[1]:
            self._shared[1] = 1
            warnings.warn(
                "CachedDataset is faster without worker processes: batches are copied straight out of the mapped "
                "cache, and workers copy them a second time; use num_workers=0",
                stacklevel=2,
            )

    def set_epoch(self, epoch: int) -> None:
        """From now on variant `epoch` mod K, in this process and in every worker that has the dataset already."""
        if epoch < 0:
            raise UsageError(f"epoch: 0 or more expected, found {epoch}")
        self._shared[0] = epoch

    def _variants(self, count: int) -> np.ndarray:
        """For each sample the fixed variant; else that of the epoch; else one drawn from torch's generator."""
        if self._fixed_variant is not None:
            return np.full(count, self._fixed_variant, np.int64)
        if self.variants == 1:
            return np.zeros(count, np.int64)
        epoch = int(self._shared[0])
        if epoch == _NOT_SET:
            return torch.randint(self.variants, (count,)).numpy()
        return np.full(count, epoch % self.variants, np.int64)

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
            self._cache = self._gatherer = None

    def __enter__(self) -> "CachedDataset":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": None, "_gatherer": None}
