"""The folder that a page's blocks run in: images, and the programs of this checkout as a user finds them."""

import os
import shutil
import sys
from pathlib import Path

from tests.docs.pages import ROOT
from tests.helpers import write_image

COUNTS = {"train": 6, "val": 2}
"""Images of each class in each split."""

_PROGRAMS = {
    "python": "",
    "decant": "-c 'from preprocess.cli import main; main()'",
    "torchrun": "-m torch.distributed.run",
}


def furnish(folder: Path) -> dict[str, str]:
    """Make `folder` ready; the environment that its commands run in.

    `photos/{train,val}/{cat,dog}/000.jpg …`, `new.jpg`, and a checkout whose set-up is done: `make cache` works.
    """
    for split, count in COUNTS.items():
        for c, name in enumerate(("cat", "dog")):
            for number in range(count):
                seed = 1000 * len(split) + 100 * c + number
                write_image(folder / "photos" / split / name / f"{number:03d}.jpg", seed, 96, 128)
    write_image(folder / "new.jpg", 99, 96, 128)

    shutil.copy(ROOT / "Makefile", folder)
    for name in ("scripts", "examples"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "scripts" / "setup.sh").write_text("exit 0\n")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, arguments in _PROGRAMS.items():
        (programs / name).write_text(f"#!/bin/sh\nexec '{sys.executable}' {arguments} \"$@\"\n")
        (programs / name).chmod(0o755)
    return os.environ | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",  # so that both streams of a command come in the order in which they were written
        "COLUMNS": "80",
        "LC_ALL": "C.UTF-8",
        "OMP_NUM_THREADS": "2",
        "NO_ALBUMENTATIONS_UPDATE": "1",
    }
