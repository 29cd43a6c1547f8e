"""CachedDataset: index -> (tensor, label), out of mapped shards."""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate, get_worker_info

from cache_store import layout
from cache_store.errors import IntegrityError, NotFoundError, UsageError
from cache_store.reader import Cache, TensorReader, open_cache
from loaders.checks import FirstCheck
from loaders.collate import GatheredBatch
from loaders.convert import converter
from loaders.gather import Gatherer
from loaders.memory import batch_memory
from loaders.normalizer import Normalizer
from loaders.shards import FileShards, MappedShards
from loaders.shared import Shared
from loaders.window import Cutter

_Memory = Callable[[tuple[int, ...], torch.dtype], torch.Tensor]

_DTYPES = (torch.float16, torch.float32, torch.bfloat16)


def _plain_memory(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """For a single image: neither a pooled buffer nor shared memory is worth it."""
    return torch.empty(shape, dtype=dtype)


class CachedDataset(Dataset[tuple[torch.Tensor, int]]):
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
    variant : always this variant; None: see `set_epoch`
    crop : height and width of a window that is cut out of each stored image while it is copied, or one number for
        both; None: all of it
    flip : mirror each image left to right with probability 1/2, from torch's generator
    crop_mode : 'random' (from torch's generator) or 'center'
    transform : called with each image, gives what the dataset returns in its place
    target_transform : the same for labels
    batch_transform : called with images (n, C, H, W) and labels (n,) of a whole batch, gives both, as torchvision's
        `v2.MixUp` and `v2.CutMix` do; `dataset[i]` calls it with a batch of one
    io : 'mmap', or 'pread' for network file systems
    check : 'never', or 'first': compare each image with its checksum when it is first touched in a process

    Attributes
    ----------
    classes : names of all classes, by class id
    class_to_idx : class id of each name
    targets : class id of each sample, -1 for unlabelled ones
    samples : (path relative to SOURCE, class id) of each sample
    failures : path, stage and reason of each image that the build left out
    mean, std : in force, in 0..1, one value a channel
    snapshot_id : name of the snapshot
    split : name of the split
    variants : K

    Raises
    ------
    NotFoundError : no such cache, split, snapshot or sample
    UsageError : an argument that cannot be meant
    IntegrityError : missing or damaged bytes; names sample and file
    StorageError : the system refused to read
    """

    def __init__(
        self,
        cache: str | os.PathLike[str],
        split: str = "train",
        snapshot: str | None = None,
        *,
        dtype: torch.dtype | None = None,
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
        self._path = os.path.abspath(os.fspath(cache))
        self.split = split
        self._dtype = dtype or torch.float16
        self._asked_dtype, self._fixed_variant = dtype, variant
        self._crop, self._flip, self._crop_mode = crop, flip, crop_mode
        self._io, self._check = io, check
        self.transform, self.target_transform, self.batch_transform = transform, target_transform, batch_transform
        self._shared = Shared()
        self._cache: Cache | None = None
        self._gatherer: Gatherer | None = None
        self._first_check: FirstCheck | None = None
        opened = open_cache(self._path, snapshot)
        try:
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
        self.snapshot_id = opened.snapshot.name
        self.variants = table.variants
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
        image, label = self._transformed(images[0], int(labels[0]))
        if self.batch_transform is None:
            return image, label
        images, labels = self.batch_transform(*default_collate([(image, label)]))
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        """A whole batch, as `DataLoader` asks for it: gathered at once, and collated for nothing.

        Raises
        ------
        IndexError : beyond the last sample
        """
        images, labels = self._batch(indices, batch_memory)
        if self.transform is not None or self.target_transform is not None:
            samples = [self._transformed(image, label) for image, label in zip(images, labels.tolist(), strict=True)]
            if self.batch_transform is None:
                return samples
            images, labels = default_collate(samples)
        else:
            self._advise()
        if self.batch_transform is not None:
            images, labels = self.batch_transform(images, labels)
        return GatheredBatch(images, labels)

    def _batch(self, indices: Sequence[int], memory: _Memory) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (n, C, H, W) in memory of their own, and labels (n,)."""
        numbers = np.asarray(indices, np.int64).flatten()  # a copy: the caller's indices stay as they are
        wrong = numbers[(numbers < -self._length) | (numbers >= self._length)]
        if len(wrong):
            raise IndexError(f"split {self.split!r} has samples 0 to {self._length - 1}, there is no {wrong[0]}")
        numbers[numbers < 0] += self._length
        if get_worker_info() is not None:
            self._shared.enter_worker()
        opened = self._opened()
        table = opened.split(self.split)
        variants = self._variants(len(numbers))
        windows = None if self._cutter is None else self._cutter.draw(len(numbers))
        gatherer = self._gatherer or self._new_gatherer(opened)
        images = memory((len(numbers), *gatherer.shape), self._dtype)
        try:
            if self._first_check is not None:
                self._first_check.see(numbers, variants)
            gatherer.gather(table["slot"][numbers, variants], images, windows)
        except IntegrityError:
            for number, variant in zip(numbers.tolist(), variants.tolist(), strict=True):
                opened.image(self.split, number, variant)  # says which sample it is
            raise
        return images, torch.from_numpy(table["label"][numbers])

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

    def _advise(self) -> None:
        """Say once a run, not once a worker, that worker processes cost speed here."""
        worker = get_worker_info()
        if worker is not None and worker.id == 0 and self._shared.first_warning():
            warnings.warn(
                "CachedDataset is faster without worker processes: batches are copied straight out of the mapped "
                "cache, and workers copy them a second time; use num_workers=0 (measure it here: make "
                "bench-load ARGS='--only limits')",
                stacklevel=2,
            )

    def set_epoch(self, epoch: int) -> None:
        """From now on variant `epoch` mod K, in this process and in every worker that has the dataset already.

        Raises
        ------
        UsageError : a negative epoch
        """
        if epoch < 0:
            raise UsageError(f"epoch: 0 or more expected, found {epoch}")
        self._shared.epoch = epoch

    @property
    def epoch(self) -> int | None:
        """The epoch that `set_epoch` was told last; None: none yet."""
        return self._shared.epoch

    def _variants(self, count: int) -> np.ndarray:
        """For each sample the fixed variant; else that of the epoch; else one drawn from torch's generator."""
        variant = self.epoch_variant(self.epoch)
        if variant is None:
            return torch.randint(self.variants, (count,)).numpy()
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
            was opened with does not fit any more; the dataset stays where it is
        """
        opened = open_cache(self._path)
        try:
            if opened.snapshot.name == self.snapshot_id:
                opened.close()
                return self.snapshot_id
            here = f"snapshot {self.snapshot_id} of {self._path!r}"
            holders = self._shared.living_workers()
            if holders:
                raise UsageError(
                    f"refresh: worker process {', '.join(map(str, holders))} still reads {here}; refresh between "
                    "epochs, without persistent_workers"
                )
            now = {name: number for number, name in enumerate(opened.snapshot.classes)}
            moved = [
                f"{name!r} {old} -> {now.get(name, 'none')}"
                for name, old in self.class_to_idx.items()
                if now.get(name) != old
            ]
            if moved:
                raise UsageError(
                    f"refresh: class ids differ between {here} and {opened.snapshot.name}: {', '.join(moved[:5])}; "
                    "open a new CachedDataset, or list 'classes' in the recipe to pin them"
                )
            former = self._cache
            self._take(opened)
        except BaseException:
            opened.close()
            raise
        if former is not None:
            former.close()
        return self.snapshot_id

    @property
    def targets(self) -> list[int]:
        labels: list[int] = self._opened().split(self.split)["label"].tolist()
        return labels

    @property
    def samples(self) -> list[tuple[str, int]]:
        paths = self._opened().split(self.split).paths()
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
            self._cache = self._gatherer = self._first_check = None

    def __enter__(self) -> "CachedDataset":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cache": None, "_gatherer": None, "_first_check": None}
