"""What the builder and its workers say to each other: plain values, sent by pickle between our own processes.

builder -> worker   Setup, then jobs; a `Wanted` in answer to a `Hashed`; REST when the build is over, then a Setup
worker -> builder   READY after a Setup; for each job: `Hashed` (reading jobs only), then `Done`; or an exception that
                    ends the build

A worker has one job at a time, or several that `is_streamed` holds for: they are hashed in the order in which they were
sent, one after the other, and done in any order.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from cache_store.records import PendingShard
from preprocess.paths import Paths
from preprocess.read import MOST_BYTES
from preprocess.rendering import Rendering, Statistics

READY = "ready"
REST = "rest"

DEVICE_LOST = 71
"""Exit code of a worker that can use its device no more; what its state says was in hand, as when a signal kills it."""


@dataclass(frozen=True, slots=True)
class Setup:
    """Sent to each worker before the jobs of a build.

    Attributes
    ----------
    folder : `pending/<build id>/`, where shards go
    number : of the worker, from 0: which one of several GPUs it uses
    """

    folder: Path
    renderings: tuple[Rendering, ...]
    decoder: str
    max_pixels: int
    number: int = 0


class Files(Sequence[bytes]):
    """Files of a folder, each path put together when it is asked for: jobs wait by the thousand. Sent as a tuple.

    Parameters
    ----------
    folder : absolute
    paths : relative to it
    numbers : int64 (n,), which of them
    """

    def __init__(self, folder: bytes, paths: Paths, numbers: np.ndarray) -> None:
        self._folder, self._paths, self._numbers = folder, paths, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> "Files": ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Files(self._folder, self._paths, self._numbers[index])
        return os.path.join(self._folder, self._paths.encoded(int(self._numbers[index])))

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)


@dataclass(frozen=True, slots=True, eq=False)
class ReadJob:
    """Read and hash a run of files, then render those that the builder asks for.

    Attributes
    ----------
    job_id : never used twice in a build; names the shards
    rendering : place in `Setup.renderings`
    items : int64 (n,), number of each file
    paths : absolute, as bytes
    variants : K
    slots : S of the shards to write
    singly : no batches: a worker died in one of them, and the next is to die with the culprit in hand
    in_batches : by an engine that works in batches, better across the bounds of jobs
    max_bytes : a larger file is not read
    """

    job_id: int
    rendering: int
    items: np.ndarray
    paths: Sequence[bytes]
    variants: int
    slots: int
    singly: bool = False
    in_batches: bool = False
    max_bytes: int = MOST_BYTES

    def __len__(self) -> int:
        return len(self.items)

    def part(self, places: list[int], job_id: int) -> "ReadJob":
        """The same for some of the files."""
        paths = tuple(self.paths[i] for i in places)
        return replace(self, job_id=job_id, items=self.items[places], paths=paths)


@dataclass(frozen=True, slots=True)
class Part:
    """Some tensors of one finished shard, pending or committed.

    Attributes
    ----------
    shard : its rows are the tensors that are meant
    places : int64 (n,), where in the file each of them is
    """

    shard: PendingShard
    places: np.ndarray

    @staticmethod
    def whole(shard: PendingShard) -> "Part":
        """All of a pending shard."""
        return Part(shard, np.arange(len(shard.rows)))


@dataclass(frozen=True, slots=True)
class NormaliseJob:
    """Write finished tensors into one new shard, with another normalisation. No item can be blamed for a death.

    Attributes
    ----------
    statistics : for float16; None: 8-bit pixels
    slots : S of the new shard
    """

    job_id: int
    parts: tuple[Part, ...]
    statistics: Statistics | None
    slots: int

    def __len__(self) -> int:
        return sum(len(part.places) for part in self.parts)


@dataclass(frozen=True, slots=True)
class Failure:
    """One file that cannot be used: at which stage and why."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class Hashed:
    """What reading a job's files gave.

    Attributes
    ----------
    digests : uint8 (n, 16); zeros for a file that failed
    stats : `scan.STAT` (n,), of the very bytes that were hashed
    failures : by place in the job
    job_id : of the job
    """

    digests: np.ndarray
    stats: np.ndarray
    failures: dict[int, Failure]
    job_id: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which variants to render of which files: (place in the job, variants); files left out are not rendered."""

    files: tuple[tuple[int, tuple[int, ...]], ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a job.

    Attributes
    ----------
    shards : finished, with their records on disk
    failures : by place in the job; in a NormaliseJob, tensors that are damaged
    notes : by place in the job, such as ("16-bit",)
    spent_ns : by stage, see `clock.STAGES`
    transforms_ns : of the rendering's transforms, see `augment.Pipeline.names`; empty where they are not timed
    job_id : of the job
    """

    shards: tuple[PendingShard, ...] = ()
    failures: dict[int, Failure] = field(default_factory=dict)
    notes: dict[int, tuple[str, ...]] = field(default_factory=dict)
    spent_ns: tuple[int, ...] = ()
    transforms_ns: tuple[int, ...] = ()
    job_id: int = 0


Job = ReadJob | NormaliseJob


def is_streamed(message: Any) -> bool:
    """Whether this is a job of which a worker can have several at a time (`stream`)."""
    return isinstance(message, ReadJob) and message.in_batches and not message.singly
