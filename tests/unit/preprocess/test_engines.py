"""Which engine renders a split, with a GPU and without."""

from dataclasses import replace

import pytest

from preprocess import engines, environment
from preprocess.errors import PixelsWouldDiffer, UsageError
from preprocess.rendering import NVJPEG, OPENCV, TORCH, Rendering

CROP = {"CenterCrop": {"height": 8, "width": 8}}
NOISE = {"GaussNoise": {"p": 0.5}}


def rendering(*transforms, engine=OPENCV):
    return Rendering((8, 8), "rgb", "float16", transforms or (CROP,), 0, False, engine, "probe")


@pytest.fixture(params=[None, "NVIDIA H200"], ids=["no GPU", "GPU"])
def gpu(request, monkeypatch):
    monkeypatch.setattr(environment, "gpu", lambda: request.param)
    return request.param


def choose(device="auto", same=None, kept=None, *, what=None, rerender=False):
    made = rendering(engine=same) if same is not None else None
    return engines.choose("train", what or rendering(), device, made, kept or same, rerender=rerender)


def test_a_new_cache_is_made_on_the_gpu_if_there_is_one(gpu):
    assert choose() == (NVJPEG if gpu else OPENCV, [])


@pytest.mark.parametrize("engine", [OPENCV, TORCH])
def test_auto_follows_the_cache_and_says_so_where_there_is_a_choice(gpu, engine):
    chosen, notes = choose(same=engine)

    assert chosen == engine
    assert [("--device cuda" in note and "--rerender" in note) for note in notes] == ([True] if gpu else [])


@pytest.mark.parametrize("device", ["cpu", "torch-cpu"])
def test_only_a_device_that_is_asked_for_can_clash(gpu, device):
    other = TORCH if device == "cpu" else OPENCV

    assert choose(device)[0] == engines.OF_DEVICE[device]
    with pytest.raises(PixelsWouldDiffer, match="either build with --device auto.* or with --rerender") as refused:
        choose(device, same=other)
    assert refused.value.exit_code == 8
    assert choose(device, same=other, rerender=True)[0] == engines.OF_DEVICE[device]


def test_tensors_of_a_gpu_need_one(gpu):
    if gpu:
        assert choose(same=NVJPEG) == (NVJPEG, [])
        assert choose("cuda", same=NVJPEG)[0] == NVJPEG
        return
    with pytest.raises(PixelsWouldDiffer, match="either build where there is one, or build with --device cpu --rere"):
        choose(same=NVJPEG)
    assert choose(same=NVJPEG, rerender=True)[0] == OPENCV
    assert choose(kept=NVJPEG)[0] == OPENCV  # another recipe: there is nothing to differ from
    with pytest.raises(UsageError, match="no CUDA device"):
        choose("cuda")
    with pytest.raises(UsageError, match="no CUDA device"):
        engines.renderer_of(rendering(engine=NVJPEG))


def test_a_transform_that_torch_lacks_keeps_a_split_on_opencv(gpu):
    for what, named in (
        (rendering(NOISE, CROP), "GaussNoise"),
        (rendering({"OneOf": {"transforms": [NOISE]}}), "GaussN"),
    ):
        for device in ("torch-cpu", *(("auto", "cuda") if gpu else ())):
            chosen, (note,) = choose(device, what=what)
            assert (chosen, named in note) == (OPENCV, True)


def test_an_engine_of_a_later_version_is_refused():
    with pytest.raises(UsageError, match="'quantum' is not known"):
        engines.renderer_of(replace(rendering(), engine="quantum"))
