"""zarr-python and tensorstore alone read what CachedDataset gives, and notice a wrong checksum."""

import re
import shutil

import cv2
import numpy as np
import pytest

from cache_store.shard import checksum
from loaders import CachedDataset
from tests.examples.conftest import run


@pytest.mark.parametrize("place", [(0, 0), (7, 1)])
def test_zarr_reads_the_sample_that_the_dataset_gives(cache, tmp_path, place):
    number, variant = place
    png = tmp_path / "sample.png"
    options = ("--split", "train", "--sample", number, "--variant", variant, "--png", png)
    done = run("examples/read_with_zarr.py", cache, *options)
    assert done.returncode == 0, done.stderr
    with CachedDataset(cache, variant=variant) as dataset:
        image, label = dataset[number]
        path, name = dataset.samples[number][0], dataset.classes[label]
        mean, std = (np.reshape(values, (-1, 1, 1)) for values in (dataset.mean, dataset.std))
    assert done.stdout.startswith(f"{path}  class {name}  slot ")
    assert f"checksum {checksum(image.numpy()):08x}, recorded" in done.stdout
    pixels = np.rint((image.double().numpy() * std + mean) * 255).astype(np.uint8).transpose(1, 2, 0)
    assert np.array_equal(cv2.imdecode(np.fromfile(png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], pixels)


def test_tensorstore_reads_the_batch_that_the_dataset_gives(cache):
    done = run("examples/read_with_tensorstore.py", cache, "--split", "val", "--samples", "5")
    assert done.returncode == 0, done.stderr
    with CachedDataset(cache, "val") as dataset:
        batch = np.stack([dataset[number][0].double().numpy() for number in range(5)])
        pixels = np.rint((batch * np.reshape(dataset.std, (-1, 1, 1)) + np.reshape(dataset.mean, (-1, 1, 1))) * 255)
    assert float(re.search(r"mean pixel ([\d.]+)", done.stdout)[1]) == pytest.approx(pixels.mean(), abs=0.001)
    assert "float16 (5, 3, 32, 32)" in done.stdout
    assert "5 as recorded, 0 not" in done.stdout


@pytest.mark.parametrize("example", ["read_with_zarr.py", "read_with_tensorstore.py"])
def test_a_checksum_that_is_not_the_recorded_one_is_noticed(cache, tmp_path, example):
    copy = tmp_path / "cache"
    shutil.copytree(cache, copy)
    chunk = next(copy.glob("snapshots/*/val/checksum/c.0.0"))
    table = np.frombuffer(chunk.read_bytes()[:-4], "<u4").copy()
    table[0] ^= 1
    chunk.write_bytes(table.tobytes() + checksum(table.tobytes()).to_bytes(4, "little"))
    done = run("examples/" + example, copy)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr


def test_neither_imports_decant():
    for example in ("read_with_zarr", "read_with_tensorstore"):
        code = f"import sys; sys.path.insert(0, 'examples'); import {example}; print(*sys.modules)"
        loaded = run("-c", code).stdout.split()
        assert example in loaded
        assert not {"cache_store", "loaders", "preprocess"}.intersection(loaded)
