"""Brings back files whose content follows from what is whole: fixed metadata, copies, a single flipped bit, the root.

Nothing is guessed: what is put in place has the recorded digest, or is what the writer would write. Only the holder of
the builders' lock calls this.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cache_store import bitflip, durable, layout, writer
from cache_store.canonical import digest_of
from cache_store.findings import GROUP, IMAGE, ROOT, SNAPSHOT, TABLE, TENSORS, Finding
from cache_store.manifest import COLUMNS
from cache_store.metadata import encode_array, encode_group, image_digest, resized
from cache_store.reader import Root
from cache_store.snapshots import root_for
from cache_store.survey import Survey
from cache_store.verify import ArrayLayout, Examined
from cache_store.wary import Unreadable, entries, read_metadata

_NOT_METADATA = (ValueError, LookupError, TypeError, AttributeError, RecursionError, OverflowError)

Recomputed = Callable[[Finding, str], bytes | None]
"""What else a file with this digest may be made of; what it gives is believed only if it has the digest."""


def restore(examined: Examined, recomputed: Recomputed) -> list[str]:
    """Put back what can be had exactly; returns the files, relative to the cache."""
    found = examined.survey
    mended = []
    for finding in examined.report.findings:
        data = _content(finding, found, recomputed)
        if data is not None and _put(found.cache, finding.file, data):
            mended.append(finding.file)
    return mended


def _content(finding: Finding, found: Survey, recomputed: Recomputed) -> bytes | None:
    """The right content of a damaged file; None: not to be had here."""
    if finding.kind == GROUP:
        return encode_group({})
    if finding.kind == ROOT:
        root = _right_root(found)
        return None if root is None else encode_root(root)
    if finding.kind == IMAGE and finding.tensors_id is not None:
        return _image_metadata(finding, found, recomputed)
    digest = _recorded_digest(finding, found)
    if digest is None:
        return None
    for candidate in (_copy, _flipped_back, _column_metadata):
        data = candidate(finding, found, digest)
        if data is not None:
            return data
    data = recomputed(finding, digest)
    return data if data is not None and digest_of(data).hex() == digest else None


def _recorded_digest(finding: Finding, found: Survey) -> str | None:
    if finding.kind == TABLE and finding.snapshot is not None:
        path = finding.file.removeprefix(f"snapshots/{finding.snapshot}/")
        return found.snapshots[finding.snapshot].listed.get(path)
    if finding.kind == SNAPSHOT and finding.snapshot is not None:
        return found.vouched.get(finding.snapshot)
    if finding.kind == TENSORS and finding.tensors_id is not None:
        listed = {digests["group"] for digests in found.tensors.get(finding.tensors_id, {}).values()}
        return listed.pop() if len(listed) == 1 else None
    return None


def _copy(finding: Finding, found: Survey, digest: str) -> bytes | None:
    """Tables that did not change from one snapshot to the next are there twice."""
    for state in found.snapshots.values():
        for path, listed in state.listed.items():
            if listed == digest and path not in state.damaged:
                try:
                    return (layout.snapshot_dir(found.cache, state.name) / path).read_bytes()
                except OSError:
                    continue
    return None


def _flipped_back(finding: Finding, found: Survey, digest: str) -> bytes | None:
    def right(data: bytes) -> bool:
        return digest_of(data).hex() == digest

    try:
        data = read_metadata(found.cache / finding.file)
    except Unreadable:
        return None
    if finding.kind == TABLE and not finding.file.endswith(layout.METADATA):
        corrected = bitflip.by_checksum(data)
        return corrected if corrected is not None and right(corrected) else None
    return bitflip.by_trial(data, right)


def _search(path: Path, right: Callable[[bytes], bool]) -> bytes | None:
    try:
        return bitflip.by_trial(read_metadata(path), right)
    except Unreadable:
        return None


def _column_metadata(finding: Finding, found: Survey, digest: str) -> bytes | None:
    """`zarr.json` of a table's column follows from its lengths, which another column has, too."""
    path = finding.file.removeprefix(f"snapshots/{finding.snapshot}/")
    folder, _, name = path.rpartition("/")
    column = folder.rpartition("/")[2]
    if name != layout.METADATA or finding.kind != TABLE:
        return None
    known = COLUMNS | {"failures": COLUMNS["path"]}
    if column not in known:
        return None
    dtype, dimensions = known[column]
    # The metadata of an array without elements are the same but for its lengths.
    data = json.loads(encode_array("a", np.zeros([0] * len(dimensions), dtype), dimensions)["a/zarr.json"])
    for shape in _shapes(found, finding, folder, np.dtype(dtype).itemsize, len(dimensions)):
        data["shape"] = list(shape)
        data["chunk_grid"]["configuration"]["chunk_shape"] = [max(n, 1) for n in shape]
        text = json.dumps(data, indent=2).encode()
        if digest_of(text).hex() == digest:
            return text
    return None


def _shapes(found: Survey, finding: Finding, folder: str, itemsize: int, rank: int) -> Iterator[tuple[int, ...]]:
    """Lengths that the column may have, by the size of its file and the lengths of the columns beside it."""
    where = found.cache / "snapshots" / str(finding.snapshot) / folder
    chunk = where / ".".join(["c", *["0"] * rank])
    try:
        count = (chunk.stat().st_size - 4) // itemsize
    except OSError:
        count = 0
    known: set[int] = {0, 2, 16}
    for sibling in entries(where.parent):
        try:
            known.update(json.loads(read_metadata(Path(sibling.path) / layout.METADATA))["shape"])
        except (Unreadable, *_NOT_METADATA):
            continue
    usual = sorted(n for n in known if isinstance(n, int))
    if rank == 1:
        yield from ((n,) for n in {count, *usual})
    elif rank == 2:
        yield from ((a, b) for a in usual for b in usual)
    else:
        yield from ((a, b, c) for a in usual for b in usual for c in (1, 3))


def _image_metadata(finding: Finding, found: Survey, recomputed: Recomputed) -> bytes | None:
    """An image array's metadata: of the recorded digest, and as long as its shards are."""
    tensors_id = str(finding.tensors_id)
    listed = {digests["image"] for digests in found.tensors.get(tensors_id, {}).values()}
    if len(listed) != 1:
        return None
    (digest,) = listed

    def right(data: bytes) -> bool:
        try:
            return image_digest(data) == digest
        except _NOT_METADATA:
            return False

    path = found.cache / finding.file
    try:
        data: bytes | None = read_metadata(path)
    except Unreadable:
        data = None
    if data is None or not right(data):
        data = _search(path, right) or recomputed(finding, digest)
    if data is None or not right(data):
        return None
    array = ArrayLayout.of(data)
    folder = layout.image_dir(found.cache, tensors_id)
    numbers = [n for entry in entries(folder) if (n := layout.shard_number(entry.name)) is not None]
    expected = found.expected.get(tensors_id)
    if expected is not None:
        numbers += (expected.slots[-1:] // array.slots).tolist()
    shards = max(numbers, default=-1) + 1
    if array.length % array.slots == 0 and array.length > shards * array.slots:
        # Longer than its shards: the number may have been given out, so the end gets an empty shard.
        writer.fill_ends(found.cache, tensors_id)
        shards = array.length // array.slots
    return resized(data, shards * array.slots)


def _right_root(found: Survey) -> Root | None:
    """One bit flipped, or the newest whole snapshot there is."""
    path = found.cache / layout.METADATA
    whole = {state.name: state.digest for state in found.snapshots.values() if state.whole and state.digest}

    def right(data: bytes) -> bool:
        try:
            metadata = json.loads(data)
            root = _root_of(metadata["attributes"]["decant"])
            return encode_root(root) == data
        except _NOT_METADATA:
            return False

    data = _search(path, right)
    if data is not None:
        return _root_of(json.loads(data)["attributes"]["decant"])
    if not whole:
        return None
    newest = list(whole)[-1]
    last = layout.snapshot_number(list(found.snapshots)[-1]) or 0
    return root_for(found.cache, found.snapshots, newest, last, {newest: str(whole[newest])})


def encode_root(root: Root) -> bytes:
    metadata = {"attributes": writer.root_attributes(root), "zarr_format": 3, "node_type": "group"}
    return json.dumps(metadata, indent=2).encode()


def _root_of(ours: dict[str, object]) -> Root:
    last = layout.snapshot_number(ours["last"]) or 0
    return Root(ours["snapshot"], last, ours["digest"], dict(ours.get("former", {})))  # type: ignore[arg-type,call-overload]


def _put(cache: Path, file: str, data: bytes) -> bool:
    """Put a file in its place at once; what cannot be a file of ours (a folder, say) is left where it is."""
    path = cache / file
    if path.is_dir() and not path.is_symlink():
        return False
    missing = [folder for folder in path.parents if folder != cache and cache in folder.parents and not folder.exists()]
    for folder in reversed(missing):
        durable.make_dir(folder)
        durable.flush_dir(folder.parent)
    durable.replace_file(path, data, layout.pending_dir(cache) / f"{layout.METADATA}.part")
    return True
