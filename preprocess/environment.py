"""What renders here: versions, processor, and installations that get in each other's way."""

import os
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version

_DRIVER_FILES = ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg")
"""Any of them is there where a CUDA device may be; the last one in WSL2."""

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
