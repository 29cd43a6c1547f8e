"""timm's create_loader over a CachedDataset: it assigns a transform for PIL images, and normalises."""

import pytest
import torch

from cache_store.errors import UsageError
from loaders import CachedDataset
from preprocess import build
from tests.helpers import TINY, image_folder

data = pytest.importorskip("timm.data")


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """The same images as float16 and as uint8."""
    folder = tmp_path_factory.mktemp("timm")
    image_folder(folder / "photos")
    build(folder / "photos", folder / "halves", TINY, workers=1)
    build(folder / "photos", folder / "bytes", TINY | {"dtype": "uint8"}, workers=1)
    return folder


def loader_of(dataset, **arguments):
    usual = {"num_workers": 0, "persistent_workers": False, "device": torch.device("cpu")}
    return data.create_loader(dataset, (3, 8, 8), 4, **usual, **arguments)


@pytest.mark.parametrize("use_prefetcher", [False, True])
@pytest.mark.parametrize("is_training", [False, True])
def test_normalised_images_are_refused_at_the_first_sample(caches, use_prefetcher, is_training):
    loader = loader_of(CachedDataset(caches / "halves"), use_prefetcher=use_prefetcher, is_training=is_training)

    with pytest.raises(UsageError, match="normalised already.*dtype=torch.uint8"):
        next(iter(loader))


def test_pixels_are_normalised_once(caches):
    dataset = CachedDataset(caches / "bytes", dtype=torch.uint8)
    loader = loader_of(
        dataset, mean=tuple(dataset.mean), std=tuple(dataset.std), collate_fn=torch.utils.data.default_collate
    )
    dataset.transform = None

    images, labels = zip(*loader, strict=True)

    expected = torch.stack([image for image, _ in CachedDataset(caches / "halves")]).float()
    assert torch.allclose(torch.cat(images), expected, atol=2e-3)
    assert torch.cat(labels).tolist() == dataset.targets
