"""What fixes the pixels of a split, as a frozen value with two identities."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cache_store.canonical import identity

OPENCV, NVJPEG, TORCH = "opencv", "nvjpeg+torch", "opencv+torch"
"""Engines: what decodes and what renders."""

IN_WORDS = {
    OPENCV: "OpenCV and Albumentations on the CPU",
    NVJPEG: "nvJPEG and torch on the GPU",
    TORCH: "OpenCV and torch on the CPU",
}

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""mean and std in 0..1, one value a channel."""


ADMIT_ALL = (("levels", "high-byte"), ("extra_channels", "drop"), ("pages", "first"))
"""`Rendering.admitted` for images that a build has taken before."""


@dataclass(frozen=True, slots=True)
class Rendering:
    """All that turns an encoded image into a stored tensor.

    Attributes
    ----------
    size_hw : height and width of the tensor
    channels : 'rgb' or 'gray'
    dtype : 'float16' (normalised, baked in) or 'uint8'
    transforms : canonical, see `augment.resolve`
    seed : start of all random draws
    reduced : JPEG DCT scaling for sources far larger than the target
    engine, probe : what renders (one of `IN_WORDS`), and the digest of what it makes of the built-in pictures
    mean, std : baked in; None for uint8, and while the statistics are unknown
    window : lowest and highest of the 16-bit values that become 0..255; None: none
    admitted : key and value of what is said to the decoder of images that it would refuse otherwise. No part of the
        identity: other images have the same pixels without
    """

    size_hw: tuple[int, int]
    channels: str
    dtype: str
    transforms: tuple[dict[str, Any], ...]
    seed: int
    reduced: bool
    engine: str
    probe: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    window: tuple[int, int] | None = None
    admitted: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    @property
    def decode_arguments(self) -> dict[str, Any]:
        """Arguments for the decoder beyond those that it always has; most recipes have none."""
        return dict(self.admitted) | ({} if self.window is None else {"levels": self.window})

    @property
    def shape(self) -> tuple[int, int, int]:
        """C, H, W of the tensor."""
        return (3 if self.channels == "rgb" else 1, *self.size_hw)

    @property
    def pixels(self) -> int:
        return self.size_hw[0] * self.size_hw[1]

    @property
    def chunk_bytes(self) -> int:
        return int(np.prod(self.shape)) * np.dtype(self.dtype).itemsize

    @property
    def statistics(self) -> Statistics | None:
        return None if self.mean is None or self.std is None else (self.mean, self.std)

    def with_statistics(self, statistics: Statistics | None) -> "Rendering":
        """The same pixels, normalised with `statistics`; a uint8 rendering stays as it is."""
        if self.dtype == "uint8" or statistics is None:
            return self
        return replace(self, mean=tuple(statistics[0]), std=tuple(statistics[1]))

    def describe(self) -> dict[str, Any]:
        """Canonical description; its digest is `tensors_id`."""
        return self._pixels_description() | {
            "dtype": self.dtype,
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
        }

    def _pixels_description(self) -> dict[str, Any]:
        return {
            "size": list(self.size_hw),
            "channels": self.channels,
            "transforms": list(self.transforms),
            "seed": self.seed,
            "decode": {"reduced": self.reduced} | ({} if self.window is None else {"levels": list(self.window)}),
            "engine": self.engine,
            "probe": self.probe,
        }

    @property
    def pixels_id(self) -> str:
        """Names the 8-bit pixels: normalisation and element type do not matter."""
        return identity(self._pixels_description())

    @property
    def tensors_id(self) -> str:
        """Names the stored tensors.

        Raises
        ------
        ValueError : float16 without statistics has no identity yet
        """
        if self.dtype == "float16" and self.mean is None:
            raise ValueError("the statistics of this rendering are not known yet")
        return identity(self.describe())
