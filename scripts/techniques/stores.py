"""The images that stores and training loops are about: a folder of files, what they should come to, and a cache."""

import multiprocessing
import threading
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from bench_caches import MEAN, STD, kept
from bench_load import check

from preprocess import build
from preprocess.augment import library
from techniques.common import SIZE, Settings, Technique, alone

LARGER = 256
_WATCH_S = 0.002

RECIPE: dict[str, Any] = {
    "size": SIZE,
    "normalize": "imagenet",
    "splits": {
        "train": {
            "folder": ".",
            "transforms": [
                {"SmallestMaxSize": {"max_size": LARGER, "interpolation": "area"}},
                {"CenterCrop": {"height": SIZE, "width": SIZE}},
            ],
        }
    },
}


@cache
def steps() -> Any:
    """The recipe's transforms, of Albumentations."""
    A = library()
    return A.Compose([A.SmallestMaxSize(LARGER, interpolation=cv2.INTER_AREA), A.CenterCrop(SIZE, SIZE)])


def pixels(data: bytes) -> np.ndarray:
    """A JPEG file, decoded and transformed: uint8 (H, W, C)."""
    image: np.ndarray = steps()(image=cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB))["image"]
    return image


def render(data: bytes) -> np.ndarray:
    """The same, normalised in float64 and rounded once: float16 (C, H, W)."""
    done = (pixels(data) / 255.0 - np.array(MEAN)) / np.array(STD)
    return np.ascontiguousarray(done.transpose(2, 0, 1).astype(np.float16))


_rendered: dict[int, np.ndarray] = {}


def rendered(settings: Settings) -> np.ndarray:
    """What each stored image should come to: float16 (n, C, H, W)."""
    if settings.stored not in _rendered:
        _rendered[settings.stored] = np.stack([render(data) for data in settings.files(settings.stored)])
    return _rendered[settings.stored]


def source(settings: Settings) -> Path:
    """A folder of these files, one a class, so that a sample's label is its number."""

    def write(part: Path) -> None:
        for number, data in enumerate(settings.files(settings.stored)):
            folder = part / f"{number:05d}"
            folder.mkdir(parents=True)
            (folder / "photo.jpg").write_bytes(data)

    return kept(settings.work / "source", write)


def file_of(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}" / "photo.jpg"


def build_cache(settings: Settings, dtype: str = "float16") -> Path:
    """decant's cache of that folder."""
    cache = settings.work / f"cache-{dtype}"
    folder = source(settings)
    if not cache.exists():
        alone("decant", lambda: str(build(folder, cache, RECIPE | {"dtype": dtype}, device="cpu")))
    return cache


class Loading(Technique):
    """A loader that delivers (images, labels), labels being numbers.

    Attributes
    ----------
    apart : the largest difference from the right answer that `check` has seen
    """

    def __init__(self, loader: Any, right: np.ndarray, tolerance: float = 0.0) -> None:
        self.loader, self.right, self.tolerance = loader, right, tolerance
        self.apart = 0.0

    def drain(self) -> int:
        return sum(len(labels) for _, labels in self.loader)

    def check(self) -> None:
        check(self.loader, len(self.right), self.same)

    def same(self, image: torch.Tensor, number: int) -> bool:
        apart = (image.double() - torch.from_numpy(self.right[number]).double()).abs()
        self.apart = max(self.apart, float(apart.max()))
        return float(apart.mean()) <= self.tolerance

    def extra(self) -> dict[str, Any]:
        return {"apart": self.apart}

    def memory(self) -> int:
        """And that of worker processes, the most of it at any time of the pass."""
        done, most = threading.Event(), 0

        def watch() -> None:
            nonlocal most
            while not done.wait(_WATCH_S):
                most = max(most, workers_bytes())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            own = super().memory()
        finally:
            done.set()
            watcher.join()
        return own + most


def workers_bytes() -> int:
    """Memory that would not be there without this process's worker processes."""
    found = 0
    for process in multiprocessing.active_children():
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        found += sum(int(line.split()[1]) for line in lines if line.startswith(("Private_Dirty:", "Pss_Shmem:")))
    return found * 1024
