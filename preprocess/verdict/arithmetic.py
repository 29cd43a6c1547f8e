"""What measured rates mean for training: pure arithmetic.

A training loop that fetches in its own process (num_workers=0) loads, then trains, then loads again: of each step it
waits

    t_load / (t_load + t_step)

Worker processes load while the model trains, so that only what takes longer than the step is waited for:

    max(0, t_load - t_step) / max(t_load, t_step)

with t_load the seconds of a batch from the loader alone, and t_step those of a training step that has its batch at
once. On a GPU, the second one counts for workers. Where the CPU trains, loader and model share the cores: what one of
them does the other one waits for, and the first one counts for workers as well.
"""

import math
from collections.abc import Mapping

from cache_store.shard import CHECKSUM_BYTES
from preprocess.recipe import Recipe


def step_s(load_s: float, train_s: float, *, overlapped: bool) -> float:
    """Seconds from one step to the next, with a loader of `load_s` and a model of `train_s` a batch."""
    return max(load_s, train_s) if overlapped else load_s + train_s


def waiting(load_s: float, train_s: float, *, overlapped: bool) -> float:
    """Which part of a step is spent waiting for data, 0..1; see above.

    >>> waiting(3.0, 1.0, overlapped=False), waiting(4.0, 1.0, overlapped=True), waiting(1.0, 2.0, overlapped=True)
    (0.75, 0.75, 0.0)
    """
    return 1 - train_s / step_s(load_s, train_s, overlapped=overlapped)


def break_even(build_s: float, saved_s: float) -> int | None:
    """Epochs after which a build has paid for itself, if each saves `saved_s`; None: never.

    >>> break_even(90.0, 40.0), break_even(90.0, -1.0)
    (3, None)
    """
    return max(1, math.ceil(build_s / saved_s)) if saved_s > 0 else None


def expected_samples(recipe: Recipe, files: Mapping[str, int]) -> dict[str, float]:
    """Samples that each split will have; where digests divide a folder, the share that is to be expected.

    Parameters
    ----------
    recipe : with its splits spelled out
    files : split with a folder -> images in it
    """
    given: dict[str, float] = {}
    for split in recipe.named_splits.values():
        if split.from_ is not None and split.fraction is not None:
            given[split.from_] = given.get(split.from_, 0.0) + split.fraction
    return {
        name: files[split.from_] * (split.fraction or 0.0)
        if split.from_ is not None
        else files[name] * (1 - given.get(name, 0.0))
        for name, split in recipe.named_splits.items()
    }


def tensors_in(recipe: Recipe, samples: Mapping[str, float]) -> int:
    """Samples times variants, over all splits."""
    return round(sum(count * recipe.named_splits[name].variants for name, count in samples.items()))


def tensor_bytes(recipe: Recipe, dtype: str) -> int:
    """Of one tensor on disk, with its checksum."""
    channels = 3 if recipe.channels == "rgb" else 1
    return recipe.size[0] * recipe.size[1] * channels * {"float16": 2, "uint8": 1}[dtype] + CHECKSUM_BYTES
