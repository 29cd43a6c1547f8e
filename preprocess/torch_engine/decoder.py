"""Encoded files -> images on a device: with nvJPEG where `baseline` allows it, with OpenCV otherwise."""

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from preprocess.decode import MAX_PIXELS, Decoded, decode
from preprocess.errors import DecoderUntrusted, SourceError
from preprocess.jobs import Failure
from preprocess.readers import NVJPEG
from preprocess.torch_engine.baseline import BareJpeg, jpeg_for_nvjpeg
from preprocess.torch_engine.nvjpeg import Nvjpeg

CHECKED_1_IN = 256
"""Of how many files nvJPEG decodes OpenCV decodes one as well."""

TOLERANCE = 16.0
"""Most that `difference` may find between nvJPEG and OpenCV, in levels.

nvJPEG repeats chroma where libjpeg interpolates it: up to 0.9 in photos at 4:2:0 and JPEG quality 30, 0.9 in dense
coloured text, 12.4 in the worst pattern made for it (stripes of pure green and black, two pixels wide). Another photo
of the same size: 32 to 159. Black or white instead of the photo: at least 17. Its lower half lost: 28 typically.
"""

_BLOCK = 16


class DeviceImage(NamedTuple):
    """One decoded image.

    Attributes
    ----------
    image : uint8 (C, h, w), upright; on the device, in any memory layout
    source_hw, notes : as in `decode.Decoded`
    decoder : one of `readers.DECODERS`
    """

    image: torch.Tensor
    source_hw: tuple[int, int]
    notes: tuple[str, ...]
    decoder: str


class Decoder:
    """Decodes the sources of one rendering onto one device.

    Parameters
    ----------
    device : where the images go
    channels, max_pixels, reduce_to : as for `decode.decode`
    nvjpeg : made for the same device and channels; None: OpenCV decodes all
    threads : that decode with OpenCV while nvJPEG works
    checked_1_in : of how many of nvJPEG's files one is compared with OpenCV's decode; which ones, their digests say
    opencv : what decodes the others, with the signature of `decode.decode`; None: that one
    """

    def __init__(
        self,
        device: torch.device,
        *,
        channels: str = "rgb",
        max_pixels: int = MAX_PIXELS,
        reduce_to: tuple[int, int] | None = None,
        nvjpeg: Nvjpeg | None = None,
        threads: int = 1,
        checked_1_in: int = CHECKED_1_IN,
        opencv: Callable[..., Decoded] | None = None,
    ) -> None:
        self._device = device
        self._channels = channels
        self._max_pixels = max_pixels
        self._reduce_to = reduce_to
        self._nvjpeg = nvjpeg
        self._threads = threads
        self._checked_1_in = checked_1_in
        self._opencv = opencv or decode

    def __call__(
        self, files: Sequence[bytes], digests: Sequence[bytes], begin: Callable[[int], None] = lambda place: None
    ) -> list[DeviceImage | Failure]:
        """Decode some files; each by itself, whatever the others are.

        Parameters
        ----------
        files : whole files of any format
        digests : `canonical.digest_of` each
        begin : told of the place of each file that OpenCV is given, at once: such a one may kill the process

        Returns
        -------
        For each file its image, or at which stage ("decode" or "memory") and why it failed. A file that nvJPEG is to
        decode and cannot is a failure: OpenCV would give it other pixels than its kind gets.

        Raises
        ------
        DecoderUntrusted : nvJPEG gives wrong pixels for a file that is sound
        """
        jpegs = {place: jpeg for place, data in enumerate(files) if (jpeg := self._for_nvjpeg(data)) is not None}
        if not jpegs:  # no need for threads
            alone = [self._decode_with_opencv(data, functools.partial(begin, i)) for i, data in enumerate(files)]
            return [self._upload(decoded) for decoded in alone]
        checked = [place for place in jpegs if int.from_bytes(digests[place][:8]) % self._checked_1_in == 0]
        with ThreadPoolExecutor(self._threads) as pool:
            futures = {
                place: pool.submit(self._decode_with_opencv, data, functools.partial(begin, place))
                for place, data in enumerate(files)
                if place not in jpegs or place in checked
            }
            results = dict(zip(jpegs, self._decode_with_nvjpeg(list(jpegs.values())), strict=True))
        decoded = {place: future.result() for place, future in futures.items()}
        expected = {place: image for place in checked if isinstance(image := decoded[place], Decoded)}
        if any(_apart(results[place], image) > TOLERANCE for place, image in expected.items()):
            for place, jpeg in jpegs.items():  # where one is wrong, any of its neighbours may be
                results[place] = self._decode_with_nvjpeg([jpeg])[0]
            for place, image in expected.items():
                if (apart := _apart(results[place], image)) > TOLERANCE:
                    results[place] = self._blame(jpegs[place], image, apart, digests[place])
        return [results[place] if place in jpegs else self._upload(decoded[place]) for place in range(len(files))]

    def _for_nvjpeg(self, data: bytes) -> BareJpeg | None:
        if self._nvjpeg is None:
            return None
        return jpeg_for_nvjpeg(data, max_pixels=self._max_pixels, reduce_to=self._reduce_to)

    def _decode_with_nvjpeg(self, jpegs: list[BareJpeg]) -> list[DeviceImage | Failure]:
        images = self._nvjpeg(jpegs) if self._nvjpeg is not None else []
        return [
            image
            if isinstance(image, Failure)
            else DeviceImage(upright(image, jpeg.header.orientation), jpeg.header.upright_hw, jpeg.notes, NVJPEG)
            for jpeg, image in zip(jpegs, images, strict=True)
        ]

    def on_host(self, data: bytes, reader: str) -> DeviceImage | Failure:
        """Decode one file without nvJPEG, in a way that a manifest has recorded."""
        return self._upload(self._decode_with_opencv(data, lambda: None, reader=reader))

    def _decode_with_opencv(self, data: bytes, begin: Callable[[], None], **how: Any) -> Decoded | Failure:
        begin()
        try:
            return self._opencv(
                data, channels=self._channels, max_pixels=self._max_pixels, reduce_to=self._reduce_to, **how
            )
        except SourceError as error:
            return Failure(error.stage, error.reason)

    def _upload(self, decoded: Decoded | Failure) -> DeviceImage | Failure:
        if isinstance(decoded, Failure):
            return decoded
        image = torch.from_numpy(decoded.image).to(self._device).permute(2, 0, 1)
        return DeviceImage(image, decoded.source_hw, decoded.notes, decoded.reader)

    def _blame(self, jpeg: BareJpeg, expected: Decoded, apart: float, digest: bytes) -> Failure:
        """nvJPEG disagrees with OpenCV: over a damaged file it may, over a sound one of the same picture it may not.

        Raises
        ------
        DecoderUntrusted : it does over the sound one, too
        """
        pixels = expected.image if jpeg.header.channels == 3 else expected.image[..., 0]  # red for blue does no harm
        data = cv2.imencode(".jpg", pixels, (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, jpeg.sampling))[1].tobytes()
        sound = jpeg_for_nvjpeg(data, max_pixels=self._max_pixels)
        assert sound is not None, "OpenCV writes sequential JPEGs"
        result = self._decode_with_nvjpeg([sound])[0]
        found = f"{apart:.0f} levels on average, up to {TOLERANCE:.0f} expected"
        if isinstance(result, DeviceImage) and _apart(result, decode(data, channels=self._channels)) <= TOLERANCE:
            return Failure("decode", f"JPEG data is damaged: nvJPEG and OpenCV decode it differently ({found})")
        raise DecoderUntrusted(
            f"nvJPEG on {self._device} gives wrong pixels for the image with digest {digest.hex()}, also when it is "
            f"decoded alone: OpenCV's differ by {found}; update the driver, torch and torchvision, or build with "
            "--device cpu"
        )


def upright(image: torch.Tensor, orientation: int) -> torch.Tensor:
    """Turn stored pixels (C, h, w) the way their EXIF orientation, 1..8, says, as `decode.upright` does."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    flipped = {2: (2,), 3: (1, 2), 4: (1,), 6: (2,), 7: (1, 2), 8: (1,)}.get(orientation)
    return image.flip(flipped) if flipped else image


def difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Mean absolute difference of the means of 16 x 16 pixels, over all channels, of two uint8 (H, W, C), in levels.

    How chroma was enlarged hardly shows in such means. It still does where it takes values out of 0..255.
    """
    height, width = expected.shape[:2]
    size = (-(-width // _BLOCK), -(-height // _BLOCK))
    means = [cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.int16) for image in (found, expected)]
    return float(np.abs(means[0] - means[1]).mean())


def _apart(result: DeviceImage | Failure, expected: Decoded) -> float:
    if isinstance(result, Failure):
        return 0.0  # nothing wrong is claimed
    return difference(np.ascontiguousarray(result.image.permute(1, 2, 0).cpu().numpy()), expected.image)
