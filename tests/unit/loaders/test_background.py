"""A script may leave in the middle of an epoch: threads that work ahead do not take the process along."""

import os
import subprocess
import sys
import time

import pytest

from tests.integration.processes import ROOT

IN_TORCH = """
import sys, torch
from loaders import to_device

def batches():
    while True:
        yield torch.ones(1)
        for _ in range(100):  # half a second, nearly all of it in torch
            weights @ weights

weights = torch.ones(500, 500)
under_way = iter(to_device(batches(), "cpu"))
next(under_way)
"""

STUCK = """
import threading, torch
from loaders import background, to_device

background._PATIENCE_S = 0.2

def batches():
    yield torch.ones(1)
    threading.Event().wait()

under_way = iter(to_device(batches(), "cpu"))
next(under_way)
"""

FORKED = """
import os, sys, threading
from loaders.background import Background

class Owner:
    def __init__(self):
        self.over = threading.Event()
        self.thread = Background("test", self.over.wait, self.stop)

    def stop(self):
        print("stopped", os.getpid() == parent, flush=True)
        self.over.set()

parent, owner = os.getpid(), Owner()
if child := os.fork():
    os.waitpid(child, 0)
"""


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("end", "code", "last_words"), [("sys.exit()", 0, ""), ("1 / 0", 1, "ZeroDivisionError: division by zero\n")]
)
def test_a_script_that_leaves_in_the_middle_of_an_epoch_ends_as_it_means_to(end, code, last_words):
    done = run(IN_TORCH + end)

    assert done.returncode == code, done.stderr
    assert done.stderr.endswith(last_words)
    assert "terminate" not in done.stderr


def test_a_loader_that_is_stuck_does_not_keep_python_from_ending():
    began = time.monotonic()
    done = run(STUCK)

    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 30


def test_a_forked_child_has_no_threads_to_end():
    done = run(FORKED)

    assert (done.returncode, done.stdout) == (0, "stopped True\n")
