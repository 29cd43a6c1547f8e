"""What a cache holds, in words and as a picture."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cache_store.durable import translated
from cache_store.errors import NotFoundError, UsageError
from cache_store.normalise import denormalise, normalisation_table
from cache_store.reader import Cache, open_cache
from preprocess.report import in_units

_SAMPLES = 16
_MOST_VARIANTS = 8
_COLUMNS = 8
_GAP = 4


def show(
    cache: str | os.PathLike[str],
    index: Sequence[int] = (),
    split: str | None = None,
    output: str | os.PathLike[str] | None = None,
    *,
    as_json: bool = False,
) -> str:
    """Describe a cache, or samples of it; with `output`, also draw them into a PNG.

    Raises
    ------
    NotFoundError : no such cache, split or sample
    StorageError : the PNG cannot be written
    """
    with open_cache(cache) as opened:
        name = split or next(iter(opened.splits), "")
        table = opened.split(name)
        for number in index:
            if not -len(table) <= number < len(table):
                raise NotFoundError(f"split {name!r} has samples 0 to {len(table) - 1}, there is no {number}")
        described: Any = [_sample(opened, name, n % len(table)) for n in index] if index else _summary(opened)
        if output is not None:
            even = np.linspace(0, len(table) - 1, min(_SAMPLES, len(table))).astype(int).tolist()
            chosen = [n % len(table) for n in index] or even
            _write_png(Path(output), contact_sheet(opened, name, chosen))
    if as_json:
        return json.dumps(described, indent=2)
    if index:
        return "\n".join("\n".join(f"{key:>10}  {value}" for key, value in sample.items()) for sample in described)
    return "\n".join(f"{key:>10}  {_in_words(value)}" for key, value in described.items())


def contact_sheet(cache: Cache, split: str, samples: Sequence[int]) -> np.ndarray:
    """Stored images as a person sees them, variants of a sample side by side: uint8 (H, W, 3) RGB."""
    table = cache.split(split)
    rows = []
    variants = min(table.variants, _MOST_VARIANTS)
    for number in samples:
        rows.append([as_seen(cache.image(split, int(number), k), table.mean, table.std) for k in range(variants)])
    if variants == 1:  # one image a sample: several samples a row
        flat = [row[0] for row in rows]
        rows = [flat[i : i + _COLUMNS] for i in range(0, len(flat), _COLUMNS)]
    if not rows:
        raise UsageError(f"split {split!r} has no sample to draw")
    height, width, _ = rows[0][0].shape
    columns = max(len(row) for row in rows)
    sheet = np.full((len(rows) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            top, left = _GAP + y * (height + _GAP), _GAP + x * (width + _GAP)
            sheet[top : top + height, left : left + width] = image
    return sheet


def as_seen(chunk: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """A stored tensor as 8-bit pixels in colour: uint8 (H, W, 3), of gray tensors a view.

    Raises
    ------
    ValueError : a value is none that mean and std make of a pixel
    """
    planes = chunk if chunk.dtype == np.uint8 else denormalise(chunk, normalisation_table(mean, std))
    return np.broadcast_to(planes.transpose(1, 2, 0), (*planes.shape[1:], 3))


def _write_png(path: Path, image: np.ndarray) -> None:
    data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    with translated("write", path):
        path.write_bytes(data.tobytes())


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
    }


def _sample(cache: Cache, split: str, number: int) -> dict[str, Any]:
    table = cache.split(split)
    label = int(table["label"][number])
    height, width = table["source_hw"][number].tolist()
    return {
        "sample": number,
        "path": os.fsdecode(table.paths()[number]),
        "label": label,
        "class": cache.snapshot.classes[label] if label >= 0 else None,
        "source": f"{height}x{width} (height x width), {in_units(int(table['size'][number]))}",
        "digest": table["digest"][number].tobytes().hex(),
        "slots": table["slot"][number].tolist(),
    }


def _in_words(value: Any) -> str:
    if isinstance(value, dict):
        parts = [
            f"{name}: {s['samples']:,} samples x {s['variants']} of {s['tensor']}, {in_units(s['bytes'])}"
            for name, s in value.items()
        ]
        return "; ".join(parts)
    if isinstance(value, list):
        if value and isinstance(value[0], float):
            return ", ".join(f"{number:.6f}" for number in value)
        shown = ", ".join(map(str, value[:10]))
        return f"{len(value)}: {shown}" + (", …" if len(value) > 10 else "")
    return str(value)
