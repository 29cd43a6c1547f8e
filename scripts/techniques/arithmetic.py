"""8-bit pixels to normalised values: arithmetic on floats against a table of the 256 levels."""

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from bench_caches import MEAN, STD
from torchvision.transforms import functional

from cache_store.normalise import normalisation_table, normalise
from preprocess.augment import library
from preprocess.render import Normaliser, to_planes
from techniques.common import SIZE, EachInput, Settings, measure, plain_table

TOLERANCE = {np.float32: 1e-6, np.float16: 0.0, "rounded twice": 1e-4}
"""Mean difference from float64 that is rounded once, of values between about -2 and 3."""

MEANS, STDS = np.array(MEAN), np.array(STD)
SCALE, SHIFT = (1 / (255 * STDS)).astype(np.float32), (MEANS / STDS).astype(np.float32)


def exactly(image: np.ndarray, dtype: Any) -> np.ndarray:
    """uint8 (H, W, C) -> (C, H, W), computed in float64, rounded once."""
    return ((image / 255.0 - MEANS) / STDS).transpose(2, 0, 1).astype(dtype)


def by_torchvision(image: np.ndarray) -> torch.Tensor:
    return functional.normalize(functional.to_tensor(image), MEAN, STD)


def then_half(image: np.ndarray) -> torch.Tensor:
    return by_torchvision(image).half()


def in_float64(image: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(exactly(image, np.float16))


def in_float32(image: np.ndarray) -> np.ndarray:
    done = (image.astype(np.float32) / 255 - MEANS.astype(np.float32)) / STDS.astype(np.float32)
    return np.ascontiguousarray(done.transpose(2, 0, 1).astype(np.float16))


def in_place(image: np.ndarray) -> np.ndarray:
    """One product and one difference, on one array."""
    done = image.astype(np.float32)
    done *= SCALE
    done -= SHIFT
    return np.ascontiguousarray(done.transpose(2, 0, 1).astype(np.float16))


def numpy_table(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    return normalise(image.transpose(2, 0, 1), table)


class OpenCVTable:
    """What a build of decant does; its answer is overwritten by the next."""

    def __init__(self) -> None:
        self.normaliser = Normaliser((MEAN, STD), (3, SIZE, SIZE))
        self.planes = np.empty((3, SIZE, SIZE), np.uint8)

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return self.normaliser(to_planes(image, self.planes))


def by_albumentations() -> Callable[[np.ndarray], torch.Tensor]:
    A = library()
    pipeline = A.Compose([A.Normalize(MEAN, STD), A.ToTensorV2()])
    return lambda image: pipeline(image=image)["image"]


def run(settings: Settings) -> dict[str, Any]:
    images = [
        cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), (SIZE, SIZE))
        for data in settings.files(settings.images)
    ]

    def each(function: Callable[[np.ndarray], Any], dtype: Any, tolerance: Any = None) -> Any:
        def right(number: int) -> np.ndarray:
            return exactly(images[number], dtype)

        return partial(EachInput, function, images, right, TOLERANCE[tolerance or dtype])

    table = normalisation_table(MEAN, STD)
    contenders = {
        "torchvision `to_tensor`, `normalize`, to float32": each(by_torchvision, np.float32),
        "Albumentations `Normalize`, `ToTensorV2`, to float32": each(by_albumentations(), np.float32),
        "the first of these, then `.half()`": each(then_half, np.float16, "rounded twice"),
        "NumPy in float64, to float16": each(in_float64, np.float16),
        "NumPy in float32, to float16": each(in_float32, np.float16, "rounded twice"),
        "the same in place, two steps": each(in_place, np.float16, "rounded twice"),
        "table, `np.take`, to float16": each(partial(numpy_table, table=table), np.float16),
        "table, `cv2.LUT` on 16 bits (decant), to float16": each(OpenCVTable(), np.float16),
    }
    return {"images": len(images), "figures": measure("arithmetic", contenders, settings.rounds)}


def page(found: dict[str, Any]) -> str:
    lead = (
        f"{found['images']} decoded images of {SIZE} x {SIZE} x 3, one at a time, one thread, uint8 (H, W, C) to "
        f"normalised (C, H, W). Allowed mean difference from float64 rounded once: none for the tables and float64, "
        f"{TOLERANCE['rounded twice']:g} for what is rounded twice, {TOLERANCE[np.float32]:g} for float32."
    )
    return lead + "\n\n" + plain_table("way", found["figures"])
