"""The batch job: from a folder of images to a committed snapshot of a cache.

Names are resolved on first use, so that `decant --help` and worker processes load only what they need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors
    from preprocess.builder import build as build
    from preprocess.errors import DecoderUntrusted as DecoderUntrusted
    from preprocess.errors import FailureBudgetExceeded as FailureBudgetExceeded
    from preprocess.errors import PixelsWouldDiffer as PixelsWouldDiffer
    from preprocess.errors import PreprocessError as PreprocessError
    from preprocess.errors import RecipeError as RecipeError
    from preprocess.errors import ShiftRefused as ShiftRefused
    from preprocess.errors import ShrinkRefused as ShrinkRefused
    from preprocess.errors import SourceError as SourceError
    from preprocess.errors import UsageError as UsageError
    from preprocess.errors import WorkerError as WorkerError
    from preprocess.mending import RepairReport as RepairReport
    from preprocess.mending import repair as repair
    from preprocess.page import PageReport as PageReport
    from preprocess.page import write_report as write_report
    from preprocess.proposal import Proposal as Proposal
    from preprocess.proposal import propose_recipe as propose_recipe
    from preprocess.recipe import Recipe as Recipe
    from preprocess.report import BuildReport as BuildReport
    from preprocess.survey import StatusReport as StatusReport
    from preprocess.survey import status as status
    from preprocess.trial import Preview as Preview
    from preprocess.trial import preview as preview
    from preprocess.verdict.appraisal import appraise as appraise
    from preprocess.verdict.report import Verdict as Verdict

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
