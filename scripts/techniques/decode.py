"""JPEG files to 8-bit RGB pixels: Pillow, OpenCV, torchvision, and ours."""

import io
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg

from preprocess.decode import decode
from techniques.common import NO_GPU, EachInput, Settings, measure, plain_table, planes_last, processors

SAME = 0.75
"""Levels that the mean may be off: all are libjpeg-turbo, some with another upsampling of colour."""

HALVED = 12.0
"""The same for pictures decoded at half their size, against the mean of each four pixels: it is sharper."""

FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
HALF = cv2.IMREAD_REDUCED_GRAYSCALE_2  # the bit that asks for the scale; see preprocess/decode.py


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def pillow_half(data: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (image.width // 2, image.height // 2))
    return np.asarray(image.convert("RGB"))


def opencv(data: bytes, flags: int = FLAGS) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), flags)


def by_torchvision(data: bytes) -> torch.Tensor:
    return planes_last(decode_jpeg(_encoded(data), mode=ImageReadMode.RGB))


def ours(data: bytes) -> np.ndarray:
    return decode(data).image


def _encoded(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8)


class InThreads(EachInput):
    """All inputs side by side; OpenCV lets go of Python's lock while it decodes."""

    def drain(self) -> int:
        with ThreadPoolExecutor(processors()) as threads:
            for _ in threads.map(self.function, self.inputs):
                pass
        return len(self.inputs)


class OnGPU(EachInput):
    """All inputs as one list: nvJPEG decodes them together."""

    def drain(self) -> int:
        decode_jpeg([_encoded(data) for data in self.inputs], mode=ImageReadMode.RGB, device="cuda")
        return len(self.inputs)


def on_gpu(data: bytes) -> torch.Tensor:
    return planes_last(decode_jpeg(_encoded(data), mode=ImageReadMode.RGB, device="cuda"))


def halved(data: bytes) -> np.ndarray:
    image = opencv(data)
    size = (-(-image.shape[1] // 2), -(-image.shape[0] // 2))  # libjpeg rounds up
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def run(settings: Settings) -> dict[str, Any]:
    warnings.filterwarnings("ignore", message=".*(torchcodec|decode_jpeg)")  # known: it moves house
    files = settings.files(settings.images)

    def full(number: int) -> np.ndarray:
        return opencv(files[number])

    def half(number: int) -> np.ndarray:
        return halved(files[number])

    def reduced_half(number: int) -> np.ndarray:
        return opencv(files[number], FLAGS | HALF)

    def each(function: Callable[[bytes], Any], kind: type[EachInput] = EachInput, **options: Any) -> Any:
        return partial(kind, function, files, full, SAME, **options)

    contenders = {
        "Pillow": each(pillow),
        "torchvision `decode_jpeg`": each(by_torchvision),
        "OpenCV `imdecode`": each(opencv),
        "decant (header checked, then OpenCV)": each(ours),
        f"OpenCV, {processors()} threads": each(opencv, InThreads),
        "Pillow, `draft` to half size": partial(EachInput, pillow_half, files, reduced_half, SAME),
        "OpenCV, reduced to half size": partial(EachInput, partial(opencv, flags=FLAGS | HALF), files, half, HALVED),
        "torchvision, nvJPEG, one list": each(on_gpu, OnGPU, cuda=True) if settings.cuda else NO_GPU,
    }
    pixels = [opencv(data).shape for data in files]
    return {
        "images": len(files),
        "mean_kb": sum(map(len, files)) / len(files) / 1e3,
        "mean_megapixels": sum(height * width for height, width, _ in pixels) / len(files) / 1e6,
        "figures": measure("decode", contenders, settings.rounds),
    }


def page(found: dict[str, Any]) -> str:
    lead = (
        f"{found['images']} JPEG files, {found['mean_kb']:.0f} KB and {found['mean_megapixels']:.2f} megapixels in the "
        f"mean. One thread unless the row says more. Allowed mean difference: {SAME} levels of 255 from OpenCV's "
        f"pixels; of its pixels at half size {HALVED:g} from the mean of each four."
    )
    return lead + "\n\n" + plain_table("decoder", found["figures"])
