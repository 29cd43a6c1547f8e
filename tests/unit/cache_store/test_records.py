import json

import numpy as np
import pytest

from cache_store.canonical import digest_of
from cache_store.errors import IntegrityError
from cache_store.records import PendingShard, read_record, row_dtype, write_record
from tests.unit.cache_store.stores import cut, flip_bit


def a_shard(folder, rows=3, channels=3, mean=(0.1, 0.2, 0.3)):
    table = np.zeros(rows, row_dtype(channels))
    random = np.random.default_rng(1)
    for field in table.dtype.names:
        table[field] = random.integers(0, 200, table[field].shape)
    table["digest"] = ord("\n")  # a row may hold what ends the first line
    std = None if mean is None else mean
    return PendingShard(folder / "00000007-0.shard", "pixels", mean, std, 8, (channels, 4, 5), table)


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize(("channels", "mean"), [(3, (0.1, 1 / 3, 0.3)), (1, (0.5,)), (3, None)])
def test_record_reads_back_as_it_was(tmp_path, rows, channels, mean):
    shard = a_shard(tmp_path, rows, channels, mean)

    write_record(shard)
    found = read_record(shard.record_path)

    assert found.rows.dtype == shard.rows.dtype
    assert found.rows.tobytes() == shard.rows.tobytes()
    for name in ("path", "pixels_id", "mean", "std", "slots", "shape", "dtype", "chunk_bytes"):
        assert getattr(found, name) == getattr(shard, name), name


def test_rows_can_be_changed(tmp_path):
    write_record(a_shard(tmp_path))

    read_record(tmp_path / "00000007-0.record").rows["variant"] = 5


def test_size_of_a_chunk_follows_from_what_it_holds(tmp_path):
    assert a_shard(tmp_path).dtype == np.float16
    assert a_shard(tmp_path).chunk_bytes == 3 * 4 * 5 * 2
    assert a_shard(tmp_path, mean=None).dtype == np.uint8
    assert a_shard(tmp_path, mean=None).chunk_bytes == 3 * 4 * 5


def test_record_moves_with_its_folder(tmp_path):
    (tmp_path / "there").mkdir()
    write_record(a_shard(tmp_path))
    (tmp_path / "00000007-0.record").rename(tmp_path / "there" / "1-0.record")

    assert read_record(tmp_path / "there" / "1-0.record").path == tmp_path / "there" / "1-0.shard"


def test_only_the_record_is_left_in_the_folder(tmp_path):
    write_record(a_shard(tmp_path))

    assert [path.name for path in tmp_path.iterdir()] == ["00000007-0.record"]


def test_every_flipped_bit_is_found(tmp_path):
    write_record(a_shard(tmp_path))
    path = tmp_path / "00000007-0.record"

    for byte in range(path.stat().st_size):
        flip_bit(path, byte, byte % 8)
        with pytest.raises(IntegrityError, match="00000007-0.record"):
            read_record(path)
        flip_bit(path, byte, byte % 8)
    read_record(path)


def test_every_cut_is_found(tmp_path):
    write_record(a_shard(tmp_path))
    path = tmp_path / "00000007-0.record"

    for size in reversed(range(path.stat().st_size)):
        cut(path, size)
        with pytest.raises(IntegrityError):
            read_record(path)


HEAD = {"pixels_id": "p", "mean": None, "std": None, "slots": 8, "shape": [3, 4, 5]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no line",
        b"no json\n",
        b"[]\n",
        b"\xff\n",
        json.dumps(HEAD | {"shape": []}).encode() + b"\n",
        json.dumps(HEAD | {"shape": ["x"]}).encode() + b"\n",
        json.dumps({"pixels_id": "p"}).encode() + b"\n",
        json.dumps(HEAD).encode() + b"\n" + bytes(row_dtype(3).itemsize - 1),
        json.dumps(HEAD | {"slots": 1}).encode() + b"\n" + bytes(2 * row_dtype(3).itemsize),
    ],
)
def test_record_of_another_version_is_refused(tmp_path, body):
    path = tmp_path / "1-0.record"
    path.write_bytes(body + digest_of(body))

    with pytest.raises(IntegrityError, match="another version"):
        read_record(path)


def test_record_that_is_not_there_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_record(tmp_path / "1-0.record")
