"""Crop and flip while copying: the window asked for, every place as likely, from torch's generator."""

import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional

from cache_store.errors import UsageError
from loaders import CachedDataset
from loaders.window import Cutter
from preprocess import build
from tests.helpers import TINY, image_folder


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """Twelve images as float16 and as uint8, 8 pixels high and 10 wide."""
    root = tmp_path_factory.mktemp("window")
    image_folder(root / "photos", count=6)
    recipe = TINY | {
        "size": [8, 10],
        "splits": {"train": {"folder": ".", "transforms": [{"Resize": {"height": 8, "width": 10}}]}},
    }
    build(root / "photos", root / "halves", recipe, workers=1)
    build(root / "photos", root / "bytes", recipe | {"dtype": "uint8"}, workers=1)
    return root


def windows_of(image, crop):
    """Every window of a stored image, as it is and mirrored: (top, left, mirrored) -> pixels."""
    height, width = crop
    found = {}
    for top in range(image.shape[1] - height + 1):
        for left in range(image.shape[2] - width + 1):
            window = image[:, top : top + height, left : left + width]
            found[top, left, False], found[top, left, True] = window, window.flip(-1)
    return found


def which(image, windows):
    (place,) = [place for place, window in windows.items() if torch.equal(image, window)]
    return place


@pytest.mark.parametrize("io", ["mmap", "pread"])
@pytest.mark.parametrize("opencv", [True, False])
@pytest.mark.parametrize(
    ("cache", "dtype"), [("halves", None), ("halves", torch.float32), ("bytes", None), ("bytes", torch.uint8)]
)
def test_each_image_is_a_window_of_what_is_stored(caches, monkeypatch, cache, dtype, opencv, io):
    if not opencv:
        monkeypatch.setitem(sys.modules, "cv2", None)
    whole = CachedDataset(caches / cache, dtype=dtype)
    dataset = CachedDataset(caches / cache, dtype=dtype, crop=(5, 7), flip=True, io=io)
    torch.manual_seed(0)
    seen = set()
    for _ in range(20):
        images, _ = next(iter(DataLoader(dataset, batch_size=12)))
        assert images.shape == (12, 3, 5, 7)
        assert images.dtype == (dtype or torch.float16)
        for i, image in enumerate(images):
            seen.add(which(image, windows_of(whole[i][0], (5, 7))))

    assert seen == {(top, left, m) for top in range(4) for left in range(4) for m in (False, True)}


def test_torchs_seed_repeats_the_windows(caches):
    dataset = CachedDataset(caches / "halves", crop=4, flip=True)

    def batch():
        torch.manual_seed(11)
        return next(iter(DataLoader(dataset, batch_size=12, shuffle=True)))[0]

    assert torch.equal(batch(), batch())


def test_the_centre_is_torchvisions(caches):
    whole = CachedDataset(caches / "halves")
    for crop in (1, 2, 3, 5, 8, (3, 10), (8, 7)):
        dataset = CachedDataset(caches / "halves", crop=crop, crop_mode="center")

        expected = functional.center_crop(whole[3][0], [crop, crop] if isinstance(crop, int) else list(crop))
        assert torch.equal(dataset[3][0], expected)


def test_flips_alone(caches):
    whole, dataset = CachedDataset(caches / "halves"), CachedDataset(caches / "halves", flip=True)
    torch.manual_seed(1)

    mirrored = [torch.equal(dataset[2][0], whole[2][0].flip(-1)) for _ in range(200)]

    assert 70 < sum(mirrored) < 130


def test_a_window_of_the_whole_size_is_the_image(caches):
    whole = CachedDataset(caches / "halves")

    assert torch.equal(CachedDataset(caches / "halves", crop=(8, 10))[5][0], whole[5][0])


@pytest.mark.parametrize("crop", [0, 9, -1, (8, 11), (1, 2, 3), (9, 1)])
def test_windows_that_do_not_fit_are_refused(caches, crop):
    with pytest.raises(UsageError, match="1x1 to 8x10, the size of the stored images, expected"):
        CachedDataset(caches / "halves", crop=crop)


def test_an_unknown_mode_is_refused(caches):
    with pytest.raises(UsageError, match="crop_mode: 'random' or 'center' expected, found 'middle'"):
        CachedDataset(caches / "halves", crop=4, crop_mode="middle")


def test_every_place_is_as_likely_as_any_other():
    torch.manual_seed(0)
    windows = Cutter((12, 8), 5, True, "random").draw(80_000)

    for values, places in ((windows.top, 8), (windows.left, 4), (windows.mirrored, 2)):
        counts = np.bincount(values, minlength=places)
        assert len(counts) == places
        assert (abs(counts - 80_000 / places) < 5 * (80_000 / places) ** 0.5).all()
