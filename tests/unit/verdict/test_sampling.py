"""Which images stand for a folder, and the folder of links to them."""

import os

import numpy as np
import pytest

from preprocess import Recipe
from preprocess.scan import scan
from preprocess.verdict.sampling import affordable, choose, link
from tests.helpers import image_folder


def test_all_are_chosen_where_there_are_no_more():
    assert choose(5, 5).tolist() == choose(5, 9).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("total", "count"), [(1000, 100), (1000, 999), (7, 3), (1_281_167, 2000)])
def test_each_class_is_chosen_from_in_proportion(total, count):
    chosen = choose(total, count)

    assert len(chosen) == count
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < total
    for start in range(0, total - total // 5 + 1, max(1, total // 7)):  # a class of a fifth, wherever it is
        inside = ((chosen >= start) & (chosen < start + total // 5)).sum()
        assert abs(inside - len(chosen) / 5) <= 2


def test_the_choice_is_random_and_the_same_every_time():
    assert choose(1000, 50).tolist() == choose(1000, 50).tolist() != choose(1000, 50, seed=1).tolist()
    assert len(set(np.diff(choose(1000, 50)).tolist())) > 5  # no fixed distance, which could meet a pattern


@pytest.mark.parametrize(
    ("time_s", "image_s", "room", "image_bytes", "count"),
    [(20, 0.001, 1e9, 1e3, 2000), (20, 0.1, 1e9, 1e3, 200), (20, 0.001, 1e6, 1e4, 100), (1, 5, 1, 5, 1)],
)
def test_fewer_are_built_where_time_or_room_is_short(time_s, image_s, room, image_bytes, count):
    assert affordable(2000, time_s, image_s, room, image_bytes) == count


def test_links_have_the_names_of_the_images_and_a_scan_follows_them(tmp_path):
    source = image_folder(tmp_path / "phötos ä" / "train", ["a cat", "hund"], 3)
    paths = ["train/a cat/001.png", "train/hund/000.png", "train/hund/000.png"]

    made = link(source.parent, paths, ["train", "val"], tmp_path / "links")

    found = scan(made, Recipe().with_splits([("train", "train"), ("val", "val")]))
    assert [*found.splits["train"].paths] == paths[:2]
    assert len(found.splits["val"].paths) == 0
    assert os.path.realpath(made / paths[0]) == str(source / "a cat/001.png")


def test_links_to_a_relative_source_lead_there(tmp_path, monkeypatch):
    image_folder(tmp_path / "photos", ["cat"], 1)
    monkeypatch.chdir(tmp_path)

    made = link((tmp_path / "photos").relative_to(tmp_path), ["cat/000.png"], [], tmp_path / "links")

    assert (made / "cat/000.png").stat().st_size > 0
