"""What a build has to do, split by split, and why: counted before it is done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache_store.reader import Cache
from cache_store.shard import CHECKSUM_BYTES
from preprocess.catalog import distinct
from preprocess.plan import Plan
from preprocess.renderings import stored_rendering
from preprocess.stock import Stock

_SHOWN_CHARACTERS = 60
_OF_PIXELS = ("size", "channels", "seed", "decode")
_ABSENT = object()


@dataclass(slots=True)
class Work:
    """Of one split.

    Attributes
    ----------
    render : variants to decode and render; files that are not read yet count as new, as far as no interrupted build
        has finished some
    normalise : variants to write anew with another normalisation or type, without decoding
    added_bytes : what both add to the disk
    why : a line each
    """

    render: int = 0
    normalise: int = 0
    added_bytes: int = 0
    why: list[str] = field(default_factory=list)


def work_of(plan: Plan, stock: Stock, splits: Mapping[str, np.ndarray], previous: Cache | None) -> dict[str, Work]:
    """What is missing of each split. Images known to be unusable are noted as failed."""
    changes = recipe_changes(previous.snapshot.recipe, plan.recipe.canonical()) if previous is not None else []
    result = {}
    for name, numbers in splits.items():
        stock.missing(name, numbers)
        usable = plan.survivors(numbers)
        lacking = stock.find(name, usable) < 0
        known = plan.sources.known[usable]
        digests = plan.sources.digests[usable]
        once = np.ones(len(usable), bool)
        once[known] = distinct(digests[known]) == np.arange(int(known.sum()))  # equal files are rendered once
        rendering = plan.renderings[name]
        # Files that are not read yet may be what an interrupted build has rendered.
        waiting = sum(len(shard.rows) for shard in stock.pending if shard.pixels_id == rendering.pixels_id)
        finished = min(waiting, int((~known).sum()) * lacking.shape[1])
        work = result[name] = Work(int(lacking[once].sum()) - finished, stock.to_normalise(name, usable))
        work.added_bytes = (work.render + work.normalise) * (rendering.chunk_bytes + CHECKSUM_BYTES)
        work.why = list(_reasons(plan, name, lacking[once], work, previous, [change[0] for change in changes]))
    return result


def _reasons(
    plan: Plan, name: str, lacking: np.ndarray, work: Work, previous: Cache | None, changed: Sequence[str]
) -> list[str]:
    if not work.render and not work.normalise:
        return []
    if previous is None or name not in previous.splits:
        return ["the cache has no such split yet"]
    former, reasons = previous.splits[name], []
    if stored_rendering(previous.tensors(name).attributes).pixels_id != plan.renderings[name].pixels_id:
        own = (*_OF_PIXELS, f"splits.{name}.transforms")
        keys = [key for key in changed if key.startswith(own)]
        reasons.append(f"other pixels: {', '.join(keys) or 'this environment'} changed")
    elif work.render:
        had = lacking[:, : former.variants].any(axis=1)
        if had.any():
            count = int(had.sum())
            reasons.append(f"{count:,} {'images that are' if count > 1 else 'image that is'} new, edited or unread")
        if lacking.shape[1] > former.variants and lacking[~had].any():
            reasons.append(f"variants {former.variants} -> {lacking.shape[1]}")
    if work.normalise:
        keys = [key for key in changed if key.startswith(("normalize", "dtype"))]
        reasons.append(f"other normalisation: {', '.join(keys) or 'the statistics'} changed")
    return reasons


def recipe_changes(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Keys in which two canonical recipes differ, and 'old -> new' of each.

    >>> recipe_changes({"size": [8, 8], "seed": 0}, {"size": [9, 9], "seed": 0})
    [('size', '[8, 8] -> [9, 9]')]
    """
    changes = []
    for key in [*former, *(key for key in now if key not in former)]:
        old, new = former.get(key, _ABSENT), now.get(key, _ABSENT)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping) and key != "normalize":
            changes += [(f"{key}.{below}", text) for below, text in recipe_changes(old, new)]
        else:
            changes.append((key, f"{_in_words(old)} -> {_in_words(new)}"))
    return changes


def _in_words(value: Any) -> str:
    text = "nothing" if value is _ABSENT else str(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
