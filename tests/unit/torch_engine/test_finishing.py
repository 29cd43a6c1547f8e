"""What the device adds up and looks up is what the host does, to the bit."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache_store.normalise import normalisation_table, normalise
from preprocess.render import channel_sums
from preprocess.rendering import TORCH, Rendering
from preprocess.torch_engine import finishing
from preprocess.torch_engine.finishing import Finisher

CPU = torch.device("cpu")
STATISTICS = {"rgb": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), "gray": ((0.1,), (0.01,))}


def rendering(channels, size_hw, dtype="float16"):
    plain = Rendering(size_hw, channels, dtype, (), 0, False, TORCH, "")
    return plain if dtype == "uint8" else plain.with_statistics(STATISTICS[channels])


def images(seed, n, channels, size_hw, low=0):
    shape = (n, 3 if channels == "rgb" else 1, *size_hw)
    return np.random.default_rng(seed).integers(low, 256, shape, dtype=np.uint8)


def check(planes, wanted, device=CPU):
    chunks, sums = (tensor.cpu().numpy() for tensor in Finisher(wanted, device)(torch.from_numpy(planes).to(device)))
    assert sums.dtype == np.int64
    for image, chunk, found in zip(planes, chunks, sums, strict=True):
        assert tuple(map(tuple, found.tolist())) == channel_sums(image)
        statistics = wanted.statistics
        expected = image if statistics is None else normalise(image, normalisation_table(*statistics))
        assert chunk.dtype == expected.dtype
        assert chunk.tobytes() == expected.tobytes()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.sampled_from(["rgb", "gray"]),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from(["float16", "uint8"]),
    st.integers(0, 255),
)
def test_chunks_and_sums_are_the_hosts(seed, n, channels, size_hw, dtype, low):
    check(images(seed, n, channels, size_hw, low), rendering(channels, size_hw, dtype))


@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_every_level_is_looked_up(channels):
    planes = np.broadcast_to(
        np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16), (2, 3 if channels == "rgb" else 1, 16, 16)
    )
    check(np.ascontiguousarray(planes), rendering(channels, (16, 16)))


@pytest.mark.parametrize("level", [0, 254, 255])
def test_sums_of_large_bright_planes_are_exact(level):
    planes = np.full((1, 1, 3000, 2000), level, np.uint8)
    planes[0, 0, 7, 7] ^= 1
    check(planes, rendering("gray", (3000, 2000), "uint8"))


def test_parts_of_a_batch_give_what_the_whole_gives(monkeypatch):
    planes = torch.from_numpy(images(0, 7, "rgb", (24, 20)))
    finish = Finisher(rendering("rgb", (24, 20)), CPU)
    whole = finish(planes)
    for at_once in (1, 24 * 20 * 3):
        monkeypatch.setattr(finishing, "pixels_at_once", lambda images, at_once=at_once: at_once)
        for found, expected in zip(finish(planes), whole, strict=True):
            assert torch.equal(found, expected)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("channels", ["rgb", "gray"])
@pytest.mark.parametrize("size_hw", [(1, 1), (37, 61), (224, 224), (1024, 700)])
def test_a_gpu_adds_up_and_looks_up_the_same(dtype, channels, size_hw):
    cuda = torch.device("cuda")
    for low in (0, 250):
        check(images(low, 5, channels, size_hw, low), rendering(channels, size_hw, dtype), cuda)
