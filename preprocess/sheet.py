"""Sheets of captioned pictures as PNG files: stored or rendered pixels, drawn as they are.

A tile is copied pixel by pixel; a small one is enlarged by a whole factor, so that no value is made up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cache_store.durable import translated

SAMPLES = 16
"""As many as a person looks at."""

MOST_VARIANTS = 8

_TILES_A_ROW = 8
_LEAST_SIDE = 128
_GAP, _MARGIN = 4, 16
_LINE = 17
_CAPTION_LINES = 3
_CAPTION = _CAPTION_LINES * _LINE + 4
_PAPER, _EMPTY, _INK, _PALE_INK, _RED_INK = 236, 218, (20, 20, 20), (80, 80, 80), (170, 30, 30)
_PLAIN, _BOLD, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, 0.42


@dataclass(frozen=True, slots=True)
class Block:
    """One source or sample on a sheet.

    Attributes
    ----------
    caption : class, file name and size, a line each
    tiles : side by side: uint8 (H, W, 3) RGB or (H, W, 1) gray, of the grid's `tile_hw`, or of its `box_hw` to be drawn
        as it is; a text stands where there is no picture, and says why
    """

    caption: tuple[str, ...]
    tiles: tuple[np.ndarray | str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """Where everything is on a sheet.

    Attributes
    ----------
    tile_hw : size of a tile, before it is enlarged
    tiles : how many a block has side by side
    blocks : how many blocks there are; several go into a row where they are narrow
    """

    tile_hw: tuple[int, int]
    tiles: int
    blocks: int

    @property
    def factor(self) -> int:
        """How many times a tile is enlarged."""
        return -(-_LEAST_SIDE // max(self.tile_hw))

    @property
    def box_hw(self) -> tuple[int, int]:
        """Size of a tile on the sheet."""
        return self.tile_hw[0] * self.factor, self.tile_hw[1] * self.factor

    @property
    def block_hw(self) -> tuple[int, int]:
        height, width = self.box_hw
        return _CAPTION + height, self.tiles * (width + _GAP) - _GAP

    @property
    def columns(self) -> int:
        """Blocks in a row."""
        return max(1, min(self.blocks, _TILES_A_ROW // self.tiles))

    @property
    def size_hw(self) -> tuple[int, int]:
        """Size of the sheet without its title."""
        height, width = self.block_hw
        rows = -(-self.blocks // self.columns)
        return rows * (height + _MARGIN), self.columns * (width + _MARGIN) + _MARGIN

    def corner(self, block: int) -> tuple[int, int]:
        """Top and left of a block, below the title."""
        row, column = divmod(block, self.columns)
        height, width = self.block_hw
        return row * (height + _MARGIN), _MARGIN + column * (width + _MARGIN)

    def tile(self, block: int, number: int) -> tuple[slice, slice]:
        """Rows and columns of a tile, below the title."""
        top, left = self.corner(block)
        height, width = self.box_hw
        top, left = top + _CAPTION, left + number * (width + _GAP)
        return slice(top, top + height), slice(left, left + width)


def draw(title: str, blocks: Sequence[Block], grid: Grid) -> np.ndarray:
    """A sheet: uint8 (H, W, 3) RGB. The grid lies at its lower end; how high the title is depends on its length."""
    body = np.full((*grid.size_hw, 3), _PAPER, np.uint8)
    for number, block in enumerate(blocks):
        top, left = grid.corner(number)
        for line, text in enumerate(block.caption[:_CAPTION_LINES]):
            font, ink = (_PLAIN, _PALE_INK) if line else (_BOLD, _INK)
            _write(body, _shortened(text, font, grid.block_hw[1]), top + line * _LINE, left, font, ink)
        for place, tile in enumerate(block.tiles):
            rows, columns = grid.tile(number, place)
            if isinstance(tile, str):
                body[rows, columns] = _refusal(tile, grid.box_hw)
            elif tile.shape[:2] == grid.box_hw:
                body[rows, columns] = tile
            else:
                body[rows, columns] = tile.repeat(grid.factor, axis=0).repeat(grid.factor, axis=1)
    lines = _wrapped(title, _PLAIN, grid.size_hw[1] - 2 * _MARGIN)
    head = np.full((_MARGIN + len(lines) * _LINE + _MARGIN // 2, grid.size_hw[1], 3), _PAPER, np.uint8)
    for line, text in enumerate(lines):
        _write(head, text, _MARGIN + line * _LINE, _MARGIN, _PLAIN, _INK)
    return np.concatenate([head, body])


def spread(labels: np.ndarray, count: int) -> np.ndarray:
    """Samples to look at: as many of each class as of any other, as far as there are, evenly spread in each.

    Parameters
    ----------
    labels : int64 (n,)
    count : how many to choose; of more classes than that an even choice has one sample each

    Returns
    -------
    int64 (min(count, n),), ascending
    """
    classes, sizes = np.unique(labels, return_counts=True)
    if len(classes) > count:
        kept = _even(len(classes), count)
        classes, sizes = classes[kept], sizes[kept]
    shares = np.zeros(len(classes), np.int64)
    while (left := min(count, int(sizes.sum())) - int(shares.sum())) > 0:
        shares[np.flatnonzero(shares < sizes)[:left]] += 1
    chosen = [
        np.flatnonzero(labels == label)[_even(size, share)]
        for label, size, share in zip(classes.tolist(), sizes.tolist(), shares.tolist(), strict=True)
    ]
    return np.sort(np.concatenate([np.zeros(0, np.int64), *chosen]))


def fitted(image: np.ndarray, box_hw: tuple[int, int]) -> np.ndarray:
    """The whole of an image in a box, on gray: uint8 (H, W, C) of the box's size."""
    height, width, channels = image.shape
    scale = min(box_hw[0] / height, box_hw[1] / width)
    rows, columns = (max(1, round(side * scale)) for side in (height, width))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    box = np.full((*box_hw, channels), _EMPTY, np.uint8)
    top, left = (box_hw[0] - rows) // 2, (box_hw[1] - columns) // 2
    small = cv2.resize(image, (columns, rows), interpolation=how).reshape(rows, columns, channels)
    box[top : top + rows, left : left + columns] = small
    return box


def write_png(path: Path, image: np.ndarray) -> None:
    """Write uint8 (H, W, 3) RGB.

    Raises
    ------
    StorageError : the system refused to write it
    """
    data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1]
    with translated("write", path):
        path.write_bytes(data.tobytes())


def _even(size: int, count: int) -> np.ndarray:
    return np.linspace(0, size - 1, count).astype(np.int64)


def _refusal(why: str, box_hw: tuple[int, int]) -> np.ndarray:
    box = np.full((*box_hw, 3), _EMPTY, np.uint8)
    for line, text in enumerate(_wrapped(why, _PLAIN, box_hw[1] - 2 * _GAP)[: max(1, box_hw[0] // _LINE)]):
        _write(box, text, _GAP + line * _LINE, _GAP, _PLAIN, _RED_INK)
    return box


def _write(sheet: np.ndarray, text: str, top: int, left: int, font: int, ink: tuple[int, int, int]) -> None:
    cv2.putText(sheet, _drawable(text), (left, top + _LINE - 5), font, _SCALE, ink, 1, cv2.LINE_AA)


def _drawable(text: str) -> str:
    """Bytes of a name that are no letters as `\\xff`: OpenCV crashes on what is not Unicode."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in plain)


def _width(text: str, font: int) -> int:
    return int(cv2.getTextSize(_drawable(text), font, _SCALE, 1)[0][0])


def _shortened(text: str, font: int, width: int) -> str:
    """The text, or as much of its two ends as goes into the width: a file name's number is at its end."""
    if _width(text, font) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        head = kept // 2
        short = text[:head] + "..." + text[len(text) - (kept - head) :]
        if _width(short, font) <= width:
            return short
    return ""


def _wrapped(text: str, font: int, width: int) -> list[str]:
    """The text in lines of at most that width, broken between words, or in words that are too long."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if _width(longer, font) <= width:
            lines[-1] = longer
            continue
        lines += [""] * bool(lines[-1])
        for letter in word:
            if lines[-1] and _width(lines[-1] + letter, font) > width:
                lines.append("")
            lines[-1] += letter
    return lines
