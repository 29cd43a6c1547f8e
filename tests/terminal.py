"""Running a command that somebody watches in a terminal."""

import os
import pty
import select
import subprocess
from collections.abc import Sequence
from pathlib import Path


def watched(
    command: Sequence[str | Path], cwd: Path, **environment: str
) -> "tuple[subprocess.CompletedProcess[bytes], bytes]":
    """Run a command whose stderr is a terminal: how it ended, with its stdout, and all that the terminal got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=theirs, env=os.environ | environment)
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 30)[0]:
        try:
            shown += os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    printed, _ = process.communicate(timeout=30)
    return subprocess.CompletedProcess(command, process.returncode, printed), shown
