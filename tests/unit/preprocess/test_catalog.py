"""Which renderings exist, found by digest and variant."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_store.manifest import SplitTable
from cache_store.records import row_dtype
from preprocess.catalog import Catalog, committed_rows, distinct


def rows(*pairs: tuple[bytes, int], checksum: int = 0, channels: int = 3) -> np.ndarray:
    table = np.zeros(len(pairs), row_dtype(channels))
    for number, (digest, variant) in enumerate(pairs):
        table["digest"][number] = np.frombuffer(digest, np.uint8)
        table["variant"][number] = variant
        table["checksum"][number] = checksum
    return table


def digests(*values: bytes) -> np.ndarray:
    return np.frombuffer(b"".join(values), np.uint8).reshape(-1, 16)


def name(*first: int) -> bytes:
    """A digest that begins with these bytes and ends in zeros."""
    return bytes(first).ljust(16, b"\0")


def test_each_variant_of_each_digest_is_found():
    catalog = Catalog(3, [rows((name(2), 0), (name(1), 1), (name(1), 0), (name(2), 1))])
    assert catalog.find(digests(name(1), name(2), name(1)), 2).tolist() == [[2, 1], [0, 3], [2, 1]]
    assert catalog.find(digests(name(2)), 1).tolist() == [[0]]


def test_what_is_not_there_is_minus_one():
    catalog = Catalog(3, [rows((name(5), 1))])
    found = catalog.find(digests(name(4), name(5), name(6), bytes(16), b"\xff" * 16), 3)
    assert found.tolist() == [[-1] * 3, [-1, 0, -1], [-1] * 3, [-1] * 3, [-1] * 3]


def test_more_and_fewer_variants_than_exist():
    catalog = Catalog(3, [rows((name(1), 0), (name(1), 1), (name(1), 5))])
    assert catalog.find(digests(name(1)), 1).tolist() == [[0]]
    assert catalog.find(digests(name(1)), 8).tolist() == [[0, 1, -1, -1, -1, 2, -1, -1]]


def test_digests_that_differ_in_trailing_zeros_only_are_told_apart():
    """The keys are numpy's strings, which drop trailing zeros."""
    values = [bytes(16), name(1), name(1, 0, 1), b"\0" * 15 + b"\1", name(0, 1), b"\0" * 14 + b"\1\0"]
    catalog = Catalog(1, [rows(*((value, 0) for value in values), channels=1)])
    assert catalog.find(digests(*values), 1)[:, 0].tolist() == list(range(len(values)))


def test_of_equal_renderings_the_last_table_counts():
    tables = [rows((name(1), 0), (name(2), 0), checksum=7), rows((name(1), 0), checksum=8), rows()]
    catalog = Catalog(3, tables)
    found = catalog.find(digests(name(1), name(2)), 1)
    assert catalog.column("checksum", found).tolist() == [[8], [7]]
    assert catalog.table(found).tolist() == [[1], [0]]
    assert catalog.index(found).tolist() == [[0], [1]]
    other = Catalog(3, tables[::-1])
    assert other.column("checksum", other.find(digests(name(1)), 1)) == 7


def test_columns_are_gathered_over_all_tables_in_the_order_asked_for():
    tables = [rows(*((name(n, t), 0) for n in range(3 * t)), checksum=t) for t in (2, 0, 1, 3)]
    for table in tables:
        table["sum"] = np.arange(len(table) * 3).reshape(-1, 3)
    catalog, all_rows = Catalog(3, tables), np.concatenate(tables)
    asked = np.random.default_rng(0).integers(0, len(catalog), (7, 4))

    assert len(catalog) == 18
    for field in ("digest", "sum", "checksum"):
        assert (catalog.column(field, asked) == all_rows[field][asked]).all()
    assert [(t, asked.reshape(-1)[w].tolist()) for t, w in catalog.by_table(asked.reshape(-1))] == [
        (t, [row for row in asked.reshape(-1).tolist() if start <= row < end])
        for t, start, end in ((0, 0, 6), (2, 6, 9), (3, 9, 18))
    ]
    assert catalog.column("sum", asked[:0]).shape == (0, 4, 3)


def test_within_a_table_the_last_row_counts():
    catalog = Catalog(3, [rows((name(1), 0), (name(1), 0), (name(1), 1))])
    assert catalog.find(digests(name(1)), 2).tolist() == [[1, 2]]


def test_nothing_is_found_in_nothing():
    for tables in ([], [rows()]):
        catalog = Catalog(3, tables)
        assert len(catalog) == 0
        assert catalog.find(digests(name(1)), 2).tolist() == [[-1, -1]]
    assert Catalog(3, [rows((name(1), 0))]).find(np.zeros((0, 16), np.uint8), 2).shape == (0, 2)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(0, 2)), max_size=30),
    st.lists(st.integers(0, 7), max_size=12),
    st.integers(1, 6),
)
def test_it_is_a_dictionary(stored, asked, variants):
    names = [name(0), name(1), name(1, 1), b"\0" * 15 + b"\1", b"\xff" * 16, name(0, 9), name(7), name(8)]
    tables = [rows(*((names[n], k) for n, k, t in stored if t == table)) for table in range(3)]
    expected = {}
    flat = [(names[n], k) for table in range(3) for n, k, t in stored if t == table]
    for place, key in enumerate(flat):
        expected[key] = place
    found = Catalog(3, tables).find(digests(*(names[n] for n in asked)), variants)
    assert found.tolist() == [[expected.get((names[n], k), -1) for k in range(variants)] for n in asked]


def test_distinct_numbers_the_first_of_equal_digests():
    assert distinct(digests(name(3), name(1), name(3), name(1, 0, 1), name(1))).tolist() == [0, 1, 0, 3, 1]
    assert distinct(np.zeros((0, 16), np.uint8)).tolist() == []


@pytest.mark.parametrize("channels", [1, 3])
def test_committed_rows_are_sample_by_sample_all_variants_of_each(channels):
    random = np.random.default_rng(0)
    columns = {
        "slot": np.array([[5, 9, 2], [7, 1, 4]], np.int64),
        "checksum": random.integers(0, 2**32, (2, 3), dtype=np.uint32),
        "sum": random.integers(0, 2**40, (2, 3, channels), dtype=np.uint64),
        "sumsq": random.integers(0, 2**40, (2, 3, channels), dtype=np.uint64),
        "digest": digests(name(4), name(3)),
        "source_hw": np.array([[10, 20], [30, 40]], np.int32),
        "decoder": np.array([[0, 0, 1], [0, 1, 0]], np.uint8),
    }
    table = SplitTable("id", (0.0,), (1.0,), 0, ("opencv",), columns)
    found, slots = committed_rows(table)
    assert slots.tolist() == [5, 9, 2, 7, 1, 4]
    catalog = Catalog(channels, [found])
    for sample in range(2):
        for k in range(3):
            row = found[catalog.find(columns["digest"][sample : sample + 1], 3)[0, k]]
            assert row["variant"] == k
            assert row["source_hw"].tolist() == columns["source_hw"][sample].tolist()
            for column in ("checksum", "sum", "sumsq", "decoder"):
                assert row[column].tolist() == columns[column][sample, k].tolist()
