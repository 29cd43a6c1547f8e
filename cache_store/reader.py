"""Opens one snapshot of a cache and hands out the bytes of its slots."""

import json
import os
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cache_store import layout
from cache_store.canonical import digest_of, identity
from cache_store.durable import read_error
from cache_store.errors import REPAIR, FormatError, IntegrityError, NotFoundError, UsageError
from cache_store.lock import Lease
from cache_store.manifest import Snapshot, SplitTable, decode
from cache_store.mapped import map_file
from cache_store.metadata import image_digest
from cache_store.shard import index_bytes, read_index
from cache_store.wary import Unreadable, read_committed, read_metadata

MAX_MAPS = 16_384
"""Shards mapped at once by one process; the kernel's default limit is 65,530 maps (vm.max_map_count)."""

_ATTEMPTS = 5
_DIGEST = re.compile(r"[0-9a-f]{32}")
_NOT_METADATA = (ValueError, LookupError, TypeError, RecursionError)
"""What parsing damaged or hostile metadata raises."""


@dataclass(frozen=True, slots=True)
class Root:
    """What a cache's `zarr.json` says.

    Attributes
    ----------
    snapshot : the one in force; None: there is none
    last : number of the last snapshot ever made; never goes down, even if that snapshot is gone
    digest : of the metadata of the snapshot in force
    former : digests of snapshots that are kept, but that no snapshot names as its parent any more (docs/decisions/006)
    """

    snapshot: str | None
    last: int
    digest: str | None
    former: dict[str, str] = field(default_factory=dict)


def root_attributes(root: Root) -> dict[str, Any]:
    """The root group's attributes; `check` is a digest of the rest, as nothing else vouches for this one file."""
    said: dict[str, Any] = {
        "format_version": layout.FORMAT_VERSION,
        "needs": [],
        "snapshot": root.snapshot,
        "last": layout.snapshot_name(root.last) if root.last else None,
        "digest": root.digest,
    }
    if root.former:
        said["former"] = dict(sorted(root.former.items()))
    return {"decant": said | {"check": identity(said)}}


def read_root(cache: Path) -> Root:
    """Read the commit point.

    Raises
    ------
    NotFoundError : no such folder, or not a cache
    FormatError : a format version or an extension that this version does not know
    IntegrityError : the file is damaged
    StorageError : the system refused to read it
    """
    path = cache / layout.METADATA
    try:
        data = read_metadata(path)
    except Unreadable as error:
        if cache.exists() and not cache.is_dir():
            raise NotFoundError(
                f"{str(cache)!r} is a file, a cache is a folder; name the one that decant build made"
            ) from None
        if link := broken_link(cache):
            raise NotFoundError(link) from None
        if not path.exists():
            what = "is not a decant cache (it has no zarr.json)" if cache.is_dir() else "does not exist"
            raise NotFoundError(f"{str(cache)!r} {what}; build one with: decant build SOURCE CACHE") from None
        raise IntegrityError(f"{str(path)!r} cannot be read: {error}; {REPAIR}") from error
    try:
        metadata = json.loads(data)
        what = metadata["node_type"]
        attributes: Any = metadata.get("attributes")  # which other writers of Zarr leave out where there are none
    except _NOT_METADATA:
        raise IntegrityError(f"{str(path)!r} is damaged: it is not the metadata of a Zarr group; {REPAIR}") from None
    ours = attributes.get("decant") if isinstance(attributes, dict) else None
    if not isinstance(ours, dict):
        raise NotFoundError(
            f"{str(cache)!r} is a Zarr {what}, but not a decant cache; build one with: decant build SOURCE CACHE"
        )
    version, needs = ours.get("format_version"), ours.get("needs", [])
    if version != layout.FORMAT_VERSION:
        raise FormatError(
            f"{str(cache)!r} has format version {version}, this decant reads version {layout.FORMAT_VERSION}; "
            "install the decant that wrote it, or build into a new folder"
        )
    if not isinstance(needs, list):
        raise IntegrityError(f"{str(path)!r} is damaged: a list of needs expected, {needs!r} found")
    unknown = sorted(set(map(str, needs)) - layout.KNOWN_NEEDS)
    if unknown:
        raise FormatError(f"{str(cache)!r} needs {', '.join(unknown)}, unknown to this decant; install a newer one")
    said = {key: value for key, value in ours.items() if key != "check"}
    if "check" in ours and ours["check"] != identity(said):
        raise IntegrityError(f"{str(path)!r} is damaged: its check value is not that of its content; {REPAIR}")
    snapshot, last, digest = ours.get("snapshot"), ours.get("last"), ours.get("digest")
    newest = 0 if last is None else layout.snapshot_number(last)
    if newest is None:
        raise IntegrityError(f"{str(path)!r} is damaged: last {last!r} is not a snapshot's name; {REPAIR}")
    former = ours.get("former", {})
    if not isinstance(former, dict) or not all(_is_digest(value) for value in former.values()):
        raise IntegrityError(f"{str(path)!r} is damaged: digests of former snapshots expected, {former!r} found")
    if snapshot is None and digest is None:
        return Root(None, newest, None, former)
    current = layout.snapshot_number(snapshot)
    if current is None or current > newest:
        raise IntegrityError(
            f"{str(path)!r} is damaged: snapshot {snapshot!r}, last {last!r} are not snapshot names; {REPAIR}"
        )
    if not _is_digest(digest):
        raise IntegrityError(f"{str(path)!r} is damaged: {digest!r} is not a digest; {REPAIR}")
    return Root(snapshot, newest, digest, former)


def broken_link(path: Path) -> str:
    """What is wrong with a path that is a symbolic link to nothing, or lies below one; empty for any other path."""
    for place in (path, *path.parents):
        if place.is_symlink() and not place.exists():
            return (
                f"{str(place)!r} is a link to {os.readlink(place)!r}, which is not there: is its disk mounted? "
                "Make that folder, or remove the link"
            )
    return ""


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def open_cache(path: str | os.PathLike[str], snapshot: str | None = None, *, digest: str | None = None) -> "Cache":
    """Open a cache for reading, at its current snapshot or at a named one.

    Parameters
    ----------
    path : folder of the cache
    snapshot : name of a snapshot, such as '000003'; None: the one in force now
    digest : that this snapshot must have, as `Cache.digest` gave it; None: any

    Raises
    ------
    NotFoundError : no such cache or snapshot, or another digest
    FormatError, IntegrityError : written by another version, or damaged
    StorageError : the system refused to read
    """
    cache = layout.given_path(path)
    for attempt in range(_ATTEMPTS):
        root = read_root(cache)
        name = root.snapshot if snapshot is None else snapshot
        if name is None:
            raise NotFoundError(
                f"{str(cache)!r} has no finished snapshot: its first build is running or was interrupted; "
                "run decant build SOURCE CACHE"
            )
        try:
            if (layout.snapshot_number(name) or root.last + 1) > root.last:
                raise FileNotFoundError  # not a name, or not committed yet
            lease = Lease(cache, name)
        except (FileNotFoundError, BlockingIOError):
            # Gone (or going) since we read the pointer: read it again, unless this one was asked for.
            if snapshot is None and attempt + 1 < _ATTEMPTS and read_root(cache).snapshot != name:
                continue
            if name == root.snapshot:
                raise IntegrityError(f"{str(cache)!r}: its current snapshot {name} is missing; {REPAIR}") from None
            known = ", ".join(snapshot_names(cache)) or "none"
            raise NotFoundError(f"{str(cache)!r} has no snapshot {name!r}; there are: {known}") from None
        except OSError as error:
            where = layout.snapshot_dir(cache, name) / layout.METADATA
            raise read_error(f"{str(cache)!r}: snapshot {name}", where, error) from error
        try:
            found = (root.digest if name == root.snapshot else None) or _digest_on_disk(cache, name)
            if digest is not None and found != digest:
                raise _another_snapshot(cache, name, digest, found)
            attend = partial(_attend, cache, name, lease, found)
            return Cache(cache, decode(layout.snapshot_dir(cache, name), found, attend), lease, found, attend)
        except BaseException:
            lease.close()
            raise
    raise NotFoundError(f"{str(cache)!r}: its snapshots change faster than they can be opened")


def _digest_on_disk(cache: Path, snapshot: str) -> str:
    """What a snapshot's own metadata hashes to now, hex."""
    path = layout.snapshot_dir(cache, snapshot) / layout.METADATA
    return digest_of(read_committed(path, repr(str(path)))).hex()


def _attend(cache: Path, name: str, lease: Lease, digest: str) -> None:
    """Refuse to map files of a cache that has taken the opened one's place: they hold other samples."""
    if not lease.in_place():
        found = _digest_on_disk(cache, name)  # `repair` restores a file byte for byte
        if found != digest:
            raise _another_snapshot(cache, name, digest, found)


def _another_snapshot(cache: Path, name: str, expected: str, found: str) -> NotFoundError:
    return NotFoundError(
        f"{str(cache)!r}: snapshot {name} with digest {expected} expected, found {name} with digest {found}: the cache "
        "was replaced by another one, whose samples, labels and order may differ; open it as a new dataset"
    )


def snapshot_names(cache: Path) -> list[str]:
    """Committed snapshots on disk, oldest first."""
    last = read_root(cache).last
    try:
        numbers = [layout.snapshot_number(entry.name) for entry in os.scandir(cache / "snapshots")]
    except FileNotFoundError:
        return []
    return [layout.snapshot_name(number) for number in sorted(n for n in numbers if n is not None) if number <= last]


class Cache:
    """One snapshot of a cache, held by a lease until `close`; safe to use after fork, but not to be pickled.

    Attributes
    ----------
    path : the cache's folder
    snapshot : its tables
    """

    def __init__(self, path: Path, snapshot: Snapshot, lease: Lease, digest: str, attend: Callable[[], None]) -> None:
        self.path = path
        self.snapshot = snapshot
        self._lease = lease
        self._digest, self._attend = digest, attend
        self._tensors: dict[str, TensorReader] = {}

    @property
    def splits(self) -> dict[str, SplitTable]:
        """The table of each split, in the order of the recipe."""
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
        """The tensors that a split's slots count in.

        Raises
        ------
        NotFoundError : there is no such split
        IntegrityError : their metadata is missing or damaged
        UsageError : the cache is closed
        """
        if self._lease.closed:
            raise UsageError(f"{str(self.path)!r} is closed; open it again")
        tensors_id = self.split(split).tensors_id
        if tensors_id not in self._tensors:
            digests = self.snapshot.tensors.get(tensors_id)
            if digests is None:
                raise IntegrityError(f"snapshot {self.snapshot.name} does not list the tensors of split {split!r}")
            self._tensors[tensors_id] = TensorReader(self.path, tensors_id, digests, attend=self._attend)
        return self._tensors[tensors_id]

    def image(self, split: str, sample: int, variant: int = 0) -> np.ndarray:
        """The stored tensor of one variant of one sample: (C, H, W), read-only, a view of the mapped shard.

        Raises
        ------
        NotFoundError : there is no such split, sample or variant
        IntegrityError : the chunk is missing or its shard is damaged; names the sample and the file
        """
        table = self.split(split)
        try:
            slot = int(table["slot"][sample, variant])
        except IndexError:
            raise NotFoundError(
                f"split {split!r} has {len(table)} samples of {table.variants} variants; "
                f"there is no sample {sample} variant {variant}"
            ) from None
        try:
            return self.tensors(split).chunk(slot)
        except IntegrityError as error:
            path = os.fsdecode(table.paths()[sample])
            raise IntegrityError(f"{error}: sample {path!r} variant {variant}; {REPAIR}") from error

    def digest(self) -> str:
        """What the snapshot's own metadata hashes to, hex: with equal digests every byte of the tables is equal."""
        return self._digest

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
    cache : the cache's folder
    tensors_id : identity of the rendering
    shape : C, H, W
    dtype : float16 or uint8
    slots : S
    attributes : of the tensors' group (rendering, mean, std, engine, probe, versions)
    attend : called before a shard is opened; raises where the cache is not the one that was opened any more

    Raises
    ------
    IntegrityError : the metadata is missing, or is not what the snapshot committed
    StorageError : the system refused to read it
    """

    def __init__(
        self,
        cache: Path,
        tensors_id: str,
        digests: dict[str, str],
        max_maps: int = MAX_MAPS,
        attend: Callable[[], None] = lambda: None,
    ) -> None:
        self.cache = cache
        self.attend = attend
        self.tensors_id = tensors_id
        group, image = _read_metadata(cache, tensors_id)
        if metadata_digests(group, image) != digests:
            raise IntegrityError(
                f"tensors {tensors_id[:8]}: metadata differs from what the snapshot committed; {REPAIR}"
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
        self._maps[shard] = self.map_shard(shard)
        while len(self._maps) > self._max_maps:
            self._maps.popitem(last=False)
        return self._maps[shard]

    def map_shard(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        """A whole shard file, uint8 (bytes,), mapped while a view of it lives; where each chunk starts, -1: nowhere.

        Raises
        ------
        IntegrityError : missing, cut, or with a wrong index
        """
        path, where = self.shard_file(shard), self.where(shard)
        self.attend()
        try:
            data = map_file(path)
        except OSError as error:
            raise read_error(where, path, error) from error
        tail = data[max(len(data) - index_bytes(self.slots), 0) :]
        return data, read_index(tail.tobytes(), len(data), self.slots, self.chunk_bytes, where)

    def shard_file(self, shard: int) -> Path:
        """Where a shard is kept."""
        return layout.shard_file(self.cache, self.tensors_id, shard)

    def where(self, shard: int) -> str:
        """Number, tensors and file of a shard, for a message."""
        return f"shard {shard} of tensors {self.tensors_id[:8]} ({str(self.shard_file(shard))!r})"


def metadata_digests(group: bytes, image: bytes) -> dict[str, str]:
    """What a snapshot lists of tensors that it uses: digests of the group's and of the image array's `zarr.json`."""
    try:
        return {"group": digest_of(group).hex(), "image": image_digest(image)}
    except _NOT_METADATA:
        return {"group": digest_of(group).hex(), "image": "not the metadata of an array"}


def _read_metadata(cache: Path, tensors_id: str) -> tuple[bytes, bytes]:
    folders = layout.tensors_dir(cache, tensors_id), layout.image_dir(cache, tensors_id)
    paths = [folder / layout.METADATA for folder in folders]
    group, image = (read_committed(path, f"tensors {tensors_id[:8]}: {str(path)!r}") for path in paths)
    return group, image
