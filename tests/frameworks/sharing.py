"""One of two processes that train under Accelerate: `python sharing.py RANK PORT CACHE OUT`.

Goes through all cases, and writes what each gave as JSON. A process costs seconds to start, a case milliseconds.
"""

import datetime
import json
import os
import sys
import tempfile
import warnings
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration, skip_first_batches
from accelerate.state import AcceleratorState, GradientState
from torch.utils.data import BatchSampler, DataLoader

from cache_store.errors import UsageError
from loaders import CachedDataset, ShardShuffleSampler, to_device

BATCH = 4
TIMEOUT_S = 120
SETTINGS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "split": {"split_batches": True},
    "uneven": {"even_batches": False},
    "dispatch": {"dispatch_batches": True},
    "dispatch, split": {"dispatch_batches": True, "split_batches": True},
    "stateful": {"use_stateful_dataloader": True},
    "seedable": {"use_seedable_sampler": True},
}

CASES = "settings made_before batch_sampler to_device given not_prepared resumed skipped".split()


class Numbered(CachedDataset):
    """Gives each sample's number as its label."""

    def __getitems__(self, indices):
        batch = super().__getitems__(indices)
        batch.labels = torch.as_tensor(indices)
        return batch


def accelerator(**settings: Any) -> Accelerator:
    AcceleratorState._reset_state()
    GradientState._reset_state()
    return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**settings))


def numbers(batches: Any) -> list[int]:
    return [int(number) for _, labels in batches for number in labels]


class Cases:
    """A method for each of CASES gives what can be written as JSON."""

    def __init__(self, cache: str, rank: int) -> None:
        self.cache, self.rank = cache, rank

    def sampler(self, **options: Any) -> ShardShuffleSampler:
        return ShardShuffleSampler(Numbered(self.cache), seed=1, **options)

    def loader(self, sampler: ShardShuffleSampler, batch: int = BATCH, **options: Any) -> DataLoader:
        return DataLoader(sampler.dataset, batch, sampler=sampler, **options)

    def settings(self) -> dict[str, Any]:
        """Two epochs under each setting, with and without workers."""
        found = {}
        for name, settings in SETTINGS.items():
            for workers in (0, 2):
                accelerate = accelerator(**settings)
                plain = self.loader(self.sampler(), num_workers=workers)
                loader = accelerate.prepare(plain)
                epochs = [numbers(loader) for _ in range(2)]
                found[f"{name}, {workers} workers"] = {"epochs": epochs, "plain": len(plain), "prepared": len(loader)}
        return found

    def made_before(self) -> list[int]:
        """A sampler that is there before the Accelerator, and a batch that does not divide."""
        AcceleratorState._reset_state()
        sampler = self.sampler()
        return numbers(accelerator().prepare(self.loader(sampler, batch=7)))

    def batch_sampler(self) -> list[int]:
        sampler = self.sampler()
        plain = DataLoader(sampler.dataset, batch_sampler=BatchSampler(sampler, BATCH, False))
        return numbers(accelerator().prepare(plain))

    def to_device(self) -> list[int]:
        return numbers(to_device(accelerator().prepare(self.loader(self.sampler())), "cpu", prefetch=3))

    def given(self) -> dict[str, str]:
        """The rank was given: both processes have to be told, also where one alone iterates."""
        said = {}
        for name in ("as it comes", "split", "dispatch"):
            loader = accelerator(**SETTINGS[name]).prepare(self.loader(self.sampler(num_replicas=2, rank=self.rank)))
            try:
                said[name] = str(numbers(loader))
            except UsageError as error:
                said[name] = str(error)
        return said

    def not_prepared(self) -> dict[str, Any]:
        accelerator()
        loader = self.loader(self.sampler())
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            return {"seen": numbers(loader), "said": [str(each.message) for each in said]}

    def resumed(self) -> dict[str, Any]:
        """Stopped after each number of batches, and gone on with by Accelerate's own checkpoints."""
        found = {}
        for name in ("as it comes", "split"):
            for stop in (1, 3, None):
                found[f"{name}, {stop}"] = self.stopped_after(SETTINGS[name], stop)
        return found

    def stopped_after(self, settings: dict[str, Any], stop: int | None) -> dict[str, Any]:
        accelerate, sampler = accelerator(**settings), self.sampler()
        loader = accelerate.prepare(self.loader(sampler))
        accelerate.register_for_checkpointing(sampler)
        loader.set_epoch(1)
        before = []
        for step, batch in enumerate(loader, start=1):
            before += numbers([batch])
            if step == stop:
                break
        folder = [tempfile.mkdtemp()]
        torch.distributed.broadcast_object_list(folder)
        accelerate.save_state(folder[0])
        accelerate.wait_for_everyone()

        accelerate, sampler = accelerator(**settings), self.sampler()
        loader = accelerate.prepare(self.loader(sampler))
        accelerate.register_for_checkpointing(sampler)
        accelerate.load_state(folder[0])
        loader.set_epoch(sampler.epoch)
        rest = numbers(loader)
        loader.set_epoch(2)
        return {"before": before, "rest": rest, "next": numbers(loader)}

    def skipped(self) -> list[int]:
        """Accelerate's own way to go on."""
        return numbers(skip_first_batches(accelerator().prepare(self.loader(self.sampler())), 2))


def main() -> None:
    rank, port, cache, out = sys.argv[1:]
    os.environ.update(
        RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port
    )
    torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(seconds=TIMEOUT_S))
    cases = Cases(cache, int(rank))
    found = {case: getattr(cases, case)() for case in CASES}
    with open(out, "w") as file:
        json.dump(found, file)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
