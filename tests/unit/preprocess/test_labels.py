"""Images are counted by class over all splits."""

import numpy as np

from preprocess.labels import class_counts, unlabelled


def test_images_of_each_class_in_the_order_of_ids():
    labels = {
        "train": np.array([0, 2, 2]),
        "val": np.array([2, -1]),
        "test": np.array([-1]),
        "none": np.zeros(0, np.int64),
    }

    assert list(class_counts(["dog", "ant", "cat"], labels).items()) == [("dog", 1), ("ant", 0), ("cat", 3)]
    assert class_counts([], {"test": np.array([-1, -1])}) == {}


def test_splits_without_any_label():
    labels = {"train": np.array([0, -1]), "test": np.array([-1]), "none": np.zeros(0, np.int64)}

    assert unlabelled(labels) == ["test"]
