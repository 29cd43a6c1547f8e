"""Which images stand for a folder, and a folder of links to them: nothing is copied."""

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

SEED = 0


def choose(total: int, count: int, seed: int = SEED) -> np.ndarray:
    """Places out of 0..total-1: one, at random, of each of `count` stretches of equal length.

    Sources are ordered by split and class, so each of them is drawn in proportion to its size.

    Returns
    -------
    int64 (min(count, total),), ascending
    """
    if count >= total:
        return np.arange(total)
    edges = np.arange(count + 1) * total // count
    return np.random.default_rng(seed).integers(edges[:-1], edges[1:])


def affordable(wanted: int, time_s: float, image_s: float, room_bytes: float, image_bytes: float) -> int:
    """How many images of `wanted` are built in a time and a room; 1 at least."""
    return max(1, min(wanted, math.floor(time_s / image_s), math.floor(room_bytes / image_bytes)))


def link(source: Path, paths: Iterable[str], folders: Iterable[str], into: Path) -> Path:
    """Make a folder like SOURCE that holds links to some of its images.

    Parameters
    ----------
    paths : of the images, relative to SOURCE
    folders : of the splits, which are made even if no image is in them
    """
    for folder in folders:
        os.makedirs(into / folder, exist_ok=True)
    made = set()
    root = os.path.abspath(source)
    for path in dict.fromkeys(paths):  # two splits may share a folder
        target = os.path.join(into, path)
        parent = os.path.dirname(target)
        if parent not in made:
            os.makedirs(parent, exist_ok=True)
            made.add(parent)
        os.symlink(os.path.join(root, path), target)
    return into
