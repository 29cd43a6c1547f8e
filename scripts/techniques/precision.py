"""float32, float16 and uint8 in storage, delivered as the float32 that a model in full precision wants."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_caches import MEAN, STD
from torch.utils.data import DataLoader, Dataset

from loaders import CachedDataset
from techniques.common import Settings, measure, peak, short, table, whole
from techniques.stores import Loading, build_cache, pixels, rendered

BATCH = 256
ROUNDED = 6e-4
TOLERANCE = {"float32": 1e-6, "float16": ROUNDED, "uint8": 1e-6}
"""Mean difference from float64."""


class Mapped(Dataset):
    """One file of all images, a batch gathered by its numbers, then made float32."""

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.images = np.asarray(np.memmap(path, dtype, "r", shape=shape))
        self.mean = torch.tensor(MEAN).view(3, 1, 1)
        self.std = torch.tensor(STD).view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(self.images[numbers])
        if images.dtype == torch.uint8:
            images = images.float().div_(255).sub_(self.mean).div_(self.std)
        return images.float(), torch.tensor(numbers)


def mapped(path: Path, dtype: str, right: np.ndarray) -> Loading:
    dataset = Mapped(path, dtype, right.shape)
    loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, collate_fn=lambda batch: batch)
    return Loading(loader, right, TOLERANCE[dtype])


def cached(cache: Path, wanted: torch.dtype | None, right: np.ndarray, tolerance: float) -> Loading:
    return Loading(DataLoader(CachedDataset(cache, dtype=wanted), batch_size=BATCH, shuffle=True), right, tolerance)


def run(settings: Settings) -> dict[str, Any]:
    levels = np.stack(
        [np.ascontiguousarray(pixels(data).transpose(2, 0, 1)) for data in settings.files(settings.stored)]
    )
    mean, std = np.array(MEAN).reshape(3, 1, 1), np.array(STD).reshape(3, 1, 1)
    right = np.empty(levels.shape, np.float32)
    for out, image in zip(right, levels, strict=True):
        out[...] = (image / 255.0 - mean) / std
    values = {"float32": right, "float16": rendered(settings), "uint8": levels}
    contenders: dict[str, Any] = {}
    kb: dict[str, float] = {}
    for dtype, stored in values.items():
        path = settings.work / f"images.{dtype}"
        stored.tofile(path)
        name = f"memmap, {dtype} stored, float32 delivered"
        contenders[name] = partial(mapped, path, dtype, right)
        kb[name] = stored[0].nbytes / 1e3
    for dtype in ("float16", "uint8"):
        cache = build_cache(settings, dtype)
        name = f"decant, {dtype} stored, float32 delivered"
        contenders[name] = partial(cached, cache, torch.float32, right, TOLERANCE["float16"])
        kb[name] = values[dtype][0].nbytes / 1e3
    name = "decant, float16 stored, float16 delivered"
    contenders[name] = partial(cached, build_cache(settings), None, right, TOLERANCE["float16"])
    kb[name] = values["float16"][0].nbytes / 1e3
    name = "decant, uint8 stored, uint8 delivered"
    contenders[name] = partial(cached, build_cache(settings, "uint8"), torch.uint8, levels, 0.0)
    kb[name] = levels[0].nbytes / 1e3
    found = measure("precision", contenders, settings.rounds)
    return {
        "images": len(right),
        "figures": {name: each | {"kb": kb[name]} for name, each in found.items()},
    }


def page(found: dict[str, Any]) -> str:
    rows = [
        [name, f"{each['kb']:,.0f}", short(each["ms"]), whole(each), peak(each), f"{each['apart']:.1g}"]
        for name, each in found["figures"].items()
    ]
    lead = (
        f"{found['images']} images, batches of {BATCH}, shuffled, `num_workers=0`, one thread, warm. The error is the "
        "largest difference found from float32, of values between about -2 and 3 (of uint8 delivered: from the levels)."
    )
    return lead + "\n\n" + table(["way", "KB an image", "ms an image", "images/s", "peak MB", "error"], rows)
