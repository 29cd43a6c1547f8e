"""Which files are known without reading them, and which split each belongs to."""

import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_store.canonical import digest_of
from cache_store.manifest import SplitTable, join_strings
from preprocess.jobs import Failure, Hashed
from preprocess.paths import Paths
from preprocess.recipe import Recipe
from preprocess.scan import STAT, Scan, SplitScan, Tally
from preprocess.sources import DOUBT_NS, Sources, collect, members, recognise

SECOND = 1_000_000_000
SCANNED = 1_700_000_000 * SECOND
OLD = SCANNED - 3600 * SECOND


def stats_of(*rows: tuple[int, int, int, int]) -> np.ndarray:
    return np.array(list(rows), STAT) if rows else np.zeros(0, STAT)


def split_scan(name, paths, class_names=None, index=None, stats=None) -> SplitScan:
    rows = stats if stats is not None else stats_of(*((10 + i, OLD, OLD, 100 + i) for i in range(len(paths))))
    return SplitScan(name, name, Paths(paths), class_names, np.array(index or [-1] * len(paths), np.int64), rows)


def scan_of(*splits: SplitScan) -> Scan:
    return Scan({s.name: s for s in splits}, SCANNED, Tally(), Tally(), Tally(), [], {}, [])


# -- one table ---------------------------------------------------------------------------------------------------------


def test_collect_joins_the_splits_and_gives_class_ids():
    found = scan_of(
        split_scan("train", ["t/b/1", "t/b/2", "t/a/3"], ["a", "b"], [1, 1, 0]),
        split_scan("val", ["v/c/4"], ["c"], [0]),
        split_scan("test", ["5", "6"]),
    )
    sources = collect(found, ["c", "a", "b"], None)
    assert sources.paths == ["t/b/1", "t/b/2", "t/a/3", "v/c/4", "5", "6"]
    assert sources.labels.tolist() == [2, 2, 1, 0, -1, -1]
    assert sources.ranges == {"train": (0, 3), "val": (3, 4), "test": (4, 6)}
    assert sources.stats["size"].tolist() == [10, 11, 12, 10, 10, 11]
    assert len(sources) == 6
    assert not sources.known.any()


def test_a_limit_is_for_each_split():
    found = scan_of(split_scan("train", ["a", "b", "c"]), split_scan("val", ["d"]))
    sources = collect(found, [], 2)
    assert sources.paths == ["a", "b", "d"]
    assert sources.ranges == {"train": (0, 2), "val": (2, 3)}
    assert len(sources.stats) == len(sources.labels) == len(sources.digests) == 3


def test_a_folder_that_cannot_be_listed_is_one_failed_source_of_no_split():
    sources = collect(scan_of(split_scan("train", ["a"])), [], None)
    sources.add_failed_folder("gone", Failure("read", "denied"))
    assert (sources.paths, sources.failures) == (["a", "gone"], {1: Failure("read", "denied")})
    assert {len(column) for column in (sources.stats, sources.labels, sources.digests, sources.known)} == {2}
    recipe = Recipe.from_dict({"splits": {"train": None}}).with_splits([])
    assert members(sources, recipe)["train"].tolist() == [0]


def test_what_was_read_is_noted_where_it_did_not_fail():
    sources = collect(scan_of(split_scan("train", ["a", "b", "c"])), [], None)
    digests = np.arange(48, dtype=np.uint8).reshape(3, 16)
    stats = stats_of(*((50 + i, 1, 2, 3) for i in range(3)))
    good = sources.take(np.array([2, 0, 1]), Hashed(digests, stats, {1: Failure("read", "gone")}))
    assert good.tolist() == [0, 2]
    assert sources.known.tolist() == [False, True, True]
    assert sources.digests[2].tolist() == digests[0].tolist()
    assert sources.digests[1].tolist() == digests[2].tolist()
    assert sources.stats["size"].tolist() == [10, 52, 50]


# -- recognition -------------------------------------------------------------------------------------------------------


def table_of(rows: dict[str, tuple[int, int, int, int]]) -> SplitTable:
    paths, ends = join_strings([os.fsencode(path) for path in rows])
    stats = stats_of(*rows.values())
    digests = np.frombuffer(b"".join(digest_of(path.encode()) for path in rows), np.uint8).reshape(-1, 16)
    columns = {name: stats[name] for name in STAT.names}
    return SplitTable("", (), (), SCANNED, ("opencv",), columns | {"path": paths, "path_end": ends, "digest": digests})


FILE = (1234, OLD, OLD, 77)
NEWER = (99, SCANNED - SECOND // 2, SCANNED - SECOND // 2, 78)
"""A file written just before the scan: it tells that the clock of the file system is not behind."""


def known(
    now: dict[str, tuple[int, int, int, int]], *tables: SplitTable, failures=(), verified_ns: int | None = None
) -> list[bool]:
    sources = collect(scan_of(split_scan("train", list(now), stats=stats_of(*now.values()))), [], None)
    recognise(sources, list(tables), list(failures), verified_ns)
    for path, digest, is_known in zip(sources.paths, sources.digests, sources.known, strict=True):
        assert digest.tobytes() == (digest_of(path.encode()) if is_known else bytes(16))
    return sources.known.tolist()


def test_an_unchanged_file_is_known():
    assert known({"a": FILE}, table_of({"a": FILE, "new": NEWER})) == [True]


@pytest.mark.parametrize(
    ("field", "value"),
    [(0, 1235), (1, OLD + 1), (1, OLD - SECOND), (2, OLD + 1), (3, 78)],
    ids=["size", "mtime one ns later", "mtime earlier", "ctime", "inode"],
)
def test_a_file_that_differs_in_anything_is_not(field, value):
    changed = list(FILE)
    changed[field] = value
    assert known({"a": tuple(changed)}, table_of({"a": FILE, "new": NEWER})) == [False]


def test_a_file_of_another_name_is_not():
    assert known({"b": FILE}, table_of({"a": FILE, "new": NEWER})) == [False]


def test_every_split_of_the_snapshot_is_asked():
    tables = table_of({"a": FILE, "new": NEWER}), table_of({"b": FILE})
    assert known({"a": FILE, "b": FILE, "c": FILE}, *tables) == [True, True, False]


@pytest.mark.parametrize(("field"), [1, 2], ids=["mtime", "ctime"])
@pytest.mark.parametrize(("before_scan_ns", "expected"), [(0, False), (DOUBT_NS, False), (DOUBT_NS + 1, True)])
def test_a_file_written_shortly_before_the_scan_is_in_doubt(field, before_scan_ns, expected):
    """It may have been written once more within the same tick of the file system's clock."""
    newest = (1, SCANNED + 5, SCANNED + 5, 1)
    file = list(FILE)
    file[field] = SCANNED - before_scan_ns
    assert known({"a": tuple(file)}, table_of({"a": tuple(file), "new": newest})) == [expected]


def test_where_the_clock_of_the_file_system_is_behind_its_newest_file_counts():
    """The scan's own clock would say that a file of an hour ago is beyond doubt, when it was written just now."""
    newest = (5, OLD, OLD, 6)
    early = (7, OLD - DOUBT_NS - 1, OLD - DOUBT_NS - 1, 8)
    assert known({"a": newest, "b": early}, table_of({"a": newest, "b": early})) == [False, True]


@pytest.mark.parametrize(("later", "expected"), [(-SECOND, False), (DOUBT_NS, False), (DOUBT_NS + 1, True)])
def test_a_later_scan_that_found_nothing_changed_settles_what_the_first_left_in_doubt(later, expected):
    newest = (5, OLD, OLD, 6)
    assert known({"a": newest}, table_of({"a": newest}), verified_ns=SCANNED + later) == [expected]


def test_a_later_scan_settles_nothing_that_is_newer_than_itself():
    written = SCANNED + 60 * SECOND
    future = (5, written, OLD, 6)
    assert known({"a": future}, table_of({"a": future}), verified_ns=written + DOUBT_NS) == [False]
    assert known({"a": future}, table_of({"a": future}), verified_ns=written + DOUBT_NS + 1) == [True]


def test_files_that_came_and_went_and_changed_places_are_told_apart():
    former = {f"{i:02d}": (1000 + i, OLD - i, OLD, 50 + i) for i in range(20)} | {"new": NEWER}
    now = {name: former[name] for name in list(former)[19:4:-2]} | {"0": (7, OLD, OLD, 9), "02": former["03"]}

    assert known(now, table_of(former)) == [True] * (len(now) - 2) + [False, False]


def test_a_time_stamp_from_the_future_is_in_doubt():
    future = (5, SCANNED + 10**15, OLD, 6)
    assert known({"a": future}, table_of({"a": future, "new": NEWER})) == [False]


def failed(path, size=1234, mtime=OLD, digest=True):
    return {"path": path, "size": size, "mtime": mtime, "digest": digest_of(path.encode()).hex() if digest else None}


def test_a_failed_file_is_known_by_size_and_time():
    table = table_of({"good": FILE, "new": NEWER})
    moved = (1234, OLD, OLD + 5, 999)  # the list of failures has no ctime and no inode
    assert known({"bad": FILE}, table, failures=[failed("bad")]) == [True]
    assert known({"bad": moved}, table, failures=[failed("bad")]) == [True]
    assert known({"bad": FILE}, table, failures=[failed("bad", size=1)]) == [False]
    assert known({"bad": FILE}, table, failures=[failed("bad", mtime=OLD + 1)]) == [False]
    assert known({"bad": FILE}, table, failures=[failed("bad", digest=False)]) == [False]
    assert known({"bad": NEWER}, table, failures=[failed("bad", NEWER[0], NEWER[1])]) == [False]


def test_names_that_are_not_utf8_are_recognised():
    name = os.fsdecode(b"caf\xe9")
    table = table_of({"new": NEWER})
    columns = dict(table.columns)
    columns["path"], columns["path_end"] = join_strings([b"caf\xe9", b"new"])
    columns |= {field: stats_of(FILE, NEWER)[field] for field in STAT.names}
    columns["digest"] = np.arange(32, dtype=np.uint8).reshape(2, 16)
    sources = collect(scan_of(split_scan("train", [name], stats=stats_of(FILE))), [], None)
    recognise(sources, [replace(table, columns=columns)], [])
    assert sources.known.tolist() == [True]
    assert sources.digests[0].tolist() == list(range(16))


def test_without_a_snapshot_nothing_is_known():
    assert known({"a": FILE}) == [False]


# -- members -----------------------------------------------------------------------------------------------------------


def sources_of(digests: np.ndarray, known_too=True) -> Sources:
    sources = collect(scan_of(split_scan("train", [str(i) for i in range(len(digests))])), [], None)
    sources.digests[:] = digests
    sources.known[:] = known_too
    return sources


def divided(**fractions: float) -> Recipe:
    splits = {name: {"from": "train", "fraction": fraction} for name, fraction in fractions.items()}
    return Recipe.from_dict({"splits": splits | {"train": {"folder": "."}}})


def random_digests(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 16), dtype=np.uint8)


def test_without_fractions_members_are_the_folders_in_order():
    found = scan_of(split_scan("train", ["a", "b"]), split_scan("val", ["c"]))
    sources = collect(found, [], None)
    recipe = Recipe.from_dict({"splits": {"val": {"folder": "val"}, "train": {"folder": "train"}}})
    result = members(sources, recipe)
    assert list(result) == ["val", "train"]
    assert [numbers.tolist() for numbers in result.values()] == [[2], [0, 1]]


@pytest.mark.parametrize("fractions", [{"val": 0.1}, {"val": 0.1, "test": 0.2}, {"a": 0.3, "b": 0.3, "c": 0.3}])
def test_shares_are_near_the_fractions_disjoint_and_whole(fractions):
    result = members(sources_of(random_digests(5000)), divided(**fractions))
    for name, fraction in fractions.items():
        deviation = abs(len(result[name]) - 5000 * fraction) / np.sqrt(5000 * fraction * (1 - fraction))
        assert deviation < 3.3, f"{name}: {len(result[name])}"
    together = np.concatenate(list(result.values()))
    assert sorted(together.tolist()) == list(range(5000))
    assert all((np.diff(numbers) > 0).all() for numbers in result.values()), "order was lost"


def test_the_edges_of_the_range_belong_to_someone():
    digests = np.zeros((4, 16), np.uint8)
    digests[1] = 255
    digests[2, :8] = np.frombuffer((2**63).to_bytes(8, "big"), np.uint8)
    digests[3, :8] = np.frombuffer((2**63 - 2**12).to_bytes(8, "big"), np.uint8)
    result = members(sources_of(digests), divided(val=0.5))
    assert result["val"].tolist() == [0, 3]
    assert result["train"].tolist() == [1, 2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.floats(0.01, 0.3), min_size=1, max_size=3), st.integers(0, 40))
def test_additions_and_removals_move_nobody_and_duplicates_go_together(seed, fractions, cut):
    recipe = divided(**{f"part{i}": fraction for i, fraction in enumerate(fractions)})
    digests = random_digests(60, seed)
    digests[30:40] = digests[20:30]  # equal files
    whole = members(sources_of(digests), recipe)
    place = {int(number): name for name, numbers in whole.items() for number in numbers}
    assert len(place) == 60
    assert all(place[20 + i] == place[30 + i] for i in range(10))
    fewer = members(sources_of(digests[cut:]), recipe)
    assert {int(n) + cut: name for name, numbers in fewer.items() for n in numbers} == {
        number: name for number, name in place.items() if number >= cut
    }
    order = np.random.default_rng(seed).permutation(60)
    shuffled = members(sources_of(digests[order]), recipe)
    assert {int(order[n]): name for name, numbers in shuffled.items() for n in numbers} == place


def test_files_that_are_not_read_yet_stay_where_they_lie():
    sources = sources_of(np.zeros((3, 16), np.uint8), known_too=False)
    sources.known[1] = True
    result = members(sources, divided(val=0.5))
    assert result["val"].tolist() == [1]
    assert result["train"].tolist() == [0, 2]


def test_a_changed_fraction_grows_or_shrinks_its_split_at_one_end():
    sources = sources_of(random_digests(500))
    small, large = members(sources, divided(val=0.1)), members(sources, divided(val=0.2))
    assert set(small["val"].tolist()) < set(large["val"].tolist())
