"""What changed in a folder of images since its cache was built, and what a build would do about it. Writes nothing."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from cache_store import layout
from cache_store.errors import UsageError
from cache_store.reader import open_cache
from cache_store.writer import source_by_hint, unfinished
from preprocess.builder import chosen_recipe, known_sizes, processors
from preprocess.changes import Changes, changes_of
from preprocess.duplicates import duplicates
from preprocess.former import counts, note_read_formerly
from preprocess.plan import PlanOptions, make_plan
from preprocess.publish import failure_rows, is_current
from preprocess.refusals import foretold
from preprocess.render import DECODER
from preprocess.report import engines_in_words, in_units, numbers_in_words, printable
from preprocess.run import Silent, hash_first
from preprocess.statistics import current_statistics, drift
from preprocess.stock import Stock
from preprocess.work import Work, work_of

_LISTED = 20
_STALL_S = 120


@dataclass(slots=True)
class StatusReport:
    """How a folder of images and its cache stand.

    Attributes
    ----------
    cache, source : folders
    snapshot : name of the snapshot in force
    engines : split -> what renders it, see `rendering.IN_WORDS`
    up_to_date : a build would do nothing
    files : what became of the snapshot's files; new ones that are not read yet may turn out to be known or to fail
    failed : path, stage, reason of each image that is left out
    work : split -> what a build would do, and why
    mean, std : in force
    mean_now, std_now : of the snapshot's images; differ from those in force where these are pinned or given
    drift : how far apart both are, in standard deviations in force; 0 unless the recipe says `normalize: dataset`
    read_formerly : as in `report.BuildReport`
    departures : what differs from the expected, a line each
    shift : class ids that would mean another class than now, one line; empty if none would
    refused : why `decant build` would commit nothing; None if it would, as far as that is known
    exit_code : that `decant build` would end with then; 0 if nothing is known against it
    """

    cache: str
    source: str
    snapshot: str
    engines: dict[str, str]
    up_to_date: bool
    files: Changes
    failed: list[dict[str, Any]] = field(default_factory=list)
    work: dict[str, Work] = field(default_factory=dict)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    mean_now: list[float] = field(default_factory=list)
    std_now: list[float] = field(default_factory=list)
    drift: float = 0.0
    read_formerly: dict[str, int] = field(default_factory=dict)
    departures: list[str] = field(default_factory=list)
    shift: str = ""
    refused: str | None = None
    exit_code: int = 0

    def to_json(self) -> str:
        """All fields as one JSON object; bytes of file names that are not UTF-8 as Python has them in a str."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = [self.shift] if self.shift else []
        lines.append(f"snapshot {self.snapshot} of {self.cache}, built from {self.source}")
        lines.append(f"rendered by {engines_in_words(self.engines)}")
        files = self.files
        for title, names in (
            ("new", [printable(name) for name in files.new]),
            ("edited", [printable(name) for name in files.edited]),
            ("renamed", [f"{printable(old)} -> {printable(new)}" for old, new in files.renamed]),
            ("relabelled", [f"{printable(old)} -> {printable(new)}" for old, new in files.relabelled]),
            ("removed", [printable(name) for name in files.removed]),
            ("failed", [f"{printable(f['path'])}: {f['stage']}: {f['reason']}" for f in self.failed]),
        ):
            lines += _listed(title, names)
        if self.refused is not None:
            return [*lines, f"a build would be refused (exit code {self.exit_code}): {self.refused}", *self._remarks()]
        if self.up_to_date:
            return [*lines, "up to date: a build would do nothing", *self._remarks()]
        lines.append("a build would:")
        for name, work in self.work.items():
            if work.render or work.normalise:
                anew = f", normalise {work.normalise:,} anew" if work.normalise else ""
                lines.append(
                    f"  {name}: render {work.render:,} variants{anew}, {in_units(work.added_bytes)} more on disk "
                    f"({'; '.join(work.why)})"
                )
        if not any(work.render or work.normalise for work in self.work.values()):
            lines.append("  write a new manifest; nothing is rendered")
        return [*lines, *self._remarks()]

    def _remarks(self) -> list[str]:
        lines = []
        if self.drift:
            now = f"{numbers_in_words(self.mean_now)}, {numbers_in_words(self.std_now)}"
            lines.append(
                f"statistics pinned at {numbers_in_words(self.mean)}, {numbers_in_words(self.std)}; the snapshot's "
                f"images have {now}: a drift of {self.drift:.2g} standard deviations"
            )
        return lines + [f"note: {text}" for text in self.departures if text != self.shift]


def _listed(title: str, names: Sequence[str]) -> list[str]:
    if not names:
        return []
    more = [f"    … and {len(names) - _LISTED:,} more (all of them with --json)"] if len(names) > _LISTED else []
    return [f"{title} ({len(names):,}):", *(f"    {name}" for name in names[:_LISTED]), *more]


def status(source: str | os.PathLike[str] | None, cache: str | os.PathLike[str]) -> StatusReport:
    """Compare a folder of images with the snapshot in force. Reads only files whose stat leaves a doubt.

    Parameters
    ----------
    source : folder of images; None: the one that the cache was built from
    cache : folder of the cache

    Raises
    ------
    NotFoundError : there is no such cache, or no finished snapshot in it
    UsageError : SOURCE is not given and cannot be found, or holds no image
    PixelsWouldDiffer : this environment renders other pixels than the one that filled the cache
    IntegrityError, FormatError : the cache is damaged, or of another version
    """
    cache_path = layout.given_path(cache)
    with open_cache(cache_path) as previous:
        found = source_by_hint(cache_path) if source is None else layout.given_path(source)
        if found is None or (source is None and not found.is_dir()):
            where = f" ({str(found)!r} is not there any more)" if found is not None else ""
            raise UsageError(
                f"{str(cache_path)!r} does not say where its images are{where}; run: decant status SOURCE CACHE"
            )
        recipe = chosen_recipe(None, [], found, previous)
        plan = make_plan(found, cache_path, recipe, previous, PlanOptions(DECODER))
        hash_first(plan, known_sizes(previous), processors(), _STALL_S, Silent())
        note_read_formerly(plan, previous)
        stock, splits = Stock(plan, 32), plan.members()
        ours = {rendering.pixels_id: rendering.shape for rendering in plan.renderings.values()}
        stock.add(tuple(shard for shard in unfinished(cache_path) if ours.get(shard.pixels_id) == shard.shape))
        work = work_of(plan, stock, splits, previous)
        snapshot = previous.snapshot
        report = StatusReport(
            str(cache_path),
            str(found),
            snapshot.name,
            {name: rendering.engine for name, rendering in plan.renderings.items()},
            is_current(snapshot, plan, stock, splits),
            changes_of(
                plan,
                plan.survivors(np.sort(np.concatenate(list(splits.values())))),
                previous.splits,
                snapshot.classes,
                {layout.text_to_name(f["path"]) for f in snapshot.failures},
            ),
            failure_rows(plan, splits),
            work,
            read_formerly=counts(plan.read_formerly),
            departures=[*plan.departures, *duplicates(previous.splits)],
            shift=plan.shift,
        )
        refused = foretold(plan, previous, stock, splits, processors(), up_to_date=report.up_to_date)
        if refused is not None:
            report.refused, report.exit_code = str(refused), refused.exit_code
        table = next(iter(previous.splits.values()))
        report.mean, report.std = list(table.mean), list(table.std)
        now = current_statistics(previous.splits, math.prod(plan.recipe.size))
        if now is not None:
            report.mean_now, report.std_now = map(list, now)
            if plan.recipe.normalize == "dataset":
                report.drift = drift((table.mean, table.std), now)
        return report
