"""Resampling along rows and columns: resizes, crops, pads, flips, turns."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from preprocess.torch_engine.actions import Action
from preprocess.torch_engine.images import Images

Arithmetic = Literal["copy", "linear", "exact", "fixed", "float"]
"""How a weighted sum becomes a pixel, in OpenCV's words for 8 bits (modules/imgproc/src/resize.cpp).

copy : one tap, no sum
linear : weights of 11 bits; the sums over columns lose 4 bits, the products with the rows' weights 16, their sum 2
exact : weights of 8 bits, one rounding at the end (INTER_LINEAR_EXACT)
fixed : weights of 11 bits, one rounding at the end
float : float32, one rounding at the end, halves to even
"""

_FRACTION_BITS = {"exact": 16, "fixed": 22}


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
        pixels = resample(images.pixels, actions)
        if any(action.fill is not None for action in actions):
            pixels = filled(
                pixels,
                outside([action.rows for action in actions], pixels.device)[:, :, None],
                outside([action.columns for action in actions], pixels.device)[:, None, :],
                [action.fill for action in actions],
            )
        if actions[0].transposed:
            pixels = pixels.transpose(2, 3).contiguous()
        return Images(pixels, np.array([action.size_hw for action in actions], np.int64))


def outside(taps: Sequence[Taps], device: torch.device) -> torch.Tensor:
    """Where the fill colour is along one axis of each image: bool (n, longest)."""
    return torch.as_tensor(_padded([axis.outside for axis in taps]), device=device)


def filled(
    pixels: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, fills: Sequence[tuple[int, ...] | None]
) -> torch.Tensor:
    """Give rows and columns of a batch, uint8 (n, C, H, W), the colour of their image.

    Parameters
    ----------
    rows, columns : bool, which broadcast to (n, H, W)
    fills : of each image; None where neither selects anything
    """
    colours = torch.tensor([fill or (0,) * pixels.shape[1] for fill in fills], dtype=torch.uint8, device=pixels.device)
    return torch.where((rows | columns)[:, None], colours[:, :, None, None], pixels)


def padded_index(taps: Sequence[Taps]) -> np.ndarray:
    """First positions of each image's taps: int64 (n, longest), 0 behind them and where the fill colour is."""
    return _padded([np.maximum(axis.index[:, 0], 0) for axis in taps])


def _copied(pixels: torch.Tensor, actions: Sequence[Sampling]) -> torch.Tensor:
    rows, columns = padded_index([a.rows for a in actions]), padded_index([a.columns for a in actions])
    return _pick(pixels, torch.as_tensor(rows, device=pixels.device), torch.as_tensor(columns, device=pixels.device))


def _summed(pixels: torch.Tensor, actions: Sequence[Sampling]) -> torch.Tensor:
    """Sums over columns first, as OpenCV does, of no more rows than are needed."""
    needed, row_index = zip(
        *(np.unique(np.maximum(action.rows.index, 0), return_inverse=True) for action in actions), strict=True
    )
    source_rows = _on(_padded(needed), pixels)
    row_index = [index.reshape(action.rows.index.shape) for index, action in zip(row_index, actions, strict=True)]
    rows = _on(_padded_taps(row_index), pixels)
    row_weight = torch.as_tensor(_padded_taps([action.rows.weight for action in actions]), device=pixels.device)
    columns = _on(_padded_taps([action.columns.index for action in actions]), pixels)
    column_weight = torch.as_tensor(_padded_taps([action.columns.weight for action in actions]), device=pixels.device)
    arithmetic = actions[0].arithmetic

    sums: torch.Tensor | None = None
    for column, weight in zip(columns, column_weight, strict=True):
        term = _pick(pixels, source_rows, column).to(weight.dtype).mul_(weight[:, None, None, :])
        sums = term if sums is None else sums.add_(term)
    assert sums is not None
    if arithmetic == "linear":
        sums >>= 4

    total: torch.Tensor | None = None
    for row, weight in zip(rows, row_weight, strict=True):
        term = _pick_rows(sums, row).mul_(weight[:, None, :, None])
        if arithmetic == "linear":
            term >>= 16
        total = term if total is None else total.add_(term)
    assert total is not None
    if arithmetic == "float":
        scale, bias = torch.tensor(
            [[action.scale for action in actions], [action.bias for action in actions]],
            dtype=torch.float32,
            device=pixels.device,
        )[:, :, None, None, None]
        total = total.mul_(scale).add_(bias).round_()
    else:
        bits = _FRACTION_BITS.get(arithmetic, 2)
        total = total.add_(1 << bits - 1).bitwise_right_shift_(bits)
    return total.clamp_(0, 255).to(torch.uint8)


def _pick(pixels: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """(n, C, H, W) at rows (n, R) and columns (n, Q): (n, C, R, Q)."""
    table, number = _rows_numbered(pixels, rows)
    return table[number[..., None], columns[:, None, None, :]]


def _pick_rows(pixels: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    table, number = _rows_numbered(pixels, rows)
    return table[number]


def _rows_numbered(pixels: torch.Tensor, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch as one table of rows, and the numbers in it of some rows of each image: int64 (n, C, R)."""
    n, channels, height, width = pixels.shape
    planes = torch.arange(n * channels, device=pixels.device).view(n, channels, 1)
    return pixels.reshape(-1, width), planes * height + rows[:, None, :]


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
