"""Who takes what a sampler gives, and how much of it training has got.

A sampler is not told who iterates it. All of them are on the stack while they wait for an index or ask for a length:
a batch sampler, which may share out the samples again (as Accelerate's does), the iterator of a DataLoader, and those
that fetch batches ahead of training (`to_device`, the loaders that Accelerate prepares).
"""

import sys
import weakref
from dataclasses import dataclass
from inspect import CO_GENERATOR
from types import FrameType
from typing import Any

from torch.utils.data import DistributedSampler, Sampler
from torch.utils.data.dataloader import _BaseDataLoaderIter

from cache_store.errors import UsageError

_FRAMES = 32
"""How far up the stack they can be."""

_PACKAGES = frozenset({"torch", "torchdata", "accelerate", "loaders"})
"""Of which all methods are looked at."""

_OF_SAMPLERS = frozenset({"__iter__", "__next__", "__len__", "__getitem__", "<listcomp>"})
"""Methods of a sampler of the user's own that may be waiting; its generators may have any name."""

_SHARES = (("num_processes", "process_index"), ("num_replicas", "rank"))
"""Attributes of a sampler that shares out what another one gives: among how many, and which share is taken here."""


class Counter:
    """How many batches training has got."""

    count = 0


class FetchesAhead:
    """Takes batches from a loader before training asks for them, and counts those that training has got."""

    handed: Counter


@dataclass
class Consumer:
    """Who takes the samples of one pass.

    Attributes
    ----------
    processes : among which somebody shares out what the sampler gives; 1: nobody does
    loader : attributes of the DataLoader's iterator; they outlive it, its workers do not. None: no DataLoader
    iterator : of the DataLoader
    """

    processes: int = 1
    loader: dict[str, Any] | None = None
    iterator: "weakref.ref[Any] | None" = None
    _yielded_before: int = 0
    _splits: bool = False
    _handed: Counter | None = None
    _prepared: Any = None

    def samples_trained(self, sampler: Sampler[int]) -> int | None:
        """Samples of the sampler that training has got, in all `processes`; None: no DataLoader takes them.

        Raises
        ------
        UsageError : cannot be known
        """
        if self.loader is None:
            return None
        batches_of = self.loader["_index_sampler"]
        batch_size = 1 if batches_of is sampler else getattr(batches_of, "batch_size", None)
        if not isinstance(batch_size, int):
            raise UsageError(
                f"samples_seen: cannot be known with a batch sampler of type {type(batches_of).__name__}; "
                "give the number of samples that this rank has trained on"
            )
        return self._batches() * batch_size * (1 if self._splits else self.processes)

    def is_before_first_batch(self) -> bool:
        """Whether workers have been given samples, or been told that there are none, and training has no batch yet."""
        if self.loader is None or self.iterator is None or self.iterator() is None:
            return False
        has_work = self.loader.get("_tasks_outstanding", 0) > 0
        is_unfinished = self.loader.get("_finished") is False  # StatefulDataLoader's alone says it
        return (has_work or is_unfinished) and self.loader["_num_yielded"] == self._yielded_before

    def _batches(self) -> int:
        assert self.loader is not None
        if self._handed is not None:
            return self._handed.count
        batches: int = self.loader["_num_yielded"] - self._yielded_before
        if self._prepared is None:
            return batches
        if _dispatches(self._prepared):
            raise UsageError(
                "samples_seen: cannot be known where Accelerate dispatches the batches of one process to all; "
                "give the number of samples that this rank has trained on"
            )
        # Accelerate looks one batch ahead, to know which one is the last.
        return max(0, batches - (not self._prepared.end_of_dataloader))

    def _see(self, asking: Any, sampler: Sampler[int]) -> None:
        if isinstance(asking, _BaseDataLoaderIter) and self.loader is None:
            self.loader, self.iterator = vars(asking), weakref.ref(asking)
            self._yielded_before = self.loader.get("_num_yielded", 0)
        elif isinstance(asking, FetchesAhead):
            self._handed = asking.handed
        elif hasattr(type(asking), "end_of_dataloader"):
            self._prepared = asking
            if _dispatches(asking):
                self.processes = asking.state.num_processes
        elif self.loader is None and (processes := _shares(asking, sampler)) > 1:
            self.processes, self._splits = processes, getattr(asking, "split_batches", False)


def find_consumer(sampler: Sampler[int]) -> Consumer:
    """Who asks the sampler for an index or for its length, in this thread and now."""
    found = Consumer()
    frame = sys._getframe(1)
    for _ in range(_FRAMES):
        if frame.f_back is None:
            break
        frame = frame.f_back
        if _may_ask(frame, found.loader is not None):
            found._see(frame.f_locals.get("self"), sampler)
    return found


def accelerate_is_at_work() -> bool:
    """Whether this process has an Accelerator, which shares out what the loaders that it prepares give."""
    state = getattr(sys.modules.get("accelerate.state"), "AcceleratorState", None)
    return bool(getattr(state, "_shared_state", None))


def _may_ask(frame: FrameType, has_loader: bool) -> bool:
    """Whether a method is under way that may be of a sampler or a loader.

    Up to Python 3.12, to look at a frame's variables keeps all that they refer to until its function returns: the last
    batch and loss of a training loop. So functions of users are passed by.
    """
    code = frame.f_code
    if code.co_varnames[:1] != ("self",) and "self" not in code.co_freevars:  # as in "(… for … in self.sampler)"
        return False
    if str(frame.f_globals.get("__name__")).partition(".")[0] in _PACKAGES:
        return True
    # Samplers of their own stand between this one and the loader.
    return not has_loader and (code.co_name in _OF_SAMPLERS or bool(code.co_flags & CO_GENERATOR))


def _dispatches(prepared: Any) -> bool:
    """Whether a loader prepared by Accelerate cuts up the batches of one process for all."""
    return "slice_fn" in vars(prepared)


def _shares(asking: Any, sampler: Sampler[int]) -> int:
    """Among how many processes another sampler shares out what this one gives; 1: it does not."""
    if asking is sampler or not isinstance(asking, Sampler):
        return 1
    own = vars(asking)
    if isinstance(asking, DistributedSampler):  # only if its "dataset" is the sampler, or something made of it
        dataset = own.get("dataset")
        if dataset is not sampler and all(value is not sampler for value in getattr(dataset, "__dict__", {}).values()):
            return 1
    return max((own[count] for count, which in _SHARES if count in own and which in own), default=1)
