"""Builds and loading on a CUDA device, with the promises that hold on the CPU.

DECANT_TEST_DEVICE=torch-cpu runs the same on the CPU: that tries these tests out, and proves nothing about a GPU.
"""

import os
import shutil

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cache_store import open_cache
from loaders import CachedDataset, to_device
from preprocess import augment
from preprocess.builder import build
from preprocess.rendering import TORCH, Rendering
from preprocess.torch_engine import renderer as module
from preprocess.torch_engine.renderer import TorchRenderer
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import assert_as_rendered, assert_sound, contents, labels, paths, stop_at
from tests.integration.test_engines import RECIPE, SHARDS_OF_FOUR, VARIANTS, images
from tests.torch_images import scenes
from tests.unit.torch_engine.test_renderer import MIXED, files_of, png, stored

BUILD_ON = os.environ.get("DECANT_TEST_DEVICE", "cuda")
DEVICE = torch.device("cuda" if BUILD_ON == "cuda" else "cpu")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(BUILD_ON == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photos that OpenCV decodes on any device, so that pixels can be compared; more than a small batch of them."""
    root = tmp_path_factory.mktemp("cuda")
    image_folder(root / "photos", count=8)
    for number, hw in enumerate([(90, 60), (30, 120), (1, 1), (200, 150), (7, 5)]):
        write_image(root / "photos" / "dog" / f"{number}.png", 50 + number, *hw)
    for device in ("torch-cpu", BUILD_ON):
        build(root / "photos", root / f"by {device}", RECIPE, workers=1, device=device, shard_mib=SHARDS_OF_FOUR)
    return root


@pytest.fixture
def place(made, tmp_path):
    """A folder of its own: photos, and the device's cache."""
    shutil.copytree(made / "photos", tmp_path / "photos")
    shutil.copytree(made / f"by {BUILD_ON}", tmp_path / "cache")
    return tmp_path


def fresh(place):
    build(place / "photos", place / "fresh", RECIPE, workers=1, device=BUILD_ON, shard_mib=SHARDS_OF_FOUR)
    return contents(place / "fresh")


def assert_close(found, expected):
    """The bounds of a whole recipe, of docs/engines.md."""
    apart = np.abs(found.astype(int) - expected)
    assert apart.mean() <= 0.25
    assert (apart > 2).mean() <= 0.001


# Pixels


@pytest.mark.parametrize("channels", ["rgb", "gray"])
def test_pixels_are_the_cpus_within_the_bounds(channels):
    given = tuple(augment.resolve([*MIXED, {"Rotate": {"limit": 30}}, {"CoarseDropout": {"p": 0.5}}], "here")[0])
    wanted = Rendering((12, 10), channels, "uint8", given, 0, False, TORCH, "")
    here, there = TorchRenderer(wanted, device=torch.device("cpu")), TorchRenderer(wanted, device=DEVICE)
    for image in scenes(3 if channels == "rgb" else 1):
        for variant in range(4):
            assert_close(there.pixels(image, bytes(16), variant), here.pixels(image, bytes(16), variant))


def test_chunks_and_sums_are_those_of_the_pixels():
    given = tuple(augment.resolve(list(MIXED), "here")[0])
    wanted = Rendering((12, 10), "rgb", "uint8", given, 0, False, TORCH, "")
    files = files_of([png(seed, 30 + seed, 40) for seed in range(70)])
    chunks, ends = stored(TorchRenderer(wanted, device=DEVICE), files)
    assert len(chunks) == 140
    assert set(ends.values()) == {()}
    for tensor, dtype, total, total_of_squares, *_ in chunks.values():
        planes = np.frombuffer(tensor, dtype).reshape(3, 12, 10).astype(np.int64)
        assert tuple(planes.sum((1, 2))) == total
        assert tuple((planes * planes).sum((1, 2))) == total_of_squares


def test_the_size_of_a_batch_changes_no_bit(monkeypatch):
    given = tuple(augment.resolve(list(MIXED), "here")[0])
    wanted = Rendering((12, 10), "rgb", "uint8", given, 0, False, TORCH, "")
    files = files_of([png(seed, 30 + seed, 40) for seed in range(40)])
    expected = stored(TorchRenderer(wanted, device=DEVICE), files)
    for most in (1, 7):
        monkeypatch.setattr(module, "limits", lambda device, chunk_bytes, most=most: (most, 32_000_000))
        assert stored(TorchRenderer(wanted, device=DEVICE), files) == expected


def test_memory_that_is_really_short_halves_batches():
    given = tuple(augment.resolve([{"RandomResizedCrop": {"size": [12, 10]}}], "here")[0])
    wanted = Rendering((12, 10), "rgb", "uint8", given, 0, False, TORCH, "")
    files = files_of([png(seed, 1000, 1000) for seed in range(24)], (0,))
    expected = stored(TorchRenderer(wanted, device=DEVICE), files)
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(DEVICE).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(DEVICE) + (80 << 20)) / total, DEVICE)
    try:
        assert stored(TorchRenderer(wanted, device=DEVICE), files) == expected
    finally:
        if DEVICE.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, DEVICE)


# Builds


def test_a_build_has_the_draws_and_within_the_bounds_the_pixels_of_the_cpu(made):
    here, there = made / "by torch-cpu", made / f"by {BUILD_ON}"
    assert paths(there) == paths(here)
    assert labels(there) == labels(here)
    found, expected = images(there), images(here)
    for path in expected:
        assert_close(found[path], expected[path])
    with open_cache(there) as opened, open_cache(here) as other:
        np.testing.assert_array_equal(opened.split("train")["source_hw"], other.split("train")["source_hw"])


def test_all_is_as_the_recipe_renders_it_at_inference(made):
    assert_as_rendered(made / f"by {BUILD_ON}", made / "photos")
    assert_sound(made / f"by {BUILD_ON}")


def test_after_changes_a_build_gives_what_a_fresh_one_gives(place):
    cat, dog = place / "photos" / "cat", place / "photos" / "dog"
    write_image(cat / "000.png", 900, 50, 40)
    write_image(dog / "new.jpg", 901, 33, 66)
    (cat / "001.png").rename(dog / "moved.png")
    (dog / "2.png").unlink()
    report = build(place / "photos", place / "cache", workers=1)

    assert report.rendered == 2 * VARIANTS
    assert contents(place / "cache") == fresh(place)


def test_an_interrupted_build_goes_on_where_it_was(place):
    options = {"workers": 1, "device": BUILD_ON, "shard_mib": SHARDS_OF_FOUR}
    with pytest.raises(KeyboardInterrupt):
        build(place / "photos", place / "begun", RECIPE, progress=stop_at("render", 4), **options)
    report = build(place / "photos", place / "begun", RECIPE, **options)

    assert report.rendered + report.reused == 21 * VARIANTS
    assert report.reused > 0
    assert contents(place / "begun") == contents(place / "cache")


@pytest.mark.parametrize("workers", [2, 3])
def test_several_processes_on_one_device_change_nothing(place, workers):
    build(place / "photos", place / "many", RECIPE, workers=workers, device=BUILD_ON, shard_mib=SHARDS_OF_FOUR / 4)

    assert contents(place / "many") == contents(place / "cache")


def test_float16_with_the_datasets_statistics_is_exact(place):
    recipe = RECIPE | {"dtype": "float16", "normalize": "dataset"}
    report = build(place / "photos", place / "baked", recipe, workers=1, device=BUILD_ON)
    pixels = np.stack(list(images(place / "cache").values())) / 255

    np.testing.assert_allclose(report.mean, pixels.mean(axis=(0, 1, 3, 4)), rtol=1e-12)
    assert_as_rendered(place / "baked", place / "photos")


# Loading


@pytest.mark.parametrize("pin", [True, False])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_on_the_device_are_those_of_the_host(tmp_path, pin, workers):
    if pin and DEVICE.type != "cuda":
        pytest.skip("memory is pinned for a CUDA device only")
    image_folder(tmp_path / "photos", count=8)
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, device="cpu")
    dataset = CachedDataset(tmp_path / "cache")
    expected = list(DataLoader(dataset, batch_size=4))
    loader = DataLoader(dataset, batch_size=4, pin_memory=pin, num_workers=workers)
    for _ in range(3):
        for (found, numbers), (wanted, expected_numbers) in zip(to_device(loader, DEVICE), expected, strict=True):
            assert found.device.type == DEVICE.type
            assert torch.equal(found.cpu(), wanted)
            assert torch.equal(numbers.cpu(), expected_numbers)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_the_normalizer_gives_the_values_of_a_float16_cache(tmp_path, dtype):
    image_folder(tmp_path / "photos", count=4)
    for name, changes in (("halves", {}), ("bytes", {"dtype": "uint8"})):
        build(tmp_path / "photos", tmp_path / name, TINY | changes, workers=1, device="cpu")
    dataset = CachedDataset(tmp_path / "bytes", dtype=torch.uint8)
    ((expected, _),) = DataLoader(CachedDataset(tmp_path / "halves"), batch_size=8)
    normalizer = dataset.normalizer(dtype).to(DEVICE)
    for found, _ in to_device(DataLoader(dataset, batch_size=8), DEVICE):
        assert torch.equal(normalizer(found).cpu(), expected.to(dtype))
