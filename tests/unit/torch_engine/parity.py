"""Pictures, and what becomes of them: by Albumentations' own `apply`, and by actions, alone and in a batch."""

import random
import warnings
from collections import defaultdict
from typing import Any

import cv2
import numpy as np
import torch

from preprocess.torch_engine.actions import Action, Compile
from preprocess.torch_engine.images import Images


def pictures(channels: int = 3) -> list[np.ndarray]:
    """uint8 (h, w, C): gradients, edges, lettering, noise, few colours, one colour; ever narrower."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:61, :90]
    gradient = np.stack([2 * x, 4 * y, 255 - x - y], axis=2).astype(np.uint8)
    letters = np.full((48, 101, 3), (250, 240, 10), np.uint8)
    cv2.putText(letters, "decant", (2, 36), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (20, 30, 200), 2, cv2.LINE_AA)
    smooth = cv2.resize(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8), (70, 50), interpolation=cv2.INTER_CUBIC)
    noise = [rng.integers(0, 256, (*size_hw, 3), dtype=np.uint8) for size_hw in ((64, 64), (40, 3), (2, 33), (5, 5))]
    flat = np.full((20, 30, 3), (10, 200, 30), np.uint8)
    few = np.where(x[:, :40, None] % 3 == 0, np.uint8([0, 128, 255]), np.uint8([40, 0, 250]))
    images = [gradient, letters, smooth, *noise, flat, few.astype(np.uint8)]
    return [np.ascontiguousarray(image[:, :, :channels]) for image in images]


def slivers(channels: int = 3) -> list[np.ndarray]:
    """Images of one pixel, and of one row or column."""
    rng = np.random.default_rng(8)
    return [rng.integers(0, 256, (*hw, channels), dtype=np.uint8) for hw in ((1, 1), (1, 7), (9, 1), (1, 40))]


def drawn(transform: Any, image: np.ndarray, seed: int) -> dict[str, Any]:
    """The parameters that a transform draws for an image."""
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    params = transform.update_transform_params(params=transform.get_params(), data={"image": image})
    return params | transform.get_params_dependent_on_data(params=params, data={"image": image})


def expected(transform: Any, params: dict[str, Any], image: np.ndarray) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return transform.apply(image.copy(), **params).reshape(image.shape)


def found(images: list[np.ndarray], actions: list[list[Action]]) -> list[np.ndarray]:
    """All images in one batch, those with the same kind of next action at a time, with noise for padding."""
    batch = Images.of([torch.from_numpy(image).permute(2, 0, 1) for image in images])
    noise = torch.from_numpy(np.random.default_rng(len(images)).integers(0, 256, batch.pixels.shape, dtype=np.uint8))
    pixels = torch.where(batch.inside, batch.pixels, noise)
    left = [list(todo) for todo in actions]
    while any(left):
        kinds: dict[Any, list[int]] = defaultdict(list)
        for place, todo in enumerate(left):
            if todo:
                kinds[type(todo[0]), todo[0].group].append(place)
        for (kind, _), places in kinds.items():
            some = Images(pixels[places], batch.sizes[places])
            pixels[places] = kind.run(some, [left[place].pop(0) for place in places]).pixels
    return [Images(pixels, batch.sizes).image(place).permute(1, 2, 0).numpy() for place in range(len(images))]


def differences(compilers: dict[str, Compile], transform: Any, images: list[np.ndarray], draws: int = 2) -> np.ndarray:
    """Of all values of all images, after a few draws each: levels between Albumentations' and ours, each alone.

    In a batch, in reverse order, the images must come out just as they do alone.
    """
    compile_one = compilers[type(transform).__name__]
    images = images * draws
    params = [drawn(transform, image, seed) for seed, image in enumerate(images)]
    actions = [compile_one(transform, given, image.shape[:2], image.shape[2]) for given, image in zip(params, images)]
    alone = [found([image], [todo])[0] for image, todo in zip(images, actions)]
    for one, together in zip(alone, reversed(found(images[::-1], actions[::-1]))):
        np.testing.assert_array_equal(together, one)
    own = [expected(transform, given, image) for given, image in zip(params, images)]
    return np.concatenate([np.abs(a.astype(int) - b).ravel() for a, b in zip(alone, own)])
