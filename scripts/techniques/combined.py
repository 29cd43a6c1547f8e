"""One technique after the other on one training loop: from Pillow and torchvision to a cache."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_caches import MEAN, STD
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from preprocess.augment import library
from techniques.common import SIZE, Settings, alone, measure, processors, row, short, table
from techniques.decode import opencv
from techniques.loading import Decoding
from techniques.storage import Decant, MappedBatches, MappedFile, Photos
from techniques.stores import LARGER, Loading, file_of, pixels, rendered, source

BATCH = 256
OTHER_RESIZE = 0.5
"""Mean difference, of normalised values, that another way to shrink may make, and a crop that begins one pixel beside
where there is fine texture; different photos are about 1 apart."""

ROUNDED = 6e-4
"""The same for float32, against the right answer in float16."""


class Files(Dataset):
    """JPEG files through a function of their paths."""

    def __init__(self, folder: Path, count: int, function: Any) -> None:
        self.folder, self.count, self.function = folder, count, function

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return self.function(file_of(self.folder, number)), number


class InRAM(Dataset):
    """What another dataset gives, kept."""

    def __init__(self, dataset: Dataset, count: int) -> None:
        self.samples = [dataset[number] for number in range(count)]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return self.samples[number]


def naive() -> Any:
    """As in most tutorials."""
    steps = v2.Compose(
        [
            v2.Resize(LARGER),
            v2.CenterCrop(SIZE),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return lambda path: steps(Image.open(path).convert("RGB"))


def other_decoder() -> Any:
    steps = v2.Compose(
        [v2.Resize(LARGER), v2.CenterCrop(SIZE), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    )
    return lambda path: steps(torch.from_numpy(opencv(path.read_bytes())).permute(2, 0, 1))


def other_transforms() -> Any:
    A = library()
    last = A.Compose([A.Normalize(MEAN, STD), A.ToTensorV2()])
    return lambda path: last(image=pixels(path.read_bytes()))["image"]


def by_table() -> Any:
    """To float32, which nothing but the type of its values sets apart from the next step."""
    levels = np.arange(256)[None, :] / 255.0
    rows = ((levels - np.array(MEAN)[:, None]) / np.array(STD)[:, None]).astype(np.float32)

    def function(path: Path) -> torch.Tensor:
        image = pixels(path.read_bytes())
        out = np.empty((3, SIZE, SIZE), np.float32)
        for channel, plane in enumerate(image.transpose(2, 0, 1)):
            np.take(rows[channel], plane, out=out[channel], mode="clip")
        return torch.from_numpy(out)

    return function


class Step(Loading):
    """A loop, and the seconds that it takes to get ready in its own process."""

    def __init__(self, make: Any, right: np.ndarray, tolerance: float, workers: int = 0, **options: Any) -> None:
        begun = time.perf_counter()
        dataset = make()
        self.ready_s = time.perf_counter() - begun
        keep = {"num_workers": workers, "persistent_workers": True} if workers else {}
        super().__init__(DataLoader(dataset, batch_size=BATCH, shuffle=True, **keep, **options), right, tolerance)

    def extra(self) -> dict[str, Any]:
        return {"ready_s": self.ready_s}


class OfStore(Loading):
    def __init__(self, store: Any, right: np.ndarray) -> None:
        super().__init__(store.loader(0), right)

    def extra(self) -> dict[str, Any]:
        return {"ready_s": 0.0}


def run(settings: Settings) -> dict[str, Any]:
    right = rendered(settings)
    count, folder = len(right), source(settings)
    arrays: Any = Photos(folder, count)
    decoding = partial(Decoding, folder, count)

    def files(function: Any) -> Any:
        return lambda: Files(folder, count, function())

    contenders: dict[str, Any] = {
        "Pillow, torchvision, float32": partial(Step, files(naive), right, OTHER_RESIZE),
        "+ OpenCV decodes": partial(Step, files(other_decoder), right, OTHER_RESIZE),
        "+ Albumentations transforms": partial(Step, files(other_transforms), right, ROUNDED),
        "+ table normalises": partial(Step, files(by_table), right, ROUNDED),
        "+ float16": partial(Step, decoding, right, 0.0),
        f"+ {processors()} workers": partial(Step, decoding, right, 0.0, workers=processors()),
        "cache in RAM, no workers": partial(Step, lambda: InRAM(decoding(), count), right, 0.0),
    }
    stores = {
        "cache in a mapped file": MappedFile(settings.work / "combined1", arrays, BATCH),
        "+ a batch at a time": MappedBatches(settings.work / "combined2", arrays, BATCH),
        "decant": Decant(settings.work / "combined3", arrays, BATCH),
    }
    built = {}
    for name, store in stores.items():
        begun = time.perf_counter()
        alone(name, partial(store.prepare, store.folder, arrays))
        built[name] = time.perf_counter() - begun
        contenders[name] = partial(OfStore, store, right)
    found = measure("combined", contenders, min(settings.rounds, 3))
    for name, seconds in built.items():
        found[name]["ready_s"] = seconds
    return {"images": count, "figures": found}


def page(found: dict[str, Any]) -> str:
    first = next(iter(found["figures"].values()))["ms"]
    rows = [
        [*row(name, each), f"{first / each['ms']:,.1f}", short(each["ready_s"]) if each["ready_s"] > 0.1 else "–"]
        for name, each in found["figures"].items()
    ]
    head = ["loop", "ms an image", "(low to high)", "images/s", "peak MB", "times the first", "made once, s"]
    lead = (
        f"{found['images']} photos, batches of {BATCH}, shuffled, one thread a process, warm; a row adds one technique "
        "to the row above it, and a cache takes the place of decoding. No model: this is all that the loop does. "
        f"Allowed mean difference from the right answer: {OTHER_RESIZE:g} where torchvision resizes, {ROUNDED:g} in "
        "float32, none in float16."
    )
    return lead + "\n\n" + table(head, rows)
