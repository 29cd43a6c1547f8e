"""nvJPEG through torchvision or torchcodec: decodes batches, in which one bad file costs only itself.

Both libraries fail a whole list for one bad file and do not name it, and have been seen to report success for an
image that was never written (`decoder` compares some with OpenCV for that).
"""

import functools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch

from preprocess.errors import UsageError
from preprocess.jobs import Failure
from preprocess.pictures import COLOUR
from preprocess.torch_engine.baseline import BareJpeg
from preprocess.torch_engine.faults import short_of_memory

DecodeJpegs = Callable[[list[torch.Tensor]], list[torch.Tensor]]
"""Encoded files, uint8 (bytes,) on the host -> images, uint8 (C, h, w) on a device, as stored; raises RuntimeError."""

BATCH_PIXELS = 64_000_000
"""Pixels in one call: 192 MB of RGB; more gains little."""

_REASON_LENGTH = 300

# Both pass NVJPEG_STATUS_ALLOCATOR_FAILURE (5) on as a number, and torchvision makes a RuntimeError of everything.
_ALLOCATOR_FAILURE = re.compile(": 5$", re.MULTILINE)


def library(device: torch.device, channels: str = "rgb") -> DecodeJpegs:
    """What `named_library` finds, without its name."""
    return named_library(device, channels)[1]


def named_library(device: torch.device, channels: str = "rgb") -> tuple[str, DecodeJpegs]:
    """nvJPEG from torchvision or, if that has none, from torchcodec (0.16 or newer), whichever works here.

    Parameters
    ----------
    device : a CUDA device; on the CPU the libraries decode with libjpeg, which serves to try this out
    channels : "rgb" or "gray"; a gray file becomes RGB, a colour file its luma

    Raises
    ------
    UsageError : neither decodes a built-in picture; the message says why
    """
    reasons = []
    for name, load in (("torchvision", _torchvision), ("torchcodec", _torchcodec)):
        try:
            decode = load(device, channels)
            decode([torch.frombuffer(bytearray(COLOUR), dtype=torch.uint8)])
        except (ImportError, OSError, RuntimeError) as error:
            reasons.append(f"{name}: {_line(error)}")
        else:
            return name, decode
    raise UsageError(
        f"no JPEG decoder for {device}: torchvision or torchcodec with nvJPEG expected, found {'; '.join(reasons)}; "
        "install one of them, or build with --device cpu"
    )


def _torchvision(device: torch.device, channels: str) -> DecodeJpegs:
    from torchvision.io import ImageReadMode, decode_jpeg

    mode = ImageReadMode.RGB if channels == "rgb" else ImageReadMode.GRAY

    def decode(files: list[torch.Tensor]) -> list[torch.Tensor]:
        with warnings.catch_warnings():
            message = "The image decoding and encoding capabilities of TorchVision are deprecated"
            warnings.filterwarnings("ignore", message, DeprecationWarning)  # since 0.29; torchcodec follows here
            images: list[torch.Tensor] = decode_jpeg(files, mode=mode, device=device)
        return images

    return decode


def _torchcodec(device: torch.device, channels: str) -> DecodeJpegs:
    from torchcodec.decoders import decode_jpeg

    return functools.partial(decode_jpeg, mode="RGB" if channels == "rgb" else "GRAY", device=device)


class Nvjpeg:
    """Decodes JPEGs in batches.

    Parameters
    ----------
    decode : from `library`
    device, channels : what `decode` was made for
    synchronise : called right before each decode; unless given, waits for the current CUDA stream: torchvision writes
        from a stream of its own into memory that queued kernels may still read (pytorch/vision#9606)
    batch_pixels : most pixels in one call, a single larger image apart
    """

    def __init__(
        self,
        decode: DecodeJpegs,
        device: torch.device,
        channels: str = "rgb",
        *,
        synchronise: Callable[[], None] | None = None,
        batch_pixels: int = BATCH_PIXELS,
    ) -> None:
        self._decode = decode
        self._channels = 3 if channels == "rgb" else 1
        self._synchronise = synchronise or functools.partial(_synchronise, device)
        self._batch_pixels = batch_pixels

    def __call__(self, jpegs: Sequence[BareJpeg]) -> list[torch.Tensor | Failure]:
        """Each image, uint8 (C, h, w) as stored, or why it cannot be had; in the order given."""
        return [result for batch in self._batches(jpegs) for result in self._halve(batch)]

    def _batches(self, jpegs: Sequence[BareJpeg]) -> Iterator[list[BareJpeg]]:
        batch: list[BareJpeg] = []
        room = self._batch_pixels
        for jpeg in jpegs:
            pixels = jpeg.header.height * jpeg.header.width
            if batch and pixels > room:
                yield batch
                batch, room = [], self._batch_pixels
            batch.append(jpeg)
            room -= pixels
        if batch:
            yield batch

    def _halve(self, jpegs: list[BareJpeg]) -> Sequence[torch.Tensor | Failure]:
        """A batch; if it fails, its halves, down to the file that is the cause, which is tried once more."""
        images = self._attempt(jpegs)
        if not isinstance(images, Failure):
            return images
        if len(jpegs) > 1:
            middle = len(jpegs) // 2
            return [*self._halve(jpegs[:middle]), *self._halve(jpegs[middle:])]
        torch.cuda.empty_cache()  # nvJPEG's own buffers are not torch's, and may lack what torch keeps
        images = self._attempt(jpegs)
        if not isinstance(images, Failure):
            return images
        self._synchronise()  # if it has broken the device, it is to be in hand when that is noticed
        return [images]

    def _attempt(self, jpegs: list[BareJpeg]) -> list[torch.Tensor] | Failure:
        files = [torch.frombuffer(jpeg.data, dtype=torch.uint8) for jpeg in jpegs]
        self._synchronise()  # raises for a broken device, which is no file's fault
        try:
            images = self._decode(files)
        except RuntimeError as error:
            if short_of_memory(error) or _ALLOCATOR_FAILURE.search(str(error)):
                return Failure("memory", "not enough GPU memory to decode it")
            return Failure("decode", f"nvJPEG: {_line(error)}")
        expected = [(self._channels, jpeg.header.height, jpeg.header.width) for jpeg in jpegs]
        found = [tuple(image.shape) for image in images]
        if found != expected:
            return Failure("decode", f"nvJPEG gave {found} for one image of {expected[0]}")
        return images


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()


def _line(error: Exception) -> str:
    """The first line of what an error says; the others are the C++ stack."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_REASON_LENGTH]
