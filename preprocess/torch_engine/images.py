"""Images of different sizes in one tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

_MOST_ROOM = 2
"""Pixels of a batch for each that belongs to an image: photos come in many sizes, and one large one among small ones
would have nearly all work done on nothing."""

_VALUES_AT_ONCE, _VALUES_AT_ONCE_ELSEWHERE = {"cpu": 1 << 20}, 1 << 25
"""Most values that are computed together: what caches hold, or what keeps a device busy."""


def pixels_at_once(images: torch.Tensor) -> int:
    """Of images like these, uint8 (n, C, H, W), the most pixels that are computed together."""
    return _VALUES_AT_ONCE.get(images.device.type, _VALUES_AT_ONCE_ELSEWHERE) // images.shape[1]


def alike(sizes: np.ndarray, most: int | None = None) -> list[np.ndarray]:
    """Sort images into batches of which each takes at most twice the room of its images.

    Parameters
    ----------
    sizes : int64 (n, 2), height and width of each
    most : pixels of a batch; a larger image is alone

    Returns
    -------
    int64 arrays of places that hold each image once; small images first
    """
    areas = sizes.prod(axis=1)
    order = np.argsort(areas, kind="stable")
    groups: list[np.ndarray] = []
    while len(order):
        room = np.maximum.accumulate(sizes[order]).prod(axis=1) * np.arange(1, len(order) + 1)
        too_large = room > _MOST_ROOM * np.cumsum(areas[order])
        if most is not None:
            too_large[1:] |= room[1:] > most
        count = int(too_large.argmax()) if too_large.any() else len(order)
        groups.append(order[:count])
        order = order[count:]
    return groups


@dataclass(frozen=True, slots=True)
class Images:
    """A batch. Each image lies in the top left corner of its place.

    Attributes
    ----------
    pixels : uint8 (n, C, H, W); what is beyond an image's own size means nothing, and never reaches its pixels
    sizes : int64 (n, 2), height and width of each; on the host, as they decide what is launched
    """

    pixels: torch.Tensor
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    @staticmethod
    def of(images: Sequence[torch.Tensor]) -> "Images":
        """Images as they are decoded, each uint8 (C, h, w), all of one C and on one device."""
        sizes = np.array([image.shape[1:] for image in images], np.int64).reshape(-1, 2)
        height, width = sizes.max(axis=0).tolist()
        pixels = images[0].new_zeros((len(images), images[0].shape[0], height, width))
        for place, image in zip(pixels, images, strict=True):
            place[:, : image.shape[1], : image.shape[2]] = image
        return Images(pixels, sizes)

    @staticmethod
    def joined(parts: Sequence["Images"]) -> "Images":
        """All images of some batches, one batch behind the other."""
        if len(parts) == 1:
            return parts[0]
        sizes = np.concatenate([part.sizes for part in parts])
        height, width = sizes.max(axis=0).tolist()
        first = parts[0].pixels
        pixels = first.new_zeros((len(sizes), first.shape[1], height, width))
        start = 0
        for part in parts:
            h, w = part.sizes.max(axis=0).tolist()
            pixels[start : start + len(part), :, :h, :w] = part.pixels[:, :, :h, :w]
            start += len(part)
        return Images(pixels, sizes)

    def image(self, place: int) -> torch.Tensor:
        """One of them: uint8 (C, h, w), a view."""
        height, width = self.sizes[place].tolist()
        return self.pixels[place, :, :height, :width]

    def __getitem__(self, places: np.ndarray) -> "Images":
        """Some of them, in no more room than they need; neighbours as a view, others copied."""
        sizes = self.sizes[places]
        height, width = sizes.max(axis=0).tolist()
        room = self.pixels[:, :, :height, :width]
        if (np.diff(places) == 1).all():
            return Images(room[places[0] : places[-1] + 1], sizes)
        return Images(room.index_select(0, torch.as_tensor(places, device=room.device)), sizes)

    @property
    def inside(self) -> torch.Tensor:
        """Which pixels belong to an image: bool (n, 1, H, W)."""
        height, width = self.pixels.shape[2:]
        sizes = torch.as_tensor(self.sizes, device=self.pixels.device)
        rows = torch.arange(height, device=self.pixels.device) < sizes[:, :1]
        columns = torch.arange(width, device=self.pixels.device) < sizes[:, 1:]
        return (rows[:, :, None] & columns[:, None, :])[:, None]


def batched(images: Sequence[torch.Tensor]) -> tuple[list[Images], list[int]]:
    """Images, each uint8 (C, h, w), in batches of those that are alike, and their places in the order of these."""
    groups = alike(np.array([image.shape[1:] for image in images], np.int64))
    return [Images.of([images[place] for place in group]) for group in groups], np.concatenate(groups).tolist()


def some(batches: Sequence[Images], places: np.ndarray) -> list[Images]:
    """Some of the images of batches, counted through all of these; `places` int64 (n,), ascending."""
    chosen, start = [], 0
    for batch in batches:
        own = places[(places >= start) & (places < start + len(batch))] - start
        if len(own):
            chosen.append(batch if len(own) == len(batch) else batch[own])
        start += len(batch)
    return chosen
