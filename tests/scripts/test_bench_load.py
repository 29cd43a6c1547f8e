"""The benchmark of loading runs every section, writes every figure, and notices a wrong value."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

TINY = "--size 32 --samples 40 --small-size 8 --small-samples 40 --batch 16 --rounds 2 --warm 0 --peer-samples 32"
TINY += " --peer-workers 0 --cold-gib 0.0005 --opening-samples 1000"

FIGURES = {
    "limits": {"plain", "workers 1", "workers 2", "workers 4"},
    "small": {"small samples"},
    "uint8": {"uint8", "uint8 bytes"},
    "types": {
        "uint8 to float16",
        "uint8 to float32",
        "uint8 to bfloat16",
        "float16 to float32",
        "float16 to bfloat16",
    },
    "crop": {"crop and flip"},
    "modes": {"pread", "checked before", "first touch", "one-slot shards"},
    "peers": {"over memmap, expert", "over memmap, per sample", "over ImageFolder (decodes)"},
    "cold": {"cold", "cold, shuffled", "cold rate", "cold limit"},
    "opening": {"opening", "opening memory", "empty opening", "empty opening memory"},
    "growth": {"growth"},
}
LIBRARIES = {
    "tensordict",
    "FFCV",
    "MosaicML Streaming",
    "LitData",
    "WebDataset",
    "HF datasets",
    "tensorstore",
    "zarrs",
    "zarr-python",
}
"""Peers that may be missing: measured or skipped, never left out in silence."""


def bench(work: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/bench_load.py", *TINY.split(), "--work", work, "--json", work / "figures.json"]
    return subprocess.run([*command, *options], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One run of all sections, and the folder that it has left."""
    work = tmp_path_factory.mktemp("bench")
    sections = [name for name in FIGURES if name != "cold" or on_a_disk(work)]
    done = bench(work, "--only", *sections)
    assert done.returncode == 0, done.stderr
    return work, done


@pytest.fixture
def stores(whole, tmp_path) -> Path:
    """A copy of its stores, to be damaged."""
    shutil.copytree(whole[0] / "load", tmp_path / "load")
    return tmp_path


def on_a_disk(folder: Path) -> bool:
    kind = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True, check=False)
    return kind.stdout.strip() not in ("tmpfs", "ramfs", "overlayfs")


def flip_first_bit(path: Path) -> None:
    with open(path, "r+b") as file:
        first = file.read(1)[0]
        file.seek(0)
        file.write(bytes([first ^ 1]))


def test_every_section_gives_its_figures(whole):
    work, done = whole

    found = json.loads((work / "figures.json").read_text())

    for section in found["config"]["only"]:
        assert set(found["figures"]) >= FIGURES[section], section
    for name, figure in found["figures"].items():
        assert figure["min"] <= figure["median"] <= figure["max"], name
        assert name in done.stdout
    assert all(len(rates) == 2 for section in found["samples_per_s"].values() for rates in section.values())
    assert found["versions"]["torch"]
    assert found["machine"]["processors"] >= 1
    assert found["commit"]
    assert found["config"]["rounds"] == 2


def test_each_peer_is_measured_or_skipped_by_name(whole):
    work, done = whole

    found = json.loads((work / "figures.json").read_text())

    measured = {name.removeprefix("over ") for name in found["figures"]}
    assert measured | set(found["skipped"]) >= LIBRARIES
    assert not measured & set(found["skipped"])
    for name, why in found["skipped"].items():
        assert f"skipped  {name}: {why}" in done.stdout


@pytest.mark.parametrize("section", ["small", "uint8", "crop"])
def test_a_wrong_value_ends_it(stores, section):
    for shard in stores.glob("load/*/tensors/*/image/c.0.0.0.0"):
        flip_first_bit(shard)

    done = bench(stores, "--only", section)

    assert done.returncode == 1
    assert "the image of sample 0 is not what was stored" in done.stderr
    assert not (stores / "figures.json").exists()


def test_a_peer_that_fails_or_lies_is_named_and_the_rest_goes_on(stores):
    (store,) = stores.glob("load/peers/Memmap-*/images")
    flip_first_bit(store)
    (store,) = stores.glob("load/peers/ExpertMemmap-*/images")
    os.truncate(store, 100)

    done = bench(stores, "--only", "peers", "--peers", "memmap, expert", "memmap, per sample", "ImageFolder (decodes)")

    assert done.returncode == 0, done.stderr
    found = json.loads((stores / "figures.json").read_text())
    assert set(found["figures"]) == {"over ImageFolder (decodes)"}
    assert "image of sample 0" in found["skipped"]["memmap, per sample"]
    assert "memmap, expert" in found["skipped"]
