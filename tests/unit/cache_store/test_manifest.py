import dataclasses
import json
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_store import manifest
from cache_store.canonical import digest_of
from cache_store.errors import CacheStoreError, IntegrityError, StorageError
from cache_store.manifest import COLUMNS, Snapshot, SplitTable, decode, encode, join_strings, no_rows, split_strings
from tests.unit.cache_store.stores import cut, flip_bit

PATHS = [b"cat/a.png", "dög/b.png".encode(), b"dog/\xff\xfe.png", b"", b"x"]


def a_table(samples=5, variants=2, channels=3, seed=0):
    random = np.random.default_rng(seed)
    lengths = {"sample": samples, "variant": variants, "channel": channels, "axis": 2, "byte": 16}
    columns = no_rows(variants, channels)
    for name, (dtype, dimensions) in COLUMNS.items():
        if name not in ("path", "path_end"):
            limits = np.iinfo(dtype)
            shape = [lengths[d] for d in dimensions]
            columns[name] = random.integers(limits.min, limits.max, shape, np.dtype(dtype), endpoint=True)
    columns["path"], columns["path_end"] = join_strings(PATHS[:samples])
    return SplitTable("ab" * 16, (0.1, 1 / 3, 0.3), (0.2, 0.2, 2 / 3), 1234567890123456789, ("opencv", "?"), columns)


def a_snapshot(**splits):
    return Snapshot(
        name="000003",
        parent="000002",
        parent_digest="5a" * 16,
        created="2024-01-02T03:04:05Z",
        seconds=0.1 + 0.2,
        recipe={"splits": {name: {"folder": "ü"} for name in splits}, "seed": 0, "normalize": None},
        classes=("cat", "d\udcffg", "empty"),
        splits=splits,
        failures=({"path": "a\nb.png", "digest": None, "size": 1}, {"path": "\U0010ff7e", "reason": "ü"}),
        tensors={"ab" * 16: {"group": "00" * 16, "image": "11" * 16}},
    )


def store(folder, snapshot):
    """Write every file of a snapshot; returns the digest that the root would hold."""
    files = dict(encode(snapshot))
    for path, data in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    return digest_of(files["zarr.json"]).hex()


def everything(snapshot):
    """A snapshot as plain values, all of its columns read."""
    plain = {field.name: getattr(snapshot, field.name) for field in dataclasses.fields(snapshot)}
    plain["splits"] = {
        name: {
            "columns": {c: (table[c].dtype.str, table[c].shape, table[c].tobytes()) for c in COLUMNS},
            **{f: getattr(table, f) for f in ("tensors_id", "mean", "std", "scanned_ns", "decoders", "variants")},
            "paths": table.paths(),
            "length": len(table),
        }
        for name, table in snapshot.splits.items()
    }
    return plain


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "000003"


@pytest.mark.parametrize(("samples", "variants", "channels"), [(5, 2, 3), (1, 1, 1), (0, 1, 3), (0, 4, 1), (2, 7, 3)])
def test_snapshot_reads_back_as_it_was(folder, samples, variants, channels):
    snapshot = a_snapshot(train=a_table(samples, variants, channels))

    found = decode(folder, store(folder, snapshot))

    assert everything(found) == everything(snapshot)


def test_order_of_splits_is_kept(folder):
    snapshot = a_snapshot(val=a_table(seed=1), train=a_table(seed=2), another=a_table(0))

    found = decode(folder, store(folder, snapshot))

    assert list(found.splits) == ["val", "train", "another"]
    assert everything(found) == everything(snapshot)


def test_paths_are_bytes_whatever_they_are(folder):
    found = decode(folder, store(folder, a_snapshot(train=a_table())))

    assert found.splits["train"].paths() == PATHS


def test_split_without_samples_has_empty_columns(folder):
    table = decode(folder, store(folder, a_snapshot(train=a_table(0, 4)))).splits["train"]

    assert len(table) == 0
    assert table.variants == 4
    assert table.paths() == []
    assert {name: table[name].size for name in COLUMNS} == dict.fromkeys(COLUMNS, 0)
    assert table["slot"].shape == (0, 4)


def test_snapshot_without_failures_or_splits(folder):
    snapshot = dataclasses.replace(a_snapshot(), failures=(), classes=(), parent=None, parent_digest=None)

    assert everything(decode(folder, store(folder, snapshot))) == everything(snapshot)


def test_columns_are_mapped_and_cannot_be_changed(folder):
    table = decode(folder, store(folder, a_snapshot(train=a_table()))).splits["train"]

    for name in COLUMNS:
        with pytest.raises(ValueError, match="read-only"):
            table[name][...] = 0


def test_column_is_read_once_when_first_asked_for(folder, monkeypatch):
    digest = store(folder, a_snapshot(train=a_table(), val=a_table()))
    mapped = []
    real = manifest.map_file
    monkeypatch.setattr(manifest, "map_file", lambda path: mapped.append(path) or real(path))

    table = decode(folder, digest).splits["train"]
    assert mapped == [folder / "failures" / "c.0"]
    assert len(table) == 5
    assert len(table) == 5
    assert mapped[1:] == [folder / "train" / "label" / "c.0"]


def test_bytes_of_a_column_are_those_of_the_file(folder):
    snapshot = a_snapshot(train=a_table())
    store(folder, snapshot)

    stored = (folder / "train" / "slot" / "c.0.0").read_bytes()

    assert stored[:-4] == snapshot.splits["train"]["slot"].tobytes()


# -- damage ------------------------------------------------------------------------------------------------------------


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_all(folder, digest):
    return everything(decode(folder, digest))


def test_flipped_bits_of_every_file_are_found_and_the_file_is_named(folder):
    digest = store(folder, a_snapshot(train=a_table(), val=a_table(seed=1)))
    random = np.random.default_rng(0)

    paths = files_of(folder)
    assert len(paths) == 2 * (2 * 14 + 1) + 3
    for path in paths:
        size = path.stat().st_size
        for byte in {0, size // 2, size - 1, int(random.integers(size))}:
            flip_bit(path, byte, byte % 8)
            with pytest.raises(IntegrityError) as caught:
                read_all(folder, digest)
            assert repr(str(path)) in str(caught.value)
            assert "run: decant repair SOURCE CACHE" in str(caught.value)
            flip_bit(path, byte, byte % 8)
    read_all(folder, digest)


@pytest.mark.parametrize("what", ["empty", "one byte less", "one byte more", "missing", "a folder"])
def test_every_other_damage_of_every_file_is_found_and_the_file_is_named(folder, what):
    digest = store(folder, a_snapshot(train=a_table()))

    for path in files_of(folder):
        whole = path.read_bytes()
        if what in ("missing", "a folder"):
            path.unlink()
            if what == "a folder":
                path.mkdir()
        else:
            size = {"empty": 0, "one byte less": len(whole) - 1, "one byte more": len(whole) + 1}[what]
            cut(path, size)
        with pytest.raises(IntegrityError) as caught:
            read_all(folder, digest)
        assert repr(str(path)) in str(caught.value)
        if what == "a folder":
            path.rmdir()
        path.write_bytes(whole)
    read_all(folder, digest)


def test_swapped_columns_of_one_shape_are_found_by_their_metadata_or_content(folder):
    digest = store(folder, a_snapshot(train=a_table()))
    os.rename(folder / "train" / "size", folder / "train" / "other")
    os.rename(folder / "train" / "checksum", folder / "train" / "size")
    os.rename(folder / "train" / "other", folder / "train" / "checksum")

    with pytest.raises(IntegrityError):
        read_all(folder, digest)


def test_damaged_column_leaves_the_others_readable(folder):
    digest = store(folder, a_snapshot(train=a_table()))
    flip_bit(folder / "train" / "inode" / "c.0", 3)

    table = decode(folder, digest).splits["train"]

    assert np.array_equal(table["slot"], a_table()["slot"])
    for _ in range(2):
        with pytest.raises(IntegrityError, match="inode"):
            table["inode"]


def test_other_digest_than_the_roots_is_refused(folder):
    store(folder, a_snapshot(train=a_table()))

    with pytest.raises(IntegrityError, match="zarr.json' is damaged: its digest is not the recorded one"):
        decode(folder, "00" * 16)


def test_digest_that_is_not_known_is_not_compared(folder):
    store(folder, a_snapshot(train=a_table()))

    assert len(decode(folder, None).splits["train"]) == 5


def test_file_that_the_system_refuses_is_not_called_damaged(folder, monkeypatch):
    digest = store(folder, a_snapshot(train=a_table()))
    table = decode(folder, digest).splits["train"]

    def map_file(path):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(manifest, "map_file", map_file)
    with pytest.raises(StorageError, match="ulimit -n"):
        table["slot"]


# -- hostile metadata: every digest is right ---------------------------------------------------------------------------


def forge(folder, path, change):
    """Change the JSON of one file and let everything above it vouch for it; returns the new root digest."""
    data = json.loads((folder / path).read_bytes())
    change(data)
    (folder / path).write_bytes(json.dumps(data).encode())
    top = folder / "zarr.json"
    if path != "zarr.json":
        metadata = json.loads(top.read_bytes())
        metadata["attributes"]["files"][path] = digest_of((folder / path).read_bytes()).hex()
        top.write_bytes(json.dumps(metadata).encode())
    return digest_of(top.read_bytes()).hex()


@pytest.mark.parametrize(
    "shape",
    [
        [2**40],
        [2**62, 2**62],  # their product is 0 modulo 2**64
        [2**32, 2**32],
        [-1, 2],
        [0, -(2**40)],
        [2**62, 0],
        [5],
        [5, 2, 1],
        [],
        None,
        "52",
        5,
        [5.0, 2],
        ["5", "2"],
        [True, True],
        {"0": 5},
    ],
)
def test_shape_that_cannot_be_meant_is_refused(folder, shape):
    store(folder, a_snapshot(train=a_table()))
    digest = forge(folder, "train/slot/zarr.json", lambda metadata: metadata.update(shape=shape))

    table = decode(folder, digest).splits["train"]

    with pytest.raises(IntegrityError, match="slot"):
        table["slot"]


def drop(*keys):
    def change(metadata):
        for key in keys[:-1]:
            metadata = metadata[key]
        del metadata[keys[-1]]

    return change


def put(value, *keys):
    def change(metadata):
        for key in keys[:-1]:
            metadata = metadata[key]
        metadata[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("zarr.json", drop("attributes")),
        ("zarr.json", put([], "attributes")),
        ("zarr.json", put(None, "attributes", "files")),
        ("zarr.json", drop("attributes", "recipe")),
        ("zarr.json", put({}, "attributes", "recipe")),
        ("zarr.json", put([1], "attributes", "classes")),
        ("zarr.json", put("x", "attributes", "seconds")),
        ("zarr.json", drop("attributes", "files", "train/slot/zarr.json")),
        ("zarr.json", drop("attributes", "files", "train/zarr.json")),
        ("zarr.json", drop("attributes", "files", "failures/zarr.json")),
        ("train/zarr.json", drop("attributes", "mean")),
        ("train/zarr.json", put("x", "attributes", "scanned_ns")),
        ("train/zarr.json", put(3, "attributes", "decoders")),
    ],
)
def test_metadata_that_we_do_not_write_are_refused(folder, path, change):
    store(folder, a_snapshot(train=a_table()))
    digest = forge(folder, path, change)

    with pytest.raises(IntegrityError, match="is not what decant writes"):
        decode(folder, digest)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_text_that_is_no_metadata_is_refused(folder, text):
    store(folder, a_snapshot(train=a_table()))
    (folder / "zarr.json").write_bytes(text)

    with pytest.raises(IntegrityError):
        decode(folder, digest_of(text).hex())


@given(ends=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), data=st.binary(max_size=20))
def test_ends_of_paths_that_lead_astray_do_no_harm(ends, data):
    try:
        found = split_strings(np.frombuffer(data, np.uint8), np.array(ends, np.int64))
    except IntegrityError:
        assert ends != sorted(ends) or min(ends) < 0 or max(ends) > len(data)
    else:
        assert len(found) == len(ends)
        assert sum(map(len, found)) <= len(data)


@given(st.lists(st.binary(max_size=5), max_size=6))
def test_strings_are_joined_and_split(strings):
    data, ends = join_strings(strings)

    assert data.dtype == np.uint8
    assert ends.dtype == np.int64
    assert len(ends) == len(strings)
    assert split_strings(data, ends) == strings


def test_errors_of_a_snapshot_are_the_stores_own(folder):
    with pytest.raises(CacheStoreError):
        decode(folder, None)  # there is nothing
