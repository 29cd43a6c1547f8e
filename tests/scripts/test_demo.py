"""The demo: what it leaves, what it says, and that its comparison is of equals."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a demo é") / "demo"
    command = [sys.executable, ROOT / "scripts" / "demo.py", folder, "--epochs", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, check=False, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


def test_it_shows_each_command_and_leaves_a_report(demo):
    folder, said = demo
    commands = re.findall(r"^\$ (?:\.venv/bin/)?(?:python )?(\S+)", said, re.MULTILINE)
    assert commands == ["scripts/make_demo.py", "decant", "decant", "examples/train.py"]
    assert "319 x 4 variants" in said
    assert "left out" in said
    assert "<html" in (folder / "report.html").read_text()


def test_it_trains_and_measures_both_ways(demo):
    _, said = demo
    assert re.search(r"^epoch 0  loss \d\.\d+  accuracy on val \d+\.\d%", said, re.MULTILINE)
    speeds = [float(found.replace(",", "")) for found in re.findall(r"num_workers=\d+ +([\d,]+)", said)]
    assert len(speeds) == 3
    assert speeds[2] > speeds[0]


def test_a_step_that_fails_ends_it(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(b"mine")
    command = [sys.executable, ROOT / "scripts" / "demo.py", tmp_path]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "not the whole demo" in done.stderr
    assert "Traceback" not in done.stderr
    assert "decant build" not in done.stdout
