"""The colour profile of an image, named where it is not sRGB: pixels are taken as they are, nothing is converted."""

import functools
import io
import struct
import zlib
from typing import Any

import numpy as np

from preprocess.header import jpeg_segments
from preprocess.tiff_header import read_tiff_header

_MOST_BYTES = 4 << 20  # of a profile; printers' have up to 2 MB
_BOXES_WITHIN = 64 << 10
_ALIKE = 5
"""Levels of 255 that a profile may be off sRGB to count as sRGB: variants that round or simplify it are."""

_NAME_LENGTH = 60
_PRIMARIES = {1: "BT.709", 4: "BT.470 M", 5: "BT.601", 6: "BT.601", 9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}
_TRANSFERS = {8: "linear", 16: "PQ", 18: "HLG"}
_UNSTATED = 2
_USUAL_PRIMARIES, _USUAL_TRANSFERS = (1, _UNSTATED), (1, _UNSTATED, 6, 13, 14, 15)


def profile_note(data: bytes) -> tuple[str, ...]:
    """A note on what the colours of an encoded image mean, if that is something else than sRGB.

    Parameters
    ----------
    data : the whole file; of a JPEG, PNG, WebP, TIFF, AVIF or JPEG 2000 the profile is looked for

    Returns
    -------
    ("colour profile 'Adobe RGB (1998)'",), or () for sRGB and for files that state nothing. Never raises on the content
    of `data`
    """
    try:
        found = _stated(data)
    except (struct.error, IndexError, zlib.error):
        return ()
    if isinstance(found, bytes):
        found = _name(found)
    return (f"colour profile {found!r}",) if found else ()


def _stated(data: bytes) -> bytes | str | None:
    """The bytes of the ICC profile, or the name of what is stated by numbers."""
    if data[:2] == b"\xff\xd8":
        return _of_jpeg(data)
    if data[:4] == b"\x89PNG":
        return _of_png(data)
    if data[:4] == b"RIFF":
        at = data.find(b"ICCP", 30, 30 + 8)  # follows the header at once
        return data[at + 8 : at + 8 + struct.unpack_from("<I", data, at + 4)[0]] if at >= 0 else None
    if data[4:8] in (b"ftyp", b"jP  "):
        return _of_boxes(data)
    tiff = read_tiff_header(data)
    return tiff.profile if tiff is not None else None


def _of_jpeg(data: bytes) -> bytes | None:
    """The parts of a profile, each in a segment that says which it is."""
    parts = {}
    for marker, start, end in jpeg_segments(data):
        if marker == 0xFFE2 and data[start + 4 : start + 16] == b"ICC_PROFILE\0":
            parts[data[start + 16]] = data[start + 18 : end]
    return b"".join(part for _, part in sorted(parts.items())) or None


def _of_png(data: bytes) -> bytes | str | None:
    """cICP counts more than iCCP; both stand before the pixels."""
    profile: bytes | None = None
    at = 33
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind == b"IDAT":
            break
        body = data[at + 8 : at + 8 + length]
        if kind == b"cICP":
            return _by_numbers(*struct.unpack_from("BB", body))
        if kind == b"iCCP":
            start = body.index(b"\0") + 2 if b"\0" in body else len(body)
            profile = zlib.decompressobj().decompress(body[start:], _MOST_BYTES)
        at += 12 + length
    return profile


def _of_boxes(data: bytes) -> bytes | str | None:
    """The colour box of AVIF (by numbers or a profile) or JPEG 2000 (a profile)."""
    at = data.find(b"colr", 0, _BOXES_WITHIN)
    if at < 4:
        return None
    box = data[at + 4 : at - 4 + struct.unpack_from(">I", data, at - 4)[0]]
    if box[:4] in (b"prof", b"rICC"):
        return box[4:]
    if box[:4] == b"nclx":
        return _by_numbers(*struct.unpack_from(">HH", box, 4))
    return box[3:] if box[:1] in (b"\2", b"\3") else None


def _by_numbers(primaries: int, transfer: int) -> str | None:
    """Coding-independent code points, ITU-T H.273; None for those of sRGB and of usual video."""
    if primaries in _USUAL_PRIMARIES and transfer in _USUAL_TRANSFERS:
        return None
    names = [_PRIMARIES.get(primaries, f"primaries {primaries}")] * (primaries != _UNSTATED)
    names += [_TRANSFERS.get(transfer, f"transfer {transfer}")] * (transfer not in _USUAL_TRANSFERS)
    return " ".join(names)


@functools.lru_cache(maxsize=32)
def _name(profile: bytes) -> str | None:
    """The name of a profile; None if it is sRGB, whatever its name."""
    from PIL import ImageCms

    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if _is_srgb(opened, ImageCms):
            return None
        name = ImageCms.getProfileDescription(opened)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return "that cannot be read"
    except ImportError:  # Pillow without its colour management
        return "not looked into"
    name = "".join(letter for letter in name if letter.isprintable()).strip()
    return name[:_NAME_LENGTH] or "without a name"


def _is_srgb(profile: Any, cms: Any) -> bool:
    """Whether colours keep their values when they are converted from `profile` to sRGB."""
    from PIL import Image

    mode = {"RGB": "RGB", "GRAY": "L"}.get(profile.profile.xcolor_space.strip())
    if mode is None:
        return False
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(len(steps), -1, 3)
    grays = np.arange(256, dtype=np.uint8)[None]
    intent = cms.Intent.RELATIVE_COLORIMETRIC
    convert = cms.buildTransform(profile, cms.createProfile("sRGB"), mode, "RGB", intent)
    given = colours if mode == "RGB" else grays
    found = np.asarray(cms.applyTransform(Image.fromarray(given), convert)).astype(int)
    return bool(np.abs(found - (given if mode == "RGB" else given[..., None])).max() <= _ALIKE)
