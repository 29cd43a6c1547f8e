"""What a build's workers were at: from nanoseconds to the figures and the advice of its report."""

import contextlib
import os

import numpy as np

from cache_store.manifest import Snapshot
from preprocess.advice import SYNC, TransformTime, advice
from preprocess.augment import leaves_of
from preprocess.clock import by_stage
from preprocess.header import sniff
from preprocess.plan import Plan
from preprocess.rendering import NVJPEG
from preprocess.report import BuildReport
from preprocess.run import Run

_LOOKED_AT = 64


def tell_effort(report: BuildReport, plan: Plan, snapshot: Snapshot, run: Run, sync_s: float) -> None:
    """Fill in `stages`, `transforms` and `advice` of a report.

    Parameters
    ----------
    sync_s : what the commit waited for bytes to reach the medium
    """
    workers = max(1, run.pool.most)
    stages = by_stage(run.spent_ns / workers) | {SYNC: sync_s}
    report.stages = {stage: round(seconds, 3) for stage, seconds in stages.items()}
    transforms = _transforms(plan, run, workers)
    report.transforms = [
        {"splits": list(one.splits), "name": one.name, "seconds": round(one.seconds, 3)} for one in transforms
    ]
    report.advice = advice(
        report.stages,
        transforms,
        dtype=plan.recipe.dtype,
        reduced=plan.recipe.decode.reduced,
        times_larger=_times_larger(plan, snapshot),
        workers=workers,
    )


def _transforms(plan: Plan, run: Run, workers: int) -> list[TransformTime]:
    found = []
    for rendering in plan.distinct():
        spent = run.transforms_ns.get(rendering.pixels_id)
        if spent is None:
            continue
        splits = tuple(name for name, r in plan.renderings.items() if r.pixels_id == rendering.pixels_id)
        leaves = leaves_of(rendering.transforms)
        for place, ((name, arguments), took_ns) in enumerate(zip(leaves, spent.tolist(), strict=True)):
            later = tuple(name for name, _ in leaves[place + 1 :])
            found.append(TransformTime(splits, name, took_ns / 1e9 / workers, arguments, later))
    return found


def _times_larger(plan: Plan, snapshot: Snapshot) -> float:
    """As `advice` wants it, from a few of the samples."""
    if any(rendering.engine == NVJPEG for rendering in plan.renderings.values()):
        return 0.0
    sizes, jpegs = [], []
    for table in snapshot.splits.values():
        chosen = np.linspace(0, len(table) - 1, min(len(table), _LOOKED_AT)).astype(int)
        paths = table.paths() if len(table) else []
        jpegs += [_is_jpeg(os.path.join(os.fsencode(plan.source), paths[number])) for number in chosen]
        sizes.append(table["source_hw"][chosen])
    if 2 * sum(jpegs) < max(1, len(jpegs)):
        return 0.0
    found = np.concatenate(sizes)[np.array(jpegs)]
    return float(np.median((found / np.array(plan.recipe.size)).min(axis=1)))


def _is_jpeg(path: bytes) -> bool:
    """By its first bytes, whatever its name."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        return sniff(file.read(64)) == "JPEG"
    return False
