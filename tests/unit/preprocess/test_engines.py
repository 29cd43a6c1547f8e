"""Which engine renders a split: what was asked for, what is here, and what the cache was made by."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from preprocess import augment, environment
from preprocess.engines import choose, lacking, renderer_of
from preprocess.errors import PixelsWouldDiffer, UsageError
from preprocess.render import Renderer
from preprocess.rendering import NVJPEG, OPENCV, TORCH, Rendering

ROOT = Path(__file__).parents[3]

RESIZE = {"Resize": {"height": 8, "width": 8}}
ALIEN = {"MedianBlur": {"p": 0.5}}
"""What torch does not render."""


def rendering(*transforms, engine=""):
    return Rendering((8, 8), "rgb", "uint8", tuple(augment.resolve([*transforms], "here")[0]), 0, False, engine, "")


PLAIN = rendering(RESIZE)


@pytest.fixture
def gpu(monkeypatch):
    """One is there."""
    monkeypatch.setattr(environment, "gpu", lambda: "NVIDIA H200")


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(environment, "gpu", lambda: None)


def chosen(device="auto", same=None, kept=None, wanted=PLAIN, rerender=False):
    """`same` and `kept` by engine; as ever, tensors that are the same are in the cache."""
    stored = replace(wanted, engine=same) if same else None
    return choose("train", wanted, device, stored, kept or same, rerender=rerender)


def refused(**arguments):
    with pytest.raises(PixelsWouldDiffer) as caught:
        chosen(**arguments)
    assert caught.value.exit_code == 8
    text = str(caught.value)
    assert text.startswith("split 'train': ")
    assert "either" in text
    assert " or " in text
    assert "--rerender (new tensors beside the old)" in text
    return text


# A new cache


def test_a_new_cache_is_rendered_on_the_gpu_if_there_is_one(gpu):
    assert chosen() == (NVJPEG, [])


def test_a_new_cache_is_rendered_by_opencv_without_a_gpu():
    assert chosen() == (OPENCV, [])


@pytest.mark.parametrize(("device", "engine"), [("cpu", OPENCV), ("cuda", NVJPEG), ("torch-cpu", TORCH)])
def test_a_device_that_is_asked_for_is_used(gpu, device, engine):
    assert chosen(device) == (engine, [])


def test_cuda_without_a_gpu_is_a_mistake_of_the_caller():
    for same in (None, NVJPEG, OPENCV):
        with pytest.raises(UsageError, match="device 'cuda': torch finds no CUDA device.*use auto or cpu") as caught:
            chosen("cuda", same=same)
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("device", ["cpu", "torch-cpu"])
def test_the_gpu_is_not_looked_for_where_it_does_not_matter(monkeypatch, device):
    """It costs seconds: torch is asked."""

    def ask():
        raise AssertionError("torch would be imported")

    monkeypatch.setattr(environment, "gpu", ask)
    chosen(device)


# A cache that has tensors


@pytest.mark.parametrize("engine", [OPENCV, TORCH])
def test_auto_follows_the_cache(engine):
    assert chosen(same=engine) == (engine, [])
    assert chosen(kept=engine) == (engine, []), "also with another recipe"


@pytest.mark.parametrize("engine", [OPENCV, TORCH])
def test_auto_follows_the_cache_where_a_gpu_is_and_says_so(gpu, engine):
    for found, notes in (chosen(same=engine), chosen(kept=engine)):
        assert found == engine
        (note,) = notes
        assert note.startswith("split 'train' is rendered by OpenCV and ")
        assert "--device cuda --rerender" in note


def test_auto_follows_the_same_tensors_before_others(gpu):
    assert chosen(same=NVJPEG, kept=OPENCV) == (NVJPEG, [])
    assert chosen(same=TORCH, kept=NVJPEG)[0] == TORCH


def test_auto_on_a_gpus_cache_is_silent_on_a_gpu(gpu):
    assert chosen(same=NVJPEG) == (NVJPEG, [])


@pytest.mark.parametrize(
    ("device", "same"), [("cpu", TORCH), ("cpu", NVJPEG), ("torch-cpu", OPENCV), ("torch-cpu", NVJPEG)]
)
def test_another_engine_than_the_tensors_have_is_refused(device, same):
    text = refused(device=device, same=same)
    assert f"--device {device} renders with " in text
    assert "--device auto (the same engine again)" in text


def test_cuda_for_tensors_of_opencv_is_refused(gpu):
    text = refused(device="cuda", same=OPENCV)
    assert "--device cuda renders with nvJPEG and torch on the GPU" in text
    assert "its tensors were made by OpenCV and Albumentations on the CPU" in text


@pytest.mark.parametrize("device", ["cpu", "cuda", "torch-cpu"])
@pytest.mark.parametrize("same", [OPENCV, NVJPEG, TORCH])
def test_rerender_permits_any_engine(gpu, device, same):
    assert chosen(device, same=same, rerender=True) == chosen(device)


@pytest.mark.parametrize("device", ["cpu", "cuda", "torch-cpu"])
def test_another_recipe_may_have_any_engine(gpu, device):
    assert chosen(device, kept=NVJPEG) == chosen(device)


def test_a_gpus_cache_without_a_gpu_is_refused():
    text = refused(same=NVJPEG)
    assert "made by nvJPEG and torch on the GPU, and there is no CUDA device here" in text
    assert "either build where there is one, or build with --device cpu --rerender" in text


def test_a_gpus_cache_without_a_gpu_is_rendered_anew_by_opencv_if_it_may_be():
    assert chosen(same=NVJPEG, rerender=True) == (OPENCV, [])


def test_a_gpus_cache_without_a_gpu_takes_another_recipe_by_opencv():
    assert chosen(kept=NVJPEG) == (OPENCV, [])


def test_tensors_of_an_engine_that_is_not_known_are_left_to_the_version_that_knows_it(gpu):
    engine, _ = chosen(same="jpegli+triton")
    with pytest.raises(UsageError, match="'jpegli\\+triton' is not known to this version"):
        renderer_of(replace(PLAIN, engine=engine))


# Transforms that torch lacks


@pytest.mark.parametrize(
    "transforms",
    [
        [ALIEN, RESIZE],
        [{"OneOf": {"transforms": [{"HorizontalFlip": {}}, ALIEN]}}, RESIZE],
        [{"OneOf": {"transforms": [{"HorizontalFlip": {}}, {"Sequential": {"transforms": [ALIEN]}}]}}, RESIZE],
    ],
    ids=["plain", "in a OneOf", "deeper"],
)
@pytest.mark.parametrize("device", ["auto", "cuda", "torch-cpu"])
def test_a_transform_that_torch_lacks_is_rendered_by_opencv_and_named(gpu, device, transforms):
    wanted = rendering(*transforms)
    note = "split 'train' is rendered by OpenCV and Albumentations on the CPU: torch does not render MedianBlur"
    assert chosen(device, wanted=wanted) == (OPENCV, [note])


def test_such_tensors_are_found_again_whatever_was_asked_for(gpu):
    for device in ("auto", "cuda", "torch-cpu", "cpu"):
        assert chosen(device, wanted=rendering(ALIEN, RESIZE), same=OPENCV)[0] == OPENCV


def test_without_a_gpu_nothing_is_said_of_what_torch_lacks():
    assert chosen(wanted=rendering(ALIEN, RESIZE)) == (OPENCV, [])


def test_a_split_stays_on_opencv_where_another_one_is_on_the_gpu(gpu):
    engine, notes = chosen(wanted=rendering(ALIEN, RESIZE), kept=NVJPEG)
    assert engine == OPENCV
    assert "MedianBlur" in notes[0]


def test_what_torch_lacks_may_be_one_setting():
    assert lacking(PLAIN) is None
    assert "CoarseDropout" in lacking(rendering(RESIZE, {"CoarseDropout": {"fill": "random_uniform"}}))


# The renderer


def test_each_engine_has_its_renderer():
    from preprocess.torch_engine.renderer import TorchRenderer

    assert type(renderer_of(replace(PLAIN, engine=OPENCV))) is Renderer
    assert type(renderer_of(replace(PLAIN, engine=TORCH))) is TorchRenderer
    with pytest.raises(UsageError, match="nvJPEG and torch on the GPU are needed, and torch finds no CUDA device here"):
        renderer_of(replace(PLAIN, engine=NVJPEG))


def test_no_torch_is_imported_for_opencv():
    code = (
        "import sys; from preprocess import augment; augment.library(without_torch=True)\n"
        "from tests.unit.preprocess import test_engines as t; from preprocess.engines import choose, renderer_of\n"
        "for device in ('auto', 'cpu'):\n"
        "    engine, _ = choose('train', t.PLAIN, device, None, None, rerender=False)\n"
        "    renderer_of(t.replace(t.PLAIN, engine=engine))\n"
        "assert 'torch' not in sys.modules\n"
    )
    patched = "import preprocess.environment as e; e._DRIVER_FILES = ()\n" + code
    subprocess.run([sys.executable, "-c", patched], check=True, timeout=60, cwd=ROOT)
