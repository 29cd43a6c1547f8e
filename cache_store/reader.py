"""Opens one snapshot of a cache and hands out the bytes of its slots."""

import json
import os
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache_store import layout
from cache_store.canonical import digest_of
from cache_store.errors import FormatError, IntegrityError, NotFoundError
from cache_store.lock import Lease
from cache_store.manifest import Snapshot, SplitTable, decode
from cache_store.mapped import map_file
from cache_store.metadata import image_digest
from cache_store.shard import index_bytes, read_index

MAX_MAPS = 16_384
"""Shards mapped at once by one process; the kernel's default limit is 65,530 maps (vm.max_map_count)."""

_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Root:
    """What a cache's `zarr.json` says: the current snapshot, the last one ever made, and the digest of the current."""

    snapshot: str | None
    last: int
    digest: str | None


def read_root(cache: Path) -> Root:
    """Read the commit point.

    Raises
    ------
    NotFoundError : no such folder, or not a cache
    FormatError : a format version or an extension that this version does not know
    IntegrityError : the file is damaged
    """
    path = cache / layout.METADATA
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        what = "is not a decant cache (it has no zarr.json)" if cache.is_dir() else "does not exist"
        raise NotFoundError(f"{str(cache)!r} {what}; build one with: decant build SOURCE CACHE") from None
    except NotADirectoryError:
        raise NotFoundError(f"{str(cache)!r} is a file, a cache is a folder") from None
    except OSError as error:
        raise IntegrityError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    try:
        attributes: dict[str, Any] = json.loads(data)["attributes"]
    except (ValueError, KeyError, TypeError):
        raise IntegrityError(f"{str(path)!r} is damaged: it is not the metadata of a Zarr group") from None
    ours = attributes.get("decant") if isinstance(attributes, dict) else None
    if not isinstance(ours, dict):
        raise NotFoundError(f"{str(cache)!r} is a Zarr group, but not a decant cache")
    version, needs = ours.get("format_version"), ours.get("needs", [])
    if version != layout.FORMAT_VERSION:
        raise FormatError(
            f"{str(cache)!r} has format version {version}, this decant reads version {layout.FORMAT_VERSION}; "
            "install the decant that wrote it, or build into a new folder"
        )
    unknown = sorted(set(map(str, needs)) - layout.KNOWN_NEEDS)
    if unknown:
        raise FormatError(f"{str(cache)!r} needs {', '.join(unknown)}, unknown to this decant; install a newer one")
    snapshot, last, digest = ours.get("snapshot"), ours.get("last"), ours.get("digest")
    names = [name for name in (snapshot, last) if name is not None]
    if not all(isinstance(name, str) and re.fullmatch(r"[0-9]{6,18}", name) for name in names):
        raise IntegrityError(f"{str(path)!r} is damaged: snapshot {snapshot!r}, last {last!r} are not snapshot names")
    return Root(snapshot, int(last) if last else 0, digest)


def open_cache(path: str | os.PathLike[str], snapshot: str | None = None) -> "Cache":
    """Open a cache for reading, at its current snapshot or at a named one.

    Raises
    ------
    NotFoundError : no such cache or snapshot
    FormatError, IntegrityError : written by another version, or damaged
    """
    cache = Path(path)
    for attempt in range(_ATTEMPTS):
        root = read_root(cache)
        name = snapshot or root.snapshot
        if name is None:
            raise NotFoundError(
                f"{str(cache)!r} has no finished snapshot: its first build is running or was interrupted; "
                "run decant build SOURCE CACHE"
            )
        try:
            lease = Lease(cache, name)
        except (FileNotFoundError, BlockingIOError):
            # Gone (or going) since we read the pointer: read it again, unless this one was asked for.
            if snapshot is None and attempt + 1 < _ATTEMPTS and read_root(cache).snapshot != name:
                continue
            if name == root.snapshot:
                raise IntegrityError(f"{str(cache)!r}: its current snapshot {name} is missing") from None
            known = ", ".join(snapshot_names(cache)) or "none"
            raise NotFoundError(f"{str(cache)!r} has no snapshot {name!r}; there are: {known}") from None
        except OSError as error:
            raise IntegrityError(f"{str(cache)!r}: snapshot {name} cannot be read: {error.strerror}") from error
        try:
            digest = root.digest if name == root.snapshot else None
            return Cache(cache, decode(layout.snapshot_dir(cache, name), digest), lease)
        except BaseException:
            lease.close()
            raise
    raise NotFoundError(f"{str(cache)!r}: its snapshots change faster than they can be opened")


def snapshot_names(cache: Path) -> list[str]:
    """Committed snapshots on disk, oldest first."""
    last = read_root(cache).last
    try:
        names = sorted(entry.name for entry in os.scandir(cache / "snapshots") if entry.name.isdecimal())
    except FileNotFoundError:
        return []
    return [name for name in names if int(name) <= last]


class Cache:
    """One snapshot of a cache, held by a lease until `close`; safe to use after fork.

    Attributes
    ----------
    path : the cache's folder
    snapshot : its tables
    """

    def __init__(self, path: Path, snapshot: Snapshot, lease: Lease) -> None:
        self.path = path
        self.snapshot = snapshot
        self._lease = lease
        self._tensors: dict[str, TensorReader] = {}

    @property
    def splits(self) -> dict[str, SplitTable]:
        return self.snapshot.splits

    def split(self, name: str) -> SplitTable:
        """The table of one split.

        Raises
        ------
        NotFoundError : there is none of this name; the message lists those there are
        """
        try:
            return self.snapshot.splits[name]
        except KeyError:
            known = ", ".join(self.snapshot.splits) or "none"
            raise NotFoundError(f"{str(self.path)!r} has no split {name!r}; there are: {known}") from None

    def tensors(self, split: str) -> "TensorReader":
        """The tensors that a split's slots count in."""
        tensors_id = self.split(split).tensors_id
        if tensors_id not in self._tensors:
            digests = self.snapshot.tensors.get(tensors_id)
            if digests is None:
                raise IntegrityError(f"snapshot {self.snapshot.name} does not list the tensors of split {split!r}")
            self._tensors[tensors_id] = TensorReader(self.path, tensors_id, digests)
        return self._tensors[tensors_id]

    def image(self, split: str, sample: int, variant: int = 0) -> np.ndarray:
        """The stored tensor of one variant of one sample: (C, H, W), read-only, a view of the mapped shard.

        Raises
        ------
        IntegrityError : the chunk is missing or its shard is damaged; names the sample and the file
        """
        table = self.split(split)
        try:
            return self.tensors(split).chunk(int(table["slot"][sample, variant]))
        except IntegrityError as error:
            path = os.fsdecode(table.paths()[sample])
            raise IntegrityError(f"{error}: sample {path!r} variant {variant}; build into a new folder") from error

    def close(self) -> None:
        """Give up the lease; arrays handed out stay valid."""
        self._tensors.clear()
        self._lease.close()

    def __enter__(self) -> "Cache":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TensorReader:
    """Chunks of one tensors' image array, out of a bounded set of mapped shards (least recently used go first).

    Attributes
    ----------
    shape : C, H, W
    dtype : float16 or uint8
    slots : S
    attributes : of the tensors' group (rendering, mean, std, engine, probe, versions)
    """

    def __init__(self, cache: Path, tensors_id: str, digests: dict[str, str], max_maps: int = MAX_MAPS) -> None:
        self._cache = cache
        self.tensors_id = tensors_id
        group, image = _read_metadata(cache, tensors_id)
        if digest_of(group).hex() != digests["group"] or image_digest(image) != digests["image"]:
            raise IntegrityError(
                f"tensors {tensors_id[:8]}: metadata differs from what snapshot committed; build into a new folder"
            )
        self.attributes = json.loads(group)["attributes"]
        metadata = json.loads(image)
        self.slots = int(metadata["chunk_grid"]["configuration"]["chunk_shape"][0])
        self.shape = tuple(int(n) for n in metadata["shape"][1:])
        self.dtype = np.dtype(metadata["data_type"]).newbyteorder("<")
        self.chunk_bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self._max_maps = max_maps
        self._maps: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()

    def chunk(self, slot: int) -> np.ndarray:
        """The tensor in `slot`: (C, H, W), read-only, a view that keeps its shard mapped.

        Raises
        ------
        IntegrityError : missing file or chunk, wrong index
        """
        shard, place = divmod(slot, self.slots)
        data, offsets = self._shard(shard)
        offset = int(offsets[place])
        if offset < 0:
            raise IntegrityError(f"shard {shard} of tensors {self.tensors_id[:8]}: slot {slot} is empty")
        return data[offset : offset + self.chunk_bytes].view(self.dtype).reshape(self.shape)

    def _shard(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        try:
            self._maps.move_to_end(shard)
            return self._maps[shard]
        except KeyError:
            pass
        path = layout.shard_file(self._cache, self.tensors_id, shard)
        where = f"shard {shard} of tensors {self.tensors_id[:8]} ({str(path)!r})"
        try:
            data = map_file(path)
        except OSError as error:
            raise IntegrityError(f"{where} cannot be read: {error.strerror}") from error
        tail = data[max(len(data) - index_bytes(self.slots), 0) :]
        offsets = read_index(tail.tobytes(), len(data), self.slots, self.chunk_bytes, where)
        self._maps[shard] = data, offsets
        while len(self._maps) > self._max_maps:
            self._maps.popitem(last=False)
        return data, offsets


def _read_metadata(cache: Path, tensors_id: str) -> tuple[bytes, bytes]:
    paths = (
        layout.tensors_dir(cache, tensors_id) / layout.METADATA,
        layout.image_dir(cache, tensors_id) / layout.METADATA,
    )
    try:
        group, image = (path.read_bytes() for path in paths)
    except OSError as error:
        raise IntegrityError(f"tensors {tensors_id[:8]} cannot be read: {error}; build into a new folder") from error
    return group, image
