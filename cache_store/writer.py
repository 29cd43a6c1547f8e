"""Adopts finished shards and publishes one snapshot. Only the holder of the builders' lock calls this.

Order of a commit: the shards' bytes, their numbers, their places, the tables, and last the pointer in the root's
`zarr.json`. Whatever happens before the pointer leaves the former snapshot as it was.
"""

import contextlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache_store import durable, layout
from cache_store.canonical import digest_of
from cache_store.errors import REPAIR, IntegrityError, NotFoundError, StorageError, UsageError
from cache_store.manifest import Snapshot, encode
from cache_store.metadata import encode_group, encode_image_array, resized
from cache_store.reader import Root, broken_link, metadata_digests, read_root, root_attributes, snapshot_names
from cache_store.records import PendingShard, read_record
from cache_store.shard import ShardReader, empty_shard
from cache_store.wary import MISSING, Unreadable, read_committed, read_metadata

_SCRATCH = "zarr.json.part"
_JOURNAL = "adopted.json"
_FLUSH_THREADS = 4
_HEX_ID = re.compile(r"[0-9a-f]{32}")
"""Names of builds and of tensors."""

_BEFORE_THE_ROOT = {"lock", _SCRATCH}
"""What a first build has put into `pending` when it writes the root."""


@dataclass(frozen=True, slots=True)
class TensorsSpec:
    """What a tensors group says of itself.

    Attributes
    ----------
    tensors_id : identity of `rendering`
    rendering : canonical description of the pixels
    mean, std : baked in (float16), None for uint8
    shape : C, H, W
    slots : S, for a group that does not exist yet
    """

    tensors_id: str
    rendering: dict[str, Any]
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    engine: str
    probe: str
    versions: dict[str, str]
    shape: tuple[int, int, int]
    slots: int

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("u1" if self.mean is None else "<f2")


def group_attributes(spec: TensorsSpec) -> dict[str, Any]:
    """The attributes of a tensors group."""
    return {
        "rendering": spec.rendering,
        "mean": None if spec.mean is None else list(spec.mean),
        "std": None if spec.std is None else list(spec.std),
        "engine": spec.engine,
        "probe": spec.probe,
        "versions": spec.versions,
    }


def refuse_foreign(cache: Path) -> None:
    """Make sure that `cache` is a cache, or may become one; writes nothing.

    Raises
    ------
    UsageError : the path is a file, or a folder with something else in it
    StorageError : the system refused
    """
    if is_ours(cache):
        return
    with durable.translated("read", cache):
        if link := broken_link(cache):
            raise UsageError(f"CACHE {link}")
        if cache.exists() and not cache.is_dir():
            raise UsageError(f"CACHE {str(cache)!r} is a file; name a folder that is new, empty, or a cache")
        foreign = _foreign_entries(cache) if cache.exists() else []
    if foreign:
        raise UsageError(
            f"CACHE {str(cache)!r} is not a decant cache and not empty (it holds {foreign[0]!r}); "
            "nothing was touched; name a new folder"
        )


def claim_folder(cache: Path) -> None:
    """Make the folder of a cache that may be one (`refuse_foreign`), as far as its lock needs it."""
    refuse_foreign(cache)
    if not cache.exists():
        _make_dirs(cache)
    make_pending(cache)


def make_pending(cache: Path) -> None:
    """Make `pending/`, which a copied cache may lack, and in a cache the metadata of it; needs no lock."""
    folder = layout.pending_dir(cache)
    durable.make_dir(folder)
    if (cache / layout.METADATA).exists():
        _ensure(folder / layout.METADATA, encode_group({}), folder / f"{uuid.uuid4().hex}.part")


def _foreign_entries(folder: Path) -> list[str]:
    """What is in a folder that is no cache, but for the `pending` of a first build that was killed before its root."""
    entries = sorted(entry.name for entry in os.scandir(folder))
    pending = layout.pending_dir(folder)
    if entries == [pending.name] and pending.is_dir():
        return [f"{pending.name}/{name}" for name in sorted(os.listdir(pending)) if name not in _BEFORE_THE_ROOT]
    return entries


def is_ours(cache: Path) -> bool:
    """Whether the folder's root says that it is a cache of a version we know; any other refusal is raised."""
    with durable.translated("read", cache):
        if not (cache / layout.METADATA).is_file():
            return False
    try:
        read_root(cache)
    except NotFoundError as error:
        raise UsageError(f"{error}; nothing was touched; name a new folder") from None
    return True


def begin(cache: Path) -> Path:
    """A new build's folder under `pending/`, with a name that was never used; root and groups are made if missing."""
    if not (cache / layout.METADATA).exists():
        write_root(cache, Root(None, 0, None))
    for folder in (cache / "tensors", cache / "snapshots", layout.pending_dir(cache)):
        durable.make_dir(folder)
        _ensure(folder / layout.METADATA, encode_group({}), layout.pending_dir(cache) / _SCRATCH)
    last = read_root(cache).last
    for entry in os.scandir(cache / "snapshots"):  # a killed commit's tables, never published
        if (layout.snapshot_number(entry.name) or 0) > last:
            durable.remove_tree(Path(entry.path))
    build = layout.pending_dir(cache) / uuid.uuid4().hex
    durable.make_dir(build, exist_ok=False)
    return build


def recover(cache: Path) -> tuple[list[PendingShard], list[Path]]:
    """Finished shards of builds that did not commit, and those builds' folders.

    Shards that a killed commit had already moved into the array are found through its journal. A shard whose
    size, index or record is wrong is left out; `verify_pending` reads the rest.
    """
    if not (cache / layout.METADATA).exists():
        return [], []
    folders = _build_folders(cache)
    committed = read_root(cache).last
    for folder in folders:
        _undo_adoption(folder, cache, committed)
    if folders:
        _fill_ends_after_a_kill(cache)
    return [shard for folder in folders for shard in _finished(folder)], folders


def unfinished(cache: Path) -> list[PendingShard]:
    """What `recover` would find, but for shards that a killed commit had moved; changes nothing, needs no lock."""
    try:
        return [shard for folder in _build_folders(cache) for shard in _finished(folder)]
    except FileNotFoundError:
        return []


def _build_folders(cache: Path) -> list[Path]:
    with os.scandir(layout.pending_dir(cache)) as entries:
        return sorted(Path(e.path) for e in entries if _HEX_ID.fullmatch(e.name) and e.is_dir(follow_symlinks=False))


def _finished(folder: Path) -> list[PendingShard]:
    shards = []
    for record in sorted(folder.glob("*.record")):
        try:
            shard = read_record(record)
            with ShardReader(shard.path, shard.slots, shard.chunk_bytes):
                shards.append(shard)
        except (IntegrityError, OSError):
            continue  # cut short by the kill: rendered again
    return shards


def is_hex_id(name: str) -> bool:
    """Whether a name may be that of a build or of tensors."""
    return _HEX_ID.fullmatch(name) is not None


def fill_ends(cache: Path, tensors_id: str) -> bool:
    """Put an empty shard at the end of an array that is longer than its shards; returns whether there was need.

    So the length always says where the last shard ends, and a changed one is noticed, whoever took the numbers in
    between: a build that was killed, or gc, which must not give back the number of the last shard.
    """
    image = layout.image_dir(cache, tensors_id)
    metadata = read_committed(image / layout.METADATA, f"tensors {tensors_id[:8]}")
    slots, shards = _slots_and_shards(metadata)
    last = max((n for entry in os.scandir(image) if (n := layout.shard_number(entry.name)) is not None), default=-1)
    if shards <= last + 1:
        return False
    scratch = layout.pending_dir(cache) / _SCRATCH
    durable.replace_file(layout.shard_file(cache, tensors_id, shards - 1), empty_shard(slots), scratch)
    return True


def _fill_ends_after_a_kill(cache: Path) -> None:
    for entry in os.scandir(cache / "tensors") if (cache / "tensors").is_dir() else ():
        with contextlib.suppress(IntegrityError, OSError, ValueError, LookupError, TypeError):  # damaged or half made
            fill_ends(cache, entry.name)


def verify_pending(shard: PendingShard) -> bool:
    """Read every chunk of a recovered shard from the medium, against its checksum and its record."""
    chunk = np.empty(shard.chunk_bytes, np.uint8)
    try:
        durable.forget(shard.path)  # a flush of the former build may have failed
        with ShardReader(shard.path, shard.slots, shard.chunk_bytes) as reader:
            return all(reader.read_into(place, chunk) == row["checksum"] for place, row in enumerate(shard.rows))
    except (IntegrityError, OSError):
        return False


def _undo_adoption(folder: Path, cache: Path, committed: int) -> None:
    try:
        journal = json.loads((folder / _JOURNAL).read_bytes())
        number, moves = int(journal["snapshot"]), [(Path(a).name, str(t), int(n)) for a, t, n in journal["moves"]]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if number <= committed:
        return  # it was published after all; the folder is litter
    for name, tensors_id, shard in reversed(moves):  # where it went last; a number before may have an empty shard now
        if not _HEX_ID.fullmatch(tensors_id):
            continue
        adopted = layout.shard_file(cache, tensors_id, shard)
        if adopted.exists() and not (folder / name).exists():
            durable.rename(adopted, folder / name)


def slots_of(cache: Path, tensors_id: str) -> int | None:
    """S of existing tensors; None if there are none of this id."""
    try:
        return _slots_and_shards(read_metadata(layout.image_dir(cache, tensors_id) / layout.METADATA))[0]
    except (Unreadable, ValueError, LookupError, TypeError) as error:
        if str(error) == MISSING:
            return None
        raise IntegrityError(f"tensors {tensors_id[:8]}: unreadable metadata ({error}); {REPAIR}") from error


def _slots_and_shards(image_metadata: bytes) -> tuple[int, int]:
    """S of an image array, and how many shards its length has room for: numbers below it are taken."""
    metadata = json.loads(image_metadata)
    slots, length = int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0]), int(metadata["shape"][0])
    if slots < 1:
        raise ValueError(f"{slots} slots a shard")
    return slots, -(-length // slots)


class Commit:
    """One commit in the making: adopt shards tensors by tensors, then publish the snapshot.

    Parameters
    ----------
    build : the build's folder under `pending/`

    Attributes
    ----------
    number : of the snapshot to be published
    parent, parent_digest : name of the snapshot in force, and what its metadata hashes to
    tensors : tensors_id -> digests, for the snapshot to list
    flush_s : what was waited for bytes to reach the medium
    """

    def __init__(self, cache: Path, build: Path) -> None:
        self._cache = cache
        self._scratch = build / _SCRATCH
        root = read_root(cache)
        self.number, self.parent, self.parent_digest = root.last + 1, root.snapshot, root.digest
        self._former = {name: digest for name, digest in root.former.items() if name != root.snapshot}
        self.tensors: dict[str, dict[str, str]] = {}
        self.flush_s = 0.0

    def ensure_tensors(self, spec: TensorsSpec) -> None:
        """Create a tensors group if it is not there, and note the digests that the snapshot will list.

        Raises
        ------
        IntegrityError : it is there, but not as the snapshots that use it list it
        """
        folder, image = layout.tensors_dir(self._cache, spec.tensors_id), layout.image_dir(self._cache, spec.tensors_id)
        if slots_of(self._cache, spec.tensors_id) not in (None, spec.slots) and not list(self._listed(spec.tensors_id)):
            durable.remove_tree(folder)  # made with another S by a commit that was killed; no snapshot has it
        for path in (folder, image):
            durable.make_dir(path)
        group = encode_group(group_attributes(spec))
        for path, data in (
            (folder / layout.METADATA, group),
            (image / layout.METADATA, encode_image_array(spec.slots, spec.shape, spec.dtype)),
        ):
            if not path.exists():
                durable.replace_file(path, data, self._scratch)
        for path in (folder, self._cache / "tensors"):
            durable.flush_dir(path)
        group, array = (
            read_committed(path / layout.METADATA, f"tensors {spec.tensors_id[:8]}") for path in (folder, image)
        )
        digests = metadata_digests(group, array)
        for name, listed in self._listed(spec.tensors_id):
            if digests != listed:  # never let a new snapshot vouch for damage
                raise IntegrityError(
                    f"tensors {spec.tensors_id[:8]}: metadata differs from what snapshot {name} committed; {REPAIR}"
                )
        self.tensors[spec.tensors_id] = digests

    def _listed(self, tensors_id: str) -> Iterator[tuple[str, dict[str, str]]]:
        """What each readable snapshot lists of these tensors."""
        for name in snapshot_names(self._cache):
            try:
                data = read_metadata(layout.snapshot_dir(self._cache, name) / layout.METADATA)
                listed = json.loads(data)["attributes"]["tensors"].get(tensors_id)
            except (Unreadable, ValueError, LookupError, TypeError, AttributeError):
                continue  # damaged: `verify` says so
            if listed is not None:
                yield name, listed

    def adopt(self, tensors_id: str, shards: Sequence[PendingShard]) -> list[int]:
        """Flush finished shards and move them into the tensors' array; returns the shard number of each.

        Raises
        ------
        StorageError : a flush failed; the shard is removed, as its bytes cannot be trusted any more
        UsageError : the shards have another S than the tensors; nothing was moved
        """
        if not shards:
            return []
        image = layout.image_dir(self._cache, tensors_id)
        metadata = read_committed(image / layout.METADATA, f"tensors {tensors_id[:8]}")
        slots, taken = _slots_and_shards(metadata)
        for shard in shards:
            if shard.slots != slots:
                raise UsageError(
                    f"tensors {tensors_id[:8]} have {slots} slots a shard, a new shard has {shard.slots}; "
                    "build with the shard size that these tensors were made with"
                )
        self._flush(shard.path for shard in shards)
        present = [n for entry in os.scandir(image) if (n := layout.shard_number(entry.name)) is not None]
        first = max(taken, max(present, default=-1) + 1)
        numbers = list(range(first, first + len(shards)))
        # Taking the numbers first means that none is ever given out twice, whatever happens to the files.
        durable.replace_file(image / layout.METADATA, resized(metadata, (numbers[-1] + 1) * slots), self._scratch)
        self._write_journal(shards, tensors_id, numbers)
        for shard, number in zip(shards, numbers, strict=True):
            durable.rename(shard.path, layout.shard_file(self._cache, tensors_id, number))
        durable.flush_dir(image)
        return numbers

    def _write_journal(self, shards: Sequence[PendingShard], tensors_id: str, numbers: Sequence[int]) -> None:
        """Say where each shard goes, in the folder it comes from: a resume moves them back."""
        for folder in {shard.path.parent for shard in shards}:
            moves = [
                (shard.path.name, tensors_id, number)
                for shard, number in zip(shards, numbers, strict=True)
                if shard.path.parent == folder
            ]
            try:
                former = json.loads((folder / _JOURNAL).read_bytes())
                if former["snapshot"] == self.number:
                    moves = [tuple(move) for move in former["moves"]] + moves
            except (OSError, ValueError, LookupError, TypeError):
                pass  # none yet
            data = json.dumps({"snapshot": self.number, "moves": moves}).encode()
            durable.replace_file(folder / _JOURNAL, data, folder / (_JOURNAL + ".part"))

    def _flush(self, paths: Iterable[Path]) -> None:
        def flush(path: Path) -> None:
            try:
                durable.flush_file(path)
            except StorageError:
                durable.remove_file(path)
                raise

        with self._timed(), ThreadPoolExecutor(_FLUSH_THREADS) as pool:
            list(pool.map(flush, paths))

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self.flush_s += time.monotonic() - begun

    def publish(self, snapshot: Snapshot) -> None:
        """Write the tables, then swap the pointer. From the swap on, new readers see this snapshot."""
        folder = layout.snapshot_dir(self._cache, snapshot.name)
        files, folders, data = [], [folder], b""
        durable.make_dir(folder)
        for relative, data in encode(snapshot):
            path = folder / relative
            for parent in reversed(Path(relative).parents[:-1]):
                if folder / parent not in folders:
                    folders.append(folder / parent)
                    durable.make_dir(folders[-1])
            durable.write_file(path, data)
            files.append(path)
        with self._timed(), ThreadPoolExecutor(_FLUSH_THREADS) as pool:
            list(pool.map(durable.flush_file, files))
            list(pool.map(durable.flush_dir, [*folders, folder.parent]))
        digest = digest_of(data).hex()  # the last file is the snapshot's own metadata
        write_root(self._cache, Root(snapshot.name, int(snapshot.name), digest, self._former))


def clear_pending(folders: Iterable[Path]) -> None:
    """Remove folders of builds that are done. What cannot be removed now (an orphan still writes) goes another time."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def source_by_hint(cache: Path) -> Path | None:
    """Where `leave_source_hint` says that SOURCE lies; None if nobody said so."""
    try:
        relative = layout.source_hint(cache).read_bytes()
    except OSError:
        return None
    return Path(os.path.normpath(os.path.join(os.path.realpath(cache), os.fsdecode(relative))))


def leave_source_hint(cache: Path, source: Path) -> None:
    """Note where SOURCE lies relative to the cache, so that commands can find it.

    Not flushed, and no matter if it fails: the snapshot is published already.
    """
    _leave_hint(
        layout.source_hint(cache), os.fsencode(os.path.relpath(os.path.realpath(source), os.path.realpath(cache)))
    )


def leave_scan_hint(cache: Path, snapshot: str, scanned_ns: int, read_formerly: Mapping[str, Sequence[str]]) -> None:
    """Note that a scan which began at `scanned_ns` found all files as the snapshot has them, doubtful ones by digest.

    Files whose time stamps lie close to the snapshot's own scan need not be read again for it, nor headers to find
    `read_formerly`, which is as in `SplitTable`. Not flushed, and no matter if it fails.
    """
    hint = {"snapshot": snapshot, "scanned_ns": scanned_ns, "read_formerly": read_formerly}
    _leave_hint(layout.scan_hint(cache), json.dumps(hint).encode())


def scan_by_hint(cache: Path, snapshot: str) -> int | None:
    """What `leave_scan_hint` noted of this snapshot; None if nothing that can be believed."""
    scanned_ns = _scan_hint(cache, snapshot).get("scanned_ns")
    return scanned_ns if isinstance(scanned_ns, int) and scanned_ns < time.time_ns() else None


def read_formerly_by_hint(cache: Path, snapshot: str) -> dict[str, list[str]] | None:
    """The same, of `read_formerly`."""
    noted: Any = _scan_hint(cache, snapshot).get("read_formerly")
    try:
        return {str(way): [bytes.fromhex(digest).hex() for digest in digests] for way, digests in noted.items()}
    except (AttributeError, TypeError, ValueError):
        return None


def _scan_hint(cache: Path, snapshot: str) -> dict[str, Any]:
    try:
        hint: dict[str, Any] = json.loads(layout.scan_hint(cache).read_bytes())
        return hint if hint["snapshot"] == snapshot else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}  # none yet, or torn by a power cut


def _leave_hint(path: Path, data: bytes) -> None:
    scratch = path.with_name(path.name + ".part")
    with contextlib.suppress(StorageError):
        durable.remove_file(scratch)
        durable.write_file(scratch, data)
        durable.rename(scratch, path)


def write_root(cache: Path, root: Root) -> None:
    """Swap the pointer: the commit point of builds, rollbacks, gc and repairs alike."""
    data = encode_group(root_attributes(root))
    durable.replace_file(cache / layout.METADATA, data, layout.pending_dir(cache) / _SCRATCH)


def _ensure(path: Path, data: bytes, scratch: Path) -> None:
    if not path.exists():
        durable.replace_file(path, data, scratch)


def _make_dirs(path: Path) -> None:
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        durable.make_dir(folder)
        durable.flush_dir(folder.parent)
