"""How fast a cache delivers, warm and cold, through a plain DataLoader. Imports torch."""

import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset

from cache_store.pages import RESIDENT, forget
from cache_store.reader import open_cache
from loaders import CachedDataset, ShardShuffleSampler

_EPOCHS = 3
"""Of which the median counts, if there is time."""


class Part:
    """Some samples of a split, in few shards; all of it if there are no more.

    Parameters
    ----------
    most_samples, most_bytes : how much is read
    """

    def __init__(self, cache: str, split: str, batch: int, most_samples: int, most_bytes: int) -> None:
        self._cache, self._split = cache, split
        with self._dataset() as dataset, open_cache(cache) as opened:
            reader = opened.tensors(split)
            count = max(1, min(len(dataset), most_samples, most_bytes // reader.chunk_bytes))
            order = islice(self._sampler(dataset), count)  # shard by shard, as it would be read
            self.indices = np.fromiter(order, np.int64, count)
            shards = np.unique(dataset.shards(0)[self.indices]).tolist()
            self.files: list[Path] = [reader.shard_file(shard) for shard in shards]
        self.batch = min(batch, count)

    def _dataset(self, dtype: torch.dtype = torch.float32) -> CachedDataset:
        return CachedDataset(self._cache, self._split, dtype=dtype, variant=0)

    def _sampler(self, dataset: CachedDataset) -> ShardShuffleSampler:
        return ShardShuffleSampler(dataset, num_replicas=1, rank=0)

    def shuffled(self, dataset: CachedDataset) -> "DataLoader[Any]":
        return DataLoader(Subset(dataset, self.indices.tolist()), batch_size=self.batch, shuffle=True)

    def in_order(self, dataset: CachedDataset) -> "DataLoader[Any]":
        return DataLoader(dataset, batch_size=self.batch, sampler=self._sampler(dataset))

    def warm(self, dtype: torch.dtype, seconds: float) -> float:
        """Images a second of an epoch whose pages are in memory."""
        ends = time.perf_counter() + seconds
        with self._dataset(dtype) as dataset:
            loader = self.shuffled(dataset)
            rates = [self._epoch(loader, ends)]
            while len(rates) <= _EPOCHS or time.perf_counter() < ends:
                rates.append(self._epoch(loader, ends))
                if time.perf_counter() > ends + seconds:
                    break
        return statistics.median(rates[1:] or rates)  # the first epoch brought the pages

    def cold(self, loader_of: "Callable[[CachedDataset], DataLoader[Any]]", seconds: float) -> float:
        """Images a second of a first epoch, or of its beginning, whose pages were dropped from memory.

        Raises
        ------
        OSError : they were not
        """
        left = forget(self.files)
        if left >= RESIDENT:
            raise OSError(f"{left:.0%} of it stays in memory: somebody has it mapped, or its file system has no disk")
        with self._dataset() as dataset:
            return self._epoch(loader_of(dataset), time.perf_counter() + seconds)

    def _epoch(self, loader: "DataLoader[Any]", ends: float) -> float:
        begun, count = time.perf_counter(), 0
        batches: Iterator[Any] = iter(loader)
        for _, labels in batches:
            count += len(labels)
            if count >= len(self.indices) or time.perf_counter() >= ends:
                break
        return count / (time.perf_counter() - begun)
