"""Readers and builders of one cache at the same time."""

import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from cache_store.errors import LockedError
from cache_store.gc import collect_garbage
from preprocess import build
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import Watcher, contents

ROOT = Path(__file__).resolve().parents[2]

_READER = """
    import sys, time
    import torch
    from torch.utils.data import DataLoader
    from loaders import CachedDataset

    how, cache, done = sys.argv[1:]

    def is_over():
        try:
            open(done).close()
            return True
        except FileNotFoundError:
            return False

    seen = set()
    while not is_over():
        dataset = CachedDataset(cache, dtype=torch.uint8)
        number = int(dataset.snapshot_id)
        if how == "one by one":
            batches = ((dataset[i][0], None) for i in range(len(dataset)))
        elif how == "workers":
            loader = DataLoader(dataset, batch_size=4, num_workers=2, persistent_workers=True)
            batches = (batch for _ in range(3) for batch in loader)
        else:
            batches = (batch for _ in range(5) for batch in DataLoader(dataset, batch_size=5, shuffle=True))
        for images, _ in batches:
            assert (images == number).all(), (number, images.unique())
            if how == "slowly":
                time.sleep(0.02)
        seen.add(number)
        dataset.close()
    print(len(seen))
"""


def paint(photos, level):
    """Every image one grey: the number of the snapshot that will hold it."""
    for i in range(12):
        path = photos / ("cat", "dog")[i % 2] / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", np.full((8, 8, 3), level, np.uint8))[1].tobytes() + b"%d" % i)


def test_four_readers_beside_twenty_builds_with_gc(tmp_path):
    """Each batch is of the snapshot that its reader opened, whatever is built and removed meanwhile."""
    photos, cache, done = tmp_path / "photos", tmp_path / "cache", tmp_path / "done"
    paint(photos, 1)
    build(photos, cache, TINY | {"dtype": "uint8", "normalize": "imagenet"}, workers=1)
    readers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", textwrap.dedent(_READER), how, cache, done],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for how in ("batches", "slowly", "one by one", "workers")
    ]
    try:
        for number in range(2, 22):
            paint(photos, number)
            report = build(photos, cache, workers=1)
            assert int(report.snapshot) == number
            collect_garbage(cache)
            threading.Event().wait(0.3)
    finally:
        done.touch()
        ended = [(reader.communicate(timeout=60), reader.returncode) for reader in readers]

    for (out, errors), code in ended:
        assert code == 0, errors
        assert int(out) >= 2
    collect_garbage(cache)
    assert [path.name for path in (cache / "snapshots").glob("0*")] == ["000021"]


def test_two_builders_that_overlap_fifty_times(tmp_path):
    """One works, the other is told who does."""
    photos = image_folder(tmp_path / "photos", count=2)
    cache = tmp_path / "cache"
    for number in range(50):
        write_image(photos / "cat" / "changing.png", 100 + number)
        inside, go_on = threading.Event(), threading.Event()

        def hold(stage, inside=inside, go_on=go_on):
            if stage == "render":
                inside.set()
                assert go_on.wait(30)

        first = threading.Thread(target=lambda hold=hold: build(photos, cache, TINY, workers=1, progress=Watcher(hold)))
        first.start()
        assert inside.wait(30)
        with pytest.raises(LockedError, match=rf"process {os.getpid()} on .*, started 20") as refused:
            build(photos, cache, TINY, workers=1)
        go_on.set()
        first.join()

        assert refused.value.exit_code == 5
    build(photos, tmp_path / "fresh", TINY, workers=1, stats=stats_of(cache))
    assert contents(cache) == contents(tmp_path / "fresh")


def stats_of(cache):
    train = contents(cache)["splits"]["train"]
    return train["mean"], train["std"]
