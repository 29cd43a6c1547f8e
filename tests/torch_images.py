"""Pictures for the torch engine's tests, and ways to have them rendered by Albumentations and by us."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from preprocess.torch_engine.images import Images

SIZES = ((1, 1), (1, 9), (7, 1), (5, 6), (64, 80), (101, 77), (150, 203))


def scene(height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """Slopes, edges, writing and noise: uint8 (height, width, channels)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    slopes = np.stack([x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=2)
    image = np.ascontiguousarray((slopes + rng.normal(0, 6, slopes.shape)).clip(0, 255).astype(np.uint8))
    cv2.circle(image, (width // 3, height // 2), max(1, height // 4), (250, 20, 90), -1)
    cv2.putText(image, "Decant", (2, height - 4), cv2.FONT_HERSHEY_SIMPLEX, height / 100, (255, 255, 255), 2)
    noisy = rng.random((height, width)) < 0.2
    image[noisy] = rng.integers(0, 256, (noisy.sum(), 3), dtype=np.uint8)
    return image if channels == 3 else np.ascontiguousarray(image[..., 1:2])


def scenes(channels: int, sizes: Iterable[tuple[int, int]] = SIZES) -> list[np.ndarray]:
    return [scene(height, width, channels, seed) for seed, (height, width) in enumerate(sizes)]


def batch(images: Sequence[np.ndarray], room: tuple[int, int] = (0, 0)) -> Images:
    """Images side by side, with noise where none is; `room` is the least height and width of their places."""
    sizes = np.array([image.shape[:2] for image in images], np.int64)
    height, width = np.maximum(sizes.max(axis=0), room).tolist()
    shape = (len(images), images[0].shape[2], height, width)
    pixels = torch.from_numpy(np.random.default_rng(len(images)).integers(0, 256, shape, dtype=np.uint8))
    for place, image in zip(pixels, images, strict=True):
        place[:, : image.shape[0], : image.shape[1]] = torch.from_numpy(image.copy()).permute(2, 0, 1)
    return Images(pixels, sizes)


def unbatch(images: Images) -> list[np.ndarray]:
    """Each uint8 (h, w, C)."""
    return [images.image(place).permute(1, 2, 0).numpy().copy() for place in range(len(images))]


def run(images: Sequence[np.ndarray], actions: Sequence[Any], room: tuple[int, int] = (0, 0)) -> list[np.ndarray]:
    """One action on each, those of a group together."""
    done: dict[int, np.ndarray] = {}
    for key in {(type(action), action.group) for action in actions}:
        places = [place for place, action in enumerate(actions) if (type(action), action.group) == key]
        out = key[0].run(batch([images[place] for place in places], room), [actions[place] for place in places])
        done |= zip(places, unbatch(out), strict=True)
    return [done[place] for place in range(len(images))]


def run_all(images: Sequence[np.ndarray], actions: Sequence[Sequence[Any]]) -> list[np.ndarray]:
    """Lists of actions, one a picture."""
    images = list(images)
    for step in range(max(map(len, actions))):
        places = [place for place, its in enumerate(actions) if step < len(its)]
        out = run([images[place] for place in places], [actions[place][step] for place in places])
        for place, image in zip(places, out, strict=True):
            images[place] = image
    return images


def folded(actions: Iterable[Any]) -> list[Any]:
    out: list[Any] = []
    for action in actions:
        both = out[-1].then(action) if out else None
        if both is None:
            out.append(action)
        else:
            out[-1] = both
    return out


def draw(transform: Any, image: np.ndarray, seed: int) -> dict[str, Any]:
    """What the transform decides for an image."""
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    params = transform.update_transform_params(transform.get_params(), {"image": image})
    return params | transform.get_params_dependent_on_data(params, {"image": image})
