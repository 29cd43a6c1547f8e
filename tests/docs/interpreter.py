"""One interpreter for all Python blocks of a page: names live on from block to block.

Run as a script it is the interpreter itself: a line of JSON comes in for each block, and one goes out when it has run.
"""

import json
import linecache
import os
import select
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType


class Interpreter:
    """A child process that runs blocks one after the other, started with the first one."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder, self._environment = folder, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._output = folder.with_name(folder.name + ".output")
        self._answers = -1

    def __enter__(self) -> "Interpreter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            os.close(self._answers)

    def run(self, code: str, name: str, line: int, timeout_s: float) -> str | None:
        """Run a block that starts at `line` of the page `name`; what it printed if it failed, else None."""
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        task = {"code": "\n" * (line - 1) + code, "name": name}
        before = self._output.stat().st_size
        self._process.stdin.write(json.dumps(task).encode() + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._answers], [], [], timeout_s)
        if ready and os.read(self._answers, 1) == b"1":
            return None
        ended = "" if ready else f"\n[not done after {timeout_s:g} s]"
        return self._output.read_bytes()[before:].decode("utf-8", "replace") + ended

    def _start(self) -> None:
        self._answers, theirs = os.pipe()
        with open(self._output, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs)],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[theirs],
            )
        os.close(theirs)


def _serve(answers: int) -> None:
    main = sys.modules["__main__"].__dict__
    tasks, sys.stdin = sys.stdin, open(os.devnull)  # noqa: SIM115
    sys.path[0] = ""  # as in `python` itself: the page's folder, not that of this file
    for line in tasks:
        task = json.loads(line)
        linecache.cache[task["name"]] = (0, None, task["code"].splitlines(keepends=True), task["name"])
        try:
            exec(compile(task["code"], task["name"], "exec"), main)
            done = b"1"
        except BaseException:  # a page's SystemExit too
            traceback.print_exc()
            done = b"0"
        sys.stdout.flush()
        os.write(answers, done)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
