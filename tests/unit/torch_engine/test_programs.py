"""Batches: each image gets its own program, and as few launches as there are kinds of things to do."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from preprocess.torch_engine.images import Images
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

    out = run(images, programs)

    expected = [
        images.image(0)[:, :4, :4] + 1,
        images.image(1),
        images.image(2)[:, :3, :3] + 5,
        images.image(3)[:, :2, :2] + 9,
    ]
    assert all(torch.equal(out.image(i), each) for i, each in enumerate(expected))
    assert out.sizes.tolist() == [[4, 4], [4, 4], [3, 3], [2, 2]]
    assert torch.equal(images.pixels, before)


def test_what_is_alike_runs_together_and_meets_again():
    """Half of the images take a detour; the others wait for them at the next action."""
    images = images_of(*[(4, 4)] * 8)
    run(images, [[Add(1), *([Add(1, "detour")] if number % 2 else []), Add(2, "b")] for number in range(8)])

    assert RUNS == [("a", 8), ("detour", 4), ("b", 8)]


def test_nothing_to_do_leaves_images_as_they_are():
    images = images_of((2, 3), (4, 1))

    out = run(images, [[], []])

    assert RUNS == []
    assert [torch.equal(out.image(i), images.image(i)) for i in range(2)] == [True, True]


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
