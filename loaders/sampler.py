"""ShardShuffleSampler: an order of samples that is random, friendly to the disk, shared by ranks, and resumable."""

import sys
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch.distributed
from torch.utils.data.dataloader import _BaseDataLoaderIter
from torch.utils.data.distributed import DistributedSampler

from cache_store.errors import UsageError
from loaders.ahead import ReadAhead
from loaders.dataset import CachedDataset
from loaders.order import epoch_order, share_length, share_of

_HINT_SAMPLES = 64
"""The reading ahead is told after this many samples how far the pass has come."""

_FRAMES = 12
"""How far up the stack the DataLoader's iterator can be when it asks for the first sample of a pass."""


class ShardShuffleSampler(DistributedSampler[int]):
    """Every sample once an epoch, shuffled over shards and inside a window of them.

    The order depends on the snapshot, `seed`, the epoch and `window_shards` alone: with any number of ranks, workers
    and samples a batch, the ranks together see the same samples in the same order. Rank r of R gets every R-th.

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
    UsageError : an argument that cannot be meant, or (where torch.distributed runs) ranks that differ in their snapshot
        or arguments; all ranks have to make the sampler and call `set_epoch`, as they compare there
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
        if not isinstance(dataset, CachedDataset):
            raise UsageError(f"ShardShuffleSampler: a CachedDataset expected, found {type(dataset).__name__}")
        if seed < 0 or window_shards < 1:
            raise UsageError(
                f"ShardShuffleSampler: seed of 0 or more and window_shards of 1 or more expected, found {seed} and "
                f"{window_shards}"
            )
        is_running = torch.distributed.is_available() and torch.distributed.is_initialized()
        if num_replicas is None:
            num_replicas = torch.distributed.get_world_size() if is_running else 1
        if rank is None:
            rank = torch.distributed.get_rank() if is_running else 0
        if num_replicas < 1:
            raise UsageError(f"ShardShuffleSampler: num_replicas of 1 or more expected, found {num_replicas}")
        if not 0 <= rank < num_replicas:
            raise UsageError(f"ShardShuffleSampler: a rank of 0 to {num_replicas - 1} expected, found {rank}")
        super().__init__(dataset, num_replicas, rank, shuffle, seed, drop_last)
        self._cached = dataset
        self._window = window_shards
        self._start = 0
        self._pass: _Pass | None = None
        self._relay: Callable[[], int] | None = None
        self._compares = is_running and num_replicas == torch.distributed.get_world_size() > 1
        self._compare_ranks()

    def __len__(self) -> int:
        """Samples that this rank gets in the pass that is under way or comes next."""
        return share_length(len(self._cached), self._start, self.num_replicas, self.drop_last)

    def __iter__(self) -> "_Pass":
        self._pass = _Pass(self)
        return self._pass

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass, and the dataset's variant: `epoch` mod K."""
        self._cached.set_epoch(epoch)
        if epoch != self.epoch:
            self.epoch, self._start, self._pass = epoch, 0, None  # a state that was loaded is of another epoch
        self._compare_ranks()

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
        current = self._pass
        epoch, start = (self.epoch, self._start) if current is None else (current.epoch, current.start)
        if samples_seen is None:
            samples_seen = 0 if current is None else current.trained()
        if samples_seen < 0:
            raise UsageError(f"samples_seen: 0 or more expected, found {samples_seen}")
        return self._state(epoch, min(start + samples_seen * self.num_replicas, len(self._cached)))

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
            epoch, position = int(state_dict["epoch"]), int(state_dict["position"])
            seed, shuffle = int(state_dict["seed"]), bool(state_dict["shuffle"])
            window, dataset_epoch = int(state_dict["window_shards"]), state_dict["dataset_epoch"]
        except (LookupError, TypeError, ValueError) as error:
            raise UsageError(
                f"load_state_dict: what state_dict() of a ShardShuffleSampler gave expected, found "
                f"{state_dict!s:.60} ({type(error).__name__}: {error})"
            ) from None
        if version != 1:
            raise UsageError(f"state of a ShardShuffleSampler: version 1 expected, found {version!r}")
        here = self._cached.identity()
        if here != there:
            raise UsageError(
                f"this state is of {_place(there)}, the dataset is at {_place(here)}: the same positions are other "
                f"samples there; open the dataset with snapshot={there['snapshot']!r}, or begin the epoch anew"
            )
        if not 0 <= position <= len(self._cached):
            raise UsageError(f"position: 0 to {len(self._cached)} expected, found {position}")
        self.seed, self.shuffle, self._window = seed, shuffle, window
        self.epoch, self._start, self._pass = epoch, position, None
        if dataset_epoch is not None:  # None: variants were drawn at random
            self._cached.set_epoch(int(dataset_epoch))

    def relay_next_pass(self, batches: Callable[[], int]) -> None:
        """For the next pass, ask `batches` how many batches training has got: somebody stands behind the loader."""
        self._relay = batches

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(len(self._cached))
        return epoch_order(self._cached.shards(epoch), self._window, self.seed, epoch)

    def _compare_ranks(self) -> None:
        if not self._compares:
            return
        mine = self._state(self.epoch, self._start)
        everybody: list[Any] = [None] * self.num_replicas
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
        return self.__dict__ | {"_pass": None, "_relay": None}


def _place(identity: dict[str, str]) -> str:
    return f"snapshot {identity['snapshot']} (digest {identity['digest'][:8]}), split {identity['split']!r}"


class _Pass(Iterator[int]):
    """One pass over an epoch, for one rank.

    Attributes
    ----------
    epoch : of the order
    start : position in the ranks' common order at which the pass began
    """

    def __init__(self, sampler: ShardShuffleSampler) -> None:
        self._sampler = sampler
        self._loader: dict[str, Any] | None = None
        self._yielded_before = 0
        self._relay, sampler._relay = sampler._relay, None
        self._ahead: ReadAhead | None = None
        self._go_to_start()

    def _go_to_start(self) -> None:
        self.epoch, self.start = self._sampler.epoch, self._sampler._start
        self._handed = 0
        self._share: np.ndarray | None = None
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
        if self._share is None:
            self._begin()
        assert self._share is not None
        few = self._share[self._handed : self._handed + _HINT_SAMPLES]
        if not len(few):
            self._end()
            raise StopIteration
        if self._ahead is not None:
            self._ahead.reach(self._handed + len(few))
        self._next = iter(few.tolist())
        return next(self._next)

    def _begin(self) -> None:
        sampler = self._sampler
        share = share_of(sampler._order(self.epoch), self.start, sampler.rank, sampler.num_replicas, sampler.drop_last)
        self._share = share
        self._find_loader()
        planned = sampler._cached.slots_of(share)
        if planned is not None:
            self._ahead = ReadAhead(*planned)
            weakref.finalize(self, self._ahead.close)

    def _end(self) -> None:
        if self._sampler._pass is self:
            self._sampler._start = 0  # the next pass is a whole one
        if self._ahead is not None:
            self._ahead.close()

    def _find_loader(self) -> None:
        """The DataLoader's iterator that asks for the first sample: it alone knows what training has got."""
        frame = sys._getframe(1)
        for _ in range(_FRAMES):
            if frame.f_back is None:
                return
            frame = frame.f_back
            asking = frame.f_locals.get("self")
            if isinstance(asking, _BaseDataLoaderIter):
                # Its attributes outlive it: a loop that was left by `break` still has its count, but no workers.
                self._loader = vars(asking)
                self._yielded_before = self._loader.get("_num_yielded", 0)
                return

    def trained(self) -> int:
        """Samples that training has got in this pass."""
        if self._loader is None:
            return self._handed
        batches_of = self._loader["_index_sampler"]
        batch_size = 1 if batches_of is self._sampler else getattr(batches_of, "batch_size", None)
        if not isinstance(batch_size, int):
            raise UsageError(
                f"samples_seen: cannot be known with a batch sampler of type {type(batches_of).__name__}; "
                "give the number of samples that this rank has trained on"
            )
        if self._relay is None:
            batches = self._loader["_num_yielded"] - self._yielded_before
        else:
            batches = self._relay()
        return min(batches * batch_size, self._handed)

    def state_dict(self) -> dict[str, Any]:
        """The position behind all that was handed out: torchdata's StatefulDataLoader asks for it batch by batch."""
        sampler = self._sampler
        behind = min(self.start + self._handed * sampler.num_replicas, len(sampler._cached))
        return sampler._state(self.epoch, behind)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state of a pass."""
        self._sampler.load_state_dict(state_dict)
        self._sampler._pass = self
        self._go_to_start()
