"""Reads every byte under a cache, `pending/` apart, against checksums, digests and tables; reports, never repairs.

root, snapshots and their tables     `survey`
groups of fixed content              against what the writer writes
tensors' metadata                    against the digests that snapshots list
shards                               `shard_check`, in threads: reading and CRC32C leave the interpreter to others
anything else                        is foreign
"""

import contextlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache_store import layout
from cache_store.findings import FOREIGN, GROUP, IMAGE, SHARD, TENSORS, Finding, Sample, VerifyReport
from cache_store.reader import metadata_digests
from cache_store.shard_check import ShardState, check_shard
from cache_store.survey import Expected, Survey, survey
from cache_store.wary import MISSING, Unreadable, entries, read_metadata

Progress = Callable[[int, int, int], None]
"""Bytes read, bytes in all, findings so far."""

MOST_SAMPLES = 10_000
"""Samples that a report names; a lost disk has millions, and one finding a shard says it as well."""

_MOST_THREADS = 16
_MOST_SLOTS = 1 << 20
_MOST_CHUNK_BYTES = 1 << 40
_HEX_ID = re.compile(r"[0-9a-f]{32}")
_NOT_METADATA = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)
EMPTY_GROUP: dict[str, Any] = {"attributes": {}, "zarr_format": 3, "node_type": "group"}


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """What an image array's metadata say of its shards: S, the size of a chunk, and the length along the slots."""

    slots: int
    chunk_bytes: int
    length: int

    @staticmethod
    def of(image_metadata: bytes) -> "ArrayLayout":
        """Raises ValueError and its like if that cannot be meant."""
        metadata = json.loads(image_metadata)
        slots = metadata["chunk_grid"]["configuration"]["chunk_shape"][0]
        shape = metadata["shape"]
        itemsize = {"float16": 2, "uint8": 1}[metadata["data_type"]]
        if len(shape) != 4 or not all(type(n) is int and n >= 0 for n in (slots, *shape)):
            raise ValueError("four lengths expected")
        chunk_bytes = math.prod(shape[1:]) * itemsize
        if not (1 <= slots <= _MOST_SLOTS and 1 <= chunk_bytes <= _MOST_CHUNK_BYTES and shape[0] < 1 << 60):
            raise ValueError("lengths that cannot be meant")
        return ArrayLayout(slots, chunk_bytes, shape[0])


@dataclass(frozen=True, slots=True)
class Shard:
    """One shard to look at."""

    tensors_id: str
    number: int
    array: ArrayLayout
    expected: Expected


@dataclass(frozen=True, slots=True)
class Examined:
    """A report, and what a repair needs beyond it.

    Attributes
    ----------
    survey : what can be believed of the snapshots
    shards : tensors_id -> number -> what a damaged shard is like
    arrays : tensors_id -> layout, where it is known
    """

    report: VerifyReport
    survey: Survey
    shards: dict[str, dict[int, ShardState]]
    arrays: dict[str, ArrayLayout]


def verify(cache: str | os.PathLike[str], progress: Progress | None = None) -> VerifyReport:
    """Read a whole cache and report what is not as it was committed. Writes nothing and takes no lock.

    Parameters
    ----------
    progress : called from time to time

    Raises
    ------
    NotFoundError : no such folder, or it is not a cache
    FormatError : written by a newer version
    StorageError : the system refused to read
    """
    return examine(layout.given_path(cache), progress).report


def examine(cache: Path, progress: Progress | None = None, *, shards: bool = True) -> Examined:
    """`verify`, with what a repair needs; without `shards` they are not read."""
    with contextlib.ExitStack() as leases:
        return _examine(cache, progress, leases, shards)


def _examine(cache: Path, progress: Progress | None, leases: contextlib.ExitStack, shards: bool) -> Examined:
    began = time.monotonic()
    tally = _Tally(cache, progress)
    found = survey(cache, leases, tally.count)
    tally.found(len(found.findings))
    findings, notes = list(found.findings), list(found.notes)
    findings += _foreign(cache, "", {layout.METADATA, "tensors", "snapshots", "pending"})
    # Any other snapshot by its name is one that a build has begun, or gc removed, since the list was made.
    findings += _foreign(cache, "snapshots/", {layout.METADATA}, _is_snapshot)
    for name in ("tensors", "snapshots", "pending"):
        # A cache that was copied may lack `pending`, which holds nothing of any snapshot.
        if name != "pending" or layout.pending_dir(cache).exists():
            findings += _check_group(cache, name)
    todo: list[Shard] = []
    arrays: dict[str, ArrayLayout] = {}
    for tensors_id in sorted({e.name for e in entries(cache / "tensors")} | set(found.tensors)):
        if tensors_id == layout.METADATA:
            continue
        if not _HEX_ID.fullmatch(tensors_id) or not (layout.tensors_dir(cache, tensors_id)).is_dir():
            if tensors_id not in found.tensors:
                findings.append(Finding(FOREIGN, f"tensors/{tensors_id}", "no tensors have such a name"))
                continue
        array, more = _check_tensors(found, tensors_id, notes)
        findings += more
        if array is not None:
            arrays[tensors_id] = array
            todo += _shards_of(found, tensors_id, array) if shards else []
    states = _check_shards(cache, todo, tally)
    damaged: dict[str, dict[int, ShardState]] = {}
    for shard, state in zip(todo, states):
        if state.problems:
            damaged.setdefault(shard.tensors_id, {})[shard.number] = state
            findings.append(_shard_finding(cache, shard, state))
    tally.done()
    report = VerifyReport(
        cache=str(cache),
        snapshot=found.root.snapshot if found.root is not None else None,
        snapshots=tuple(found.snapshots),
        files=tally.files,
        read_bytes=tally.read_bytes,
        seconds=round(time.monotonic() - began, 3),
        findings=tuple(_named(found, findings)),
        notes=tuple(notes),
    )
    return Examined(report, found, damaged, arrays)


def _foreign(
    cache: Path, folder: str, known: set[str], ours: Callable[[os.DirEntry[str]], bool] = lambda entry: False
) -> list[Finding]:
    """Entries that are neither known by name nor of a kind of `ours`, which may appear at any time."""
    return [
        Finding(FOREIGN, f"{folder}{entry.name}", "nothing that decant writes")
        for entry in entries(cache / folder)
        if entry.name not in known and not ours(entry)
    ]


def _is_snapshot(entry: os.DirEntry[str]) -> bool:
    return bool(layout.snapshot_number(entry.name)) and entry.is_dir()


def _is_shard(entry: os.DirEntry[str]) -> bool:
    return layout.shard_number(entry.name) is not None


def _shard_numbers(image: Path) -> list[int]:
    return [number for entry in entries(image) if (number := layout.shard_number(entry.name)) is not None]


def _check_group(cache: Path, name: str) -> list[Finding]:
    """A `zarr.json` that never says anything else."""
    file = f"{name}/{layout.METADATA}"
    try:
        data = read_metadata(cache / file)
        sound = json.loads(data) == EMPTY_GROUP and json.dumps(json.loads(data), indent=2).encode() == data
        problem = "" if sound else "it is not what decant writes"
    except Unreadable as error:
        problem = str(error)
    except _NOT_METADATA:
        problem = "no metadata of a Zarr group"
    return [Finding(GROUP, file, problem)] if problem else []


def _check_tensors(found: Survey, tensors_id: str, notes: list[str]) -> tuple[ArrayLayout | None, list[Finding]]:
    """Metadata of one tensors against what snapshots list of it, and foreign files beside its shards."""
    cache, listed = found.cache, found.tensors.get(tensors_id, {})
    folder, image = layout.tensors_dir(cache, tensors_id), layout.image_dir(cache, tensors_id)
    present = set(_shard_numbers(image))  # before the length is read: a build takes numbers before it uses them
    findings = _foreign(cache, f"tensors/{tensors_id}/", {layout.METADATA, "image"})
    findings += _foreign(cache, f"tensors/{tensors_id}/image/", {layout.METADATA}, _is_shard)
    if not listed:
        notes.append(f"tensors/{tensors_id} is used by no snapshot; decant gc removes it")
    data: dict[str, bytes] = {}
    for kind, path in ((TENSORS, folder / layout.METADATA), (IMAGE, image / layout.METADATA)):
        file = str(path.relative_to(cache))
        try:
            data[kind] = read_metadata(path)
            if json.dumps(json.loads(data[kind]), indent=2).encode() != data[kind]:
                raise ValueError
        except Unreadable as error:
            if listed or str(error) != MISSING:  # unused ones may have been left half made
                findings.append(Finding(kind, file, str(error), tensors_id=tensors_id))
            data.pop(kind, None)
        except _NOT_METADATA:
            findings.append(Finding(kind, file, "it is not what decant writes", tensors_id=tensors_id))
            del data[kind]
    digests = metadata_digests(data.get(TENSORS, b""), data.get(IMAGE, b""))
    for kind, key in ((TENSORS, "group"), (IMAGE, "image")):
        wrong = [name for name, wanted in listed.items() if wanted[key] != digests[key]]
        if wrong and kind in data:
            file = f"tensors/{tensors_id}/{'image/' if kind == IMAGE else ''}{layout.METADATA}"
            text = f"it is not what snapshot {wrong[-1]} committed"
            findings.append(Finding(kind, file, text, tensors_id=tensors_id))
            del data[kind]
    if IMAGE not in data:
        return None, findings
    try:
        array = ArrayLayout.of(data[IMAGE])
    except _NOT_METADATA:
        text = "it does not describe an array of ours"
        findings.append(Finding(IMAGE, f"tensors/{tensors_id}/image/{layout.METADATA}", text, tensors_id=tensors_id))
        return None, findings
    return array, findings + _check_length(found, tensors_id, array, present, notes)


def _check_length(
    found: Survey, tensors_id: str, array: ArrayLayout, present: set[int], notes: list[str]
) -> list[Finding]:
    """The length is that of the last shard's end: gc leaves an empty shard there (`writer.fill_ends`)."""
    expected = found.expected.get(tensors_id, Expected())
    last = max([-1, *present, *(expected.slots[-1:] // array.slots).tolist()])
    wanted = (last + 1) * array.slots
    if array.length == wanted:
        return []
    if array.length > wanted and array.length % array.slots == 0 and _interrupted(found.cache):
        notes.append(f"tensors/{tensors_id} has numbers taken by a build that was killed")
        return []
    text = f"a length of {wanted} slots expected, {array.length} found"
    return [Finding(IMAGE, f"tensors/{tensors_id}/image/{layout.METADATA}", text, tensors_id=tensors_id)]


def _interrupted(cache: Path) -> bool:
    """Whether a build is running or was killed."""
    return any(_HEX_ID.fullmatch(entry.name) for entry in entries(layout.pending_dir(cache)))


def _shards_of(found: Survey, tensors_id: str, array: ArrayLayout) -> list[Shard]:
    """Shards that are there or should be."""
    present = set(_shard_numbers(layout.image_dir(found.cache, tensors_id)))
    expected = found.expected.get(tensors_id, Expected())
    return [Shard(tensors_id, n, array, expected) for n in sorted(present | set(expected.shards(array.slots)))]


def _check_shards(cache: Path, todo: list[Shard], tally: "_Tally") -> list[ShardState]:
    def check(shard: Shard) -> ShardState:
        places, checksums = shard.expected.of_shard(shard.number, shard.array.slots)
        path = layout.shard_file(cache, shard.tensors_id, shard.number)
        state = check_shard(path, shard.array.slots, shard.array.chunk_bytes, places, checksums, tally.count)
        tally.found(bool(state.problems))
        if not state.problems:
            state.sound.clear()  # a million healthy chunks need not be remembered
        return state

    with ThreadPoolExecutor(min(_MOST_THREADS, processors())) as pool:
        return list(pool.map(check, todo))


def processors() -> int:
    """Those that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _shard_finding(cache: Path, shard: Shard, state: ShardState) -> Finding:
    file = layout.shard_file(cache, shard.tensors_id, shard.number).relative_to(cache)
    slots = tuple(shard.number * shard.array.slots + place for place in state.lost)
    what = "; ".join(state.problems)
    if not slots and not len(shard.expected.of_shard(shard.number, shard.array.slots)[0]):
        what += "; no snapshot that can be read uses this shard"
    return Finding(SHARD, str(file), what, tensors_id=shard.tensors_id, shard=shard.number, slots=slots)


def _named(found: Survey, findings: list[Finding]) -> list[Finding]:
    """The same findings, with the samples that each has lost."""
    lost: dict[str, set[int]] = {}
    for finding in findings:
        if finding.slots and finding.tensors_id:
            lost.setdefault(finding.tensors_id, set()).update(finding.slots)
    names: dict[tuple[str, int], list[Sample]] = {}
    room = MOST_SAMPLES
    for tensors_id, slots in lost.items():
        for slot, sample in found.samples_of(tensors_id, slots):
            if room == 0:
                break
            names.setdefault((tensors_id, slot), []).append(sample)
            room -= 1
    return [
        replace(f, samples=tuple(s for slot in f.slots for s in names.get((f.tensors_id, slot), [])))
        if f.slots and f.tensors_id
        else f
        for f in findings
    ]


class _Tally:
    """Files and bytes read so far, counted by all threads."""

    def __init__(self, cache: Path, progress: Progress | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self.files = self._total = 0
        for folder, names, files in os.walk(cache):
            if folder == str(cache) and "pending" in names:
                names.remove("pending")
            for name in files:
                try:
                    self._total += os.lstat(os.path.join(folder, name)).st_size
                    self.files += 1
                except OSError:  # gone meanwhile
                    continue
        self.read_bytes = self._findings = 0

    def count(self, read_bytes: int) -> None:
        with self._lock:
            self.read_bytes += read_bytes
        self._show()

    def found(self, findings: int) -> None:
        with self._lock:
            self._findings += findings

    def done(self) -> None:
        self._show(force=True)

    def _show(self, *, force: bool = False) -> None:
        if self._progress is not None:
            read = max(self.read_bytes, self._total) if force else min(self.read_bytes, self._total)
            self._progress(read, self._total, self._findings)
