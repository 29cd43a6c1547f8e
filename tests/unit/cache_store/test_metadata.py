"""What we write is plain Zarr v3: zarr-python, tensorstore and zarrs read the same bytes as our own reader.

Each of them runs in a process of its own: they start threads, and zarrs changes zarr-python for good.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cache_store import layout
from cache_store.metadata import encode_array, encode_group, encode_image_array, image_digest, resized
from cache_store.reader import open_cache
from cache_store.shard import ShardReader, ShardWriter
from preprocess import build
from tests.helpers import TINY, image_folder
from tests.unit.cache_store.stores import flip_bit

READERS = ("zarr", "tensorstore", "zarrs")
SHAPE = (3, 4, 5)
SLOTS = 4

SCRIPT = """
import json, os, sys, warnings
import numpy as np

reader, jobs, out = sys.argv[1], json.load(sys.stdin), {}
if reader == "tensorstore":
    import tensorstore

    def open_array(path):
        kvstore = {"driver": "file", "path": path}
        return tensorstore.open({"driver": "zarr3", "kvstore": kvstore, "recheck_cached_data": True}).result()

    def read(array, chosen=...):
        return array[chosen].read().result()
else:
    import zarr

    if reader == "zarrs":
        import zarrs

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})

    def open_array(path):
        return zarr.open_array(path, mode="r")

    def read(array, chosen=...):
        return array[chosen]

warnings.simplefilter("error")
for name, path in jobs["arrays"].items():
    out[name] = read(open_array(path))

for name, (path, commit) in jobs["growing"].items():
    held = open_array(path)
    out[f"{name} before"] = read(held)
    for old, new in commit:
        os.replace(os.path.join(path, old), os.path.join(path, new))
    out[f"{name} held"] = read(held)
    out[f"{name} after"] = read(open_array(path))

found = {}
for name, path in jobs["damaged"].items():
    try:
        read(open_array(path))
    except Exception as error:
        found[name] = str(error)

members, warned = [], []
if reader == "zarr":
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        group = zarr.open_group(jobs["cache"], mode="r")
        members = sorted(path for path, _ in group.members(max_depth=None))
    warned = [str(warning.message) for warning in caught]

np.savez(jobs["out"], **out)
print(json.dumps({"damaged": found, "members": members, "warned": warned}))
"""


def chunks(count, dtype, seed=0):
    random = np.random.default_rng(seed)
    if dtype == "uint8":
        return random.integers(0, 256, (count, *SHAPE), dtype=np.uint8)
    return random.standard_normal((count, *SHAPE)).astype(np.float16)


def write_shard(path, data):
    with ShardWriter(path, SLOTS, data[0].nbytes) as file:
        for chunk in data:
            file.append(chunk)


def image_array(folder: Path, dtype, shards):
    """An image array of our making: shard number -> its chunks; the array is as long as the last shard needs."""
    folder.mkdir(parents=True)
    metadata = encode_image_array(SLOTS, SHAPE, np.dtype(dtype))
    (folder / layout.METADATA).write_bytes(resized(metadata, (max(shards) + 1) * SLOTS))
    for number, data in shards.items():
        write_shard(folder / f"c.{number}.0.0.0", data)
    return folder


def our_own(folder, dtype, shards, slots):
    """All slots through our own reader, empty ones as a foreign reader should show them."""
    out = np.full((slots, *SHAPE), np.nan if dtype == "float16" else 0, dtype)
    for number, data in shards.items():
        with ShardReader(folder / f"c.{number}.0.0.0", SLOTS, data[0].nbytes) as reader:
            for place in range(len(data)):
                reader.read_into(place, out[number * SLOTS + place])
    return out


class Readings:
    """What each foreign reader found, and what it should have."""

    def __init__(self, tmp: Path):
        self.expected, self.arrays, self.growing, self.damaged = {}, {}, {}, {}
        for dtype in ("float16", "uint8"):
            # Shard 0 full, 1 partly filled, 2 not there at all, 3 has one chunk.
            shards = {number: chunks(count, dtype, number) for number, count in ((0, 4), (1, 2), (3, 1))}
            folder = image_array(tmp / dtype, dtype, shards)
            self.arrays[dtype] = str(folder)
            self.expected[dtype] = our_own(folder, dtype, shards, 16)
            for name in ("chunk", "index"):
                data = chunks(2, dtype)
                folder = image_array(tmp / f"{dtype} {name}", dtype, {0: data})
                flip_bit(folder / "c.0.0.0.0", 3 if name == "chunk" else -20)
                self.damaged[f"{dtype} {name}"] = str(folder)
            folder = image_array(tmp / "empty" / dtype, dtype, {0: chunks(1, dtype)})
            (folder / layout.METADATA).write_bytes(encode_image_array(SLOTS, SHAPE, np.dtype(dtype)))
            self.arrays[f"{dtype} without slots"] = str(folder)
            self.expected[f"{dtype} without slots"] = np.zeros((0, *SHAPE), dtype)

        image_folder(tmp / "photos", classes=("cat", "dög"), count=3)
        (tmp / "photos" / "cat" / "broken.png").write_bytes(b"not an image")
        build(tmp / "photos", tmp / "cache", TINY, workers=1, shard_mib=0.002)
        self.cache = tmp / "cache"
        with open_cache(self.cache) as cache:
            self.tensors_id = cache.split("train").tensors_id
            table = cache.split("train")
            for column in table.columns:
                self.arrays[f"train/{column}"] = str(layout.snapshot_dir(self.cache, "000001") / "train" / column)
                self.expected[f"train/{column}"] = np.array(table[column])
            images = np.stack([cache.image("train", sample) for sample in range(len(table))])
            self.arrays["image"] = str(layout.image_dir(self.cache, self.tensors_id))
            self.expected["image"], self.slots = images, table["slot"][:, 0].copy()
            self.arrays["failures"] = str(layout.snapshot_dir(self.cache, "000001") / "failures")
        self.results, self.members, self.warned = {}, [], []
        for reader in READERS:
            for dtype in ("float16", "uint8"):
                self._grow(tmp / f"growing {reader}", dtype)
            jobs = {
                "arrays": self.arrays,
                "growing": self.growing,
                "damaged": self.damaged,
                "cache": str(self.cache),
                "out": str(tmp / f"{reader}.npz"),
            }
            done = subprocess.run(
                [sys.executable, "-c", SCRIPT, reader],
                input=json.dumps(jobs),
                capture_output=True,
                text=True,
                check=False,
            )

            assert done.returncode == 0, done.stderr
            answer = json.loads(done.stdout)
            self.members = self.members or answer["members"]
            self.warned += answer["warned"]
            self.results[reader] = dict(np.load(jobs["out"])), answer["damaged"]

    def _grow(self, tmp, dtype):
        """An array of two slots' shard, and a second shard with new metadata that the reader's script moves in."""
        old, new = chunks(3, dtype), chunks(2, dtype, 1)
        folder = image_array(tmp / dtype, dtype, {0: old})
        write_shard(folder / "pending.shard", new)
        grown = resized((folder / layout.METADATA).read_bytes(), 2 * SLOTS)
        (folder / "zarr.json.part").write_bytes(grown)
        moves = [("pending.shard", "c.1.0.0.0"), ("zarr.json.part", "zarr.json")]
        self.growing[f"growing {dtype}"] = (str(folder), moves)
        fill = np.full((1, *SHAPE), np.nan if dtype == "float16" else 0, dtype)
        self.expected[f"growing {dtype} before"] = np.concatenate([old, fill])
        self.expected[f"growing {dtype} held"] = np.concatenate([old, fill])
        self.expected[f"growing {dtype} after"] = np.concatenate([old, fill, new, fill, fill])


@pytest.fixture(scope="module")
def readings(tmp_path_factory):
    return Readings(tmp_path_factory.mktemp("readings"))


def same(found, expected):
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert np.array_equal(found, expected, equal_nan=found.dtype.kind == "f")
    filled = ~np.isnan(expected) if found.dtype.kind == "f" else np.ones(expected.shape, bool)
    assert found[filled].tobytes() == expected[filled].tobytes()  # the sign of zero, too


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_shards_read_the_same_with_missing_slots_filled(readings, reader, dtype):
    found = readings.results[reader][0][dtype]

    same(found, readings.expected[dtype])
    missing = found[[6, 7, 8, 11, 13]]
    assert np.isnan(missing).all() if dtype == "float16" else not missing.any()


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_array_without_slots_opens(readings, reader, dtype):
    same(readings.results[reader][0][f"{dtype} without slots"], readings.expected[f"{dtype} without slots"])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("when", ["before", "held", "after"])
def test_array_grows_under_its_readers(readings, reader, dtype, when):
    name = f"growing {dtype} {when}"
    same(readings.results[reader][0][name], readings.expected[name])


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("where", ["chunk", "index"])
def test_foreign_readers_find_flipped_bits(readings, reader, dtype, where):
    assert f"{dtype} {where}" in readings.results[reader][1]


@pytest.mark.parametrize("reader", READERS)
def test_every_table_of_a_real_cache_reads_the_same(readings, reader):
    found = readings.results[reader][0]

    columns = [name for name in readings.expected if name.startswith("train/")]
    assert len(columns) == 14
    for name in columns:
        same(found[name], readings.expected[name])
    failures = [json.loads(line) for line in found["failures"].tobytes().splitlines()]
    assert [failure["path"] for failure in failures] == ["cat/broken.png"]


@pytest.mark.parametrize("reader", READERS)
def test_images_of_a_real_cache_read_the_same(readings, reader):
    found = readings.results[reader][0]["image"]

    same(found[readings.slots], readings.expected["image"])
    others = np.delete(found, readings.slots, axis=0)
    assert len(others)
    assert np.isnan(others).all()


def test_every_folder_of_a_cache_is_a_group_or_an_array(readings):
    assert readings.members == sorted(
        str(path.parent.relative_to(readings.cache))
        for path in readings.cache.rglob("zarr.json")
        if path.parent != readings.cache
    )
    assert {f"tensors/{readings.tensors_id}/image", "snapshots/000001/train/slot", "pending"} <= set(readings.members)
    # zarr-python remarks on every file that is not Zarr's; there are none but the builders' own.
    remarks = [f"Object at {name} is not recognized as a component of a Zarr hierarchy." for name in ("lock", "source")]
    assert sorted(readings.warned) == remarks


def test_metadata_are_strict_json(readings):
    def refuse(word):
        raise ValueError(word)

    for path in readings.cache.rglob("zarr.json"):
        json.loads(path.read_bytes().decode("utf-8"), parse_constant=refuse)  # NaN as a bare word


# -- the encoders alone ------------------------------------------------------------------------------------------------


def test_image_array_says_what_the_design_says():
    metadata = json.loads(encode_image_array(7, (3, 8, 9), np.dtype("<f2")))

    assert metadata["shape"] == [0, 3, 8, 9]
    assert metadata["data_type"] == "float16"
    assert metadata["fill_value"] == "NaN"
    assert metadata["dimension_names"] == ["slot", "channel", "y", "x"]
    assert metadata["chunk_grid"]["configuration"]["chunk_shape"] == [7, 3, 8, 9]
    assert metadata["chunk_key_encoding"] == {"name": "default", "configuration": {"separator": "."}}
    (sharding,) = metadata["codecs"]
    assert sharding["name"] == "sharding_indexed"
    inner = sharding["configuration"]
    assert inner["chunk_shape"] == [1, 3, 8, 9]
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    assert inner["codecs"] == [little, {"name": "crc32c"}]
    assert inner["index_codecs"] == [little, {"name": "crc32c"}]
    assert inner["index_location"] == "end"


def test_uint8_array_is_filled_with_zeros():
    assert json.loads(encode_image_array(7, (3, 8, 9), np.dtype("u1")))["fill_value"] == 0


def test_resizing_changes_nothing_but_the_length():
    metadata = encode_image_array(7, (3, 8, 9), np.dtype("<f2"))

    grown = json.loads(resized(metadata, 21))

    assert grown["shape"] == [21, 3, 8, 9]
    assert grown | {"shape": None} == json.loads(metadata) | {"shape": None}


def test_digest_of_an_array_is_that_of_all_but_its_length():
    metadata = encode_image_array(7, (3, 8, 9), np.dtype("<f2"))

    assert image_digest(resized(metadata, 21)) == image_digest(metadata)
    for other in ((8, (3, 8, 9), "<f2"), (7, (3, 8, 10), "<f2"), (7, (3, 8, 9), "u1")):
        assert image_digest(encode_image_array(other[0], other[1], np.dtype(other[2]))) != image_digest(metadata)


@pytest.mark.parametrize(
    "data",
    [
        np.arange(12, dtype=np.int64).reshape(3, 4),
        np.zeros((2, 2, 3), np.uint64),  # not left out, though all of it is the fill value
        np.array([2**64 - 1], np.uint64),
        np.zeros(0, np.uint8),
        np.zeros((0, 4), np.int32),
    ],
)
def test_table_is_one_chunk_of_raw_bytes_and_their_checksum(data):
    dimensions = ["a", "b", "c"][: data.ndim]

    files = encode_array("split/table", data, dimensions)

    chunk = "split/table/" + ".".join(["c", *["0"] * data.ndim])
    assert sorted(files) == sorted(["split/table/zarr.json"] + ([chunk] if data.size else []))
    metadata = json.loads(files["split/table/zarr.json"])
    assert metadata["shape"] == list(data.shape)
    assert metadata["dimension_names"] == dimensions
    if data.size:
        assert files[chunk][:-4] == data.tobytes()


def test_group_holds_its_attributes():
    metadata = json.loads(encode_group({"b": [1, None], "a": {"z": "ü", "y": 1}}))

    assert metadata["zarr_format"] == 3
    assert metadata["node_type"] == "group"
    assert metadata["attributes"] == {"b": [1, None], "a": {"z": "ü", "y": 1}}
    assert list(metadata["attributes"]) == ["b", "a"]
    assert list(metadata["attributes"]["a"]) == ["z", "y"]


@pytest.mark.parametrize(
    ("dtype", "dimensions", "shape"),
    [
        ("<i8", ("sample", "variant"), (2, 3)),
        ("<u8", ("sample", "variant", "channel"), (4, 1, 3)),
        ("u1", ("byte",), (7,)),
        ("u1", ("sample", "byte"), (0, 16)),
    ],
)
def test_small_arrays_are_byte_for_byte_what_zarr_python_writes(dtype, dimensions, shape):
    import zarr
    from zarr.codecs import Crc32cCodec
    from zarr.storage import MemoryStore

    data = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    blobs = {}
    array = zarr.create_array(
        MemoryStore(blobs),
        name="a",
        shape=shape,
        chunks=tuple(max(n, 1) for n in shape),
        dtype=data.dtype,
        fill_value=0,
        filters=None,
        compressors=[Crc32cCodec()],
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=list(dimensions),
    )
    if data.size:
        array[...] = data
    expected = {path: bytes(blob.to_bytes()) for path, blob in blobs.items() if path != "zarr.json"}

    assert encode_array("a", data, dimensions) == expected
