"""The frozen tables of a snapshot: which slot holds which variant of which sample; to and from Zarr arrays."""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache_store import layout
from cache_store.canonical import DIGEST_BYTES, canonical_json, digest_of
from cache_store.durable import read_error
from cache_store.errors import REPAIR, IntegrityError
from cache_store.mapped import map_file
from cache_store.shard import CHECKSUM_BYTES, checksum
from cache_store.wary import read_committed

COLUMNS: dict[str, tuple[str, tuple[str, ...]]] = {
    "slot": ("<i8", ("sample", "variant")),
    "checksum": ("<u4", ("sample", "variant")),
    "sum": ("<u8", ("sample", "variant", "channel")),
    "sumsq": ("<u8", ("sample", "variant", "channel")),
    "label": ("<i8", ("sample",)),
    "digest": ("u1", ("sample", "byte")),
    "path": ("u1", ("byte",)),
    "path_end": ("<i8", ("sample",)),
    "size": ("<i8", ("sample",)),
    "mtime_ns": ("<i8", ("sample",)),
    "ctime_ns": ("<i8", ("sample",)),
    "inode": ("<i8", ("sample",)),
    "source_hw": ("<i4", ("sample", "axis")),
    "decoder": ("u1", ("sample", "variant")),
}
"""Name -> (dtype, dimensions). Lengths agree by dimension name within a split; `path` has a length of its own."""


@dataclass(frozen=True, slots=True)
class SplitTable:
    """One split of a snapshot.

    Attributes
    ----------
    tensors_id : which tensors its slots count in
    mean, std : in force, in 0..1, one value a channel; for uint8 tensors too
    scanned_ns : when the folder was scanned, ns since the epoch
    decoders : names for the values of the column `decoder`
    read_formerly : way of reading -> digests, in hex, of the samples that would be read in this way now and whose slots
        were read in a former one; None in tables of versions that knew one way only
    columns : name -> array as in `COLUMNS`; stored ones are mapped and verified when first asked for
    """

    tensors_id: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    scanned_ns: int
    decoders: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    read_formerly: Mapping[str, Sequence[str]] | None = None

    def __len__(self) -> int:
        return len(self.columns["label"])

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    @property
    def variants(self) -> int:
        """K."""
        return self.columns["slot"].shape[1]

    def paths(self) -> list[bytes]:
        """Path of each sample relative to SOURCE, as bytes, '/' between folders."""
        return split_strings(self.columns["path"], self.columns["path_end"])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Immutable, complete, committed state of a cache; see `layout` for where each part is kept.

    Attributes
    ----------
    name : such as '000003'
    parent, parent_digest : the snapshot that it came after, and what that one's metadata hash to; None: the first
    created : UTC, as '2026-01-31T12:00:00Z'
    seconds : how long the build took
    recipe : canonical, with every argument resolved
    classes : names by class id
    splits : name -> table, in the order of the recipe
    failures : path, split, stage and reason of each image that was left out, and its file's stat and digest
    tensors : tensors_id -> digests of its metadata: 'group' and 'image'
    splits_written : the recipe named the folders of its splits; they were not found by their names
    """

    name: str
    parent: str | None
    parent_digest: str | None
    created: str
    seconds: float
    recipe: dict[str, Any]
    classes: tuple[str, ...]
    splits: dict[str, SplitTable]
    failures: tuple[dict[str, Any], ...]
    tensors: dict[str, dict[str, str]]
    splits_written: bool = False


def join_strings(strings: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Strings as one run of bytes and the end offset of each: uint8 (bytes,), int64 (n,)."""
    ends = np.cumsum([len(s) for s in strings], dtype=np.int64) if strings else np.zeros(0, np.int64)
    return np.frombuffer(b"".join(strings), np.uint8), ends


def split_strings(data: np.ndarray, ends: np.ndarray) -> list[bytes]:
    """The inverse of `join_strings`.

    Raises
    ------
    IntegrityError : ends that go back or past the data: a million samples could each claim all of it
    """
    if len(ends) and (ends[0] < 0 or ends[-1] > len(data) or (ends[1:] < ends[:-1]).any()):
        raise IntegrityError(f"paths of {len(data)} bytes in all end where none can; {REPAIR}")
    blob, start, strings = data.tobytes(), 0, []
    for end in ends.tolist():
        strings.append(blob[start:end])
        start = end
    return strings


def encode(snapshot: Snapshot) -> Iterator[tuple[str, bytes]]:
    """Every file of a snapshot, one after the other, so that no more than one column is in memory at a time: path
    relative to its folder, bytes. The last one is its own `zarr.json`, which lists the others' digests."""
    from cache_store.metadata import encode_array, encode_group

    digests: dict[str, str] = {}

    def noted(path: str, data: bytes) -> tuple[str, bytes]:
        digests[path] = digest_of(data).hex()
        return path, data

    lines = "".join(canonical_json(failure).decode() + "\n" for failure in snapshot.failures).encode()
    yield from itertools.starmap(noted, encode_array("failures", np.frombuffer(lines, np.uint8), ("byte",)).items())
    for name, split in snapshot.splits.items():
        for column, (dtype, dimensions) in COLUMNS.items():
            data = np.ascontiguousarray(split[column], np.dtype(dtype))
            yield from itertools.starmap(noted, encode_array(f"{name}/{column}", data, dimensions).items())
        described = {
            "tensors_id": split.tensors_id,
            "mean": list(split.mean),
            "std": list(split.std),
            "scanned_ns": split.scanned_ns,
            "decoders": list(split.decoders),
            "read_formerly": None
            if split.read_formerly is None
            else {way: list(digests) for way, digests in split.read_formerly.items()},
        }
        yield noted(f"{name}/{layout.METADATA}", encode_group(described))
    own = encode_group(
        {
            "recipe": snapshot.recipe,
            "parent": snapshot.parent,
            "parent_digest": snapshot.parent_digest,
            "created": snapshot.created,
            "seconds": snapshot.seconds,
            "classes": [layout.name_to_text(name) for name in snapshot.classes],
            "files": dict(sorted(digests.items())),
            "tensors": snapshot.tensors,
            **({"splits_written": True} if snapshot.splits_written else {}),
        }
    )
    yield layout.METADATA, own


def _nothing() -> None:
    """Where nobody watches for the folder's replacement."""


def decode(folder: Path, digest: str | None, attend: Callable[[], None] = _nothing) -> Snapshot:
    """Read a snapshot; its tables are mapped and verified when first used.

    Parameters
    ----------
    folder : `snapshots/<name>`
    digest : what the snapshot's own metadata must hash to, hex; None: not known
    attend : called before a table is mapped; raises where the folder is not the one that was read any more

    Raises
    ------
    IntegrityError : a file is missing, cut, or differs from its digest
    StorageError : the system refused to read one
    """
    data = _read(folder / layout.METADATA, digest)
    try:
        attributes = json.loads(data)["attributes"]
        files = attributes["files"]
        split_names = sorted(path.split("/")[0] for path in files if path.endswith("/label/zarr.json"))
        splits = {}
        for name in split_names:
            table = json.loads(_read(folder / name / layout.METADATA, files[f"{name}/{layout.METADATA}"]))["attributes"]
            splits[name] = SplitTable(
                tensors_id=str(table["tensors_id"]),
                mean=tuple(table["mean"]),
                std=tuple(table["std"]),
                scanned_ns=int(table["scanned_ns"]),
                decoders=tuple(table["decoders"]),
                read_formerly=table.get("read_formerly"),
                columns=_StoredColumns(
                    folder / name, {k: files[f"{name}/{k}/{layout.METADATA}"] for k in COLUMNS}, attend
                ),
            )
        lines = _load(folder / "failures", files[f"failures/{layout.METADATA}"], "u1").tobytes()
        order = [name for name in attributes["recipe"]["splits"] if name in splits]
        return Snapshot(
            name=folder.name,
            parent=attributes["parent"],
            parent_digest=attributes.get("parent_digest"),
            created=str(attributes["created"]),
            seconds=float(attributes["seconds"]),
            recipe=attributes["recipe"],
            classes=tuple(layout.text_to_name(name) for name in attributes["classes"]),
            splits={name: splits[name] for name in order},
            failures=tuple(json.loads(line) for line in lines.splitlines()),
            tensors=attributes["tensors"],
            splits_written=attributes.get("splits_written") is True,
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise IntegrityError(
            f"snapshot {folder.name}: its metadata is not what decant writes ({type(error).__name__}: {error}); "
            + REPAIR
        ) from error


class _StoredColumns(Mapping[str, np.ndarray]):
    """Columns of a stored split, each mapped and verified once, when first asked for."""

    def __init__(self, folder: Path, metadata_digests: dict[str, str], attend: Callable[[], None]) -> None:
        self._folder = folder
        self._attend = attend
        self._digests = metadata_digests
        self._loaded: dict[str, np.ndarray] = {}

    def __getitem__(self, column: str) -> np.ndarray:
        if column not in self._loaded:
            self._attend()
            self._loaded[column] = _load(self._folder / column, self._digests[column], COLUMNS[column][0])
        return self._loaded[column]

    def __iter__(self) -> Iterator[str]:
        return iter(COLUMNS)

    def __len__(self) -> int:
        return len(COLUMNS)


def _read(path: Path, digest: str | None) -> bytes:
    data = read_committed(path, repr(str(path)))
    if digest is not None and digest_of(data).hex() != digest:
        raise IntegrityError(f"{str(path)!r} is damaged: its digest is not the recorded one; {REPAIR}")
    return data


def _load(folder: Path, metadata_digest: str, dtype: str) -> np.ndarray:
    """One stored array, mapped read-only; its length and checksum are verified before it is used."""
    shape = _shape(json.loads(_read(folder / layout.METADATA, metadata_digest)), folder)
    wanted = np.dtype(dtype)
    size = math.prod(shape) * wanted.itemsize
    if size == 0:
        return np.zeros(shape, wanted)
    chunk = folder / ".".join(["c", *("0" for _ in shape)])
    try:
        data = map_file(chunk)
    except OSError as error:
        raise read_error(repr(str(chunk)), chunk, error) from error
    if len(data) != size + CHECKSUM_BYTES:
        raise IntegrityError(f"{str(chunk)!r}: {size + CHECKSUM_BYTES} bytes expected, {len(data)} found; {REPAIR}")
    if checksum(data[:size]) != int.from_bytes(data[size:].tobytes(), "little"):
        raise IntegrityError(f"{str(chunk)!r} is damaged: its checksum is wrong; {REPAIR}")
    return data[:size].view(wanted).reshape(shape)


def _shape(metadata: Any, folder: Path) -> tuple[int, ...]:
    shape = metadata.get("shape") if isinstance(metadata, dict) else None
    dimensions = COLUMNS.get(folder.name, ("", ("byte",)))[1]
    if not isinstance(shape, list) or len(shape) != len(dimensions):
        raise IntegrityError(f"{str(folder)!r}: {len(dimensions)} lengths expected, {shape!r} found")
    if not all(isinstance(n, int) and 0 <= n < 1 << 48 for n in shape):
        raise IntegrityError(f"{str(folder)!r}: its lengths {shape!r} cannot be meant")
    return tuple(shape)


def no_rows(variants: int, channels: int) -> dict[str, np.ndarray]:
    """Columns of a split without samples."""
    lengths = {"variant": variants, "channel": channels, "byte": 0, "sample": 0, "axis": 2}
    columns = {
        name: np.zeros([lengths[d] for d in dimensions], np.dtype(dtype))
        for name, (dtype, dimensions) in COLUMNS.items()
    }
    columns["digest"] = np.zeros((0, DIGEST_BYTES), np.uint8)
    return columns
