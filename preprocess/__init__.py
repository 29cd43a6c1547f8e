"""The batch job: from a folder of images to a committed snapshot of a cache.

Names are resolved on first use, so that `decant --help` and worker processes load only what they need.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "BuildReport": "report",
    "DecoderUntrusted": "errors",
    "FailureBudgetExceeded": "errors",
    "PageReport": "page",
    "PixelsWouldDiffer": "errors",
    "PreprocessError": "errors",
    "Preview": "trial",
    "Proposal": "proposal",
    "RepairReport": "mending",
    "Recipe": "recipe",
    "RecipeError": "errors",
    "ShiftRefused": "errors",
    "ShrinkRefused": "errors",
    "SourceError": "errors",
    "StatusReport": "survey",
    "UsageError": "errors",
    "Verdict": "verdict.report",
    "WorkerError": "errors",
    "appraise": "verdict.appraisal",
    "build": "builder",
    "preview": "trial",
    "propose_recipe": "proposal",
    "repair": "mending",
    "status": "survey",
    "write_report": "page",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
