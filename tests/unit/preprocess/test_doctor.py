"""Doctor says what is installed, what can be decoded, and what is wrong."""

import importlib.metadata
import sys
from pathlib import Path

import cv2
import pytest

from preprocess import augment, environment
from preprocess.builder import build
from preprocess.decode import decoder_table
from preprocess.doctor import doctor
from preprocess.errors import UsageError
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


def test_without_a_gpu_it_says_what_renders_then(monkeypatch):
    monkeypatch.setattr(environment, "gpu", lambda: None)

    assert "gpu         none: OpenCV and Albumentations on the CPU decode and render" in doctor()[0].splitlines()


def test_a_gpu_is_named_and_one_that_decodes_nothing_is_a_problem(monkeypatch):
    monkeypatch.setattr(environment, "gpu", lambda: "NVIDIA H200")
    monkeypatch.setattr("preprocess.torch_engine.nvjpeg.library", lambda device: None)
    assert "gpu         NVIDIA H200: nvJPEG and torch on the GPU decode and render" in doctor()[0].splitlines()

    def fail(device):
        raise UsageError("no JPEG decoder for cuda")

    monkeypatch.setattr("preprocess.torch_engine.nvjpeg.library", fail)
    text, healthy = doctor()

    assert not healthy
    assert problems_in(text) == ["the GPU cannot be used: no JPEG decoder for cuda"]


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
