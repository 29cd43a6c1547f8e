"""Resampling along rows and columns: resizes, crops, pads, flips, turns."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from preprocess.torch_engine.actions import Action
from preprocess.torch_engine.images import Images, pixels_at_once

Arithmetic = Literal["copy", "linear", "exact", "fixed", "float"]
"""How a weighted sum becomes a pixel, in OpenCV's words for 8 bits (modules/imgproc/src/resize.cpp).

copy : one tap, no sum
linear : weights of 11 bits; the sums over columns lose 4 bits, the products with the rows' weights 16, their sum 2
exact : weights of 8 bits, one rounding at the end (INTER_LINEAR_EXACT)
fixed : weights of 11 bits, one rounding at the end
float : float32, one rounding at the end, halves to even
"""

_FRACTION_BITS = {"linear": 2, "exact": 16, "fixed": 22}
_ROWS, _COLUMNS = 2, 3


@dataclass(frozen=True, slots=True, eq=False)
class Taps:
    """What one axis of a result takes from one axis of its source.

    Attributes
    ----------
    index : int64 (length, k), positions in the source; -1, then in all k: nothing, the fill colour is there
    weight : int32 or float32 (length, k); None where pixels are copied, k = 1
    """

    index: np.ndarray
    weight: np.ndarray | None = None

    @property
    def outside(self) -> np.ndarray:
        """Where the fill colour is: bool (length,)."""
        beyond: np.ndarray = self.index[:, 0] < 0
        return beyond

    def at(self, places: np.ndarray) -> "Taps":
        """Those of some places of the result, int64 (m,); -1: the fill colour."""
        index = np.where(places[:, None] < 0, -1, self.index[places])
        return Taps(index, None if self.weight is None else self.weight[places])

    def after(self, copied: "Taps") -> "Taps":
        """The same where the source is itself `copied` from another one, without fill colour."""
        return Taps(np.where(self.index < 0, -1, copied.index[self.index, 0]), self.weight)


@dataclass(frozen=True, slots=True, eq=False)
class Sampling:
    """Each row of the result is a short weighted sum of the source's rows, each column one of its columns.

    Attributes
    ----------
    rows, columns : of the result, before it is transposed
    arithmetic : both axes copy, or none does
    scale, bias : with "float", the sum times scale plus bias is rounded
    transposed : at the end, rows and columns change places
    fill : colour of what is outside, 0..255 a channel; None where nothing is
    """

    rows: Taps
    columns: Taps
    arithmetic: Arithmetic = "copy"
    scale: float = 1.0
    bias: float = 0.0
    transposed: bool = False
    fill: tuple[int, ...] | None = None

    @property
    def group(self) -> Hashable:
        return self.arithmetic, self.transposed

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the result."""
        height, width = len(self.rows.index), len(self.columns.index)
        return (width, height) if self.transposed else (height, width)

    def then(self, following: Action) -> "Sampling | None":
        """Copying after anything selects from its rows and columns; a resize reads its source through a copy.

        Two resizes stay two (folded into one they change the picture visibly), as do a transposition or a constant
        border before a resize, and borders of two colours.
        """
        if not isinstance(following, Sampling):
            return None
        if following.arithmetic == "copy":
            if None not in (self.fill, following.fill) and self.fill != following.fill:
                return None
            chosen = following.rows.index[:, 0], following.columns.index[:, 0]
            of_rows, of_columns = chosen[::-1] if self.transposed else chosen
            rows, columns = self.rows.at(of_rows), self.columns.at(of_columns)
            fill = (self.fill or following.fill) if rows.outside.any() or columns.outside.any() else None
            return replace(
                self,
                rows=rows,
                columns=columns,
                transposed=self.transposed != following.transposed,
                fill=fill,
            )
        if self.arithmetic == "copy" and not self.transposed and self.fill is None:
            return replace(
                following, rows=following.rows.after(self.rows), columns=following.columns.after(self.columns)
            )
        return None

    @staticmethod
    def run(images: Images, actions: Sequence["Sampling"]) -> Images:
        resample = _copied if actions[0].arithmetic == "copy" else _summed
        sizes = np.array([(len(action.rows.index), len(action.columns.index)) for action in actions], np.int64)
        # Between the sums over columns and those over rows there are as many rows as are needed of the source.
        work = np.maximum(sizes, [(len(np.unique(action.rows.index)), 1) for action in actions])
        pixels = in_parts(images, sizes, work, lambda part, places: resample(part.pixels, [actions[p] for p in places]))
        if any(action.fill is not None for action in actions):
            pixels = filled(pixels, actions)
        if actions[0].transposed:
            pixels = pixels.transpose(2, 3).contiguous()
        return Images(pixels, np.array([action.size_hw for action in actions], np.int64))


def in_parts(
    images: Images, sizes: np.ndarray, work: np.ndarray, compute: Callable[[Images, np.ndarray], torch.Tensor]
) -> torch.Tensor:
    """A batch computed in groups of images of similar size: little memory, and little of it beyond the images.

    Parameters
    ----------
    sizes : height and width of each result, int64 (n, 2)
    work : height and width of the largest thing on the way to it, int64 (n, 2)
    compute : (some of the images, their places in the batch) -> their results, uint8 (m, C, h, w)

    Returns
    -------
    uint8 (n, C, H, W)
    """
    pixels = images.pixels
    most = pixels_at_once(pixels)
    if work.max(axis=0).prod() * len(images) <= most:
        return compute(images, np.arange(len(images)))
    out = pixels.new_empty((len(images), pixels.shape[1], *sizes.max(axis=0).tolist()))
    order = np.argsort(work.prod(axis=1), kind="stable")
    while len(order):
        room = np.maximum.accumulate(work[order]).prod(axis=1) * np.arange(1, len(order) + 1)
        places = order[: max(1, int(np.searchsorted(room, most, side="right")))]
        part = compute(images[places], places)
        out[torch.as_tensor(places, device=out.device), :, : part.shape[2], : part.shape[3]] = part
        order = order[len(places) :]
    return out


def filled(pixels: torch.Tensor, samplings: Sequence[Sampling]) -> torch.Tensor:
    """Give what is outside, in a batch uint8 (n, C, H, W) that is not yet transposed, each image's fill colour."""
    device = pixels.device
    rows, columns = (
        torch.as_tensor(_padded([axis.outside for axis in taps]), device=device)
        for taps in ([sampling.rows for sampling in samplings], [sampling.columns for sampling in samplings])
    )
    nothing = (0,) * pixels.shape[1]
    colours = torch.tensor([sampling.fill or nothing for sampling in samplings], dtype=torch.uint8, device=device)
    return torch.where((rows[:, :, None] | columns[:, None, :])[:, None], colours[:, :, None, None], pixels)


def padded_index(taps: Sequence[Taps]) -> np.ndarray:
    """First positions of each image's taps: int64 (n, longest), 0 behind them and where the fill colour is."""
    return _padded([np.maximum(axis.index[:, 0], 0) for axis in taps])


def _copied(pixels: torch.Tensor, actions: Sequence[Sampling]) -> torch.Tensor:
    rows, columns = padded_index([a.rows for a in actions]), padded_index([a.columns for a in actions])
    return _pick(_pick(pixels, _on(rows, pixels), _ROWS), _on(columns, pixels), _COLUMNS)


def _summed(pixels: torch.Tensor, actions: Sequence[Sampling]) -> torch.Tensor:
    """Sums over columns first, as OpenCV does, of no more rows than are needed."""
    needed, row_index = zip(
        *(np.unique(np.maximum(action.rows.index, 0), return_inverse=True) for action in actions), strict=True
    )
    window = _pick(pixels, _on(_padded(needed), pixels), _ROWS)
    row_index = [index.reshape(action.rows.index.shape) for index, action in zip(row_index, actions, strict=True)]
    arithmetic = actions[0].arithmetic

    columns = _on(_padded_taps([action.columns.index for action in actions]), pixels)
    weights = torch.as_tensor(_padded_taps([action.columns.weight for action in actions]), device=pixels.device)
    sums = _weighted_sum(window, columns, weights, _COLUMNS)
    if arithmetic == "linear":
        sums >>= 4
    rows = _on(_padded_taps(row_index), pixels)
    weights = torch.as_tensor(_padded_taps([action.rows.weight for action in actions]), device=pixels.device)
    total = _weighted_sum(sums, rows, weights, _ROWS, shift=16 if arithmetic == "linear" else 0)

    if arithmetic == "float":
        scale, bias = torch.tensor(
            [[action.scale for action in actions], [action.bias for action in actions]],
            dtype=torch.float32,
            device=pixels.device,
        )[:, :, None, None, None]
        total = total.mul_(scale).add_(bias).round_()
    else:
        bits = _FRACTION_BITS[arithmetic]
        total = total.add_(1 << bits - 1).bitwise_right_shift_(bits)
    return total.clamp_(0, 255).to(torch.uint8)


def _weighted_sum(
    pixels: torch.Tensor, taps: torch.Tensor, weights: torch.Tensor, axis: int, shift: int = 0
) -> torch.Tensor:
    """Sum over taps, each (n, length), of the pixels found there times a weight; products may lose bits."""
    term: torch.Tensor | None = None
    total: torch.Tensor | None = None
    for index, weight in zip(taps, weights, strict=True):
        picked = _pick(pixels, index, axis)
        if term is None or total is None:
            term, total = picked.to(weight.dtype, copy=True), picked.new_zeros(picked.shape, dtype=weight.dtype)
        else:
            term.copy_(picked)
        term.mul_(weight.view(_along(weight, axis)))
        if shift:
            term >>= shift
        total += term
    assert total is not None
    return total


def _pick(pixels: torch.Tensor, index: torch.Tensor, axis: int) -> torch.Tensor:
    """Rows or columns of each image: (n, C, H, W) with H or W of index (n, length)."""
    shape = list(pixels.shape)
    shape[axis] = index.shape[1]
    return pixels.gather(axis, index.view(_along(index, axis)).expand(shape))


def _along(index: torch.Tensor, axis: int) -> tuple[int, int, int, int]:
    return (len(index), 1, -1, 1) if axis == _ROWS else (len(index), 1, 1, -1)


def _on(index: np.ndarray, pixels: torch.Tensor) -> torch.Tensor:
    """On the pixels' device; whatever is outside reads a pixel that is there."""
    return torch.as_tensor(np.maximum(index, 0), device=pixels.device)


def _padded(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Arrays (length,) as one, (n, longest), zeros behind them."""
    out = np.zeros((len(arrays), max(map(len, arrays))), arrays[0].dtype)
    for place, array in zip(out, arrays, strict=True):
        place[: len(array)] = array
    return out


def _padded_taps(arrays: Sequence[np.ndarray | None]) -> np.ndarray:
    """Arrays (length, k) as one, (most k, n, longest): taps and places that are not there have index and weight 0."""
    present = [array for array in arrays if array is not None]
    most, longest = max(array.shape[1] for array in present), max(map(len, present))
    out = np.zeros((most, len(present), longest), present[0].dtype)
    for place, array in enumerate(present):
        out[: array.shape[1], place, : len(array)] = array.T
    return out
