"""Transforms that expect pixels are refused, or warned of, before the first normalised image."""

import contextlib
import dataclasses
import functools
import warnings

import pytest
import torch
import torchvision.transforms.functional as functional
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms as v1
from torchvision.models import ResNet18_Weights
from torchvision.transforms import v2

from cache_store.errors import UsageError
from loaders import CachedDataset
from preprocess import build
from tests.helpers import TINY, image_folder

HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """The same images: normalised, as bytes, and only scaled to 0..1."""
    folder = tmp_path_factory.mktemp("check")
    image_folder(folder / "photos")
    scaled = {"normalize": {"mean": [0.0] * 3, "std": [1.0] * 3}}
    for name, changes in (("halves", {}), ("bytes", {"dtype": "uint8"}), ("scaled", scaled)):
        build(folder / "photos", folder / name, TINY | changes, workers=1)
    return folder


class TwoViews:
    """As in much public code for contrastive learning."""

    def __init__(self, base):
        self.base = base

    def __call__(self, image):
        return [self.base(image), self.base(image)]


class MaybeToTensor:
    """timm's."""

    def __call__(self, image):
        return image


class Mine(v1.Normalize):
    pass


class KorniaLike(nn.Module):
    def __init__(self):
        super().__init__()
        self.flags = dict(HALF)


KorniaLike.__name__ = "Normalize"


class Methods:
    """Is not called itself."""

    def __init__(self):
        self.norm = v2.Normalize(**HALF)

    def apply(self, image):
        return self.norm(image)


@dataclasses.dataclass(slots=True)
class Slots:
    norm: object

    def __call__(self, image):
        return self.norm(image)


class Words:
    """A long table, as of class names."""

    def __init__(self):
        self.words, self.numbers = [str(i) for i in range(20_000)], list(range(1000, 21_000))

    def __call__(self, image):
        return image


class Holding:
    def __init__(self, held):
        self.held = held

    def __call__(self, image):
        return self.held[0].apply(image)


REFUSED = {
    "v1": v1.Normalize(**HALF),
    "v2": v2.Normalize(**HALF),
    "a subclass": Mine(**HALF),
    "kornia": KorniaLike(),
    "Compose": v1.Compose([v1.RandomHorizontalFlip(), v1.Compose([v1.Normalize(**HALF)])]),
    "v2.Compose": v2.Compose([v2.RandomApply([v2.Normalize(**HALF)])]),
    "Sequential": nn.Sequential(nn.Identity(), nn.Sequential(v2.Normalize(**HALF))),
    "RandomChoice": v1.RandomChoice([v1.RandomCrop(3), v1.Normalize(**HALF)]),
    "Lambda": v1.Lambda(v1.Normalize(**HALF)),
    "own class": TwoViews(v1.Compose([v1.Normalize(**HALF)])),
    "method": v2.Normalize(**HALF).forward,
    "partial": functools.partial(functional.normalize, **HALF),
    "weights": ResNet18_Weights.DEFAULT.transforms(),
    "timm": v1.Compose([MaybeToTensor(), v1.RandomHorizontalFlip()]),
    "ToTensor": v1.ToTensor(),
    "to_tensor": functional.to_tensor,
    "PILToTensor": v2.PILToTensor(),
    "ToPILImage": v2.Compose([v2.ToPILImage(), v2.RandAugment()]),
    "scale": v2.ToDtype(torch.float32, scale=True),
    "scale of some": v2.ToDtype({torch.Tensor: torch.float32, "others": None}, scale=True),
    "to integers": v2.ToDtype(torch.uint8),
    "method of what is not called": Methods().apply,
    "in slots": Slots(v2.Normalize(**HALF)),
    "in what is not called": Holding([Methods()]),
    "before a table": v2.Compose([v2.Normalize(**HALF), Words()]),
    "behind a table": v2.Compose([Words(), v2.Normalize(**HALF)]),
    "argument of a partial": functools.partial(lambda image, norm: norm(image), norm=v2.Normalize(**HALF)),
    "first argument of a partial": functools.partial(lambda norm, image: norm(image), v2.Normalize(**HALF)),
    "partial to integers": functools.partial(v2.functional.to_dtype, dtype=torch.uint8, scale=True),
    "partial to integers alone": functools.partial(v2.functional.to_dtype, dtype=torch.uint8),
    "partial that scales": functools.partial(v2.functional.to_dtype, scale=True),
    "ConvertImageDtype": v1.ConvertImageDtype(torch.float32),
}


@pytest.mark.parametrize("transform", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_what_normalises_or_converts_is_refused_at_the_first_sample(caches, transform, dtype):
    dataset = CachedDataset(caches / "halves", dtype=dtype)
    dataset.transform = transform  # as timm does: an error here would come where it cannot be helped

    for _ in range(2):
        with pytest.raises(UsageError, match=r"^transform: .* normalised already .*dtype=torch.uint8.*lambda image"):
            dataset[0]
        with pytest.raises(UsageError, match="normalised already"):
            next(iter(DataLoader(dataset, batch_size=2)))
        with pytest.raises(UsageError, match="normalised already"):
            dataset[[0, 1]]


def test_a_method_of_the_dataset_itself(caches):
    class Augmented(CachedDataset):
        def __init__(self, cache):
            super().__init__(cache)
            self.transform = self.augment

        def augment(self, image):
            return self.norm(image) if hasattr(self, "norm") else image

    dataset = Augmented(caches / "halves")
    dataset[0]
    dataset.norm, dataset.transform = v2.Normalize(**HALF), dataset.augment
    with pytest.raises(UsageError, match="Normalize normalises"):
        dataset[0]


def test_a_worker_refuses_it_in_the_same_words(caches):
    dataset = CachedDataset(caches / "halves", transform=v2.Normalize(**HALF))

    with pytest.raises(UsageError, match="Normalize normalises, but it would get images"):
        next(iter(DataLoader(dataset, batch_size=2, num_workers=1)))


@pytest.mark.parametrize("name", ["transform", "batch_transform"])
def test_a_compose_that_is_changed_in_place_is_looked_at_again(caches, name):
    compose = v2.Compose([v2.RandomHorizontalFlip()])
    dataset = CachedDataset(caches / "halves", **{name: compose})
    dataset[[0, 1]]

    for change in (lambda: compose.transforms.append(v2.Normalize(**HALF)), compose.transforms.reverse):
        change()
        with pytest.raises(UsageError, match=f"^{name}: Normalize normalises"):
            dataset[[0, 1]]
    compose.transforms = [v2.RandomHorizontalFlip()]
    dataset[[0, 1]]


def test_a_batch_transform_is_looked_at_too(caches):
    class Batchwise(nn.Module):
        def __init__(self):
            super().__init__()
            self.steps = nn.Sequential(v2.Normalize(**HALF))

    with pytest.raises(UsageError, match="^batch_transform: Normalize normalises"):
        CachedDataset(caches / "halves", batch_transform=Batchwise())[0]


class L2(nn.Module):
    pass


L2.__name__ = "Normalize"

FINE = {
    "a function": lambda image: v2.Normalize(**HALF)(image).abs(),
    "geometry": v2.Compose(
        [v2.RandomResizedCrop(8), v2.RandomHorizontalFlip(), v2.RandomErasing(), v2.GaussianBlur(3)]
    ),
    "type": v2.ToDtype(torch.float32),
    "partial of a type": functools.partial(v2.functional.to_dtype, dtype=torch.float32),
    "partial of torch's": functools.partial(torch.clamp, min=-3, max=3),
    "a table": Words(),
    "ToImage": v2.ToImage(),
    "gray": v2.RandomGrayscale(),
    "noise": v2.GaussianNoise(clip=False),
    "length": L2(),
    "torch's": torch.nn.functional.normalize,
    "MixUp": v2.MixUp(num_classes=2),
}


@pytest.mark.parametrize("transform", FINE.values(), ids=FINE)
def test_what_suits_normalised_images_passes_without_a_word(caches, transform):
    dataset = CachedDataset(caches / "halves", transform=transform)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset._check_transforms()


COLOURS = [
    v1.ColorJitter(0.1),
    v2.ColorJitter(0.1),
    v2.RandAugment(),
    v2.TrivialAugmentWide(),
    v2.AutoAugment(),
    v2.AugMix(),
    v2.RandomSolarize(0.5),
    v2.RandomPosterize(3),
    v2.RandomEqualize(),
    v2.RandomInvert(),
    v2.RandomAutocontrast(),
    v2.RandomAdjustSharpness(2),
    v2.RandomPhotometricDistort(),
    v2.GaussianNoise(),
    v2.Compose([v2.RandomApply([v2.ColorJitter(0.1)])]),
    functools.partial(functional.adjust_brightness, brightness_factor=1.1),
]


def fetch_twice(dataset):
    for _ in range(2):
        with contextlib.suppress(TypeError, RuntimeError):  # some do not even take this type
            dataset[0]


@pytest.mark.parametrize("transform", COLOURS, ids=str)
def test_colour_operations_are_warned_of_once(caches, transform):
    dataset = CachedDataset(caches / "halves", dtype=torch.float32)
    dataset.transform = transform

    with pytest.warns(UserWarning, match=r"^transform: .*work on values of 0..1.*dtype=torch.uint8") as told:
        fetch_twice(dataset)

    assert len([each for each in told if "0..1" in str(each.message)]) == 1


@pytest.mark.parametrize("name", ["bytes", "scaled"])
def test_pixels_and_values_of_0_to_1_are_nobodys_concern(caches, name):
    transform = v2.Compose([v2.ColorJitter(0.1), v2.ToDtype(torch.float32, scale=True), v2.Normalize(**HALF)])
    dataset = CachedDataset(caches / name, dtype=torch.uint8 if name == "bytes" else None, transform=transform)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert dataset[0][0].dtype == torch.float32


def test_a_uint8_cache_that_is_normalised_when_loaded_is_normalised(caches):
    with pytest.raises(UsageError, match="normalised already"):
        CachedDataset(caches / "bytes", transform=v2.Normalize(**HALF))[0]
