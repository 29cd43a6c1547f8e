"""Batches on the device before training asks for them."""

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from cache_store.errors import UsageError
from loaders.background import Background
from loaders.consumer import Counter, FetchesAhead


def to_device(
    loader: Iterable[Any],
    device: str | torch.device,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    prefetch: int = 2,
) -> "DeviceLoader":
    """Iterate a loader with its batches on a device, fetched ahead by a thread.

    On CUDA a batch is copied from pinned memory on a stream of its own (batches that are pinned already are not pinned
    again), and converted on the device, where it costs no bandwidth of the link. On the CPU batches are fetched ahead
    and converted all the same. A loader without workers draws in the thread (variants, crops, flips); the iterator
    itself, with a DataLoader's seed, is made in the caller's.

    Parameters
    ----------
    loader : gives tensors, or lists, tuples and dicts of them; anything else in them is handed through
    device : where to
    dtype : of floating-point tensors; None: as they are
    memory_format : of tensors with four dimensions, such as torch.channels_last; None: as they are
    prefetch : batches fetched ahead, 1 or more

    Raises
    ------
    UsageError : an argument that cannot be meant
    """
    return DeviceLoader(loader, torch.device(device), dtype, memory_format, prefetch)


class DeviceLoader:
    """What `to_device` gives: as long as the loader, and iterable as often."""

    def __init__(
        self,
        loader: Iterable[Any],
        device: torch.device,
        dtype: torch.dtype | None,
        memory_format: torch.memory_format | None,
        prefetch: int,
    ) -> None:
        if prefetch < 1:
            raise UsageError(f"prefetch: 1 or more expected, found {prefetch}")
        if dtype is not None and not dtype.is_floating_point:
            raise UsageError(f"dtype: a floating-point type expected, found {dtype}")
        if device.type == "cuda" and not torch.cuda.is_available():
            raise UsageError(f"device {str(device)!r}: torch finds no CUDA device on this machine; use 'cpu'")
        self.loader = loader
        self._mover = _Mover(device, dtype, memory_format)
        self._prefetch = prefetch

    def __len__(self) -> int:
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        fetching = _Fetching(self.loader, self._mover, self._prefetch)
        try:
            yield from fetching.batches()
        finally:
            fetching.close()


class _Mover:
    """Moves and converts whatever a loader gives."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype | None, memory_format: torch.memory_format | None
    ) -> None:
        self._device, self._dtype, self._format = device, dtype, memory_format
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def move(self, batch: Any) -> tuple[Any, Any]:
        """The batch on the device, and the event after which it may be used (None: now); called by the thread."""
        if self._stream is None:
            return _map(batch, self._tensor), None
        with torch.cuda.stream(self._stream):
            moved = _map(batch, self._tensor)
            return moved, self._stream.record_event()

    def _tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        if self._stream is not None and tensor.device.type == "cpu" and not tensor.is_pinned():
            tensor = tensor.pin_memory()  # out of torch's own pool, which knows when a copy is done with it
        tensor = tensor.to(self._device, non_blocking=True)
        options: dict[str, Any] = {}
        if self._dtype is not None and tensor.is_floating_point():
            options["dtype"] = self._dtype
        if self._format is not None and tensor.dim() == 4:
            options["memory_format"] = self._format
        return tensor.to(**options) if options else tensor

    def hand_over(self, batch: Any, event: Any) -> Any:
        """Make the caller's stream wait for the batch; called by whoever trains."""
        if event is not None:
            stream = torch.cuda.current_stream(self._device)
            stream.wait_event(event)
            # Its memory is not used again before this stream is done with it.
            _map(batch, lambda tensor: tensor.record_stream(stream))
        return batch


class _Fetching(FetchesAhead):
    """One pass: a thread that fetches and moves, at most so many batches ahead."""

    def __init__(self, loader: Iterable[Any], mover: _Mover, prefetch: int) -> None:
        self.handed = Counter()  # before `iter`, which makes workers ask for indices
        self._source, self._mover = iter(loader), mover
        self._room = threading.Semaphore(prefetch)
        self._ready: queue.SimpleQueue[tuple[str, Any, Any]] = queue.SimpleQueue()
        self._over = threading.Event()
        self._thread = Background("decant-device", self._fetch, self._stop)

    def _fetch(self) -> None:
        try:
            while self._has_room():
                try:
                    batch = next(self._source)
                except StopIteration:
                    self._ready.put(("end", None, None))
                    return
                self._ready.put(("batch", *self._mover.move(batch)))
        except BaseException as error:  # handed to whoever waits for a batch
            self._ready.put(("error", error, None))

    def _has_room(self) -> bool:
        """Wait for room for one more batch; whether anybody wants it."""
        self._room.acquire()
        return not self._over.is_set()

    def batches(self) -> Iterator[Any]:
        while True:
            kind, value, event = self._ready.get()
            if kind == "end":
                return
            if kind == "error":
                raise value
            self.handed.count += 1
            self._room.release()
            yield self._mover.hand_over(value, event)

    def close(self) -> None:
        """End the thread, as soon as it has the batch that it is fetching."""
        self._stop()
        self._thread.join()

    def _stop(self) -> None:
        self._over.set()
        self._room.release()


def _map(value: Any, change: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map(each, change) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(each, change) for each in value))
    if isinstance(value, list | tuple):
        return type(value)(_map(each, change) for each in value)
    return value
