"""Damaged shards made whole: sound chunks are kept, others found again or rendered, and believed by their CRC alone."""

import json
import os
import sys
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache_store import durable, layout
from cache_store.errors import CacheStoreError
from cache_store.shard import CHECKSUM_BYTES, ShardWriter, checksum
from cache_store.shard_check import ShardState, check_shard
from cache_store.survey import Expected, Survey, usable_splits
from cache_store.verify import ArrayLayout, Examined
from cache_store.wary import RegularFile, Unreadable, read_metadata
from preprocess import environment, probe
from preprocess.engines import AnyRenderer, renderer_of
from preprocess.errors import PreprocessError, SourceError
from preprocess.read import hash_source, read_source
from preprocess.render import DECODER, Normaliser, opencv_as_in_a_worker, to_planes
from preprocess.rendering import ADMIT_ALL
from preprocess.renderings import stored_rendering


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What belongs into one slot; `paths` are those that any snapshot knows the source by, newest first, `reader` is
    the way that it was read."""

    checksum: int
    digest: bytes
    variant: int
    paths: list[str]
    reader: str


@dataclass(slots=True)
class Mended:
    """What became of damaged shards.

    Attributes
    ----------
    whole : (tensors_id, shard) that have no damage left
    files : rewritten, relative to the cache
    rendered, salvaged : chunks
    reasons : why a slot could not be mended -> how many
    """

    whole: set[tuple[str, int]] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    rendered: int = 0
    salvaged: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


def mend_shards(examined: Examined, source: Path | None, decoder: str) -> Mended:
    """Rewrite every damaged shard of which anything can be mended; the builders' lock is held.

    All of them are written before the first is put into place: where files were swapped, one holds the other's chunks.
    """
    mended = Mended()
    for tensors_id, states in examined.shards.items():
        array = examined.arrays[tensors_id]
        wanted = _wanted(examined.survey, tensors_id, array, states)
        artist = _Artist(examined.survey.cache, tensors_id, source, decoder)
        shards = [_Shard(examined.survey, tensors_id, n, array, state, states) for n, state in states.items()]
        try:
            for shard in shards:
                shard.prepare(wanted, artist, mended)
            for shard in shards:
                shard.put_in_place(mended)
        finally:
            for shard in shards:
                durable.remove_file(shard.scratch)
    return mended


def _wanted(found: Survey, tensors_id: str, array: ArrayLayout, states: dict[int, ShardState]) -> dict[int, _Wanted]:
    """slot -> what belongs there, of all slots that were lost."""
    lost = np.array([n * array.slots + place for n, state in states.items() for place in state.lost], np.int64)
    wanted: dict[int, _Wanted] = {}
    paths_of: dict[bytes, list[str]] = {}
    for state in reversed(found.snapshots.values()):
        for _, table in usable_splits(state):
            if table.tensors_id != tensors_id:
                continue
            rows, variants = np.nonzero(np.isin(table["slot"], lost))
            if not len(rows):
                continue
            try:
                digests, paths = table["digest"], table.paths()
            except CacheStoreError:
                continue  # another snapshot may know
            for row, variant in zip(rows.tolist(), variants.tolist()):
                digest = digests[row].tobytes()
                known = paths_of.setdefault(digest, [])
                name = os.fsdecode(paths[row])
                if name not in known:
                    known.append(name)
                slot, value = int(table["slot"][row, variant]), int(table["checksum"][row, variant])
                reader = table.decoders[int(table["decoder"][row, variant])]
                wanted.setdefault(slot, _Wanted(value, digest, variant, known, reader))
    return wanted


class _Artist:
    """Renders the images of one tensors again, and says why it cannot."""

    def __init__(self, cache: Path, tensors_id: str, source: Path | None, decoder: str) -> None:
        self._source = source
        self._renderer: AnyRenderer | None = None
        self._normalise: Normaliser | None = None
        self._attributes: dict[str, Any] = {}
        self._decoded: tuple[tuple[bytes, str], Any] = (b"", ""), None
        self._decoder = decoder
        self._why = ""
        try:
            path = layout.tensors_dir(cache, tensors_id) / layout.METADATA
            self._attributes = json.loads(read_metadata(path))["attributes"]
            rendering = stored_rendering(self._attributes)
            if decoder == DECODER:  # what is in the tensors was admitted, whatever recipe did that
                rendering = replace(rendering, admitted=ADMIT_ALL)
            self._renderer = renderer_of(rendering, decoder, sys.maxsize)  # whatever the cap was, they were rendered
            self._planes = np.empty(rendering.shape, np.uint8)
            if rendering.statistics is not None:
                self._normalise = Normaliser(rendering.statistics, rendering.shape)
        except (Unreadable, PreprocessError, ValueError, LookupError, TypeError) as error:
            self._why = f"the rendering of tensors {tensors_id[:8]} is not known ({error})"

    @opencv_as_in_a_worker()
    def chunk(self, wanted: _Wanted) -> tuple[bytes | None, str]:
        """The chunk, or why there is none."""
        if self._renderer is None:
            return None, self._why
        if self._source is None:
            return None, "SOURCE is not known: run decant repair SOURCE CACHE with the folder of images"
        try:
            if self._decoded[0] != (wanted.digest, wanted.reader):
                data = self._find(wanted)
                if data is None:
                    known = ", ".join(map(repr, wanted.paths[:3]))
                    return (
                        None,
                        f"SOURCE has no file of this content any more ({known}): build again to use what it has",
                    )
                reader = wanted.reader if self._decoder == DECODER else None  # a user's decoder has one way alone
                self._decoded = (wanted.digest, wanted.reader), self._renderer.decode(data, reader).image
            pixels = self._renderer.pixels(self._decoded[1], wanted.digest, wanted.variant)
        except SourceError as error:
            return None, f"this environment cannot render it ({error})"
        planes = to_planes(pixels, self._planes)
        chunk = (planes if self._normalise is None else self._normalise(planes)).tobytes()
        return (chunk, "") if checksum(chunk) == wanted.checksum else (None, self._other_pixels())

    def _find(self, wanted: _Wanted) -> bytes | None:
        assert self._source is not None
        for path in wanted.paths:
            name = os.path.join(os.fsencode(self._source), os.fsencode(path))
            try:  # whatever has come in its place is not taken into memory
                if hash_source(name, sys.maxsize)[0] == wanted.digest:
                    return read_source(name, sys.maxsize)[0]
            except SourceError:
                continue
        return None

    def _other_pixels(self) -> str:
        assert self._renderer is not None
        if not self._why:
            then, now = self._attributes.get("versions", {}), environment.versions(self._renderer.rendering.engine)
            changed = [f"{key} {then.get(key)} -> {value}" for key, value in now.items() if then.get(key) != value]
            same = probe.probe(self._renderer.rendering, self._decoder) == self._renderer.rendering.probe
            self._why = (
                "this environment renders other pixels than the manifest has"
                + ("" if same else ", and than the one that filled the cache")
                + f"; changed: {', '.join(changed) or 'no version'}; repair in the former environment, "
                "or build with --rerender (new tensors beside the old)"
            )
        return self._why


class _Shard:
    """One damaged shard.

    Parameters
    ----------
    states : of all damaged shards of the tensors: a chunk may have come into another one's place
    """

    def __init__(
        self,
        found: Survey,
        tensors_id: str,
        number: int,
        array: ArrayLayout,
        state: ShardState,
        states: Iterable[int],
    ) -> None:
        self._cache, self._tensors_id, self._number = found.cache, tensors_id, number
        self._array, self._state = array, state
        self._sure, self._others = found.all_whole, states
        self._expected = found.expected.get(tensors_id, Expected())
        self._stride = array.chunk_bytes + CHECKSUM_BYTES
        self.path = layout.shard_file(found.cache, tensors_id, number)
        self.scratch = layout.pending_dir(found.cache) / f"repair-{uuid.uuid4().hex}.part"

    def prepare(self, wanted: dict[int, _Wanted], artist: _Artist, mended: Mended) -> None:
        if self.path.is_dir():
            self._give_up("a folder stands in its place: move it away", 1, mended)
            return
        parts: dict[int, tuple[Path, int] | bytes] = {p: (self.path, at) for p, at in self._state.sound.items()}
        left: dict[int, str] = {}
        rendered = salvaged = 0
        first = self._number * self._array.slots
        lost = {place: wanted.get(first + place) for place in self._state.lost}
        for place, want in sorted(lost.items(), key=lambda item: item[1].digest if item[1] else b""):
            if want is None:
                left[place] = "the tables that say what belongs there are damaged"
            elif self._holds(self.path, place * self._stride, want):
                parts[place] = self.path, place * self._stride
                salvaged += 1
            else:
                chunk, why = artist.chunk(want)
                if chunk is not None:
                    parts[place] = chunk
                    rendered += 1
                elif (elsewhere := self._elsewhere(want)) is not None:
                    parts[place] = elsewhere
                    salvaged += 1
                else:
                    left[place] = why
        for why in left.values():
            self._give_up(why, 1, mended)
        if left and not (rendered or salvaged):
            return
        needless = set() if self._sure else set(self._state.unsound)
        for place, offset in self._state.unsound.items():  # as bad as it is, it may be all there is
            if place not in parts and (place in left or place in needless):
                parts[place] = self.path, offset
        self._write(parts)
        mended.rendered += rendered
        mended.salvaged += salvaged

    def put_in_place(self, mended: Mended) -> None:
        """Swap the new file for the damaged one, if there is a new one."""
        if not self.scratch.exists():
            return
        places, checksums = self._expected.of_shard(self._number, self._array.slots)
        state = check_shard(self.scratch, self._array.slots, self._array.chunk_bytes, places, checksums)
        durable.rename(self.scratch, self.path)
        durable.flush_dir(self.path.parent)
        mended.files.append(str(self.path.relative_to(self._cache)))
        if not state.problems:
            mended.whole.add((self._tensors_id, self._number))

    def _give_up(self, why: str, count: int, mended: Mended) -> None:
        mended.reasons[why] = mended.reasons.get(why, 0) + count

    def _stored(self, path: Path, offset: int) -> bytes | None:
        """A chunk and the checksum beside it, wherever they may lie."""
        try:
            with RegularFile(path) as file:
                if offset + self._stride > file.size_bytes:
                    return None
                data = np.empty(self._stride, np.uint8)
                file.read_into(data, offset)
                return data.tobytes()
        except Unreadable:
            return None

    def _holds(self, path: Path, offset: int, want: _Wanted) -> bool:
        stored = self._stored(path, offset)
        return stored is not None and checksum(stored[:-CHECKSUM_BYTES]) == want.checksum

    def _elsewhere(self, want: _Wanted) -> tuple[Path, int] | None:
        """The chunk in another place of a damaged shard: files were swapped, or chunks of one."""
        for number in self._others:
            path = layout.shard_file(self._cache, self._tensors_id, number)
            for place in range(self._array.slots):
                stored = self._stored(path, place * self._stride)
                if stored is None:
                    break
                if stored[-CHECKSUM_BYTES:] == want.checksum.to_bytes(CHECKSUM_BYTES, "little"):
                    if checksum(stored[:-CHECKSUM_BYTES]) == want.checksum:
                        return path, place * self._stride
        return None

    def _write(self, parts: dict[int, tuple[Path, int] | bytes]) -> None:
        """Write the whole shard beside, and flush it."""
        with ShardWriter(self.scratch, self._array.slots, self._array.chunk_bytes) as file:
            for place in range(self._array.slots):
                part = parts.get(place)
                if isinstance(part, bytes):
                    file.append(np.frombuffer(part, np.uint8))
                elif part is not None and (stored := self._stored(*part)) is not None:
                    file.copy(stored)
                else:
                    file.skip()
        durable.flush_file(self.scratch)
