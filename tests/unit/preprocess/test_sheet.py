"""Sheets of pictures: where what is, that pixels are drawn as they are, and that any name can be written."""

import cv2
import numpy as np
import pytest

from cache_store.errors import StorageError
from preprocess.sheet import Block, Grid, draw, fitted, spread, write_png


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("tile_hw", "factor"), [((8, 8), 16), ((32, 20), 4), ((127, 30), 2), ((128, 9), 1), ((300, 200), 1)]
)
def test_tiles_are_drawn_pixel_by_pixel_enlarged_by_a_whole_factor(tile_hw, factor):
    grid = Grid(tile_hw, 3, 5)
    tiles = [[noise(*tile_hw, seed=10 * block + k) for k in range(3)] for block in range(5)]

    sheet = draw("title", [Block(("a", "b", "c"), tuple(row)) for row in tiles], grid)[-grid.size_hw[0] :]

    assert grid.factor == factor
    for block, row in enumerate(tiles):
        for k, tile in enumerate(row):
            drawn = sheet[grid.tile(block, k)]
            assert drawn.shape == (tile_hw[0] * factor, tile_hw[1] * factor, 3)
            for y in range(factor):
                np.testing.assert_array_equal(drawn[y::factor, factor - 1 :: factor], tile)


def test_nothing_overlaps_and_nothing_is_cut():
    for grid in (Grid((224, 224), 5, 16), Grid((8, 8), 1, 3), Grid((64, 200), 2, 16), Grid((8, 8), 9, 2)):
        taken = np.zeros(grid.size_hw, np.uint8)
        for block in range(grid.blocks):
            top, left = grid.corner(block)
            assert (taken[top : top + grid.block_hw[0], left : left + grid.block_hw[1]] == 0).all()
            taken[top : top + grid.block_hw[0], left : left + grid.block_hw[1]] = 1
            for k in range(grid.tiles):
                assert taken[grid.tile(block, k)].shape == grid.box_hw
                assert taken[grid.tile(block, k)].all()


def test_narrow_blocks_share_a_row_and_wide_ones_have_one_each():
    assert [Grid((224, 224), tiles, 16).columns for tiles in (1, 2, 3, 4, 5, 9)] == [8, 4, 2, 2, 1, 1]
    assert Grid((224, 224), 1, 3).columns == 3


def test_gray_tiles_and_texts_in_the_place_of_tiles():
    grid = Grid((128, 128), 2, 1)
    gray = noise(128, 128, 1)

    sheet = draw("title", [Block(("a",), (gray, "decode: " + "not an image " * 30))], grid)[-grid.size_hw[0] :]

    np.testing.assert_array_equal(sheet[grid.tile(0, 0)], gray.repeat(3, axis=2))
    written = sheet[grid.tile(0, 1)]
    assert (written[..., 0] > written[..., 2] + 50).any()  # red letters
    assert len(np.unique(sheet[: grid.tile(0, 1)[0].start, grid.tile(0, 1)[1]])) == 1  # they stay in their box
    assert len(np.unique(sheet[grid.tile(0, 1)[0].stop :])) == 1


def test_captions_of_any_letters_and_length_stay_within_their_block():
    grid = Grid((32, 32), 1, 4)
    names = ["x" * 300, "bad\udcff\udcfe.jpg", "new\nline\0.jpg", "größe 日本 \U0001f600 עברית.jpg"]

    sheet = draw("t" * 300, [Block((name, name, name), (noise(32, 32),)) for name in names], grid)

    body = sheet[-grid.size_hw[0] :]
    for block in range(4):
        top, left = grid.corner(block)
        caption = body[top : grid.tile(block, 0)[0].start, left : left + grid.block_hw[1]]
        assert caption.min() < 100, "something is written"
        assert body[:, left - 3 : left].min() == body[0, 0, 0], "nothing beside it"
    assert (sheet[:, -3:] == sheet[0, -1]).all()


def test_of_a_long_name_both_ends_are_written():
    grid = Grid((128, 128), 1, 1)

    def caption(name):
        return draw("", [Block((name,), (noise(128, 128),))], grid)[:-128]

    long = "start" + "x" * 100 + "1.jpg"
    assert not np.array_equal(caption(long), caption(long.replace("1.jpg", "2.jpg")))
    assert not np.array_equal(caption(long), caption(long.replace("start", "stand")))
    assert np.array_equal(caption(long), caption(long[:50] + "y" + long[51:]))


@pytest.mark.parametrize("hw", [(10, 20), (400, 100), (1, 2000), (3000, 1), (1, 1), (128, 128)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_whole_of_an_image_is_fitted_into_a_box(hw, channels):
    image = np.full((*hw, channels), 9, np.uint8)

    box = fitted(image, (128, 128))

    assert box.shape == (128, 128, channels)
    filled = np.argwhere(box[..., 0] == 9)
    (top, left), (bottom, right) = filled.min(0), filled.max(0)
    height, width = bottom - top + 1, right - left + 1
    assert max(height, width) == 128
    assert abs(height - max(1, 128 * hw[0] / max(hw))) <= 1
    assert abs(width - max(1, 128 * hw[1] / max(hw))) <= 1
    assert len(filled) == height * width


@pytest.mark.parametrize(
    ("sizes", "count", "shares"),
    [
        ((900, 10), 16, [8, 8]),
        ((900, 3), 16, [13, 3]),
        ((1, 2, 3), 16, [1, 2, 3]),
        ((5, 5, 5), 7, [3, 2, 2]),
        ((4,) * 20, 16, [1] * 16),
        ((100,), 16, [16]),
        ((), 16, []),
    ],
)
def test_classes_get_equal_shares_as_far_as_they_go(sizes, count, shares):
    labels = np.repeat(np.arange(len(sizes)), sizes)

    chosen = spread(labels, count)

    assert np.unique(labels[chosen], return_counts=True)[1].tolist() == shares
    assert len(set(chosen.tolist())) == len(chosen) == min(count, len(labels))
    assert chosen.tolist() == sorted(chosen.tolist())


def test_within_a_class_samples_are_spread_from_its_first_to_its_last():
    chosen = spread(np.full(100, -1), 4).tolist()

    assert chosen == [0, 33, 66, 99]
    assert spread(np.arange(31), 16).tolist() == list(range(0, 31, 2))


def test_a_png_is_read_back_as_it_was(tmp_path):
    image = noise(20, 30)

    write_png(tmp_path / "größe.png", image)

    read = cv2.imdecode(np.fromfile(tmp_path / "größe.png", np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(cv2.cvtColor(read, cv2.COLOR_BGR2RGB), image)
    with pytest.raises(StorageError, match="no/such/look.png"):
        write_png(tmp_path / "no" / "such" / "look.png", image)
