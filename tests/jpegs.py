"""JPEGs of every kind that decides who decodes them, and a nvJPEG that misbehaves on purpose."""

import io
import struct
from collections.abc import Callable

import cv2
import numpy as np
import torch
from PIL import Image

from tests.helpers import picture

BIG = 1_000_000
"""A cap on pixels that the pictures here stay below, the huge one apart."""


def jpeg(seed: int = 0, height: int = 40, width: int = 56, *parameters: int) -> bytes:
    """4:2:0 unless `parameters`, of OpenCV's imwrite, say otherwise."""
    return cv2.imencode(".jpg", picture(seed, height, width), parameters)[1].tobytes()


def gray_jpeg(seed: int = 0) -> bytes:
    return cv2.imencode(".jpg", picture(seed, 40, 56)[..., 0])[1].tobytes()


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">HH", marker, len(payload) + 2) + payload


def exif(orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return segment(0xFFE1, b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4))


def adobe(transform: int) -> bytes:
    return segment(0xFFEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def inserted(data: bytes, *segments: bytes) -> bytes:
    """With segments right after the start."""
    return data[:2] + b"".join(segments) + data[2:]


def patched(data: bytes, marker: bytes, at: int, patch: bytes) -> bytes:
    """With other bytes `at` bytes behind the start of the segment `marker`."""
    start = data.index(marker) + at
    return data[:start] + patch + data[start + len(patch) :]


def without(data: bytes, marker: int) -> bytes:
    """Without the segments of one kind."""
    wanted = struct.pack(">H", marker)
    while (start := data.find(wanted, 0, data.index(b"\xff\xda"))) >= 0:
        data = data[:start] + data[start + 2 + struct.unpack_from(">H", data, start + 2)[0] :]
    return data


def _pillow(mode: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(0, 40, 56)).convert(mode).save(buffer, "JPEG", **options)
    return buffer.getvalue()


_PLAIN, _GRAY = jpeg(), gray_jpeg()
_SOF, _SOS = b"\xff\xc0", b"\xff\xda"

NVJPEGS = {
    "4:2:0": _PLAIN,
    "4:2:2": jpeg(1, 40, 56, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422),
    "4:4:0": jpeg(2, 40, 56, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440),
    "4:4:4": jpeg(3, 40, 56, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "one pixel": jpeg(4, 1, 1),
    "gray": _GRAY,
    "gray, with Adobe's mark of no transform": inserted(_GRAY, adobe(0)),
    "YCbCr, with Adobe's mark": inserted(_PLAIN, adobe(1)),
    "a segment numbered as Adobe's": inserted(_PLAIN, segment(0xFFEE, b"Other" + bytes(7))),
    "components numbered from 0": patched(
        patched(_PLAIN, _SOF, 10, b"\0\x22\0\1\x11\1\2\x11\1"), _SOS, 5, b"\0\0\1\x11\2\x11"
    ),
    "turned": inserted(_PLAIN, exif(6)),
    "restarts": jpeg(5, 40, 56, cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "optimised tables": jpeg(6, 40, 56, cv2.IMWRITE_JPEG_OPTIMIZE, 1),
    "trailing zeros": _PLAIN + bytes(100),
    "trailing film": _PLAIN + b"ftypmp42\xff\xd8\xff\xc2\xff\xd9\xff" * 9,
    "two images": _PLAIN + jpeg(7, 16, 16, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "thumbnail": inserted(_PLAIN, segment(0xFFE0, b"JFXX\0\x10" + jpeg(8, 8, 8))),
    "fill bytes": inserted(_PLAIN, b"\xff\xff\xff"),
    "fill bytes before the end": _PLAIN[:-2] + b"\xff\xff" + _PLAIN[-2:],
    "comment": inserted(_PLAIN, segment(0xFFFE, b"\xff\xd9\xff\xda\xff\xc2")),
}
"""Files that are nvJPEG's."""

OPENCVS = {
    "progressive": jpeg(1, 40, 56, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "CMYK": _pillow("CMYK"),
    "12 bits": patched(_PLAIN, _SOF, 4, b"\x0c"),
    "extended": patched(_PLAIN, _SOF, 0, b"\xff\xc1"),
    "arithmetic": patched(_PLAIN, _SOF, 0, b"\xff\xc9"),
    "two frames": inserted(_PLAIN, segment(0xFFC0, b"\x08\0\x28\0\x38\3\1\x22\0\2\x11\1\3\x11\1")),
    "4:1:1": jpeg(2, 40, 56, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "chroma finer than luma": patched(_PLAIN, _SOF, 11, b"\x11\0\2\x22"),
    "gray of 2 x 2": patched(_GRAY, _SOF, 11, b"\x22"),
    "RGB by Adobe's mark": inserted(_PLAIN, adobe(0)),
    "RGB by Adobe's mark, and another": inserted(_PLAIN, adobe(0), adobe(1)),
    "RGB by its components' names": patched(
        patched(_PLAIN, _SOF, 10, b"R\x22\0G\x11\1B\x11\1"), _SOS, 5, b"R\0G\x11B\x11"
    ),
    "a scan for each colour": patched(_PLAIN, _SOS, 0, segment(0xFFDA, b"\1\1\0\0\x3f\0") + bytes(4)),
    "part of the spectrum": patched(_PLAIN, _SOS, 11, b"\0\0\0"),
    "no Huffman tables": without(_PLAIN, 0xFFC4),
    "cut": _PLAIN[:-40],
    "no end": _PLAIN[:-2],
    "cut, behind a thumbnail": inserted(_PLAIN, segment(0xFFE0, b"JFXX\0\x10" + jpeg(8, 8, 8)))[:-40],
    "cut, before another image": _PLAIN[:-40] + _PLAIN,
    "a marker within the scan": _PLAIN[:-40] + b"\xff\xfe\0\2" + _PLAIN[-36:],
    "huge": patched(_PLAIN, _SOF, 5, b"\xff\xff\xff\xff"),
    "PNG": cv2.imencode(".png", picture(3))[1].tobytes(),
    "PNG of 16 bits": cv2.imencode(".png", picture(3).astype(np.uint16) * 257)[1].tobytes(),
    "empty": b"",
    "text": b"no image",
}
"""Files that are OpenCV's, whether it can decode them or not."""


def stored(data: bytes, channels: str = "rgb") -> np.ndarray | None:
    """As OpenCV decodes it, not turned: uint8 (h, w, C)."""
    flags = cv2.IMREAD_COLOR_RGB if channels == "rgb" else cv2.IMREAD_GRAYSCALE
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
    return image if image is None or image.ndim == 3 else image[..., None]


class FakeNvjpeg:
    """Decodes a whole list or nothing, on the CPU, as nvJPEG does.

    Attributes
    ----------
    spoil : given the files and their images, uint8 (C, h, w), returns what is to be returned, or raises
    calls : the files of each call
    """

    def __init__(
        self,
        spoil: Callable[[list[bytes], list[torch.Tensor]], list[torch.Tensor]] | None = None,
        channels: str = "rgb",
    ) -> None:
        self.spoil = spoil
        self.calls: list[list[bytes]] = []
        self._channels = channels

    def __call__(self, files: list[torch.Tensor]) -> list[torch.Tensor]:
        data = [file.numpy().tobytes() for file in files]
        self.calls.append(data)
        images = []
        for image in (stored(file, self._channels) for file in data):
            if image is None:
                raise RuntimeError("Error while decoding JPEG images: Failed to decode batch: 3\nfrom a C++ stack")
            images.append(torch.from_numpy(image).permute(2, 0, 1).contiguous())
        return images if self.spoil is None else self.spoil(data, images)

    @property
    def decoded(self) -> list[bytes]:
        """All files that it was ever given."""
        return [file for call in self.calls for file in call]
