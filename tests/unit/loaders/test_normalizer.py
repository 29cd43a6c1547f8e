"""The module that normalises uint8 batches on the device: what a float16 cache holds, to the bit."""

import pytest
import torch
from torch.utils.data import DataLoader

from cache_store.errors import UsageError
from loaders import CachedDataset
from preprocess import build
from tests.helpers import TINY, image_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("normalizer")
    image_folder(root / "photos", count=4)
    build(root / "photos", root / "halves", TINY, workers=1)
    build(root / "photos", root / "bytes", TINY | {"dtype": "uint8"}, workers=1)
    return root


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
def test_the_values_of_a_float16_cache(folder, dtype):
    dataset = CachedDataset(folder / "bytes", dtype=torch.uint8)
    ((expected, _),) = DataLoader(CachedDataset(folder / "halves"), batch_size=8)
    ((images, _),) = DataLoader(dataset, batch_size=8)
    normalizer = dataset.normalizer(dtype)

    assert torch.equal(normalizer(images), expected.to(dtype))
    assert torch.equal(normalizer(images[3]), expected[3].to(dtype))
    assert torch.equal(torch.nn.Sequential(normalizer)(images), expected.to(dtype))
    assert not normalizer.state_dict()  # it belongs to the cache, not to the checkpoint


def test_images_that_are_normalised_already_are_not_normalised_again(folder):
    for dataset in (CachedDataset(folder / "halves"), CachedDataset(folder / "bytes")):
        with pytest.raises(UsageError, match="float16 images, which are normalised already"):
            dataset.normalizer()


@pytest.mark.parametrize(
    "images",
    [torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, 8, dtype=torch.uint8)],
)
def test_what_are_no_such_images_is_refused(folder, images):
    with pytest.raises(ValueError, match="uint8 images of 3 channels"):
        CachedDataset(folder / "bytes", dtype=torch.uint8).normalizer()(images)
