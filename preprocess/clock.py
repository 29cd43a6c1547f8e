"""Where a worker's time goes: each moment belongs to the stage that was entered last."""

import time

import numpy as np

STAGES = ("read", "decode", "render", "write", "normalise")
"""read: the file's bytes and their digest · decode · render: all transforms · write: table, sums, checksum, shard ·
normalise: finished tensors written anew with other statistics."""

READ, DECODE, RENDER, WRITE, NORMALISE = range(len(STAGES))


class StageClock:
    """Adds up time by stage; entering a stage takes less than a microsecond.

    Parameters
    ----------
    spent_ns : int64 (len(STAGES),), where times are kept; memory of its own unless given
    """

    def __init__(self, spent_ns: np.ndarray | None = None) -> None:
        self.spent_ns = np.zeros(len(STAGES), np.int64) if spent_ns is None else spent_ns
        self._stage = -1
        self._since = 0

    def enter(self, stage: int) -> None:
        """What comes now belongs to `stage`; what came before belongs to the stage before."""
        now = time.monotonic_ns()
        if self._stage >= 0:
            self.spent_ns[self._stage] += now - self._since
        self._stage, self._since = stage, now

    def stop(self) -> None:
        """What comes now belongs to no stage."""
        self.enter(-1)

    def take(self) -> tuple[int, ...]:
        """Nanoseconds by stage since the last time; the clock is stopped."""
        self.stop()
        spent = tuple(self.spent_ns.tolist())
        self.spent_ns[:] = 0
        return spent


def by_stage(spent_ns: np.ndarray) -> dict[str, float]:
    """Stage -> seconds, of int64 (len(STAGES),) nanoseconds."""
    return dict(zip(STAGES, (spent_ns / 1e9).tolist(), strict=True))
