"""How many images are built, and what their build foretells."""

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cache_store.errors import StorageError
from preprocess import Recipe, build
from preprocess.errors import FailureBudgetExceeded
from preprocess.plan import PlanOptions, make_plan
from preprocess.render import DECODER
from preprocess.report import BuildReport
from preprocess.verdict import sample
from preprocess.verdict.clock import Clock
from preprocess.verdict.sample import Built, bound_of, build_sample, full_build, scratch_folder
from tests.helpers import TINY, image_folder, write_image


@pytest.fixture
def plan(tmp_path):
    source = image_folder(tmp_path / "photos", count=40)
    return make_plan(source, tmp_path / "cache", Recipe.from_dict(TINY), None, PlanOptions(DECODER, "cpu"))


@pytest.fixture
def one_processor(monkeypatch):
    monkeypatch.setattr(sample, "processors", lambda: 1)


def built_in(seconds_an_image, monkeypatch):
    """Replaces builds: how many images each got, and a report that says how long they took."""
    counts = []

    def fake(links: Path, cache: Path, *_: object, **__: object) -> BuildReport:
        counts.append(sum(len(files) for _, _, files in os.walk(links)))
        return BuildReport(str(cache), seconds={"render": counts[-1] * seconds_an_image, "plan": 99.0})

    monkeypatch.setattr(sample, "build", fake)
    return counts


def sample_of(plan, tmp_path, seconds) -> Built:
    for name in ("links", "scratch"):
        (tmp_path / name).mkdir()
    return build_sample(plan, tmp_path / "links", tmp_path / "scratch", "cpu", Clock(seconds), lambda text: None)


def test_all_are_built_where_there_is_time(plan, tmp_path, monkeypatch, one_processor):
    counts = built_in(0.001, monkeypatch)

    assert sample_of(plan, tmp_path, 60).images == 80
    assert counts == [8, 32, 80]  # trials that tell little, then all


def test_fewer_are_built_where_the_trial_is_slow(plan, tmp_path, monkeypatch, one_processor):
    counts = built_in(1.0, monkeypatch)

    assert sample_of(plan, tmp_path, 60).images == counts[-1] == pytest.approx(24, abs=1)
    assert counts[:-1] == [8]


def test_no_more_are_built_than_there_is_room_for(plan, tmp_path, monkeypatch, one_processor):
    built_in(0.001, monkeypatch)
    monkeypatch.setattr(sample, "_MOST_BYTES", 10 * (8 * 8 * 3 * 2 + 4))

    assert sample_of(plan, tmp_path, 60).images == 10


def test_a_trial_of_nothing_but_bad_images_is_no_end(plan, tmp_path, monkeypatch, one_processor):
    counts = built_in(0.001, monkeypatch)
    fake = sample.build

    def fail_first(*arguments: object, **options: object) -> BuildReport:
        report = fake(*arguments, **options)
        if len(counts) == 1:
            raise FailureBudgetExceeded("none of 8 images could be used")
        return report

    monkeypatch.setattr(sample, "build", fail_first)

    assert sample_of(plan, tmp_path, 60).images == 80


def test_a_real_sample_has_the_images_and_their_names(plan, tmp_path):
    write_image(tmp_path / "photos" / "cat" / "new after the scan.png", 1)

    built = sample_of(plan, tmp_path, 60)

    assert (built.images, built.report.samples) == (80, {"train": 80})
    assert built.report.up_to_date is False
    assert build(tmp_path / "links" / "sample", built.cache, TINY).up_to_date
    assert os.listdir(tmp_path / "scratch") == ["sample"]


def test_a_full_build_takes_as_many_times_as_long_as_it_has_images(plan, tmp_path):
    seconds = {"plan": 50.0, "hash": 0.0, "start": 1.5, "render": 3.0, "normalise": 0.5, "commit": 0.5}
    stages = {"read": 0.5, "decode": 0.5, "render": 3.0, "write": 0.0}
    built = Built(tmp_path, BuildReport("", seconds=seconds, stages=stages, advice="Bound by it", cache_bytes=7), 20)

    full = full_build(plan, built, SimpleNamespace(seconds={"plan": 0.25}), tmp_path)

    assert full.seconds == pytest.approx(0.25 + 1.5 + 4.0 * 80 / 20)
    assert (full.images, full.tensors, full.images_per_s) == (80, 80, 5)
    assert (full.bound_by, full.bound_share, full.advice) == ("render", 0.75, "Bound by it")
    assert (full.bytes_float16, full.bytes_uint8, full.dtype) == (80 * 388, 80 * 196, "float16")


def test_a_build_without_work_is_bound_by_something():
    assert bound_of(BuildReport(""))[1] == 0


def test_the_temporary_folder_is_beside_the_cache_even_if_its_folder_is_new(tmp_path):
    with scratch_folder(tmp_path / "new" / "cache") as folder:
        assert folder.parent == tmp_path
        np.save(folder / "something", np.zeros(3))
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(StorageError, match="cannot write '/proc'"), scratch_folder(Path("/proc/none/cache")):
        pass
