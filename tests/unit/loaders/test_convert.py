"""Stored values to every type that training asks for: the same bits whatever way they take."""

import sys

import numpy as np
import pytest
import torch

from cache_store.normalise import normalisation_table, normalise
from loaders.convert import converter

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
SHAPES = [(9, 3, 16, 12), (12, 3, 224, 224), (2, 3, 1, 1), (5, 1, 7, 9), (2, 1, 800, 700)]


def filled(convert, stored, out):
    """In two blocks, the larger one first."""
    fill, middle = convert(out), -(-len(stored) // 2)
    fill(stored[:middle], 0)
    if middle < len(stored):
        fill(stored[middle:], middle)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("opencv", ["none", "4", "5"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_pixels_become_what_a_float16_cache_holds(monkeypatch, opencv, dtype, shape):
    if opencv == "none":
        monkeypatch.setitem(sys.modules, "cv2", None)
    elif opencv == "4":  # looks up single pixels only
        monkeypatch.setattr("loaders.convert._looks_up_pairs", lambda: False)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    out = torch.empty(shape, dtype=dtype)

    filled(converter(np.dtype(np.uint8), dtype, MEAN[: shape[1]], STD[: shape[1]]), pixels, out)

    table = normalisation_table(MEAN[: shape[1]], STD[: shape[1]])
    expected = torch.from_numpy(np.stack([normalise(image, table) for image in pixels])).to(dtype)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_halves_are_rounded_once(dtype, shape):
    halves = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    out = torch.empty(shape, dtype=dtype)

    filled(converter(np.dtype(np.float16), dtype, MEAN, STD), halves.view(np.uint16), out)

    assert torch.equal(out, torch.from_numpy(halves).to(dtype))


def test_what_is_stored_so_needs_no_conversion():
    assert converter(np.dtype(np.float16), torch.float16, MEAN, STD) is None
    assert converter(np.dtype(np.uint8), torch.uint8, MEAN, STD) is None
