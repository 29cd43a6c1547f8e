"""A full disk, a size limit, a refusing file system: one message, the old snapshot, and the next build goes on."""

import errno
import os
import resource
import subprocess
from types import SimpleNamespace

import pytest

from cache_store import durable
from cache_store.errors import NotFoundError, StorageError
from cache_store.reader import open_cache
from loaders import CachedDataset
from preprocess.builder import build
from tests.helpers import TINY, image_folder
from tests.integration.checks import SHARDS_OF_FOUR, assert_as_rendered, contents
from tests.integration.processes import slow_build

LARGE = {
    "size": 64,
    "splits": {"train": {"folder": ".", "transforms": [{"Resize": {"height": 64, "width": 64}}]}},
}
"""24 KiB a tensor."""


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MiB."""
    there = tmp_path / "disk"
    there.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", there], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("this user may not mount file systems")
    yield there
    subprocess.run(["umount", "-l", there], check=True)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("disk") / "photos", count=8)


def test_a_disk_that_fills_up_while_images_are_rendered(tmp_path, notes, photos, small_disk):
    cache = small_disk / "cache"
    few = image_folder(tmp_path / "few", count=2)
    build(few, cache, LARGE, workers=1, shard_mib=0.1)
    before = contents(cache)
    full = image_folder(tmp_path / "full", count=8)
    with open(full / "dog" / "007.png", "ab") as file:
        file.write(b"FULL")
    (notes / "disk").write_text(str(small_disk))

    with slow_build(full, cache, LARGE, "--workers", "2", sleep_s=0) as process:
        _, errors = process.communicate(timeout=30)

    assert process.returncode == 7
    assert errors.startswith("decant: cannot ")
    assert "the disk is full: free some space and run the same command again" in errors
    assert len(errors.splitlines()) == 1
    assert contents(cache) == before

    (small_disk / "filler").unlink()
    build(full, cache, workers=1)

    assert_as_rendered(cache, full)


def refusal(photos, cache):
    """Why a build of an existing cache was refused; None if it was not."""
    try:
        build(photos, cache, workers=1)
    except StorageError as error:
        return error
    return None


def test_a_disk_that_is_full_at_any_moment_of_a_commit(tmp_path, photos, monkeypatch):
    """Every write of the builder itself may be the one that finds no room; worst of all half of it fits."""
    cache = tmp_path / "cache"
    build(image_folder(tmp_path / "few", count=1), cache, TINY, workers=1)
    before = contents(cache)
    writev, calls = os.writev, []
    full_from = 1

    def sometimes_full(fd, parts):
        calls.append(fd)
        if len(calls) == full_from:
            writev(fd, [bytes(parts[0])[: len(parts[0]) // 2]])
        if len(calls) >= full_from:
            raise OSError(errno.ENOSPC, "No space left on device")
        return writev(fd, parts)

    monkeypatch.setattr(durable.os, "writev", sometimes_full)
    for full_from in (1, 9, 17, 25, 33, 35, 37, 41):
        calls.clear()
        error = refusal(photos, cache)
        if error is None:
            break  # no more than this many writes, or one that nobody needs
        assert error.exit_code == 7
        assert "the disk is full" in str(error)
        assert contents(cache) == before, f"committed, although write {full_from} failed: {error}"
    monkeypatch.undo()
    assert full_from > 15

    build(photos, cache, workers=1)

    assert_as_rendered(cache, photos)
    assert contents(cache, "000001") == before


def test_a_flush_that_fails_commits_nothing_and_the_shard_is_written_anew(tmp_path, photos, monkeypatch):
    """After a failed fsync the kernel has dropped the pages and reports success: the same file cannot be trusted."""
    cache = tmp_path / "cache"
    fsync, failed = os.fsync, []

    def failing(fd):
        name = os.readlink(f"/proc/self/fd/{fd}")
        if name.endswith(".shard") and not failed:
            failed.append(name)
            raise OSError(errno.EIO, "Input/output error")
        fsync(fd)

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "fsync", failing)
        with pytest.raises(StorageError, match="the medium failed"):
            build(photos, cache, TINY, workers=1, shard_mib=SHARDS_OF_FOUR)
    with pytest.raises(NotFoundError):
        open_cache(cache)

    report = build(photos, cache, TINY, workers=1)

    assert report.rendered == 4
    assert_as_rendered(cache, photos)


def test_a_cache_on_a_disk_that_is_mounted_read_only(photos, small_disk, decant):
    """It can be read and trained from; a build says why it cannot go on."""
    cache = small_disk / "cache"
    build(photos, cache, TINY, workers=1, shard_mib=SHARDS_OF_FOUR)
    before = contents(cache)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    refused = decant("build", photos, cache, "--workers", 1, code=7)
    fresh = decant("build", photos, small_disk / "other", "--workers", 1, code=7)

    assert "the file system is mounted read-only" in refused.stderr
    assert "the file system is mounted read-only" in fresh.stderr
    assert contents(cache) == before
    with CachedDataset(cache) as dataset:
        assert dataset[15][1] == 1
    assert build(photos, cache, workers=1, dry_run=True).rendered == 0


@pytest.mark.parametrize("name", ["n" * 300, "file/cache"])
def test_a_cache_where_no_folder_can_be(tmp_path, photos, name, decant):
    (tmp_path / "file").touch()

    finished = decant("build", photos, tmp_path / name, "--workers", 1, code=7)

    assert finished.stderr.startswith("decant: cannot ")
    assert len(finished.stderr.splitlines()) == 1


def test_a_limit_on_the_size_of_files(tmp_path, photos, decant):
    """`ulimit -f`: the workers run into it."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("size: 64\nnormalize: imagenet\n")

    finished = decant(
        *("build", photos, tmp_path / "cache", "--recipe", recipe, "--workers", 1),
        code=7,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )

    assert "the file would exceed the size limit (ulimit -f)" in finished.stderr
    assert finished.stdout == ""
    decant("build", photos, tmp_path / "cache", "--recipe", recipe, "--workers", 1)
    assert_as_rendered(tmp_path / "cache", photos)


def test_what_cannot_fit_is_said_before_anything_is_rendered(tmp_path, photos, notes, monkeypatch):
    few_blocks = SimpleNamespace(f_bavail=2, f_frsize=512)
    monkeypatch.setattr(os, "statvfs", lambda path: few_blocks)

    with pytest.raises(StorageError) as caught:
        build(photos, tmp_path / "cache", TINY, workers=1, decoder="tests.decoders:decode")

    assert "1.0 KiB are free" in str(caught.value)
    assert "the build needs up to" in str(caught.value)
    assert "dtype: uint8" in str(caught.value)
    assert not (notes / "decoded").exists()
    assert caught.value.exit_code == 7


def test_a_full_disk_says_what_gc_would_free_and_nothing_that_the_recipe_has(tmp_path, photos, monkeypatch):
    cache = tmp_path / "a cache"
    recipe = {"size": 8, "dtype": "uint8", "splits": {"train": {"folder": "."}}}
    build(photos, cache, recipe, workers=1)
    build(photos, cache, recipe | {"seed": 1, "channels": "gray"}, workers=1)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=0, f_frsize=512))

    with pytest.raises(StorageError, match=f"are free; decant gc '{cache}' would free .* KiB; free some") as caught:
        build(photos, cache, recipe | {"size": 16}, workers=1)

    assert "uint8" not in str(caught.value)
    assert "DOES NOT FIT; decant gc would free" in str(build(photos, cache, recipe | {"size": 16}, dry_run=True))


def test_a_disk_that_fills_up_while_building_says_what_gc_would_free(tmp_path, photos, monkeypatch):
    build(photos, tmp_path / "cache", TINY, workers=1)
    build(photos, tmp_path / "cache", TINY | {"channels": "gray"}, workers=1)

    def full(*_, **__):
        raise StorageError(errno.ENOSPC, "cannot write 'x': the disk is full")

    monkeypatch.setattr("preprocess.builder.publish", full)
    with pytest.raises(StorageError, match=r"the disk is full; decant gc .*/cache would free") as caught:
        build(photos, tmp_path / "cache", TINY | {"channels": "gray", "seed": 5}, workers=1)
    assert (caught.value.errno, caught.value.exit_code) == (errno.ENOSPC, 7)


def test_a_dry_run_says_that_it_does_not_fit(tmp_path, photos, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_bavail=2, f_frsize=512))

    report = build(photos, tmp_path / "cache", TINY, workers=1, dry_run=True)

    assert (report.free_bytes, report.peak_bytes > 1024) == (1024, True)
    assert "DOES NOT FIT" in str(report)
    assert not (tmp_path / "cache").exists()


def test_the_estimate_covers_what_the_build_really_takes(tmp_path):
    """At no moment does a build hold more on disk than was announced."""
    photos = image_folder(tmp_path / "photos", count=8)
    announced = build(photos, tmp_path / "cache", LARGE, workers=2, dry_run=True).peak_bytes
    seen = [0]

    class Measuring:
        def stage(self, name, total):
            self.update(0, 0)

        def update(self, done, failed):
            files = (os.path.join(folder, name) for folder, _, names in os.walk(tmp_path / "cache") for name in names)
            seen.append(sum(os.path.getsize(file) for file in files if os.path.exists(file)))

    report = build(photos, tmp_path / "cache", LARGE, workers=2, shard_mib=0.1, progress=Measuring())

    tables = 100_000  # metadata of a new cache: next to nothing, and the same for a million images
    assert max(seen) <= announced + tables
    assert report.cache_bytes <= announced + tables
    assert announced < 3 * report.cache_bytes + tables
