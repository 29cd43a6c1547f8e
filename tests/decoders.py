"""Decoders that misbehave on purpose, given to `build(decoder=…)` by import path; they run in the worker processes.

What to do is written at the end of the file that is decoded: image formats ignore bytes behind their end. Notes go into
the folder that the environment variable FOLDER names.
"""

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from preprocess.decode import Decoded
from preprocess.decode import decode as decode_well
from preprocess.pictures import PICTURES

FOLDER = "DECANT_TEST_FOLDER"
SLEEP_S = "DECANT_TEST_SLEEP_S"
OUTLIVES = "DECANT_TEST_OUTLIVES"
"""Set: a worker does not die with its builder, as on systems that cannot have it so."""


def noted() -> Path:
    """The file with one line for each image that a decoder here was given."""
    return Path(os.environ[FOLDER]) / "decoded"


def decode(data: bytes, **settings: Any) -> Decoded:
    """Note the call, do what the last bytes say, then decode."""
    if data not in PICTURES:
        if os.environ.get(OUTLIVES):
            ctypes.CDLL(None).prctl(1, 0)  # PR_SET_PDEATHSIG: none
        with open(noted(), "ab") as file:
            file.write(b"%d %d\n" % (os.getpid(), len(data)))
        time.sleep(float(os.environ.get(SLEEP_S, "0")))
        _ACTIONS.get(data[-4:], _nothing)()
    return decode_well(data, **settings)


def of_old(data: bytes, *, channels: str, max_pixels: int, reduce_to: tuple[int, int] | None) -> Decoded:
    """Decode as before there were keys for odd images: the high byte of all, the first page, the colours."""
    options: dict[str, Any] = {"levels": "high-byte", "extra_channels": "drop", "pages": "first"}
    return decode_well(data, channels=channels, max_pixels=max_pixels, reduce_to=reduce_to, **options)


def modules(data: bytes, **settings: Any) -> Decoded:
    """Note what the process has imported."""
    (Path(os.environ[FOLDER]) / f"modules-{os.getpid()}").write_text("\n".join(sorted(sys.modules)))
    return decode_well(data, **settings)


def formerly(data: bytes, **settings: Any) -> Decoded:
    """As the first version read every file."""
    return decode_well(data, reader="opencv", **settings)


def _nothing() -> None: ...


def _segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _exit() -> None:
    os._exit(3)


def _hang() -> None:
    time.sleep(3600)


def _killed_once() -> None:
    """As the OOM killer does it: once, and through no fault of the image."""
    with contextlib.suppress(FileExistsError):
        (Path(os.environ[FOLDER]) / "killed").touch(exist_ok=False)
        os.kill(os.getpid(), signal.SIGKILL)


def _lose_gpu() -> None:
    """As CUDA does after an illegal access: it tells whoever waits for a copy, and all that comes later."""
    from preprocess.torch_engine import renderer, staging

    def fail(*_: Any) -> Any:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`")

    staging.Staged.arrays = fail
    renderer.is_lost = lambda device: True


def _edit_victim() -> None:
    """Change another source while the job runs."""
    victim = Path(os.environ[FOLDER]) / "victim"
    with open(victim.read_text(), "ab") as file:
        file.write(b"edited")


def _fill_disk() -> None:
    """Leave no room on the file system that `disk` names."""
    target = Path((Path(os.environ[FOLDER]) / "disk").read_text()) / "filler"
    with open(target, "ab", buffering=0) as file, contextlib.suppress(OSError):
        for size in (65536, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size):
                    pass


_ACTIONS = {
    b"SEGV": _segfault,
    b"EXIT": _exit,
    b"HANG": _hang,
    b"KILL": _killed_once,
    b"LOST": _lose_gpu,
    b"EDIT": _edit_victim,
    b"FULL": _fill_disk,
}
