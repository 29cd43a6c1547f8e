"""The benchmark runs on a few drawn pictures, checks what the engines give, and writes its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def bench(*arguments):
    command = [sys.executable, ROOT / "scripts" / "bench_engine.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_few_pictures(tmp_path):
    done = bench("--images", "5", "--rounds", "2", "--only", "RandomCrop,val", "--json", tmp_path / "figures.json")

    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert list(figures["results"]) == ["RandomCrop", "val", "val with decode"]
    for found in figures["results"].values():
        assert found["torch_of_opencv"]["min"] > 0
        assert found["images_a_second"].keys() == {"opencv", "torch"}
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["RandomCrop", "val", "val"]


def test_an_operation_that_is_not_known_is_named():
    done = bench("--only", "Resize,Resizes")
    assert done.returncode == 2
    assert "not known: Resizes" in done.stderr
