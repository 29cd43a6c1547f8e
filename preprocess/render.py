"""Bytes + rendering + variant -> pixels: decode, augment, normalise composed. No I/O.

A renderer belongs to one thread: it keeps its buffers, so that a million images allocate once.
"""

import contextlib
import importlib
import inspect
import re
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np

from cache_store.normalise import normalisation_table
from preprocess.augment import Pipeline, random_state
from preprocess.clock import DECODE, READ, RENDER, StageClock
from preprocess.errors import SourceError, UsageError
from preprocess.readers import DECODERS
from preprocess.rendering import Rendering, Statistics

DECODER = "preprocess.decode:decode"
"""Import path of the function that decodes, with the signature of `decode.decode`."""

_REASON_LENGTH = 300

_SHORT_OF_MEMORY = re.compile("out of memory|can't allocate memory")
"""What torch says where memory is short, in errors of no type of their own: the second of the host's memory, the first
of all else, memory of the host that is pinned for a device among it."""


@dataclass(frozen=True, slots=True)
class File:
    """One file that is to be rendered.

    Attributes
    ----------
    place : by which its results name it
    read : gives its bytes, or raises SourceError
    digest : of those bytes
    variants : which ones
    """

    place: int
    read: Callable[[], bytes]
    digest: bytes
    variants: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Rendered:
    """One variant of one file.

    Attributes
    ----------
    planes : uint8 (C, H, W), valid until the next one is asked for
    source_hw : height and width of the source, upright
    decoder : place in `readers.DECODERS`
    """

    place: int
    variant: int
    planes: np.ndarray
    source_hw: tuple[int, int]
    decoder: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is stored of one variant.

    Attributes
    ----------
    tensor : float16 (C, H, W) for a rendering with statistics, otherwise uint8
    total, total_of_squares : of the 8-bit pixels, one exact integer a channel
    """

    tensor: np.ndarray
    total: tuple[int, ...]
    total_of_squares: tuple[int, ...]


def _nothing() -> None: ...


@dataclass(frozen=True, slots=True)
class Stored:
    """One variant of one file, as it goes to the disk; the other attributes are those of `Rendered`.

    Attributes
    ----------
    fetch : gives the chunk, when there is one: it may wait for a device, or do the rest of the work
    release : to be called when the chunk is needed no more, whether or not it was fetched
    """

    place: int
    variant: int
    source_hw: tuple[int, int]
    decoder: int
    fetch: Callable[[], Chunk]
    release: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class Finished:
    """Nothing more comes of a file.

    Attributes
    ----------
    error : why it cannot be used; then variants of it that came before are to be forgotten
    notes : as in `decode.Decoded`
    """

    place: int
    error: SourceError | None = None
    notes: tuple[str, ...] = ()


class Renderer:
    """Renders images of one rendering.

    Parameters
    ----------
    rendering : its statistics may be open; `pixels` needs none
    decoder : import path of the decode function
    max_pixels : cap on a source's size, and on what transforms make of it; the rendering's own size is always allowed
    clock : told which stage `render` is at
    """

    def __init__(
        self,
        rendering: Rendering,
        decoder: str = DECODER,
        max_pixels: int = 179_000_000,
        clock: StageClock | None = None,
    ) -> None:
        self.rendering = rendering
        self._clock = clock or StageClock()
        self._decode = decoder_of(rendering, decoder)
        self._max_pixels = max_pixels
        self._reduce_to = rendering.size_hw if rendering.reduced else None
        self._pipeline = Pipeline(rendering.transforms, max(max_pixels, rendering.pixels))
        self._planes = np.empty(rendering.shape, np.uint8)
        statistics = rendering.statistics
        self._normalise = Normaliser(statistics, rendering.shape) if statistics else None

    def render(self, files: Iterable[File], begin: Callable[[int], None]) -> Iterator[Rendered | Finished]:
        """All variants that are asked for of each file.

        Parameters
        ----------
        begin : told of the place of the file that is in hand, at every variant
        """
        for file in files:
            begin(file.place)
            try:
                self._clock.enter(READ)
                data = file.read()
                self._clock.enter(DECODE)
                decoded = self.decode(data)
                decoder = DECODERS.index(decoded.reader)
                for variant in file.variants:
                    begin(file.place)  # each variant is allowed its time
                    self._clock.enter(RENDER)
                    planes = to_planes(self.pixels(decoded.image, file.digest, variant), self._planes)
                    yield Rendered(file.place, variant, planes, decoded.source_hw, decoder)
            except SourceError as error:
                yield Finished(file.place, error)
            else:
                yield Finished(file.place, notes=decoded.notes)

    def stored(self, files: Iterable[File | None], begin: Callable[[int], None]) -> Iterator[Stored | Finished]:
        """`render`, with what is to be stored; each chunk is to be fetched before the next result is asked for.

        Parameters
        ----------
        files : None among them: no more for now; batches do not wait for it
        """
        for result in self.render((file for file in files if file is not None), begin):
            if isinstance(result, Rendered):
                fetch = partial(self._chunk, result.planes)
                yield Stored(result.place, result.variant, result.source_hw, result.decoder, fetch)
            else:
                yield result

    def _chunk(self, planes: np.ndarray) -> Chunk:
        return Chunk(planes if self._normalise is None else self._normalise(planes), *channel_sums(planes))

    def transforms_ns(self) -> tuple[int, ...]:
        """What each transform has taken since the last time, see `Pipeline.names`."""
        return self._pipeline.take_ns()

    def is_lost(self) -> bool:
        """Whether nothing can be rendered any more in this process: never without a device."""
        return False

    def decode(self, data: bytes, reader: str | None = None) -> Any:
        """A `decode.Decoded` whose image is read-only, so that no variant sees what another one did.

        Parameters
        ----------
        reader : as for `decode.decode`, for files that were read in a former way; None for a decoder of the user's

        Raises
        ------
        SourceError : not an image, damaged, or over the cap
        """
        how = {} if reader is None else {"reader": reader}
        decoded = self._decode(
            data, channels=self.rendering.channels, max_pixels=self._max_pixels, reduce_to=self._reduce_to, **how
        )
        decoded.image.flags.writeable = False
        return decoded

    def pixels(self, image: np.ndarray, digest: bytes, variant: int) -> np.ndarray:
        """One variant of a decoded image: uint8 (H, W, C).

        Raises
        ------
        SourceError : a transform refuses the image, or its result has the wrong size or type
        """
        state = random_state(self.rendering.seed, digest, variant)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                out = self._pipeline(image, state)
        except Exception as error:  # any transform may fail on any image: this one is listed
            raise refused(error) from error
        check_result(self.rendering, out.shape, out.dtype)
        return out


def short_of_memory(error: Exception) -> bool:
    """Whether an error says that memory is short, of the host or of a device: nothing about an image."""
    if isinstance(error, RuntimeError):
        return bool(_SHORT_OF_MEMORY.search(str(error)))
    return isinstance(error, MemoryError) or (isinstance(error, cv2.error) and error.code == cv2.Error.StsNoMem)


def refused(error: Exception) -> SourceError:
    """What a transform raised, as the reason why an image cannot be used."""
    if isinstance(error, SourceError):
        return error
    if short_of_memory(error):
        return SourceError("memory", "not enough memory to render it")
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return SourceError("render", text[:_REASON_LENGTH])


def check_result(rendering: Rendering, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise SourceError if transforms gave anything but uint8 (H, W, C) of the recipe's size."""
    channels, height, width = rendering.shape
    if dtype != np.uint8 or shape != (height, width, channels):
        raise SourceError(
            "render", f"uint8 ({height}, {width}, {channels}) expected, the transforms gave {dtype} {shape}"
        )


def channel_sums(planes: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Exact sum and sum of squares of each plane of uint8 (C, H, W), up to 2**28 pixels a plane.

    OpenCV's norm may take a square root and square it again: below 2**44 rounding brings the integer back.
    """
    total = tuple(int(cv2.sumElems(plane)[0]) for plane in planes)
    return total, tuple(round(cv2.norm(plane, cv2.NORM_L2SQR)) for plane in planes)


class Normaliser:
    """Applies a normalisation table to 8-bit planes, into a buffer of its own that the next call overwrites.

    Parameters
    ----------
    statistics : mean and std in 0..1
    shape : C, H, W
    """

    def __init__(self, statistics: Statistics, shape: tuple[int, int, int]) -> None:
        table = normalisation_table(*statistics)
        # OpenCV looks up 16-bit integers; the bits of a float16 are one.
        self._tables = [row.view(np.uint16).reshape(1, -1) for row in table]
        self._out = np.empty(shape, np.uint16)

    def __call__(self, planes: np.ndarray) -> np.ndarray:
        """uint8 (C, H, W) -> float16 (C, H, W)."""
        for plane, table, out in zip(planes, self._tables, self._out, strict=True):
            cv2.LUT(plane, table, dst=out)
        return self._out.view(np.float16)


def to_planes(pixels: np.ndarray, out: np.ndarray) -> np.ndarray:
    """uint8 (H, W, C) into `out`, uint8 (C, H, W)."""
    if len(out) == 1:
        out[0] = pixels[..., 0]
    else:
        cv2.split(pixels, list(out))
    return out


def decoder_of(rendering: Rendering, path: str) -> Callable[..., Any]:
    """The function that decodes, told what the rendering asks of it beyond what every decoder takes.

    Raises
    ------
    UsageError : there is no such function, or it does not take what the recipe says
    """
    function, arguments = resolve_decoder(path), rendering.decode_arguments
    if not arguments:
        return function
    taken = inspect.signature(function).parameters.values()
    for name in arguments:
        if not any(parameter.name == name or parameter.kind == parameter.VAR_KEYWORD for parameter in taken):
            raise UsageError(
                f"decoder {path!r}: takes no argument {name!r}, which the recipe's decode.{name} is for; add it to the "
                "function, or leave the key out"
            )
    return partial(function, **arguments)


@contextlib.contextmanager
def opencv_as_in_a_worker() -> Iterator[None]:
    """Turns on, for the block, OpenCV's one switch that changes pixels: the script of this process may have it off."""
    was_on = cv2.useOptimized()
    cv2.setUseOptimized(True)
    try:
        yield
    finally:
        cv2.setUseOptimized(was_on)


def resolve_decoder(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    try:
        function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"decoder {path!r}: an import path like {DECODER!r} expected ({error})") from error
    return function
