"""`num_workers`, `pin_memory` and batch size: of a dataset that decodes, and of a cache."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_caches import MEAN, STD
from torch.utils.data import DataLoader, Dataset

from loaders import CachedDataset
from preprocess.render import Normaliser, to_planes
from techniques.common import NO_GPU, SIZE, Settings, measure, peak, table, whole
from techniques.stores import Loading, build_cache, file_of, pixels, rendered, source

WORKERS = (0, 1, 2, 4)
BATCHES = (16, 64, 128)
PINNED_BATCH = 64


class Decoding(Dataset):
    """Files, decoded and rendered whenever they are asked for, as the build of a cache does it: OpenCV and a table."""

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.normaliser = Normaliser((MEAN, STD), (3, SIZE, SIZE))
        self.planes = np.empty((3, SIZE, SIZE), np.uint8)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        image = pixels(file_of(self.folder, number).read_bytes())
        return torch.from_numpy(self.normaliser(to_planes(image, self.planes)).copy()), number


class ToGPU:
    """A loader whose batches are copied to the GPU."""

    def __init__(self, loader: DataLoader) -> None:
        self.loader = loader

    def __iter__(self) -> Any:
        for images, labels in self.loader:
            yield images.to("cuda", non_blocking=True), labels


class LoadingToGPU(Loading):
    def epoch(self) -> tuple[int, float]:
        self.cuda = True  # wait for it
        try:
            return super().epoch()
        finally:
            self.cuda = False  # the memory of interest is the computer's

    def same(self, image: torch.Tensor, number: int) -> bool:
        return super().same(image.cpu(), number)


def loader(dataset: Dataset, batch: int, workers: int, pin: bool = False) -> DataLoader:
    keep = {"num_workers": workers, "persistent_workers": True} if workers else {}
    return DataLoader(dataset, batch_size=batch, shuffle=True, pin_memory=pin, **keep)


def plain(dataset: Any, right: np.ndarray, batch: int, workers: int, pin: bool, cuda: bool) -> Loading:
    made = loader(dataset(), batch, workers, pin)
    return LoadingToGPU(ToGPU(made), right) if cuda else Loading(made, right)


def run(settings: Settings) -> dict[str, Any]:
    right = rendered(settings)
    datasets = {
        "decodes": partial(Decoding, source(settings), len(right)),
        "decant": partial(CachedDataset, build_cache(settings)),
    }
    found: dict[str, Any] = {"images": len(right), "figures": {}, "pinned": {}}
    for name, dataset in datasets.items():
        rounds = min(settings.rounds, 3) if name == "decodes" else settings.rounds
        contenders = {
            key(workers, batch): partial(plain, dataset, right, batch, workers, pin=False, cuda=settings.cuda)
            for workers in WORKERS
            for batch in BATCHES
        }
        found["figures"][name] = measure(f"load {name}", contenders, rounds)
    for workers in (0, 2):
        for pin in (False, True):
            make = partial(plain, datasets["decant"], right, PINNED_BATCH, workers, pin)
            name = f"{workers} workers, pin_memory={pin}"
            found["pinned"][f"{name}, to the GPU"] = partial(make, cuda=True) if settings.cuda else NO_GPU
            found["pinned"][f"{name}, on the CPU"] = partial(make, cuda=False)
    found["pinned"] = measure("pin_memory", found["pinned"], settings.rounds)
    return found


def key(workers: int, batch: int) -> str:
    return f"{workers} workers, batches of {batch}"


def page(found: dict[str, Any]) -> str:
    parts = []
    titles = {
        "decodes": f"A dataset that decodes {found['images']} JPEG files (OpenCV, Albumentations, table, float16):",
        "decant": f"`CachedDataset` of the same {found['images']} images:",
    }
    head = ["`num_workers`"]
    for batch in BATCHES:
        head += [f"batches of {batch}: images/s", "peak MB"]
    for name, title in titles.items():
        rows = []
        for workers in WORKERS:
            cells = [found["figures"][name][key(workers, batch)] for batch in BATCHES]
            rows.append([str(workers), *(text for each in cells for text in (whole(each), peak(each)))])
        parts += [title, table(head, rows)]
    rows = []
    for name, each in found["pinned"].items():
        cells = [each["missing"], ""] if "missing" in each else [whole(each), peak(each)]
        rows.append([name, *cells])
    parts += [
        f"`pin_memory`, `CachedDataset`, batches of {PINNED_BATCH}:",
        table(["setting", "images/s", "peak MB"], rows),
    ]
    return "\n\n".join(parts)
