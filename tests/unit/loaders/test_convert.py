"""uint8 caches: the same float16 bits as a float16 cache, with and without OpenCV."""

import sys

import numpy as np
import pytest

from cache_store.normalise import normalisation_table, normalise
from loaders.convert import normalise_batch


@pytest.mark.parametrize("opencv", [True, False])
def test_each_image_is_normalised_to_the_bit(monkeypatch, opencv):
    if not opencv:
        monkeypatch.setitem(sys.modules, "cv2", None)
    table = normalisation_table((0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 16, 12), dtype=np.uint8)
    out = np.empty(images.shape, np.float16)

    normalise_batch(images, table, out)

    for image, found in zip(images, out, strict=True):
        np.testing.assert_array_equal(found.view(np.uint16), normalise(image, table).view(np.uint16))
