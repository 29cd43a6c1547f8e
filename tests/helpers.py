"""Small folders of images, and other things that several tests need."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

TINY = {
    "size": 8,
    "normalize": "dataset",
    "splits": {"train": {"folder": ".", "transforms": [{"Resize": {"height": 8, "width": 8}}]}},
}
"""A recipe that costs next to nothing to render."""


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Random smooth pixels, uint8 (height, width, 3), BGR as OpenCV has it."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write_image(path: Path, seed: int, height: int = 24, width: int = 32) -> Path:
    """A picture in the format that the path's extension names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, picture(seed, height, width))[1].tobytes())
    return path


def image_folder(root: Path, classes: Iterable[str] = ("cat", "dog"), count: int = 4, first_seed: int = 0) -> Path:
    """`root/<class>/<number>.png`, all distinct."""
    for c, name in enumerate(classes):
        for i in range(count):
            write_image(root / name / f"{i:03d}.png", first_seed + 1000 * c + i)
    return root
