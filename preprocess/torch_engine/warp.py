"""Affine and perspective warps of 8-bit images, in OpenCV 5's arithmetic.

Nearest and linear follow modules/imgproc/src/warp_kernels.simd.hpp: coordinates and weights are float32, with one
rounding for a product and a sum where OpenCV uses fused instructions. Cubic is float32 too, in separate steps. Lanczos
follows imgwarp.cpp: positions in 32nds of a pixel, weights in 15 bits.
"""

import functools
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from preprocess.torch_engine.actions import Action
from preprocess.torch_engine.borders import CONSTANT, border_index
from preprocess.torch_engine.images import Images
from preprocess.torch_engine.resizing import CUBIC, LANCZOS4, LINEAR, NEAREST, cubic_weights, lanczos_weights
from preprocess.torch_engine.sampling import Sampling, filled, in_parts, padded_index

_FAR = 2.0**30
_SUBPIXEL_BITS, _WEIGHT_BITS = 5, 15
_FINER_BITS = 5
"""Affine coordinates are summed with these further bits, then cut."""


@dataclass(frozen=True, slots=True, eq=False)
class Warp:
    """Each pixel of a canvas is interpolated where a matrix maps it to; of the canvas, some rows and columns are kept.

    Attributes
    ----------
    matrix : float64 (3, 3), from positions (x, y, 1) on the canvas to those in the source
    perspective : whether the third row counts
    interpolation : cv2.INTER_NEAREST, LINEAR, CUBIC or LANCZOS4
    border_mode : one of cv2's BORDER_* constants
    border : colour around the source for a constant border, 0..255 a channel
    kept : a sampling that copies from the canvas; what is not in it is not computed
    """

    matrix: np.ndarray
    perspective: bool
    interpolation: int
    border_mode: int
    border: tuple[int, ...]
    kept: Sampling

    @property
    def group(self) -> Hashable:
        return self.perspective, self.interpolation, self.border_mode, self.kept.transposed

    def then(self, following: Action) -> "Warp | None":
        """Crops, flips and the like choose which pixels of the canvas there are; anything else is done to pixels."""
        if not isinstance(following, Sampling) or following.arithmetic != "copy":
            return None
        kept = self.kept.then(following)
        return None if kept is None else replace(self, kept=kept)

    @staticmethod
    def run(images: Images, actions: Sequence["Warp"]) -> Images:
        kept = [action.kept for action in actions]
        sizes = np.array([(len(sampling.rows.index), len(sampling.columns.index)) for sampling in kept], np.int64)
        out = in_parts(images, sizes, sizes, lambda part, places: _warped(part, [actions[place] for place in places]))
        if any(sampling.fill is not None for sampling in kept):
            out = filled(out, kept)
        if kept[0].transposed:
            out = out.transpose(2, 3).contiguous()
        return Images(out, np.array([sampling.size_hw for sampling in kept], np.int64))


def _warped(images: Images, actions: Sequence[Warp]) -> torch.Tensor:
    """The kept pixels of each canvas: uint8 (n, C, h, w)."""
    rows = padded_index([action.kept.rows for action in actions])
    columns = padded_index([action.kept.columns for action in actions])
    interpolation = actions[0].interpolation
    coordinates = _coordinates_in_32nds if interpolation == LANCZOS4 else _coordinates
    x, y = coordinates(actions, rows, columns, images.pixels.device)
    return _INTERPOLATE[interpolation](_Source.of(images, actions), x, y)


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the pixels of a batch come from, and what is around its images.

    Attributes
    ----------
    planes : uint8 (n, C, rows x columns); with a constant border, every image has a frame of that colour
    row_length : of the planes
    height, width : of each image, int64 (n, 1, 1), without the frame
    mode : of the border
    """

    planes: torch.Tensor
    row_length: int
    height: torch.Tensor
    width: torch.Tensor
    mode: int

    @staticmethod
    def of(images: Images, actions: Sequence[Warp]) -> "_Source":
        pixels, mode = images.pixels, actions[0].border_mode
        height, width = torch.as_tensor(images.sizes, device=pixels.device)[:, :, None, None].unbind(1)
        if mode == CONSTANT:
            colours = torch.tensor([action.border for action in actions], dtype=torch.uint8, device=pixels.device)
            inside = F.pad(images.inside, (1, 1, 1, 1))
            pixels = torch.where(inside, F.pad(pixels, (1, 1, 1, 1)), colours[:, :, None, None])
        return _Source(pixels.flatten(2), pixels.shape[3], height, width, mode)

    def rows(self, y: torch.Tensor) -> torch.Tensor:
        """Where in the planes rows begin, for whole numbers of any type and size."""
        return self._index(y, self.height) * self.row_length

    def columns(self, x: torch.Tensor) -> torch.Tensor:
        return self._index(x, self.width)

    def _index(self, position: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        if self.mode == CONSTANT:
            return torch.minimum(position.clamp(min=-1), length).long() + 1
        return border_index(position.long(), length, self.mode)

    def at(self, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
        """Pixels, uint8 (n, C, h, w), at what `rows` and `columns` give for (n, h, w)."""
        place = (row + column)[:, None]
        shape = (-1, self.planes.shape[1], *place.shape[2:])
        return self.planes.gather(2, place.expand(shape).flatten(2)).view(shape)


def _coordinates(
    actions: Sequence[Warp], rows: np.ndarray, columns: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the kept pixels of the canvas come from: x and y, float32 (n, h, w).

    OpenCV takes the matrix as float32. A row's own part is rounded after each step, then a pixel is one fused
    multiplication and addition: this is float64 here, in which the product of a float32 and an index is exact. Its
    affine cubic rounds the product by itself. The last pixels of a row, fewer than 16, go another way in OpenCV and may
    differ by a unit in the last place.
    """
    matrix = np.stack([action.matrix for action in actions]).astype(np.float32)
    of_row = rows[:, None].astype(np.float32) * matrix[:, :, 1:2] + matrix[:, :, 2:]
    row_parts = torch.as_tensor(of_row.astype(np.float64), device=device)
    of_column = columns[:, None] * matrix[:, :, 0:1].astype(np.float64)
    if actions[0].interpolation == CUBIC and not actions[0].perspective:
        of_column = of_column.astype(np.float32).astype(np.float64)
    column_parts = torch.as_tensor(of_column, device=device)
    x, y, *w = (
        (column_parts[:, axis, None, :] + row_parts[:, axis, :, None]).float()
        for axis in range(3 if actions[0].perspective else 2)
    )
    if w:
        x, y = (part.div_(w[0]).nan_to_num_(nan=-_FAR) for part in (x, y))
    return x.clamp_(-_FAR, _FAR), y.clamp_(-_FAR, _FAR)


def _nearest(source: _Source, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return source.at(source.rows(y.round_()), source.columns(x.round_()))


def _linear(source: _Source, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    left, top = x.floor(), y.floor()
    x, y = (x - left)[:, None], (y - top)[:, None]
    columns = source.columns(left), source.columns(left + 1)
    above, below = (
        _between(source.at(row, columns[0]).float(), source.at(row, columns[1]).float(), x)
        for row in (source.rows(top), source.rows(top + 1))
    )
    return _between(above, below, y).round_().clamp_(0, 255).to(torch.uint8)


def _between(first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """first + weight (second - first), all float32; rounded after the difference and at the end, as fused."""
    return (second - first).double().mul_(weight).add_(first).float()


def _cubic(source: _Source, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """What lies further from the source than its own size, at least 16 pixels, is taken to be there, as in OpenCV."""
    x, y = (
        torch.minimum(torch.maximum(position, -reach), 2 * reach)
        for position, reach in ((x, source.width.clamp(min=16)), (y, source.height.clamp(min=16)))
    )
    left, top = x.floor(), y.floor()
    across, down = (cubic_weights(fraction[:, None]) for fraction in (x - left, y - top))
    columns = [source.columns(left + tap) for tap in range(-1, 3)]

    def line(tap: int) -> torch.Tensor:
        row = source.rows(top + tap)
        return _sum(source.at(row, column).float().mul_(weight) for column, weight in zip(columns, across, strict=True))

    total = _sum(line(tap).mul_(weight) for tap, weight in zip(range(-1, 3), down, strict=True))
    return total.round_().clamp_(0, 255).to(torch.uint8)


def _coordinates_in_32nds(
    actions: Sequence[Warp], rows: np.ndarray, columns: np.ndarray, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same as `_coordinates`, in 32nds of a pixel: int64 (n, h, w)."""
    matrix = np.stack([action.matrix for action in actions])
    if actions[0].perspective:
        row_parts = torch.as_tensor(rows[:, None] * matrix[:, :, 1:2] + matrix[:, :, 2:], device=device)
        column_parts = torch.as_tensor(columns[:, None] * matrix[:, :, 0:1], device=device)
        x, y, w = (column_parts[:, axis, None, :] + row_parts[:, axis, :, None] for axis in range(3))
        w = torch.where(w == 0, 0.0, (1 << _SUBPIXEL_BITS) / w)
        x, y = (part.mul_(w).clamp_(-_FAR, _FAR).round_().long() for part in (x, y))
        return x, y
    unit = 1 << _SUBPIXEL_BITS + _FINER_BITS
    of_row = np.rint((rows[:, None] * matrix[:, :2, 1:2] + matrix[:, :2, 2:]) * unit) + (1 << _FINER_BITS - 1)
    row_parts = torch.as_tensor(of_row.astype(np.int64), device=device)
    of_column = np.rint(columns[:, None] * matrix[:, :2, 0:1] * unit)
    column_parts = torch.as_tensor(of_column.astype(np.int64), device=device)
    x, y = ((column_parts[:, axis, None, :] + row_parts[:, axis, :, None]) >> _FINER_BITS for axis in range(2))
    return x, y


def _lanczos(source: _Source, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    within = (1 << _SUBPIXEL_BITS) - 1
    fraction = ((y & within) << _SUBPIXEL_BITS) + (x & within)
    left, top = ((part >> _SUBPIXEL_BITS).clamp_(-(1 << 15), (1 << 15) - 1) for part in (x, y))
    columns = [source.columns(left + tap) for tap in range(-3, 5)]

    def line(tap: int, weights: torch.Tensor) -> torch.Tensor:
        row = source.rows(top + tap)
        return _sum(
            source.at(row, column).int().mul_(weight[fraction][:, None])
            for column, weight in zip(columns, weights, strict=True)
        )

    table = torch.as_tensor(_lanczos_table(), device=x.device)
    total = _sum(line(tap, weights) for tap, weights in zip(range(-3, 5), table, strict=True))
    rounded = total.add_(1 << _WEIGHT_BITS - 1).bitwise_right_shift_(_WEIGHT_BITS)
    return rounded.clamp_(0, 255).to(torch.uint8)


_INTERPOLATE = {NEAREST: _nearest, LINEAR: _linear, CUBIC: _cubic, LANCZOS4: _lanczos}


def _sum(terms: Iterable[torch.Tensor]) -> torch.Tensor:
    """One after the other, into the first."""
    return functools.reduce(torch.Tensor.add_, terms)


@functools.cache
def _lanczos_table() -> np.ndarray:
    """Weights of 8x8 taps for each fraction of a pixel: int32 (8, 8, 1024), by row, column, 32 y + x.

    Their sum is made 2**15: what rounding left goes to the largest of the four taps in the middle, or the smallest
    (initInterTab2D).
    """
    line = lanczos_weights(np.arange(1 << _SUBPIXEL_BITS, dtype=np.float32) / np.float32(1 << _SUBPIXEL_BITS))
    product = line[:, None, :, None] * line[None, :, None, :]
    weights = np.rint(product * np.float32(1 << _WEIGHT_BITS)).astype(np.int32).reshape(-1, 8, 8)
    for table in weights:
        excess = table.sum() - (1 << _WEIGHT_BITS)
        middle = table[4:6, 4:6]
        place = middle.argmax() if excess < 0 else middle.argmin()
        middle[np.unravel_index(place, middle.shape)] -= excess
    return np.ascontiguousarray(weights.transpose(1, 2, 0))
