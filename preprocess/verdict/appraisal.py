"""The verdict on a cache before there is one: sample, build, measure, compare; read top to bottom."""

import math
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

from cache_store import layout, writer
from cache_store.errors import NotFoundError
from cache_store.reader import Cache, open_cache
from preprocess.augment import nearest
from preprocess.builder import RecipeLike, check_arguments, chosen_recipe, processors
from preprocess.engines import DEVICES
from preprocess.errors import UsageError, WorkerError
from preprocess.plan import Plan, PlanOptions, make_plan
from preprocess.render import DECODER
from preprocess.rendering import OPENCV
from preprocess.renderings import stored_rendering
from preprocess.scan import check_folder
from preprocess.timer import Timer
from preprocess.verdict.clock import Clock
from preprocess.verdict.comparison import compare
from preprocess.verdict.hand import Hand, Unmeasured
from preprocess.verdict.loading import Instruments, cache_way, sweep, training_step
from preprocess.verdict.report import FullBuild, TrainingStep, Verdict
from preprocess.verdict.sample import Built, build_sample, expected, files_in, full_build, scratch_folder

SECONDS = 60.0


def appraise(
    source: str | os.PathLike[str],
    cache: str | os.PathLike[str] | None = None,
    recipe: RecipeLike = None,
    *,
    overrides: Iterable[str] = (),
    steps_per_s: float | None = None,
    batch_size: int = 256,
    seconds: float = SECONDS,
    device: str = "auto",
    progress: Callable[[str], None] | None = None,
) -> Verdict:
    """Measure what a cache of a folder would change for training, in about a minute, and keep nothing.

    Builds a cache of 2,000 images, or as many as the time allows, spread over splits and classes, in a temporary
    folder: beside CACHE if one is named, so that its disk is the one that is measured. Then loads the same images in
    the way of torchvision's ImageFolder, and out of the cache: out of CACHE itself if it is there and no recipe is
    given. CACHE is only read.

    Parameters
    ----------
    source : folder of images; it is only read
    cache : folder of a cache that is there or is thought of; None: the system's temporary folder tells the disk
    recipe : a Recipe, plain data, or the path of a YAML file; None: the cache's own, else the default
    overrides : KEY=VALUE settings on top of the recipe
    steps_per_s : training steps a second of a model that never waits; None: a ResNet-18 is timed here
    batch_size : images a step
    seconds : that all of it should take; what cannot be had in less takes more
    device : that would build, as for `build`
    progress : told what is being measured

    Raises
    ------
    RecipeError, UsageError, PixelsWouldDiffer : as for a build
    FailureBudgetExceeded : none of the sampled images can be used
    StorageError : no room for the sample, or denied
    WorkerError : processes cannot be started
    """
    _check(steps_per_s, batch_size, seconds, device)
    clock, timer, tell = Clock(seconds), Timer(), progress or (lambda text: None)
    load = os.getloadavg()[0]
    source_path = layout.given_path(source)
    cache_path = None if cache is None else layout.given_path(cache)
    check_folder(source_path)
    with ExitStack() as stack:
        previous = _previous(source_path, cache_path, device, stack)
        links, scratch = (stack.enter_context(scratch_folder(each)) for each in (None, cache_path))
        hand = stack.enter_context(Hand(links))  # which imports while SOURCE is looked at
        tell("looking at SOURCE")
        settled, device = list(overrides), _device_of(previous, device)
        with timer.stage("plan"):
            chosen = chosen_recipe(recipe, settled, source_path, previous)
            plan = make_plan(source_path, Path(cache_path or ""), chosen, None, PlanOptions(DECODER, device))
        try:
            hand.ready()
        except Unmeasured as error:
            raise WorkerError(f"no process that measures can be started: {error}; run: decant doctor") from None
        built = build_sample(plan, links, scratch, device, clock, tell)
        tools = Instruments(hand, clock, tell)
        own = previous if recipe is None and not settled else None
        verdict = _measured(tools, plan, built, own, batch_size, steps_per_s, full_build(plan, built, timer, scratch))
    verdict.cache, verdict.load = None if cache_path is None else str(cache_path), round(load, 2)
    compare(verdict)
    verdict.seconds = round(clock.spent_s(), 1)
    return verdict


def _measured(
    tools: Instruments,
    plan: Plan,
    built: Built,
    own: Cache | None,
    batch_size: int,
    steps_per_s: float | None,
    full: FullBuild,
) -> Verdict:
    """All figures; `own`: the cache to measure in place of the sample's, if the split is in it."""
    split = next(name for name, count in built.report.samples.items() if count)
    is_own = own is not None and len(own.splits.get(split, ())) > 0
    shape = plan.renderings[split].shape
    imagefolder = sweep(tools, plan, built, split, batch_size, processors())
    if steps_per_s is None:
        step = training_step(tools, shape, len(plan.classes), batch_size)
    else:
        step = TrainingStep(1 / steps_per_s, "given")
    cache = own.path if own is not None and is_own else built.cache
    return Verdict(
        source=str(plan.source),
        images=sum(files_in(plan).values()),
        sampled=built.images,
        failures=built.report.failures,
        split=split,
        samples=round(expected(plan)[split]),
        variants=plan.variants(split),
        shape=shape,
        batch_size=batch_size,
        processors=processors(),
        imagefolder=imagefolder,
        step=step,
        cached=cache_way(tools, cache, split, batch_size, "cache" if is_own else "sample"),
        build=full,
    )


def _check(steps_per_s: float | None, batch_size: int, seconds: float, device: str) -> None:
    if steps_per_s is not None and not 0 < steps_per_s < math.inf:
        raise UsageError(f"steps_per_s: more than 0 expected, found {steps_per_s}")
    if not 0 < seconds < math.inf:
        raise UsageError(f"seconds: more than 0 expected, found {seconds}")
    if batch_size < 1:
        raise UsageError(f"batch_size: 1 or more expected, found {batch_size}")
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is unknown{nearest(device, DEVICES)}")


def _previous(source: Path, cache: Path | None, device: str, stack: ExitStack) -> Cache | None:
    """CACHE, if there is one; what a build would refuse is refused."""
    if cache is None:
        return None
    check_arguments(source, cache, device, None, 1, None)
    writer.refuse_foreign(cache)
    try:
        return stack.enter_context(open_cache(cache))
    except NotFoundError:
        return None


def _device_of(previous: Cache | None, device: str) -> str:
    """That a build into CACHE would choose: the one of the tensors that are there."""
    if device != "auto" or previous is None or not previous.splits:
        return device
    engine = stored_rendering(previous.tensors(next(iter(previous.splits))).attributes).engine
    return "cpu" if engine == OPENCV else device
