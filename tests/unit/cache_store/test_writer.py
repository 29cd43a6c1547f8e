import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from cache_store import durable, layout, writer
from cache_store.errors import CacheStoreError, IntegrityError, StorageError, UsageError
from cache_store.metadata import encode_image_array
from cache_store.reader import Root, open_cache, read_root, snapshot_names
from cache_store.records import PendingShard
from cache_store.shard import empty_shard
from cache_store.writer import Commit
from tests.unit.cache_store.stores import (
    SLOTS,
    OsSpy,
    contents,
    cut,
    failing,
    flip_bit,
    make_cache,
    pending_shard,
    pending_shards,
    snapshot_of,
    spec,
    split_table,
    tensor,
)

TENSORS = spec().tensors_id


@pytest.fixture
def cache(tmp_path):
    """A folder that is claimed, with a root and no snapshot."""
    path = tmp_path / "cache"
    writer.claim_folder(path)
    return path


def shards_in(cache):
    """Numbers of the shards in the array."""
    names = [entry.name for entry in os.scandir(layout.image_dir(cache, TENSORS))]
    return sorted(n for name in names if (n := layout.shard_number(name)) is not None)


def empty_shards_in(cache):
    """Those that stand for numbers that were taken and given up."""
    return [n for n in shards_in(cache) if layout.shard_file(cache, TENSORS, n).read_bytes() == empty_shard(SLOTS)]


def length(cache):
    return json.loads((layout.image_dir(cache, TENSORS) / "zarr.json").read_bytes())["shape"][0]


def adopted(cache, build, shards):
    """A commit that is ready to be published: everything but the pointer."""
    commit = Commit(cache, build)
    commit.ensure_tensors(spec())
    numbers = commit.adopt(TENSORS, shards)
    samples = sum(len(shard.rows) for shard in shards)
    return commit, snapshot_of(commit, {"train": split_table(shards, numbers, samples, 1)})


def holds(cache, samples, snapshot=None):
    with open_cache(cache, snapshot) as opened:
        assert len(opened.split("train")) == samples
        for sample in range(samples):
            assert opened.image("train", sample).tobytes() == tensor(sample).tobytes()
    return True


# -- whose folder ------------------------------------------------------------------------------------------------------


def foreign(folder, kind):
    folder.mkdir()
    if kind == "photos":
        (folder / "photo.png").write_bytes(b"mine")
    elif kind == "a hidden file":
        (folder / ".hidden").write_bytes(b"mine")
    elif kind == "folders named like ours":
        for name in ("tensors", "snapshots", "pending"):
            (folder / name).mkdir()
            (folder / name / "mine").write_bytes(b"mine")
    elif kind == "only a folder named pending":
        (folder / "pending" / "mine").mkdir(parents=True)
        (folder / "pending" / "mine" / "thesis.txt").write_bytes(b"mine")
    elif kind == "only a file named pending":
        (folder / "pending").write_bytes(b"mine")
    elif kind == "a Zarr group":
        (folder / "zarr.json").write_bytes(b'{"zarr_format": 3, "node_type": "group", "attributes": {"title": "mine"}}')
    elif kind == "a Zarr group of a namesake":
        (folder / "zarr.json").write_bytes(
            b'{"zarr_format": 3, "node_type": "group", "attributes": {"decant": "wine"}}'
        )
    return folder


@pytest.mark.parametrize(
    "kind",
    [
        "photos",
        "a hidden file",
        "folders named like ours",
        "only a folder named pending",
        "only a file named pending",
        "a Zarr group",
        "a Zarr group of a namesake",
    ],
)
def test_foreign_folder_is_refused_and_untouched(tmp_path, kind):
    folder = foreign(tmp_path / "folder", kind)
    before = contents(tmp_path)

    with pytest.raises(UsageError, match="nothing was touched; name a new folder"):
        writer.claim_folder(folder)

    assert contents(tmp_path) == before


def test_damaged_root_is_refused_and_untouched(tmp_path):
    make_cache(tmp_path / "cache", 2)
    (tmp_path / "cache" / "zarr.json").write_bytes(b"{")
    before = contents(tmp_path)

    with pytest.raises(IntegrityError):
        writer.claim_folder(tmp_path / "cache")

    assert contents(tmp_path) == before


@pytest.mark.parametrize("where", ["file", "file/below"])
def test_file_is_refused_and_untouched(tmp_path, where):
    (tmp_path / "file").write_bytes(b"mine")
    before = contents(tmp_path)

    with pytest.raises(CacheStoreError):
        writer.claim_folder(tmp_path / where)

    assert contents(tmp_path) == before


def test_new_folder_is_made_with_its_parents_and_is_ours_with_a_root(tmp_path):
    cache = tmp_path / "a" / "b" / "cache"

    writer.claim_folder(cache)
    assert not writer.is_ours(cache)
    writer.begin(cache)

    assert writer.is_ours(cache)
    assert (read_root(cache).snapshot, read_root(cache).last) == (None, 0)


def test_new_folders_are_flushed_in_their_parents(tmp_path, monkeypatch):
    spy = OsSpy()
    monkeypatch.setattr(durable, "os", spy)

    writer.claim_folder(tmp_path / "a" / "cache")

    made = [entry for entry in spy.log if entry[0] in ("mkdir", "fsync")]
    assert made[:4] == [
        ("mkdir", str(tmp_path / "a")),
        ("fsync", str(tmp_path)),
        ("mkdir", str(tmp_path / "a" / "cache")),
        ("fsync", str(tmp_path / "a")),
    ]


def test_empty_folder_and_a_cache_are_taken(tmp_path):
    (tmp_path / "cache").mkdir()
    make_cache(tmp_path / "cache", 2)
    make_cache(tmp_path / "cache", 3)

    assert holds(tmp_path / "cache", 3)


def test_first_build_that_was_killed_before_its_root_can_be_done_again(cache):
    layout.lock_file(cache).write_bytes(b"{}")
    (layout.pending_dir(cache) / "zarr.json.part").write_bytes(b"half")

    make_cache(cache, 2)

    assert holds(cache, 2)


def test_folder_that_may_not_be_listed_is_a_storage_error(tmp_path, monkeypatch):
    def scandir(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(writer.os, "scandir", scandir)

    with pytest.raises(StorageError, match="permission denied"):
        writer.claim_folder(tmp_path)


# -- one build after the other -----------------------------------------------------------------------------------------


def test_builds_have_folders_of_their_own(cache):
    builds = {writer.begin(cache) for _ in range(5)}

    assert len(builds) == 5
    assert all(build.parent == layout.pending_dir(cache) and build.is_dir() for build in builds)


def test_begin_removes_tables_that_were_never_published_and_no_others(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 2)
    shutil.copytree(layout.snapshot_dir(cache, "000001"), layout.snapshot_dir(cache, "000002"))

    writer.begin(cache)

    assert sorted(entry.name for entry in os.scandir(cache / "snapshots")) == ["000001", "zarr.json"]
    assert holds(cache, 2)


def test_snapshots_and_shards_are_numbered_on(tmp_path):
    cache = tmp_path / "cache"
    for samples in (6, 4, 1):
        make_cache(cache, samples)

    assert snapshot_names(cache) == ["000001", "000002", "000003"]
    assert shards_in(cache) == [0, 1, 2, 3]
    for samples, name in ((6, "000001"), (4, "000002"), (1, "000003")):
        assert holds(cache, samples, name)


def test_numbers_are_never_used_again_though_the_files_are_gone(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 6)
    for number in shards_in(cache):
        layout.shard_file(cache, TENSORS, number).unlink()

    make_cache(cache, 1)

    assert shards_in(cache) == [2]
    assert length(cache) == 3 * SLOTS


def test_file_beyond_the_arrays_length_is_not_written_over(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 6)
    stray = layout.shard_file(cache, TENSORS, 7)
    stray.write_bytes(b"stray")

    make_cache(cache, 1)

    assert shards_in(cache) == [0, 1, 7, 8]
    assert stray.read_bytes() == b"stray"
    assert length(cache) == 9 * SLOTS
    assert holds(cache, 1)


def test_length_only_grows(tmp_path):
    cache, lengths = tmp_path / "cache", []
    for samples in (9, 1, 5, 0):
        make_cache(cache, samples)
        lengths.append(length(cache))

    assert lengths == [3 * SLOTS, 4 * SLOTS, 6 * SLOTS, 6 * SLOTS]


def test_names_of_snapshots_are_not_used_again_after_a_step_back(tmp_path):
    cache = tmp_path / "cache"
    for samples in (2, 3):
        make_cache(cache, samples)
    data = (layout.snapshot_dir(cache, "000001") / "zarr.json").read_bytes()
    writer.write_root(cache, Root("000001", 2, writer.digest_of(data).hex()))
    assert holds(cache, 2)

    make_cache(cache, 4)

    assert read_root(cache).snapshot == "000003"
    assert holds(cache, 3, "000002")


def test_first_commit_of_uint8_and_float16_tensors_keeps_them_apart(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 3, dtype="uint8")
    make_cache(cache, 3)

    assert holds(cache, 3)
    with open_cache(cache, "000001") as opened:
        assert opened.image("train", 2).tobytes() == tensor(2, dtype="uint8").tobytes()


# -- adopting ----------------------------------------------------------------------------------------------------------


def test_adopting_nothing_changes_nothing(cache):
    build = writer.begin(cache)
    commit = Commit(cache, build)
    commit.ensure_tensors(spec())
    before = contents(cache)

    assert commit.adopt(TENSORS, []) == []
    assert contents(cache) == before


def test_shards_of_another_size_are_refused_before_anything_moves(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 2)
    build = writer.begin(cache)
    shards = [pending_shard(build, "1", [(0, 0)]), pending_shard(build, "2", [(1, 0)], slots=SLOTS + 1)]
    commit = Commit(cache, build)
    commit.ensure_tensors(spec())
    before = contents(cache)

    with pytest.raises(UsageError, match=f"have {SLOTS} slots a shard, a new shard has {SLOTS + 1}"):
        commit.adopt(TENSORS, shards)

    assert contents(cache) == before


def test_flush_that_fails_removes_that_shard_only_and_the_rest_can_be_used_again(cache, monkeypatch):
    build = writer.begin(cache)
    shards = pending_shards(build, 3 * SLOTS)
    commit = Commit(cache, build)
    commit.ensure_tensors(spec())
    monkeypatch.setattr(durable, "os", OsSpy(failing("fsync", errno.EIO, "001-0.shard")))

    with pytest.raises(StorageError, match="001-0.shard.*check the disk"):
        commit.adopt(TENSORS, shards)

    monkeypatch.setattr(durable, "os", os)
    assert shards_in(cache) == []
    recovered, _ = writer.recover(cache)
    assert [shard.path.name for shard in recovered] == ["000-0.shard", "002-0.shard"]


@pytest.mark.parametrize("where", [layout.tensors_dir, layout.image_dir], ids=["group", "image"])
def test_new_snapshot_does_not_vouch_for_metadata_that_were_damaged_meanwhile(tmp_path, where):
    cache = tmp_path / "cache"
    make_cache(cache, 2)
    path = where(cache, TENSORS) / "zarr.json"
    path.write_bytes(
        path.read_bytes().replace(b"image", b"imagf").replace(b'"channel"', b'"chaos"').replace(b"test", b"text")
    )

    with pytest.raises(IntegrityError, match="differs from what snapshot 000001 committed"):
        make_cache(cache, 3)


def test_tensors_that_are_there_keep_their_number_of_slots(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 2)
    commit = Commit(cache, writer.begin(cache))

    commit.ensure_tensors(spec(slots=SLOTS + 3))

    assert writer.slots_of(cache, TENSORS) == SLOTS


def test_slots_of_tensors_that_are_not_there_are_unknown(cache):
    writer.begin(cache)

    assert writer.slots_of(cache, "ab" * 16) is None


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", encode_image_array(4, (3, 4, 5), spec().dtype).replace(b"4", b"0")]
)
def test_slots_of_damaged_metadata_are_not_guessed(tmp_path, text):
    cache = tmp_path / "cache"
    make_cache(cache, 2)
    (layout.image_dir(cache, TENSORS) / "zarr.json").write_bytes(text)

    with pytest.raises(IntegrityError, match="unreadable metadata"):
        writer.slots_of(cache, TENSORS)


# -- after a kill ------------------------------------------------------------------------------------------------------


def test_there_is_nothing_to_recover_in_a_new_folder(cache):
    assert writer.recover(cache) == ([], [])


def test_finished_shards_of_a_dead_build_are_found(cache):
    build = writer.begin(cache)
    made = pending_shards(build, 6)
    pending_shard(build, "900-0", [(7, 0)])

    found, folders = writer.recover(cache)

    assert folders == [build]
    assert [shard.path for shard in found[:2]] == [shard.path for shard in made]
    assert all(writer.verify_pending(shard) for shard in found)
    assert [len(shard.rows) for shard in found] == [4, 2, 1]


@pytest.mark.parametrize("what", ["no record", "damaged record", "no shard", "cut shard", "empty shard", "other slots"])
def test_shards_that_are_not_whole_are_left_out(cache, what):
    build = writer.begin(cache)
    first, second = pending_shards(build, 8)
    if what == "no record":
        first.record_path.unlink()
    elif what == "damaged record":
        flip_bit(first.record_path, 10)
    elif what == "no shard":
        first.path.unlink()
    elif what == "other slots":
        pending_shard(build, "x", [(0, 0)], slots=SLOTS + 1).path.rename(first.path)
        (build / "x.record").unlink()
    else:
        cut(first.path, 0 if what == "empty shard" else first.path.stat().st_size - 1)

    found, _ = writer.recover(cache)

    assert [shard.path for shard in found] == [second.path]


def test_verification_reads_every_chunk_against_its_checksum_and_its_record(cache):
    build = writer.begin(cache)
    shard = pending_shards(build, 4)[0]
    assert writer.verify_pending(shard)

    flip_bit(shard.path, 3 * shard.chunk_bytes)
    assert not writer.verify_pending(shard)
    flip_bit(shard.path, 3 * shard.chunk_bytes)
    shard.rows["checksum"][3] ^= 1
    assert not writer.verify_pending(shard)
    shard.rows["checksum"][3] ^= 1
    shard.path.unlink()
    assert not writer.verify_pending(shard)


def test_shards_that_a_killed_commit_had_adopted_come_back_and_are_committed_by_the_next(cache):
    build = writer.begin(cache)
    made = pending_shards(build, 6)
    adopted(cache, build, made)  # killed before `publish`
    assert shards_in(cache) == [0, 1]
    assert not made[0].path.exists()

    found, folders = writer.recover(cache)

    assert [shard.path for shard in found] == [shard.path for shard in made]
    assert all(writer.verify_pending(shard) for shard in found)
    assert shards_in(cache) == empty_shards_in(cache) == [1]
    again = writer.begin(cache)
    commit, snapshot = adopted(cache, again, found)
    commit.publish(snapshot)
    writer.clear_pending([*folders, again])
    assert snapshot.name == "000001"
    assert shards_in(cache) == [1, 2, 3]  # 0 and 1 are taken for good
    assert holds(cache, 6)


def test_shards_come_back_however_often_commits_are_killed(cache):
    pending_shards(writer.begin(cache), 6)
    for _ in range(3):
        found, _ = writer.recover(cache)
        assert len(found) == 2
        build = writer.begin(cache)
        commit, snapshot = adopted(cache, build, found)

    commit.publish(snapshot)

    assert holds(cache, 6)
    assert shards_in(cache) == [1, 3, 4, 5]
    assert empty_shards_in(cache) == [1, 3]
    assert writer.recover(cache)[0] == []  # what is committed stays where it is
    assert holds(cache, 6)


def test_commit_that_is_killed_between_two_renames_loses_nothing(cache, monkeypatch):
    build = writer.begin(cache)
    made = pending_shards(build, 3 * SLOTS)
    monkeypatch.setattr(durable, "os", OsSpy(failing("rename", errno.EIO, "c.1.0.0.0")))
    with pytest.raises(StorageError):
        adopted(cache, build, made)
    monkeypatch.setattr(durable, "os", os)
    assert shards_in(cache) == [0]

    found, _ = writer.recover(cache)

    assert [shard.path for shard in found] == [shard.path for shard in made]
    assert shards_in(cache) == empty_shards_in(cache) == [2]


def test_shards_of_two_builds_and_two_tensors_come_back_to_their_folders(cache):
    made = []
    for dtype in ("float16", "uint8"):
        made += pending_shards(writer.begin(cache), 6, dtype=dtype)
    commit = Commit(cache, writer.begin(cache))
    for dtype, shards in (("float16", made[:2]), ("uint8", made[2:])):
        commit.ensure_tensors(spec(dtype))
        assert commit.adopt(spec(dtype).tensors_id, shards) == [0, 1]

    found, _ = writer.recover(cache)

    assert {shard.path for shard in found} == {shard.path for shard in made}
    assert all(writer.verify_pending(shard) for shard in found)


def test_shards_of_two_tensors_come_back_to_the_one_folder_that_both_were_made_in(cache):
    build = writer.begin(cache)
    made = {"float16": pending_shards(build, 6)}
    made["uint8"] = [pending_shard(build, "100-0", [(0, 0), (1, 0)], "uint8")]
    commit = Commit(cache, build)
    for dtype, shards in made.items():
        commit.ensure_tensors(spec(dtype))
        commit.adopt(spec(dtype).tensors_id, shards)

    found, _ = writer.recover(cache)

    assert [shard.path for shard in found] == [shard.path for shards in made.values() for shard in shards]
    assert all(writer.verify_pending(shard) for shard in found)


def test_litter_of_a_commit_that_was_published_stays_out_of_the_array(cache):
    build = writer.begin(cache)
    commit, snapshot = adopted(cache, build, pending_shards(build, 6))
    spare = pending_shard(build, "spare", [(50, 0)])
    commit.publish(snapshot)  # killed before `clear_pending`

    found, folders = writer.recover(cache)

    assert [shard.path for shard in found] == [spare.path]
    assert folders == [build]
    assert holds(cache, 6)


@pytest.mark.parametrize(
    "journal",
    [
        b"",
        b"[]",
        b"{}",
        b'{"snapshot": 1, "moves": [[1]]}',
        b'{"snapshot": 1, "moves": 5}',
        b'{"snapshot": "x", "moves": []}',
        b"\xff",
    ],
)
def test_journal_that_is_none_is_passed_over(cache, journal):
    build = writer.begin(cache)
    made = pending_shards(build, 3)
    (build / "adopted.json").write_bytes(journal)

    assert [shard.path for shard in writer.recover(cache)[0]] == [made[0].path]
    commit, snapshot = adopted(cache, build, made)
    commit.publish(snapshot)
    assert holds(cache, 3)


@pytest.mark.parametrize("tensors_id", ["../../other", "..", ".", ""])
def test_journal_cannot_fetch_files_from_elsewhere(cache, tmp_path, tensors_id):
    build = writer.begin(cache)
    target = (cache / "tensors" / tensors_id / "image").resolve()
    target.mkdir(parents=True, exist_ok=True)
    (target / "c.0.0.0.0").write_bytes(b"mine")
    moves = [["1-0.shard", tensors_id, 0]]
    (build / "adopted.json").write_bytes(json.dumps({"snapshot": 1, "moves": moves}).encode())

    writer.recover(cache)

    assert (target / "c.0.0.0.0").read_bytes() == b"mine"


def test_only_folders_of_builds_are_recovered(cache, tmp_path):
    build = writer.begin(cache)
    (layout.pending_dir(cache) / "thesis").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (layout.pending_dir(cache) / ("ab" * 16)).symlink_to(tmp_path / "elsewhere")

    assert writer.recover(cache)[1] == [build]


# -- publishing --------------------------------------------------------------------------------------------------------


def test_what_is_not_published_is_not_seen(tmp_path):
    cache = tmp_path / "cache"
    make_cache(cache, 2)
    build = writer.begin(cache)
    commit, snapshot = adopted(cache, build, pending_shards(build, 6))

    assert holds(cache, 2)
    commit.publish(snapshot)
    assert holds(cache, 6)
    assert holds(cache, 2, "000001")


def test_everything_is_flushed_before_the_pointer_and_the_pointer_comes_last(cache, monkeypatch):
    build = writer.begin(cache)
    made = pending_shards(build, 6)
    spy = OsSpy()
    monkeypatch.setattr(durable, "os", spy)
    commit, snapshot = adopted(cache, build, made)
    commit.publish(snapshot)
    monkeypatch.setattr(durable, "os", os)

    scratch = str(build / "zarr.json.part")
    pointer = spy.log.index(("rename", str(cache / "zarr.json")))
    root_scratch = str(layout.pending_dir(cache) / "zarr.json.part")
    ending = [entry for entry in spy.log[pointer - 8 :] if entry[0] in ("writev", "fsync", "rename")]
    assert ending == [
        ("writev", root_scratch),
        ("fsync", root_scratch),
        ("rename", str(cache / "zarr.json")),
        ("fsync", str(cache)),
    ]

    def places(call, path):
        found = [n for n, entry in enumerate(spy.log[:pointer]) if entry == (call, str(path))]
        assert found, f"no {call} of {path}"
        return found

    def last(call, path):
        return places(call, path)[-1]

    image = layout.image_dir(cache, TENSORS)
    for number, shard in enumerate(made):  # bytes, number, place
        renamed = last("rename", image / f"c.{number}.0.0.0")
        assert last("fsync", shard.path) < last("rename", image / "zarr.json") < renamed < last("fsync", image)
    committed = list((cache / "snapshots" / "000001").rglob("*"))
    assert len(committed) == 3 * 15 + 3  # folder, metadata and chunk of each array; the split; the snapshot's own
    for path in committed:
        if path.is_dir():
            made_in_it = [places("mkdir" if entry.is_dir() else "open", entry)[0] for entry in path.iterdir()]
            written = max(last("mkdir", path), *made_in_it)
        else:
            written = last("writev", path)
        assert written < last("fsync", path)
    for path in (cache / "snapshots", cache / "tensors", layout.tensors_dir(cache, TENSORS)):
        last("fsync", path)
    assert scratch in [path for call, path in spy.log if call == "rename from"]
    # The tables come after the shards, so that they never speak of one that is not there.
    tables = [n for n, (call, path) in enumerate(spy.log) if call == "open" and "/snapshots/000001/" in path]
    assert last("fsync", image) < min(tables)


def test_whichever_call_of_a_commit_fails_the_former_snapshot_stays_and_the_next_commit_succeeds(tmp_path, monkeypatch):
    template = tmp_path / "template"
    make_cache(template, 2)
    build = writer.begin(template)
    pending_shards(build, 6)

    def commit_all(cache):
        found, _ = writer.recover(cache)
        folder = writer.begin(cache)
        if len(found) < 2:  # a shard that failed to flush is not trusted, but rendered again
            found = pending_shards(folder, 6)
        commit, snapshot = adopted(cache, folder, found)
        commit.publish(snapshot)

    counter = OsSpy()
    cache = Path(shutil.copytree(template, tmp_path / "counted"))
    with monkeypatch.context() as patched:
        patched.setattr(durable, "os", counter)
        commit_all(cache)
    total = counter.count
    assert total > 150

    outcomes = set()
    for chosen in [*range(0, 40, 3), *range(40, total - 14, 17), *range(total - 14, total)]:
        cache = Path(shutil.copytree(template, tmp_path / f"failed at {chosen}"))
        persistent = chosen % 2

        def fail(_call, _path, number, chosen=chosen, persistent=persistent):
            return OSError(errno.EIO, "") if number == chosen or (persistent and number > chosen) else None

        with monkeypatch.context() as patched:
            patched.setattr(durable, "os", OsSpy(fail))
            try:
                commit_all(cache)
                raised = False
            except StorageError:
                raised = True
        now = read_root(cache).snapshot
        outcomes.add((raised, now))
        assert holds(cache, {"000001": 2, "000002": 6}[now])
        if now == "000001":
            with monkeypatch.context() as patched:
                patched.setattr(durable, "os", OsSpy())
                commit_all(cache)
        assert holds(cache, 6)
        assert holds(cache, 2, "000001")
        shutil.rmtree(cache)

    assert (True, "000001") in outcomes
    assert outcomes <= {(True, "000001"), (True, "000002"), (False, "000002")}


def test_folders_of_builds_that_are_done_are_cleared(cache):
    builds = [writer.begin(cache) for _ in range(2)]
    pending_shards(builds[0], 3)

    writer.clear_pending([*builds, cache / "pending" / "gone"])

    assert sorted(entry.name for entry in os.scandir(layout.pending_dir(cache))) == ["zarr.json"]


def test_hint_to_the_source_is_relative(cache, tmp_path):
    (tmp_path / "photos").mkdir()

    for _ in range(2):
        writer.leave_source_hint(cache, tmp_path / "photos")

    assert layout.source_hint(cache).read_bytes() == b"../photos"


def test_pending_shards_of_staged_pixels_are_recovered_too(cache):
    build = writer.begin(cache)
    made = pending_shards(build, 3, dtype="uint8")

    (found,), _ = writer.recover(cache)

    assert isinstance(found, PendingShard)
    assert found.mean is None
    assert found.rows.tobytes() == made[0].rows.tobytes()
    assert writer.verify_pending(found)


@pytest.mark.parametrize("below", ["", "cache"])
@pytest.mark.parametrize("target", ["nowhere", "link"])
def test_a_link_to_nothing_does_not_become_a_cache(tmp_path, target, below):
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(UsageError, match="CACHE '.*/link' is a link to '.*', which is not there"):
        writer.claim_folder(tmp_path / "link" / below)
    assert os.listdir(tmp_path) == ["link"]
