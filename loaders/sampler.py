"""ShardShuffleSampler: an order of samples that is random, friendly to the disk, shared by ranks, and resumable."""

import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch.distributed
from torch.utils.data.distributed import DistributedSampler

from cache_store.errors import UsageError
from loaders.ahead import ReadAhead
from loaders.consumer import Consumer, accelerate_is_at_work, find_consumer
from loaders.dataset import CachedDataset
from loaders.indices import counted, integer
from loaders.order import epoch_order, share_length, share_of

_HINT_SAMPLES = 64
"""The reading ahead is told after this many samples how far the pass has come."""


class ShardShuffleSampler(DistributedSampler[int]):
    """Every sample once an epoch, shuffled over shards and inside a window of them.

    The order depends on the snapshot, `seed`, the epoch and `window_shards` alone: with any number of ranks, workers
    and samples a batch, the ranks together see the same samples in the same order. Rank r of R gets every R-th.

    Where `num_replicas` and `rank` are not given, the ranks are those of torch.distributed, except under Hugging Face
    Accelerate: a loader that Accelerate prepares shares out the samples itself, so the sampler gives it all of them.

    `len()` is always a whole epoch's, for this rank. A pass that is resumed gives fewer samples, so a schedule that is
    made from `len(loader)` is the same before and after.

    While a pass is under way, the kernel is asked for shards before they are needed, if they are not in memory; so a
    cache that is larger than memory streams at the speed of the disk.

    Parameters
    ----------
    dataset : whose samples
    num_replicas, rank : of the processes that share an epoch; None: those of torch.distributed, or 1 and 0
    shuffle : False: samples in their own order
    seed : of the shuffling, 0 or more; the same on every rank
    drop_last : leave out the tail that does not fill all ranks; otherwise samples of the epoch's start fill it up
    window_shards : how many shards are mixed at a time

    Raises
    ------
    UsageError : an argument that cannot be meant; or (where torch.distributed runs) ranks that differ in their snapshot
        or arguments: all ranks have to make the sampler and call `set_epoch`, as they compare there; or, when it is
        iterated, that somebody shares out again what the sampler shares among `num_replicas` that were given
    """

    def __init__(
        self,
        dataset: CachedDataset,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        *,
        window_shards: int = 16,
    ) -> None:
        # DistributedSampler's own __init__ would fix the ranks and the length, which may change until a pass begins.
        if not isinstance(dataset, CachedDataset):
            raise UsageError(f"ShardShuffleSampler: a CachedDataset expected, found {type(dataset).__name__}")
        given = (("num_replicas", num_replicas), ("rank", rank))
        for name, value in given:
            if value is not None and integer(value) is None:
                raise UsageError(f"ShardShuffleSampler: {name}: an integer expected, found {value!r}")
        self._given = integer(num_replicas), integer(rank)
        self.dataset = self._cached = dataset
        self.shuffle, self.drop_last = bool(shuffle), bool(drop_last)
        self.seed = counted("ShardShuffleSampler: seed", seed)
        self.epoch = 0
        self._window = counted("ShardShuffleSampler: window_shards", window_shards, 1)
        self._start = 0
        self._pass: _Pass | None = None
        self._ranks()
        self._check_length()
        self._compare_ranks()

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """Processes among which this sampler shares an epoch; under Accelerate 1, where none were given."""
        return 1 if self._leaves_sharing() else self._ranks()[0]

    @property
    def rank(self) -> int:  # type: ignore[override]
        """Which of `num_replicas` this one is."""
        return 0 if self._leaves_sharing() else self._ranks()[1]

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """Samples of a whole epoch for this rank, as `len()`."""
        return len(self)

    @property
    def total_size(self) -> int:  # type: ignore[override]
        """Samples of a whole epoch for all ranks together, those that fill it up included."""
        return len(self) * self.num_replicas

    def __len__(self) -> int:
        """Samples of a whole epoch for this rank, also while a resumed pass gives fewer."""
        replicas = 1 if self._leaves_sharing() else self._share_for(find_consumer(self))[0]
        return share_length(len(self._cached), 0, replicas, self.drop_last)

    def _check_length(self) -> None:
        """Refuse a subclass whose samples are others than the split's: the order is that of what is stored."""
        ours, stored = len(self._cached), CachedDataset.__len__(self._cached)
        if ours != stored:
            raise UsageError(
                f"ShardShuffleSampler orders the {stored} samples that the cache has of split {self._cached.split!r}, "
                f"and {type(self._cached).__name__} has {ours} (its __len__); use shuffle=True, torch's RandomSampler "
                "or DistributedSampler, which go by len(dataset)"
            )

    def _ranks(self) -> tuple[int, int]:
        """Of the processes that share an epoch, whoever shares it out: how many they are, and which one this is."""
        replicas, rank = self._given
        if replicas is None:
            replicas = torch.distributed.get_world_size() if _is_distributed() else 1
        if rank is None:
            rank = torch.distributed.get_rank() if _is_distributed() else 0
        if replicas < 1:
            raise UsageError(f"ShardShuffleSampler: num_replicas of 1 or more expected, found {replicas}")
        if not 0 <= rank < replicas:
            raise UsageError(f"ShardShuffleSampler: a rank of 0 to {replicas - 1} expected, found {rank}")
        return replicas, rank

    def _leaves_sharing(self) -> bool:
        """Whether an Accelerator is expected to share out the samples."""
        return self._given == (None, None) and accelerate_is_at_work()

    def _share_for(self, consumer: Consumer) -> tuple[int, int]:
        """Among how many this sampler shares what it gives to a consumer, and which share is this rank's."""
        replicas, rank = self._ranks()
        if consumer.processes == 1:
            return replicas, rank
        if self._given != (None, None) and replicas > 1:
            raise UsageError(
                f"a share of a share: the sampler was told to share an epoch among {replicas} processes, and the "
                f"loader shares it among {consumer.processes} again (as one that Accelerate prepared does), so most "
                "samples would never arrive; make the sampler without num_replicas and rank"
            )
        return 1, 0

    def __iter__(self) -> "_Pass":
        self._pass = _Pass(self)
        return self._pass

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, and the dataset's variant: `epoch` mod K.

        A place that was loaded stays if the epoch is its own; another epoch begins at its start, and an earlier one
        with a warning.

        Raises
        ------
        UsageError : a negative epoch, or no integer
        """
        epoch = counted("epoch", epoch)
        self._share_for(find_consumer(self))  # refuses in all processes, where one alone iterates
        self._cached.set_epoch(epoch)
        self._warn_of_late(epoch)
        if epoch != self.epoch:
            self.epoch, self._start, self._pass = epoch, 0, None  # a state that was loaded is of another epoch
        self._compare_ranks()

    def _warn_of_late(self, epoch: int) -> None:
        begun = self._pass if self._pass is not None and self._pass.has_begun else None
        if begun is None and self._start and epoch < self.epoch:
            warnings.warn(
                f"set_epoch({epoch}): the state that was loaded is of epoch {self.epoch}, and its place (sample "
                f"{self._start}) is given up; where a framework counts the epochs of a resumed run from 0, tell it the "
                f"epoch (Accelerate: loader.set_epoch({self.epoch}))",
                stacklevel=3,
            )
        if begun is not None and epoch != begun.epoch and begun.is_before_first_batch():
            warnings.warn(
                f"set_epoch({epoch}): the loader's workers have been given samples of epoch {begun.epoch} already, so "
                "this pass keeps to them; use num_workers=0 or set the epoch before iter(loader), under Lightning in "
                "train_dataloader() to trainer.fit_loop.epoch_progress.current.processed",
                stacklevel=3,
            )

    def state_dict(self, samples_seen: int | None = None) -> dict[str, Any]:
        """Where this pass is, for `load_state_dict` in this or another run, with any number of ranks.

        Parameters
        ----------
        samples_seen : how many samples this rank has trained on since the pass began (for a resumed pass: since it was
            resumed); None: those that a DataLoader has handed to the training loop. What workers and `to_device`
            have fetched ahead counts as not seen

        Returns
        -------
        plain numbers and strings

        Raises
        ------
        UsageError : the number cannot be meant, or cannot be known
        """
        current = self._pass or _Pass(self)
        seen = current.trained() if samples_seen is None else counted("samples_seen", samples_seen) * current.ranks
        return self._state(current.epoch, min(current.start + seen, len(self._cached)))

    def _state(self, epoch: int, position: int) -> dict[str, Any]:
        order = {"seed": self.seed, "shuffle": self.shuffle, "window_shards": self._window}
        place = {"epoch": epoch, "position": position, "dataset_epoch": self._cached.epoch}
        return {"version": 1, **self._cached.identity(), **order, **place}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Let the next pass begin where a state was taken; seed, shuffling, window and epoch are the state's.

        Raises
        ------
        UsageError : not a state of this class, or of another snapshot
        """
        try:
            version = state_dict["version"]
            there = {name: str(state_dict[name]) for name in self._cached.identity()}
            epoch, position, seed = (counted(name, state_dict[name]) for name in ("epoch", "position", "seed"))
            window = counted("window_shards", state_dict["window_shards"], 1)
            shuffle, dataset_epoch = state_dict["shuffle"], state_dict["dataset_epoch"]
            if not isinstance(shuffle, bool):
                raise UsageError(f"shuffle: a bool expected, found {shuffle!r}")
            if dataset_epoch is not None:  # None: variants were drawn at random
                dataset_epoch = counted("dataset_epoch", dataset_epoch)
        except (LookupError, TypeError, UsageError) as error:
            raise UsageError(
                f"load_state_dict: what state_dict() of a ShardShuffleSampler gave expected, found "
                f"{state_dict!s:.60} ({type(error).__name__}: {error})"
            ) from None
        if version != 1:
            raise UsageError(f"state of a ShardShuffleSampler: version 1 expected, found {version!r}")
        here = self._cached.identity()
        if here != there:
            other = [f"{name}={there[name]!r}" for name in ("snapshot", "split") if there[name] != here[name]]
            raise UsageError(
                f"this state is of {_place(there)}, the dataset is at {_place(here)}: the same positions may be other "
                f"samples there; {'open the dataset with ' + ', '.join(other) + ', or ' if other else ''}begin the "
                "epoch anew"
            )
        if not 0 <= position <= len(self._cached):
            raise UsageError(f"position: 0 to {len(self._cached)} expected, found {position}")
        self.seed, self.shuffle, self._window = seed, shuffle, window
        self.epoch, self._start, self._pass = epoch, position, None
        if dataset_epoch is not None:
            self._cached.set_epoch(dataset_epoch)

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self._cached))
        return epoch_order(self._cached.shards(epoch), self._window, self.seed, epoch)

    def _compare_ranks(self) -> None:
        ranks = self._ranks()[0]
        if ranks == 1 or not _is_distributed() or ranks != torch.distributed.get_world_size():
            return
        mine = self._state(self.epoch, self._start)
        everybody: list[Any] = [None] * ranks
        torch.distributed.all_gather_object(everybody, mine)
        for rank, other in enumerate(everybody):
            if other != everybody[0]:
                names = [name for name in mine if other[name] != everybody[0][name]]
                first, found = (", ".join(f"{name} {one[name]!r}" for name in names) for one in (everybody[0], other))
                raise UsageError(
                    f"ranks would mix samples: rank 0 has {first}, rank {rank} has {found}; open the cache with the "
                    "same snapshot= and make the samplers with the same arguments on every rank"
                )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_pass": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if "_given" not in state:  # a former version kept the ranks that it had found
            self._given = state.get("num_replicas"), state.get("rank")


def _is_distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _place(identity: dict[str, str]) -> str:
    return f"snapshot {identity['snapshot']} (digest {identity['digest'][:8]}), split {identity['split']!r}"


def _close(ahead: "weakref.ref[ReadAhead]") -> None:
    if (still_there := ahead()) is not None:
        still_there.close()


class _Pass(Iterator[int]):
    """One pass over an epoch, for one consumer. It begins when it is asked for its first index.

    Attributes
    ----------
    epoch : of the order
    start : position in the ranks' common order at which the pass begins
    ranks : processes that train on this order together
    has_begun : from then on epoch and start are fixed
    """

    def __init__(self, sampler: ShardShuffleSampler) -> None:
        self._sampler = sampler
        self._ahead: ReadAhead | None = None
        self._go_to_start()

    def _go_to_start(self) -> None:
        self.epoch, self.start = self._sampler.epoch, self._sampler._start
        self.ranks = self._stride = self._sampler._ranks()[0]
        self.has_begun = False
        self._consumer = Consumer()
        self._handed = 0
        self._share = np.empty(0, np.int64)
        self._next: Iterator[int] = iter(())

    def __next__(self) -> int:
        try:
            index = next(self._next)
        except StopIteration:
            index = self._next_few()
        self._handed += 1
        return index

    def _next_few(self) -> int:
        """Indices as Python's numbers, and the reading ahead told of them, some at a time."""
        if not self.has_begun:
            self._begin()
        few = self._share[self._handed : self._handed + _HINT_SAMPLES]
        if not len(few):
            self._end()
            raise StopIteration
        if self._ahead is not None:
            self._ahead.reach(self._handed + len(few))
        self._next = iter(few.tolist())
        return next(self._next)

    def _begin(self) -> None:
        self._go_to_start()  # the epoch may have been set since `iter()`
        sampler, self._consumer = self._sampler, find_consumer(self._sampler)
        sampler._check_length()
        replicas, rank = sampler._share_for(self._consumer)
        if sampler._leaves_sharing() and replicas > 1:
            warnings.warn(
                f"this process has an Accelerator, which did not prepare this loader: the loader gets a share among "
                f"{replicas} processes, while len() counts all samples; prepare the loader, or give num_replicas and "
                "rank to the sampler",
                stacklevel=2,
            )
        # Positions of the common order that one index stands for, and processes that are at work on it.
        self._stride, self.ranks = replicas, replicas * self._consumer.processes
        self._share = share_of(sampler._order(self.epoch), self.start, rank, replicas, sampler.drop_last)
        self.has_begun = True
        sampler._pass = self
        self._read_ahead()

    def _read_ahead(self) -> None:
        planned = self._sampler._cached.slots_of(self._share)
        if planned is not None:
            self._ahead = ReadAhead(*planned)
            weakref.finalize(self, self._ahead.close)
            # A loop that is left by `break` drops the DataLoader's iterator; this pass stays for its count.
            if self._consumer.iterator is not None:
                weakref.finalize(self._consumer.iterator(), _close, weakref.ref(self._ahead))

    def _end(self) -> None:
        if self._sampler._pass is self:
            self._sampler._start = 0  # the next pass is a whole one
        if self._ahead is not None:
            self._ahead.close()

    def is_before_first_batch(self) -> bool:
        """Whether the epoch was fixed although training has no batch yet."""
        return self._consumer.is_before_first_batch()

    def trained(self) -> int:
        """Positions of the common order that training has got in this pass."""
        trained = self._consumer.samples_trained(self._sampler)
        return self._stride * (self._handed if trained is None else min(trained, self._handed))

    def state_dict(self) -> dict[str, Any]:
        """The position behind all that was handed out: torchdata's StatefulDataLoader asks for it batch by batch."""
        behind = min(self.start + self._handed * self._stride, len(self._sampler._cached))
        return self._sampler._state(self.epoch, behind)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of a pass."""
        self._sampler.load_state_dict(state_dict)
        self._sampler._pass = self
        self._go_to_start()
