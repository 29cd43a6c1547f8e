"""Pillow as a second reader, for variants of a format that OpenCV does not read; `readers` says which ones."""

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np

from preprocess.decode import MAX_PIXELS, check_cap
from preprocess.depth import declared_maximum
from preprocess.errors import SourceError
from preprocess.jpeg2000_header import read_jpeg2000_header
from preprocess.levels import Levels, to_8_bits
from preprocess.unpacked import scaled

_PLUGINS = {
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "JPEG 2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "Sun raster": ("SunImagePlugin", "SunImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
}
"""Opened by class: the format is known, and `Image.open` would load all plugins to ask them."""

_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")


def read_with_pillow(
    data: bytes, name: str, channels: str, max_pixels: int, levels: Levels
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Pixels of the first frame, upright, and what was dropped.

    Parameters
    ----------
    data : the whole file
    name : of its format, a key of `_PLUGINS`
    channels : "rgb" or "gray"
    max_pixels : the most that a source may have; compared before anything is decoded
    levels : what becomes of 16-bit values, as for `decode.decode`

    Returns
    -------
    uint8 (H, W, 3) RGB or (H, W, 1) gray, C-contiguous, owned by the caller; notes as in `decode.Decoded`

    Raises
    ------
    SourceError : stage "decode": cut, damaged, over the cap, or not supported by the installed Pillow
    """
    from PIL import ImageOps, __version__

    module, kind = _PLUGINS[name]
    try:
        with _plain_settings(), getattr(importlib.import_module(f"PIL.{module}"), kind)(io.BytesIO(data)) as image:
            check_cap((image.height, image.width), max_pixels)
            image.load()
            if name == "JPEG 2000":
                image = _with_full_range(image, data)
            return _as_pixels(ImageOps.exif_transpose(image), channels, levels, lambda: declared_maximum(data))
    except SourceError:
        raise
    except MemoryError as error:
        raise SourceError("memory", "not enough memory to decode it") from error
    except Exception as error:  # plugins raise whatever their parsers meet
        said = " ".join(f"{type(error).__name__}: {error}".split())
        reason = f"{name} data is cut, damaged or not supported; Pillow {__version__} says: {said}"
        raise SourceError("decode", reason) from error


@contextlib.contextmanager
def _plain_settings() -> Iterator[None]:
    """Pillow without what a user's script may have told it: cut files are failures, and the cap is the recipe's."""
    from PIL import Image, ImageFile

    theirs = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
    try:
        with warnings.catch_warnings(action="ignore"):  # what is wrong with a file is said in its reason
            yield
    finally:
        Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = theirs


def _with_full_range(image: Any, data: bytes) -> Any:
    """Components of fewer than 8 bits, which Pillow moves up, scaled to 0..255."""
    header = read_jpeg2000_header(data)
    bits = header.bits if header is not None else ()
    if len(bits) != len(image.getbands()) or image.mode.startswith("I") or min(bits) >= 8:
        return image
    tables: list[int] = []
    for each in bits:
        largest = (1 << min(each, 8)) - 1
        tables += scaled(np.arange(256) >> (8 - min(each, 8)), largest).tolist()
    return image.point(tables)


def pillow_reads(data: bytes) -> bool:
    """Whether Pillow shows a file that OpenCV refuses, to say the right thing about it."""
    try:
        return not _complaint(data)
    except Exception:  # of a format, or of a kind, that it does not know
        return False


def complaint(data: bytes) -> str:
    """What Pillow says while it unpacks a file that it opens; empty if nothing, and where it cannot open it."""
    with contextlib.suppress(Exception):  # whatever its parsers meet
        return _complaint(data)
    return ""


def _complaint(data: bytes) -> str:
    from PIL import Image

    with _plain_settings(), Image.open(io.BytesIO(data)) as image:
        check_cap((image.height, image.width), MAX_PIXELS)
        try:
            image.load()
        except (OSError, SyntaxError, ValueError) as error:
            return f"Pillow says {error}"
    return ""


def _as_pixels(
    image: Any, channels: str, levels: Levels, declared: Callable[[], int | None]
) -> tuple[np.ndarray, tuple[str, ...]]:
    deep = image.mode.startswith("I;16")
    alpha = image.mode in _ALPHA or "transparency" in image.info
    notes = ("alpha",) * alpha
    pixels: np.ndarray
    if deep:
        values = np.asarray(image).astype(np.uint16)
        pixels, lost = to_8_bits(lambda: (values >> 8).astype(np.uint8), lambda: values, levels, declared)
        notes = lost + notes
    elif image.mode in ("1", "L", "LA", "La"):
        pixels = np.array(image.convert("L"))
    elif image.mode in ("I", "F"):
        raise SourceError("decode", f"its pixels are {np.asarray(image).dtype}, which are not turned into 8 bits")
    else:
        pixels = np.array(image.convert("RGB"))
    if channels == "rgb" and pixels.ndim == 2:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    elif channels == "gray" and pixels.ndim == 3:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]), notes
