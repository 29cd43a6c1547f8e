"""The verdict in words: what the figures mean, in 80 columns."""

import doctest
import json

import pytest

from preprocess.verdict import report
from preprocess.verdict.comparison import compare
from preprocess.verdict.report import CacheWay, FullBuild, ImageFolderWay, Setting, TrainingStep, Verdict


def verdict(step=None, workers=8, rate=1000.0, **changes) -> Verdict:
    """256 images a batch: ImageFolder loads one in 0.256 s, the cache in 0.0256 s."""
    made = Verdict(
        source="/data/a folder/" + "ü" * 30,
        images=1_281_167,
        sampled=2000,
        failures=[],
        split="train",
        samples=256_000,
        variants=4,
        shape=(3, 224, 224),
        batch_size=256,
        processors=8,
        imagefolder=ImageFolderWay(["RandomResizedCrop"] * 6, [], [Setting(0, 100.0), Setting(8, rate)], workers, rate),
        cached=CacheWay("sample", 10_000.0, 20_000.0, 5_000.0, 2_000.0),
        step=step or TrainingStep(0.1, "given"),
        build=FullBuild(780.0, 1_281_167, 5_000_000, 1600.0, "render", 0.8, "", "float16", 10 << 30, 5 << 30, 1 << 40),
    )
    for name, value in changes.items():
        setattr(made, name, value)
    compare(made)
    return made


def test_examples_hold():
    assert doctest.testmod(report).failed == 0


def test_waiting_and_epochs_follow_from_the_rates():
    found = verdict()

    assert found.waiting["imagefolder"] == pytest.approx(0.156 / 0.256)  # workers load while the model trains
    assert found.waiting["warm"] == pytest.approx(0.0256 / 0.1256)
    assert found.waiting["cold_shuffled"] == pytest.approx(0.128 / 0.228)
    assert found.epoch_s["imagefolder"] == pytest.approx(1000 * 0.256)
    assert found.saved_s == pytest.approx(1000 * (0.256 - 0.1256))
    assert found.break_even_epochs == 6
    assert "61% of each step with ImageFolder, 20% with the cache" in found.conclusion()
    assert "after 6 epochs" in found.conclusion()


def test_without_workers_loading_is_waited_for():
    assert verdict(workers=0).waiting["imagefolder"] == pytest.approx(0.256 / 0.356)


def test_on_a_cpu_that_trains_workers_save_no_time():
    found = verdict(TrainingStep(0.1, "resnet18", "the CPU", shares_cores=True))

    assert found.waiting["imagefolder"] == pytest.approx(0.256 / 0.356)
    assert any("shares with ImageFolder's workers" in note for note in found.notes)


def test_a_slow_model_needs_no_cache():
    found = verdict(TrainingStep(10.0, "given"))

    assert found.waiting["imagefolder"] == 0
    assert found.break_even_epochs is None
    assert "not needed for speed" in found.conclusion()
    assert "ImageFolder keeps up with 3.91 steps/s, the cache with 39.1" in found.conclusion()


def test_a_cache_that_is_larger_than_memory_counts_as_cold(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 1 << 20, "SC_PHYS_PAGES": 8 << 10}[name])
    found = verdict()

    assert found.expected == "cold"
    assert found.saved_s == pytest.approx(1000 * (0.256 - 0.1512))
    assert "34% with the cache" in found.conclusion()
    assert "does not fit into the memory of 8.0 GiB" in " ".join(found.notes)


def test_a_machine_that_others_use_is_noted():
    assert "load 4.1 on 8" in verdict(load=4.1).notes[0]
    assert "load" not in "".join(note for note in verdict(load=3.9).notes if "to_device" not in note)


def test_a_missing_figure_gives_no_verdict_but_what_there_is():
    way = ImageFolderWay(["Resize"], [], [Setting(0, None, "failed: Pillow can read none")])
    found = verdict(imagefolder=way)

    assert found.conclusion().startswith("No verdict")
    assert "failed: Pillow can read none" in str(found)
    assert "10,000" in str(found)


@pytest.mark.parametrize("step", [None, TrainingStep(0.1, "resnet18, float32", "the CPU", shares_cores=True)])
def test_all_fits_80_columns(step):
    failures = [{"path": f"cat/{'x' * 20} {n}.jpg", "stage": "decode", "reason": "cut " * 30} for n in range(9)]
    found = verdict(step, failures=failures, cached=CacheWay("cache", 1.0, 2.0, why={"cold": "no disk " * 20}))

    assert max(map(len, str(found).splitlines())) <= 80
    assert "4 more (all of them with --json)" in str(found)


def test_a_disk_that_is_too_small_is_named():
    found = verdict()
    found.build.free_bytes = 6 << 30

    assert "6.0 GiB free: float16 DOES NOT FIT" in " ".join(str(found).split())
    found.build.dtype = "uint8"
    assert "DOES NOT" not in str(found)


def test_a_cold_figure_that_is_missing_asks_for_a_disk():
    missing = CacheWay("sample", 1.0, 2.0, why={"cold": "98% of it stays in memory"})

    assert verdict(cached=missing).notes[0].endswith("stays in memory; name a CACHE on the disk that is meant")
    assert verdict(cached=missing, cache="cache").notes[0].endswith("stays in memory")


def test_json_has_every_field():
    fields = json.loads(verdict().to_json())

    assert set(fields) == set(Verdict.__dataclass_fields__)
    assert fields["imagefolder"]["settings"][1] == {"workers": 8, "images_per_s": 1000.0, "why": None}


def test_what_would_make_the_build_faster_takes_the_place_of_what_bounds_it():
    told = verdict()
    assert "bound by render (80% of the time)" in " ".join(str(told).split())
    told.build.advice = "Bound by the transforms (80%): Rotate of train takes 90% of their time"

    text = " ".join(str(told).split())
    assert "images/s; Bound by the transforms (80%): Rotate of train" in text
    assert "of the time)" not in text


def test_waiting_that_to_device_takes_away_is_told_as_such():
    """A plain loop loads a batch in 0.0256 s and trains on it in 0.1 s."""
    (note,) = [note for note in verdict().notes if "to_device" in note]
    assert note.startswith("the cache's 20% of waiting are those of a plain loop")
    assert note.endswith("with to_device(loader, device), which loads while a GPU trains, it is 0%")
    (slower,) = [note for note in verdict(TrainingStep(0.0128, "given")).notes if "to_device" in note]
    assert slower.endswith("it is 50%")


@pytest.mark.parametrize(
    "step", [TrainingStep(10.0, "given"), TrainingStep(0.1, "resnet18", "the CPU", shares_cores=True)]
)
def test_where_to_device_would_take_nothing_away_it_is_not_named(step):
    assert "to_device" not in str(verdict(step))
