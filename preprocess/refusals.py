"""What stops a build before it renders anything: `build` raises it, `status` foretells it."""

import errno
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cache_store.errors import CacheStoreError, StorageError
from cache_store.gc import disk_usage
from cache_store.reader import Cache
from preprocess.budget import FailureBudget
from preprocess.errors import PreprocessError, ShiftRefused, ShrinkRefused
from preprocess.plan import Plan
from preprocess.report import in_units
from preprocess.stock import Stock

Splits = Mapping[str, np.ndarray]
"""Split -> its sources by number, failed ones included."""


def refuse_shifting(plan: Plan) -> None:
    """For a strict build.

    Raises
    ------
    ShiftRefused : class ids mean other classes than in the snapshot in force
    """
    if plan.shift:
        raise ShiftRefused(f"{plan.shift}; a strict build does not shift them: nothing was committed")


def refuse_shrinking(plan: Plan, previous: Cache | None, splits: Splits, *, recipe_given: bool) -> None:
    """Stop where an unmounted disk may be the reason.

    Raises
    ------
    ShrinkRefused : more than half of a split would go
    """
    for name, table in previous.splits.items() if previous is not None else ():
        if name not in splits and recipe_given:
            continue  # taken out of the recipe: meant
        now = len(splits.get(name, ()))
        if now * 2 < len(table):
            raise ShrinkRefused(
                f"split {name!r} would shrink from {len(table):,} to {now:,} images; is SOURCE {str(plan.source)!r} "
                "mounted and whole? Build with --allow-shrink if it is meant; nothing was committed"
            )


def check_disk(plan: Plan, stock: Stock, splits: Splits, workers: int, previous: Cache | None) -> None:
    """Stop where the build does not fit.

    Raises
    ------
    StorageError : with what is needed and what is free
    """
    needed, free = stock.needed(dict(splits), workers)[0], free_bytes(plan.cache)
    if needed > free:
        half = "use dtype: uint8 (half the size), " if plan.recipe.dtype == "float16" else ""
        raise StorageError(
            errno.ENOSPC,
            f"the build needs up to {in_units(needed)} more in {str(plan.cache)!r}, {in_units(free)} are free; "
            f"{reclaimable(plan.cache, previous)}free some space, {half}take a smaller size or fewer variants",
        )


def reclaimable(cache: Path, previous: Cache | None) -> str:
    """What `gc` would free, as the beginning of an advice; empty where it would free nothing."""
    freed = disk_usage(cache, previous.snapshot)[1] if previous is not None else 0
    return f"decant gc {shlex.quote(str(cache))} would free {in_units(freed)}; " if freed else ""


def free_bytes(cache: Path) -> int:
    """On the disk where a cache lies, or would lie."""
    there = next(folder for folder in (cache.absolute(), *cache.absolute().parents) if folder.exists())
    found = os.statvfs(there)
    return found.f_bavail * found.f_frsize


def foretold(
    plan: Plan, previous: Cache, stock: Stock, splits: Splits, workers: int, *, up_to_date: bool
) -> PreprocessError | CacheStoreError | None:
    """What a build with the cache's own recipe and no further option would raise, as far as it is known."""
    try:
        if not up_to_date:
            refuse_shrinking(plan, previous, splits, recipe_given=False)
            check_disk(plan, stock, splits, workers, previous)
        FailureBudget().check(plan.sources)
    except (PreprocessError, CacheStoreError) as error:
        return error
    return None
