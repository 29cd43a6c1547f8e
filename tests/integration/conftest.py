"""Running `decant` as a user does, and decoders given by name."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import decoders
from tests.integration.processes import DECANT

Decant = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def notes(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder where the decoders of `tests.decoders` leave their notes, in this process and in its workers."""
    folder = tmp_path_factory.mktemp("notes")
    monkeypatch.setenv(decoders.FOLDER, str(folder))
    return folder


@pytest.fixture(scope="session")
def decant() -> Decant:
    """`decant …` in a process of its own; a traceback on stderr fails the test."""

    def run(*arguments: object, code: int = 0, **options: object) -> "subprocess.CompletedProcess[str]":
        command = [
            DECANT,
            *(os.fsdecode(os.fspath(a)) if isinstance(a, os.PathLike) else str(a) for a in arguments),
        ]
        settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 60}
        finished = subprocess.run(command, check=False, **(settings | options))  # type: ignore[call-overload]
        if finished.stderr is not None:
            assert "Traceback" not in finished.stderr, finished.stderr
        assert finished.returncode == code, f"exit code {finished.returncode}\n{finished.stdout}\n{finished.stderr}"
        return finished

    return run
