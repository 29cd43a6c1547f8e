"""The N-th system call of a build fails, for every N until it succeeds: the old state or the new one, and never a bug.

Each way to fail is tried once and from then on. By default the error of each call is one of three in turn; with
DECANT_ALL_ERRORS=1 (`make soak`) each is tried.
"""

import contextlib
import errno
import os
import shutil
from pathlib import Path

import pytest

from cache_store import durable, lock
from cache_store.errors import IntegrityError, LockedError, StorageError
from cache_store.verify import verify
from preprocess import build
from tests.helpers import image_folder, write_image
from tests.integration.checks import SHARDS_OF_FOUR, contents
from tests.unit.cache_store.stores import OsSpy

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
ALL = bool(os.environ.get("DECANT_ALL_ERRORS"))
PARTS = 4

_CROP = [{"RandomCrop": {"height": 8, "width": 8}}]
RECIPE = {"size": 8, "splits": {"train": {"folder": ".", "variants": 2, "transforms": _CROP}}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """`photos`, the cache `before` they changed, and `after`; how many system calls lie between."""
    root = tmp_path_factory.mktemp("calls")
    photos = image_folder(root / "photos", count=3)
    build(photos, root / "before", RECIPE, workers=1, shard_mib=SHARDS_OF_FOUR)
    write_image(photos / "dog" / "new.png", 50)
    (photos / "cat" / "000.png").unlink()
    shutil.copytree(root / "before", root / "after")
    spy = OsSpy()
    with pytest.MonkeyPatch.context() as patch:
        spy_on(patch, spy)
        build(photos, root / "after", RECIPE, workers=1, shard_mib=SHARDS_OF_FOUR)
    return root, spy.count


def spy_on(patch, spy):
    for module in (durable, lock):
        patch.setattr(module, "os", spy)


class Forgetful(OsSpy):
    """A kernel that has lost what it could not flush: it shows when the file is dropped from memory and read again."""

    def __init__(self, lost):
        super().__init__()
        self.lost = lost

    def posix_fadvise(self, fd, *rest):
        if os.fstat(fd).st_ino in self.lost:
            Path(self.paths[fd]).write_bytes(bytes(os.fstat(fd).st_size))


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("persistent", [False, True], ids=["once", "from then on"])
def test_a_call_that_fails(place, tmp_path, persistent, part):
    root, calls = place
    old, new = contents(root / "before"), contents(root / "after")
    assert calls > 100
    survived = 0
    for number in range(part, calls, PARTS):
        for code in ERRORS if ALL else (ERRORS[number // PARTS % 3],):
            cache = tmp_path / "cache"
            shutil.copytree(root / "before", cache)
            untrusted: set[int] = set()

            def fail(name, path, at, number=number, code=code, untrusted=untrusted):
                if name == "close" or (at != number and not (persistent and at > number)):
                    return None
                if name == "fsync" and os.path.isfile(path):
                    untrusted.add(os.stat(path).st_ino)
                    os.link(path, tmp_path / f"untrusted-{at}")  # so that its number is not used again
                return OSError(code, os.strerror(code))

            with pytest.MonkeyPatch.context() as patch:
                spy_on(patch, OsSpy(fail))
                with contextlib.suppress(StorageError, IntegrityError, LockedError):  # any other is a bug of ours
                    build(root / "photos", cache, RECIPE, workers=1, shard_mib=SHARDS_OF_FOUR)
                    survived += 1

            assert contents(cache) in (old, new), f"call {number}"
            with pytest.MonkeyPatch.context() as patch:
                spy_on(patch, Forgetful(untrusted))
                build(root / "photos", cache, RECIPE, workers=1, shard_mib=SHARDS_OF_FOUR)
            assert contents(cache) == new, f"call {number}"
            assert verify(cache).sound, f"call {number}"
            committed = {path.stat().st_ino for path in cache.rglob("*") if "pending" not in path.parts}
            assert not untrusted & committed, f"call {number}: a file whose flush failed is part of the cache"
            shutil.rmtree(cache)
            for path in tmp_path.glob("untrusted-*"):
                path.unlink()
    assert survived < calls / PARTS  # hints may fail; everything else may not go unnoticed
