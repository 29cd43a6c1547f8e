"""What OpenCV finds beyond an image's edge."""

import torch

from preprocess.augment import BORDER_MODES

CONSTANT, REPLICATE, REFLECT, WRAP, REFLECT_101 = (
    BORDER_MODES[name] for name in ("constant", "replicate", "reflect", "wrap", "reflect_101")
)


def border_index(position: torch.Tensor, length: torch.Tensor, mode: int) -> torch.Tensor:
    """Where the pixel of a position is found, as `cv2.borderInterpolate` has it.

    Parameters
    ----------
    position : integers, any distance beyond the edges
    length : of the axis, at least 1; broadcasts with `position`
    mode : one of cv2's BORDER_* constants

    Returns
    -------
    position within 0..length-1; for a constant border -1 where it is beyond an edge
    """
    if mode == CONSTANT:
        return torch.where((position >= 0) & (position < length), position, -1)
    if mode == REPLICATE:
        return torch.minimum(position.clamp(min=0), length - 1)
    if mode == WRAP:
        return position.remainder(length)
    # Both ways of reflecting repeat: after 2 n pixels, or after 2 n - 2 where the outermost pixel is not doubled.
    period = 2 * length if mode == REFLECT else (2 * length - 2).clamp(min=1)
    position = position.remainder(period)
    mirrored = period - position - (1 if mode == REFLECT else 0)
    return torch.where(position < length, position, mirrored)
