"""Which engine renders a split, and where: a decoder and a renderer. Imports torch only where a GPU may be.

opencv          OpenCV decodes, Albumentations renders, both on the CPU
nvjpeg+torch    nvJPEG decodes what it can, torch renders, both on the GPU
opencv+torch    the same renderer on the CPU: slow, and what the GPU is held against
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from preprocess import environment
from preprocess.clock import StageClock
from preprocess.errors import PixelsWouldDiffer, UsageError
from preprocess.render import DECODER, File, Finished, Rendered, Renderer, Stored
from preprocess.rendering import IN_WORDS, NVJPEG, OPENCV, TORCH, Rendering

OF_DEVICE = {"cpu": OPENCV, "cuda": NVJPEG, "torch-cpu": TORCH}
"""What `--device` asks for."""

DEVICES = ("auto", *OF_DEVICE)


class AnyRenderer(Protocol):
    """What all engines have in common; see `render.Renderer`."""

    rendering: Rendering

    def decode(self, data: bytes, reader: str | None = None) -> Any: ...

    def pixels(self, image: Any, digest: bytes, variant: int) -> np.ndarray: ...

    def render(self, files: Iterable[File], begin: Callable[[int], None]) -> Iterator[Rendered | Finished]: ...

    def stored(self, files: Iterable[File | None], begin: Callable[[int], None]) -> Iterator[Stored | Finished]: ...

    def transforms_ns(self) -> tuple[int, ...]: ...

    def is_lost(self) -> bool: ...


def renderer_of(
    rendering: Rendering,
    decoder: str = DECODER,
    max_pixels: int = 179_000_000,
    clock: StageClock | None = None,
    number: int | None = None,
) -> AnyRenderer:
    """A renderer of the rendering's own engine; other arguments as for `Renderer`.

    Parameters
    ----------
    number : of the worker process whose renderer this is: processes share several GPUs out by it, and one becomes this
        process's own. None: torch's current one

    Raises
    ------
    UsageError : the engine is not known, or its device or decoder is not here
    """
    if rendering.engine == OPENCV:
        return Renderer(rendering, decoder, max_pixels, clock)
    if rendering.engine not in IN_WORDS:
        raise UsageError(f"engine {rendering.engine!r} is not known to this version of decant; install a newer one")
    if rendering.engine == NVJPEG and environment.gpu() is None:
        raise UsageError(f"{IN_WORDS[NVJPEG]} are needed, and torch finds no CUDA device here; see: decant doctor")
    from preprocess.torch_engine.renderer import TorchRenderer, own_gpu

    device = own_gpu(number) if rendering.engine == NVJPEG and number is not None else None
    return TorchRenderer(rendering, decoder, max_pixels, device=device, clock=clock)


def choose(
    name: str, rendering: Rendering, device: str, same: Rendering | None, kept: str | None, *, rerender: bool
) -> tuple[str, list[str]]:
    """The engine of a split, and what there is to say about it.

    Parameters
    ----------
    name : of the split
    rendering : with whatever engine
    device : one of `DEVICES`; auto: as the tensors that are there; for a new cache the GPU if there is one
    same : stored tensors that differ from the rendering in nothing but what made them, if there are any
    kept : the engine of the cache, if it has any tensors
    rerender : new tensors beside the old are wanted

    Raises
    ------
    UsageError : there is no such device here
    PixelsWouldDiffer : `same` was made by another engine than is asked for, or by one that is not here
    """
    wanted = OF_DEVICE.get(device)
    has_gpu = wanted in (None, NVJPEG) and environment.gpu() is not None  # asking may import torch
    if wanted == NVJPEG and not has_gpu:
        raise UsageError("device 'cuda': torch finds no CUDA device on this machine; use auto or cpu")
    notes = []
    if wanted is None:
        wanted = (same.engine if same is not None else kept) or (NVJPEG if has_gpu else OPENCV)
        if wanted == NVJPEG and not has_gpu:
            if same is not None and not rerender:
                raise PixelsWouldDiffer(
                    f"split {name!r}: its tensors were made by {IN_WORDS[NVJPEG]}, and there is no CUDA device here; "
                    "either build where there is one, or build with --device cpu --rerender (new tensors beside the "
                    "old)"
                )
            wanted = OPENCV
        elif wanted != NVJPEG and has_gpu:
            notes.append(
                f"split {name!r} is rendered by {IN_WORDS.get(wanted, wanted)}, as the cache's tensors were; "
                "--device cuda --rerender makes new ones on the GPU"
            )
    if wanted != OPENCV and (transform := lacking(rendering)) is not None:
        notes = [f"split {name!r} is rendered by {IN_WORDS[OPENCV]}: torch does not render {transform}"]
        wanted = OPENCV
    if same is not None and same.engine != wanted and not rerender:
        raise PixelsWouldDiffer(
            f"split {name!r}: --device {device} renders with {IN_WORDS[wanted]}, its tensors were made by "
            f"{IN_WORDS.get(same.engine, same.engine)}; either build with --device auto (the same engine again), or "
            "with --rerender (new tensors beside the old)"
        )
    return wanted, notes


def lacking(rendering: Rendering) -> str | None:
    """The first transform of a recipe that torch does not render, by name; None if it renders them all."""
    from preprocess.torch_engine.programs import first_unsupported

    return first_unsupported(rendering.transforms, rendering.shape[0])
