"""Batches: each image gets its own program, and as few launches as there are kinds of things to do."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from preprocess.torch_engine import images as batches
from preprocess.torch_engine.images import Images, alike, batched, some
from preprocess.torch_engine.programs import run

RUNS = []


@dataclass(frozen=True)
class Add:
    """Adds to all values; one group for each name."""

    amount: int
    group: str = "a"
    log: list = field(default_factory=list, compare=False)

    def then(self, following):
        return None

    @staticmethod
    def run(images, actions):
        RUNS.append((actions[0].group, len(actions)))
        amounts = torch.tensor([action.amount for action in actions], dtype=torch.uint8)
        return Images(images.pixels + amounts[:, None, None, None], images.sizes)


@dataclass(frozen=True)
class Cut:
    """Keeps the first rows and columns."""

    side: int
    group: None = None

    def then(self, following):
        return None

    @staticmethod
    def run(images, actions):
        RUNS.append(("cut", len(actions)))
        sides = np.array([[action.side] * 2 for action in actions])
        most = sides.max()
        return Images(images.pixels[:, :, :most, :most].clone(), sides)


@pytest.fixture(autouse=True)
def _no_runs():
    RUNS.clear()


def images_of(*sizes):
    random = np.random.default_rng(0)
    return Images.of([torch.from_numpy(random.integers(0, 200, (3, h, w), dtype=np.uint8)) for h, w in sizes])


def test_every_image_gets_its_own_program_and_stays_in_its_place():
    images = images_of((5, 6), (4, 4), (7, 4), (4, 9))
    programs = [[Add(1), Cut(4)], [], [Cut(3), Add(2, "b"), Add(3)], [Add(4, "b"), Cut(2), Add(5, "b")]]
    before = images.pixels.clone()

    out = run([images[np.array([0, 1])], images[np.array([2, 3])]], programs)

    expected = [
        images.image(0)[:, :4, :4] + 1,
        images.image(1),
        images.image(2)[:, :3, :3] + 5,
        images.image(3)[:, :2, :2] + 9,
    ]
    assert all(torch.equal(one, each) for one, each in zip(out, expected, strict=True))
    assert torch.equal(images.pixels, before)


def test_what_is_alike_runs_together_and_meets_again():
    """Half of the images take a detour; the others wait for them at the next action."""
    images = images_of(*[(4, 4)] * 8)
    run([images], [[Add(1), *([Add(1, "detour")] if number % 2 else []), Add(2, "b")] for number in range(8)])

    assert RUNS == [("a", 8), ("detour", 4), ("b", 8)]


def test_nothing_to_do_leaves_images_as_they_are():
    images = images_of((2, 3), (4, 1))

    out = run([images], [[], []])

    assert RUNS == []
    assert all(torch.equal(one, images.image(i)) for i, one in enumerate(out))


def test_images_are_joined_chosen_and_told_from_what_is_around_them():
    one, two = images_of((2, 3), (4, 1)), images_of((5, 2))

    joined = Images.joined([one, two])
    chosen = joined[np.array([2, 0])]

    assert joined.sizes.tolist() == [[2, 3], [4, 1], [5, 2]]
    assert all(torch.equal(joined.image(i), each) for i, each in enumerate((one.image(0), one.image(1), two.image(0))))
    assert torch.equal(chosen.image(0), two.image(0))
    assert torch.equal(chosen.image(1), one.image(0))
    assert chosen.pixels.shape == (2, 3, 5, 3)
    assert joined.inside.sum((1, 2, 3)).tolist() == [6, 4, 10]
    assert joined.inside[1, 0, :4, 0].all()


def test_large_and_small_images_are_not_computed_together():
    images = images_of((90, 90), (10, 12), (11, 9), (80, 95))
    run([images], [[Add(1)]] * 4)

    assert RUNS == [("a", 2), ("a", 2)]


def test_after_a_crop_they_are():
    images = images_of((90, 90), (10, 12), (11, 9), (80, 95))
    run([images], [[Cut(8), Add(1)]] * 4)

    assert RUNS == [("cut", 2), ("cut", 2), ("a", 4)]


def test_no_more_than_fits_is_computed_together(monkeypatch):
    monkeypatch.setitem(batches._VALUES_AT_ONCE, "cpu", 3 * 2 * 20)
    run([images_of(*[(4, 5)] * 5, (9, 9))], [[Add(1)]] * 6)

    assert RUNS == [("a", 2), ("a", 2), ("a", 1), ("a", 1)]


def test_batches_take_at_most_twice_the_room_of_their_images():
    random = np.random.default_rng(1)
    upright = random.random(200) < 0.3
    sides = np.exp(random.normal(5, 1, (200, 1))) * np.where(upright[:, None], [4, 3], [3, 4])
    sizes = sides.astype(np.int64) + 1
    groups = alike(sizes)

    assert np.sort(np.concatenate(groups)).tolist() == list(range(200))
    for group in groups:
        assert sizes[group].max(axis=0).prod() * len(group) <= 2 * sizes[group].prod(axis=1).sum()
    assert len(groups) < 12


def test_images_of_several_batches_are_found_by_their_order():
    images = [images_of(size).image(0) for size in ((50, 60), (2, 3), (60, 50), (3, 2), (1, 1))]
    made, order = batched(images)

    assert len(made) > 1
    assert all(torch.equal(each, images[place]) for each, place in zip(run(made, [[]] * 5), order, strict=True))
    chosen = run(some(made, np.array([0, 2, 4])), [[]] * 3)
    assert all(torch.equal(each, images[order[place]]) for each, place in zip(chosen, (0, 2, 4), strict=True))
