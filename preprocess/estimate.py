"""How long a build would take, from a few images rendered here and now."""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence

import numpy as np

from cache_store.canonical import digest_of
from preprocess.engines import renderer_of
from preprocess.errors import SourceError
from preprocess.plan import Plan
from preprocess.read import most_bytes, read_source
from preprocess.render import File
from preprocess.stock import Stock

_IMAGES = 24


def estimated_s(plan: Plan, stock: Stock, splits: dict[str, np.ndarray], workers: int, decoder: str) -> float:
    """Seconds for what is missing, on so many workers; start-up, storing and flushing apart."""
    total = 0.0
    for name, numbers in splits.items():
        missing = stock.missing(name, numbers)
        if not len(missing):
            continue
        renderer = renderer_of(plan.renderings[name], decoder, plan.recipe.max_pixels)
        chosen = missing[np.linspace(0, len(missing) - 1, min(len(missing), _IMAGES)).astype(int)]
        paths = [os.fsencode(plan.source / plan.sources.paths[number]) for number in chosen]
        variants = tuple(range(plan.variants(name)))
        for part in (paths[:1], paths):  # the first image ever costs a GPU more than hundreds of others
            begun = time.perf_counter()
            files = list(_files(part, variants, most_bytes(plan.recipe.max_pixels)))
            for _ in renderer.render(files, lambda place: None):
                pass
        total += (time.perf_counter() - begun) / len(paths) * len(missing)
    return total / workers


def _files(paths: Sequence[bytes], variants: tuple[int, ...], max_bytes: int) -> Iterator[File]:
    """Those that can be read; the others take their time and fail, then as now."""
    for place, path in enumerate(paths):
        with contextlib.suppress(SourceError):
            yield _file(place, path, variants, max_bytes)


def _file(place: int, path: bytes, variants: tuple[int, ...], max_bytes: int) -> File:
    data, _ = read_source(path, max_bytes)
    return File(place, lambda: data, digest_of(data), variants)
