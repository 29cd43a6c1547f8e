"""Colour spaces as OpenCV converts them: the library is asked once for each of the 2**24 colours.

A look-up in its answers is exact whatever its arithmetic is (fixed point, fused or not, splines for Lab), and one
launch. A table takes 64 MiB on the device, and is made when it is first needed.
"""

import functools

import cv2
import numpy as np
import torch

from preprocess.torch_engine.images import Images

_COLOURS = 1 << 24
_BLOCK = 32
"""Pixels that OpenCV's vector code takes at once; it leaves the rest of a row to other code."""


def convert(images: Images, conversion: str) -> Images:
    """Three channels from one colour space into another.

    Parameters
    ----------
    conversion : name of one of OpenCV's codes for 8 bits, without COLOR_
    """
    pixels = images.pixels
    colours = (pixels[:, 2].int() << 8 | pixels[:, 1]) << 8 | pixels[:, 0]
    if conversion == "HSV2RGB":
        colours += _left_over(images)
    table = _table(conversion, pixels.device)
    found = table.index_select(0, colours.flatten()).view(torch.uint8).view(*colours.shape, 4)
    return Images(found[..., :3].permute(0, 3, 1, 2).contiguous(), images.sizes)


def _left_over(images: Images) -> torch.Tensor:
    """int32 (n, 1, W): where to look for the colours of a column.

    From HSV, OpenCV's vector code cuts fractions off, and the code for what is left over of a row rounds them.
    """
    whole = torch.as_tensor(images.sizes[:, 1] // _BLOCK * _BLOCK, device=images.pixels.device)
    columns = torch.arange(images.pixels.shape[3], device=images.pixels.device)
    return (columns >= whole[:, None, None]).int() * _COLOURS


@functools.cache
def _table(conversion: str, device: torch.device) -> torch.Tensor:
    """int32: colour -> colour, the first channel in the lowest byte.

    From HSV, the colours as in a row's vector code are followed by those as in what is left over.
    """
    colours = np.arange(_COLOURS, dtype="<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    shapes = [(4096, 4096, 3), (_COLOURS, 1, 3)] if conversion == "HSV2RGB" else [(4096, 4096, 3)]
    found = np.zeros((len(shapes), _COLOURS, 4), np.uint8)
    for part, shape in zip(found, shapes, strict=True):
        part[:, :3] = cv2.cvtColor(colours.reshape(shape), getattr(cv2, f"COLOR_{conversion}")).reshape(-1, 3)
    return torch.as_tensor(found.view("<i4").ravel(), device=device)
