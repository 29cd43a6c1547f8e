"""Two builders never work on one cache at once."""

import os
import re
import signal
import socket
import time

import pytest

from cache_store.errors import LockedError
from preprocess.builder import build
from tests.helpers import TINY, image_folder
from tests.integration.checks import assert_as_rendered
from tests.integration.processes import children, decoded, running, slow_build, wait_until


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("lock") / "photos")


def test_the_second_builder_is_told_who_holds_the_cache_until_the_first_dies(tmp_path, notes, photos, decant):
    cache = tmp_path / "cache"
    with slow_build(photos, cache, TINY, "--workers", "1", sleep_s=30) as first:
        wait_until(decoded, process=first)

        second = decant("build", photos, cache, "--workers", 1, code=5)
        with pytest.raises(LockedError):
            build(photos, cache, TINY, workers=1)

        assert second.stdout == ""
        found = re.search(r"process (\d+) on (\S+), started (\d{4}-\d\d-\d\d \d\d:\d\d):\d\d", second.stderr)
        assert found, second.stderr
        assert found[1] == str(first.pid)
        assert found[2] == socket.gethostname()
        assert abs(time.mktime(time.strptime(found[3], "%Y-%m-%d %H:%M")) - time.time()) < 120
        assert "wait until it is done, or stop it" in second.stderr
        assert first.poll() is None
        workers = children(first.pid)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        assert len(workers) == 1
        wait_until(lambda: not running(workers[0]), timeout_s=2)  # although it is busy for half a minute more

        report = build(photos, cache, TINY, workers=1)

    assert report.samples == {"train": 8}
    assert_as_rendered(cache, photos)


def test_a_dry_run_waits_for_nobody(tmp_path, notes, photos):
    cache = tmp_path / "cache"
    with slow_build(photos, cache, TINY, "--workers", "1", sleep_s=30) as first:
        wait_until(decoded, process=first)

        assert build(photos, cache, TINY, workers=1, dry_run=True).dry_run


def test_a_cache_is_free_after_a_build_that_failed(tmp_path, photos, monkeypatch):
    def fail(*_):
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("cache_store.writer.Commit.publish", fail)
        with pytest.raises(RuntimeError, match="a bug"):
            build(photos, tmp_path / "cache", TINY, workers=1)

    assert build(photos, tmp_path / "cache", TINY, workers=1).snapshot == "000001"
