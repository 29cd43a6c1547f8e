"""A small part of the demo, drawn and built once; and how an example is run."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from preprocess import build

ROOT = Path(__file__).parents[2]
PER_CLASS = {"train": 10, "val": 4}
LONGEST = 400  # pixels: larger pictures of the demo are left out, for time

RECIPE = {
    "size": 32,
    "splits": {
        "train": {
            "variants": 2,
            "transforms": [
                {"RandomResizedCrop": {"size": [32, 32], "scale": [0.35, 1.0]}},
                {"HorizontalFlip": {"p": 0.5}},
            ],
        },
        "val": {"transforms": [{"Resize": {"height": 32, "width": 32}}]},
    },
}


def draw(folder: Path) -> Path:
    """The first pictures of each class of the demo that are not large or odd."""
    spec = importlib.util.spec_from_file_location("make_demo", ROOT / "scripts" / "make_demo.py")
    assert spec is not None
    assert spec.loader is not None
    make_demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_demo)
    left = {(split, name): count for split, count in PER_CLASS.items() for name in make_demo.CLASSES}
    for picture in make_demo.plan():
        key = (picture.path.split("/")[0], picture.label)
        if left[key] and not picture.odd and max(picture.width, picture.height) <= LONGEST:
            left[key] -= 1
            path = folder / picture.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make_demo.encode(picture))
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw(tmp_path_factory.mktemp("examples") / "my photos é")


@pytest.fixture(scope="session")
def cache(photos: Path) -> Path:
    folder = photos.with_name("my cache é")
    report = build(photos, folder, RECIPE, workers=1)
    assert report.variants == {"train": 2, "val": 1}
    return folder


def run(*command: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """`python` and what is given, in the checkout."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
