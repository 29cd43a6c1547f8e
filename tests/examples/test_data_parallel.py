"""One process, large batches in parts."""

import re

from tests.examples.conftest import run


def test_large_batches_are_trained_on_in_parts(cache):
    done = run("examples/data_parallel.py", cache, "--epochs", "4", "--batch-size", "20", "--parts", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 batches of 20, each in 2 parts")
    losses = [float(found) for found in re.findall(r"loss of the last batch (\d\.\d+)", done.stdout)]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
