"""Every border mode, far beyond both edges, beside OpenCV's own function."""

import cv2
import pytest
import torch

from preprocess import augment
from preprocess.torch_engine.borders import border_index


@pytest.mark.parametrize("length", [1, 2, 3, 10])
@pytest.mark.parametrize("mode", augment.BORDER_MODES.values(), ids=augment.BORDER_MODES)
def test_positions_are_found_where_opencv_finds_them(mode, length):
    position = torch.arange(-25, 36)
    expected = [cv2.borderInterpolate(place, length, mode) for place in position.tolist()]
    assert border_index(position, torch.tensor(length), mode).tolist() == expected


def test_each_image_has_its_own_length():
    position, lengths = torch.tensor([[-1, 5], [-1, 5]]), torch.tensor([[3], [4]])
    assert border_index(position, lengths, cv2.BORDER_WRAP).tolist() == [[2, 2], [3, 1]]
