"""What is said once: ways of loading that are slower than they need be, and operations that do not fit."""

import os
import sys
import warnings
from multiprocessing import process
from pathlib import Path

import torch
from torch.utils.data import get_worker_info

from loaders.shared import Shared

MANY = 1000
"""Single samples that a process may fetch before it is told."""

_WORKERS, _SINGLE, _COLOURS, _ALONE = 1, 2, 4, 8
_ELSEWHERE = tuple(str(Path(file).parent) + os.sep for file in (__file__, torch.__file__, process.__file__))


class _Singles:
    """Samples fetched one by one in this process, and whether it was told."""

    def __init__(self) -> None:
        self.count, self.told = 0, False


_singles = _Singles()
os.register_at_fork(after_in_child=_singles.__init__)  # type: ignore[misc]


def say(text: str) -> None:
    """Warn, with the line of the user's script that led here."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_ELSEWHERE):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


def workers_cost(shared: Shared) -> None:
    """Say once a run, not once a worker, that worker processes cost speed here."""
    worker = get_worker_info()
    if worker is not None and worker.id == 0 and shared.first_warning(_WORKERS):
        say(
            "CachedDataset is faster without worker processes: batches are copied straight out of the mapped cache, "
            "and workers copy them a second time; use num_workers=0 (decant bench SOURCE CACHE measures it)"
        )


def single_sample(shared: Shared) -> None:
    """Count a sample that is fetched alone; say once that many were."""
    _singles.count += 1
    if _singles.count >= MANY and not _singles.told:
        _say_slow(
            f"CachedDataset: {MANY:,} samples were fetched one at a time (dataset[i]), several times slower than whole "
            "batches. DataLoader fetches whole batches from the dataset itself and through Subset. Use "
            "loaders.ConcatDataset in the place of torch's; give a dataset that wraps this one a __getitems__ that "
            "takes dataset[indices], all samples of a batch at once, and returns a loaders.Batch",
            shared,
        )


def overridden(cls: type, instead: str, shared: Shared | None) -> None:
    """Say once that a subclass has batches put together from single samples."""
    if not _singles.told:
        _say_slow(
            f"{cls.__name__} overrides __getitem__, so its batches are put together from single samples, several times "
            f"slower than whole batches. {instead}",
            shared,
        )


def wrapped(cls: type, shared: Shared | None) -> None:
    """Say once that a wrapping dataset has batches put together from single samples."""
    if not _singles.told:
        _say_slow(
            f"{cls.__name__} has no __getitems__ but that of the dataset which it wraps, found by __getattr__, so its "
            "batches are put together from its own single samples, several times slower than whole batches. Give it a "
            "__getitems__ that takes dataset[indices], all samples of a batch at once, and returns a loaders.Batch",
            shared,
        )


def batches_of_one(shared: Shared) -> None:
    """Say once that a batch transform has nothing to mix."""
    if shared.first_warning(_ALONE):
        say(
            "CachedDataset: batch_transform sees batches of one where samples are fetched one at a time (dataset[i]), "
            "so MixUp or CutMix mix each sample with itself. DataLoader fetches whole batches from the dataset itself "
            "and through Subset; use loaders.ConcatDataset in the place of torch's, give a dataset that wraps this one "
            "a __getitems__ that takes dataset[indices], or mix in the training loop"
        )


def colours(text: str, shared: Shared) -> None:
    """Say that colour operations do not fit, in one process of a run's workers."""
    if get_worker_info() is None or shared.first_warning(_COLOURS):
        say(text)


def _say_slow(text: str, shared: Shared | None) -> None:
    _singles.told = True
    worker = get_worker_info()
    # Other workers of the run have the same dataset.
    if shared.first_warning(_SINGLE) if shared is not None else worker is None or worker.id == 0:
        say(text)
