"""Has the loading measured: in ImageFolder's way and out of a cache, and a training step to hold them against."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache_store.reader import open_cache
from preprocess.plan import Plan
from preprocess.verdict.clock import Clock
from preprocess.verdict.hand import Hand, Unmeasured
from preprocess.verdict.pipeline import like_torchvision
from preprocess.verdict.report import CacheWay, ImageFolderWay, Setting, TrainingStep
from preprocess.verdict.sample import SAMPLE, Built

_SWEEP_SHARE, _MODEL_SHARE, _WARM_SHARE, _COLD_SHARE = 0.45, 0.25, 0.35, 0.6
"""Of the time that is left when their turn comes."""

_MOST_S = 8.0
"""Longer than this, a figure gets no better."""

_LEAST_S = 0.5
_MEASURED = 0.7
"""Part of a setting's time in which batches are counted; in the rest workers start."""

_SLOWER = 0.7
"""More workers that deliver less than this part of the best end the sweep."""

_MOST_READ_BYTES = 1 << 30
_GRACE_S = 15.0
"""Beyond the time that a measurement is asked to take: it starts workers, finishes a batch."""


@dataclass(frozen=True, slots=True)
class Instruments:
    """What measures, what time there is for it, and who is told."""

    hand: Hand
    clock: Clock
    tell: Callable[[str], None]


def worker_counts(processors: int) -> list[int]:
    """num_workers to try: none, powers of two, and one a processor.

    >>> worker_counts(2), worker_counts(12)
    ([0, 1, 2], [0, 1, 2, 4, 8, 12])
    """
    return sorted({0, processors, *(1 << power for power in range(processors.bit_length()))})


def sweep(tools: Instruments, plan: Plan, built: Built, split: str, batch: int, processors: int) -> ImageFolderWay:
    """ImageFolder over the images of the sample with more and more workers, up to one a processor."""
    rendering = plan.renderings[split]
    steps, left_out = like_torchvision(rendering.transforms, rendering.size_hw, rendering.channels)
    way = ImageFolderWay([*(step["name"] for step in steps), "ToTensor", "Normalize"], left_out)
    request = _images(plan, built, split) | {"steps": steps}
    try:
        tools.tell("ImageFolder: how long an image takes")
        way.batch = tools.hand.ask("batch_for_sweep", 2 * _GRACE_S, **request, batch=batch)
    except Unmeasured as error:
        way.settings.append(Setting(0, None, str(error)))
        return way
    request["batch"] = way.batch
    counts = worker_counts(processors)
    each_s = min(_MOST_S, tools.clock.part(_SWEEP_SHARE, _LEAST_S, 100.0) / len(counts))
    for workers in counts:
        setting = Setting(workers)
        way.settings.append(setting)
        setting.why = _why_not(way, tools.clock)
        if setting.why is None:
            _measure(tools, setting, request, each_s)
        if setting.images_per_s is not None and setting.images_per_s > (way.images_per_s or 0.0):
            way.workers, way.images_per_s = workers, setting.images_per_s
    return way


def _why_not(way: ImageFolderWay, clock: Clock) -> str | None:
    """Why the sweep ends before its last setting."""
    if way.images_per_s is None:
        return None
    measured = [each.images_per_s for each in way.settings if each.images_per_s is not None]
    if measured[-1] < _SLOWER * way.images_per_s:
        return "not tried: fewer workers were faster than the last ones"
    return "not tried: no time left" if clock.left_s() <= 0 else None


def _measure(tools: Instruments, setting: Setting, request: dict[str, Any], each_s: float) -> None:
    tools.tell(f"ImageFolder with num_workers={setting.workers}")
    asked = {"workers": setting.workers, "seconds": each_s * _MEASURED, "patience_s": _GRACE_S}
    try:
        setting.images_per_s = tools.hand.ask("imagefolder_rate", 2 * _GRACE_S + each_s, **request, **asked)
    except Unmeasured as error:
        setting.why = f"failed: {error}"


def _images(plan: Plan, built: Built, split: str) -> dict[str, Any]:
    """Files, labels and statistics of the sample: those that a build could use."""
    root = os.path.abspath(plan.source)
    with open_cache(built.cache) as sample:
        table = sample.split(split)
        return {
            "files": [os.path.join(root, os.fsdecode(path)) for path in table.paths()],
            "labels": table["label"].tolist(),
            "mean": list(table.mean),
            "std": list(table.std),
        }


def training_step(tools: Instruments, shape: tuple[int, int, int], classes: int, batch: int) -> TrainingStep:
    """A step of a model that is timed here."""
    tools.tell("a training step of ResNet-18")
    seconds = tools.clock.part(_MODEL_SHARE, _LEAST_S, _MOST_S)
    request = {"shape": shape, "classes": classes, "batch": batch, "seconds": seconds}
    try:
        found = tools.hand.ask("model_rate", seconds + 2 * _GRACE_S, **request)
    except Unmeasured as error:
        return TrainingStep(None, "resnet18", why=str(error))
    return TrainingStep(
        batch / found["images_per_s"], found["model"], found["device"], shares_cores=not found["on_gpu"]
    )


def cache_way(tools: Instruments, cache: Path, split: str, batch: int, measured: str) -> CacheWay:
    """A plain DataLoader over a cache, warm and cold."""
    way = CacheWay(measured)
    part = (os.path.abspath(cache), split, batch, SAMPLE, _MOST_READ_BYTES)

    def rates(which: str, share: float) -> dict[str, float]:
        tools.tell(f"the cache, {which}")
        seconds = tools.clock.part(share, _LEAST_S, _MOST_S)
        try:
            return tools.hand.ask(f"{which}_rates", 2 * seconds + _GRACE_S, part=part, seconds=seconds)
        except Unmeasured as error:
            way.why[which] = str(error)
            return {}

    warm = rates("warm", _WARM_SHARE)
    way.warm, way.warm_float16 = warm.get("float32"), warm.get("float16")
    cold = rates("cold", _COLD_SHARE)
    way.cold, way.cold_shuffled = cold.get("by_shards"), cold.get("shuffled")
    return way
