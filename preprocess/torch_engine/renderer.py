"""Renders files in batches: decode, decide, compile, run. The torch engine's counterpart of `render.Renderer`."""

import functools
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import torch

from cache_store.canonical import digest_of
from preprocess.augment import Pipeline, random_state
from preprocess.clock import DECODE, READ, RENDER, StageClock
from preprocess.decode import MAX_PIXELS
from preprocess.errors import SourceError
from preprocess.header import read_header
from preprocess.jobs import Failure
from preprocess.readers import NVJPEG
from preprocess.render import (
    DECODER,
    DECODERS,
    Chunk,
    File,
    Finished,
    Rendered,
    Stored,
    check_result,
    decoder_of,
    refused,
)
from preprocess.rendering import Rendering
from preprocess.torch_engine.decoder import Decoder, DeviceImage
from preprocess.torch_engine.faults import is_lost, short_of_memory
from preprocess.torch_engine.finishing import Finisher
from preprocess.torch_engine.images import Images, batched, some
from preprocess.torch_engine.nvjpeg import Nvjpeg, library
from preprocess.torch_engine.programs import Program, program_of, run
from preprocess.torch_engine.staging import Staged, Staging

T = TypeVar("T")

BATCH_FILES = 64
BATCH_PIXELS = 32_000_000
"""Most pixels of a batch's images; with what fills them up to a common size, twice as many. A larger one goes alone."""

GPU_BATCH_FILES, GPU_BATCH_PIXELS = 512, 128_000_000
"""Most of a batch on a GPU: nvJPEG and kernels alike want many images at a time."""

BATCH_BYTES = 256 << 20
"""Most that is stored of one variant of each file of a batch; several such are in memory at a time."""

_GPU_BYTES_A_PIXEL = 32
"""What a pixel of a batch may need of a GPU's memory, at the most that was reckoned with; where that is too little, the
batch is halved."""


class TorchRenderer:
    """Renders images of one rendering on one device; the pixels of each are its own, whatever it shares a batch with.

    Parameters
    ----------
    rendering : its engine says which device and which decoder; its statistics may be open
    decoder : import path of the function that decodes what nvJPEG does not
    max_pixels : as for `Renderer`
    device, nvjpeg : in place of those of the engine
    clock : told which stage `render` is at

    Raises
    ------
    UsageError : there is no nvJPEG here, and the engine needs it
    """

    def __init__(
        self,
        rendering: Rendering,
        decoder: str = DECODER,
        max_pixels: int = MAX_PIXELS,
        *,
        device: torch.device | None = None,
        nvjpeg: Nvjpeg | None = None,
        clock: StageClock | None = None,
    ) -> None:
        self.rendering = rendering
        self._clock = clock or StageClock()
        on_gpu = rendering.engine.startswith("nvjpeg")
        self._device = device or torch.device("cuda" if on_gpu else "cpu")
        if on_gpu and nvjpeg is None:
            nvjpeg = Nvjpeg(library(self._device, rendering.channels), self._device, rendering.channels)
        self._decoder = Decoder(
            self._device,
            channels=rendering.channels,
            max_pixels=max_pixels,
            reduce_to=rendering.size_hw if rendering.reduced else None,
            nvjpeg=nvjpeg,
            opencv=decoder_of(rendering, decoder),
        )
        self._pipeline = Pipeline(rendering.transforms, max(max_pixels, rendering.pixels))
        self._finisher = Finisher(rendering, self._device)
        self._staging = Staging(self._device)

    # -- one image ----------------------------------------------------------------------------------------------------

    def decode(self, data: bytes, reader: str | None = None) -> DeviceImage:
        """As `Renderer.decode`; the image is on the device."""
        if reader in (None, NVJPEG):
            (result,) = self._decoder([data], [digest_of(data)])
        else:
            result = self._decoder.on_host(data, reader)
        if isinstance(result, Failure):
            raise SourceError(result.stage, result.reason)
        return result

    def pixels(self, image: torch.Tensor | np.ndarray, digest: bytes, variant: int) -> np.ndarray:
        """One variant of an image that `decode` gave, or of uint8 (H, W, C): uint8 (H, W, C).

        Raises
        ------
        SourceError : a transform refuses the image, or its result has the wrong size
        """
        if isinstance(image, np.ndarray):
            image = torch.from_numpy(np.array(image.transpose(2, 0, 1), order="C")).to(self._device)
        (result,) = self._variants([Images.of([image])], [digest], [variant], _on_host)
        if isinstance(result, SourceError):
            raise result
        return np.ascontiguousarray(result.transpose(1, 2, 0))

    def transforms_ns(self) -> tuple[int, ...]:
        """Nothing: images go through transforms in batches, which the device does when it comes to them."""
        return ()

    def is_lost(self) -> bool:
        """Whether nothing can be rendered any more in this process, as it can use the device no more."""
        return is_lost(self._device)

    # -- batches ------------------------------------------------------------------------------------------------------

    def render(self, files: Iterable[File], begin: Callable[[int], None]) -> Iterator[Rendered | Finished]:
        """`Renderer.render` in batches; `begin` is told of each file that is read, then of the batch's first."""
        for result in self._results(files, begin, _on_host):
            if isinstance(result, Finished):
                yield result
            else:
                file, variant, image, planes = result
                yield Rendered(file.place, variant, planes, image.source_hw, DECODERS.index(image.decoder))

    def stored(self, files: Iterable[File | None], begin: Callable[[int], None]) -> Iterator[Stored | Finished]:
        """`Renderer.stored` in batches: sums and normalisation are the device's work, and chunks come from it while it
        goes on. Each is to be released, by whatever thread, for others to follow; it stays valid till then. While it
        waits for that, `begin` has been told of -1, no file."""

        def await_room() -> None:
            begin(-1)
            self._staging.await_room()

        for result in self._results(files, begin, self._stage, await_room):
            if isinstance(result, Finished):
                yield result
            else:
                file, variant, image, (fetch, release) = result
                decoder = DECODERS.index(image.decoder)
                yield Stored(file.place, variant, image.source_hw, decoder, fetch, release)

    def _stage(self, planes: torch.Tensor) -> list[tuple[Callable[[], Chunk], Callable[[], None]]]:
        """How to fetch and to release the chunk of each image of uint8 (n, C, H, W)."""
        chunks, sums = self._finisher(planes)
        staged = self._staging.copy([chunks, sums], len(planes))
        return [(functools.partial(_chunk_of, staged, place), staged.release) for place in range(len(planes))]

    def _results(
        self,
        files: Iterable[File | None],
        begin: Callable[[int], None],
        deliver: Callable[[torch.Tensor], Sequence[T]],
        await_room: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[File, int, DeviceImage, T] | Finished]:
        """Each variant of each file, as `deliver` gives it of uint8 (n, C, H, W); `await_room` comes before each."""
        most_files, most_pixels = limits(self._device, self.rendering.chunk_bytes)
        batch: list[tuple[File, bytes]] = []
        pixels = 0
        for file in files:
            if file is None:
                if batch:
                    yield from self._render(batch, begin, deliver, await_room)
                batch, pixels = [], 0
                continue
            begin(file.place)
            self._clock.enter(READ)
            try:
                data = file.read()
            except SourceError as error:
                yield Finished(file.place, error)
                continue
            own = _pixels_of(data)
            if len(batch) == most_files or (batch and pixels + own > most_pixels):
                yield from self._render(batch, begin, deliver, await_room)
                batch, pixels = [], 0
            batch.append((file, data))
            pixels += own
        if batch:
            yield from self._render(batch, begin, deliver, await_room)

    def _render(
        self,
        batch: Sequence[tuple[File, bytes]],
        begin: Callable[[int], None],
        deliver: Callable[[torch.Tensor], Sequence[T]],
        await_room: Callable[[], None],
    ) -> Iterator[tuple[File, int, DeviceImage, T] | Finished]:
        begin(batch[0][0].place)
        self._clock.enter(DECODE)
        all_decoded = self._decode(batch, begin)
        if all_decoded is None:
            middle = len(batch) // 2
            yield from self._render(batch[:middle], begin, deliver, await_room)
            yield from self._render(batch[middle:], begin, deliver, await_room)
            return
        results, batches, order = all_decoded
        decoded: list[tuple[File, DeviceImage]] = []
        for (file, _), result in zip(batch, results, strict=True):
            if isinstance(result, Failure):
                yield Finished(file.place, SourceError(result.stage, result.reason))
            else:
                decoded.append((file, result))
        if not decoded:
            return
        decoded = [decoded[place] for place in order]
        whole = np.ones(len(decoded), bool)
        for turn in range(max(len(file.variants) for file, _ in decoded)):
            wants = np.array([len(file.variants) > turn for file, _ in decoded])
            places = np.flatnonzero(whole & wants)
            if not len(places):
                break
            self._clock.stop()
            await_room()
            begin(decoded[places[0]][0].place)
            self._clock.enter(RENDER)
            files = [decoded[place][0] for place in places]
            rendered = self._variants(
                some(batches, places),
                [file.digest for file in files],
                [file.variants[turn] for file in files],
                deliver,
            )
            self._clock.stop()
            for place, file, outcome in sorted(
                zip(places, files, rendered, strict=True), key=lambda each: order[each[0]]
            ):
                if isinstance(outcome, SourceError):
                    whole[place] = False
                    yield Finished(file.place, outcome)
                else:
                    yield file, file.variants[turn], decoded[place][1], outcome
        for place in sorted(np.flatnonzero(whole), key=order.__getitem__):
            file, image = decoded[place]
            yield Finished(file.place, notes=image.notes)

    def _decode(
        self, batch: Sequence[tuple[File, bytes]], begin: Callable[[int], None]
    ) -> tuple[list[DeviceImage | Failure], list[Images], list[int]] | None:
        """Each file's image or why there is none, and all images in `batched`; None if memory is short for so many."""
        decoded = self._try_to_decode(batch, begin)
        if not any(isinstance(result, Failure) and result.stage == "memory" for result in decoded[0]):
            return decoded
        if self._staging.let_go():
            del decoded  # what there is of it takes memory, too
            return self._decode(batch, begin)  # once: there is nothing more to let go of
        return decoded if len(batch) == 1 else None

    def _try_to_decode(
        self, batch: Sequence[tuple[File, bytes]], begin: Callable[[int], None]
    ) -> tuple[list[DeviceImage | Failure], list[Images], list[int]]:
        digests = [file.digest for file, _ in batch]
        try:
            results = self._decoder([data for _, data in batch], digests, lambda number: begin(batch[number][0].place))
            images = [result.image for result in results if isinstance(result, DeviceImage)]
            return results, *(batched(images) if images else ([], []))
        except RuntimeError as error:
            if not short_of_memory(error):
                raise
            return [Failure("memory", "not enough memory on the device to decode it")] * len(batch), [], []

    def _variants(
        self,
        batches: Sequence[Images],
        digests: Sequence[bytes],
        variants: Sequence[int],
        deliver: Callable[[torch.Tensor], Sequence[T]],
    ) -> list[T | SourceError]:
        """One variant of each image, delivered, or why there is none."""
        sizes = [(height, width) for batch in batches for height, width in batch.sizes.tolist()]
        programs = [
            self._program(hw, digest, variant) for hw, digest, variant in zip(sizes, digests, variants, strict=True)
        ]
        sound = {place: program for place, program in enumerate(programs) if not isinstance(program, SourceError)}
        places = np.array(list(sound), np.int64)
        results = iter(self._run(some(batches, places), list(sound.values()), deliver) if sound else ())
        return [program if isinstance(program, SourceError) else next(results) for program in programs]

    def _program(self, hw: tuple[int, int], digest: bytes, variant: int) -> Program | SourceError:
        channels = self.rendering.shape[0]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                steps = self._pipeline.decide((*hw, channels), random_state(self.rendering.seed, digest, variant))
            check_result(self.rendering, steps[-1].shape if steps else (*hw, channels), np.dtype(np.uint8))
            return program_of(steps, hw, channels)
        except SourceError as error:
            return error
        except Exception as error:  # a transform may refuse an image: this one is listed
            return refused(error)

    def _run(
        self,
        batches: Sequence[Images],
        programs: Sequence[Program],
        deliver: Callable[[torch.Tensor], Sequence[T]],
    ) -> Sequence[T | SourceError]:
        """Results of programs, delivered; of a batch that fails, as where memory is short, its halves.

        Raises
        ------
        RuntimeError : the device is lost
        """
        try:
            return deliver(torch.stack(run(batches, programs)))
        except torch.OutOfMemoryError:
            reason = SourceError("memory", "not enough memory on the device to render it")
        except Exception as error:  # of one image, as no other reaches its pixels
            if self.is_lost():
                raise
            reason = refused(error)
        if reason.stage == "memory" and self._staging.let_go():
            return self._run(batches, programs, deliver)  # once: there is nothing more to let go of
        if len(programs) == 1:
            return [reason]
        middle = len(programs) // 2
        places = np.arange(len(programs))
        return [
            *self._run(some(batches, places[:middle]), programs[:middle], deliver),
            *self._run(some(batches, places[middle:]), programs[middle:], deliver),
        ]


def own_gpu(number: int) -> torch.device:
    """The GPU of a worker process of this number, made torch's current one."""
    device = torch.device("cuda", number % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def limits(device: torch.device, chunk_bytes: int) -> tuple[int, int]:
    """Most files and most pixels of a batch. On a GPU, as many as its free memory holds several times over: decoded,
    filled up to a common size, and as what is computed of them.

    Parameters
    ----------
    chunk_bytes : what is stored of one variant of a file
    """
    most_files = max(1, BATCH_BYTES // chunk_bytes)
    if device.type != "cuda":
        return min(BATCH_FILES, most_files), BATCH_PIXELS
    free_bytes, _ = torch.cuda.mem_get_info(device)
    return min(GPU_BATCH_FILES, most_files), max(BATCH_PIXELS, min(GPU_BATCH_PIXELS, free_bytes // _GPU_BYTES_A_PIXEL))


def _on_host(planes: torch.Tensor) -> list[np.ndarray]:
    return list(planes.cpu().numpy())


def _chunk_of(staged: Staged, place: int) -> Chunk:
    chunks, sums = staged.arrays()
    total, total_of_squares = (tuple(values) for values in sums[place].tolist())
    return Chunk(chunks[place], total, total_of_squares)


def _pixels_of(data: bytes) -> int:
    """Of a file whose header we do not read so many that it goes alone."""
    header = read_header(data)
    return header.upright_hw[0] * header.upright_hw[1] if header is not None else BATCH_PIXELS
