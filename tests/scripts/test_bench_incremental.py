"""The benchmark runs on a few files, checks the builds' answers, and writes its figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_few_files(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "bench_incremental.py", "--work", tmp_path / "work", "--rounds", "1"]
    command += ["--files", "20", "--images", "40", "--verify", "5", "--json", tmp_path / "figures.json"]

    done = subprocess.run(
        command, check=True, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )

    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["nothing_changed"]["build_of_find"]["median"] > 0
    assert (figures["little_changed"]["images"], figures["little_changed"]["changed"]) == (40, 1)
    assert figures["little_changed"]["shards_of_changed"]["median"] > 0
    assert figures["verify"]["verify_of_alone"]["median"] > 0
    assert set(figures["memory"]["growth_a_file_bytes"]) == {"full", "unchanged"}
    assert "a class folder renamed: 0 rendered" in done.stdout
    assert not (tmp_path / "work").exists()
