"""Wall time by stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Timer:
    """Adds the wall time of blocks to their stages; a stage inside another one counts for itself alone.

    Attributes
    ----------
    seconds : stage -> s
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begun = time.monotonic()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun, others = time.monotonic(), sum(self.seconds.values())
        try:
            yield
        finally:
            inside = sum(self.seconds.values()) - others
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun - inside

    def total_s(self) -> float:
        """Since the timer was made."""
        return time.monotonic() - self._begun
