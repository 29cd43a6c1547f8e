"""The comparison of two trees notices what differs, and says where; what differs from run to run it does not see."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch):
    """A script of scripts/ as a module."""

    def load(name):
        monkeypatch.syspath_prepend(str(SCRIPTS))
        specification = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return module

    return load


SAID = {
    "decant log": {"code": 0, "out": ["* 000001", "two"]},
    "signature": "(size: int = 8)",
    "tables": {"c.0": "77aa"},
}


@pytest.mark.parametrize(
    ("changed", "lines"),
    [
        ({}, []),
        ({"signature": "(size: int = 9)"}, ["signature: old '(size: int = 8)'\n           new '(size: int = 9)'"]),
        ({"tables": {"c.0": "77ab"}}, ["tables > c.0: old '77aa'\n              new '77ab'"]),
        ({"tables": {}}, ["tables > c.0: only in the old tree: '77aa'"]),
        ({"more": 1}, ["more: only in the new tree: 1"]),
        (
            {"decant log": {"code": False, "out": ["* 000001", "two", "three"]}},
            ["decant log > code: old 0\n                   new False", 'decant log > out: + "three"'],
        ),
        ({"decant log": {"code": 0, "out": ["* 000002", "two"]}}, ["decant log > out[0]: old '* 000001'\n"]),
        ({"decant log": None}, ["decant log: old {'code': 0"]),
    ],
)
def test_a_difference_is_noticed_and_placed(script, changed, lines):
    found = script("same_behaviour").differences(SAID, SAID | changed)

    assert len(found) == len(lines)
    assert all(said.startswith(line) for said, line in zip(found, lines))


def test_what_differs_from_run_to_run_is_masked(script, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plain, masked = (getattr(script("behaviour"), name) for name in ("plain", "masked"))

    text = f"'{tmp_path}/a' built at 2026-01-31T12:00:00Z by process 12 in 1,234.5 s, 7 images, seed 3"
    assert plain(text) == "'<here>/a' built at <time> by <id> in <n> s, 7 images, seed 3"
    assert masked([{"seconds": 1.5, "samples": 2}], {"seconds"}) == [{"seconds": "float", "samples": 2}]


def test_modules_of_another_tree_are_refused(tmp_path):
    command = [sys.executable, SCRIPTS / "behaviour.py", "names", tmp_path]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(SCRIPTS.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert f"modules of {tmp_path} expected, found" in done.stderr
