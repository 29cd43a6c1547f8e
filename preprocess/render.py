"""Bytes + rendering + variant -> pixels: decode, augment, normalise composed. No I/O.

A renderer belongs to one thread: it keeps its buffers, so that a million images allocate once.
"""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

from cache_store.normalise import normalisation_table
from preprocess.augment import Pipeline, random_state
from preprocess.errors import SourceError, UsageError
from preprocess.rendering import Rendering, Statistics

DECODER = "preprocess.decode:decode"
"""Import path of the function that decodes, with the signature of `decode.decode`."""

DECODERS = ("opencv",)
"""Names for the values of the manifest's column `decoder`."""

_REASON_LENGTH = 300


class Renderer:
    """Renders images of one rendering.

    Parameters
    ----------
    rendering : its statistics may be open; `pixels` needs none
    decoder : import path of the decode function
    max_pixels : cap on a source's size
    """

    def __init__(self, rendering: Rendering, decoder: str = DECODER, max_pixels: int = 179_000_000) -> None:
        self.rendering = rendering
        self._decode = _resolve(decoder)
        self._max_pixels = max_pixels
        self._reduce_to = rendering.size_hw if rendering.reduced else None
        self._pipeline = Pipeline(rendering.transforms)

    def decode(self, data: bytes) -> Any:
        """A `decode.Decoded` whose image is read-only, so that no variant sees what another one did.

        Raises
        ------
        SourceError : not an image, damaged, or over the cap
        """
        decoded = self._decode(
            data, channels=self.rendering.channels, max_pixels=self._max_pixels, reduce_to=self._reduce_to
        )
        decoded.image.flags.writeable = False
        return decoded

    def pixels(self, image: np.ndarray, digest: bytes, variant: int) -> np.ndarray:
        """One variant of a decoded image: uint8 (H, W, C).

        Raises
        ------
        SourceError : a transform refuses the image, or its result has the wrong size or type
        """
        state = random_state(self.rendering.seed, digest, variant)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                out = self._pipeline(image, state)
        except MemoryError as error:
            raise SourceError("memory", "not enough memory to render it") from error
        except Exception as error:  # any transform may fail on any image: this one is listed
            if isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem:
                raise SourceError("memory", "not enough memory to render it") from error
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise SourceError("render", text[:_REASON_LENGTH]) from error
        channels, height, width = self.rendering.shape
        if out.dtype != np.uint8 or out.shape != (height, width, channels):
            raise SourceError(
                "render", f"uint8 ({height}, {width}, {channels}) expected, the transforms gave {out.dtype} {out.shape}"
            )
        return out


def channel_sums(planes: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Exact sum and sum of squares of each plane of uint8 (C, H, W), up to 2**28 pixels a plane.

    OpenCV's norm may take a square root and square it again: below 2**44 rounding brings the integer back.
    """
    total = tuple(int(cv2.sumElems(plane)[0]) for plane in planes)
    return total, tuple(round(cv2.norm(plane, cv2.NORM_L2SQR)) for plane in planes)


class Normaliser:
    """Applies a normalisation table to 8-bit planes, into a buffer of its own that the next call overwrites.

    Parameters
    ----------
    statistics : mean and std in 0..1
    shape : C, H, W
    """

    def __init__(self, statistics: Statistics, shape: tuple[int, int, int]) -> None:
        table = normalisation_table(*statistics)
        # OpenCV looks up 16-bit integers; the bits of a float16 are one.
        self._tables = [row.view(np.uint16).reshape(1, -1) for row in table]
        self._out = np.empty(shape, np.uint16)

    def __call__(self, planes: np.ndarray) -> np.ndarray:
        """uint8 (C, H, W) -> float16 (C, H, W)."""
        for plane, table, out in zip(planes, self._tables, self._out, strict=True):
            cv2.LUT(plane, table, dst=out)
        return self._out.view(np.float16)


def to_planes(pixels: np.ndarray, out: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) into `out`, uint8 (C, H, W)."""
    if len(out) == 1:
        out[0] = pixels[..., 0]
    else:
        cv2.split(pixels, list(out))
    return out


def _resolve(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"decoder {path!r}: an import path like {DECODER!r} expected ({error})") from error
    return function
