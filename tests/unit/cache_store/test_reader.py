import contextlib
import errno
import json
import os
import pickle
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr

from cache_store import layout, reader
from cache_store.canonical import identity
from cache_store.errors import CacheStoreError, FormatError, IntegrityError, NotFoundError, StorageError, UsageError
from cache_store.reader import Root, TensorReader, open_cache, read_root, snapshot_names
from cache_store.shard import ShardReader
from cache_store.writer import slots_of
from tests.unit.cache_store.stores import SHAPE, SLOTS, cut, flip_bit, make_cache, spec, tensor

TENSORS = spec().tensors_id


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A cache of 18 samples in 5 shards, never changed."""
    cache = tmp_path_factory.mktemp("made") / "cache"
    make_cache(cache, 18)
    return cache


@pytest.fixture
def cache(made, tmp_path):
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "cache"))


def change_root(cache, **changes):
    root = cache / "zarr.json"
    metadata = json.loads(root.read_bytes())
    metadata["attributes"]["decant"].pop("check", None)  # a root need not have one, and it would notice the change
    metadata["attributes"]["decant"] |= changes
    root.write_bytes(json.dumps(metadata).encode())


# -- the root ----------------------------------------------------------------------------------------------------------


def test_root_names_the_current_snapshot(made):
    root = read_root(made)

    assert (root.snapshot, root.last) == ("000001", 1)
    assert len(root.digest) == 32


@pytest.mark.parametrize("version", [2, 0, None, "1", [1]])
def test_other_format_version_is_refused(cache, version):
    change_root(cache, format_version=version)

    with pytest.raises(
        FormatError, match=f"has format version {version}, this decant reads version 1; install".replace("[", r"\[")
    ):
        open_cache(cache)


def test_needs_that_are_unknown_are_named(cache):
    change_root(cache, needs=["mask", "boxes"])

    with pytest.raises(FormatError, match="needs boxes, mask, unknown to this decant; install a newer one"):
        open_cache(cache)


@pytest.mark.parametrize("needs", ["mask", 5, None, {"mask": 1}])
def test_needs_that_are_no_list_are_damage(cache, needs):
    change_root(cache, needs=needs)

    with pytest.raises(IntegrityError, match="a list of needs expected"):
        open_cache(cache)


def test_what_does_not_exist_is_not_found(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist; build one with: decant build SOURCE CACHE"):
        open_cache(tmp_path / "nothing")


def test_folder_of_something_else_is_not_a_cache(tmp_path):
    (tmp_path / "photo.png").write_bytes(b"")

    with pytest.raises(NotFoundError, match="is not a decant cache"):
        open_cache(tmp_path)


def test_file_is_not_a_cache(tmp_path):
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(NotFoundError, match="is a file, a cache is a folder"):
        open_cache(tmp_path / "file")


def test_other_zarr_groups_and_arrays_are_not_caches(tmp_path):
    zarr.create_group(tmp_path / "group", attributes={"title": "mine"})
    zarr.create_array(tmp_path / "array", shape=(3,), dtype="u1")
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "zarr.json").write_bytes(b'{"zarr_format": 3, "node_type": "group"}')

    for name, kind in (("group", "group"), ("array", "array"), ("bare", "group")):
        with pytest.raises(NotFoundError, match=f"is a Zarr {kind}, but not a decant cache"):
            open_cache(tmp_path / name)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"7", b"\xff\xfe", b'{"attributes": {}}', b"[" * 100_000])
def test_root_that_is_no_metadata_is_damage(cache, text):
    (cache / "zarr.json").write_bytes(text)

    with pytest.raises(IntegrityError, match="is damaged"):
        open_cache(cache)


@pytest.mark.parametrize(
    "changes",
    [
        {"snapshot": "../../etc"},
        {"snapshot": "/etc"},
        {"snapshot": "000001/../000001"},
        {"snapshot": ""},
        {"snapshot": 1},
        {"snapshot": "1"},
        {"snapshot": "000000"},
        {"snapshot": None},  # but a last one
        {"snapshot": "000002"},  # later than the last
        {"last": None},
        {"last": "000000"},
        {"last": ["000001"]},
        {"digest": None},  # would leave the snapshot unverified
        {"digest": ""},
        {"digest": 5},
        {"digest": "00" * 15},
        {"digest": "00" * 16},
    ],
)
def test_root_that_names_no_whole_snapshot_is_damage(cache, changes):
    change_root(cache, **changes)

    with pytest.raises(IntegrityError, match="damaged"):
        open_cache(cache)


def test_whichever_bit_of_the_root_flips_no_other_content_is_shown(cache):
    path = cache / "zarr.json"
    expected = read_root(cache)
    refused = 0

    for position in range(path.stat().st_size * 8):
        flip_bit(path, *divmod(position, 8))
        try:
            if read_root(cache) != expected:
                with open_cache(cache) as opened:
                    assert opened.snapshot.name == "000001"
        except CacheStoreError:
            refused += 1
        flip_bit(path, *divmod(position, 8))

    assert refused > position // 2


def test_cache_without_a_snapshot_says_that_its_first_build_is_not_done(cache):
    change_root(cache, snapshot=None, last=None, digest=None)

    assert read_root(cache) == Root(None, 0, None)
    with pytest.raises(NotFoundError, match="has no finished snapshot"):
        open_cache(cache)


def test_root_that_does_not_agree_with_its_check_is_damage(cache):
    change_root(cache, last="000007")
    assert read_root(cache).last == 7  # nothing else tells
    change_root(cache, last="000007", check="00" * 16)

    with pytest.raises(IntegrityError, match="its check value is not that of its content; run: decant repair"):
        open_cache(cache)


def test_root_that_has_no_snapshot_any_more_still_says_the_last(cache):
    change_root(cache, snapshot=None, digest=None)

    assert read_root(cache) == Root(None, 1, None)
    with pytest.raises(NotFoundError, match="has no finished snapshot"):
        open_cache(cache)


def test_root_that_may_not_be_read_is_denied_not_damaged(cache, monkeypatch):
    def denied(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", denied)

    with pytest.raises(StorageError, match="permission denied: check the owner"):
        open_cache(cache)


@pytest.mark.parametrize(
    "file",
    [
        "zarr.json",
        "snapshots/000001/zarr.json",
        "snapshots/000001/train/zarr.json",
        "snapshots/000001/train/slot/zarr.json",
        "snapshots/000001/train/slot/c.0.0",
        f"tensors/{TENSORS}/zarr.json",
        f"tensors/{TENSORS}/image/zarr.json",
        f"tensors/{TENSORS}/image/c.0.0.0.0",
    ],
)
def test_a_pipe_in_place_of_a_file_is_damage_and_hangs_nobody(cache, file):
    (cache / file).unlink()
    os.mkfifo(cache / file)
    signal.alarm(30)  # ends this process, should anybody wait for a writer
    try:
        with pytest.raises(IntegrityError):
            with open_cache(cache) as opened:
                opened.image("train", 0)
        with contextlib.suppress(IntegrityError):
            with ShardReader(layout.shard_file(cache, TENSORS, 0), SLOTS, int(np.prod(SHAPE)) * 2):
                pass
        with contextlib.suppress(IntegrityError):
            slots_of(cache, TENSORS)
    finally:
        signal.alarm(0)


# -- snapshots by name -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three snapshots of 2, 4 and 6 samples."""
    cache = tmp_path_factory.mktemp("three") / "cache"
    for samples in (2, 4, 6):
        make_cache(cache, samples)
    return cache


def test_snapshots_are_listed_oldest_first(three):
    assert snapshot_names(three) == ["000001", "000002", "000003"]


@pytest.mark.parametrize(("name", "samples"), [(None, 6), ("000001", 2), ("000002", 4), ("000003", 6)])
def test_snapshot_opens_by_its_name(three, name, samples):
    with open_cache(three, name) as cache:
        assert len(cache.split("train")) == samples
        for sample in range(samples):
            assert cache.image("train", sample).tobytes() == tensor(sample).tobytes()


@pytest.mark.parametrize(
    "name",
    ["../../etc", "..", ".", "", "/", "000001/", "../snapshots/000001", "1", "000000", "000004", "000001\0", "9" * 30],
)
def test_name_that_is_not_a_snapshots_is_not_found_and_not_followed(three, name):
    with pytest.raises(NotFoundError, match="there are: 000001, 000002, 000003"):
        open_cache(three, name)


def test_name_that_leads_out_of_the_cache_is_not_followed(three, cache):
    name = os.path.relpath(layout.snapshot_dir(three, "000001"), cache / "snapshots")
    assert (cache / "snapshots" / name / "zarr.json").exists()

    with pytest.raises(NotFoundError):
        open_cache(cache, name)


def test_snapshot_that_is_not_committed_yet_is_not_shown(cache):
    shutil.copytree(layout.snapshot_dir(cache, "000001"), layout.snapshot_dir(cache, "000002"))

    assert snapshot_names(cache) == ["000001"]
    with pytest.raises(NotFoundError, match="there are: 000001"):
        open_cache(cache, "000002")


def test_other_entries_among_the_snapshots_are_passed_over(cache):
    for name in ("٠٠٠٠٠١", "1", "0000001", "tmp"):
        (cache / "snapshots" / name).mkdir()

    assert snapshot_names(cache) == ["000001"]


def test_current_snapshot_that_is_missing_is_damage(cache):
    shutil.rmtree(layout.snapshot_dir(cache, "000001"))

    with pytest.raises(IntegrityError, match="current snapshot 000001 is missing"):
        open_cache(cache)


def test_reader_that_is_overtaken_by_a_commit_and_gc_opens_the_new_snapshot(cache, monkeypatch):
    real = reader.Lease

    def overtaken(path, name):
        if name == "000001":
            make_cache(cache, 3)
            shutil.rmtree(layout.snapshot_dir(cache, "000001"))
        return real(path, name)

    monkeypatch.setattr(reader, "Lease", overtaken)

    with open_cache(cache) as opened:
        assert opened.snapshot.name == "000002"


def test_open_cache_keeps_its_snapshot_whatever_is_committed(cache):
    with open_cache(cache) as before:
        make_cache(cache, 3)
        with open_cache(cache) as after:
            assert len(after.split("train")) == 3
        assert len(before.split("train")) == 18
        for sample in range(18):
            assert before.image("train", sample).tobytes() == tensor(sample).tobytes()


def test_relative_and_absolute_paths_and_strings_open(made, monkeypatch):
    monkeypatch.chdir(made.parent)
    for path in ("cache", Path("cache"), made, str(made)):
        open_cache(path).close()


def test_cache_can_be_moved(cache, tmp_path):
    cache.rename(tmp_path / "elsewhere")

    with open_cache(tmp_path / "elsewhere") as opened:
        assert opened.image("train", 17).tobytes() == tensor(17).tobytes()


# -- images ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_images_are_what_was_written(tmp_path, dtype):
    make_cache(tmp_path / "cache", 5, variants=3, dtype=dtype)

    with open_cache(tmp_path / "cache") as cache:
        assert cache.tensors("train").dtype == dtype
        assert cache.tensors("train").shape == SHAPE
        assert cache.tensors("train").slots == SLOTS
        for sample in range(5):
            for variant in range(3):
                image = cache.image("train", sample, variant)
                assert image.dtype == dtype
                assert image.shape == SHAPE
                assert image.tobytes() == tensor(sample, variant, dtype).tobytes()


def test_image_is_a_view_that_cannot_be_changed_and_outlives_the_cache(made):
    with open_cache(made) as cache:
        image = cache.image("train", 5)
    with pytest.raises(ValueError, match="read-only"):
        image[...] = 0

    assert image.tobytes() == tensor(5).tobytes()


def test_attributes_are_those_of_the_group(made):
    with open_cache(made) as cache:
        attributes = cache.tensors("train").attributes

    assert identity(attributes["rendering"]) == TENSORS
    assert attributes["mean"] == list(spec().mean)


def test_unknown_split_is_named_beside_those_there_are(made):
    with open_cache(made) as cache:
        for ask in (cache.split, cache.tensors, lambda name: cache.image(name, 0)):
            with pytest.raises(NotFoundError, match="has no split 'test'; there are: train"):
                ask("test")


def test_a_snapshot_is_its_digest(cache, tmp_path):
    with open_cache(cache) as opened:
        digest = opened.digest()
    make_cache(tmp_path / "other", 17)
    with open_cache(tmp_path / "other") as other:
        assert other.digest() != digest

    open_cache(cache, "000001", digest=digest).close()
    with pytest.raises(NotFoundError, match=f"000001 with digest {digest} expected, found 000001 with digest [0-9a-f]"):
        open_cache(tmp_path / "other", "000001", digest=digest)


def test_a_shard_of_a_cache_that_took_the_place_of_the_opened_one_is_not_read(cache, tmp_path):
    with open_cache(cache) as opened:
        opened.image("train", 0)
        before = opened.image("train", 0)
        shutil.rmtree(cache)
        make_cache(cache, 17)

        np.testing.assert_array_equal(opened.image("train", 0), before)  # mapped already
        with pytest.raises(NotFoundError, match="the cache was replaced by another one"):
            opened.image("train", 16)


@pytest.mark.parametrize(("sample", "variant"), [(18, 0), (-19, 0), (0, 1), (10**12, 0)])
def test_sample_or_variant_that_is_not_there_is_not_found(made, sample, variant):
    with open_cache(made) as cache:
        with pytest.raises(NotFoundError, match=f"18 samples of 1 variants; there is no sample {sample}"):
            cache.image("train", sample, variant)


# -- a bounded set of maps ---------------------------------------------------------------------------------------------


def mapped(cache):
    return Path("/proc/self/maps").read_text().count(str(layout.image_dir(cache, TENSORS)))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_bounded_maps_give_the_same_bytes(made):
    with open_cache(made) as cache:
        slots = cache.split("train")["slot"][:, 0]
        tensors = TensorReader(made, TENSORS, cache.snapshot.tensors[TENSORS], max_maps=2)
    order = np.random.default_rng(0).permutation(np.tile(np.arange(18), 3))

    for sample in order:
        assert tensors.chunk(int(slots[sample])).tobytes() == tensor(sample).tobytes()
        assert mapped(made) <= 2

    del tensors
    assert mapped(made) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_least_recently_used_map_goes_first(made):
    with open_cache(made) as cache:
        tensors = TensorReader(made, TENSORS, cache.snapshot.tensors[TENSORS], max_maps=2)

    for shard in (0, 1, 0, 2):
        tensors.chunk(shard * SLOTS)

    maps = Path("/proc/self/maps").read_text()
    assert [shard for shard in range(5) if str(layout.shard_file(made, TENSORS, shard)) in maps] == [0, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_image_in_use_keeps_its_shard_mapped_though_the_reader_has_dropped_it(made):
    with open_cache(made) as cache:
        tensors = TensorReader(made, TENSORS, cache.snapshot.tensors[TENSORS], max_maps=1)
    image = tensors.chunk(0)
    tensors.chunk(SLOTS)
    tensors.chunk(2 * SLOTS)

    assert mapped(made) == 2
    assert image.tobytes() == tensor(0).tobytes()


def test_shard_is_mapped_once_for_all_its_slots(made, monkeypatch):
    count = []
    real = reader.map_file
    monkeypatch.setattr(reader, "map_file", lambda path: count.append(path) or real(path))

    with open_cache(made) as cache:
        for sample in range(SLOTS):
            cache.image("train", sample)

    assert len(count) == 1


# -- damage ------------------------------------------------------------------------------------------------------------


def sample_and_file(caught, cache, sample, shard):
    message = str(caught.value)
    assert f"sample {os.fsdecode(b'cat/%c%03d.png' % (255, sample))!r} variant 0" in message
    assert f"shard {shard} of tensors {TENSORS[:8]}" in message
    assert message.endswith("run: decant repair SOURCE CACHE")


@pytest.mark.parametrize("what", ["missing", "empty", "cut", "index", "another size", "a folder"])
def test_damaged_shard_is_named_with_the_sample_and_others_are_read(cache, what):
    path = layout.shard_file(cache, TENSORS, 1)
    if what == "missing":
        path.unlink()
    elif what == "a folder":
        path.unlink()
        path.mkdir()
    elif what == "index":
        flip_bit(path, -9)
    else:
        cut(path, {"empty": 0, "cut": path.stat().st_size - 1, "another size": path.stat().st_size + 8}[what])

    with open_cache(cache) as opened:
        with pytest.raises(IntegrityError) as caught:
            opened.image("train", 6)
        sample_and_file(caught, cache, 6, 1)
        assert repr(str(path)) in str(caught.value)
        assert opened.image("train", 3).tobytes() == tensor(3).tobytes()
        assert opened.image("train", 8).tobytes() == tensor(8).tobytes()


def test_chunk_that_is_missing_is_named_not_shown_as_nan(cache):
    shutil.copy(layout.shard_file(cache, TENSORS, 4), layout.shard_file(cache, TENSORS, 0))  # of two chunks only

    with open_cache(cache) as opened:
        with pytest.raises(IntegrityError, match="slot 3 is empty") as caught:
            opened.image("train", 3)
        sample_and_file(caught, cache, 3, 0)


def test_slot_outside_of_every_shard_is_damage(made):
    with open_cache(made) as cache:
        tensors = cache.tensors("train")
        for slot in (-1, 20, 2**62):
            with pytest.raises(IntegrityError, match="cannot be read"):
                tensors.chunk(slot)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES])
def test_shard_that_the_system_refuses_is_not_called_damaged(made, monkeypatch, number):
    def map_file(path):
        raise OSError(number, os.strerror(number), str(path))

    with open_cache(made) as cache:
        cache.split("train")["slot"]
        monkeypatch.setattr(reader, "map_file", map_file)
        with pytest.raises(StorageError, match="c.0.0.0.0"):
            cache.image("train", 0)


@pytest.mark.parametrize("where", [layout.tensors_dir, layout.image_dir], ids=["group", "image"])
def test_whichever_bit_of_the_tensors_metadata_flips_it_is_found(cache, where):
    path = where(cache, TENSORS) / "zarr.json"
    whole = json.loads(path.read_bytes())

    with open_cache(cache) as opened:
        digests = opened.snapshot.tensors[TENSORS]
    found = 0
    for byte in range(path.stat().st_size):
        flip_bit(path, byte, byte % 7)
        try:
            TensorReader(cache, TENSORS, digests)
        except IntegrityError:
            found += 1
        else:  # a number of slots is free to grow, and white space says nothing
            metadata = json.loads(path.read_bytes())
            metadata["shape"][0] = whole["shape"][0]
            assert metadata == whole
        flip_bit(path, byte, byte % 7)
    assert found > byte // 2


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"shape": []}', b'{"shape": 5}', b"\xff", b"[" * 100_000])
@pytest.mark.parametrize("where", [layout.tensors_dir, layout.image_dir], ids=["group", "image"])
def test_tensors_metadata_that_are_no_metadata_are_damage(cache, where, text):
    (where(cache, TENSORS) / "zarr.json").write_bytes(text)

    with open_cache(cache) as opened:
        with pytest.raises(IntegrityError, match=f"tensors {TENSORS[:8]}"):
            opened.tensors("train")


@pytest.mark.parametrize("where", [layout.tensors_dir, layout.image_dir], ids=["group", "image"])
def test_tensors_metadata_that_are_missing_are_damage(cache, where):
    (where(cache, TENSORS) / "zarr.json").unlink()

    with open_cache(cache) as opened:
        with pytest.raises(IntegrityError, match="cannot be read"):
            opened.image("train", 0)


def test_tensors_that_the_snapshot_does_not_list_are_refused(made):
    with open_cache(made) as cache:
        cache.snapshot.tensors.clear()
        with pytest.raises(IntegrityError, match="does not list the tensors of split 'train'"):
            cache.tensors("train")


# -- end of use --------------------------------------------------------------------------------------------------------


def test_closed_cache_says_so_and_can_be_closed_again(made):
    cache = open_cache(made)
    cache.image("train", 0)
    cache.close()
    cache.close()

    with pytest.raises(UsageError, match="is closed; open it again"):
        cache.image("train", 0)


def test_cache_cannot_be_pickled(made):
    with open_cache(made) as cache:
        with pytest.raises(TypeError, match="open the cache again"):
            pickle.dumps(cache)


def test_opening_leaves_no_descriptor_behind(made):
    def descriptors():
        return len(os.listdir("/dev/fd"))

    before = descriptors()
    for _ in range(3):
        with open_cache(made) as cache:
            cache.image("train", 0)
    assert descriptors() == before


def test_damaged_snapshot_gives_up_its_lease(cache):
    flip_bit(layout.snapshot_dir(cache, "000001") / "train" / "zarr.json", 5)
    before = len(os.listdir("/dev/fd"))

    with pytest.raises(IntegrityError) as caught:
        open_cache(cache)

    assert len(os.listdir("/dev/fd")) == before, f"{caught.value} still holds the lease"


def test_cache_can_be_read_in_a_forked_child_and_by_its_parent_afterwards(made):
    with open_cache(made) as cache:
        cache.image("train", 0)
        child = os.fork()
        if child == 0:
            good = all(cache.image("train", s).tobytes() == tensor(s).tobytes() for s in range(18))
            cache.close()
            os._exit(0 if good else 1)
        deadline = time.monotonic() + 20
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
        if ended == (0, 0):
            os.kill(child, signal.SIGKILL)
        assert ended == (child, 0)
        assert cache.image("train", 17).tobytes() == tensor(17).tobytes()


@pytest.mark.parametrize("below", ["", "cache"])
@pytest.mark.parametrize("target", ["nowhere", "link"])
def test_a_link_to_nothing_is_told_from_nothing(tmp_path, target, below):
    (tmp_path / "link").symlink_to(tmp_path / target)
    with pytest.raises(NotFoundError, match="/link' is a link to '.*', which is not there: is its disk mounted"):
        open_cache(tmp_path / "link" / below)


def test_the_home_folder_may_be_named_by_a_tilde(made, monkeypatch):
    monkeypatch.setenv("HOME", str(made.parent))
    with open_cache(f"~/{made.name}") as opened:
        assert opened.path == made
