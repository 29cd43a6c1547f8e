"""From the device to the host while the device goes on: pinned buffers, and a stream of its own for the copies.

On the CPU the same code runs: its buffers are plain memory, and a copy is over when it returns.

Whose memory it is, and how long:

- What is copied from stays allocated until the copy is over, as `Staged` holds it till then, and until somebody has
  fetched it or needs the memory. So no later tensor, and no image that nvJPEG writes from a stream of its own, can come
  to lie in it.
- What is copied to is used again only after each of its readers has said that it is done.
"""

import contextlib
import threading
from collections.abc import Sequence

import numpy as np
import torch

_DEPTH = 3
"""Batches on their way at a time: one is written, one is copied, one is computed."""


class Staging:
    """Buffers for batches on their way to the disk; given by one thread, read and returned by one other, or the same.

    Parameters
    ----------
    device : where batches come from
    """

    def __init__(self, device: torch.device) -> None:
        self._pinned = device.type == "cuda"
        self._device = device
        self._stream = torch.cuda.Stream(device) if self._pinned else None
        self._free: list[torch.Tensor] = []
        self._out: set[Staged] = set()
        self._changed = threading.Condition()

    def await_room(self) -> None:
        """Wait until fewer than `_DEPTH` batches are on their way; before a batch is computed, not in the midst of it:
        what has not been handed over can be returned by nobody."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._out) < _DEPTH)

    def copy(self, tensors: Sequence[torch.Tensor], readers: int) -> "Staged":
        """Start to copy tensors of a device to the host, behind what the current stream was given so far.

        Parameters
        ----------
        readers : how often `Staged.release` will be called
        """
        tensors = [tensor.contiguous() for tensor in tensors]
        buffer = self._buffer(sum(_room(tensor) for tensor in tensors))
        host, start = [], 0
        for tensor in tensors:
            part = buffer[start : start + tensor.nbytes]
            host.append(part.view(tensor.dtype).view(tensor.shape))
            start += _room(tensor)
        event = None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream) if self._stream is not None else contextlib.nullcontext():
            for target, tensor in zip(host, tensors, strict=True):
                target.copy_(tensor, non_blocking=True)
            if self._stream is not None:
                event = self._stream.record_event()
        staged = Staged(self, buffer, host, tensors, event, readers)
        with self._changed:
            self._out.add(staged)
        return staged

    def let_go(self) -> bool:
        """Wait for all copies, and let go of what they were made from, which is memory of the device; whether there was
        any.

        Raises
        ------
        RuntimeError : the device is broken
        """
        with self._changed:
            out = list(self._out)
        return sum(staged.let_go() for staged in out) > 0

    def _buffer(self, least_bytes: int) -> torch.Tensor:
        """One that is free and large enough, or a new one: uint8 (bytes,)."""
        with self._changed:
            while self._free:
                buffer = self._free.pop()
                if len(buffer) >= least_bytes:
                    return buffer
        return torch.empty(least_bytes, dtype=torch.uint8, device="cpu", pin_memory=self._pinned)

    def take_back(self, staged: "Staged", buffer: torch.Tensor) -> None:
        with self._changed:
            self._out.discard(staged)
            if len(self._free) < _DEPTH:
                self._free.append(buffer)
            self._changed.notify_all()


class Staged:
    """Tensors that are being copied to the host."""

    def __init__(
        self,
        staging: Staging,
        buffer: torch.Tensor,
        host: list[torch.Tensor],
        sources: list[torch.Tensor],
        event: "torch.cuda.Event | None",
        readers: int,
    ) -> None:
        self._staging, self._buffer, self._host = staging, buffer, host
        self._sources, self._event, self._readers = sources, event, readers

    def arrays(self) -> list[np.ndarray]:
        """All of them on the host, once they are there; valid until the last reader has released them.

        Raises
        ------
        RuntimeError : the device is broken
        """
        self.let_go()
        return [tensor.numpy() for tensor in self._host]

    def let_go(self) -> bool:
        """Wait for the copy, and let go of what it was made from; whether there was anything. Any thread may do so."""
        event, sources = self._event, self._sources
        if event is not None:
            event.synchronize()
        self._event, self._sources = None, []
        return bool(sources)

    def release(self) -> None:
        """One reader is done."""
        self._readers -= 1
        if not self._readers:
            try:
                self.let_go()  # if nobody has looked, the copy may still be under way
            finally:  # a device that is broken must not keep others waiting
                self._staging.take_back(self, self._buffer)


def _room(tensor: torch.Tensor) -> int:
    """Bytes in a buffer, such that what follows is aligned."""
    return -(-tensor.nbytes // 64) * 64
