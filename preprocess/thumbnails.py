"""Small pictures that a page takes into itself, as data URIs; their bytes in all are bounded."""

import base64
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

_LOSSLESS_SIDE = 32
_STEPS = ((128, 80), (96, 60), (64, 40))
"""Longest side and WebP quality; the next ones where many or noisy pictures would take too many bytes."""

MAX_SIDE = _STEPS[0][0]


class Thumbnail(NamedTuple):
    """A picture as the value of `src`, and its size."""

    uri: str
    height: int
    width: int


def thumbnails(images: Sequence[np.ndarray], max_bytes: int) -> list[Thumbnail]:
    """Pictures as data URIs, as large and as good as `max_bytes` of text in all permit.

    Parameters
    ----------
    images : uint8 (H, W, 3) RGB each; small ones stay as they are, to the bit
    max_bytes : kept unless the smallest and poorest pictures take more
    """
    made: list[Thumbnail] = []
    for side, quality in _STEPS:
        made = [_thumbnail(image, side, quality) for image in images]
        if sum(len(one.uri) for one in made) <= max_bytes:
            break
    return made


def fitted(image: np.ndarray, side: int) -> np.ndarray:
    """An image shrunk, by averaging, until its longer side is `side`; a smaller one as it is."""
    height, width = image.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return image
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _thumbnail(image: np.ndarray, side: int, quality: int) -> Thumbnail:
    small = np.ascontiguousarray(fitted(image, side)[..., ::-1])
    height, width = small.shape[:2]
    if max(height, width) <= _LOSSLESS_SIDE:
        kind, data = "png", cv2.imencode(".png", small)[1]
    else:
        kind, data = "webp", cv2.imencode(".webp", small, [cv2.IMWRITE_WEBP_QUALITY, quality])[1]
    return Thumbnail(f"data:image/{kind};base64,{base64.b64encode(data).decode()}", height, width)
