"""Histograms made flat, as OpenCV and Pillow do it."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from preprocess.torch_engine.actions import Action, Compile
from preprocess.torch_engine.conversions import convert
from preprocess.torch_engine.images import Images
from preprocess.torch_engine.tables import look_up


@dataclass(frozen=True, slots=True)
class Equalize:
    """Attributes
    ----------
    mode : cv | pil
    by_channels : each by itself, or the luma of a colour image alone
    """

    mode: str
    by_channels: bool

    @property
    def group(self) -> Hashable:
        return self

    def then(self, following: Action) -> Action | None:
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Equalize"]) -> Images:
        table = _pil_table if actions[0].mode == "pil" else _cv_table
        if actions[0].by_channels or images.pixels.shape[1] == 1:
            return Images(look_up(images.pixels, table(histograms(images))), images.sizes)
        converted = convert(images, "RGB2YCrCb")
        luma = Images(converted.pixels[:, :1], images.sizes)
        converted.pixels[:, :1] = look_up(luma.pixels, table(histograms(luma)))
        return convert(converted, "YCrCb2RGB")


def histograms(images: Images) -> torch.Tensor:
    """How often each value occurs in each channel of each image: int32 (n, C, 256)."""
    n, channels = images.pixels.shape[:2]
    first = torch.arange(0, n * channels * 256, 256, dtype=torch.int32, device=images.pixels.device)
    places = images.pixels + first.view(n, channels, 1, 1)
    counts = first.new_zeros(n * channels * 256)
    # Padding is added as nothing, to places all over the table: one place for all of it would be a queue.
    counts.index_add_(0, places.flatten(), images.inside.int().expand(places.shape).flatten())
    return counts.view(n, channels, 256)


def _cv_table(counts: torch.Tensor) -> torch.Tensor:
    """uint8 (n, C, 256), by `cv2.equalizeHist`, in single precision as there."""
    below = counts.cumsum(2)
    total = below[:, :, -1:]
    darkest = torch.where(below > 0, below, total).amin(2, keepdim=True)
    # 255 / tensor would be rounded twice: torch multiplies by the reciprocal.
    scale = torch.tensor(255.0, dtype=torch.float32, device="cpu") / (total - darkest).float()
    table = ((below - darkest).float() * scale).round().clamp(0, 255).to(torch.uint8)
    return torch.where(total == darkest, torch.arange(256, dtype=torch.uint8, device=counts.device), table)


def _pil_table(counts: torch.Tensor) -> torch.Tensor:
    """uint8 (n, C, 256), by Albumentations' version of `PIL.ImageOps.equalize`.

    It counts in single precision: an image of more than 2**24 pixels may come out otherwise there.
    """
    below = counts.cumsum(2)
    without_brightest = torch.where(counts > 0, below - counts, 0).amax(2, keepdim=True)
    step = without_brightest // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255).to(torch.uint8)
    return torch.where(step == 0, torch.arange(256, dtype=torch.uint8, device=counts.device), table)


def _compile(transform: Any, params: dict[str, Any], size_hw: tuple[int, int], channels: int) -> list[Action]:
    return [Equalize(transform.mode, transform.by_channels)]


def _unsupported(transform: Any, channels: int) -> str | None:
    return None if transform.mask is None else "mask is for arrays and functions"


COMPILERS: dict[str, Compile] = {"Equalize": _compile}

UNSUPPORTED: dict[str, Callable[[Any, int], str | None]] = {"Equalize": _unsupported}
