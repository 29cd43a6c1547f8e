"""Whatever happens to a byte of a cache is found, and named."""

import json
import os
import random
import shutil

import pytest

from cache_store import layout, writer
from cache_store.canonical import identity
from cache_store.errors import FormatError, NotFoundError
from cache_store.reader import Root, read_root
from cache_store.snapshots import rollback
from cache_store.verify import verify
from cache_store.wary import entries
from tests.unit.cache_store.stores import SLOTS, contents, cut, flip_bit, make_cache, spec

TENSORS = spec().tensors_id
CHUNK = 3 * 4 * 5 * 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Three snapshots of two tensors: 2 shards, 1 shard of others, 1 partly filled shard more."""
    cache = tmp_path_factory.mktemp("verify") / "cache"
    make_cache(cache, SLOTS + 2)
    make_cache(cache, 2, dtype="uint8")
    make_cache(cache, 3, variants=2)
    return cache


@pytest.fixture
def tiny(tmp_path):
    """Two snapshots of the same tensors, in few files."""
    make_cache(tmp_path / "tiny", SLOTS + 1)
    make_cache(tmp_path / "tiny", 2)
    return tmp_path / "tiny"


@pytest.fixture
def cache(made, tmp_path):
    return shutil.copytree(made, tmp_path / "cache")


def shard(cache, number):
    return layout.shard_file(cache, spec().tensors_id, number)


def found(cache):
    """kind and file of each finding."""
    report = verify(cache)
    assert report.exit_code == (6 if report.findings else 0)
    return [(finding.kind, finding.file) for finding in report.findings]


def files(cache):
    return sorted(path for path in cache.rglob("*") if path.is_file() and path.parent.name != "pending")


# -- sound caches ------------------------------------------------------------------------------------------------------


def test_sound_cache_is_read_whole_and_left_alone(cache):
    before = contents(cache)

    report = verify(cache)

    assert report.sound
    assert report.snapshots == ("000001", "000002", "000003")
    assert report.snapshot == "000003"
    assert report.files == len(files(cache))
    shards = [path for path in files(cache) if path.name.startswith("c.") and path.parent.name == "image"]
    tables = [path for path in files(cache) if path.parent.parent.name in ("000001", "000002", "000003", "train")]
    assert report.read_bytes == sum(path.stat().st_size for path in {*shards, *tables})
    assert str(report).startswith(f"{cache} is sound: every byte is as committed")
    assert json.loads(report.to_json())["sound"] is True
    assert contents(cache) == before


def test_progress_ends_with_everything_read(cache):
    calls = []
    verify(cache, lambda *numbers: calls.append(numbers))

    done, total, findings = zip(*calls)
    assert list(done) == sorted(done)
    assert done[-1] == total[-1] == sum(path.stat().st_size for path in files(cache))
    assert set(findings) == {0}


@pytest.mark.parametrize("missing", ["pending", "pending/source"])
def test_pending_is_nobodys_business(cache, missing):
    shutil.rmtree(cache / missing, ignore_errors=True)

    assert verify(cache).sound


def test_cache_without_a_snapshot_is_sound(tmp_path):
    writer.claim_folder(tmp_path / "cache")
    writer.begin(tmp_path / "cache")

    report = verify(tmp_path / "cache")

    assert (report.sound, report.snapshot, report.snapshots) == (True, None, ())


def test_root_of_an_older_version_without_a_check_is_sound(cache):
    metadata = json.loads((cache / "zarr.json").read_bytes())
    del metadata["attributes"]["decant"]["check"]
    (cache / "zarr.json").write_text(json.dumps(metadata, indent=2))

    assert verify(cache).sound


def test_leftovers_of_killed_builds_are_noted_and_no_damage(cache):
    build = writer.begin(cache)
    (build / "00000001-0.shard").write_bytes(b"half")
    os.makedirs(layout.snapshot_dir(cache, "000004") / "train")
    os.makedirs(layout.image_dir(cache, "ab" * 16))
    image = layout.image_dir(cache, TENSORS) / "zarr.json"
    image.write_bytes(writer.resized(image.read_bytes(), 9 * SLOTS))

    report = verify(cache)

    assert report.sound
    assert len(report.notes) == 3
    shutil.rmtree(build)
    assert found(cache) == [("image", f"tensors/{TENSORS}/image/zarr.json")]


def test_what_a_build_adds_between_two_looks_is_nothing_foreign(cache, monkeypatch):
    image = layout.image_dir(cache, TENSORS)
    new = {image: layout.shard_file(cache, TENSORS, 9), cache / "snapshots": layout.snapshot_dir(cache, "000004")}

    def entries_then_more(folder):
        found = entries(folder)
        if folder == image:
            shutil.copy(shard(cache, 0), new[image])
        elif folder == cache / "snapshots":
            new[folder].mkdir(exist_ok=True)
        return found

    monkeypatch.setattr("cache_store.verify.entries", entries_then_more)
    monkeypatch.setattr("cache_store.survey.entries", entries_then_more)

    assert [finding.file for finding in verify(cache).findings] == []
    assert all(path.exists() for path in new.values())


@pytest.mark.parametrize("name", ["nowhere", "file", "empty", "foreign"])
def test_what_is_no_cache_is_not_found(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "zarr.json").write_bytes(b'{"zarr_format": 3, "node_type": "group", "attributes": {}}')

    with pytest.raises(NotFoundError) as caught:
        verify(tmp_path / name)
    assert caught.value.exit_code == 4


# -- damage ------------------------------------------------------------------------------------------------------------


def test_every_file_that_is_missing_cut_emptied_zeroed_or_lengthened_is_found(tiny):
    for victim in files(tiny):
        data = victim.read_bytes()
        for action in ("delete", "cut", "empty", "zero", "append", "folder", "pipe"):
            victim.unlink()
            if action == "cut":
                victim.write_bytes(data[: len(data) // 2])
            elif action == "empty":
                victim.write_bytes(b"")
            elif action == "zero":
                victim.write_bytes(bytes(len(data)))
            elif action == "append":
                victim.write_bytes(data + b"\0")
            elif action == "folder":
                victim.mkdir()
            elif action == "pipe":
                os.mkfifo(victim)
            assert str(victim.relative_to(tiny)) in [file for _, file in found(tiny)], (action, victim)
            if action == "folder":
                victim.rmdir()
            else:
                victim.unlink(missing_ok=True)
            victim.write_bytes(data)
    assert verify(tiny).sound


def test_every_one_of_2000_random_bit_flips_is_found_and_costs_no_traceback(tiny):
    rng = random.Random(0)
    sizes = [(path, path.stat().st_size) for path in files(tiny)]
    sizes = [(path, size) for path, size in sizes if size]
    for _ in range(2000):
        path, size = rng.choice(sizes)  # each file alike: most bytes lie in few
        byte, bit = rng.randrange(size), rng.randrange(8)
        flip_bit(path, byte, bit)
        assert str(path.relative_to(tiny)) in [f for _, f in found(tiny)], (path, byte, bit)
        flip_bit(path, byte, bit)
    assert verify(tiny).sound


def test_lost_chunk_is_named_by_sample_and_file(cache):
    flip_bit(shard(cache, 0), 2 * (CHUNK + 4) + 7)

    (finding,) = verify(cache).findings

    assert (finding.kind, finding.shard, finding.slots) == ("shard", 0, (2,))
    assert finding.file == f"tensors/{TENSORS}/image/c.0.0.0.0"
    assert [(s.snapshot, s.split, os.fsencode(s.path), s.variant) for s in finding.samples] == [
        ("000001", "train", b"cat/\xff002.png", 0)
    ]
    text = str(verify(cache))
    assert "1 of 4 chunks do not have the checksum that is written beside them (places 2)" in text
    assert "002.png" in text
    assert text.endswith("run: decant repair SOURCE CACHE")


def test_missing_shard_names_all_that_is_lost(cache):
    shard(cache, 2).unlink()

    (finding,) = verify(cache).findings

    assert finding.slots == tuple(range(2 * SLOTS, 3 * SLOTS))
    assert [(s.path[-7:], s.variant) for s in finding.samples] == [
        ("000.png", 0),
        ("000.png", 1),
        ("001.png", 0),
        ("001.png", 1),
    ]


def test_swapped_shards_are_found(cache):
    shard(cache, 0).rename(cache / "aside")
    shard(cache, 2).rename(shard(cache, 0))
    (cache / "aside").rename(shard(cache, 2))

    assert [f.slots for f in verify(cache).findings] == [(1, 2, 3), (9, 10, 11)]  # sample 0 is the first of both


def test_swapped_chunks_with_right_checksums_are_found(cache):
    data = bytearray(shard(cache, 0).read_bytes())
    size = CHUNK + 4
    data[:size], data[size : 2 * size] = data[size : 2 * size], data[:size]
    shard(cache, 0).write_bytes(data)

    (finding,) = verify(cache).findings

    assert finding.slots == (0, 1)
    assert "are not the ones that the snapshots expect there" in finding.problem


def test_slack_between_chunks_and_index_is_found_and_loses_no_sample(cache):
    data = shard(cache, 1).read_bytes()
    shard(cache, 1).write_bytes(data[: 2 * (CHUNK + 4)] + bytes(5) + data[2 * (CHUNK + 4) :])

    (finding,) = verify(cache).findings

    assert (finding.shard, finding.slots) == (1, ())


def test_stale_table_is_found(cache):
    for name in ("slot/c.0.0", "checksum/c.0.0"):
        path = layout.snapshot_dir(cache, "000003") / "train" / name
        path.write_bytes((layout.snapshot_dir(cache, "000001") / "train" / name).read_bytes())

    assert found(cache) == [
        ("table", "snapshots/000003/train/checksum/c.0.0"),
        ("table", "snapshots/000003/train/slot/c.0.0"),
    ]


def test_swapped_snapshots_are_found(cache):
    first, second = layout.snapshot_dir(cache, "000001"), layout.snapshot_dir(cache, "000003")
    first.rename(cache / "aside")
    second.rename(first)
    (cache / "aside").rename(second)

    assert ("snapshot", "snapshots/000003/zarr.json") in found(cache)


def test_step_back_of_the_root_is_no_damage_but_a_wrong_digest_is(cache):
    root = read_root(cache)
    writer.write_root(cache, Root("000001", 3, root.digest))

    assert found(cache)[0] == ("snapshot", "snapshots/000001/zarr.json")


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "tensors/notes.txt",
        f"tensors/{TENSORS}/notes.txt",
        f"tensors/{TENSORS}/image/c.00.0.0.0",
        f"tensors/{TENSORS}/image/c.1.0.0.0.part",
        "snapshots/notes",
        "snapshots/000001/notes",
        "snapshots/000001/train/notes",
        "snapshots/000001/train/slot/c.0.1",
    ],
)
@pytest.mark.parametrize("folder", [False, True])
def test_foreign_files_and_folders_are_found(cache, name, folder):
    if folder:
        (cache / name).mkdir()
        (cache / name / "more").write_bytes(b"x")
    else:
        (cache / name).write_bytes(b"x")

    assert found(cache) == [("foreign", name)]


def test_lost_current_snapshot_is_found(cache):
    shutil.rmtree(layout.snapshot_dir(cache, "000003"))

    assert found(cache)[0] == ("snapshot", "snapshots/000003/zarr.json")


def test_lost_former_snapshot_is_found_by_the_one_before_it(cache):
    shutil.rmtree(layout.snapshot_dir(cache, "000002"))

    assert found(cache) == [("snapshot", "snapshots/000001/zarr.json")]


def test_lost_snapshot_that_was_stepped_back_from_is_found(cache):
    rollback(cache, "000001")
    shutil.rmtree(layout.snapshot_dir(cache, "000003"))

    assert ("snapshot", "snapshots/000003/zarr.json") in found(cache)


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff", b'{"node_type": "group"}'])
def test_cache_is_known_by_a_whole_snapshot_if_its_root_is_damaged(cache, text):
    (cache / "zarr.json").write_bytes(text)

    assert ("root", "zarr.json") in found(cache)


def test_root_of_a_newer_version_is_refused_and_a_damaged_number_found(cache):
    root = (cache / "zarr.json").read_text()
    (cache / "zarr.json").write_text(root.replace('"format_version": 1', '"format_version": 3'))
    assert found(cache) == [("root", "zarr.json")]

    (cache / "zarr.json").write_text(root.replace('"needs": []', '"needs": ["masks"]'))
    with pytest.raises(FormatError, match="needs masks"):
        verify(cache)


def test_root_that_a_newer_version_wrote_over_snapshots_of_ours_is_no_damage(cache):
    root = json.loads((cache / "zarr.json").read_text())
    said = {key: value for key, value in root["attributes"]["decant"].items() if key != "check"}
    said["format_version"] = 2
    root["attributes"]["decant"] = said | {"check": identity(said)}
    (cache / "zarr.json").write_text(json.dumps(root, indent=2))

    with pytest.raises(FormatError, match="has format version 2"):
        verify(cache)


# -- made to harm ------------------------------------------------------------------------------------------------------


def forge(cache, path, change):
    """Change metadata of snapshot 000003 and make all digests above agree."""
    folder = layout.snapshot_dir(cache, "000003")
    own = json.loads((folder / "zarr.json").read_bytes())
    if path:
        metadata = json.loads((folder / path).read_bytes())
        change(metadata)
        (folder / path).write_text(json.dumps(metadata, indent=2))
        own["attributes"]["files"][path] = writer.digest_of((folder / path).read_bytes()).hex()
    else:
        change(own["attributes"])
    (folder / "zarr.json").write_text(json.dumps(own, indent=2))
    digest = writer.digest_of((folder / "zarr.json").read_bytes()).hex()
    writer.write_root(cache, Root("000003", 3, digest))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a["files"].update({"../../../../etc/passwd": "00" * 16}),
        lambda a: a["files"].update({"/etc/passwd": "00" * 16}),
        lambda a: a["files"].update({"train/../x": "00" * 16}),
        lambda a: a["files"].update({"train/slot/zarr.json": 5}),
        lambda a: a.update(files=[]),
        lambda a: a.update(tensors={"../..": {"group": "", "image": ""}}),
        lambda a: a.update(tensors={}),
        lambda a: a.update(seconds="x"),
        lambda a: a.update(recipe=None),
        lambda a: a.pop("classes"),
    ],
)
def test_metadata_made_to_harm_are_found(cache, change):
    forge(cache, "", change)

    assert not verify(cache).sound


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("train/slot/zarr.json", lambda m: m.update(shape=[1 << 47, 1 << 47])),
        ("train/slot/zarr.json", lambda m: m.update(shape=[2, 3])),
        ("train/label/zarr.json", lambda m: m.update(shape=[0])),
        ("train/zarr.json", lambda m: m["attributes"].update(scanned_ns=float("inf"))),
        ("train/zarr.json", lambda m: m["attributes"].update(tensors_id="../../..")),
    ],
)
def test_tables_made_to_harm_are_found(cache, path, change):
    forge(cache, path, change)

    assert not verify(cache).sound


def test_enormous_metadata_take_no_memory(cache):
    cut(layout.snapshot_dir(cache, "000003") / "zarr.json", 1 << 40)  # sparse
    cut(layout.image_dir(cache, TENSORS) / "zarr.json", 1 << 40)

    assert len(verify(cache).findings) >= 2
