"""Doctor says what is installed, what can be decoded, and what is wrong."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import torch

from preprocess import augment, environment
from preprocess.builder import build
from preprocess.decode import decoder_table
from preprocess.doctor import doctor
from preprocess.errors import UsageError
from preprocess.torch_engine import nvjpeg
from tests.helpers import TINY, image_folder


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
        "text, healthy = doctor.doctor()\n"
        "assert 'gpu         none' in text and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, cwd=Path(__file__).parents[3])


def test_a_cache_that_cannot_be_read_is_a_problem(tmp_path):
    text, healthy = doctor(tmp_path / "none")
    assert not healthy
    (problem,) = problems_in(text)
    assert "does not exist" in problem


def test_a_cache_is_opened_and_counted(tmp_path):
    cache = tmp_path / "cache"
    build(image_folder(tmp_path / "photos", count=2), cache, TINY, workers=1)
    text, healthy = doctor(cache)
    assert healthy
    assert "cache       snapshot 000001: train 4" in text.splitlines()
    assert any(line.startswith("free disk   ") for line in text.splitlines())
    (Path(cache) / "zarr.json").write_text("{}")
    assert not doctor(str(cache))[1]
