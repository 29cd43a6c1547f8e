"""Programs of many images: what each gives does not depend on the others, and they run together where they can."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from preprocess import augment
from preprocess.augment import Pipeline
from preprocess.torch_engine.images import Images
from preprocess.torch_engine.programs import COMPILERS, UNSUPPORTED, first_unsupported, program_of, run
from tests.unit.torch_engine.parity import pictures, slivers


@dataclass(frozen=True)
class Add:
    """Adds to all pixels, padding too; notes how many images each run had."""

    value: int
    group: object = None

    def then(self, following):
        return None

    @classmethod
    def run(cls, images, actions):
        runs.append((cls.__name__, actions[0].group, len(actions)))
        values = torch.tensor([action.value for action in actions], dtype=torch.uint8)
        return Images(images.pixels + values.view(-1, 1, 1, 1), images.sizes)


class Times(Add):
    @classmethod
    def run(cls, images, actions):
        runs.append((cls.__name__, actions[0].group, len(actions)))
        values = torch.tensor([action.value for action in actions], dtype=torch.uint8)
        return Images(images.pixels * values.view(-1, 1, 1, 1), images.sizes)


class Halve(Add):
    """Keeps every other row."""

    @classmethod
    def run(cls, images, actions):
        runs.append((cls.__name__, actions[0].group, len(actions)))
        sizes = images.sizes.copy()
        sizes[:, 0] = -(-sizes[:, 0] // 2)
        return Images(images.pixels[:, :, ::2], sizes)


runs: list[tuple[str, object, int]] = []


@pytest.fixture(autouse=True)
def nothing_ran():
    runs.clear()


def batch(count):
    rng = np.random.default_rng(count)
    return [
        torch.from_numpy(rng.integers(0, 9, (1, *hw), dtype=np.uint8)) for hw in rng.integers(1, 8, (count, 2)).tolist()
    ]


def check(images, programs):
    """Together as alone. Returns what ran."""
    before = Images.of(images)
    together = run(before, programs)
    found = list(runs)
    assert len(together) == len(images)
    for place, (image, program) in enumerate(zip(images, programs, strict=True)):
        alone = run(Images.of([image]), [program])
        assert torch.equal(together.image(place), alone.image(0)), f"image {place}"
        assert torch.equal(before.image(place), image), "the given images were changed"
    return found


def test_images_with_the_same_kinds_of_actions_run_together():
    found = check(batch(5), [[Add(n), Times(n)] for n in range(5)])
    assert found == [("Add", None, 5), ("Times", None, 5)]


def test_each_action_is_done_to_its_own_image():
    images = batch(3)
    together = run(Images.of(images), [[Add(1), Times(2)], [Times(2), Add(1)], [Add(5)]])
    for place, expected in enumerate([(images[0] + 1) * 2, images[1] * 2 + 1, images[2] + 5]):
        assert torch.equal(together.image(place), expected)


def test_groups_of_one_class_run_apart():
    found = check(batch(3), [[Add(1, group="a")], [Add(2, group="b")], [Add(3, group="a")]])
    assert sorted(found) == [("Add", "a", 2), ("Add", "b", 1)]


def test_images_that_went_apart_meet_again():
    """Those that lack the first action wait for the others."""
    found = check(batch(4), [[Add(1), Times(2)], [Times(2)], [Halve(0), Times(3)], [Times(5)]])
    assert sorted(found) == [("Add", None, 1), ("Halve", None, 1), ("Times", None, 4)]


def test_the_longest_programs_go_first():
    programs = [[Times(2)], [Add(1), Halve(0), Times(2)], [Halve(0), Times(2)], [Times(3)]]
    assert check(batch(4), programs) == [("Add", None, 1), ("Halve", None, 2), ("Times", None, 4)]


def test_an_empty_program_leaves_the_image():
    images = batch(3)
    together = run(Images.of(images), [[Add(1)], [], [Add(3)]])
    assert torch.equal(together.image(1), images[1])
    assert runs == [("Add", None, 2)]


def test_only_empty_programs_leave_all_images():
    images = batch(4)
    together = run(Images.of(images), [[], [], [], []])
    assert runs == []
    for place, image in enumerate(images):
        assert torch.equal(together.image(place), image)


def test_images_that_change_their_size_are_put_back_in_order():
    check(batch(7), [[Halve(0)] * (n % 3) + [Add(n)] * (n % 2) for n in range(7)])


@pytest.mark.parametrize("seed", range(8))
def test_any_programs_give_what_each_gives_alone(seed):
    rng = np.random.default_rng(seed)
    kinds = [Add, Times, Halve]
    programs = [
        [kinds[rng.integers(3)](int(rng.integers(1, 5)), int(rng.integers(2))) for _ in range(rng.integers(5))]
        for _ in range(12)
    ]
    found = check(batch(12), programs)
    assert sum(count for _, _, count in found) == sum(map(len, programs))


# Of real pipelines

MIXED = [
    {
        "OneOf": {
            "transforms": [
                {"RandomResizedCrop": {"size": [20, 24]}},
                {"Sequential": {"transforms": [{"GaussianBlur": {"p": 1}}, {"Resize": {"height": 20, "width": 24}}]}},
                {"Affine": {"rotate": (-30, 30), "p": 1}},
            ],
            "p": 0.9,
        }
    },
    {"SomeOf": {"transforms": [{"ColorJitter": {"p": 1}}, {"InvertImg": {"p": 1}}, {"Equalize": {"p": 1}}], "n": 2}},
    {"HorizontalFlip": {"p": 0.5}},
    {"CoarseDropout": {"p": 0.5}},
    {"Resize": {"height": 20, "width": 24}},
]


def decided(images, transforms):
    """Programs as the renderer makes them, for each image its own draws; uint8 (H, W, C)."""
    pipeline = Pipeline(augment.resolve(transforms, "here")[0])
    return [
        program_of(pipeline.decide(image.shape, state), image.shape[:2], image.shape[2])
        for state, image in enumerate(images)
    ]


@pytest.mark.parametrize("order", ["given", "reversed", "smallest first"])
def test_draws_of_all_kinds_give_what_each_image_gives_alone(order):
    images = pictures() + slivers() + pictures()
    programs = decided(images, MIXED)
    assert len({len(program) for program in programs}) > 2
    places = list(range(len(images)))
    if order == "reversed":
        places.reverse()
    elif order == "smallest first":
        places.sort(key=lambda place: images[place].size)
    planes = [torch.from_numpy(image).permute(2, 0, 1) for image in images]
    together = run(Images.of([planes[place] for place in places]), [programs[place] for place in places])
    for row, place in enumerate(places):
        alone = run(Images.of([planes[place]]), [programs[place]])
        assert torch.equal(together.image(row), alone.image(0)), f"image {place}"


def test_neighbouring_steps_fold():
    crops = [{"RandomCrop": {"height": 4, "width": 4}}, {"HorizontalFlip": {"p": 1}}, {"VerticalFlip": {"p": 1}}]
    tables = [{"InvertImg": {"p": 1}}, {"Posterize": {"p": 1}}]
    (program,) = decided([pictures()[0]], [*crops, *tables])
    assert [type(action).__name__ for action in program] == ["Sampling", "Table"]


def test_a_pipeline_that_does_nothing_is_an_empty_program():
    assert decided([pictures()[0]], [{"NoOp": {}}, {"HorizontalFlip": {"p": 0.0}}]) == [[]]


# What is not rendered


def test_every_transform_with_a_compiler_can_be_asked_for():
    for name in UNSUPPORTED:
        assert name in COMPILERS


def first(*transforms, channels=3):
    return first_unsupported(augment.resolve(list(transforms), "here")[0], channels)


def test_the_first_transform_that_is_not_rendered_is_named():
    assert first({"HorizontalFlip": {}}, {"Resize": {"height": 4, "width": 4}}) is None
    assert first({"HorizontalFlip": {}}, {"MedianBlur": {}}, {"ElasticTransform": {}}) == "MedianBlur"


def test_a_transform_within_a_composition_is_found():
    inner = {"Sequential": {"transforms": [{"VerticalFlip": {}}, {"MedianBlur": {}}]}}
    assert first({"OneOf": {"transforms": [{"HorizontalFlip": {}}, inner]}}) == "MedianBlur"


def test_a_setting_that_is_not_rendered_is_named_with_its_transform():
    assert "RandomBrightnessContrast" in first({"RandomBrightnessContrast": {"brightness_by_max": False}})
    assert "CoarseDropout" in first({"CoarseDropout": {"fill": "random_uniform"}})
