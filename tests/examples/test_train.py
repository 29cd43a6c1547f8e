"""Plain PyTorch on the demo: in single precision and under autocast."""

import re

import pytest

from tests.examples.conftest import run


@pytest.mark.parametrize("options", [(), ("--autocast",)], ids=["fp32", "autocast"])
def test_a_training_run(cache, options):
    done = run("examples/train.py", cache, "--epochs", "6", "--batch-size", "8", *options)
    assert done.returncode == 0, done.stderr
    losses = [float(found) for found in re.findall(r"^epoch \d  loss (\d\.\d+)  accuracy", done.stdout, re.MULTILINE)]
    assert len(losses) == 6
    assert losses[-1] < losses[0]
    assert "images/s" in done.stdout
