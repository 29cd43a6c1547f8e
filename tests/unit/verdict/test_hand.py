"""The measuring process: what goes wrong in it costs one figure."""

import os
import signal

import pytest

from preprocess.verdict.hand import Hand, Unmeasured
from tests.integration.processes import running

MODEL = {"shape": (3, 8, 8), "classes": 2, "batch": 2, "seconds": 0.01}


def test_a_request_that_fails_and_a_process_that_dies_are_survived(tmp_path):
    with Hand(tmp_path) as hand:
        with pytest.raises(Unmeasured, match="no such cache|does not exist"):
            hand.ask("warm_rates", 60, part=("/nowhere", "train", 4, 10, 100), seconds=0.1)
        first = hand._process.pid
        assert hand.ask("model_rate", 60, **MODEL)["images_per_s"] > 0

        os.kill(first, signal.SIGSEGV)
        with pytest.raises(Unmeasured, match="ended with signal 11"):
            hand.ask("model_rate", 60, **MODEL)
        assert hand.ask("model_rate", 60, **MODEL)["images_per_s"] > 0

        second = hand._process.pid
        with pytest.raises(Unmeasured, match="no answer for 0 s"):
            hand.ask("model_rate", 0.2, **MODEL | {"seconds": 30})
        assert not running(second)
        assert second != first


def test_a_process_that_cannot_be_started_is_told_when_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.executable", str(tmp_path / "no python"))

    with Hand(tmp_path) as hand, pytest.raises(Unmeasured, match="cannot start a process: No such file"):
        hand.ready()
