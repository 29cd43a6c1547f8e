"""The way that is compared with: `torchvision.datasets.ImageFolder` in a DataLoader. Imports torch."""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.datasets.folder import default_loader

_BATCH_S = 0.15
"""What a worker should take for a batch while it is measured: images are counted, and short batches end sooner."""

_LEAST_BATCH = 4
_PACE_S = 0.5
_ENDLESS = 1 << 40

_REFUSALS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for files that it cannot read."""


class Images(Dataset[tuple[torch.Tensor, int]]):
    """What ImageFolder does for a sample, over files that are listed already: Pillow opens, converts to RGB.

    A file that Pillow cannot read is replaced by the next one, as one would end the measurement.
    """

    def __init__(self, files: Sequence[str], labels: Sequence[int], transform: Any) -> None:
        self.files, self.labels, self.transform = files, labels, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        for offset in range(len(self.files)):
            place = (index + offset) % len(self.files)
            try:
                image = default_loader(self.files[place])
            except _REFUSALS:
                continue
            return self.transform(image), self.labels[place]
        raise ValueError(f"Pillow can read none of {len(self.files)} files, such as {self.files[index]!r}")


def composed(steps: Sequence[Mapping[str, Any]], mean: Sequence[float], std: Sequence[float]) -> Any:
    """A `transforms.Compose` of what `pipeline.like_torchvision` lists, `ToTensor` and `Normalize`."""
    made = []
    for step in steps:
        each = getattr(transforms, step["name"])(**step["arguments"])
        made.append(each if step["p"] == 1 else transforms.RandomApply([each], step["p"]))
    return transforms.Compose([*made, transforms.ToTensor(), transforms.Normalize(mean, std)])


def images_of(request: Mapping[str, Any]) -> Images:
    """The dataset of a request: files, labels, steps, mean, std."""
    return Images(request["files"], request["labels"], composed(request["steps"], request["mean"], request["std"]))


def suitable_batch(images: Images, most: int) -> int:
    """A batch that one process delivers in about `_BATCH_S`; `most` at most."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker
    try:
        order = itertools.cycle(RandomSampler(images))
        images[next(order)]  # the first one imports and warms
        begun, count = time.perf_counter(), 0
        while (taken := time.perf_counter() - begun) < _PACE_S and count < most:
            images[next(order)]
            count += 1
    finally:
        torch.set_num_threads(threads)
    return max(1, min(most, max(_LEAST_BATCH, round(_BATCH_S * count / taken))))


def rate(images: Images, workers: int, batch: int, seconds: float, patience_s: float) -> float:
    """Images a second out of a DataLoader, shuffled, in its stride.

    Raises
    ------
    RuntimeError : workers die, or a batch does not come for `patience_s`
    """
    endless = RandomSampler(images, replacement=True, num_samples=_ENDLESS)
    options = {"num_workers": workers, "timeout": patience_s} if workers else {}
    batches = iter(DataLoader(images, batch_size=batch, sampler=endless, **options))  # type: ignore[arg-type]
    return _in_rounds(batches, max(1, workers), seconds)


def _in_rounds(batches: Iterator[Any], workers: int, seconds: float) -> float:
    """Whole rounds, in which each worker delivers once: they deliver almost together, so that the first batches of a
    round come early. The first round is not counted."""
    for _ in range(workers):
        next(batches)
    begun, count = time.perf_counter(), 0
    while True:
        for _ in range(workers):
            count += len(next(batches)[1])
        taken = time.perf_counter() - begun
        if taken >= seconds:
            return count / taken
