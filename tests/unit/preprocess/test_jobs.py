"""What is sent to workers."""

import pickle

import numpy as np

from preprocess.jobs import Files, ReadJob
from preprocess.paths import Paths

FILES = Files(b"/a", Paths(["x/1", "x/\udcff", "y"]), np.array([2, 1, 0, 1]))
PATHS = (b"/a/y", b"/a/x/\xff", b"/a/x/1", b"/a/x/\xff")


def test_paths_are_put_together_when_they_are_asked_for():
    assert tuple(FILES) == PATHS
    assert tuple(FILES[1:3]) == PATHS[1:3]
    assert FILES[-1] == PATHS[-1]
    assert len(FILES) == 4


def test_a_worker_gets_the_paths_of_its_job_alone():
    many = Files(b"/a", Paths([f"{number}.png" for number in range(100_000)]), np.array([5, 7]))
    sent = pickle.dumps(ReadJob(1, 0, np.array([5, 7]), many, 1, 8))

    assert pickle.loads(sent).paths == (b"/a/5.png", b"/a/7.png")
    assert len(sent) < 1000


def test_a_part_of_a_job():
    part = ReadJob(1, 0, np.array([5, 7, 9, 8]), FILES, 2, 8).part([3, 0], 4)

    assert (part.job_id, part.items.tolist(), part.paths, len(part)) == (4, [8, 5], (PATHS[3], PATHS[0]), 2)
    assert (part.variants, part.slots) == (2, 8)
