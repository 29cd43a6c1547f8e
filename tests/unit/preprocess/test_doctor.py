"""Doctor says what is installed, what can be decoded, and what is wrong."""

import errno
import fcntl
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import pytest
import torch

from preprocess import augment, environment
from preprocess.builder import build
from preprocess.decode import decoder_table
from preprocess.doctor import doctor as diagnosis
from preprocess.errors import UsageError
from preprocess.torch_engine import nvjpeg
from tests.helpers import TINY, image_folder
from tests.integration.checks import contents


def doctor(*cache) -> tuple[str, bool]:
    """What is printed, and whether all is well."""
    found = diagnosis(*cache)
    assert problems_in(str(found)) == found.problems
    return str(found), found.exit_code == 0


def problems_in(text: str) -> list[str]:
    return [line.removeprefix("PROBLEM").strip() for line in text.splitlines() if line.startswith("PROBLEM")]


@pytest.fixture
def without(monkeypatch):
    """Hide the metadata of packages."""

    def hide(*names: str) -> None:
        real = importlib.metadata.version

        def version(name: str) -> str:
            if name in names:
                raise importlib.metadata.PackageNotFoundError(name)
            return real(name)

        monkeypatch.setattr("preprocess.doctor.version", version)

    return hide


def test_a_sound_installation_is_healthy():
    text, healthy = doctor()
    assert healthy
    assert problems_in(text) == []
    lines = text.splitlines()
    assert lines[-1] == "all is well"
    assert lines[0] == f"python      {sys.version.split()[0]} ({sys.executable})"
    for name in ("torch", "torchvision", "albumentations", "numpy", "zarr", "google-crc32c", "pydantic", "click"):
        assert f"{name:<11} {importlib.metadata.version(name)}" in lines
    assert f"opencv      {cv2.__version__}" in lines


def test_the_table_of_decoders_is_there():
    lines = doctor()[0].splitlines()
    start = lines.index("decoders") + 1
    table = decoder_table()
    assert len(table) > 10
    for line, (name, able, note) in zip(lines[start:], table, strict=False):
        assert line.split(None, 1)[0] == name.split()[0]
        assert line == f"  {name:<16} {'yes' if able else 'no ':<4} {note}".rstrip()
    assert any(line.startswith("  JPEG             yes") for line in lines)


def test_a_missing_package_is_a_problem(without):
    without("zarr", "click")
    text, healthy = doctor()
    assert not healthy
    assert problems_in(text) == [
        "zarr is not installed; run: pip install decant-cache",
        "click is not installed; run: pip install decant-cache",
    ]
    assert "zarr        not installed" in text.splitlines()
    assert "all is well" not in text


def test_doubts_about_the_environment_are_problems(monkeypatch):
    monkeypatch.setattr(environment, "doubts", lambda: ["two wheels"])
    text, healthy = doctor()
    assert not healthy
    assert problems_in(text) == ["two wheels"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UsageError("albumentationsx is installed"), "albumentationsx is installed"),
        (ImportError("no module"), "albumentations cannot be imported: no module"),
    ],
)
def test_a_library_that_cannot_be_used_is_a_problem(monkeypatch, error, said):
    def fail(**_):
        raise error

    monkeypatch.setattr(augment, "library", fail)
    text, healthy = doctor()
    assert not healthy
    assert problems_in(text) == [said]


def test_a_missing_opencv_is_a_problem_and_not_a_traceback(monkeypatch):
    monkeypatch.setitem(sys.modules, "preprocess.decode", None)
    text, healthy = doctor()
    assert not healthy
    (problem,) = problems_in(text)
    assert problem.startswith("OpenCV cannot be imported: ")
    assert problem.endswith("run: pip install --force-reinstall opencv-python-headless")


# The GPU


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(environment, "gpu", lambda: "NVIDIA H200")


def test_without_a_gpu_it_says_what_renders(monkeypatch):
    monkeypatch.setattr(environment, "gpu", lambda: None)
    text, healthy = doctor()
    assert healthy
    assert "gpu         none: images are rendered by OpenCV and Albumentations on the CPU" in text.splitlines()


def test_a_gpu_is_named_with_what_decodes_on_it(gpu, monkeypatch):
    asked = []
    monkeypatch.setattr(nvjpeg, "named_library", lambda device: (asked.append(device), ("torchcodec", None))[1])
    text, healthy = doctor()
    assert healthy
    assert "gpu         NVIDIA H200, nvJPEG from torchcodec" in text.splitlines()
    assert asked == [torch.device("cuda")]


def test_a_gpu_without_a_jpeg_decoder_is_a_problem(gpu, monkeypatch):
    def broken(device, channels):
        raise RuntimeError("built without nvJPEG")

    for name in ("_torchvision", "_torchcodec"):
        monkeypatch.setattr(nvjpeg, name, broken)
    text, healthy = doctor()
    assert not healthy
    (problem,) = problems_in(text)
    assert problem.startswith("no JPEG decoder for cuda: ")
    assert "torchvision: built without nvJPEG" in problem
    assert problem.endswith("or build with --device cpu")


def test_a_torch_that_cannot_be_imported_is_a_problem(monkeypatch):
    def fail():
        raise ImportError("libcudart.so: no such file")

    monkeypatch.setattr(environment, "gpu", fail)
    text, healthy = doctor()
    assert not healthy
    assert problems_in(text) == ["torch cannot be imported: libcudart.so: no such file"]


def test_torch_is_not_imported_where_there_is_no_driver():
    code = (
        "import sys; from preprocess import doctor, environment\n"
        "environment._DRIVER_FILES = ('/nowhere',)\n"
        "assert 'gpu         none' in str(doctor.doctor()) and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[3])


# A cache and what it lies on


def test_a_cache_is_opened_and_counted(tmp_path):
    cache = tmp_path / "cache"
    build(image_folder(tmp_path / "photos", count=2), cache, TINY, workers=1)
    before = contents(cache)
    text, healthy = doctor(cache)
    assert healthy
    assert "cache       snapshot 000001: train 4" in text.splitlines()
    assert any(re.fullmatch(r"free disk   [\d.]+ \w+, [\d,]+ more files", line) for line in text.splitlines())
    assert "            rename, flock, mmap, fsync_file, fsync_folder work" in text.splitlines()
    assert f"tried in {cache}" in text
    assert contents(cache) == before
    (Path(cache) / "zarr.json").write_text("{}")
    assert not doctor(str(cache))[1]


def test_where_a_cache_is_to_be_is_tried_as_well(tmp_path):
    text, healthy = doctor(tmp_path / "new folder" / "größer")
    assert healthy
    assert "cache       none there yet" in text.splitlines()
    assert text.splitlines()[-4].endswith(f"tried in {tmp_path}")
    assert list(tmp_path.iterdir()) == []
    assert doctor(tmp_path)[1]  # an empty folder


@pytest.mark.parametrize(
    "make", [Path.mkdir, lambda path: path.symlink_to("nowhere"), lambda path: path.write_text("")]
)
def test_what_is_there_and_no_cache_is_a_problem(tmp_path, make):
    make(tmp_path / "other")
    if (tmp_path / "other").is_dir():
        (tmp_path / "other" / "file").write_text("")
    text, healthy = doctor(tmp_path / "other")
    assert not healthy
    assert len(problems_in(text)) == 1
    assert f"{str(tmp_path / 'other')!r}" in problems_in(text)[0]


def test_what_fails_on_the_file_system_is_a_problem(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    text, healthy = doctor(tmp_path / "cache")
    assert not healthy
    (problem,) = problems_in(text)
    assert problem.startswith(
        f"locks between processes (flock) do not work: No locks available, in {str(tmp_path)!r}; two builders could"
    )
    assert "            rename, mmap, fsync_file, fsync_folder work" in text.splitlines()


def test_a_read_only_folder_is_named_and_a_problem_only_where_a_cache_is_to_be_built(tmp_path, monkeypatch):
    build(image_folder(tmp_path / "photos", count=2), tmp_path / "cache", TINY, workers=1)

    def mkdtemp(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)
    text, healthy = doctor(tmp_path / "new")
    assert not healthy
    assert problems_in(text) == [
        f"no cache can be built in {str(tmp_path)!r}: Read-only file system; name another folder"
    ]
    text, healthy = doctor(tmp_path / "cache")  # it can be trained from
    assert healthy
    assert "            nothing can be written there: Read-only file system" in text.splitlines()


def test_a_small_shared_memory_is_measured_by_the_tensors_of_the_cache(tmp_path, monkeypatch):
    build(image_folder(tmp_path / "photos", count=2), tmp_path / "cache", TINY, workers=1)
    monkeypatch.setattr(environment, "shared_memory_bytes", lambda: 64 << 20)
    text, healthy = doctor()
    assert not healthy
    (problem,) = problems_in(text)
    assert problem.startswith("/dev/shm has 64.0 MiB free; one worker of a DataLoader keeps 3 batches there, of 256 ")
    assert "220.5 MiB in float16 and 441.0 MiB in float32" in problem
    assert "/dev/shm    64.0 MiB free" in text.splitlines()
    assert doctor(tmp_path / "cache")[1]  # 3x8x8 need little


def test_a_module_that_hides_ours_is_a_problem(tmp_path, monkeypatch):
    (tmp_path / "loaders.py").write_text("")
    monkeypatch.chdir(tmp_path)
    text, healthy = doctor()
    assert not healthy
    assert "hides decant's package 'loaders'" in problems_in(text)[0]


def test_as_json():
    found = json.loads(diagnosis().to_json())
    assert found["packages"]["zarr"] == importlib.metadata.version("zarr")
    assert {"format": "JPEG", "able": True, "note": ""} in found["decoders"]
    assert (found["cache"], found["file_system"], found["problems"]) == (None, None, [])
