"""Rectangles filled with one colour each."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from preprocess.torch_engine.actions import Action, Compile
from preprocess.torch_engine.images import Images


@dataclass(frozen=True, slots=True, eq=False)
class Holes:
    """Holes, later ones over earlier ones.

    Attributes
    ----------
    corners : int64 (k, 4), each x and y of the first pixel, then of the one behind the last
    colours : uint8 (k, C)
    """

    corners: np.ndarray
    colours: np.ndarray

    @property
    def group(self) -> Hashable:
        return None

    def then(self, following: Action) -> Action | None:
        if isinstance(following, Holes):
            return Holes(
                np.concatenate([self.corners, following.corners]), np.concatenate([self.colours, following.colours])
            )
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Holes"]) -> Images:
        pixels = images.pixels
        most = max(len(action.corners) for action in actions)
        # Images with fewer holes get empty ones.
        corners = np.zeros((most, 4, len(actions), 1), np.int64)
        colours = np.zeros((most, *pixels.shape[:2], 1, 1), np.uint8)
        for i, action in enumerate(actions):
            corners[: len(action.corners), :, i, 0] = action.corners
            colours[: len(action.corners), i, :, 0, 0] = action.colours
        left, top, right, bottom = torch.as_tensor(corners, device=pixels.device).unbind(1)
        rows = torch.arange(pixels.shape[2], device=pixels.device)
        columns = torch.arange(pixels.shape[3], device=pixels.device)
        down = (rows >= top) & (rows < bottom)
        across = (columns >= left) & (columns < right)
        for hole, colour in enumerate(torch.as_tensor(colours, device=pixels.device)):
            inside = down[hole, :, None, :, None] & across[hole, :, None, None, :]
            pixels = torch.where(inside, colour, pixels)
        return Images(pixels, images.sizes)


def _compile(transform: Any, params: dict[str, Any], size_hw: tuple[int, int], channels: int) -> list[Action]:
    corners = np.asarray(params["holes"], np.int64).reshape(-1, 4)
    if not len(corners):
        return []
    # Asked to punch one pixel for each hole, the library tells the colours: its fill may be drawn.
    pixel = np.arange(len(corners))
    pixels = np.stack([pixel, np.zeros_like(pixel), pixel + 1, np.ones_like(pixel)], axis=1)
    blank = np.zeros((1, len(corners), channels), np.uint8)
    return [Holes(corners, transform.apply(blank, **{**params, "holes": pixels})[0])]


def _unsupported(transform: Any, channels: int) -> str | None:
    if isinstance(transform.fill, str) and transform.fill != "random_uniform":
        return f"fill: {transform.fill} needs more than one colour a hole"
    return None


COMPILERS: dict[str, Compile] = {"CoarseDropout": _compile}

UNSUPPORTED: dict[str, Callable[[Any, int], str | None]] = {"CoarseDropout": _unsupported}
