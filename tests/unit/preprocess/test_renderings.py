"""One image rendered outside of a build, and renderings read back from a cache."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from cache_store.canonical import digest_of
from cache_store.normalise import normalisation_table
from preprocess.errors import RecipeError, SourceError, UsageError
from preprocess.recipe import Recipe
from preprocess.rendering import Rendering
from preprocess.renderings import stored_rendering
from tests.helpers import picture, write_image

CROP = {"RandomResizedCrop": {"size": [16, 20]}}
MEAN, STD = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]


def recipe(**changes):
    splits = {"train": {"transforms": [CROP]}, "val": {"transforms": [{"Resize": {"height": 16, "width": 20}}]}}
    values = {"size": [16, 20], "normalize": {"mean": MEAN, "std": STD}, "splits": splits}
    return Recipe.from_dict(values | changes)


def png(seed=0, height=40, width=50):
    return cv2.imencode(".png", picture(seed, height, width))[1].tobytes()


def test_path_and_bytes_give_the_same(tmp_path):
    path = write_image(tmp_path / "a.png", 0, 40, 50)
    by_path = [recipe().render(given, "train", 2) for given in (path, str(path))]
    by_bytes = [recipe().render(given, "train", 2) for given in (path.read_bytes(), bytearray(path.read_bytes()))]
    for other in (*by_path[1:], *by_bytes):
        np.testing.assert_array_equal(other, by_path[0])


@pytest.mark.parametrize(
    ("changes", "dtype", "channels"),
    [
        ({}, np.float16, 3),
        ({"dtype": "uint8"}, np.uint8, 3),
        ({"dtype": "uint8", "normalize": "dataset"}, np.uint8, 3),
        ({"channels": "gray", "normalize": {"mean": [0.1], "std": [0.5]}}, np.float16, 1),
    ],
)
def test_what_comes_out(changes, dtype, channels):
    out = recipe(**changes).render(png())
    assert out.dtype == dtype
    assert out.shape == (channels, 16, 20)
    assert out.flags.c_contiguous
    assert out.flags.writeable


def test_values_are_normalised_in_float64_and_rounded_once():
    pixels = recipe(dtype="uint8").render(png()).astype(np.float64)
    expected = (pixels / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    np.testing.assert_array_equal(recipe().render(png()), expected.astype(np.float16))


def test_variants_and_splits_differ():
    outs = [recipe().render(png(), "train", k).tobytes() for k in range(4)] + [recipe().render(png(), "val").tobytes()]
    assert len(set(outs)) == 5
    assert recipe().render(png(), "val", 3).tobytes() == outs[-1]


def test_the_default_split_is_val_and_a_recipe_without_splits_has_any():
    np.testing.assert_array_equal(recipe().render(png()), recipe().render(png(), "val"))
    plain = Recipe(size=16, normalize="imagenet")
    np.testing.assert_array_equal(plain.render(png(), "train"), plain.render(png(), "whatever"))


def test_pixels_are_taken_as_they_are_and_draw_by_the_digest_of_their_file():
    pixels = np.ascontiguousarray(picture(0, 40, 50)[..., ::-1])
    np.testing.assert_array_equal(recipe().render(pixels, "val"), recipe().render(png(), "val"))
    for digest in (digest_of(png()), digest_of(png()).hex()):
        for given in (pixels, pixels[::-1][::-1]):
            drawn = recipe().render(given, "train", 3, digest=digest)
            np.testing.assert_array_equal(drawn, recipe().render(png(), "train", 3))
    assert not np.array_equal(recipe().render(pixels, "train", 3, digest=bytes(16)), drawn)


def test_pixels_without_a_digest_are_refused_where_the_split_draws():
    with pytest.raises(UsageError, match="digest: .* expected, found none: split 'train' draws at random"):
        recipe().render(picture(0, 40, 50), "train")


@pytest.mark.parametrize("digest", [b"short", "0g" * 16, bytes(17), 5])
def test_what_is_no_digest_is_refused(digest):
    with pytest.raises(UsageError, match="digest: 16 bytes, or as many in hex, expected, found"):
        recipe().render(picture(0, 40, 50), "train", digest=digest)


def test_a_file_has_a_digest_of_its_own():
    assert recipe().render(png(), digest=digest_of(png())).shape == (3, 16, 20)
    with pytest.raises(UsageError, match=f"digest: that of the file is {digest_of(png()).hex()}, found 0000"):
        recipe().render(png(), digest=bytes(16))


def test_an_image_of_another_type_is_refused():
    with pytest.raises(UsageError, match="image: a path, the bytes .* expected, found Image; of a PIL image"):
        recipe().render(Image.fromarray(picture(0, 40, 50)))


def test_the_callers_pixels_stay_as_they_are():
    pixels = picture(0, 40, 50)
    before = pixels.copy()
    recipe().render(pixels)
    np.testing.assert_array_equal(pixels, before)
    assert pixels.flags.writeable


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 1), np.uint8),
        np.zeros((4, 4, 3), np.float32),
    ],
)
def test_pixels_of_another_shape_or_type_are_refused(pixels):
    with pytest.raises(SourceError, match=r"decode: uint8 \(H, W, 3\) expected, found") as failed:
        recipe().render(pixels)
    assert str(pixels.shape) in failed.value.reason


def test_what_cannot_be_rendered_says_why(tmp_path):
    with pytest.raises(SourceError, match=r"read: '.*none.png': No such file"):
        recipe().render(tmp_path / "none.png")
    with pytest.raises(SourceError, match="decode: not an image"):
        recipe().render(b"no image")
    with pytest.raises(SourceError, match="decode: .* over the cap of 0.001 Mpx"):
        recipe(decode={"max_megapixels": 0.001}).render(png())
    small = recipe(splits={"val": {"transforms": [{"CenterCrop": {"height": 16, "width": 20}}]}})
    with pytest.raises(SourceError, match="render: CropSizeError"):
        small.render(png(0, 8, 8))
    with pytest.raises(RecipeError, match="the recipe has no split 'tset'; there are: train, val"):
        recipe().render(png(), "tset")
    with pytest.raises(RecipeError, match=r"normalize: 'dataset' is only known from a cache; use Recipe.of"):
        recipe(normalize="dataset").render(png())
    with pytest.raises(UsageError, match="variant: 0 or more expected, found -1"):
        recipe().render(png(), "train", -1)


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("channels", ["rgb", "gray"])
@pytest.mark.parametrize("window", [None, (-1000, 4095)])
def test_a_stored_rendering_is_the_one_that_was_described(dtype, channels, window):
    count = 3 if channels == "rgb" else 1
    given = Rendering((16, 20), channels, dtype, (CROP,), 5, True, "opencv", "ab", window=window)
    given = given.with_statistics(((0.25,) * count, (0.5,) * count))
    again = stored_rendering({"rendering": json.loads(json.dumps(given.describe()))})
    assert again == given
    assert again.tensors_id == given.tensors_id
    assert normalisation_table(*again.statistics).shape == (count, 256) if dtype == "float16" else not again.statistics
