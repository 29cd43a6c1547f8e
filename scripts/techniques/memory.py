"""Where values live: all in RAM or one after the other; fresh memory, in place, or used again."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from bench_caches import MEAN, STD
from contenders import WrongValue

from loaders.buffers import POOL
from techniques.common import EachInput, Settings, Technique, compare, measure, plain_table, row, short, table
from techniques.stores import render, rendered

GATHERED = 256
NORMALISED = 64


# -- a generator against all in RAM ------------------------------------------------------------------------------------


class Generated(Technique):
    """Files are read, decoded and rendered one after the other, in every pass; nothing is kept."""

    def __init__(self, files: list[bytes], right: np.ndarray) -> None:
        self.files, self.right = files, right
        self.place = np.empty_like(right[0])
        begun = time.perf_counter()
        next(self.images())
        self.ready_s = time.perf_counter() - begun

    def images(self) -> Iterator[np.ndarray]:
        return (render(data) for data in self.files)

    def drain(self) -> int:
        """Each image is copied into one place, as into a batch."""
        count = 0
        for image in self.images():
            self.place[...] = image
            count += 1
        return count

    def extra(self) -> dict[str, Any]:
        return {"ready_s": self.ready_s}

    def check(self) -> None:
        count = 0
        for image, right in zip(self.images(), self.right, strict=True):
            compare(image, right, 0)
            count += 1
        if count != len(self.files):
            raise WrongValue(f"{count} images came, {len(self.files)} were wanted")


class Kept(Generated):
    """The same images, all made before the first is handed out."""

    def __init__(self, files: list[bytes], right: np.ndarray) -> None:
        begun = time.perf_counter()
        self.made = [render(data) for data in files]
        ready_s = time.perf_counter() - begun
        super().__init__(files, right)
        self.ready_s = ready_s

    def images(self) -> Iterator[np.ndarray]:
        return iter(self.made)


# -- normalising a batch -----------------------------------------------------------------------------------------------

MEANS, STDS = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)


def fresh(batch: torch.Tensor) -> torch.Tensor:
    return (batch.float() / 255 - MEANS) / STDS


def in_place(batch: torch.Tensor) -> torch.Tensor:
    return batch.float().div_(255).sub_(MEANS).div_(STDS)


class OneBuffer:
    def __init__(self) -> None:
        self.buffer = torch.empty(0)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        if self.buffer.shape != batch.shape:
            self.buffer = torch.empty(batch.shape)
        return self.buffer.copy_(batch).div_(255).sub_(MEANS).div_(STDS)


# -- gathering a batch -------------------------------------------------------------------------------------------------


class Gathering(EachInput):
    """Inputs are the numbers of the images in a batch."""

    def __init__(self, function: Callable[..., Any], source: np.ndarray, batches: list[np.ndarray]) -> None:
        tensors = torch.from_numpy(source)
        super().__init__(
            lambda numbers: function(source, tensors, numbers),
            batches,
            lambda number: source[batches[number]],
            0,
            images=len(batches[0]),
        )


def stacked(source: np.ndarray, tensors: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    return torch.stack([tensors[number] for number in numbers])


def selected(source: np.ndarray, tensors: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    return tensors.index_select(0, torch.from_numpy(numbers))


def indexed(source: np.ndarray, tensors: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(source[numbers])


class IntoOneBuffer:
    def __init__(self) -> None:
        self.buffer = np.empty(0, np.float16)

    def __call__(self, source: np.ndarray, tensors: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
        shape = (len(numbers), *source.shape[1:])
        if self.buffer.shape != shape:
            self.buffer = np.empty(shape, np.float16)
        return torch.from_numpy(np.take(source, numbers, axis=0, out=self.buffer, mode="clip"))


def pooled(source: np.ndarray, tensors: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    buffer = POOL.take((len(numbers), *source.shape[1:]), source.dtype)
    return torch.from_numpy(np.take(source, numbers, axis=0, out=buffer, mode="clip"))


def run(settings: Settings) -> dict[str, Any]:
    files, right = settings.files(settings.stored)[: settings.images], rendered(settings)[: settings.images]
    held = measure(
        "memory",
        {
            "generator: decoded as it goes, every epoch": partial(Generated, files, right),
            "all in RAM, as float16": partial(Kept, files, right),
        },
        settings.rounds,
    )
    random = np.random.default_rng(0)
    count = min(NORMALISED, settings.images)
    levels = [torch.from_numpy(random.integers(0, 256, (count, *right.shape[1:]), np.uint8)) for _ in range(2)]

    def normalised(number: int) -> np.ndarray:
        means, stds = np.array(MEAN).reshape(3, 1, 1), np.array(STD).reshape(3, 1, 1)
        return (levels[number].numpy() / 255.0 - means) / stds

    ways = {
        "fresh: `(x.float() / 255 - mean) / std`": fresh,
        "in place: `x.float().div_(255).sub_(mean).div_(std)`": in_place,
        "in place, in one buffer used again": OneBuffer(),
    }
    arithmetic = measure(
        "memory",
        {name: partial(EachInput, way, levels, normalised, 1e-6, images=count) for name, way in ways.items()},
        settings.rounds,
    )
    source = rendered(settings)
    size = min(GATHERED, len(source))
    batches = [random.permutation(len(source))[:size] for _ in range(3)]
    gatherers = {
        "`torch.stack`, fresh": stacked,
        "`index_select`, fresh": selected,
        "NumPy index, fresh": indexed,
        "`np.take` into one buffer used again": IntoOneBuffer(),
        "`np.take` into decant's pool": pooled,
    }
    gathering = measure(
        "memory",
        {name: partial(Gathering, way, source, batches) for name, way in gatherers.items()},
        settings.rounds,
    )
    return {
        "images": len(files),
        "normalised": count,
        "gathered": size,
        "held": held,
        "arithmetic": arithmetic,
        "gathering": gathering,
    }


def page(found: dict[str, Any]) -> str:
    head = ["way", "ms an image", "(low to high)", "images/s", "peak MB", "first image after"]
    rows = [[*row(name, each), f"{short(each['ready_s'] * 1e3)} ms"] for name, each in found["held"].items()]
    return "\n\n".join(
        [
            f"{found['images']} JPEG files, rendered to 3 x 224 x 224:",
            table(head, rows),
            f"8-bit batches of {found['normalised']} to normalised float32, one thread:",
            plain_table("way", found["arithmetic"]),
            f"Batches of {found['gathered']} random images out of an array in RAM, float16, one thread:",
            plain_table("way", found["gathering"]),
        ]
    )
