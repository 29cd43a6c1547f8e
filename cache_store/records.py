"""What a builder knows of the slots it has written: one row a slot, and the file that keeps it beside a pending shard.

A record file is one line of JSON (what the shards hold), the rows as raw bytes, and the digest of both. It is
written after its shards are complete, so a record that reads back whole speaks of whole shards; their own
checksums are still verified before anything is believed.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from cache_store.canonical import DIGEST_BYTES, canonical_json, digest_of
from cache_store.durable import rename, write_file
from cache_store.errors import IntegrityError


def row_dtype(channels: int) -> np.dtype:
    """One slot: source digest, variant, CRC32C, exact sums of the 8-bit pixels, source height and width, decoder."""
    return np.dtype(
        [
            ("digest", "u1", (DIGEST_BYTES,)),
            ("variant", "<i4"),
            ("checksum", "<u4"),
            ("sum", "<u8", (channels,)),
            ("sumsq", "<u8", (channels,)),
            ("source_hw", "<i4", (2,)),
            ("decoder", "u1"),
        ]
    )


@dataclass(frozen=True, slots=True)
class PendingShard:
    """A finished shard in `pending/<build id>/`.

    Attributes
    ----------
    path : the shard file
    pixels_id : which rendering its pixels are of, normalisation apart
    mean, std : what its float16 values were normalised with; None for staged 8-bit pixels
    slots : S
    shape : channels, height, width
    rows : `row_dtype` (n,), one a filled slot, in the order of slots 0, 1, …
    """

    path: Path
    pixels_id: str
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    slots: int
    shape: tuple[int, int, int]
    rows: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("u1" if self.mean is None else "<f2")

    @property
    def chunk_bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    @property
    def record_path(self) -> Path:
        return self.path.with_suffix(".record")


def write_record(shard: PendingShard) -> None:
    """Publish a finished pending shard: the record appears whole or not at all (not flushed)."""
    head = {name: value for name, value in asdict(shard).items() if name not in ("path", "rows")}
    body = canonical_json(head) + b"\n" + shard.rows.tobytes()
    scratch = shard.path.with_suffix(".record-part")
    write_file(scratch, body + digest_of(body))
    rename(scratch, shard.record_path)


def read_record(record_path: Path) -> PendingShard:
    """The pending shard that a record speaks of.

    Raises
    ------
    IntegrityError : cut, damaged, or of another version
    OSError : it cannot be opened or read
    """
    data = record_path.read_bytes()
    body, stored = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if len(data) < DIGEST_BYTES or digest_of(body) != stored:
        raise IntegrityError(f"record {str(record_path)!r} is damaged")
    try:
        line, rows = body.split(b"\n", 1)
        head = json.loads(line)
        shape = tuple(head["shape"])
        shard = PendingShard(
            path=record_path.with_suffix(".shard"),
            pixels_id=head["pixels_id"],
            mean=None if head["mean"] is None else tuple(head["mean"]),
            std=None if head["std"] is None else tuple(head["std"]),
            slots=head["slots"],
            shape=shape,
            rows=np.frombuffer(rows, row_dtype(shape[0])).copy(),
        )
        if len(shard.rows) > shard.slots:
            raise ValueError(f"{len(shard.rows)} rows for {shard.slots} slots")
    except (LookupError, ValueError, TypeError) as error:
        raise IntegrityError(f"record {str(record_path)!r} is of another version") from error
    return shard
