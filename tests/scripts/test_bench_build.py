"""The benchmark runs, checks the build's answer, and writes its figures."""

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers import write_image

ROOT = Path(__file__).parents[2]


def test_ten_images(tmp_path):
    for number in range(5):
        for split in ("train", "val"):
            write_image(tmp_path / "photos" / split / "cat" / f"{split}{number}.jpg", number, 300, 400)
    command = [sys.executable, ROOT / "scripts" / "bench_build.py", "--photos", tmp_path / "photos", "--work"]
    command += [tmp_path / "work", "--images", "10", "--rounds", "1", "--json", tmp_path / "figures.json"]

    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)

    figures = json.loads((tmp_path / "figures.json").read_text())
    assert [result["images"] for result in figures["results"]] == [10, 10]
    assert all(result["build_of_B"]["median"] > 0 for result in figures["results"])
    assert set(figures["peak_pss_mb"]) == {"8", "10"}
