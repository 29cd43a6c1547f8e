"""The block of docs/augmentation.md runs, and its plot and table are there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from preprocess import build
from tests.helpers import image_folder

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "augmentation.md").read_text()


def test_the_block_runs(tmp_path):
    image_folder(tmp_path / "photos" / "train", count=2)
    build(tmp_path / "photos", tmp_path / "photos.cache", {"size": 224}, workers=1)
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0


def test_the_plot_is_there_and_every_contender_is_in_the_table():
    assert (ROOT / "docs" / "images" / "variants.svg").is_file()
    table = TEXT.partition("<!-- bench_variants: begin -->")[2].partition("<!-- bench_variants: end -->")[0]
    for name in ("K = 1", "K = 4", "K = 16", "K = 1 + crop, flip", "K = 4 + crop, flip", "fresh"):
        assert f"| {name} | " in table
