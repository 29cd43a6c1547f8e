"""`decant bench`: a verdict from a few images, and nothing left behind, however it ends."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from preprocess import Verdict, appraise, build
from preprocess.clock import STAGES
from preprocess.verdict import appraisal
from tests.helpers import TINY, image_folder
from tests.integration.processes import wait_until

QUICK = ("--steps-per-s", 10, "--seconds", 1, "--batch-size", 4)
DECANT = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where tests run in the background
from preprocess import cli
cli.main()
"""
FIGURES = set(Verdict.__dataclass_fields__)


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """The temporary folder of this test's commands."""
    folder = tmp_path / "temporäry files"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.fixture
def photos(tmp_path) -> Path:
    return image_folder(tmp_path / "my phötos", ["cat", "hünd"], 8)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_verdict_without_a_cache(decant, photos, scratch):
    (photos / "cat" / "bad.jpg").write_bytes(b"no image")

    done = decant("bench", photos, "--set", "size=16", "--set", "splits.train.variants=2", *QUICK, "--json")

    found = json.loads(done.stdout)
    assert set(found) == FIGURES
    assert (found["source"], found["cache"], found["split"]) == (str(photos), None, "train")
    assert (found["images"], found["sampled"], found["samples"], found["variants"]) == (17, 17, 17, 2)
    assert [(f["path"], f["stage"]) for f in found["failures"]] == [("cat/bad.jpg", "decode")]
    assert (found["shape"], found["batch_size"], found["dtype"]) == ([3, 16, 16], 4, "float32")
    way = found["imagefolder"]
    assert way["transforms"] == ["Resize", "CenterCrop", "ToTensor", "Normalize"]
    assert way["images_per_s"] == max(each["images_per_s"] or 0 for each in way["settings"]) > 0
    assert found["cached"]["measured"] == "sample"
    assert min(found["cached"]["warm"], found["cached"]["warm_float16"]) > 0
    assert found["cached"]["cold"] or "stays in memory" in found["cached"]["why"]["cold"]
    assert (found["step"]["seconds"], found["step"]["origin"]) == (0.1, "given")
    full = found["build"]
    assert (full["images"], full["tensors"]) == (17, 34)
    assert (full["bytes_float16"], full["bytes_uint8"]) == (34 * (16 * 16 * 3 * 2 + 4), 34 * (16 * 16 * 3 + 4))
    assert full["seconds"] > 0
    assert full["bound_by"] in (*STAGES, "sync")
    assert 0 < found["waiting"]["warm"] < 1
    assert "ImageFolder with num_workers=0" in done.stderr
    assert os.listdir(scratch) == []


def test_verdict_on_a_cache_leaves_it_as_it_was(decant, photos, tmp_path, scratch):
    build(photos, tmp_path / "the cäche", TINY, workers=1)
    before = contents(tmp_path / "the cäche")

    done = decant("bench", photos, tmp_path / "the cäche", *QUICK)

    assert "the cache, warm" in done.stdout
    assert "3x8x8" in done.stdout  # its own recipe
    assert "Verdict: " in done.stdout
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80  # the first one is the path
    assert contents(tmp_path / "the cäche") == before
    assert sorted(os.listdir(tmp_path)) == ["my phötos", "temporäry files", "the cäche"]
    assert os.listdir(scratch) == []


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["empty"], 2, "holds no image"),
        (["none"], 2, "does not exist"),
        (["photos", "photos/cache"], 2, "lies inside SOURCE"),
        (["photos", "foreign"], 2, "not a decant cache and not empty"),
        (["photos", "--steps-per-s", "0"], 2, "steps_per_s: more than 0 expected"),
        (["photos", "--seconds", "nan"], 2, "seconds: more than 0 expected"),
        (["photos", "--batch-size", "0"], 2, "batch_size: 1 or more expected"),
        (["photos", "--device", "gpu"], 2, "device 'gpu' is unknown"),
        (["photos", "--set", "sizes=3"], 2, "sizes"),
        (["photos", "/proc/decant/cache"], 7, "cannot write '/proc'"),
        (["bad"], 3, "none of 1 images could be used"),
    ],
)
def test_what_cannot_be_meant_ends_as_a_build_does(decant, tmp_path, scratch, arguments, code, says):
    image_folder(tmp_path / "photos", count=1)
    for name in ("empty", "foreign", "bad"):
        (tmp_path / name).mkdir()
    (tmp_path / "foreign" / "file").write_bytes(b"")
    (tmp_path / "bad" / "bad.jpg").write_bytes(b"no image")

    done = decant("bench", *arguments, code=code, cwd=tmp_path)

    assert says in done.stderr
    assert done.stdout == ""
    assert os.listdir(scratch) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_one_leaves_nothing(photos, tmp_path, scratch, number):
    process = subprocess.Popen(
        [sys.executable, "-c", DECANT, "bench", photos, tmp_path / "cache", "--set", "size=16"],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: any((tmp_path / name / "sample").exists() for name in os.listdir(tmp_path)), 60, process)

    process.send_signal(number)
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 130
    assert errors.splitlines()[-1] == "decant: interrupted; the temporary folder is removed"
    assert sorted(os.listdir(tmp_path)) == ["my phötos", "temporäry files"]
    assert os.listdir(scratch) == []


def test_a_failure_after_the_build_leaves_nothing(photos, tmp_path, scratch, monkeypatch):
    seen = []

    def fail(*_: object) -> None:
        seen.extend(os.listdir(tmp_path))
        raise RuntimeError("of ours")

    monkeypatch.setattr(appraisal, "sweep", fail)

    with pytest.raises(RuntimeError, match="of ours"):
        appraise(photos, tmp_path / "cache", TINY, steps_per_s=1.0, seconds=1)

    assert any(name.startswith(".decant-bench-") for name in seen)
    assert sorted(os.listdir(tmp_path)) == ["my phötos", "temporäry files"]
    assert os.listdir(scratch) == []
