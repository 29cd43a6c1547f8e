"""How many processes a build has."""

from types import SimpleNamespace

import pytest

from preprocess import builder, environment
from preprocess.budget import FailureBudget
from preprocess.rendering import NVJPEG, OPENCV, TORCH
from preprocess.run import Silent


@pytest.mark.parametrize(
    ("asked", "engines", "gpus", "expected"),
    [
        (None, [NVJPEG], 4, 4),
        (None, [NVJPEG, OPENCV], 2, 2),
        (None, [NVJPEG], 1, 1),
        (None, [NVJPEG], 0, 1),  # the GPU is gone: the worker says so
        (None, [OPENCV], 4, 6),
        (None, [TORCH, OPENCV], 4, 6),
        (3, [NVJPEG], 2, 3),
        (1, [NVJPEG], 4, 1),
        (2, [OPENCV], 4, 2),
    ],
)
def test_a_process_for_each_gpu_or_processor_unless_asked_otherwise(monkeypatch, asked, engines, gpus, expected):
    monkeypatch.setattr(environment, "gpus", lambda: gpus)
    monkeypatch.setattr(builder, "processors", lambda: 6)
    plan = SimpleNamespace(renderings={f"split {i}": SimpleNamespace(engine=each) for i, each in enumerate(engines)})
    settings = builder._Settings(
        workers=asked,
        budget=FailureBudget(None),
        allow_shrink=False,
        recipe_given=True,
        shard_mib=32,
        stall_s=120,
        decoder="",
        progress=Silent(),
        announce=print,
    )
    assert settings.workers_of(plan) == expected


def test_the_gpus_are_not_counted_for_a_build_without_one(monkeypatch):
    """It would import torch, which takes seconds."""
    monkeypatch.setattr(environment, "gpus", lambda: pytest.fail("asked for the GPUs"))
    plan = SimpleNamespace(renderings={"train": SimpleNamespace(engine=OPENCV)})
    assert builder._Settings.workers_of(SimpleNamespace(workers=None), plan) >= 1
