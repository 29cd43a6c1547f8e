"""The sample: as many images as there is time and room for, their cache in a temporary folder, what it foretells."""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache_store.durable import translated
from preprocess.advice import shares
from preprocess.builder import build, processors
from preprocess.errors import FailureBudgetExceeded
from preprocess.plan import Plan
from preprocess.report import BuildReport
from preprocess.timer import Timer
from preprocess.verdict import arithmetic
from preprocess.verdict.clock import Clock
from preprocess.verdict.report import FullBuild
from preprocess.verdict.sampling import affordable, choose, link

SAMPLE = 2000
"""Images, if time and room allow."""

_TRIES = (8, 32, 128)
"""Images a processor of the trial builds: fewer than the first would not keep all of them busy."""

_ENOUGH_S = 0.5
"""A trial that works as long as this tells how fast images are built."""

_BUILD_SHARE = 0.4
"""Of the time that is left when the sample is built; the rest is for loading."""

_WORKING = ("hash", "render", "normalise", "commit")
_MOST_BYTES = 4 << 30


@dataclass(frozen=True, slots=True)
class Built:
    """The sample's cache, and what building it told."""

    cache: Path
    report: BuildReport
    images: int


@contextmanager
def scratch_folder(cache: Path | None) -> Iterator[Path]:
    """A temporary folder, gone after the block: on CACHE's file system, or without a CACHE where the system has them.

    Raises
    ------
    StorageError : it cannot be made
    """
    beside = None if cache is None else next(folder for folder in cache.absolute().parents if folder.is_dir())
    with translated("write", beside or Path(os.environ.get("TMPDIR", "/tmp"))):
        folder = tempfile.mkdtemp(prefix=".decant-bench-", dir=beside)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def files_in(plan: Plan) -> dict[str, int]:
    """Split with a folder -> images in it."""
    return {name: end - start for name, (start, end) in plan.sources.ranges.items()}


def expected(plan: Plan) -> dict[str, float]:
    """Samples of each split of the whole folder."""
    return arithmetic.expected_samples(plan.recipe, files_in(plan))


def build_sample(
    plan: Plan, links: Path, scratch: Path, device: str, clock: Clock, tell: Callable[[str], None]
) -> Built:
    """Build as many images as time and room allow, `SAMPLE` at most, after a trial of a few.

    Parameters
    ----------
    links, scratch : temporary folders, for links to images and for caches

    Raises
    ------
    FailureBudgetExceeded : none of them can be used
    """
    files = np.concatenate([np.arange(*span) for span in plan.sources.ranges.values()])
    most = files[choose(len(files), SAMPLE)]

    def built(name: str, numbers: np.ndarray) -> BuildReport:
        folders = [split.folder for split in plan.recipe.named_splits.values() if split.folder is not None]
        paths = (plan.sources.paths[number] for number in numbers.tolist())
        sample = link(plan.source, paths, folders, links / name)
        return build(sample, scratch / name, plan.recipe, device=device, max_failures="100%")

    image_s = _trial(most, built, scratch, tell)
    count = affordable(
        len(most),
        clock.part(_BUILD_SHARE, 0.5, math.inf),
        image_s,
        _room_bytes(scratch),
        arithmetic.tensor_bytes(plan.recipe, plan.recipe.dtype)
        * arithmetic.tensors_in(plan.recipe, expected(plan))
        / len(files),
    )
    numbers = most[choose(len(most), count)]
    tell(f"building {len(numbers):,} of {len(files):,} images in a temporary folder")
    return Built(scratch / "sample", built("sample", numbers), len(numbers))


def _trial(
    most: np.ndarray, built: Callable[[str, np.ndarray], BuildReport], scratch: Path, tell: Callable[[str], None]
) -> float:
    """Seconds that an image takes, all processors working; nearly 0 if there are too few to bother."""
    image_s = 1e-6
    for count in (tries * processors() for tries in _TRIES):
        if count >= len(most):
            break
        tell(f"trying {count} images")
        try:
            took_s = working_s(built(f"try-{count}", most[choose(len(most), count)]))
        except FailureBudgetExceeded:  # all of these few; more will tell
            continue
        finally:
            shutil.rmtree(scratch / f"try-{count}", ignore_errors=True)
        image_s = took_s / count
        if took_s >= _ENOUGH_S:
            break
    return image_s


def working_s(report: BuildReport) -> float:
    """Seconds that grow with the number of images."""
    return sum(report.seconds.get(stage, 0.0) for stage in _WORKING)


def _room_bytes(folder: Path) -> float:
    """How big the sample's cache may get: it is staged once more as uint8, and has to stay in memory to be warm."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(_MOST_BYTES, shutil.disk_usage(folder).free / 3, memory / 4)


def full_build(plan: Plan, built: Built, timer: Timer, scratch: Path) -> FullBuild:
    """What the sample foretells of a build of the whole folder; `timer` knows how long planning it took."""
    files, tensors = sum(files_in(plan).values()), arithmetic.tensors_in(plan.recipe, expected(plan))
    sample_s = working_s(built.report)
    once_s = timer.seconds["plan"] + built.report.seconds.get("start", 0.0)
    stage, share = bound_of(built.report)
    return FullBuild(
        once_s + sample_s * files / built.images,
        files,
        tensors,
        built.images / sample_s,
        stage,
        share,
        built.report.advice,
        plan.recipe.dtype,
        tensors * arithmetic.tensor_bytes(plan.recipe, "float16"),
        tensors * arithmetic.tensor_bytes(plan.recipe, "uint8"),
        shutil.disk_usage(scratch).free + built.report.cache_bytes,  # the sample's goes again
    )


def bound_of(report: BuildReport) -> tuple[str, float]:
    """The stage that workers, or the wait for the disk, spent most of a build on, and which part of it, 0..1."""
    return next(iter(shares(report.stages).items()), ("render", 0.0))
