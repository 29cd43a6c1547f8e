"""A time budget that is shared out while it is spent."""

import time


class Clock:
    """Counts down from `seconds`; what one part leaves over, the next ones get."""

    def __init__(self, seconds: float) -> None:
        self._began = time.monotonic()
        self._seconds = seconds

    def spent_s(self) -> float:
        return time.monotonic() - self._began

    def left_s(self) -> float:
        """Below 0 if more was spent than there was."""
        return self._seconds - self.spent_s()

    def part(self, share: float, least_s: float, most_s: float) -> float:
        """A share of what is left, within bounds: a figure needs its least time even if there is none left."""
        return min(most_s, max(least_s, share * self.left_s()))
