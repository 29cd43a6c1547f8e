"""CachedDataset: index -> (tensor, label), out of mapped shards."""

import operator
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate, get_worker_info

from cache_store import layout
from cache_store.errors import IntegrityError, NotFoundError, UsageError
from cache_store.reader import Cache, TensorReader, open_cache
from loaders import advice, snapshot_move
from loaders.checks import FirstCheck
from loaders.collate import Batch, entries, entry
from loaders.concat import ConcatDataset
from loaders.convert import converter
from loaders.gather import Gatherer
from loaders.indices import counted, integer, integers, within
from loaders.memory import batch_memory, plain_memory
from loaders.normalizer import Normalizer
from loaders.overrides import Overridable
from loaders.settled import Settled
from loaders.shards import FileShards, MappedShards
from loaders.shared import Shared
from loaders.targets import OwnTargets
from loaders.transform_check import check_transforms, steps_of
from loaders.window import Cutter

_Memory = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]

_DTYPES = (torch.float16, torch.float32, torch.bfloat16)


class _Together(threading.local):
    """The dataset whose `__getitem__`, overridden, is asked for the samples of a batch in this thread."""

    dataset: Any = None


_together = _Together()


class CachedDataset(Settled, Overridable, Dataset[tuple[Any, ...]]):
    """One split of a cache as a map-style dataset.

    `DataLoader(dataset, batch_size=256, shuffle=True)` gets whole batches, copied once out of the mapped shards into
    memory that is used again; worker processes would only add a second copy.

    Every process maps the cache for itself when it first needs it; a pickled dataset carries the name of its snapshot,
    so that all workers see the same one whatever is built meanwhile.

    A shard file that others cut or overwrite *while* it is mapped ends the process with SIGBUS, as with any memory map
    (decant never does either). On network file systems use `io="pread"`, which makes an error of it.

    Parameters
    ----------
    cache : folder of the cache
    split : name of the split
    snapshot : name of a snapshot; None: the one in force now
    dtype : of the images: torch.float16, torch.float32 or torch.bfloat16, normalised; torch.uint8: the 8-bit pixels
        of a uint8 cache as they are. None: float16
    targets : labels in the place of class ids: a tensor, an array or a list with one value for each sample, in their
        order, or {path as in `samples`: value}. Values are numbers or have any shape: labels of a batch are (n,) or
        (n, …), of the tensor's or array's type (Python's numbers become int64, float64 or bool). `dataset[i]` has
        Python's number for int64, float64 and bool, and a tensor for other types and for rows
    variant : always this variant; None: see `set_epoch`
    crop : height and width of a window that is cut out of each stored image while it is copied, or one number for
        both; None: all of it
    flip : mirror each image left to right with probability 1/2, from torch's generator
    crop_mode : 'random' (from torch's generator) or 'center'
    transform : called with each image, gives what the dataset returns in its place. The image is a tensor (C, H, W) of
        `dtype`, after `crop` and `flip`: normalised with `mean` and `std`, or 0..255 where `dtype` is torch.uint8.
        Scripts may assign it later
    target_transform : the same for labels
    batch_transform : called with images (n, C, H, W), as `transform` gets them, and labels (n,) of a whole batch, gives
        both, as torchvision's `v2.MixUp` and `v2.CutMix` do; `dataset[i]` calls it with a batch of one
    io : 'mmap', or 'pread' for network file systems
    check : 'never', or 'first': compare each image with its checksum when it is first touched in a process

    Attributes
    ----------
    classes : names of all classes, by class id
    class_to_idx : class id of each name
    targets : class id of each sample, -1 for unlabelled ones; or what `targets` gave. A list that is made once;
        changing it changes no sample
    samples, imgs : (path relative to SOURCE, target) of each sample; the same
    shape : C, H, W of the images that are handed out, before `transform`
    failures : path, stage and reason of each image that the build left out
    mean, std : in force, in 0..1, one value a channel
    snapshot_id : name of the snapshot
    split : name of the split
    variants : K

    Raises
    ------
    NotFoundError : no such cache, split, snapshot or sample
    UsageError : an argument that does not fit; at the first sample: a transform that would normalise images once more,
        or convert them from pixels
    IntegrityError : missing or damaged bytes; names sample and file
    StorageError : the system refused to read
    """

    split: str
    snapshot_id: str
    variants: int
    mean: list[float]
    std: list[float]
    classes: list[str]
    class_to_idx: dict[str, int]
    # What a dataset that was pickled by a former version lacks:
    _own: OwnTargets | None = None
    _digest: str | None = None
    _targets: list[Any] | None = None
    _samples: list[tuple[str, Any]] | None = None
    _checked: Sequence[Any] = ()

    _instead = (
        "To add something to each sample override extras(), to replace labels give targets=, and to change samples "
        "give transform= or batch_transform="
    )

    def __init__(
        self,
        cache: str | os.PathLike[str],
        split: str = "train",
        snapshot: str | None = None,
        *,
        dtype: torch.dtype | None = None,
        targets: Any = None,
        variant: int | None = None,
        crop: int | Sequence[int] | None = None,
        flip: bool = False,
        crop_mode: str = "random",
        transform: Callable[[torch.Tensor], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        batch_transform: Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]] | None = None,
        io: str = "mmap",
        check: str = "never",
    ) -> None:
        for name, value, known in (("io", io, ("mmap", "pread")), ("check", check, ("never", "first"))):
            if value not in known:
                raise UsageError(f"{name}: {' or '.join(map(repr, known))} expected, found {value!r}")
        if not isinstance(split, str):
            raise UsageError(f"split: the name of one split expected, found {split!r}")
        if not isinstance(snapshot, str | None):
            raise UsageError(f"snapshot: a name such as '000001' expected, found {snapshot!r}")
        if variant is not None and integer(variant) is None:
            raise UsageError(f"variant: an integer expected, found {variant!r}")
        self._path = os.path.abspath(layout.given_path(cache))
        vars(self)["split"] = split
        self._dtype = dtype or torch.float16
        self._asked_dtype, self._fixed_variant = dtype, integer(variant)
        self._crop, self._flip, self._crop_mode = crop, flip, crop_mode
        self._io, self._check = io, check
        self.transform, self.target_transform, self.batch_transform = transform, target_transform, batch_transform
        self._shared = Shared()
        self._cache: Cache | None = None
        self._gatherer: Gatherer | None = None
        self._first_check: FirstCheck | None = None
        opened = open_cache(self._path, snapshot)
        try:
            self._own = None if targets is None else OwnTargets(targets, opened.split(split), split)
            self._take(opened)
        except BaseException:
            opened.close()
            raise

    def _take(self, opened: Cache) -> None:
        """Everything that depends on the snapshot; changes nothing if it raises."""
        table, reader = opened.split(self.split), opened.tensors(self.split)
        variant = self._fixed_variant
        if variant is not None and not 0 <= variant < table.variants:
            raise NotFoundError(f"split {self.split!r} has variants 0 to {table.variants - 1}, there is no {variant}")
        allowed = _DTYPES if reader.dtype != np.uint8 else (*_DTYPES, torch.uint8)
        if self._asked_dtype is not None and self._asked_dtype not in allowed:
            *names, last = map(str, allowed)
            raise UsageError(
                f"dtype: {', '.join(names)} or {last} expected, as the cache holds {reader.dtype.name}, found "
                f"{self._asked_dtype!r}"
            )
        whole = self._crop is None and not self._flip
        cutter = Cutter((reader.shape[1], reader.shape[2]), self._crop, self._flip, self._crop_mode)
        self._cutter = None if whole else cutter
        self._cache, self._gatherer, self._first_check = opened, None, None
        self._length, self._digest = len(table), opened.digest()
        self._targets = self._samples = None
        classes = list(opened.snapshot.classes)
        vars(self).update(
            snapshot_id=opened.snapshot.name,
            variants=table.variants,
            mean=list(table.mean),
            std=list(table.std),
            classes=classes,
            class_to_idx={name: number for number, name in enumerate(classes)},
        )

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        """Image (C, H, W) in memory of its own, writable, and class id or target; then what `extras` adds.

        Parameters
        ----------
        index : an integer, negative ones count from the end; or a list of integers or a 1-d array or tensor of them:
            then images are (n, C, H, W), labels (n,), as torch's bulk loading expects
            (`DataLoader(dataset, sampler=BatchSampler(…), batch_size=None)`)

        Raises
        ------
        TypeError : anything else; bools, masks and slices among them
        IndexError : beyond the last sample
        """
        number = integer(index)
        if number is None:
            whole = self._whole(integers(index, (list,)))
            return tuple(whole.collated() if isinstance(whole, Batch) else default_collate(whole))
        advice.single_sample(self._shared)
        image, label, *extras = self._gathered(integers([number]), plain_memory)[0]
        image, label = self._transformed(image, label)
        if self.batch_transform is not None and _together.dataset is not self:
            advice.batches_of_one(self._shared)
            batch = self._mixed(Batch(*default_collate([(image, label)])))
            image, label = batch.images[0], entry(batch.labels, 0)
        return (image, label, *extras)

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        """A whole batch, as `DataLoader` asks for it: gathered at once, and collated for nothing.

        Where a subclass overrides `__getitem__`, the samples are its own, one after the other, and the indices are
        whatever it takes.

        Raises
        ------
        TypeError : an index that is no integer
        IndexError : beyond the last sample
        """
        found = self._single(indices)
        if found is None:
            return self._whole(integers(indices))
        single, asked = found
        former, _together.dataset = _together.dataset, getattr(single, "__self__", None)
        try:
            samples = [single(index) for index in asked]
        finally:
            _together.dataset = former
        if self.batch_transform is None or not samples or getattr(single, "__self__", None) is not self:
            return samples
        return self._put_together(samples)

    def extras(self, indices: torch.Tensor) -> tuple[Any, ...]:
        """Override it to add to each sample: called once a batch, and `dataset[i]` calls it with a batch of one.

        Parameters
        ----------
        indices : int64 (n,), of the samples, 0 or more

        Returns
        -------
        further columns, each a tensor, an array or a list of n entries: samples become (image, label, …), batches
        [images, labels, …], collated as `default_collate` does. Nothing by default
        """
        return ()

    def __add__(self, other: Dataset[Any]) -> ConcatDataset:  # type: ignore[override]
        return ConcatDataset([self, other])

    def _whole(self, numbers: np.ndarray) -> Batch | list[Any]:
        """The samples of a batch with all transforms: a `Batch`, or a list where `transform` gave each of them."""
        batch = self._gathered(numbers, batch_memory)
        if not len(batch):
            return batch
        if self.transform is not None or self.target_transform is not None:
            pairs = list(map(self._transformed, batch.images, entries(batch.labels)))
            if self.batch_transform is None:
                return [(*pair, *extras) for pair, *extras in zip(pairs, *map(entries, batch.extras), strict=True)]
            batch.images, batch.labels = default_collate(pairs)
        else:
            advice.workers_cost(self._shared)
        return batch if self.batch_transform is None else self._mixed(batch)

    def _mixed(self, batch: Batch) -> Batch:
        """The same batch after `batch_transform`."""
        assert self.batch_transform is not None
        pair: Any = self.batch_transform(batch.images, batch.labels)
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            what = f"a {type(pair).__name__} of {len(pair)}" if isinstance(pair, tuple | list) else type(pair).__name__
            raise UsageError(f"batch_transform: a pair (images, labels) expected, found {what}; return both")
        try:
            batch._replace(*pair)
        except UsageError as error:
            raise UsageError(f"batch_transform: {error}") from None
        return batch

    def _put_together(self, samples: list[Any]) -> Batch:
        """Samples that a subclass gave, as a batch after `batch_transform`."""
        wrong = next((each for each in samples if not isinstance(each, tuple | list) or len(each) < 2), None)
        if wrong is not None:
            raise UsageError(
                f"batch_transform: samples (image, label, …) expected, {type(self).__name__}.__getitem__ gives "
                f"{type(wrong).__name__}; call it in the training loop instead"
            )
        images, labels = default_collate([tuple(each[:2]) for each in samples])
        return self._mixed(Batch(images, labels, *zip(*(each[2:] for each in samples), strict=True)))

    def _gathered(self, numbers: np.ndarray, memory: _Memory) -> Batch:
        """Samples (negative numbers count from the end) without transforms, in memory of their own."""
        if self.transform is not None or self.batch_transform is not None:
            self._check_transforms()
        if get_worker_info() is not None:
            self._shared.enter_worker()
        opened = self._opened()
        table = opened.split(self.split)
        variants = self._variants(len(numbers))
        try:
            slots = table["slot"][numbers, variants]
        except IndexError:
            within(numbers, self._length, f"split {self.split!r}")  # names the index
            raise
        windows = None if self._cutter is None else self._cutter.draw(len(numbers))
        gatherer = self._gatherer or self._new_gatherer(opened)
        images = memory((len(numbers), *gatherer.shape), self._dtype)
        try:
            if self._first_check is not None:
                self._first_check.see(numbers, variants)
            gatherer.gather(slots, images, windows)
        except IntegrityError:
            for number, variant in zip(numbers.tolist(), variants.tolist(), strict=True):
                opened.image(self.split, number, variant)  # says which sample it is
            raise
        labels = torch.from_numpy(table["label"][numbers]) if self._own is None else self._own.of(numbers)
        if type(self).extras is CachedDataset.extras and "extras" not in vars(self):
            return Batch(images, labels)
        extras = self.extras(torch.from_numpy(within(numbers, self._length, "")))  # 0 or more
        if not isinstance(extras, tuple):
            raise UsageError(f"extras: a tuple of columns expected, found {type(extras).__name__}")
        return Batch(images, labels, *extras)

    def _new_gatherer(self, opened: Cache) -> Gatherer:
        table, reader = opened.split(self.split), opened.tensors(self.split)
        kind = MappedShards if self._io == "mmap" else FileShards
        shards = kind(reader, int(table["slot"].max(initial=-1)) + 1)
        convert = converter(reader.dtype, self._dtype, table.mean, table.std)
        self._gatherer = Gatherer(shards, convert, self._cutter)
        if self._check == "first":
            self._first_check = FirstCheck(table, self._gatherer)
        return self._gatherer

    def _transformed(self, image: torch.Tensor, label: int) -> tuple[Any, Any]:
        return (
            image if self.transform is None else self.transform(image),
            label if self.target_transform is None else self.target_transform(label),
        )

    def _check_transforms(self) -> None:
        """Before the first image that they get, as scripts assign and change transforms at any time."""
        steps = steps_of(self.transform, self.batch_transform)
        if len(steps) == len(self._checked) and all(map(operator.is_, steps, self._checked)):
            return
        is_normalised = any(self.mean) or any(std != 1 for std in self.std)
        if self._dtype != torch.uint8 and is_normalised:
            check_transforms("transform", self.transform, self._dtype, self._shared)
            check_transforms("batch_transform", self.batch_transform, self._dtype, self._shared)
        self._checked = steps

    def set_epoch(self, epoch: int) -> None:
        """From now on variant `epoch` mod K, in this process and in every worker that has the dataset already.

        Raises
        ------
        UsageError : a negative epoch, or no integer
        """
        self._shared.epoch = counted("epoch", epoch)

    @property
    def epoch(self) -> int | None:
        """The epoch that `set_epoch` was told last; None: none yet."""
        return self._shared.epoch

    def _variants(self, count: int) -> np.ndarray:
        """For each sample the fixed variant; else that of the epoch; else one drawn from torch's generator."""
        variant = self.epoch_variant(self.epoch)
        if variant is None:
            return torch.randint(self.variants, (count,), device="cpu").numpy()
        return np.full(count, variant, np.int64)

    def epoch_variant(self, epoch: int | None) -> int | None:
        """The variant that all samples have in an epoch; None: drawn for each, as no epoch was set (None)."""
        if self._fixed_variant is not None:
            return self._fixed_variant
        if self.variants == 1:
            return 0
        return None if epoch is None else epoch % self.variants

    def identity(self) -> dict[str, str]:
        """What fixes which sample an index means: name and digest of the snapshot, and the split."""
        return {"snapshot": self.snapshot_id, "digest": self._opened().digest(), "split": self.split}

    def shards(self, epoch: int) -> np.ndarray:
        """The shard that holds each sample in an epoch (its variant 0, if variants are drawn): int64 (n,)."""
        opened = self._opened()
        slots = opened.split(self.split)["slot"][:, self.epoch_variant(epoch) or 0]
        shards: np.ndarray = slots // opened.tensors(self.split).slots
        return shards

    def slots_of(self, indices: np.ndarray) -> tuple[TensorReader, np.ndarray] | None:
        """Slots of samples in this epoch, and what reads them; None: variants are drawn when they are fetched."""
        opened = self._opened()
        variant = self.epoch_variant(self.epoch)
        if variant is None:
            return None
        return opened.tensors(self.split), opened.split(self.split)["slot"][indices, variant]

    def normalizer(self, dtype: torch.dtype = torch.float16) -> Normalizer:
        """A module that normalises uint8 batches of this dataset, to be moved to the device that trains.

        Raises
        ------
        UsageError : the dataset hands out normalised images already
        """
        if self._dtype != torch.uint8:
            raise UsageError(
                f"normalizer: the dataset hands out {str(self._dtype).removeprefix('torch.')} images, which are "
                "normalised already; open it with dtype=torch.uint8 (out of a cache with dtype: uint8)"
            )
        return Normalizer(self.mean, self.std, dtype)

    def refresh(self) -> str:
        """Move to the newest snapshot, if nobody would notice but by its samples; returns its name.

        Raises
        ------
        UsageError : a worker process still has the old one, a class id would change, or an argument that this dataset
            was opened with does not fit any more (`targets` fit the same samples only); the dataset stays where it is
        """
        opened = open_cache(self._path)
        try:
            if (opened.snapshot.name, opened.digest()) == (self.snapshot_id, self._digest):
                opened.close()
                return self.snapshot_id
            here = f"snapshot {self.snapshot_id} of {self._path!r}"
            snapshot_move.check_workers(self._shared.living_workers(), here)
            snapshot_move.check_class_ids(self.class_to_idx, opened, here)
            if self._own is not None:
                self._own.check(opened.split(self.split), f"snapshot {opened.snapshot.name}")
            former = self._cache
            self._take(opened)
        except BaseException:
            opened.close()
            raise
        if former is not None:
            former.close()
        return self.snapshot_id

    @property
    def targets(self) -> list[Any]:
        if self._targets is None:
            self._targets = self._labels()
        return self._targets

    def _labels(self) -> list[Any]:
        labels = self._opened().split(self.split)["label"] if self._own is None else self._own.values
        values: list[Any] = labels.tolist()
        return values

    @property
    def samples(self) -> list[tuple[str, Any]]:
        if self._samples is None:
            paths = map(os.fsdecode, self._opened().split(self.split).paths())
            self._samples = list(zip(paths, self._labels(), strict=True))  # whoever has changed `targets` since
        return self._samples

    @property
    def imgs(self) -> list[tuple[str, Any]]:
        return self.samples

    @property
    def shape(self) -> tuple[int, int, int]:
        channels, height, width = self._opened().tensors(self.split).shape
        return (channels, *(self._cutter.hw if self._cutter is not None else (height, width)))

    @property
    def failures(self) -> list[dict[str, Any]]:
        listed = self._opened().snapshot.failures
        return [dict(f) | {"path": layout.text_to_name(f["path"])} for f in listed]

    def _opened(self) -> Cache:
        if self._cache is None:
            opened = open_cache(self._path, self.snapshot_id, digest=self._digest)
            if self._digest is None:
                snapshot_move.check_undigested(vars(self) | {"samples": self._length}, opened, self.split)
                self._digest = opened.digest()
            self._cache = opened
        return self._cache

    def close(self) -> None:
        """Give up the hold on the snapshot; the next access takes it again."""
        if self._cache is not None:
            self._cache.close()
            self._cache = self._gatherer = self._first_check = None

    def __enter__(self) -> "CachedDataset":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        about = [
            f"Number of datapoints: {len(self)}",
            f"Root location: {self._path}",
            f"Split: {self.split}",
            f"Snapshot: {self.snapshot_id}",
            f"Variants: {self.variants}",
            f"Type: {self._dtype}",
        ]
        for name in ("transform", "target_transform", "batch_transform"):
            if getattr(self, name) is not None:
                about += f"{name.replace('_', ' ').capitalize()}: {getattr(self, name)!r}".splitlines()
        return "\n    ".join([f"Dataset {type(self).__name__}", *about])

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what each process opens or makes for itself."""
        mine = ("_cache", "_gatherer", "_first_check", "_targets", "_samples")
        return self.__dict__ | dict.fromkeys(mine) | {"_checked": ()}
