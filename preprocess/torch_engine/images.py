"""Images of different sizes in one tensor."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


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
        """Some of them, copied; in no more room than they need."""
        sizes = self.sizes[places]
        height, width = sizes.max(axis=0).tolist()
        chosen = torch.as_tensor(places, device=self.pixels.device)
        return Images(self.pixels[chosen, :, :height, :width], sizes)

    @property
    def inside(self) -> torch.Tensor:
        """Which pixels belong to an image: bool (n, 1, H, W)."""
        height, width = self.pixels.shape[2:]
        sizes = torch.as_tensor(self.sizes, device=self.pixels.device)
        rows = torch.arange(height, device=self.pixels.device) < sizes[:, :1]
        columns = torch.arange(width, device=self.pixels.device) < sizes[:, 1:]
        return (rows[:, :, None] & columns[:, None, :])[:, None]
