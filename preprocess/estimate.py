"""How long a build would take, from a few images rendered here and now."""

import os
import time

import numpy as np

from preprocess.engines import renderer_of
from preprocess.errors import SourceError
from preprocess.plan import Plan
from preprocess.read import read_source
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
        begun = time.perf_counter()
        for number in chosen:
            try:
                data, _ = read_source(os.fsencode(plan.source / plan.sources.paths[number]))
                image = renderer.decode(data).image
                for k in range(plan.variants(name)):
                    renderer.pixels(image, bytes(16), k)
            except SourceError:
                continue  # it takes its time and fails, then as now
        total += (time.perf_counter() - begun) / len(chosen) * len(missing)
    return total / workers
