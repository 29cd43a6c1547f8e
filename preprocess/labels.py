"""How many images each class has, and which splits have no classes at all."""

from collections.abc import Mapping, Sequence

import numpy as np


def class_counts(classes: Sequence[str], labels: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Images of each class in all splits, in the order of class ids.

    Parameters
    ----------
    classes : names by class id
    labels : split -> int64 (n,), -1 unlabelled
    """
    counts = np.zeros(len(classes), np.int64)
    for column in labels.values():
        counts += np.bincount(column[column >= 0], minlength=len(classes))
    return dict(zip(classes, counts.tolist(), strict=True))


def unlabelled(labels: Mapping[str, np.ndarray]) -> list[str]:
    """The splits whose images have no label."""
    return [name for name, column in labels.items() if len(column) and (column < 0).all()]
