"""What a cache holds, in words and as a picture."""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from cache_store.errors import REPAIR, CacheStoreError, IntegrityError, UsageError
from cache_store.manifest import SplitTable
from cache_store.normalise import denormalise, normalisation_table
from cache_store.reader import Cache, open_cache
from cache_store.shard import checksum
from preprocess.labels import class_counts
from preprocess.levels import LEAST_LEVELS, are_few, in_words
from preprocess.lookup import numbers_of, split_of
from preprocess.outputs import output_file
from preprocess.report import classes_in_words, in_units, printable
from preprocess.sheet import MOST_VARIANTS, SAMPLES, Block, Grid, draw, spread, write_png

_LOOKED_AT = 8
"""Samples of a split that are read for a description of the cache."""


def show(
    cache: str | os.PathLike[str],
    index: Sequence[int | str] = (),
    split: str | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    as_json: bool = False,
) -> str:
    """Describe a cache, or samples of it; with `output`, also draw them into a PNG.

    Parameters
    ----------
    index : numbers, negative ones from the end, or paths as in `CachedDataset.samples`
    split : None: the one that has the first of the paths; of a cache and of numbers, the first

    Raises
    ------
    NotFoundError : no such cache, split or sample
    UsageError : `output` is a folder, lies in the cache or is no .png
    IntegrityError : a tensor that is asked for is damaged
    StorageError : the PNG cannot be written
    """
    with open_cache(cache) as opened:
        name = split or split_of(opened, index)
        table = opened.split(name)
        numbers = numbers_of(opened, name, index)
        described: Any = [_sample(opened, name, number) for number in numbers] if numbers else _summary(opened)
        if output is not None:
            target = output_file(output, ".png", cache=opened.path)
            chosen = numbers or spread(table["label"], SAMPLES).tolist()
            write_png(target, contact_sheet(opened, name, chosen))
    if as_json:
        return json.dumps(described, indent=2)
    if numbers:
        return "\n\n".join(_sample_in_words(sample) for sample in described)
    counts = described.pop("class_counts")
    described["classes"] = f"{len(counts)}: {classes_in_words(counts)}" if counts else "none: labels are -1"
    return "\n".join(f"{key:>10}  {_in_words(value)}" for key, value in described.items())


def contact_sheet(cache: Cache, split: str, samples: Sequence[int]) -> np.ndarray:
    """Stored images as a person sees them, variants of a sample side by side: uint8 (H, W, 3) RGB.

    Raises
    ------
    UsageError : no sample is asked for
    IntegrityError : a tensor is damaged
    """
    table = cache.split(split)
    if not len(samples):
        raise UsageError(f"split {split!r} has no sample to draw")
    paths, variants = table.paths(), min(table.variants, MOST_VARIANTS)
    blocks = []
    for number in samples:
        tiles = [as_seen(_stored(cache, split, number, k), table.mean, table.std) for k in range(variants)]
        size = "x".join(map(str, table["source_hw"][number].tolist()))
        caption = (
            f"{number}  {_class_of(cache, table, number) or 'no label'}",
            os.path.basename(os.fsdecode(paths[number])),
            f"{size}, {in_units(int(table['size'][number]))}",
        )
        blocks.append(Block(caption, tuple(tiles)))
    tensors = cache.tensors(split)
    each = "1 variant each" if table.variants == 1 else f"{table.variants} variants each"
    if table.variants > variants:
        each += f", the first {variants} are drawn"
    title = (
        f"{len(samples)} of {len(table):,} samples of split {split!r} in {cache.path}, snapshot {cache.snapshot.name}; "
        f"{each}, {'x'.join(map(str, tensors.shape))}. Number, class, file and size (height x width) of each."
    )
    return draw(title, blocks, Grid((tensors.shape[1], tensors.shape[2]), variants, len(blocks)))


def _stored(cache: Cache, split: str, number: int, variant: int) -> np.ndarray:
    """A stored tensor, (C, H, W), that is what the manifest says."""
    chunk = cache.image(split, number, variant)
    table = cache.split(split)
    found, expected = checksum(chunk), int(table["checksum"][number, variant])
    if found != expected:
        path = os.fsdecode(table.paths()[number])
        where = cache.tensors(split).where(int(table["slot"][number, variant]) // cache.tensors(split).slots)
        raise IntegrityError(
            f"{where}: sample {path!r} variant {variant} has checksum {found:08x}, the manifest says {expected:08x}; "
            f"{REPAIR}"
        )
    return chunk


def as_seen(chunk: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """A stored tensor as 8-bit pixels: uint8 (H, W, C), a view of the planes.

    Raises
    ------
    ValueError : a value is none that mean and std make of a pixel
    """
    planes = chunk if chunk.dtype == np.uint8 else denormalise(chunk, normalisation_table(mean, std))
    return planes.transpose(1, 2, 0)


def _summary(cache: Cache) -> dict[str, Any]:
    snapshot = cache.snapshot
    splits = {}
    for name, table in snapshot.splits.items():
        tensors = cache.tensors(name)
        shape = "x".join(map(str, tensors.shape))
        splits[name] = {
            "samples": len(table),
            "variants": table.variants,
            "tensor": f"{tensors.dtype.name} {shape}",
            "bytes": len(table) * table.variants * tensors.chunk_bytes,
            "tensors_id": table.tensors_id,
        }
    first = next(iter(snapshot.splits.values()))
    return {
        "cache": str(cache.path),
        "snapshot": snapshot.name,
        "created": snapshot.created,
        "splits": splits,
        "classes": list(snapshot.classes),
        "mean": list(first.mean),
        "std": list(first.std),
        "failures": len(snapshot.failures),
        "levels": _levels(cache),
        "class_counts": class_counts(snapshot.classes, {name: t["label"] for name, t in snapshot.splits.items()}),
    }


def _levels(cache: Cache) -> dict[str, Any]:
    """What the recipe makes of 16-bit values, and how many of some samples use few of the 256 levels."""
    seen = few = 0
    for split, table in cache.splits.items():
        for number in spread(table["label"], _LOOKED_AT).tolist():
            try:
                image = as_seen(_stored(cache, split, number, 0), table.mean, table.std)
            except (CacheStoreError, ValueError):  # damaged: `verify` says which
                continue
            seen += 1
            few += are_few(image)
    return {"recipe": cache.snapshot.recipe["decode"].get("levels"), "looked_at": seen, "few": few}


def _sample(cache: Cache, split: str, number: int) -> dict[str, Any]:
    table = cache.split(split)
    height, width = table["source_hw"][number].tolist()
    return {
        "sample": number,
        "split": split,
        "path": os.fsdecode(table.paths()[number]),
        "label": int(table["label"][number]),
        "class": _class_of(cache, table, number),
        "source": f"{height}x{width} (height x width), {in_units(int(table['size'][number]))}",
        "digest": table["digest"][number].tobytes().hex(),
        "slots": table["slot"][number].tolist(),
        "variants": [_variant(cache, split, number, k) for k in range(table.variants)],
    }


def _variant(cache: Cache, split: str, number: int, variant: int) -> dict[str, Any]:
    table, chunk = cache.split(split), _stored(cache, split, number, variant)
    return {
        "variant": variant,
        "slot": int(table["slot"][number, variant]),
        "checksum": f"{int(table['checksum'][number, variant]):08x}",
        "min": chunk.min().item(),
        "mean": chunk.mean(dtype=np.float64).item(),
        "max": chunk.max().item(),
    }


def _class_of(cache: Cache, table: SplitTable, number: int) -> str | None:
    label = int(table["label"][number])
    return cache.snapshot.classes[label] if label >= 0 else None


def _sample_in_words(sample: dict[str, Any]) -> str:
    label = "-1 (none)" if sample["class"] is None else f"{sample['label']} ({printable(sample['class'])})"
    said = {"sample": f"{sample['sample']} of split {sample['split']!r}", "path": printable(sample["path"])}
    said |= {"label": label, "source": sample["source"], "digest": sample["digest"]}
    lines = [f"{key:>10}  {value}" for key, value in said.items()]
    lines.append(f"{'variant':>10}  {'slot':>8}  checksum  {'min':>9}  {'mean':>9}  {'max':>9}  stored")
    for row in sample["variants"]:
        values = "  ".join(f"{v:>9}" if isinstance(v, int) else f"{v:9.4f}" for v in _range(row))
        lines.append(f"{row['variant']:>10}  {row['slot']:>8}  {row['checksum']}  {values}")
    return "\n".join(lines)


def _range(variant: dict[str, Any]) -> tuple[Any, ...]:
    return variant["min"], variant["mean"], variant["max"]


def _in_words(value: Any) -> str:
    if isinstance(value, dict) and "looked_at" in value:
        few = f"{value['few']} of {value['looked_at']} samples looked at use fewer than {LEAST_LEVELS} of 256 levels"
        return f"of 16-bit values {in_words(value['recipe'])}" + (f"; {few}" if value["few"] else "")
    if isinstance(value, dict):
        parts = [
            f"{name}: {s['samples']:,} samples x {s['variants']} of {s['tensor']}, {in_units(s['bytes'])}"
            for name, s in value.items()
        ]
        return "; ".join(parts)
    if isinstance(value, list):
        return ", ".join(f"{number:.6f}" for number in value)
    return str(value)
