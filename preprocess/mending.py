"""`repair`: brings a cache back to what was committed, and says what it cannot bring back, and why.

    1. metadata and tables that can be had exactly          `cache_store.restore`
    2. chunks: sound ones kept, others rendered again       `rerender`
    3. a snapshot in force that cannot be brought back      the newest whole one is put in force; a build follows

Never in place: a file is written beside, flushed, and renamed over the damaged one.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from cache_store import durable, layout, writer
from cache_store.canonical import digest_of
from cache_store.errors import CacheStoreError
from cache_store.findings import FOREIGN, IMAGE, TENSORS, Finding, counted
from cache_store.gc import drop_snapshot
from cache_store.lock import BuildersLock
from cache_store.metadata import encode_group, encode_image_array, image_digest
from cache_store.reader import Root, read_root
from cache_store.restore import Recomputed, restore
from cache_store.snapshots import root_for
from cache_store.survey import Survey, Surveyed, survey
from cache_store.verify import Examined, Progress, examine
from cache_store.wary import Unreadable, read_metadata
from preprocess.errors import PreprocessError, UsageError
from preprocess.publish import tensors_spec
from preprocess.recipe import Recipe
from preprocess.render import DECODER
from preprocess.rendering import IN_WORDS, Statistics
from preprocess.renderings import stored_rendering
from preprocess.rerender import mend_shards

_ROUNDS = 8
_SHOWN = 20
_MOST_SLOTS = 1 << 14
_NOT_METADATA = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)


@dataclass(slots=True)
class RepairReport:
    """What was mended, what was not and why.

    Attributes
    ----------
    files : put back
    rendered, salvaged : chunks that were rendered again, and that were found in another place
    given_up : a snapshot in force that could not be brought back
    in_force : what is in force in its place; None: nothing
    rebuilt : the snapshot that was built from SOURCE in its place
    remaining : damage that is left
    reasons : why, and what to do next, a line each
    """

    cache: str
    files: list[str] = field(default_factory=list)
    rendered: int = 0
    salvaged: int = 0
    given_up: str | None = None
    in_force: str | None = None
    rebuilt: str | None = None
    remaining: list[Finding] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 6 if self.remaining else 0

    def to_json(self) -> str:
        return json.dumps({"mended": not self.remaining} | asdict(self), indent=2)

    def __str__(self) -> str:
        if not (self.files or self.remaining or self.given_up):
            return f"{self.cache} is sound: nothing to repair"
        lines = []
        if self.files:
            lines.append(
                f"mended {counted(len(self.files), 'file')} ({counted(self.rendered, 'tensor')} rendered again, "
                f"{self.salvaged:,} found in another place):"
            )
            lines += [f"    {name}" for name in self.files[:_SHOWN]]
            if len(self.files) > _SHOWN:
                lines.append(f"    … and {len(self.files) - _SHOWN:,} more")
        if self.given_up is not None:
            built = f", and {self.rebuilt} was built from SOURCE in its place" if self.rebuilt else ""
            lines.append(
                f"snapshot {self.given_up} could not be brought back: {self.in_force or 'none'} was put in force{built}"
            )
        if self.remaining:
            lines.append(f"not mended, {len(self.remaining):,}:")
            lines += [f"    {line}" for finding in self.remaining[:_SHOWN] for line in finding.lines()]
            lines += self.reasons[:_SHOWN]
        lines.append(f"{self.cache} is {'still damaged' if self.remaining else 'sound again'}")
        return "\n".join(lines)


def repair(
    source: str | os.PathLike[str] | None,
    cache: str | os.PathLike[str],
    *,
    decoder: str = DECODER,
    progress: Progress | None = None,
) -> RepairReport:
    """Bring a cache back to what was committed, bit for bit, as far as that is possible.

    Parameters
    ----------
    source : folder of images; None: where the last build found it
    cache : folder of the cache
    decoder : import path of the function that decodes
    progress : told how far reading the cache is

    Raises
    ------
    NotFoundError : no such folder, or it is not a cache
    FormatError : written by a newer version
    LockedError : another builder works on this cache
    StorageError : disk full or denied; what is mended stays mended
    """
    cache = layout.given_path(cache)
    with contextlib.ExitStack() as leases:  # refuses what is no cache, before anything is written
        survey(cache, leases, lambda read_bytes: None)
    folder = layout.given_path(source) if source is not None else _hinted(cache)
    report = RepairReport(str(cache))
    durable.make_dir(layout.pending_dir(cache))
    with BuildersLock(cache):
        for leftover in layout.pending_dir(cache).glob("repair-*.part"):  # of a repair that was killed
            durable.remove_file(leftover)
        lost = _restore_files(cache, folder, report)
        examined = examine(cache, progress)
        mended = mend_shards(examined, folder, decoder)
        report.files += mended.files
        report.rendered, report.salvaged = mended.rendered, mended.salvaged
        report.reasons += [f"{counted(count, 'tensor')}: {why}" for why, count in mended.reasons.items()]
        report.remaining = [f for f in examined.report.findings if (f.tensors_id, f.shard) not in mended.whole]
    if lost is not None and folder is not None:
        _replace(*lost, folder, cache, decoder, report)
    report.reasons += _advice(report, examined.report.snapshot)
    return report


def _hinted(cache: Path) -> Path | None:
    """SOURCE, if it lies where the last build saw it."""
    try:
        path = Path(os.path.realpath(cache)) / os.fsdecode(read_metadata(layout.source_hint(cache)))
        return path if path.is_dir() else None
    except (Unreadable, CacheStoreError, ValueError, OSError):
        return None


def _restore_files(cache: Path, source: Path | None, report: RepairReport) -> tuple[Surveyed, Root] | None:
    """Put back what can be had exactly, one after the other as each lets the next be read.

    If the snapshot in force cannot be had and may be built again, the newest whole one is put in force; returns the
    lost one and the root that there was.
    """
    for _ in range(_ROUNDS):
        examined = examine(cache, shards=False)
        files = restore(examined, _recompute(examined))
        if not set(files) - set(report.files):
            break
        report.files += [file for file in files if file not in report.files]
    root = examined.survey.root
    if root is None or root.snapshot is None or source is None:
        return None
    lost = examined.survey.snapshots.get(root.snapshot, Surveyed(root.snapshot))
    if lost.whole:
        return None
    whole = [name for name, state in examined.survey.snapshots.items() if state.whole]
    report.given_up, report.in_force = lost.name, whole[-1] if whole else None
    names = list(examined.survey.snapshots)
    writer.write_root(cache, root_for(cache, names, report.in_force, root.last, examined.survey.vouched))
    return lost, root


def _replace(lost: Surveyed, former: Root, source: Path, cache: Path, decoder: str, report: RepairReport) -> None:
    """Build a snapshot in place of a lost one, which then goes; if that fails, all is left as it was found."""
    try:
        report.rebuilt = _build_again(lost, source, cache, decoder)
    except (PreprocessError, CacheStoreError) as error:
        report.reasons.append(f"a new snapshot in place of {lost.name} could not be built: {error}")
        report.given_up = report.in_force = None
        with BuildersLock(cache):
            writer.write_root(cache, replace(former, last=read_root(cache).last))
        return
    with BuildersLock(cache):
        if layout.snapshot_dir(cache, lost.name).exists() and not drop_snapshot(cache, lost.name):
            report.reasons.append(f"snapshot {lost.name} is in use: decant gc CACHE removes it later")
            return
    report.remaining = [finding for finding in report.remaining if finding.snapshot != lost.name]


def _build_again(lost: Surveyed, source: Path, cache: Path, decoder: str) -> str | None:
    """A new snapshot in place of a lost one, with its recipe and statistics as far as they can be read."""
    from preprocess.builder import build

    recipe, stats = None, None
    if lost.attributes is not None:
        with contextlib.suppress(PreprocessError, *_NOT_METADATA):
            recipe = Recipe.from_dict(lost.attributes["recipe"])  # as it is: its splits keep their folders
            stats = _statistics(cache, lost) if recipe.fixed_statistics is None else None
    return build(source, cache, recipe, stats=stats, decoder=decoder).snapshot


def _statistics(cache: Path, lost: Surveyed) -> Statistics | None:
    """mean and std of any split whose metadata are whole; all have the same."""
    for path in lost.listed:
        if path.count("/") == 1 and path.endswith(layout.METADATA) and path not in lost.damaged:
            with contextlib.suppress(Unreadable, *_NOT_METADATA):
                data = json.loads(read_metadata(layout.snapshot_dir(cache, lost.name) / path))["attributes"]
                return tuple(data["mean"]), tuple(data["std"])
    return None


def _recompute(examined: Examined) -> Recomputed:
    """Metadata of tensors follow from a recipe and its statistics, or from a rendering."""

    def recompute(finding: Finding, digest: str) -> bytes | None:
        with contextlib.suppress(Unreadable, PreprocessError, *_NOT_METADATA):
            if finding.kind == TENSORS:
                return _group_metadata(examined.survey, str(finding.tensors_id), digest)
            if finding.kind == IMAGE:
                return _array_metadata(examined.survey.cache, str(finding.tensors_id), digest)
        return None

    return recompute


def _group_metadata(found: Survey, tensors_id: str, digest: str) -> bytes | None:
    """A tensors group's metadata as this environment would write them; right if it is the one that filled it."""
    from preprocess.probe import probe

    for state in found.snapshots.values():
        for name, table in state.snapshot.splits.items() if state.snapshot is not None else ():
            if table.tensors_id != tensors_id:
                continue
            recipe = Recipe.from_dict(dict(state.attributes or {})["recipe"])
            for engine in IN_WORDS:
                with contextlib.suppress(UsageError):  # an engine that is not here
                    rendering = recipe.rendering(name, engine, "")
                    rendering = replace(rendering, probe=probe(rendering, DECODER))
                    rendering = rendering.with_statistics((table.mean, table.std))
                    data = encode_group(writer.group_attributes(tensors_spec(rendering, 1)))
                    if digest_of(data).hex() == digest:
                        return data
    return None


def _array_metadata(cache: Path, tensors_id: str, digest: str) -> bytes | None:
    """An image array's metadata: shape and type from the rendering, S by trying."""
    group = json.loads(read_metadata(layout.tensors_dir(cache, tensors_id) / layout.METADATA))
    rendering = stored_rendering(group["attributes"])
    metadata = json.loads(encode_image_array(1, rendering.shape, np.dtype(rendering.dtype)))
    for slots in range(1, _MOST_SLOTS):
        metadata["chunk_grid"]["configuration"]["chunk_shape"][0] = slots
        data = json.dumps(metadata, indent=2).encode()
        if image_digest(data) == digest:
            return data
    return None


def _advice(report: RepairReport, current: str | None) -> list[str]:
    """What to do next about what is left."""
    lines = []
    if any(finding.kind == FOREIGN for finding in report.remaining):
        lines.append("files that are not ours are left alone: move them out of the cache")
    lost = sorted({f.snapshot for f in report.remaining if f.snapshot is not None})
    if current in lost:
        lines.append(f"tables of {current} cannot be brought back: with SOURCE, repair builds a new snapshot")
    if others := [name for name in lost if name != current]:
        lines.append(f"tables of {', '.join(others)} cannot be brought back, nothing needs them: decant gc CACHE")
    return lines
