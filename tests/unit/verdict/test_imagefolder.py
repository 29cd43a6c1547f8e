"""ImageFolder's way is torchvision's, and its speed is counted right."""

import os
import time

import pytest
import torch
from torchvision.datasets import ImageFolder

from preprocess.verdict.imagefolder import Images, _in_rounds, composed, rate, suitable_batch
from tests.helpers import image_folder

STEPS = [{"name": "Resize", "arguments": {"size": (8, 8)}, "p": 1.0}]
TRANSFORM = composed(STEPS, [0.5] * 3, [0.25] * 3)


@pytest.fixture
def images(tmp_path) -> Images:
    folder = ImageFolder(str(image_folder(tmp_path / "photos")))
    return Images([path for path, _ in folder.samples], folder.targets, TRANSFORM)


def test_samples_are_those_of_imagefolder(images, tmp_path):
    theirs = ImageFolder(str(tmp_path / "photos"), transform=TRANSFORM)

    assert len(images) == len(theirs) == 8
    for ours, expected in zip((images[i] for i in range(8)), (theirs[i] for i in range(8)), strict=True):
        assert torch.equal(ours[0], expected[0])
        assert ours[1] == expected[1]


def test_a_file_that_pillow_cannot_read_is_replaced_by_the_next(images):
    with open(images.files[2], "wb") as file:
        file.write(b"nothing")

    assert torch.equal(images[2][0], images[3][0])


def test_files_that_are_all_unreadable_are_said_to_be(tmp_path):
    (tmp_path / "no.png").write_bytes(b"nothing")

    with pytest.raises(ValueError, match="none of 1 files"):
        Images([str(tmp_path / "no.png")], [0], TRANSFORM)[0]


def test_batches_are_short_for_slow_images(images):
    def slowly(image):
        time.sleep(0.02)
        return TRANSFORM(image)

    images.transform = slowly

    assert 4 <= suitable_batch(images, 256) <= 8
    assert suitable_batch(images, 2) == 2


def test_first_round_of_the_workers_is_not_counted(monkeypatch):
    """Two workers deliver 10 images each, together every 0.1 s: 200 images a second, not 300."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def batches():
        while True:
            now[0] += 0.1
            yield None, [0] * 10
            yield None, [0] * 10

    assert _in_rounds(batches(), 2, 0.5) == pytest.approx(200)


@pytest.mark.parametrize("workers", [0, 2])
def test_loading_goes_on_beyond_an_epoch(images, workers):
    assert rate(images, workers, 4, 0.3, 20) > 4


def test_a_worker_that_dies_is_an_error(images):
    images.transform = lambda image: os._exit(3)

    with pytest.raises(RuntimeError, match="worker"):
        rate(images, 1, 4, 0.1, 20)
