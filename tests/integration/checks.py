"""What must hold of any cache, and of a cache against its sources; read without the loaders."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from cache_store import layout, open_cache
from cache_store.normalise import denormalise, normalisation_table
from cache_store.shard import ShardReader
from preprocess import Recipe

SHARDS_OF_FOUR = 4 * 3 * 8 * 8 * 2 / 2**20
"""`shard_mib` for four 8 x 8 tensors a shard, so that a few images make many jobs."""


def contents(cache: Path, snapshot: str | None = None) -> dict[str, Any]:
    """All that the first law speaks of: ordered samples, classes, statistics, tensor bits."""
    with open_cache(cache, snapshot) as opened:
        return {
            "classes": opened.snapshot.classes,
            "splits": {
                name: {
                    "tensors_id": table.tensors_id,
                    "mean": table.mean,
                    "std": table.std,
                    "samples": [
                        (
                            os.fsdecode(path),
                            int(table["label"][i]),
                            table["digest"][i].tobytes(),
                            [opened.image(name, i, k).tobytes() for k in range(table.variants)],
                        )
                        for i, path in enumerate(table.paths())
                    ],
                }
                for name, table in opened.splits.items()
            },
        }


def statistics(cache: Path, snapshot: str | None = None) -> tuple[Any, Any]:
    """mean and std that `train` is normalised by."""
    train = contents(cache, snapshot)["splits"]["train"]
    return train["mean"], train["std"]


def pixel_statistics(cache: Path) -> tuple[np.ndarray, np.ndarray]:
    """mean and std of the stored images, from their pixels in float64."""
    with open_cache(cache) as opened:
        table = opened.split("train")
        lookup = normalisation_table(table.mean, table.std)
        images = [
            denormalise(opened.image("train", i, k), lookup) / 255
            for i in range(len(table))
            for k in range(table.variants)
        ]
    return np.mean(images, (0, 2, 3)), np.std(images, (0, 2, 3))


def paths(cache: Path, split: str = "train") -> list[str]:
    with open_cache(cache) as opened:
        return [os.fsdecode(path) for path in opened.split(split).paths()]


def labels(cache: Path, split: str = "train") -> list[int]:
    with open_cache(cache) as opened:
        return opened.split(split)["label"].tolist()


def failures(cache: Path) -> dict[str, tuple[str, str]]:
    """path -> (stage, reason) of the images that were left out."""
    with open_cache(cache) as opened:
        return {layout.text_to_name(f["path"]): (f["stage"], f["reason"]) for f in opened.snapshot.failures}


def assert_sound(cache: Path) -> None:
    """Each image has slots of its own, each chunk is what the manifest says, each sum is that of its pixels."""
    with open_cache(cache) as opened:
        for name, table in opened.splits.items():
            tensors = opened.tensors(name)
            owner: dict[int, tuple[bytes, int]] = {}
            chunk = np.empty(tensors.shape, tensors.dtype)
            baked = tensors.attributes["mean"], tensors.attributes["std"]
            lookup = normalisation_table(*baked) if baked[0] else None
            for sample in range(len(table)):
                digest = table["digest"][sample].tobytes()
                for k, slot in enumerate(table["slot"][sample].tolist()):
                    assert owner.setdefault(slot, (digest, k)) == (digest, k), f"slot {slot} holds two images"
                    shard, place = divmod(slot, tensors.slots)
                    file = layout.shard_file(cache, table.tensors_id, shard)
                    with ShardReader(file, tensors.slots, tensors.chunk_bytes) as reader:
                        assert reader.read_into(place, chunk) == table["checksum"][sample, k]
                    planes = (chunk if lookup is None else denormalise(chunk, lookup)).astype(np.int64)
                    assert planes.sum((1, 2)).tolist() == table["sum"][sample, k].tolist()
                    assert (planes**2).sum((1, 2)).tolist() == table["sumsq"][sample, k].tolist()
            assert len(owner) == len({owner[slot] for slot in owner}), "an image has two slots"


def assert_as_rendered(cache: Path, source: Path) -> None:
    """Each tensor is, bit for bit, what the recipe makes of the file as it is now."""
    assert_sound(cache)
    recipe = Recipe.of(cache)
    with open_cache(cache) as opened:
        for name, table in opened.splits.items():
            for sample, path in enumerate(table.paths()):
                for k in range(table.variants):
                    expected = recipe.render(os.path.join(source, os.fsdecode(path)), name, k)
                    np.testing.assert_array_equal(opened.image(name, sample, k), expected, str(path))


class Watcher:
    """Progress of a build, with something to do at a stage or while it goes on."""

    def __init__(
        self,
        at_stage: Callable[[str], None] = lambda name: None,
        at_update: Callable[[str, int], None] = lambda name, done: None,
    ) -> None:
        self.stages: list[str] = []
        self._at_stage, self._at_update = at_stage, at_update

    def stage(self, name: str, total: int) -> None:
        self.stages.append(name)
        self._at_stage(name)

    def update(self, done: int, failed: int) -> None:
        self._at_update(self.stages[-1], done)


def stop_at(stage: str, done: int = 0) -> Watcher:
    """Stops a build as Ctrl-C does: when a stage begins, or when so many images of it are done."""

    def at_stage(name: str) -> None:
        if name == stage and not done:
            raise KeyboardInterrupt

    def at_update(name: str, so_far: int) -> None:
        if name == stage and so_far >= done:
            raise KeyboardInterrupt

    return Watcher(at_stage, at_update)
