"""The sweep over num_workers: the best is found, failures are named, and it ends."""

import doctest
from types import SimpleNamespace

import pytest

from preprocess.verdict import loading
from preprocess.verdict.clock import Clock
from preprocess.verdict.hand import Unmeasured
from preprocess.verdict.loading import Instruments, cache_way, sweep, training_step

PLAN = SimpleNamespace(
    renderings={"train": SimpleNamespace(transforms=[{"Affine": {}}], size_hw=(8, 8), channels="rgb")}
)


class FakeHand:
    """Answers from a table: what, or (what, workers), -> answer or exception."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def ask(self, what, limit_s, **request):
        key = (what, request["workers"]) if "workers" in request else what
        self.asked.append(key)
        answer = self.answers[key]
        if isinstance(answer, Exception):
            raise answer
        return answer


def tools(answers, seconds=60.0):
    return Instruments(FakeHand(answers), Clock(seconds), lambda text: None)


@pytest.fixture(autouse=True)
def no_files(monkeypatch):
    monkeypatch.setattr(loading, "_images", lambda plan, built, split: {"files": []})


def rates(*values):
    counts = loading.worker_counts(2 ** (len(values) - 2))
    return {"batch_for_sweep": 16} | {("imagefolder_rate", n): value for n, value in zip(counts, values, strict=True)}


def test_examples_hold():
    assert doctest.testmod(loading).failed == 0


def test_the_best_number_of_workers_is_found_and_one_that_fails_is_named():
    way = sweep(tools(rates(100, 90, Unmeasured("out of shared memory"), 170)), PLAN, None, "train", 256, 4)

    assert (way.workers, way.images_per_s, way.batch) == (4, 170, 16)
    assert [each.images_per_s for each in way.settings] == [100, 90, None, 170]
    assert way.settings[2].why == "failed: out of shared memory"
    assert (way.left_out, way.transforms) == (["Affine"], ["Resize", "ToTensor", "Normalize"])


def test_the_sweep_ends_where_more_workers_are_far_slower():
    with_tools = tools(rates(100, 300, 150, 400, 500))

    way = sweep(with_tools, PLAN, None, "train", 256, 8)

    assert (way.workers, way.images_per_s) == (1, 300)
    assert with_tools.hand.asked[-1] == ("imagefolder_rate", 2)
    assert [each.why is None for each in way.settings] == [True, True, True, False, False]


def test_the_sweep_ends_when_time_is_up():
    way = sweep(tools(rates(100, 300, 150), seconds=1e-9), PLAN, None, "train", 256, 2)

    assert (way.workers, way.images_per_s) == (0, 100)
    assert way.settings[1].why == "not tried: no time left"


def test_images_that_cannot_be_loaded_are_no_figure():
    way = sweep(tools({"batch_for_sweep": Unmeasured("Pillow can read none")}), PLAN, None, "train", 256, 2)

    assert way.images_per_s is None
    assert way.settings[0].why == "Pillow can read none"


def test_a_step_is_scaled_to_the_batch():
    found = {"images_per_s": 64, "model": "m", "device": "the CPU", "on_gpu": False}

    step = training_step(tools({"model_rate": found}), (3, 8, 8), 2, 256)

    assert (step.seconds, step.shares_cores) == (4, True)


def test_a_model_that_cannot_be_timed_says_why():
    step = training_step(tools({"model_rate": Unmeasured("CUDA out of memory")}), (3, 8, 8), 2, 256)

    assert (step.seconds, step.why) == (None, "CUDA out of memory")


def test_a_cache_that_cannot_be_cold_is_still_warm(tmp_path):
    answers = {"warm_rates": {"float32": 5, "float16": 6}, "cold_rates": Unmeasured("75% of it stays in memory")}

    way = cache_way(tools(answers), tmp_path, "train", 256, "sample")

    assert (way.warm, way.warm_float16, way.cold, way.cold_shuffled) == (5, 6, None, None)
    assert way.why == {"cold": "75% of it stays in memory"}
