"""Names tell splits, parts of other data sets and junk; everything else may be a class."""

import pytest

from preprocess.names import is_image_word, is_target_word, junk_of, probable_split_of, split_of


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *((name, name) for name in ("train", "val", "valid", "validation", "test")),
        *(("Train", "train"), ("TEST", "test"), ("Valid", "valid"), ("VALIDATION", "validation"), ("Val", "val")),
        *(("training", "train"), ("Testing", "test"), ("dev", "val"), ("eval", "val"), ("Evaluation", "val")),
        *((name, None) for name in ("cat", "trains", "train2017", "tests", "valley", "te st", "")),
    ],
)
def test_names_of_splits(name, split):
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *(
            ("train2017", "train"),
            ("val2014", "val"),
            ("test_2015", "test"),
            ("trainval", "train"),
            ("TestSet", "test"),
        ),
        ("trainval", "train"),
        *(("training_set", "train"), ("test-images", "test"), ("seg_train", "train"), ("train_data_01", "train")),
        *((name, None) for name in ("train station", "test_tube", "bullet_train", "validation stamp", "train_val")),
        *((name, None) for name in ("cat", "2017", "images", "", "training shoes", "latest", "contest", "masks_train")),
    ],
)
def test_names_that_say_a_split_among_other_words(name, split):
    assert probable_split_of(name) == split


def test_parts_of_data_sets():
    assert all(map(is_image_word, ["images", "JPEGImages", "leftImg8bit", "jpeg_images", "IMGS"]))
    assert all(map(is_target_word, ["masks", "Annotations", "SegmentationClass", "ground_truth", "gtFine", "labels"]))
    assert not any(is_image_word(name) or is_target_word(name) for name in ["cat", "no_mask", "mask_on", "imagery", ""])


@pytest.mark.parametrize(
    ("name", "counted"),
    [("Thumbs.db", "Thumbs.db"), ("THUMBS.DB", "THUMBS.DB"), ("._a.jpg", "._*"), ("@eaDir", "@eaDir")]
    + [(name, None) for name in ("thumbs_up", "recycle", "trash", "lost", "a._b", ".hidden", "")],
)
def test_junk(name, counted):
    assert junk_of(name) == counted
