"""Fresh augmentation inside the copy: a window of the stored image, mirrored or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import numpy as np
import torch

from cache_store.errors import UsageError

CROP_MODES = ("random", "center")


@dataclass(frozen=True, slots=True)
class Windows:
    """One window a sample of a batch: the row and column of its first pixel, and whether it is mirrored; each (n,)."""

    top: np.ndarray
    left: np.ndarray
    mirrored: np.ndarray


class Cutter:
    """Draws windows, and cuts them out.

    Parameters
    ----------
    stored_hw : height and width of what is stored
    crop : height and width of the window, or one number for both; None: all of it
    flip : mirror each image with probability 1/2
    crop_mode : 'random' or 'center'

    Attributes
    ----------
    hw : height and width of the window

    Raises
    ------
    UsageError : the window is larger than the image, or the mode is unknown
    """

    def __init__(
        self, stored_hw: tuple[int, int], crop: int | Sequence[int] | None, flip: bool, crop_mode: str
    ) -> None:
        if crop_mode not in CROP_MODES:
            raise UsageError(f"crop_mode: {' or '.join(map(repr, CROP_MODES))} expected, found {crop_mode!r}")
        given = stored_hw if crop is None else tuple(crop) if isinstance(crop, Sequence) else (crop, crop)
        if len(given) != 2 or not all(map(_fits, given, stored_hw)):
            raise UsageError(
                f"crop: a window of 1x1 to {stored_hw[0]}x{stored_hw[1]}, the size of the stored images, expected, "
                f"found {crop!r}"
            )
        self.hw = (int(given[0]), int(given[1]))
        self._room = (stored_hw[0] - self.hw[0], stored_hw[1] - self.hw[1])
        self._random = crop_mode == "random"
        self._flip = flip

    def draw(self, count: int) -> Windows:
        """Windows for a batch, from torch's generator."""
        top, left = (self._starts(room, count) for room in self._room)
        if not self._flip:
            return Windows(top, left, np.zeros(count, bool))
        # Type and device are named: a script may have other defaults, and the draws must not depend on them.
        return Windows(top, left, torch.rand(count, dtype=torch.float32, device="cpu").numpy() < 0.5)

    def _starts(self, room: int, count: int) -> np.ndarray:
        if self._random and room:
            return torch.randint(room + 1, (count,), device="cpu").numpy()
        return np.full(count, round(room / 2), np.int64)  # as torchvision's CenterCrop rounds

    def cut(self, image: np.ndarray, top: int, left: int, mirrored: bool, out: np.ndarray) -> None:
        """Copy a window of `image` (C, H, W) into `out` (C, h, w), both of the same type of 1 or 2 bytes."""
        window = image[:, top : top + self.hw[0], left : left + self.hw[1]]
        if mirrored:
            _mirror(window, out)
        else:
            np.copyto(out, window)


def _fits(wanted: object, stored: int) -> bool:
    return isinstance(wanted, Integral) and not isinstance(wanted, bool) and 1 <= int(wanted) <= stored


def _mirror(window: np.ndarray, out: np.ndarray) -> None:
    try:
        import cv2
    except ImportError:  # training machines need no OpenCV; it is four times faster
        np.copyto(out, window[:, :, ::-1])
        return
    for plane, target in zip(window, out, strict=True):
        cv2.flip(plane, 1, dst=target)
