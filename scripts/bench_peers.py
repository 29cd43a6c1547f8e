"""Other ways to feed a training loop, each on a store of its own made from the same float16 tensors.

A peer is a small class: `prepare(folder, arrays)` writes its store, `loader(workers)` gives an iterable over an epoch
of (images (n, C, H, W), labels (n,)) in shuffled order, in the way that its documentation calls fastest.
Libraries are imported when they are needed; one that is not installed makes an ImportError, which names it.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_caches import MEAN, STD, Content, write_cache, write_jpegs
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

Batch = tuple[torch.Tensor, torch.Tensor]


class Arrays:
    """What all stores are made from.

    Parameters
    ----------
    content : of the samples
    samples : how many
    photos : folder of real JPEGs, class by class, for peers that decode; None: synthetic ones
    """

    def __init__(self, content: Content, samples: int, photos: Path | None = None) -> None:
        self.content, self.samples, self.photos = content, samples, photos
        self.shape = content.shape

    def __len__(self) -> int:
        return self.samples

    def image(self, number: int) -> np.ndarray:
        """Normalised, float16 (C, H, W); its label is its number."""
        return self.content.halves(number)


class Peer:
    """One way to load.

    Attributes
    ----------
    name : in tables
    distribution : the package that brings it; None: none but ours and torch's
    start : how its worker processes start; threads of a library do not survive a fork
    decodes : whether it reads images instead of tensors; its labels are classes then, and its values its own
    """

    name: str
    distribution: str | None = None
    start = "fork"
    decodes = False

    def __init__(self, folder: Path, arrays: Arrays, batch: int) -> None:
        self.folder, self.arrays, self.batch = folder, arrays, batch

    @classmethod
    def version(cls) -> str | None:
        """Of the package; None: there is none, or it is not installed."""
        try:
            return version(cls.distribution) if cls.distribution else None
        except PackageNotFoundError:
            return None

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        raise NotImplementedError

    def loader(self, workers: int) -> Iterable[Batch]:
        raise NotImplementedError

    def plain(self, dataset: Dataset, workers: int, **options: Any) -> DataLoader:
        """A DataLoader with the settings that help most peers: workers that stay, batches as big as asked."""
        return DataLoader(dataset, **{"batch_size": self.batch, "shuffle": True} | self.workers(workers) | options)

    def workers(self, count: int) -> dict[str, Any]:
        if count == 0:
            return {}
        return {"num_workers": count, "persistent_workers": True, "multiprocessing_context": self.start}


def as_it_is(batch: Any) -> Any:
    """Collate what is collated already."""
    return batch


# -- ours -------------------------------------------------------------------------------------------------------------


class Decant(Peer):
    name = "decant"
    distribution = "decant-cache"

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        write_cache(folder, arrays.content, len(arrays))

    def loader(self, workers: int) -> Iterable[Batch]:
        from loaders import CachedDataset

        return self.plain(CachedDataset(self.folder), workers)


# -- written by hand --------------------------------------------------------------------------------------------------


class _Memmap(Dataset):
    """One file of all tensors; each process maps it for itself."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape = path, shape
        self.images: np.ndarray | None = None
        self.labels = np.arange(shape[0])

    def opened(self) -> np.ndarray:
        if self.images is None:
            self.images = np.asarray(np.memmap(self.path, np.float16, "r", shape=self.shape))
        return self.images

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(self.opened()[index].copy()), int(self.labels[index])


class _GatheredMemmap(_Memmap):
    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return torch.from_numpy(self.opened()[indices]), torch.from_numpy(self.labels[indices])


class Memmap(Peer):
    name = "memmap, per sample"

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        folder.mkdir()
        with open(folder / "images", "wb") as file:
            for number in range(len(arrays)):
                arrays.image(number).tofile(file)

    def loader(self, workers: int) -> Iterable[Batch]:
        return self.plain(_Memmap(self.folder / "images", (len(self.arrays), *self.arrays.shape)), workers)


class ExpertMemmap(Memmap):
    """What a good engineer writes in fifteen lines: NumPy gathers a batch by its indices, nothing collates it again."""

    name = "memmap, expert"

    def loader(self, workers: int) -> Iterable[Batch]:
        dataset = _GatheredMemmap(self.folder / "images", (len(self.arrays), *self.arrays.shape))
        return self.plain(dataset, workers, collate_fn=as_it_is)


# -- libraries --------------------------------------------------------------------------------------------------------


class TensorDictMemmap(Peer):
    name = "tensordict"
    distribution = "tensordict"

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        from tensordict import TensorDict

        one = torch.zeros((), dtype=torch.int64)
        stored = TensorDict({"image": torch.zeros(arrays.shape, dtype=torch.float16), "label": one}, batch_size=[])
        stored = stored.expand(len(arrays)).memmap_like(folder)
        for number in range(len(arrays)):
            stored["image"][number] = torch.from_numpy(arrays.image(number))
            stored["label"][number] = number

    def loader(self, workers: int) -> Iterable[Batch]:
        from tensordict import TensorDict

        stored = TensorDict.load_memmap(self.folder)
        return _Pairs(self.plain(stored, workers, collate_fn=as_it_is))


class _Pairs:
    """Batches that are mappings, as (image, label)."""

    def __init__(self, loader: Iterable[Any]) -> None:
        self.batches = loader

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            yield batch["image"], batch["label"]


class FFCV(Peer):
    """Keeps the bits of float16 as int16: Numba, which compiles its pipelines, has no float16 on the CPU."""

    name = "FFCV"
    distribution = "ffcv"

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        from ffcv.fields import IntField, NDArrayField
        from ffcv.writer import DatasetWriter

        folder.mkdir()
        fields = {"image": NDArrayField(np.dtype(np.int16), arrays.shape), "label": IntField()}
        DatasetWriter(str(folder / "images.beton"), fields, num_workers=1).from_indexed_dataset(_Indexed(arrays))

    def loader(self, workers: int) -> Iterable[Batch]:
        from ffcv.fields.decoders import IntDecoder, NDArrayDecoder
        from ffcv.loader import Loader, OrderOption
        from ffcv.transforms import Squeeze, ToTensor

        pipelines = {"image": [NDArrayDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor(), Squeeze()]}
        loader = Loader(
            str(self.folder / "images.beton"),
            batch_size=self.batch,
            num_workers=max(1, workers),  # threads; it needs one
            order=OrderOption.RANDOM,
            os_cache=True,
            drop_last=False,
            pipelines=pipelines,
        )
        return _AsHalves(loader)


class _Indexed(Dataset):
    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.arrays.image(int(index)).view(np.int16), int(index)


class _AsHalves:
    """Batches of bits, as float16; a view."""

    def __init__(self, loader: Iterable[Batch]) -> None:
        self.batches = loader

    def __iter__(self) -> Iterator[Batch]:
        for images, labels in self.batches:
            yield images.view(torch.float16), labels


class Streaming(Peer):
    name = "MosaicML Streaming"
    distribution = "mosaicml-streaming"

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        from streaming import MDSWriter

        columns = {"image": "ndarray:float16:" + ",".join(map(str, arrays.shape)), "label": "int"}
        with MDSWriter(out=str(folder), columns=columns) as file:
            for number in range(len(arrays)):
                file.write({"image": arrays.image(number), "label": number})

    def loader(self, workers: int) -> Iterable[Batch]:
        from streaming import StreamingDataset
        from streaming.base.util import clean_stale_shared_memory

        clean_stale_shared_memory()  # of a run that was killed
        dataset = StreamingDataset(local=str(self.folder), shuffle=True, batch_size=self.batch)
        return _Pairs(self.plain(dataset, workers, shuffle=False))


class LitData(Peer):
    name = "LitData"
    distribution = "litdata"

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        from litdata import optimize

        numbers = list(range(len(arrays)))
        optimize(_LitSample(arrays), numbers, str(folder), chunk_bytes="64MB", num_workers=1, verbose=False)

    def loader(self, workers: int) -> Iterable[Batch]:
        from litdata import StreamingDataLoader, StreamingDataset

        dataset = StreamingDataset(str(self.folder), shuffle=True)
        options = {"num_workers": workers, "persistent_workers": True} if workers else {}
        return _Pairs(StreamingDataLoader(dataset, batch_size=self.batch, shuffle=True, **options))


class _LitSample:
    def __init__(self, arrays: Arrays) -> None:
        self.arrays = arrays

    def __call__(self, number: int) -> dict[str, Any]:
        return {"image": torch.from_numpy(self.arrays.image(number)), "label": number}


class WebDataset(Peer):
    name = "WebDataset"
    distribution = "webdataset"

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        from webdataset import ShardWriter

        folder.mkdir()
        with ShardWriter(str(folder / "%04d.tar"), maxsize=64e6, verbose=0) as file:
            for number in range(len(arrays)):
                image = arrays.image(number).tobytes()  # raw: cheaper to read than .npy
                file.write({"__key__": f"{number:09d}", "image": image, "label": str(number)})

    def loader(self, workers: int) -> Iterable[Batch]:
        import webdataset

        shards = sorted(map(str, self.folder.glob("*.tar")))
        dataset = webdataset.WebDataset(shards, shardshuffle=len(shards), empty_check=False).shuffle(2 * self.batch)
        dataset = dataset.map(_WebSample(self.arrays.shape)).batched(self.batch, collation_fn=_stack)
        return webdataset.WebLoader(dataset, batch_size=None, **self.workers(workers))


class _WebSample:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __call__(self, sample: dict[str, bytes]) -> tuple[np.ndarray, int]:
        return np.frombuffer(sample["image"], np.float16).reshape(self.shape), int(sample["label"])


def _stack(samples: list[tuple[np.ndarray, int]]) -> Batch:
    images, labels = zip(*samples, strict=True)
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


class HuggingFace(Peer):
    name = "HF datasets"
    distribution = "datasets"

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        import datasets

        features = datasets.Features(
            {"image": datasets.Array3D(arrays.shape, "float16"), "label": datasets.Value("int64")}
        )
        samples = ({"image": arrays.image(number), "label": number} for number in range(len(arrays)))
        with datasets.arrow_writer.ArrowWriter(features=features, path=f"{folder}.arrow") as file:
            for sample in samples:
                file.write(sample)
            file.finalize()
        datasets.Dataset.from_file(f"{folder}.arrow").save_to_disk(str(folder))
        os.unlink(f"{folder}.arrow")

    def loader(self, workers: int) -> Iterable[Batch]:
        import datasets

        stored = datasets.load_from_disk(str(self.folder)).with_format("numpy")  # "torch" would deliver float32
        batches = BatchSampler(RandomSampler(stored), self.batch, drop_last=False)  # a batch is one look-up
        options = {"batch_size": None, "shuffle": False, "sampler": batches, "collate_fn": _as_tensors}
        return self.plain(stored, workers, **options)


def _as_tensors(batch: dict[str, np.ndarray]) -> Batch:
    return torch.from_numpy(np.asarray(batch["image"], np.float16)), torch.from_numpy(np.asarray(batch["label"]))


class _Store(Dataset):
    """An array of another library, opened by each process for itself, gathered batch by batch."""

    def __init__(self, peer: "ChunkedArray") -> None:
        self.peer = peer
        self.array: Any = None

    def __len__(self) -> int:
        return len(self.peer.arrays)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        if self.array is None:
            self.array = self.peer.open()
        numbers = np.asarray(indices)
        return torch.from_numpy(self.peer.gather(self.array, numbers)), torch.from_numpy(numbers)


class ChunkedArray(Peer):
    """An uncompressed Zarr v3 array with one sample a chunk."""

    start = "spawn"

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        import zarr

        shape = arrays.shape
        array = zarr.create_array(
            str(folder), shape=(len(arrays), *shape), chunks=(1, *shape), dtype="float16", compressors=None
        )
        for number in range(len(arrays)):
            array[number] = arrays.image(number)

    def loader(self, workers: int) -> Iterable[Batch]:
        return self.plain(_Store(self), workers, collate_fn=as_it_is)

    def open(self) -> Any:
        raise NotImplementedError

    def gather(self, array: Any, numbers: np.ndarray) -> np.ndarray:
        raise NotImplementedError


class TensorStore(ChunkedArray):
    name = "tensorstore"
    distribution = "tensorstore"

    def open(self) -> Any:
        import tensorstore

        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(self.folder)}}
        return tensorstore.open(spec, read=True).result()

    def gather(self, array: Any, numbers: np.ndarray) -> np.ndarray:
        return array[numbers].read().result()


class ZarrPython(ChunkedArray):
    name = "zarr-python"
    distribution = "zarr"

    def open(self) -> Any:
        import zarr

        return zarr.open_array(str(self.folder), mode="r")

    def gather(self, array: Any, numbers: np.ndarray) -> np.ndarray:
        return np.asarray(array.oindex[numbers])


class Zarrs(ZarrPython):
    name = "zarrs"
    distribution = "zarrs"

    def open(self) -> Any:
        import zarr
        import zarrs  # noqa: F401  registers what the next line names

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
        return super().open()


class ImageFolder(Peer):
    """No cache at all: every epoch decodes JPEGs."""

    name = "ImageFolder (decodes)"
    distribution = "torchvision"
    decodes = True

    def prepare(self, folder: Path, arrays: Arrays) -> None:
        if arrays.photos is None:
            write_jpegs(folder, arrays.shape[1], len(arrays))
        else:
            folder.symlink_to(arrays.photos.resolve())

    def loader(self, workers: int) -> Iterable[Batch]:
        from torchvision import datasets, transforms

        size = self.arrays.shape[1]
        steps = [
            transforms.Resize(round(size * 256 / 224)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
            transforms.ConvertImageDtype(torch.float16),
        ]
        return self.plain(datasets.ImageFolder(str(self.folder), transforms.Compose(steps)), workers)


PEERS: tuple[type[Peer], ...] = (
    Decant,
    ExpertMemmap,
    Memmap,
    TensorDictMemmap,
    FFCV,
    Streaming,
    LitData,
    WebDataset,
    HuggingFace,
    TensorStore,
    Zarrs,
    ZarrPython,
    ImageFolder,
)
"""Ours first."""
