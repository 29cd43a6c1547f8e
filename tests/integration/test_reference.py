"""Each tensor of a cache is, bit for bit, what a few lines of OpenCV, Albumentations and NumPy make of the file.

The reference below shares no code with the packages: decode, draw, transform and normalise are written out once more,
from the documents alone.
"""

import hashlib
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import albumentations as A
import cv2
import numpy as np
import pytest

from cache_store import open_cache
from loaders import CachedDataset
from preprocess import Recipe, build
from tests.helpers import write_image

SEED = 3
VARIANTS = {"train": 4, "val": 1}
FIXED = {"rgb": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}, "gray": {"mean": [0.45], "std": [0.25]}}
CASES = [
    ("float16", "rgb", "fixed"),
    ("float16", "rgb", "dataset"),
    ("uint8", "rgb", "dataset"),
    ("float16", "gray", "dataset"),
]


def recipe(dtype: str, channels: str, normalize: str) -> dict:
    """The one of the documentation, with a seed."""
    return {
        "size": 224,
        "channels": channels,
        "dtype": dtype,
        "normalize": FIXED[channels] if normalize == "fixed" else "dataset",
        "seed": SEED,
        "splits": {
            "train": {
                "folder": "train",
                "variants": VARIANTS["train"],
                "transforms": [
                    {"RandomResizedCrop": {"size": [224, 224], "scale": [0.35, 1.0]}},
                    {"HorizontalFlip": {"p": 0.5}},
                ],
            },
            "val": {
                "folder": "val",
                "transforms": [
                    {"SmallestMaxSize": {"max_size": 256, "interpolation": "area"}},
                    {"CenterCrop": {"height": 224, "width": 224}},
                ],
            },
        },
    }


def reference(data: bytes, split: str, k: int, channels: str) -> np.ndarray:
    """Pixels of one variant: uint8 (C, 224, 224)."""
    if channels == "rgb":
        image = cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    else:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)[:, :, None]
    digest = hashlib.blake2b(data, digest_size=16).digest()
    key = SEED.to_bytes(8, "little") + digest + k.to_bytes(8, "little")
    state = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "little")
    transforms = {
        "train": [
            A.RandomResizedCrop(size=(224, 224), scale=(0.35, 1.0), area_for_downscale="image"),
            A.HorizontalFlip(p=0.5),
        ],
        "val": [A.SmallestMaxSize(max_size=256, interpolation=cv2.INTER_AREA), A.CenterCrop(224, 224)],
    }
    compose = A.Compose(transforms[split])
    compose.set_random_state(np.random.default_rng(state), random.Random(state))
    return compose(image=image)["image"].transpose(2, 0, 1)


def normalised(pixels: np.ndarray, mean: list[float], std: list[float]) -> np.ndarray:
    exact = (pixels.astype(np.float64) / 255.0 - np.array(mean)[:, None, None]) / np.array(std)[:, None, None]
    return exact.astype(np.float16)


def levels(tensor: np.ndarray, mean: list[float], std: list[float]) -> np.ndarray:
    """The 8-bit pixels behind a normalised tensor, by looking each value up."""
    out = np.empty(tensor.shape, np.uint8)
    for c in range(len(tensor)):
        table = ((np.arange(256) / 255.0 - mean[c]) / std[c]).astype(np.float16)
        found = np.searchsorted(table, tensor[c])
        assert (table[found] == tensor[c]).all()
        out[c] = found
    return out


def photos() -> list[Path]:
    folder = Path(os.environ.get("DECANT_PHOTOS") or Path(__file__).parents[3] / "shared" / "photos")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    return found[:: max(1, len(found) // 16)][:16]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven photos to train on, one of them twice, and five to validate; made up where there are no photos."""
    root = tmp_path_factory.mktemp("reference") / "photos"
    real = photos()
    sizes = [(375, 500), (500, 333), (120, 160), (64, 300), (224, 224), (900, 700)]
    for i in range(16):
        path = root / ("train" if i < 11 else "val") / f"class {i % 3}" / f"{i:02d}.jpg"
        if len(real) == 16:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(real[i].read_bytes())
        else:
            write_image(path, i, *sizes[i % len(sizes)])
    shutil.copy(root / "train" / "class 0" / "00.jpg", root / "train" / "class 1" / "again.jpg")
    return root


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def built(request: pytest.FixtureRequest, source: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    dtype, channels, normalize = request.param
    cache = tmp_path_factory.mktemp("cache") / "cache"
    report = build(source, cache, recipe(*request.param), workers=2)
    assert report.failures == []
    files = {s: [path for path, _ in CachedDataset(cache, s).samples] for s in VARIANTS}
    return SimpleNamespace(
        cache=cache, source=source, dtype=dtype, channels=channels, normalize=normalize, report=report, files=files
    )


def test_every_tensor_is_the_reference_bit_for_bit(built):
    with open_cache(built.cache) as cache:
        for split, variants in VARIANTS.items():
            table = cache.split(split)
            assert len(table) == {"train": 12, "val": 5}[split]
            assert table.variants == variants
            for i, path in enumerate(built.files[split]):
                for k in range(variants):
                    expected = reference((built.source / path).read_bytes(), split, k, built.channels)
                    if built.dtype == "float16":
                        expected = normalised(expected, table.mean, table.std)
                    found = cache.image(split, i, k)
                    assert found.dtype == expected.dtype
                    assert found.tobytes() == expected.tobytes(), f"{path} variant {k}"


def test_the_variants_of_a_photo_differ(built):
    with open_cache(built.cache) as cache:
        assert len({cache.image("train", 0, k).tobytes() for k in range(4)}) == 4


def test_the_statistics_are_those_of_the_stored_pixels(built):
    with open_cache(built.cache) as cache:
        table = cache.split("train")
        mean, std = list(table.mean), list(table.std)
        assert (cache.split("val").mean, cache.split("val").std) == (table.mean, table.std)
        if built.normalize == "fixed":
            assert {"mean": mean, "std": std} == FIXED[built.channels]
            return
        tensors = [np.array(cache.image("train", i, k)) for i in range(len(table)) for k in range(table.variants)]
    if built.dtype == "float16":
        tensors = [levels(tensor, mean, std) for tensor in tensors]
    values = np.stack(tensors).astype(np.float64) / 255.0
    np.testing.assert_allclose(mean, values.mean((0, 2, 3)), rtol=0, atol=1e-9)
    np.testing.assert_allclose(std, values.std((0, 2, 3)), rtol=0, atol=1e-9)
    assert built.report.mean == mean
    assert built.report.std == std


def test_the_recipe_of_the_cache_renders_the_same_at_inference(built):
    recipe = Recipe.of(built.cache)
    with open_cache(built.cache) as cache:
        for split, variants in VARIANTS.items():
            for i, name in enumerate(built.files[split]):
                path = built.source / name
                for k in range(variants):
                    expected = cache.image(split, i, k)
                    for given in (path, path.read_bytes()):
                        found = recipe.render(given, split=split, variant=k)
                        assert found.dtype == expected.dtype
                        assert found.tobytes() == expected.tobytes(), f"{name} variant {k}"


def test_the_loader_hands_out_the_same_and_normalises_what_is_not(built):
    for split, variants in VARIANTS.items():
        for k in range(variants):
            with CachedDataset(built.cache, split, variant=k) as dataset, open_cache(built.cache) as cache:
                for i in (0, len(dataset) - 1):
                    expected = cache.image(split, i, k)
                    if built.dtype == "uint8":
                        expected = normalised(expected, dataset.mean, dataset.std)
                    assert dataset[i][0].numpy().tobytes() == expected.tobytes()


def test_what_only_a_cache_knows_is_refused_without_one(built):
    recipe = Recipe.of(built.cache)
    with pytest.raises(ValueError, match="the recipe has no split 'tset'; there are: train, val"):
        recipe.render(built.source / built.files["val"][0], split="tset")


def test_the_next_build_finds_its_own_tensors_whatever_the_library_writes_down(tmp_path):
    """These transforms come back from their own description with other arguments, or numbers of another type."""
    write_image(tmp_path / "photos" / "a" / "1.png", 0)
    transforms = ["Affine", "RGBShift", "SafeRotate", {"RandomBrightnessContrast": {"brightness_limit": 0}}]
    transforms += [{"PadIfNeeded": {"min_height": 40, "min_width": 40}}, {"Resize": {"height": 8, "width": 8}}]
    recipe = {"size": 8, "splits": {"train": {"folder": ".", "transforms": transforms}}}
    build(tmp_path / "photos", tmp_path / "cache", recipe, workers=1)
    for again in (None, recipe):
        report = build(tmp_path / "photos", tmp_path / "cache", again, workers=1)
        assert report.up_to_date
        assert report.rendered == 0
