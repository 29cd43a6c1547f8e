"""A cache of format version 1, made once and kept: later versions must still read it, bit for bit. Never made anew."""

import hashlib
from pathlib import Path

import torch

from cache_store import open_cache
from loaders import CachedDataset
from preprocess import Recipe

CACHE = Path(__file__).parent / "format-1"

# SHA-256, first half of eight bytes, of the tensor of each sample and variant.
TENSORS = [
    ["8fcbd82354e774e2", "8fcbd82354e774e2"],
    ["ef762171c79e02de", "8ae4811c1f6d7669"],
    ["dc2ef353fcc0c7aa", "b65506c645a7eeb0"],
    ["78cc74957b861da7", "fc57c936b77ecb93"],
]


def test_tables_and_tensors_are_what_was_written():
    with open_cache(CACHE) as cache:
        table = cache.split("train")
        found = [
            [hashlib.sha256(cache.image("train", i, k).tobytes()).hexdigest()[:16] for k in range(2)] for i in range(4)
        ]

        assert found == TENSORS
        assert table.paths() == [b"cat/000.png", b"cat/001.png", b"dog/000.png", b"dog/001.png"]
        assert table["label"].tolist() == [0, 0, 1, 1]
        assert table["source_hw"].tolist() == [[24, 32]] * 4
        assert (table.mean, table.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        assert cache.snapshot.classes == ("cat", "dog")
        assert [(f["path"], f["stage"]) for f in cache.snapshot.failures] == [("cat/bad.png", "decode")]


def test_the_loader_reads_it():
    with CachedDataset(CACHE, variant=1) as dataset:
        image, label = dataset[3]

    assert image.dtype == torch.float16
    assert hashlib.sha256(image.numpy().tobytes()).hexdigest()[:16] == TENSORS[3][1]
    assert label == 1


def test_its_recipe_is_still_one():
    recipe = Recipe.of(CACHE)

    assert recipe.named_splits["train"].variants == 2
    assert Recipe.from_dict(recipe.canonical()) == recipe
