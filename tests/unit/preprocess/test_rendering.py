"""What makes two renderings the same, and what does not."""

from dataclasses import replace

import pytest

from preprocess.rendering import Rendering

BASE = Rendering(
    size_hw=(32, 48),
    channels="rgb",
    dtype="float16",
    transforms=({"Resize": {"height": 32, "interpolation": 3, "p": 1.0, "width": 48}},),
    seed=7,
    reduced=False,
    engine="opencv",
    probe="00",
)
STATISTICS = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_the_identities_are_frozen():
    """Another spelling of the description would part every cache from its tensors."""
    assert BASE.pixels_id == "b5e4632b4083faaf0022283d53335b29"
    assert BASE.with_statistics(STATISTICS).tensors_id == "69780b8d1c569639365845fd9d0be62b"


@pytest.mark.parametrize(
    "change",
    [
        {"size_hw": (48, 32)},
        {"channels": "gray"},
        {"transforms": ({"Resize": {"height": 32, "interpolation": 1, "p": 1.0, "width": 48}},)},
        {"transforms": ()},
        {"seed": 8},
        {"reduced": True},
        {"engine": "nvjpeg+torch"},
        {"probe": "01"},
        {"window": (0, 4095)},
    ],
)
def test_whatever_changes_pixels_changes_both_identities(change):
    other = replace(BASE, **change)
    assert other.pixels_id != BASE.pixels_id
    assert other.with_statistics(STATISTICS).tensors_id != BASE.with_statistics(STATISTICS).tensors_id


def test_what_is_admitted_changes_no_identity_and_no_equality():
    other = replace(BASE, admitted=(("levels", "high-byte"), ("pages", "first")))
    assert other == BASE
    assert other.pixels_id == BASE.pixels_id
    assert other.decode_arguments == {"levels": "high-byte", "pages": "first"}
    assert BASE.decode_arguments == {}
    assert replace(other, window=(0, 9)).decode_arguments == {"levels": (0, 9), "pages": "first"}


def test_normalisation_and_type_change_the_tensors_alone():
    renderings = [
        BASE.with_statistics(STATISTICS),
        BASE.with_statistics((STATISTICS[0], (0.4, 0.5, 0.7))),
        BASE.with_statistics((STATISTICS[1], STATISTICS[1])),
        replace(BASE, dtype="uint8"),
    ]
    assert len({rendering.pixels_id for rendering in renderings}) == 1
    assert len({rendering.tensors_id for rendering in renderings}) == len(renderings)


def test_eight_bit_tensors_know_no_statistics():
    rendering = replace(BASE, dtype="uint8")
    assert rendering.with_statistics(STATISTICS) is rendering
    assert rendering.statistics is None


def test_open_statistics_have_no_tensors_yet():
    assert BASE.with_statistics(None) is BASE
    with pytest.raises(ValueError, match="not known yet"):
        _ = BASE.tensors_id


@pytest.mark.parametrize(
    ("channels", "dtype", "shape", "chunk_bytes"),
    [
        ("rgb", "float16", (3, 32, 48), 9216),
        ("gray", "float16", (1, 32, 48), 3072),
        ("rgb", "uint8", (3, 32, 48), 4608),
    ],
)
def test_shape_and_size(channels, dtype, shape, chunk_bytes):
    rendering = replace(BASE, channels=channels, dtype=dtype)
    assert (rendering.shape, rendering.chunk_bytes, rendering.pixels) == (shape, chunk_bytes, 32 * 48)
