"""What all copies of a dataset know, whichever process they are in: workers that are there already see it change."""

import os
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch

_NOT_SET = -1
_EPOCH, _WARNED, _WORKERS = 0, 1, 2
_PLACES = 64


class Shared:
    """A few integers in shared memory, which processes of this run share by fork, and by being sent to one another.

    A copy or an unpickled dataset is another one: it begins with the epoch, and shares nothing.
    """

    def __init__(self, epoch: int = _NOT_SET) -> None:
        self._values = torch.zeros(_WORKERS + _PLACES, dtype=torch.int64, device="cpu").share_memory_()
        self._values[_EPOCH] = epoch
        self._entered = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"epoch": int(self._values[_EPOCH])}

    def __setstate__(self, state: dict[str, Any]) -> None:
        values = state.get("_values")  # what a former version pickled
        self.__init__(state["epoch"] if values is None else int(values[_EPOCH]))  # type: ignore[misc]

    @property
    def epoch(self) -> int | None:
        """The epoch that was set last; None: none yet."""
        epoch = int(self._values[_EPOCH])
        return None if epoch == _NOT_SET else epoch

    @epoch.setter
    def epoch(self, epoch: int) -> None:
        self._values[_EPOCH] = epoch

    def first_warning(self, kind: int) -> bool:
        """Whether no process has given this warning yet (a power of two each); from now on one has."""
        given = int(self._values[_WARNED])
        self._values[_WARNED] = given | kind
        return not given & kind

    def enter_worker(self) -> None:
        """Note that this process is a worker that reads."""
        me = os.getpid()
        if self._entered == me:
            return
        self._entered = me
        # Two workers that take one place at the same moment lose one note; their numbers mostly differ by one.
        for step in range(_PLACES):
            place = _WORKERS + (me + step) % _PLACES
            if not _is_alive(int(self._values[place])):
                self._values[place] = me
                return

    def living_workers(self) -> list[int]:
        """Process numbers of workers that have read and have not ended."""
        return sorted(pid for pid in self._values[_WORKERS:].tolist() if _is_alive(pid))


def _sent(values: torch.Tensor) -> Shared:
    """The same in the process that was sent it."""
    shared = Shared.__new__(Shared)
    shared._values, shared._entered = values, 0
    return shared


def _send(shared: Shared) -> tuple[Callable[[torch.Tensor], Shared], tuple[torch.Tensor]]:
    return _sent, (shared._values,)


# It pickles what a starting process or a queue is given, and nothing else: copies and files go by __getstate__.
ForkingPickler.register(Shared, _send)


def _is_alive(pid: int) -> bool:
    if pid == 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
