"""What all copies of a dataset know, whichever process they are in: workers that are there already see it change."""

import os

import torch

_NOT_SET = -1
_EPOCH, _WARNED, _WORKERS = 0, 1, 2
_PLACES = 64


class Shared:
    """A few integers in shared memory; survives fork and pickling to another process of this run."""

    def __init__(self) -> None:
        self._values = torch.zeros(_WORKERS + _PLACES, dtype=torch.int64, device="cpu").share_memory_()
        self._values[_EPOCH] = _NOT_SET
        self._entered = 0

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
