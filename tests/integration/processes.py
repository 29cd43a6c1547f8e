"""Builds in processes of their own, to be stopped in the middle."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import decoders

ROOT = Path(__file__).resolve().parents[2]
DECANT = str(Path(sys.executable).with_name("decant"))

_DECANT = """
import functools, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # it is ignored where tests run in the background
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and this one under nohup
from preprocess import builder, cli
builder.build = functools.partial(builder.build, decoder="tests.decoders:decode")
sys.argv[0] = "decant"
cli.main()
"""


@contextmanager
def slow_build(
    source: Path, cache: Path, recipe: dict[str, object], *options: str, sleep_s: float
) -> Iterator["subprocess.Popen[str]"]:
    """`decant build` in a process group of its own, each image taking `sleep_s`; killed when the block ends.

    The notes of `tests.decoders` go where this process's environment says.
    """
    file = cache.parent / f"{cache.name}.recipe.yaml"
    file.write_text(json.dumps(recipe))
    process = subprocess.Popen(
        [sys.executable, "-c", _DECANT, "build", source, cache, "--recipe", file, *options],
        cwd=ROOT,
        env=os.environ | {decoders.SLEEP_S: str(sleep_s)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def decoded() -> int:
    """Images that were given to a decoder so far."""
    return len(decoders.noted().read_bytes().splitlines()) if decoders.noted().exists() else 0


def wait_until(
    true: Callable[[], object], timeout_s: float = 20, process: "subprocess.Popen[str] | None" = None
) -> None:
    """Wait for a condition, as long as `process` runs."""
    ends = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < ends, "waited in vain"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)


def children(pid: int) -> list[int]:
    """Processes that `pid` has started."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal() and _stat(int(entry.name))[1:2] == [str(pid)]:
            found.append(int(entry.name))
    return found


def running(pid: int) -> bool:
    """Whether a process is alive; one that is dead but not yet buried is not."""
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def _stat(pid: int) -> list[str]:
    """State, parent, … of a process; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def stop_and_wait(process: "subprocess.Popen[str]", number: int, *, group: bool) -> tuple[float, str]:
    """Send a signal; seconds until the process has ended, and its stderr."""
    began = time.monotonic()
    if group:
        os.killpg(process.pid, number)
    else:
        os.kill(process.pid, number)
    _, errors = process.communicate(timeout=20)
    return time.monotonic() - began, errors


__all__ = ["ROOT", "children", "decoded", "running", "signal", "slow_build", "stop_and_wait", "wait_until"]
