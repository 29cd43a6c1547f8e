"""Stored values -> the element type that training asks for, a batch at a time."""

import numpy as np

from cache_store.normalise import normalise
from loaders.threads import THREADS


def normalise_batch(images: np.ndarray, table: np.ndarray, out: np.ndarray) -> None:
    """8-bit pixels to float16 by table: the bits that a float16 cache would hold.

    Parameters
    ----------
    images : uint8 (n, C, H, W)
    table : float16 (C, 256)
    out : float16 (n, C, H, W), C-contiguous, overwritten
    """
    try:
        import cv2
    except ImportError:  # training machines need no OpenCV; it is only faster

        def work(start: int, end: int) -> None:
            for i in range(start, end):
                out[i] = normalise(images[i], table)
    else:
        rows = [row.view(np.uint16).reshape(1, -1) for row in table]
        bits = out.view(np.uint16)

        def work(start: int, end: int) -> None:
            for i in range(start, end):
                for plane, row, target in zip(images[i], rows, bits[i], strict=True):
                    cv2.LUT(plane, row, dst=target)

    THREADS.over(len(images), work)
