"""What renders here is named, and installations that get in each other's way are noticed."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest

from preprocess import environment

ROOT = Path(__file__).parents[3]


def install(folder: Path, name: str, version: str = "4.11.0.86") -> None:
    """As far as package metadata go."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


@pytest.fixture
def alone(monkeypatch, tmp_path):
    """An environment where only what a test installs is installed; gives the folder for it."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    return tmp_path


@pytest.mark.parametrize("wheels", [(), *((name,) for name in environment.OPENCV_WHEELS)])
def test_no_or_one_opencv_is_no_doubt(alone, wheels):
    for name in wheels:
        install(alone, name)
    assert environment.doubts() == []


@pytest.mark.parametrize(
    "wheels",
    [("opencv-python-headless", "opencv-python"), ("opencv-python-headless", "opencv-contrib-python-headless")],
)
def test_two_are_named_with_what_mends_it(alone, wheels):
    for name in wheels:
        install(alone, name)
    (doubt,) = environment.doubts()
    assert doubt.startswith(f"{wheels[0]} and {wheels[1]} are both installed and write the same cv2 folder")
    mended = f"pip uninstall -y {wheels[0]} {wheels[1]} && pip install opencv-python-headless"
    assert doubt.endswith(f"run: {mended}")


def test_three_are_all_named(alone):
    for name in environment.OPENCV_WHEELS[:3]:
        install(alone, name)
    (doubt,) = environment.doubts()
    assert "opencv-python-headless, opencv-python and opencv-contrib-python are installed" in doubt
    assert "both" not in doubt


def test_versions_say_what_renders():
    found = environment.versions()
    assert found["opencv"] == cv2.__version__
    for name in ("albumentations", "albucore", "numpy", "zarr", "decant-cache"):
        assert found[name] == importlib.metadata.version(name)
    assert found["cpu"].split()[0] == os.uname().machine


def test_a_missing_package_is_said_to_be_missing(alone):
    assert environment.versions()["albumentations"] == "not installed"


def test_the_processor_is_known_by_what_changes_pixels(monkeypatch, tmp_path):
    (tmp_path / "cpuinfo").write_text("processor: 0\nflags\t\t: fpu avx2 sse4_2 mmx\nflags\t: none\n")
    plain_open = open
    monkeypatch.setattr("builtins.open", lambda path, *a, **k: plain_open(tmp_path / "cpuinfo", *a, **k))
    environment._cpu.cache_clear()
    try:
        assert environment._cpu() == f"{os.uname().machine} sse4_2 avx2"
        environment._cpu.cache_clear()
        (tmp_path / "cpuinfo").unlink()
        assert environment._cpu() == os.uname().machine
    finally:
        environment._cpu.cache_clear()


def test_a_second_opencv_beside_the_real_one_shows_in_doctor_and_is_not_healthy(tmp_path):
    install(tmp_path, "opencv-python")
    code = "from preprocess.doctor import doctor; found = doctor(); print(found); print(not found.problems)"
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert lines[-1] == "False"
    problems = [line for line in lines if line.startswith("PROBLEM")]
    assert any("opencv-python-headless and opencv-python are both installed" in line for line in problems)
    assert "all is well" not in done.stdout


# The GPU


def test_versions_of_torchs_engines_say_torch_and_those_of_the_gpu_which_one(monkeypatch):
    monkeypatch.setattr(environment, "gpu", lambda: "NVIDIA H200")
    torchs = {name: importlib.metadata.version(name) for name in ("torch", "torchvision")}
    plain = environment.versions()
    assert environment.versions("opencv+torch") == plain | torchs
    assert environment.versions("nvjpeg+torch") == plain | torchs | {"gpu": "NVIDIA H200"}


def test_without_a_driver_there_is_no_gpu_and_torch_is_not_asked(monkeypatch):
    monkeypatch.setattr(environment, "_DRIVER_FILES", ("/nowhere",))
    monkeypatch.setitem(sys.modules, "torch", None)
    assert environment.gpu() is None


@pytest.mark.parametrize(("available", "name"), [(True, "NVIDIA H200"), (False, None)])
def test_with_a_driver_torch_knows(monkeypatch, available, name):
    cuda = SimpleNamespace(is_available=lambda: available, get_device_name=lambda: "NVIDIA H200")
    monkeypatch.setattr(environment, "_DRIVER_FILES", ("/nowhere", __file__))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert environment.gpu() == name


@pytest.mark.parametrize(("found", "count"), [("NVIDIA H200", 4), (None, 0)])
def test_gpus_are_counted_where_there_are_any(monkeypatch, found, count):
    monkeypatch.setattr(environment, "gpu", lambda: found)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=SimpleNamespace(device_count=lambda: 4)))
    assert environment.gpus() == count


# Modules of a user's that hide ours


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A current folder, and another along PYTHONPATH."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", f"{os.pathsep}{tmp_path / 'there'}{os.pathsep}{tmp_path / 'none'}")
    return tmp_path


def test_a_file_and_a_package_hide_ours(elsewhere):
    (elsewhere / "here" / "preprocess.py").write_text("")
    (elsewhere / "there" / "loaders").mkdir()
    (elsewhere / "there" / "loaders" / "__init__.py").write_text("")
    here, there = environment.hiding()
    assert here == (
        f"{str(elsewhere / 'here' / 'preprocess.py')!r} hides decant's package 'preprocess' from scripts in that "
        "folder; rename it, or keep it elsewhere"
    )
    assert there.startswith(
        f"{str(elsewhere / 'there' / 'loaders' / '__init__.py')!r} hides decant's package 'loaders'"
    )
    assert "from every script: PYTHONPATH names that folder" in there


def test_what_python_does_not_prefer_hides_nothing(elsewhere):
    (elsewhere / "here" / "loaders").mkdir()  # no __init__.py
    (elsewhere / "here" / "cache_store.txt").write_text("")
    assert environment.hiding() == []


def test_our_own_packages_hide_nothing(monkeypatch):
    root = Path(environment.__file__).parents[1]
    monkeypatch.chdir(root)
    monkeypatch.setenv("PYTHONPATH", str(root))
    assert environment.hiding() == []


# Shared memory


def test_shared_memory_is_enough_or_not():
    values = 3 * 224 * 224
    enough = 3 * 256 * values * 2
    assert environment.too_little_shared_memory(enough, values) is None
    assert environment.too_little_shared_memory(None, values) is None
    lack = environment.too_little_shared_memory(enough - 1, values)
    assert lack.startswith("/dev/shm has 220.5 MiB free; ")
    assert "num_workers at 0" in lack


def test_shared_memory_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_SHARED_MEMORY", str(tmp_path))
    assert environment.shared_memory_bytes() > 0
    monkeypatch.setattr(environment, "_SHARED_MEMORY", str(tmp_path / "none"))
    assert environment.shared_memory_bytes() is None
