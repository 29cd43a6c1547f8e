"""Stores of known content for bench_load.py: written as they are, without decoding one photograph.

Each sample is noise that follows from its number alone, and its label is that number. So what any loader delivers can
be compared with a computation that shares no code with the way it took.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cache_store import layout, writer
from cache_store.canonical import digest_of, identity
from cache_store.manifest import Snapshot, SplitTable, no_rows
from cache_store.normalise import normalisation_table, normalise
from cache_store.records import PendingShard, row_dtype
from cache_store.shard import ShardWriter
from cache_store.writer import Commit, TensorsSpec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TABLE = normalisation_table(MEAN, STD)
SHARD_BYTES = 32 << 20

_NOISES = 64


class Content:
    """The samples of one size.

    Parameters
    ----------
    size : height and width

    Attributes
    ----------
    shape : C, H, W
    """

    def __init__(self, size: int) -> None:
        self.shape = (3, size, size)
        self._noise = np.random.default_rng(size).integers(0, 256, (_NOISES, *self.shape), np.uint8)

    def pixels(self, number: int) -> np.ndarray:
        """uint8 (C, H, W); its first four bytes are the number, so that no two samples are equal."""
        image = self._noise[number % _NOISES] ^ np.uint8(number // _NOISES % 256)
        image.reshape(-1)[:4] = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
        return image

    def expected(self, number: int) -> np.ndarray:
        """Normalised, float16 (C, H, W): the formula itself, for checks."""
        mean, std = np.array(MEAN)[:, None, None], np.array(STD)[:, None, None]
        return ((self.pixels(number) / 255.0 - mean) / std).astype(np.float16)

    def halves(self, number: int) -> np.ndarray:
        """The same by table, which is quicker: what stores are made of."""
        return normalise(self.pixels(number), TABLE)

    def chunk(self, number: int, dtype: str) -> np.ndarray:
        return self.pixels(number) if dtype == "uint8" else self.halves(number)


def kept(folder: Path, make: Callable[[Path], None]) -> Path:
    """What `make` writes into a new folder, kept from run to run; one that was cut short is made again."""
    if not folder.exists():
        part = folder.with_name(folder.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        make(part)
        part.rename(folder)
    return folder


def write_cache(
    cache: Path,
    content: Content,
    samples: int,
    dtype: str = "float16",
    *,
    slots: int | None = None,
    rows: int | None = None,
) -> None:
    """Commit a cache with one split, `train`.

    Parameters
    ----------
    samples : stored images
    dtype : 'float16' or 'uint8'
    slots : a shard; None: as many as make 32 MiB
    rows : of the table, which then goes round and round over the stored images; None: one a stored image
    """
    chunk_bytes = int(np.prod(content.shape)) * (1 if dtype == "uint8" else 2)
    slots = slots or min(4096, max(1, SHARD_BYTES // chunk_bytes))
    rendering = {"dtype": dtype, "shape": list(content.shape)}
    mean, std = (None, None) if dtype == "uint8" else (MEAN, STD)
    spec = TensorsSpec(
        identity(rendering), rendering, mean, std, "noise", "00", {"numpy": np.__version__}, content.shape, slots
    )
    writer.claim_folder(cache)
    build = writer.begin(cache)
    checksums = np.zeros(samples, np.uint32)
    shards = []
    for first in range(0, samples, slots):
        mine = range(first, min(first + slots, samples))
        path = build / f"{first:09d}.shard"
        with ShardWriter(path, slots, chunk_bytes) as file:
            for number in mine:
                checksums[number] = file.append(content.chunk(number, dtype))
        shards.append(PendingShard(path, "noise", mean, std, slots, content.shape, np.zeros(len(mine), row_dtype(3))))
    commit = Commit(cache, build)
    commit.ensure_tensors(spec)
    commit.adopt(spec.tensors_id, shards)
    numbers = np.arange(rows or samples)
    commit.publish(_snapshot(commit, _table(spec, numbers, numbers % samples, checksums)))
    writer.clear_pending([build])


def _table(spec: TensorsSpec, numbers: np.ndarray, slots: np.ndarray, checksums: np.ndarray) -> SplitTable:
    """Every column has its real size; those that no loader reads (sums, stat) are zeros."""
    rows = len(numbers)
    name = b"class/%09d.jpg"
    digest = np.frombuffer(digest_of(b"noise"), np.uint8)
    columns = no_rows(1, 3)
    columns |= {
        column: np.zeros((rows, *empty.shape[1:]), empty.dtype)
        for column, empty in columns.items()
        if column not in ("path", "path_end")
    }
    columns |= {
        "slot": slots.reshape(rows, 1),
        "checksum": checksums[slots].reshape(rows, 1),
        "label": slots,
        "digest": np.tile(digest, (rows, 1)),
        "path": np.frombuffer(b"".join(name % number for number in range(rows)), np.uint8),
        "path_end": (numbers + 1) * len(name % 0),
    }
    return SplitTable(spec.tensors_id, MEAN, STD, 0, ("noise",), columns)


def _snapshot(commit: Commit, table: SplitTable) -> Snapshot:
    return Snapshot(
        name=layout.snapshot_name(commit.number),
        parent=commit.parent,
        parent_digest=commit.parent_digest,
        created="2024-01-01T00:00:00Z",
        seconds=0.0,
        recipe={"splits": {"train": {}}},
        classes=("noise",),
        splits={"train": table},
        failures=(),
        tensors=dict(commit.tensors),
    )


def shard_files(cache: Path) -> list[Path]:
    """All shard files of a cache, by number."""
    files = [path for path in cache.glob("tensors/*/image/*") if layout.shard_number(path.name) is not None]
    return sorted(files, key=lambda path: layout.shard_number(path.name) or 0)


def write_jpegs(folder: Path, size: int, samples: int) -> None:
    """`folder/<class>/<number>.jpg`: smooth pictures of the size that photographs are commonly prepared to."""
    import cv2

    height = width = round(size * 256 / 224)
    for number in range(samples):
        coarse = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        picture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
        path = folder / f"class{number % 10}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())
