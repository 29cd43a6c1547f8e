import errno
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache_store import durable
from cache_store.errors import IntegrityError, StorageError
from cache_store.shard import (
    CHECKSUM_BYTES,
    MISSING,
    ShardReader,
    ShardWriter,
    checksum,
    index_bytes,
    read_index,
)
from tests.unit.cache_store.stores import OsSpy, cut, failing, flip_bit

SHAPE = (3, 4, 5)
CHUNK_BYTES = 3 * 4 * 5 * 2
SLOTS = 4


def chunks(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).standard_normal((count, *SHAPE)).astype(np.float16))


def write(path, count=3):
    with ShardWriter(path, SLOTS, CHUNK_BYTES) as file:
        for chunk in chunks(count):
            file.append(chunk)
    return path


def read(path, count=3, slots=SLOTS):
    out = np.empty((count, *SHAPE), np.float16)
    with ShardReader(path, slots, CHUNK_BYTES) as reader:
        for slot in range(count):
            reader.read_into(slot, out[slot])
    return out


def with_index(path, entries):
    """Replace the index by hostile entries under a correct checksum."""
    index = np.array(entries, "<u8")
    body = path.read_bytes()[: -index_bytes(SLOTS)]
    path.write_bytes(body + index.tobytes() + checksum(index).to_bytes(4, "little"))


def test_checksum_is_crc32c():
    assert checksum(b"123456789") == 0xE3069283  # RFC 3720, appendix B.4
    assert checksum(np.zeros((2, 4, 4), np.uint8)) == 0x8A9136AA
    assert checksum(memoryview(b"123456789")) == 0xE3069283


def test_what_is_written_reads_back_with_the_same_checksums(tmp_path):
    path = tmp_path / "shard"
    with ShardWriter(path, SLOTS, CHUNK_BYTES) as file:
        values = [file.append(chunk) for chunk in chunks(SLOTS)]

    out = np.empty(SHAPE, np.float16)
    with ShardReader(path, SLOTS, CHUNK_BYTES) as reader:
        for slot, (chunk, value) in enumerate(zip(chunks(SLOTS), values, strict=True)):
            assert reader.read_into(slot, out) == value == checksum(chunk)
            assert out.tobytes() == chunk.tobytes()


def test_file_is_chunks_then_checksums_then_index(tmp_path):
    path = write(tmp_path / "shard", 2)

    data = path.read_bytes()
    assert len(data) == 2 * (CHUNK_BYTES + 4) + 16 * SLOTS + 4
    step = CHUNK_BYTES + CHECKSUM_BYTES
    for slot, chunk in enumerate(chunks(2)):
        stored = data[slot * step : (slot + 1) * step]
        assert stored == chunk.tobytes() + checksum(chunk).to_bytes(4, "little")
    index = data[2 * step : -CHECKSUM_BYTES]
    missing = [2**64 - 1] * 2
    assert np.frombuffer(index, "<u8").reshape(-1, 2).tolist() == [[0, step], [step, step], missing, missing]
    assert data[-CHECKSUM_BYTES:] == checksum(index).to_bytes(4, "little")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_slots_that_were_not_filled_are_empty(tmp_path, count):
    path = write(tmp_path / "shard", count)

    with ShardReader(path, SLOTS, CHUNK_BYTES) as reader:
        assert (reader.offsets >= 0).tolist() == [slot < count for slot in range(SLOTS)]
        assert (reader.offsets[count:] == -1).all()
        with pytest.raises(IntegrityError, match=f"slot {count} is empty"):
            reader.read_into(count, np.empty(SHAPE, np.float16))


def test_chunk_of_another_size_is_refused(tmp_path):
    with pytest.raises(ValueError, match="120 bytes expected, 60 found"):
        with ShardWriter(tmp_path / "shard", SLOTS, CHUNK_BYTES) as file:
            file.append(np.zeros(SHAPE, np.uint8))

    assert list(tmp_path.iterdir()) == []


def test_more_chunks_than_slots_are_refused(tmp_path):
    with pytest.raises(IndexError):
        write(tmp_path / "shard", SLOTS + 1)

    assert list(tmp_path.iterdir()) == []


def test_chunk_that_is_not_contiguous_is_refused(tmp_path):
    with pytest.raises((TypeError, ValueError)):
        with ShardWriter(tmp_path / "shard", SLOTS, CHUNK_BYTES) as file:
            file.append(np.zeros((5, 4, 3), np.float16).transpose(2, 1, 0))

    assert list(tmp_path.iterdir()) == []


def test_existing_file_is_refused_and_kept(tmp_path):
    (tmp_path / "shard").write_bytes(b"mine")

    with pytest.raises(StorageError, match="exists"):
        ShardWriter(tmp_path / "shard", SLOTS, CHUNK_BYTES)

    assert (tmp_path / "shard").read_bytes() == b"mine"


def test_writer_leaves_nothing_behind_after_an_exception(tmp_path):
    def interrupted():
        with ShardWriter(tmp_path / "shard", SLOTS, CHUNK_BYTES) as file:
            file.append(chunks(1)[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert list(tmp_path.iterdir()) == []


def test_disk_that_is_full_when_the_index_is_written_leaves_nothing_behind(tmp_path, monkeypatch):
    file = ShardWriter(tmp_path / "shard", SLOTS, CHUNK_BYTES)
    file.append(chunks(1)[0])
    monkeypatch.setattr(durable, "os", OsSpy(failing("writev", errno.ENOSPC)))

    with pytest.raises(StorageError, match="disk is full"), file:
        pass

    assert list(tmp_path.iterdir()) == []


def test_close_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    file = ShardWriter(tmp_path / "shard", SLOTS, CHUNK_BYTES)
    monkeypatch.setattr(durable, "os", OsSpy(failing("close", errno.EDQUOT)))
    file.append(chunks(1)[0])

    with pytest.raises(StorageError, match="quota"), file:
        pass

    assert list(tmp_path.iterdir()) == []


def test_every_flipped_bit_is_found(tmp_path):
    path = write(tmp_path / "shard")

    for byte in range(path.stat().st_size):
        for bit in (0, 3, 7):
            flip_bit(path, byte, bit)
            with pytest.raises(IntegrityError):
                read(path)
            flip_bit(path, byte, bit)
    read(path)


def test_every_cut_is_found(tmp_path):
    path = write(tmp_path / "shard")

    for size in reversed(range(path.stat().st_size)):
        cut(path, size)
        with pytest.raises(IntegrityError):
            read(path)


def test_bytes_behind_the_index_are_found(tmp_path):
    path = write(tmp_path / "shard")
    path.write_bytes(path.read_bytes() + b"\0")

    with pytest.raises(IntegrityError, match="checksum"):
        read(path)


@pytest.mark.parametrize(
    "entry",
    [
        (3 * 124, 124),  # the index itself
        (3 * 124 - 123, 124),  # one byte into the index
        (10**6, 124),
        (2**31 - 1, 124),
        (2**63 - 1, 124),
        (2**63, 124),  # -2**63, if it were signed
        (2**64 - 124, 124),  # offset + size wraps to 0
        (2**64 - 2, 124),
        (0, 0),
        (0, 120),  # without its checksum
        (0, 123),
        (0, 125),
        (0, 2**63 + 124),
        (2**64 - 1, 124),  # only one of the two says that the chunk is missing
        (0, 2**64 - 1),
    ],
)
def test_index_that_points_astray_is_refused_without_reading_there(tmp_path, entry):
    path = write(tmp_path / "shard")
    with_index(path, [(0, 124), entry, (MISSING, MISSING), (MISSING, MISSING)])

    tracemalloc.start()
    with pytest.raises(IntegrityError, match=f"slot 1 is said to be {entry[1]} bytes at {entry[0]}"):
        read(path, 2)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_index_that_points_into_a_chunk_is_found_by_the_checksum(tmp_path):
    path = write(tmp_path / "shard")
    with_index(path, [(7, 124), (124, 124), (248, 124), (MISSING, MISSING)])

    with pytest.raises(IntegrityError, match="slot 0 has checksum"):
        read(path)


def test_index_of_a_file_without_room_for_one_chunk_is_refused(tmp_path):
    path = write(tmp_path / "shard", 0)
    with_index(path, [(0, 124), *[(MISSING, MISSING)] * 3])

    with pytest.raises(IntegrityError, match="slot 0"):
        read(path, 1)


numbers = st.one_of(st.sampled_from([0, 1, 124, 248, 372, 2**63, 2**64 - 124, 2**64 - 1]), st.integers(0, 2**64 - 1))


@given(st.lists(st.tuples(numbers, st.one_of(st.just(124), numbers)), min_size=SLOTS, max_size=SLOTS))
def test_no_index_leads_outside_of_its_file(entries):
    index = np.array(entries, "<u8")
    tail = index.tobytes() + checksum(index).to_bytes(4, "little")
    file_bytes = 3 * (CHUNK_BYTES + 4) + 16 * SLOTS + 4

    try:
        offsets = read_index(tail, file_bytes, SLOTS, CHUNK_BYTES, "shard 0")
    except IntegrityError:
        return

    for offset, (first, size) in zip(offsets.tolist(), entries, strict=True):
        if offset == -1:
            assert (first, size) == (2**64 - 1, 2**64 - 1)
        else:
            assert offset == first
            assert 0 <= offset <= file_bytes - index_bytes(SLOTS) - 124


@pytest.mark.parametrize("slots", [3, 5, 2**40])
def test_another_number_of_slots_is_refused_without_large_memory(tmp_path, slots):
    path = write(tmp_path / "shard")

    tracemalloc.start()
    with pytest.raises(IntegrityError):
        read(path, 1, slots)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_reader_that_refuses_a_file_leaves_no_descriptor_open(tmp_path):
    path = write(tmp_path / "shard")
    cut(path, 10)
    open_fds = OsSpy().listdir("/dev/fd")

    for _ in range(3):
        with pytest.raises(IntegrityError):
            ShardReader(path, SLOTS, CHUNK_BYTES)

    assert len(OsSpy().listdir("/dev/fd")) == len(open_fds)


def test_message_says_what_where_expected_and_found(tmp_path):
    path = write(tmp_path / "shard")
    stored = checksum(chunks(2)[1])
    flip_bit(path, 124)

    with pytest.raises(IntegrityError) as caught:
        read(path)

    assert f"{str(path)!r}: slot 1 has checksum " in str(caught.value)
    assert f"{stored:08x} is written beside it" in str(caught.value)


def test_memory_of_a_writer_is_its_index_however_much_is_written(tmp_path):
    chunk = np.zeros(1 << 16, np.uint8)

    def peak(slots: int, filled: int) -> int:
        tracemalloc.start()
        with ShardWriter(tmp_path / f"{slots}-{filled}", slots, chunk.nbytes) as file:
            for _ in range(filled):
                file.append(chunk)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1, 1)
    small = peak(4, 4)
    assert peak(4, 1) == pytest.approx(small, abs=2000)
    assert peak(512, 512) < small + 2 * 512 * 16 + 4000  # 32 MiB written
