"""The GPU's benchmark runs on the CPU, small, and makes no figure up."""

import json
import subprocess
import sys
from pathlib import Path

from tests.helpers import write_image

ROOT = Path(__file__).parents[2]


def test_ten_images_on_the_cpu(tmp_path):
    for number in range(5):
        for split in ("train", "val"):
            write_image(tmp_path / "photos" / split / "cat" / f"{split}{number}.jpg", number, 300, 400)
    command = [sys.executable, ROOT / "scripts" / "bench_gpu.py", "--photos", tmp_path / "photos", "--work"]
    command += [tmp_path / "work", "--images", "10", "--variants", "1", "2", "--device", "cpu"]
    command += ["--json", tmp_path / "figures.json"]

    finished = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)

    figures = json.loads((tmp_path / "figures.json").read_text())
    for name in ("nvjpeg_images_per_s", "link_gb_per_s", "nvjpeg_against_opencv", "to_device_share_of_link"):
        assert figures[name] == "not run: no CUDA"
    assert [build["engine"] for build in figures["builds"]] == ["opencv+torch"] * 2
    for build in figures["builds"]:
        assert build["gpu"] == "not run: no CUDA"
        assert set(build["share_of_limit"]) == {"render", "disk"}
        smallest = build["smallest_limit"]
        share = build["images_per_s"] / build["limits_images_per_s"][smallest]
        assert build["share_of_limit"][smallest] == share == max(build["share_of_limit"].values())
        assert build["cpu_engine_images_per_s"] > 0
    assert "K=2: " in finished.stdout
