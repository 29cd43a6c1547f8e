"""What a build is about: sources, recipe, identities, and what former builds know of them. Writes nothing."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cache_store import layout
from cache_store.normalise import normalisation_table
from cache_store.reader import Cache
from cache_store.writer import read_formerly_by_hint, scan_by_hint
from preprocess import augment, engines, environment, probe
from preprocess.departures import departures, lost_classes, shifted
from preprocess.errors import PixelsWouldDiffer, RecipeError, UsageError
from preprocess.history import History, in_force_then_newest
from preprocess.jobs import Failure
from preprocess.own_size import squeezed
from preprocess.reading import settle
from preprocess.recipe import Recipe
from preprocess.rendering import OPENCV, Rendering, Statistics
from preprocess.renderings import stored_rendering
from preprocess.scan import class_table
from preprocess.sources import Sources, collect, members, recognise

REMEMBERED_STAGES = ("decode", "render")
"""Failures at these stages follow from the file's content: equal bytes fail again."""


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """See the arguments of `builder.build`."""

    decoder: str
    device: str = "auto"
    stats: Statistics | None = None
    limit: int | None = None
    rerender: bool = False
    retry_failed: bool = False
    checksum: bool = False
    refresh_stats: bool = False


@dataclass(slots=True)
class Plan:
    """Everything that is settled before the first image is read.

    Attributes
    ----------
    source, cache : folders
    recipe : with its splits spelled out
    scanned_ns : when the scan of SOURCE began, ns since the epoch
    classes : class names by id
    sources : all files, with what is known of each; filled in further while the build runs
    renderings : split -> what fixes its pixels, statistics open
    statistics : mean and std; None until they are known
    departures : what differs from the expected, a line each
    shift : that of them which says which class ids mean another class than in the snapshot in force; empty if none does
    history : what committed snapshots hold
    refused : pixels_id -> digest -> why images of this content cannot be used
    splits_written : the recipe names the folders of its splits
    rerender : tensors that this version would make otherwise are to be replaced
    read_formerly : images whose tensors come from a former way of reading, see `former`
    """

    source: Path
    cache: Path
    recipe: Recipe
    scanned_ns: int
    classes: list[str]
    sources: Sources
    renderings: dict[str, Rendering]
    statistics: Statistics | None
    history: History
    departures: list[str] = field(default_factory=list)
    shift: str = ""
    refused: dict[str, dict[bytes, Failure]] = field(default_factory=dict)
    splits_written: bool = False
    rerender: bool = False
    read_formerly: dict[str, list[str]] = field(default_factory=dict)

    def final(self, rendering: Rendering) -> Rendering:
        """The rendering with its statistics, as far as they are known."""
        return rendering.with_statistics(self.statistics)

    def distinct(self) -> list[Rendering]:
        """The renderings, once where splits share one; with statistics as far as they are known."""
        return list({r.pixels_id: self.final(r) for r in self.renderings.values()}.values())

    def variants(self, split: str) -> int:
        """K."""
        return self.recipe.named_splits[split].variants

    def members(self) -> dict[str, np.ndarray]:
        """Sources of each split by number, failed ones included; see `sources.members`."""
        return members(self.sources, self.recipe)

    def survivors(self, numbers: np.ndarray) -> np.ndarray:
        """Those of the sources that have not failed."""
        if not self.sources.failures:
            return numbers
        return numbers[~np.isin(numbers, np.fromiter(self.sources.failures, np.int64))]


def make_plan(source: Path, cache: Path, recipe: Recipe, previous: Cache | None, options: PlanOptions) -> Plan:
    """Scan SOURCE, settle the recipe and the identity of every split's pixels, and recall what former builds know.

    Raises
    ------
    UsageError : SOURCE holds no image, or can be read in more than one way; `limit` for a cache that has a snapshot
    RecipeError : the transforms do not give the recipe's size, or statistics that cannot be used
    PixelsWouldDiffer : this environment renders other pixels than the one that filled the cache
    """
    if previous is not None and options.limit is not None:
        raise UsageError(f"limit: {str(cache)!r} has a snapshot; a part of SOURCE goes only into a new cache")
    splits_written = recipe.open_splits() == []
    recipe, scanned, noted = settle(source, recipe, previous.snapshot if previous is not None else None)
    classes, former = class_table(scanned, recipe.classes), previous.snapshot.classes if previous is not None else ()
    sources = collect(scanned, classes, options.limit)
    for folder, why in scanned.unreadable.items():
        sources.add_failed_folder(folder, Failure("read", why))
    renderings, warnings = _identify(recipe, previous, options)
    statistics = _known_statistics(cache, recipe, previous, options)
    noted += departures(recipe, scanned, classes, former) + lost_classes(classes, former) + warnings
    plan = Plan(
        source,
        cache,
        recipe,
        scanned.scanned_ns,
        classes,
        sources,
        renderings,
        statistics,
        History(cache, previous),
        noted,
        shift=next(iter(shifted(classes, former)), ""),
        splits_written=splits_written,
        rerender=options.rerender,
    )
    if previous is not None:
        _recall(plan, previous, options)
    return plan


def _identify(recipe: Recipe, previous: Cache | None, options: PlanOptions) -> tuple[dict[str, Rendering], list[str]]:
    """The rendering of each split, and warnings; refused if the recipe's size is not what the transforms give."""
    renderings: dict[str, Rendering] = {}
    probes: dict[str, str] = {}
    warnings: list[str] = []
    # Pixels that the snapshot in force holds: their size needs no proof any more.
    proved = {_stored(previous, name).pixels_id for name in previous.splits} if previous is not None else set()
    for name in recipe.named_splits:
        rendering = recipe.rendering(name, OPENCV, "")
        same = _same_but_for_the_engine(name, rendering, previous)
        engine, notes = engines.choose(
            name,
            rendering,
            options.device,
            same[0] if same is not None else None,
            _engine_in_use(name, previous),
            rerender=options.rerender,
        )
        warnings += notes
        rendering = replace(rendering, engine=engine)
        key = rendering.pixels_id
        if key not in probes:
            probes[key] = probe.probe(rendering, options.decoder)
        rendering = renderings[name] = replace(rendering, probe=probes[key])
        if rendering.pixels_id in proved:
            continue
        proved.add(rendering.pixels_id)
        if previous is not None and same is not None and not options.rerender:
            _refuse_other_pixels(name, previous, *same)
        place = f"splits.{name}.transforms"
        most = max(recipe.max_pixels, rendering.pixels)
        warnings += squeezed(rendering.transforms, place)
        warnings += augment.prove_size(rendering.transforms, rendering.size_hw, rendering.shape[0], place, most)
    return renderings, warnings


def _stored(previous: Cache, split: str) -> Rendering:
    return stored_rendering(previous.tensors(split).attributes)


def _same_but_for_the_engine(name: str, rendering: Rendering, previous: Cache | None) -> tuple[Rendering, str] | None:
    """Tensors of the snapshot that differ in nothing but what made them of the pictures, and a split that has them:
    the one of this name, if it does."""
    neutral = {"mean": None, "std": None, "dtype": "", "probe": "", "engine": ""}
    if previous is None:
        return None
    for split in sorted(previous.splits, key=lambda other: other != name):
        stored = _stored(previous, split)
        if replace(stored, **neutral) == replace(rendering, **neutral):  # type: ignore[arg-type]
            return stored, split
    return None


def _engine_in_use(name: str, previous: Cache | None) -> str | None:
    """The engine of this split's tensors, or of another one's."""
    if previous is None or not previous.splits:
        return None
    return _stored(previous, name if name in previous.splits else next(iter(previous.splits))).engine


def _refuse_other_pixels(name: str, previous: Cache, stored: Rendering, split: str) -> None:
    """Stop, as this environment makes something else of the pictures than the one that made the tensors did."""
    then, now = previous.tensors(split).attributes.get("versions", {}), environment.versions(stored.engine)
    changed = [f"{key} {then.get(key)} -> {value}" for key, value in now.items() if then.get(key) != value]
    raise PixelsWouldDiffer(
        f"split {name!r}: this environment renders other pixels than the one that filled {str(previous.path)!r}; "
        f"changed: {', '.join(changed) or 'no version, so a build or a setting of a library'}; either go back to "
        "the former environment, or build with --rerender (new tensors beside the old)"
    )


def _known_statistics(cache: Path, recipe: Recipe, previous: Cache | None, options: PlanOptions) -> Statistics | None:
    """mean and std that are settled before anything is rendered: the recipe's, the caller's, or pinned ones."""
    given = options.stats
    if options.refresh_stats and (recipe.fixed_statistics is not None or given is not None):
        fixed = "stats are given" if given is not None else "the recipe's normalize is not 'dataset'"
        raise UsageError(f"refresh_stats: {fixed}, so there are none of the dataset's own to refresh; leave one out")
    if recipe.fixed_statistics is not None:
        return recipe.fixed_statistics
    if given is not None:
        mean, std = (tuple(float(value) for value in values) for values in given)
        channels = 3 if recipe.channels == "rgb" else 1
        if len(mean) != channels or len(std) != channels:
            raise RecipeError(
                f"stats: mean and std of {channels} values each expected, found {len(mean)} and {len(std)}"
            )
        try:
            normalisation_table(mean, std)
        except ValueError as error:
            raise RecipeError(f"stats: {error}") from None
        return mean, std
    if previous is None or options.refresh_stats:
        return None
    for snapshot in in_force_then_newest(cache, previous):
        former = snapshot.snapshot.recipe
        if former["normalize"] == "dataset" and former["channels"] == recipe.channels and snapshot.splits:
            table = next(iter(snapshot.splits.values()))
            return table.mean, table.std
    return None


def _recall(plan: Plan, previous: Cache, options: PlanOptions) -> None:
    """What former builds know: digests of unchanged files, and images that cannot be used."""
    failures = [dict(f) | {"path": layout.text_to_name(f["path"])} for f in previous.snapshot.failures]
    if not options.checksum:
        verified_ns = scan_by_hint(plan.cache, previous.snapshot.name)
        recognise(plan.sources, list(previous.splits.values()), failures, verified_ns)
    same_decode = previous.snapshot.recipe["decode"] == plan.recipe.canonical()["decode"]
    # A version that reads in more ways may read what failed.
    same_readers = all(table.read_formerly is not None for table in previous.splits.values()) or (
        read_formerly_by_hint(plan.cache, previous.snapshot.name) is not None
    )
    if same_decode and same_readers and not options.retry_failed:
        pixels = {name: _stored(previous, name).pixels_id for name in previous.splits}
        for failure in failures:
            pixels_id = pixels.get(str(failure.get("split")))
            if pixels_id and failure["digest"] and failure["stage"] in REMEMBERED_STAGES:
                known = plan.refused.setdefault(pixels_id, {})
                known[bytes.fromhex(failure["digest"])] = Failure(failure["stage"], failure["reason"])
