"""How many processes a build has, with which recipe, and who watches it."""

import contextlib
from types import SimpleNamespace

import pytest

from preprocess import build, builder, environment
from preprocess.budget import FailureBudget
from preprocess.rendering import NVJPEG, OPENCV, TORCH
from preprocess.run import Silent
from tests.helpers import TINY, image_folder
from tests.unit.preprocess.test_scan import tree


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


@pytest.mark.parametrize(
    ("names", "overrides", "splits"),
    [
        (["cat/1.jpg", "dog/1.jpg"], ["splits.train.variants=2"], {"train": None}),
        (["train/a/1.jpg", "Val/a/1.jpg"], ["splits.train.variants=2"], {"train": None, "val": None}),
        (["cat/1.jpg"], ["splits.train.variants=2", "splits.vla.variants=2"], {"train": ".", "vla": None}),
        (["cat/1.jpg"], ["splits.val={from: train, fraction: 0.1}"], {"train": None, "val": None}),
        (["train/1.jpg", "cat/1.jpg"], ["splits.train.variants=2"], {"train": None}),
        (["train/1.jpg", "cat/1.jpg"], ["splits.train.folder=."], {"train": "."}),
        (["images/1.jpg", "masks/1.png"], ["splits.train.variants=2"], {"train": None}),
    ],
)
def test_settings_of_one_split_leave_the_others_and_settle_no_doubt(tmp_path, names, overrides, splits):
    source = tree(tmp_path / "source", *names)

    recipe = builder.chosen_recipe(None, overrides, source, None)

    assert {name: split.folder for name, split in recipe.splits.items()} == splits


@pytest.mark.parametrize("asked", [True, False, None])
def test_progress_is_shown_to_those_who_ask(tmp_path, monkeypatch, asked):
    told = []

    class Shown:
        stage = update = work = lambda self, *given: told.append(given)

        def say(self, text):
            told.append(text)

    monkeypatch.setattr("preprocess.progress.progress_bar", lambda: contextlib.nullcontext(Shown()))
    image_folder(tmp_path / "photos")
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, progress=asked)
    assert (("render", 8) in told) is (asked is True)
    build(tmp_path / "photos", tmp_path / "cache", TINY | {"seed": 1}, workers=1, progress=asked)
    assert any("the recipe changed" in str(each) for each in told) is (asked is True)
