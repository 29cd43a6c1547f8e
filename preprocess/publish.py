"""From finished renderings to a snapshot: its tables, and whether there is anything new to publish."""

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from cache_store import layout, writer
from cache_store.manifest import Snapshot, SplitTable, no_rows
from preprocess import environment
from preprocess.former import still_formerly
from preprocess.plan import Plan
from preprocess.readers import DECODERS
from preprocess.rendering import Rendering
from preprocess.stock import Stock

Splits = dict[str, np.ndarray]
"""Split -> its sources by number, failed ones included."""

_Column = Callable[[], np.ndarray]


def is_current(former: Snapshot, plan: Plan, stock: Stock, splits: Splits) -> bool:
    """Whether a snapshot is what a build would publish now: every table would be the same.

    Nothing can be missing then, as the snapshot has it all: no look at single tensors is needed.
    """
    if plan.statistics is None or list(former.classes) != plan.classes or former.recipe != plan.recipe.canonical():
        return False
    if list(former.splits) != list(splits) or (plan.rerender and plan.read_formerly):
        return False
    for name, table in former.splits.items():
        if table.tensors_id != plan.final(plan.renderings[name]).tensors_id:
            return False
        if (table.mean, table.std) != plan.statistics:
            return False
    for name, numbers in splits.items():
        stock.note_refused(name, numbers)
    if list(former.failures) != failure_rows(plan, splits):
        return False
    for name, numbers in splits.items():
        table, kept = former.splits[name], plan.survivors(numbers)
        if len(table) != len(kept) or not plan.sources.known[kept].all():
            return False
        if not all(np.array_equal(table[column], get()) for column, get in _source_columns(plan, kept).items()):
            return False
    return True


def publish(plan: Plan, stock: Stock, splits: Splits, commit: writer.Commit, seconds: float) -> Snapshot:
    """Adopt pending shards, write the tables and swap the pointer.

    Parameters
    ----------
    seconds : what the build took so far
    """
    for rendering in plan.distinct():
        commit.ensure_tensors(tensors_spec(rendering, stock.slots(rendering)))
        stock.adopt(commit, rendering, splits)
    snapshot = Snapshot(
        name=layout.snapshot_name(commit.number),
        parent=commit.parent,
        parent_digest=commit.parent_digest,
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(seconds, 3),
        recipe=plan.recipe.canonical(),
        classes=tuple(plan.classes),
        splits={name: _table(plan, stock, name, numbers) for name, numbers in splits.items()},
        failures=tuple(failure_rows(plan, splits)),
        tensors=commit.tensors,
        splits_written=plan.splits_written,
    )
    commit.publish(snapshot)
    writer.leave_source_hint(plan.cache, plan.source)
    return snapshot


def tensors_spec(rendering: Rendering, slots: int) -> writer.TensorsSpec:
    """What tensors that are filled here say of themselves; S = `slots`, should they be new."""
    return writer.TensorsSpec(
        tensors_id=rendering.tensors_id,
        rendering=rendering.describe(),
        mean=rendering.mean,
        std=rendering.std,
        engine=rendering.engine,
        probe=rendering.probe,
        versions=environment.versions(rendering.engine),
        shape=rendering.shape,
        slots=slots,
    )


def failure_rows(plan: Plan, splits: Splits) -> list[dict[str, Any]]:
    """Failures as a snapshot keeps them, in the order of the sources."""
    split_of = (
        {int(number): name for name, numbers in splits.items() for number in numbers} if plan.sources.failures else {}
    )
    rows = []
    for number, failure in sorted(plan.sources.failures.items()):
        stats = plan.sources.stats[number]
        rows.append(
            {
                "path": layout.name_to_text(plan.sources.paths[number]),
                "split": split_of.get(number),
                "stage": failure.stage,
                "reason": failure.reason,
                "size": int(stats["size"]),
                "mtime": int(stats["mtime_ns"]),
                "ctime": int(stats["ctime_ns"]),
                "inode": int(stats["inode"]),
                "digest": plan.sources.digests[number].tobytes().hex() if plan.sources.known[number] else None,
            }
        )
    return rows


def _table(plan: Plan, stock: Stock, name: str, numbers: np.ndarray) -> SplitTable:
    assert plan.statistics is not None, "statistics are settled before a snapshot is published"
    rendering = plan.final(plan.renderings[name])
    kept = plan.survivors(numbers)
    look = stock.look(rendering)
    found = stock.find(name, kept)
    assert (found >= 0).all(), "a sample without a slot"
    columns: Mapping[str, np.ndarray] = no_rows(plan.variants(name), rendering.shape[0])
    if len(kept):
        columns = _Columns(
            _source_columns(plan, kept)
            | {
                "slot": lambda: look.place(found),
                "source_hw": lambda: look.catalog.column("source_hw", found[:, 0]),
                **{name: partial(look.catalog.column, name, found) for name in ("checksum", "sum", "sumsq", "decoder")},
            }
        )
    mean, std = plan.statistics
    left = still_formerly(plan.read_formerly, columns["digest"], columns["decoder"]) if plan.read_formerly else {}
    return SplitTable(rendering.tensors_id, mean, std, plan.scanned_ns, DECODERS, columns, left)


def _source_columns(plan: Plan, numbers: np.ndarray) -> dict[str, _Column]:
    """The manifest's columns that come from the sources alone."""
    sources = plan.sources
    paths = sources.paths.take(numbers)
    return {name: partial(_some, sources.stats[name], numbers) for name in sources.stats.dtype.names or ()} | {
        "path": lambda: paths.data,
        "path_end": lambda: paths.ends,
        "label": partial(_some, sources.labels, numbers),
        "digest": partial(_some, sources.digests, numbers),
    }


def _some(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return values[rows]


class _Columns(Mapping[str, np.ndarray]):
    """Columns that are made each time they are asked for: one at a time, a million rows take little memory."""

    def __init__(self, columns: Mapping[str, _Column]) -> None:
        self._columns = columns

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)
