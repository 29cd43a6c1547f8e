"""What renders here: versions, processor, and installations that get in each other's way."""

import contextlib
import os
import platform
import sys
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
"""Any of them is there where a CUDA device may be; the last one in WSL2."""

_PACKAGES = ("preprocess", "cache_store", "loaders")

_SHARED_MEMORY = "/dev/shm"
_BATCH_SIZE = 256
_BATCHES = 3
"""Two that a worker has made ahead (prefetch_factor) and the one that is trained on."""
_MIB = 1 << 20

OPENCV_WHEELS = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)


def versions(engine: str = "opencv") -> dict[str, str]:
    """Versions of what renders with an engine, and the processors; recorded, and named when pixels would differ."""
    import cv2

    names = ["albumentations", "albucore", "numpy", "zarr", "decant-cache"]
    if "torch" in engine:
        names += ["torch", "torchvision"]
    found = {"opencv": cv2.__version__} | {name: _version(name) or "not installed" for name in names} | {"cpu": _cpu()}
    return found | ({"gpu": gpu() or "none"} if "nvjpeg" in engine else {})


def gpu() -> str | None:
    """Name of the CUDA device that torch uses; None if there is none. Asked only if there is a driver: importing torch
    takes seconds."""
    if not any(map(os.path.exists, _DRIVER_FILES)):
        return None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def gpus() -> int:
    """How many CUDA devices there are, as far as `gpu` finds any."""
    if gpu() is None:
        return 0
    import torch

    return int(torch.cuda.device_count())


def doubts() -> list[str]:
    """What is wrong with this installation without stopping a build, a line each."""
    wheels = [name for name in OPENCV_WHEELS if _version(name)]
    if len(wheels) < 2:
        return []
    names = f"{', '.join(wheels[:-1])} and {wheels[-1]}"
    return [
        f"{names} are {'both ' * (len(wheels) == 2)}installed and write the same cv2 folder: which one runs is chance; "
        f"run: pip uninstall -y {' '.join(wheels)} && pip install opencv-python-headless"
    ]


def hiding() -> list[str]:
    """Modules that hide a package of ours from the scripts of a user, a line each: in the current folder, where
    scripts may lie, and along PYTHONPATH."""
    along = [os.path.realpath(folder) for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    places = {Path(folder): "every script: PYTHONPATH names that folder" for folder in reversed(along)}
    with contextlib.suppress(OSError):  # a folder that was removed meanwhile
        places = {Path.cwd(): "scripts in that folder"} | places
    found = []
    for folder, scripts in places.items():
        for name in _PACKAGES:
            theirs = PathFinder.find_spec(name, [str(folder)])
            if theirs is None or theirs.origin is None:  # a folder without __init__.py hides nothing
                continue
            if not os.path.samefile(theirs.origin, Path(__file__).parents[1] / name / "__init__.py"):
                found.append(
                    f"{theirs.origin!r} hides decant's package {name!r} from {scripts}; rename it, or keep it elsewhere"
                )
    return found


def shared_memory_bytes() -> int | None:
    """What is free in /dev/shm, through which a DataLoader's workers send their batches; None if there is none."""
    try:
        space = os.statvfs(_SHARED_MEMORY)
    except OSError:
        return None
    return space.f_bavail * space.f_frsize


def too_little_shared_memory(free_bytes: int | None, values: int) -> str | None:
    """Why workers of a DataLoader would die, if they would.

    Parameters
    ----------
    free_bytes : in /dev/shm; None if there is none
    values : of a tensor
    """
    needed = _BATCHES * _BATCH_SIZE * values * 2
    if free_bytes is None or free_bytes >= needed:
        return None
    return (
        f"{_SHARED_MEMORY} has {free_bytes / _MIB:.1f} MiB free; one worker of a DataLoader keeps {_BATCHES} batches "
        f"there, of {_BATCH_SIZE} tensors {needed / _MIB:.1f} MiB in float16 and {2 * needed / _MIB:.1f} MiB in "
        "float32: leave num_workers at 0, which needs none, or start docker with --shm-size=2g"
    )


def _version(name: str) -> str | None:
    return _version_along(name, tuple(sys.path))


@cache
def _version_along(name: str, search_path: tuple[str, ...]) -> str | None:
    """A version as it was when first asked for: what is imported stays, whatever is installed over it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


@cache
def _cpu() -> str:
    features: set[str] = set()
    try:
        with open("/proc/cpuinfo") as lines:
            for line in lines:
                if line.startswith(("flags", "Features")):
                    features = set(line.split(":", 1)[1].split())
                    break
    except OSError:
        pass
    wanted = [name for name in ("sse4_2", "avx2", "avx512f", "asimd") if name in features]
    return " ".join([platform.machine(), *wanted])
