"""Gaussian blur, 5 x 5: precision, batches, libraries, threads."""

from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional
from torchvision.transforms.v2 import functional as v2

from techniques.common import NO_GPU, SIZE, EachInput, Settings, measure, plain_table, processors

SIGMA = 1.1
"""What OpenCV takes for five taps if none is given."""

TOLERANCE = {"float32": 1e-5, "float16": 1e-3, "uint8": 0.6 / 255}
"""Mean difference from float64, of values in 0..1."""


MOST = 32
"""Images: enough for a batch."""


def taps() -> np.ndarray:
    """float64 (5,), their sum 1."""
    weights = np.exp(-(np.arange(-2.0, 3.0) ** 2) / (2 * SIGMA**2))
    return weights / weights.sum()


def reference(planes: np.ndarray) -> np.ndarray:
    """float64 (..., H, W), borders reflected about the last pixel."""
    for axis in (-2, -1):
        width = [(0, 0)] * planes.ndim
        width[axis] = (2, 2)
        padded = np.pad(planes, width, mode="reflect")
        length = planes.shape[axis]
        shifted = (np.take(padded, range(k, k + length), axis=axis) for k in range(5))
        planes = sum(weight * part for weight, part in zip(taps(), shifted, strict=True))
    return planes


def separable(images: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
    """Rows, then columns, each channel for itself: 10 products a value in place of 25."""
    padded = functional.pad(images, (2, 2, 2, 2), mode="reflect")
    across = functional.conv2d(padded, kernel.view(1, 1, 1, 5).expand(3, 1, 1, 5), groups=3)
    return functional.conv2d(across, kernel.view(1, 1, 5, 1).expand(3, 1, 5, 1), groups=3)


def by_torchvision(images: torch.Tensor) -> torch.Tensor:
    return v2.gaussian_blur(images, [5, 5], [SIGMA, SIGMA])


def by_opencv(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (5, 5), SIGMA)


class Convolution:
    """`separable` with its kernel ready, in each process for itself."""

    def __init__(self) -> None:
        self.kernel: torch.Tensor | None = None

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self.kernel is None:
            self.kernel = torch.from_numpy(taps()).to(images.device, images.dtype)
        return separable(images, self.kernel)


class OpenCVImages(EachInput):
    """Answers (H, W, C), in 0..1 or 0..255, as planes in 0..1."""

    def answer(self, each: np.ndarray) -> np.ndarray:
        done = self.function(each)
        return done.transpose(2, 0, 1) / (255.0 if done.dtype == np.uint8 else 1.0)


def run(settings: Settings) -> dict[str, Any]:
    count = min(settings.images, MOST)
    levels = [
        cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), (SIZE, SIZE))
        for data in settings.files(count)
    ]
    floats = [(image / 255.0).astype(np.float32) for image in levels]
    # Stacked views would keep the channels last in memory, for which torch takes other and slower ways in fp16.
    planes = np.stack([np.ascontiguousarray(image.transpose(2, 0, 1)) for image in levels]) / 255.0  # float64
    right = reference(planes)

    def one(number: int) -> np.ndarray:
        return right[number]

    contenders: dict[str, Any] = {
        "OpenCV, uint8, single": partial(OpenCVImages, by_opencv, levels, one, TOLERANCE["uint8"]),
        "OpenCV, fp32, single": partial(OpenCVImages, by_opencv, floats, one, TOLERANCE["float32"]),
        "OpenCV, fp16": "OpenCV blurs no fp16",
    }
    for dtype in (torch.float32, torch.float16):
        for name, function in (("torch `conv2d`", Convolution()), ("torchvision", by_torchvision)):
            words = f"{name}, fp{dtype.itemsize * 8}"
            make = partial(Tensors, function, planes, right, dtype)
            contenders[f"{words}, single"] = partial(make, images=1)
            contenders[f"{words}, batched"] = partial(make, images=count)
            contenders[f"{words}, batched, {processors()} threads"] = partial(make, images=count, threads=processors())
            for kind, images in (("single", 1), ("batched", count)):
                on_gpu = partial(make, images=images, cuda=True) if settings.cuda else NO_GPU
                contenders[f"{words}, {kind}, GPU"] = on_gpu
    return {"images": count, "figures": measure("blur", contenders, settings.rounds)}


class Tensors(EachInput):
    """Inputs are parts of `images` of the planes, of the wanted type, on the device."""

    def __init__(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        planes: np.ndarray,
        right: np.ndarray,
        dtype: torch.dtype,
        *,
        images: int,
        **options: Any,
    ) -> None:
        whole = torch.from_numpy(planes).to("cuda" if options.get("cuda") else "cpu", dtype)
        tolerance = TOLERANCE[str(dtype).removeprefix("torch.")]

        def part(number: int) -> np.ndarray:
            return right[number * images : (number + 1) * images]

        super().__init__(function, whole.split(images), part, tolerance, images=images, **options)


def page(found: dict[str, Any]) -> str:
    lead = (
        f'{found["images"]} images of 3 x {SIZE} x {SIZE}; "batched" is all of them in one tensor. One thread unless '
        f"the row says more. Allowed mean difference from float64, of values in 0..1: fp32 {TOLERANCE['float32']:g}, "
        f"fp16 {TOLERANCE['float16']:g}, uint8 {TOLERANCE['uint8']:.4f}."
    )
    return lead + "\n\n" + plain_table("blur, 5 x 5", found["figures"])
