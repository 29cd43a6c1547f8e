"""How many images may fail before a build gives up."""

import itertools
import math
from dataclasses import dataclass

from preprocess.errors import FailureBudgetExceeded, UsageError
from preprocess.sources import Sources

_SHARE, _LEAST = 0.01, 10
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class FailureBudget:
    """A number of images, or a share like '1%'; unless set, the larger of 1 % and 10.

    Raises
    ------
    UsageError : neither a number nor a share
    """

    setting: int | str | None = None

    def __post_init__(self) -> None:
        self.allowed(0)

    def allowed(self, total: int) -> int:
        """Images of `total` that may fail."""
        if self.setting is None:
            return max(math.floor(total * _SHARE), _LEAST)
        text = str(self.setting).strip()
        try:
            if text.endswith("%") and 0 <= float(text[:-1]) <= 100:
                return math.floor(total * float(text[:-1]) / 100)
            if int(text) >= 0:
                return int(text)
        except ValueError:
            pass
        raise UsageError(f"max_failures: a number like 100 or a share like 1% expected, found {self.setting!r}")

    def check(self, sources: Sources) -> None:
        """Stop when more have failed than may.

        Raises
        ------
        FailureBudgetExceeded : the message shows the first few
        """
        failed, total = len(sources.failures), len(sources)
        allowed = self.allowed(total)
        if failed > allowed:
            raise FailureBudgetExceeded(
                f"{failed:,} of {total:,} images failed, the budget is {allowed:,}; nothing was committed. First:\n"
                + self.examples(sources)
                + "\nMend or remove them, or raise the budget with --max-failures N or N%"
            )

    def examples(self, sources: Sources) -> str:
        """The first failures, a line each."""
        first = itertools.islice(sources.failures.items(), _SHOWN)
        return "\n".join(f"  {sources.paths[i]}: {failure.stage}: {failure.reason}" for i, failure in first)
