"""Small caches made through the store's own functions, damage that goes past them, and a spy on system calls."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from cache_store import durable, layout, writer
from cache_store.canonical import digest_of, identity
from cache_store.manifest import Snapshot, SplitTable, join_strings, no_rows
from cache_store.normalise import normalisation_table, normalise
from cache_store.records import PendingShard, row_dtype, write_record
from cache_store.shard import ShardWriter
from cache_store.writer import Commit, TensorsSpec

SHAPE = (3, 4, 5)
SLOTS = 4
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TABLE = normalisation_table(MEAN, STD)


def planes(sample: int, variant: int = 0) -> np.ndarray:
    """The 8-bit pixels of one variant of one sample: uint8 (C, H, W)."""
    return np.random.default_rng([sample, variant]).integers(0, 256, SHAPE, dtype=np.uint8)


def tensor(sample: int, variant: int = 0, dtype: str = "float16") -> np.ndarray:
    """What a cache should hold of it."""
    return normalise(planes(sample, variant), TABLE) if dtype == "float16" else planes(sample, variant)


def digest(sample: int) -> bytes:
    return digest_of(b"sample %d" % sample)


def spec(dtype: str = "float16", slots: int = SLOTS) -> TensorsSpec:
    rendering = {"dtype": dtype, "shape": list(SHAPE)}
    mean, std = (MEAN, STD) if dtype == "float16" else (None, None)
    return TensorsSpec(identity(rendering), rendering, mean, std, "test", "00", {"numpy": "1"}, SHAPE, slots)


def pending_shard(
    folder: Path, name: str, items: list[tuple[int, int]], dtype: str = "float16", slots: int = SLOTS
) -> PendingShard:
    """A finished shard of (sample, variant) items, with its record."""
    mean, std = (MEAN, STD) if dtype == "float16" else (None, None)
    rows = np.zeros(len(items), row_dtype(SHAPE[0]))
    shard = PendingShard(folder / f"{name}.shard", "pixels", mean, std, slots, SHAPE, rows)
    with ShardWriter(shard.path, slots, shard.chunk_bytes) as file:
        for row, (sample, variant) in zip(rows, items, strict=True):
            pixels = planes(sample, variant).astype(np.uint64)
            row["digest"] = np.frombuffer(digest(sample), np.uint8)
            row["variant"] = variant
            row["checksum"] = file.append(tensor(sample, variant, dtype))
            row["sum"], row["sumsq"] = pixels.sum((1, 2)), (pixels**2).sum((1, 2))
            row["source_hw"] = SHAPE[1:]
    write_record(shard)
    return shard


def pending_shards(
    folder: Path, samples: int, variants: int = 1, dtype: str = "float16", slots: int = SLOTS
) -> list[PendingShard]:
    items = [(sample, variant) for sample in range(samples) for variant in range(variants)]
    chosen = range(0, len(items), slots)
    return [pending_shard(folder, f"{n:03d}-0", items[at : at + slots], dtype, slots) for n, at in enumerate(chosen)]


def split_table(
    shards: list[PendingShard], numbers: list[int], samples: int, variants: int, dtype: str = "float16"
) -> SplitTable:
    """The table of `samples` samples that lie one after the other in adopted shards."""
    rows = np.concatenate([np.zeros(0, row_dtype(SHAPE[0])), *(shard.rows for shard in shards)])
    slots = [number * shard.slots + np.arange(len(shard.rows)) for number, shard in zip(numbers, shards, strict=True)]
    columns = no_rows(variants, SHAPE[0])
    if samples:
        path, path_end = join_strings([b"cat/\xff%03d.png" % sample for sample in range(samples)])
        columns |= {
            "slot": np.concatenate(slots).reshape(samples, variants),
            "label": np.arange(samples) % 2,
            "digest": np.frombuffer(b"".join(map(digest, range(samples))), np.uint8).reshape(samples, -1),
            "path": path,
            "path_end": path_end,
            "source_hw": np.tile(np.int32(SHAPE[1:]), (samples, 1)),
            **{name: np.arange(samples) + 100 * n for n, name in enumerate(("size", "mtime_ns", "ctime_ns", "inode"))},
            **{name: rows[name].reshape(samples, variants, -1) for name in ("sum", "sumsq")},
            **{name: rows[name].reshape(samples, variants) for name in ("checksum", "decoder")},
        }
    return SplitTable(spec(dtype).tensors_id, MEAN, STD, 123, ("opencv",), columns)


def snapshot_of(commit: Commit, splits: dict[str, SplitTable]) -> Snapshot:
    return Snapshot(
        name=layout.snapshot_name(commit.number),
        parent=commit.parent,
        parent_digest=commit.parent_digest,
        created="2024-01-02T03:04:05Z",
        seconds=1.5,
        recipe={"splits": {name: {} for name in splits}},
        classes=("cat", "d\udcffg"),
        splits=splits,
        failures=({"path": "dog/broken.png", "stage": "decode", "reason": "cut"},),
        tensors=dict(commit.tensors),
    )


def make_cache(cache: Path, samples: int = 6, variants: int = 1, dtype: str = "float16") -> Snapshot:
    """Commit one snapshot of samples 0, 1, … into a new or existing cache, all of them in new shards."""
    writer.claim_folder(cache)
    build = writer.begin(cache)
    shards = pending_shards(build, samples, variants, dtype)
    commit = Commit(cache, build)
    commit.ensure_tensors(spec(dtype))
    numbers = commit.adopt(spec(dtype).tensors_id, shards)
    snapshot = snapshot_of(commit, {"train": split_table(shards, numbers, samples, variants, dtype)})
    commit.publish(snapshot)
    writer.clear_pending([build])
    return snapshot


def flip_bit(path: Path, byte: int = -1, bit: int = 0) -> None:
    """Damage that no code of ours did, in place; the same once more undoes it."""
    with open(path, "r+b", buffering=0) as file:
        file.seek(byte, os.SEEK_SET if byte >= 0 else os.SEEK_END)
        value = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([value ^ 1 << bit]))


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below `folder`, with what is in it and when it was last changed."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        found[str(path)] = (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
    return found


class OsSpy(SimpleNamespace):
    """Stands in for the module `os`: keeps a log of system calls on files, and can make them fail.

    Attributes
    ----------
    log : (call, path) of each call, in order; a rename has the new path, and its old one before it as 'rename from'
    fail : called with (call, path, number of the call); an OSError that it returns is raised
    after : raise once the call is done, as a kill right behind it would look
    """

    CALLS = ("open", "writev", "fsync", "close", "rename", "unlink", "mkdir", "ftruncate", "pwrite")

    def __init__(self, fail: Callable[[str, str, int], OSError | None] = lambda *_: None, after: bool = False) -> None:
        super().__init__(log=[], fail=fail, after=after, paths={}, count=0)

    def __getattr__(self, name: str) -> Any:
        function = getattr(os, name)
        if name not in self.CALLS:
            return function

        def call(first: Any, *rest: Any, **options: Any) -> Any:
            path = self.paths.get(first, "?") if isinstance(first, int) else os.fspath(first)
            if name == "rename":
                self.log.append(("rename from", path))
                path = os.fspath(rest[0])
            number, self.count = self.count, self.count + 1
            error = self.fail(name, path, number)
            if error is not None and not self.after and name != "close":  # a close that fails closes all the same
                raise error
            self.log.append((name, path))
            # No test cuts the power, so that nothing is really flushed, which would take most of the time.
            result = None if name == "fsync" else function(first, *rest, **options)
            if error is not None:
                if name == "open":
                    os.close(result)
                raise error
            if name == "open":
                self.paths[result] = path
            return result

        return call


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Do `work` in a process of its own that is killed (SIGKILL) right before its system call `number` on files; False
    if it ended before."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            kill = lambda call, path, count: os.kill(os.getpid(), signal.SIGKILL) if count >= number else None  # noqa: E731
            durable.os = OsSpy(kill)  # type: ignore[attr-defined]
            work()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def failing(call: str, number: int, path_ends: str = "") -> Callable[[str, str, int], OSError | None]:
    """A `fail` for `OsSpy`: every `call` on a path with this end fails with this errno."""

    def fail(name: str, path: str, _: int) -> OSError | None:
        return OSError(number, os.strerror(number)) if name == call and path.endswith(path_ends) else None

    return fail
