"""torchvision against Albumentations, transform by transform, on decoded images of 256 x 256."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from bench_caches import MEAN, STD
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from preprocess.augment import library
from techniques.common import SIZE, EachInput, Settings, measure, peak, planes_last, short, table, whole

SIDE = 256
LIBRARIES = ("torchvision, PIL", "torchvision, tensor", "Albumentations")


class Pair(NamedTuple):
    """The same transform twice, its arguments fixed, so that both have one right answer.

    `levels` is the mean difference from PIL's answer that is allowed, in levels of 255. `own` gives the right answer
    of Albumentations from an image where that is another by definition.
    """

    torchvision: Any
    albumentations: Any
    levels: float
    own: Callable[[np.ndarray], np.ndarray] | None = None


def pairs() -> dict[str, Pair]:
    A = library()
    smooth = InterpolationMode.BILINEAR
    return {
        f"resize to {SIZE}": Pair(v2.Resize((SIZE, SIZE)), A.Resize(SIZE, SIZE, interpolation=cv2.INTER_AREA), 2),
        f"resized crop to {SIZE}": Pair(
            v2.RandomResizedCrop(SIZE, scale=(1, 1), ratio=(1, 1)),
            A.RandomResizedCrop((SIZE, SIZE), scale=(1, 1), ratio=(1, 1), interpolation=cv2.INTER_AREA),
            2,
        ),
        f"centre crop to {SIZE}": Pair(v2.CenterCrop(SIZE), A.CenterCrop(SIZE, SIZE), 0),
        "pad by 16": Pair(v2.Pad(16), A.Pad(16), 0),
        "flip, left to right": Pair(v2.RandomHorizontalFlip(1), A.HorizontalFlip(p=1), 0),
        "flip, upside down": Pair(v2.RandomVerticalFlip(1), A.VerticalFlip(p=1), 0),
        "rotate by 15°": Pair(
            v2.RandomRotation((15, 15), interpolation=smooth),
            A.Rotate((15, 15), interpolation=cv2.INTER_LINEAR, border_mode=cv2.BORDER_CONSTANT, p=1),
            2,
        ),
        "affine: rotate, scale": Pair(
            v2.RandomAffine((-10, -10), scale=(1.1, 1.1), interpolation=smooth),
            A.Affine(rotate=(10, 10), scale=(1.1, 1.1), interpolation=cv2.INTER_LINEAR, p=1),
            2,
        ),
        "brightness": Pair(v2.ColorJitter(brightness=(1.2, 1.2)), jitter(A, brightness=(1.2, 1.2)), 1),
        "contrast": Pair(v2.ColorJitter(contrast=(1.2, 1.2)), jitter(A, contrast=(1.2, 1.2)), 1),
        "saturation": Pair(v2.ColorJitter(saturation=(1.2, 1.2)), jitter(A, saturation=(1.2, 1.2)), 1),
        "hue": Pair(v2.ColorJitter(hue=(0.05, 0.05)), jitter(A, hue=(0.05, 0.05)), 4),
        "gray": Pair(v2.Grayscale(3), A.ToGray(p=1), 1),
        "Gaussian blur, 5 x 5": Pair(
            v2.GaussianBlur(5, (1.1, 1.1)), A.GaussianBlur(blur_limit=(5, 5), sigma_limit=(1.1, 1.1), p=1), 1
        ),
        "equalize": Pair(v2.RandomEqualize(1), A.Equalize(p=1), 0, equalized),
        "posterize to 4 bits": Pair(v2.RandomPosterize(4, p=1), A.Posterize(num_bits=(4, 4), p=1), 0),
        "solarize": Pair(v2.RandomSolarize(128, p=1), A.Solarize(threshold_range=(128 / 255, 128 / 255), p=1), 1),
        "invert": Pair(v2.RandomInvert(1), A.InvertImg(p=1), 0),
        "normalise to float32": Pair(
            v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]),
            A.Compose([A.Normalize(MEAN, STD), A.ToTensorV2()]),
            1e-4,
        ),
    }


def equalized(image: np.ndarray) -> np.ndarray:
    return cv2.merge([cv2.equalizeHist(plane) for plane in cv2.split(image)])


def jitter(A: Any, **one: tuple[float, float]) -> Any:
    still = {"brightness": (1, 1), "contrast": (1, 1), "saturation": (1, 1), "hue": (0, 0)}
    return A.ColorJitter(**still | one, p=1)


class Library(EachInput):
    """Answers of whatever kind, as arrays."""

    def answer(self, each: Any) -> np.ndarray:
        return as_array(self.function(each))


def as_array(image: Any) -> np.ndarray:
    """(H, W, C), if it is no float tensor already."""
    if isinstance(image, torch.Tensor):
        return (image if image.is_floating_point() else planes_last(image)).numpy()
    return np.asarray(image)


def named(transform: Any) -> Callable[[np.ndarray], Any]:
    return lambda image: transform(image=image)["image"]


def run(settings: Settings) -> dict[str, Any]:
    warnings.filterwarnings("ignore", message=".*ShiftScaleRotate")
    decoded = [
        cv2.resize(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB), (SIDE, SIDE))
        for data in settings.files(settings.images)
    ]
    pil = [Image.fromarray(image) for image in decoded]
    tensors = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in decoded]
    contenders: dict[str, Any] = {}
    for name, pair in pairs().items():

        def right(number: int, pair: Pair = pair) -> np.ndarray:
            return as_array(pair.torchvision(pil[number]))

        def own(number: int, pair: Pair = pair) -> np.ndarray:
            return pair.own(decoded[number]) if pair.own else as_array(pair.torchvision(pil[number]))

        by_albumentations = named(pair.albumentations)
        for library_name, function, inputs, answer in (
            (LIBRARIES[0], pair.torchvision, pil, right),
            (LIBRARIES[1], pair.torchvision, tensors, right),
            (LIBRARIES[2], by_albumentations, decoded, own),
        ):
            contenders[f"{name}; {library_name}"] = partial(Library, function, inputs, answer, pair.levels)
    return {"images": len(decoded), "figures": measure("transforms", contenders, settings.rounds)}


def page(found: dict[str, Any]) -> str:
    rows = []
    figures = found["figures"]
    for name, pair in pairs().items():
        three = [figures[f"{name}; {each}"] for each in LIBRARIES]
        quickest = min(three, key=lambda each: each["ms"])
        most = max(three, key=lambda each: each["peak_mb"])
        rows.append([name, *(short(each["ms"]) for each in three), whole(quickest), peak(most), f"{pair.levels:g}"])
    lead = (
        f"{found['images']} decoded images of {SIDE} x {SIDE}, one at a time, one thread. ms an image; images/s of the "
        "quickest; the largest peak of the three; the mean difference from PIL's answer that is allowed, in levels of "
        "255 (for float32 in its own units; Albumentations' equalize is OpenCV's, and is held against that)."
    )
    head = ["transform", "torchvision, PIL", "torchvision, tensor", "Albumentations", "images/s", "peak MB", "allowed"]
    return lead + "\n\n" + table(head, rows)
