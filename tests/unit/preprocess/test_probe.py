"""The probe tells environments apart that render differently, and nothing else."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import cv2
import pytest

from cache_store.canonical import digest_of
from preprocess import augment
from preprocess import probe as probe_module
from preprocess.decode import decode
from preprocess.errors import SourceError, UsageError
from preprocess.pictures import COLOUR, GRAY, PICTURES
from preprocess.probe import probe
from preprocess.render import DECODER, Renderer
from preprocess.rendering import Rendering


def rendering(*transforms, size_hw=(32, 32), channels="rgb", seed=0):
    given = tuple(augment.resolve(list(transforms), "here")[0])
    return Rendering(size_hw, channels, "uint8", given, seed, False, "opencv", "")


CROP = {"RandomResizedCrop": {"size": [32, 32]}}
BASE = rendering(CROP, {"ColorJitter": {"p": 1}})


def flipped(data, **settings):
    """A decoder that turns every image upside down."""
    found = decode(data, **settings)
    return found._replace(image=found.image[::-1].copy())


def test_the_pictures_are_frozen():
    """Their bytes are part of every cache's identity."""
    assert [digest_of(data).hex() for data in (COLOUR, GRAY)] == [
        "8ab8a5b3489b51311e4ab526c9e19394",
        "693aa6cc76d8f29edb1dd5607ba837f3",
    ]
    assert PICTURES == (COLOUR, GRAY)


def test_the_pictures_decode_to_what_is_said_of_them():
    assert decode(COLOUR).image.shape == (72, 96, 3)
    assert decode(GRAY).image.shape == (61, 50, 3)
    assert decode(GRAY, channels="gray").image.std() > 10
    assert decode(COLOUR).image.std((0, 1)).min() > 10


def test_it_is_the_same_twice():
    first = probe(BASE, DECODER)
    assert len(first) == 32
    assert probe(BASE, DECODER) == first


@pytest.mark.parametrize(
    "other",
    [
        rendering({"RandomResizedCrop": {"size": [32, 32], "scale": [0.09, 1.0]}}, {"ColorJitter": {"p": 1}}),
        rendering(CROP, {"ColorJitter": {"p": 1, "hue": 0.4}}),
        rendering(CROP),
        rendering(CROP, {"ColorJitter": {"p": 1}}, seed=1),
        rendering(CROP, {"ColorJitter": {"p": 1}}, channels="gray"),
    ],
    ids=["scale", "hue", "fewer", "seed", "channels"],
)
def test_it_changes_with_whatever_changes_pixels(other):
    assert probe(other, DECODER) != probe(BASE, DECODER)


def test_it_changes_with_the_decoder(monkeypatch):
    monkeypatch.setitem(sys.modules, "another_decoder", SimpleNamespace(decode=decode, flipped=flipped))
    assert probe(BASE, "another_decoder:decode") == probe(BASE, DECODER)
    assert probe(BASE, "another_decoder:flipped") != probe(BASE, DECODER)


def test_it_does_not_change_with_the_normalisation_or_the_type():
    baked = replace(BASE, dtype="float16").with_statistics(((0.5,) * 3, (0.5,) * 3))
    assert probe(baked, DECODER) == probe(BASE, DECODER)


def test_a_rare_draw_is_on_the_bench():
    """Eight variants of two pictures: a change that shows in half of the draws is missed once in 65,536 times."""
    assert probe(rendering(CROP, {"InvertImg": {"p": 0.5}}), DECODER) != probe(rendering(CROP), DECODER)


def test_pictures_that_are_too_small_are_part_of_it():
    large = rendering({"CenterCrop": {"height": 300, "width": 300}}, size_hw=(300, 300))
    larger = rendering({"CenterCrop": {"height": 301, "width": 301}}, size_hw=(301, 301))
    assert probe(large, DECODER) == probe(large, DECODER)
    assert probe(large, DECODER) != probe(larger, DECODER)


def test_a_script_that_has_put_opencv_s_fast_code_off_has_the_pixels_of_a_worker():
    wanted = probe(BASE, DECODER)
    cv2.setUseOptimized(False)
    try:
        assert probe(BASE, DECODER) == wanted
        assert not cv2.useOptimized(), "it is the script's to turn on"
    finally:
        cv2.setUseOptimized(True)


def capped(data, **settings):
    raise SourceError("decode", "larger than OPENCV_IO_MAX_IMAGE_PIXELS, _WIDTH or _HEIGHT allows")


def test_an_environment_that_keeps_opencv_from_the_pictures_is_refused():
    with pytest.raises(UsageError, match="OPENCV_IO_MAX_IMAGE_… in the environment"):
        probe(BASE, f"{__name__}:capped")


def test_a_cap_on_pixels_is_no_part_of_what_an_environment_renders():
    """A recipe that goes through something large on purpose has the probe that it always had."""
    large = rendering({"Resize": {"height": 14000, "width": 14000, "p": 1}}, {"Resize": {"height": 32, "width": 32}})
    renderer = probe_module.renderer_of(large, DECODER)
    with pytest.raises(SourceError, match="196 Mpx"):
        renderer.pixels(renderer.decode(COLOUR).image, bytes(16), 0)
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_module, "renderer_of", lambda *given: asked.append(given[2]) or Renderer(BASE, DECODER))
        probe(large, DECODER)
    assert asked == [sys.maxsize]
