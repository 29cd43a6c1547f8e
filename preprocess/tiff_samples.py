"""The samples of a TIFF as its file has them, with a decoder that only has to read gray.

OpenCV reads up to four samples a pixel, takes planes of 16 bits for pixels, and mixes 16-bit alpha into colours. So a
file is restated: a directory behind its own bytes that calls each plane, or all samples of a row, a gray image. The
compressed data stay where they are.
"""

import struct
from collections.abc import Callable

import numpy as np

from preprocess.tiff_header import COLOUR_SAMPLES, Fields, Layout, TiffHeader, first_fields

_GRAY_OR_RGB = (0, 1, 2)
_PLAIN_COMPRESSIONS = (1, 5, 8, 32773, 32946)  # none, LZW, deflate, PackBits: what they pack are bytes, not pixels
_PREDICTOR = 317
_STRIPS = (273, 279, 278)  # offsets, byte counts, rows of each
_TILES = (324, 325, 323)
_TILE_WIDTH = 322
_FILL_ORDER = 266


def is_plain(header: TiffHeader) -> bool:
    """Whether `read_samples` reads such a file: gray or RGB, 8 or 16 bits a sample, in a compression of bytes."""
    return (
        header.photometric in _GRAY_OR_RGB
        and header.bits in (8, 16)
        and header.sample_format in (1, 2, 4)
        and header.compression in _PLAIN_COMPRESSIONS
        and header.samples >= COLOUR_SAMPLES[header.photometric]
    )


def read_samples(data: bytes, header: TiffHeader, imdecode: Callable[[bytes], np.ndarray | None]) -> np.ndarray | None:
    """The colours of a file that is plain, other samples left out.

    Parameters
    ----------
    imdecode : decodes a gray TIFF without changing its values

    Returns
    -------
    uint8, uint16, or int16 or int8 of signed samples: (H, W, 1) gray or (H, W, 3) RGB, as stored: not turned upright,
    0 is white where the file says so; None if `imdecode` gives none
    """
    fields = first_fields(data)
    colours = COLOUR_SAMPLES[header.photometric]
    predictor = fields.one(_PREDICTOR, 1)
    if predictor not in (1, 2):
        return None
    if header.planar:
        planes = [imdecode(_restated(data, fields, header, 1, plane)) for plane in range(colours)]
        if any(plane is None or plane.shape[:2] != (header.height, header.width) for plane in planes):
            return None
        whole = np.stack([plane for plane in planes if plane is not None], axis=-1)
    else:
        rows = imdecode(_restated(data, fields, header, header.samples, None))
        if rows is None or rows.shape[:2] != (header.height, header.width * header.samples):
            return None
        whole = rows.reshape(header.height, header.width, header.samples)[:, :, :colours]
        if predictor == 2:
            whole = _summed(whole, fields.one(_TILE_WIDTH, header.width))
    signed = np.dtype(f"i{whole.dtype.itemsize}")
    return np.ascontiguousarray(whole).view(signed) if header.sample_format == 2 else whole


def packed_blocks(data: bytes) -> list[bytes]:
    """The packed bytes of each strip or tile of a TIFF's first image."""
    fields = first_fields(data)
    offsets, counts, _ = _TILES if fields.all(_TILES[0]) else _STRIPS
    return [data[at : at + count] for at, count in zip(fields.all(offsets), fields.all(counts), strict=False)]


def _summed(differences: np.ndarray, block: int) -> np.ndarray:
    """Samples out of their differences from the left neighbour, which start anew at each tile."""
    parts = [differences[:, at : at + block] for at in range(0, differences.shape[1], max(block, 1))]
    return np.concatenate([np.cumsum(part, axis=1, dtype=part.dtype) for part in parts], axis=1)


def _restated(data: bytes, fields: Fields, header: TiffHeader, times: int, plane: int | None) -> bytes:
    """The file with another first directory: gray, `times` as wide, or one of its planes."""
    tiled = bool(fields.all(_TILES[0]))
    offsets, counts, rows = _TILES if tiled else _STRIPS
    places: dict[int, tuple[int, ...]] = {offsets: fields.all(offsets), counts: fields.all(counts)}
    if plane is not None:
        share = len(places[offsets]) // header.samples
        places = {tag: values[plane * share : (plane + 1) * share] for tag, values in places.items()}
    entries: dict[int, tuple[int, ...]] = {
        256: (header.width * times,),
        257: (header.height,),
        258: (header.bits,),
        259: (header.compression,),
        262: (1,),
        277: (1,),
        rows: (fields.one(rows, header.height),),
        _FILL_ORDER: (fields.one(_FILL_ORDER, 1),),
        **places,
    }
    if plane is not None and fields.one(_PREDICTOR, 1) != 1:
        entries[_PREDICTOR] = (2,)
    if tiled:
        entries[_TILE_WIDTH] = (fields.one(_TILE_WIDTH, header.width) * times,)
    layout = fields.layout
    padding = b"\0" * (len(data) % 2)
    directory = len(data) + len(padding)
    head = data[: layout.first] + layout.offset.pack(directory)
    return head + data[len(head) :] + padding + _directory(layout, directory, entries)


def _directory(layout: Layout, at: int, entries: dict[int, tuple[int, ...]]) -> bytes:
    """A directory to be placed at offset `at`, the last one of its file."""
    letter, kind = ("Q", 16) if layout.offset.size == 8 else ("I", 4)
    written = layout.counter.pack(len(entries))
    beyond_at = at + len(written) + layout.entry_bytes * len(entries) + layout.offset.size
    beyond = b""
    for tag, values in sorted(entries.items()):
        value = struct.pack(f"{layout.order}{len(values)}{letter}", *values)
        written += layout.entry.pack(tag, kind, len(values))
        if len(value) <= layout.offset.size:
            written += value.ljust(layout.offset.size, b"\0")
        else:
            written += layout.offset.pack(beyond_at + len(beyond))
            beyond += value
    return written + layout.offset.pack(0) + beyond
