"""An image that kills or hangs whatever decodes it costs itself, and nothing else."""

import os
import signal
import time
import zlib

import pytest

from preprocess.builder import build
from preprocess.errors import FailureBudgetExceeded, WorkerError
from tests import decoders
from tests.helpers import TINY, image_folder
from tests.integration.checks import SHARDS_OF_FOUR, assert_as_rendered, failures, paths

EVIL = "tests.decoders:decode"


def spoil(file, action: str) -> None:
    with open(file, "ab") as opened:
        opened.write(action.encode())


def in_order_of_work(names):
    """Files in the order in which a job takes them."""
    return sorted(names, key=lambda name: zlib.crc32(name.encode()))


@pytest.mark.parametrize(
    ("places", "action", "reason", "workers"),
    [
        ([0], "SEGV", "killed by SIGSEGV", 1),
        ([-1], "EXIT", "ended with exit code 3", 2),
        ([1, 2], "SEGV", "killed by SIGSEGV", 2),
    ],
    ids=["first", "last", "two"],
)
def test_only_the_image_that_kills_its_worker_is_lost(tmp_path, notes, workers, places, action, reason):
    image_folder(tmp_path / "photos")
    names = in_order_of_work(f"{c}/{i:03d}.png" for c in ("cat", "dog") for i in range(4))
    poison = sorted(names[place] for place in places)
    for name in poison:
        spoil(tmp_path / "photos" / name, action)

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=workers, decoder=EVIL)

    listed = failures(tmp_path / "cache")
    assert sorted(listed) == poison
    assert all(stage == "decode" and reason in why for stage, why in listed.values()), listed
    assert paths(tmp_path / "cache") == sorted(set(names) - set(poison))
    assert report.rendered == 8 - len(poison)
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")
    assert list((tmp_path / "cache" / "pending").glob("*/")) == []


def test_the_only_good_image_among_poisonous_ones_is_kept(tmp_path, notes):
    image_folder(tmp_path / "photos", ("dog",), count=3)
    for name in ("dog/000.png", "dog/002.png"):
        spoil(tmp_path / "photos" / name, "EXIT")

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=2, decoder=EVIL)

    assert len(report.failures) == 2
    assert paths(tmp_path / "cache") == ["dog/001.png"]
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_the_only_image_that_looks_good_kills_its_worker(tmp_path, notes):
    image_folder(tmp_path / "photos", count=2)
    spoil(tmp_path / "photos" / "cat" / "000.png", "SEGV")
    for name in ("cat/001.png", "dog/000.png", "dog/001.png"):
        (tmp_path / "photos" / name).write_bytes(b"no image: " + name.encode())

    with pytest.raises(FailureBudgetExceeded, match="none of 4 images could be used"):
        build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, decoder=EVIL)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_hangs_is_given_up_after_the_stall_time(tmp_path, notes, workers):
    image_folder(tmp_path / "photos")
    spoil(tmp_path / "photos" / "dog" / "003.png", "HANG")
    started = time.monotonic()

    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=workers, stall_s=1, decoder=EVIL)

    assert time.monotonic() - started < 15
    stage, reason = failures(tmp_path / "cache")["dog/003.png"]
    assert stage == "decode"
    assert "no answer within 1 s" in reason
    assert len(paths(tmp_path / "cache")) == 7
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_killed_by_an_outsider_costs_no_image(tmp_path, notes, workers):
    image_folder(tmp_path / "photos")
    spoil(tmp_path / "photos" / "cat" / "002.png", "KILL")

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=workers, decoder=EVIL)

    assert (notes / "killed").exists()
    assert report.failures == []
    assert report.samples == {"train": 8}
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_an_outsider_costs_not_even_an_image_that_is_alone_in_its_job(tmp_path, notes):
    """That it was alone proves nothing: the worker may have been at work before."""
    image_folder(tmp_path / "photos", ("cat",), count=1)
    spoil(tmp_path / "photos" / "cat" / "000.png", "KILL")

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, decoder=EVIL)

    assert (notes / "killed").exists()
    assert (report.samples, report.failures) == ({"train": 1}, [])


def test_files_equal_to_a_poisonous_one_are_each_listed(tmp_path, notes):
    """Across jobs too: with shards of four, ten files are three jobs."""
    image_folder(tmp_path / "photos")
    spoil(tmp_path / "photos" / "cat" / "000.png", "SEGV")
    for name in ("cat/same.png", "dog/same.png"):
        (tmp_path / "photos" / name).write_bytes((tmp_path / "photos" / "cat" / "000.png").read_bytes())

    build(
        tmp_path / "photos", tmp_path / "cache", TINY, workers=2, decoder=EVIL, shard_mib=SHARDS_OF_FOUR, max_failures=3
    )

    assert sorted(failures(tmp_path / "cache")) == ["cat/000.png", "cat/same.png", "dog/same.png"]
    assert len(paths(tmp_path / "cache")) == 7
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_an_equal_file_waits_for_the_one_that_is_on_its_way(tmp_path, notes):
    """The worker that renders one of two equal files is killed by an outsider: the image is rendered all the same."""
    image_folder(tmp_path / "photos")
    spoil(tmp_path / "photos" / "cat" / "000.png", "KILL")
    (tmp_path / "photos" / "dog" / "same.png").write_bytes((tmp_path / "photos" / "cat" / "000.png").read_bytes())

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=2, decoder=EVIL, shard_mib=SHARDS_OF_FOUR)

    assert report.failures == []
    assert report.samples == {"train": 9}
    assert report.rendered == 8
    assert_as_rendered(tmp_path / "cache", tmp_path / "photos")


def test_a_known_poison_is_not_tried_again(tmp_path, notes):
    image_folder(tmp_path / "photos")
    spoil(tmp_path / "photos" / "cat" / "001.png", "SEGV")
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, decoder=EVIL)
    decoders.noted().unlink()

    report = build(tmp_path / "photos", tmp_path / "cache", workers=1, decoder=EVIL)

    assert report.up_to_date
    assert not decoders.noted().exists()
    assert list(failures(tmp_path / "cache")) == ["cat/001.png"]


def test_workers_that_cannot_import_end_the_build_with_their_last_words(tmp_path, monkeypatch):
    """The builder finds the decoder, its workers do not."""
    image_folder(tmp_path / "photos", count=1)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "only_here.py").write_text("from preprocess.decode import decode\n")
    monkeypatch.syspath_prepend(tmp_path / "here")
    started = time.monotonic()

    with pytest.raises(WorkerError, match="No module named 'only_here'") as caught:
        build(tmp_path / "photos", tmp_path / "cache", TINY, workers=2, decoder="only_here:decode")

    assert time.monotonic() - started < 20
    assert "before their first image" in str(caught.value)


def test_workers_without_a_working_python_end_the_build(tmp_path, monkeypatch):
    image_folder(tmp_path / "photos", count=1)
    monkeypatch.setenv("PYTHONHOME", str(tmp_path / "nowhere"))

    with pytest.raises(WorkerError, match="encodings|prefix|init_fs_encoding"):
        build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)


def test_workers_that_hang_at_their_start_end_the_build(tmp_path, monkeypatch):
    """As when the environment lies on a network folder that went away."""
    image_folder(tmp_path / "photos", count=1)
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "hanging.py").write_text(
        "import os, time\n"
        "from preprocess.decode import decode\n"
        f"if os.getpid() != {os.getpid()}:\n"
        "    time.sleep(3600)\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    monkeypatch.setattr("preprocess.pipeline._START_S", 0.5)

    def give_up(*_):
        raise TimeoutError("the build waits for ever")

    former = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(20)
    try:
        with pytest.raises(WorkerError, match="start|first image"):
            build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, stall_s=2, decoder="hanging:decode")
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def test_workers_import_neither_torch_nor_zarr(tmp_path, notes):
    """They cost 2 s and half a gigabyte each."""
    image_folder(tmp_path / "photos", count=1)

    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1, decoder="tests.decoders:modules")

    lists = {path.name: path.read_text().split("\n") for path in notes.glob("modules-*")}
    del lists[f"modules-{os.getpid()}"]  # the builder itself, which takes the probe
    ((_, imported),) = lists.items()
    assert "preprocess.worker" in imported
    assert "albumentations" in imported
    assert {"zarr", "torchvision", "pydantic", "click", "rich"} & set(imported) <= {"pydantic"}  # albumentations' own
    assert not any(name.startswith(("torch.", "zarr.")) for name in imported)
