"""A worker that outlives its builder, stopped in the middle of a shard: whatever it does later harms nothing."""

import contextlib
import os
import signal

import pytest

from cache_store.verify import verify
from preprocess import build
from tests import decoders
from tests.helpers import TINY, image_folder
from tests.integration.checks import SHARDS_OF_FOUR, contents
from tests.integration.processes import children, decoded, running, slow_build, wait_until


@pytest.mark.parametrize("dies", [True, False], ids=["dies with its builder", "lives on"])
def test_an_orphan_changes_nothing_that_is_committed(tmp_path, notes, dies, monkeypatch):
    """Linux ends workers with their builder; elsewhere they live until they notice that nobody listens."""
    if not dies:
        monkeypatch.setenv(decoders.OUTLIVES, "1")
    photos, cache = image_folder(tmp_path / "photos", count=20), tmp_path / "cache"
    with slow_build(photos, cache, TINY, "--workers", "1", "--shard-mib", str(SHARDS_OF_FOUR), sleep_s=0.05) as process:
        wait_until(lambda: decoded() >= 6, process=process)
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGSTOP)
        process.kill()
        process.wait()

        build(photos, cache, TINY, workers=1, shard_mib=SHARDS_OF_FOUR)
        before = contents(cache)
        assert running(worker) != dies
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker, signal.SIGCONT)
        wait_until(lambda: not running(worker))

    assert contents(cache) == before
    assert verify(cache).sound
    build(photos, tmp_path / "fresh", TINY, workers=1, shard_mib=SHARDS_OF_FOUR)
    assert contents(tmp_path / "fresh") == before
