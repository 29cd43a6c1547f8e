"""Speed of a cache, warm and cold."""

import pytest
import torch

from preprocess import build
from preprocess.verdict import cached
from preprocess.verdict.cached import Part
from tests.helpers import TINY, image_folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cached")
    build(image_folder(folder / "photos", count=8), folder / "cache", TINY, shard_mib=0.002, workers=1)
    return folder / "cache"


def test_a_part_is_whole_shards_of_the_split(cache):
    part = Part(str(cache), "train", 4, 100, 1 << 20)

    assert sorted(part.indices.tolist()) == list(range(16))
    assert sorted(part.files) == sorted(cache.glob("tensors/*/image/c.*"))
    assert len(part.files) > 1


@pytest.mark.parametrize(("samples", "size", "count"), [(5, 1 << 20, 5), (100, 3 * 384, 3), (100, 1, 1)])
def test_a_part_has_no_more_than_is_allowed(cache, samples, size, count):
    part = Part(str(cache), "train", 4, samples, size)

    assert len(part.indices) == count
    assert len(part.files) <= count
    assert part.batch == min(4, count)


def test_both_loaders_deliver_the_part(cache):
    part = Part(str(cache), "train", 4, 100, 1 << 20)
    with part._dataset() as dataset:
        for loader in (part.shuffled(dataset), part.in_order(dataset)):
            batches = list(loader)
            assert [len(labels) for _, labels in batches] == [4, 4, 4, 4]
            assert batches[0][0].dtype == torch.float32
            assert sorted(torch.cat([labels for _, labels in batches]).tolist()) == [0] * 8 + [1] * 8


def test_warm_is_a_rate(cache):
    assert Part(str(cache), "train", 4, 100, 1 << 20).warm(torch.float16, 0.05) > 16


def test_cold_drops_the_pages_of_the_part_first(cache, monkeypatch):
    dropped = []
    monkeypatch.setattr(cached, "forget", lambda files: dropped.extend(files) or 0.0)
    part = Part(str(cache), "train", 4, 100, 1 << 20)

    assert part.cold(part.in_order, 1.0) > 0
    assert dropped == part.files


def test_pages_that_stay_are_no_cold_figure(cache, monkeypatch):
    monkeypatch.setattr(cached, "forget", lambda files: 0.75)
    part = Part(str(cache), "train", 4, 100, 1 << 20)

    with pytest.raises(OSError, match="75% of it stays in memory"):
        part.cold(part.shuffled, 1.0)
