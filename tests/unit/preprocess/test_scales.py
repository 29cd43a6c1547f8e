"""How much a recipe enlarges or shrinks, told from sizes and digests: against what the transforms really do."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from cache_store.manifest import SplitTable
from preprocess import augment
from preprocess.augment import random_state
from preprocess.rendering import Rendering
from preprocess.scales import MOST, enlarged, scales

SIZES = [(40, 80), (16, 16), (100, 50)]


def rendering(*transforms, size=16):
    canonical, _ = augment.resolve(list(transforms), "transforms")
    return Rendering((size, size), "rgb", "uint8", tuple(canonical), 3, False, "opencv", "00")


def table(sizes=SIZES, variants=1):
    digests = np.random.default_rng(1).integers(0, 256, (len(sizes), 16), dtype=np.uint8)
    columns = {
        "label": np.zeros(len(sizes), np.int64),
        "source_hw": np.array(sizes, np.int32),
        "digest": digests,
        "slot": np.zeros((len(sizes), variants), np.int64),
    }
    return SplitTable("", (0.5,), (0.2,), 0, (), columns)


@pytest.mark.parametrize(
    ("transforms", "factors"),
    [
        ([{"Resize": {"height": 16, "width": 16}}], [math.sqrt(0.4 * 0.2), 1, math.sqrt(0.16 * 0.32)]),
        ([{"SmallestMaxSize": {"max_size": 20}}, {"CenterCrop": {"height": 16, "width": 16}}], [0.5, 1.25, 0.4]),
        ([{"CenterCrop": {"height": 16, "width": 16}}], [1, 1, 1]),
        (
            [{"LongestMaxSize": {"max_size": 16}}, {"PadIfNeeded": {"min_height": 16, "min_width": 16}}],
            [0.2, 1, 0.16],
        ),
        (
            [{"Resize": {"height": 16, "width": 16}}, {"Affine": {"scale": [2, 2], "p": 1}}],
            [2 * math.sqrt(0.4 * 0.2), 2, 2 * math.sqrt(0.16 * 0.32)],
        ),
    ],
)
def test_factors_of_known_transforms(transforms, factors):
    found = scales(table(), rendering(*transforms))

    np.testing.assert_allclose(found.factors, factors, rtol=0.01)
    assert (found.total, found.untold) == (3, "")


def test_a_random_crop_is_drawn_as_the_build_drew_it():
    """Columns of an image that counts them tell how many a crop took."""
    ours = rendering({"RandomResizedCrop": {"size": [16, 16], "scale": [0.1, 0.9], "ratio": [1, 1]}})
    ours_table = table([(200, 200)] * 20, variants=2)
    found = scales(ours_table, ours)
    pipeline = augment.Pipeline(ours.transforms)
    ramp = np.broadcast_to(np.arange(200, dtype=np.uint8)[:, None], (200, 200, 3))

    for sample, variant, factor in zip(found.samples, found.variants, found.factors):
        state = random_state(ours.seed, ours_table["digest"][sample].tobytes(), int(variant))
        column = pipeline(np.ascontiguousarray(ramp), state)[0, :, 0].astype(float)
        taken = (column[-1] - column[0]) * 16 / 15
        assert 16 / factor == pytest.approx(taken, abs=2.5)
    assert len(found.factors) == 40
    assert found.factors.std() > 0.01


def test_what_depends_on_pixels_is_named_and_not_accounted_for():
    found = scales(table(), rendering({"Resize": {"height": 16, "width": 16}}, {"GaussNoise": {}}))
    assert (found.untold, len(found.factors)) == ("GaussNoise", 3)

    found = scales(table(), rendering({"RandomScale": {}}, {"Resize": {"height": 16, "width": 16}}))
    assert (found.untold, len(found.factors)) == ("RandomScale", 1)  # 16 x 16 has the size already


def test_counts_and_the_most_that_are_looked_at():
    enlarged, as_is, shrunk = scales(table(), rendering({"Resize": {"height": 16, "width": 16}})).counts()
    assert (enlarged, as_is, shrunk) == (0, 1, 2)

    found = scales(table([(16, 8)] * 7000, variants=2), rendering({"CenterCrop": {"height": 8, "width": 8}}, size=8))
    assert (found.total, len(found.factors)) == (14_000, MOST)
    assert (found.samples[-1], found.variants[-1]) == (6999, 1)


def test_a_split_without_samples_has_no_factor():
    found = scales(table([]), rendering({"Resize": {"height": 16, "width": 16}}))

    assert (found.total, len(found.factors), found.counts()) == (0, 0, (0, 0, 0))


class Planned:
    """As much of a plan as counts."""

    def __init__(self, given):
        self.renderings = {"train": given}
        self.recipe = SimpleNamespace(size=given.size_hw)


def test_a_build_that_enlarges_most_of_its_images_says_so():
    cover = {"SmallestMaxSize": {"max_size": 256}}, {"CenterCrop": {"height": 224, "width": 224}}
    small, large = table([(32, 32)] * 3), table([(200, 300)] * 3)
    given = rendering(*cover, size=224)
    told = enlarged(SimpleNamespace(splits={"train": small}), Planned(given))
    assert told == [
        "split 'train': all images are enlarged, in the median 8.0 times a side: that adds bytes, not detail; "
        "size 28x28 is about what they have"
    ]
    assert enlarged(SimpleNamespace(splits={"train": large}), Planned(given)) == []
