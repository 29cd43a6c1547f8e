"""What can go wrong in a build, grouped by what the reader of the message has to do.

    PreprocessError                        exit code
    ├── RecipeError (ValueError)               2   change the recipe; the message gives the place
    ├── UsageError (ValueError)                2   call it differently
    ├── SourceError                            -   one image: left out and listed, never ends a build
    ├── WorkerError                            1   worker processes cannot be started at all
    ├── FailureBudgetExceeded                  3   look at the listed images, or raise the budget
    ├── ShrinkRefused                          3   is the disk mounted? or allow it
    ├── ShiftRefused                           3   pin the classes, or build without --strict
    ├── PixelsWouldDiffer                      8   former environment, or --rerender
    └── DecoderUntrusted                       8   mend the GPU's decoder, or --device cpu

A message says what, where, expected, found, and what to do next, in this order.
Every class survives pickling: errors cross process borders. `UsageError` is the same class as `cache_store.UsageError`.
"""

from cache_store.errors import PreprocessError, UsageError

__all__ = [
    "DecoderUntrusted",
    "FailureBudgetExceeded",
    "PixelsWouldDiffer",
    "PreprocessError",
    "RecipeError",
    "ShrinkRefused",
    "SourceError",
    "UsageError",
    "WorkerError",
]


class RecipeError(PreprocessError, ValueError):
    """A recipe that cannot be meant: unknown name, wrong value, wrong output size."""

    exit_code = 2


class SourceError(PreprocessError):
    """One image that cannot be used.

    Attributes
    ----------
    stage : 'read', 'decode', 'render' or 'memory'
    reason : one line for a person
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(stage, reason)
        self.stage = stage
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.stage}: {self.reason}"


class WorkerError(PreprocessError):
    """Worker processes die before their first image: the installation is broken."""


class FailureBudgetExceeded(PreprocessError):
    """More images failed than the budget allows; nothing was committed."""

    exit_code = 3


class ShrinkRefused(PreprocessError):
    """A split would lose more than half of its samples; nothing was committed."""

    exit_code = 3


class ShiftRefused(PreprocessError):
    """Class ids would mean other classes than before, in a strict build; nothing was committed."""

    exit_code = 3


class PixelsWouldDiffer(PreprocessError):
    """This environment renders other pixels than the one that filled the cache."""

    exit_code = 8


class DecoderUntrusted(PreprocessError):
    """The GPU's JPEG decoder reports success and gives wrong pixels."""

    exit_code = 8
