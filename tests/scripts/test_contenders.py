"""A contender in a process of its own answers as it would here; one that fails, ends or says nothing is given up."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CODE = """
import os, sys, time
from multiprocessing import get_context
from pathlib import Path
from contenders import Apart, Contender, GivenUp

class Counting(Contender):
    def __init__(self, count, note):
        self.count, self.note = count, Path(note)

    def drain(self):
        return self.count

    def process(self):
        return os.getpid()

    def fail(self):
        raise ValueError("no\\n  such thing")

    def die(self):
        os._exit(3)

    def wait(self):
        time.sleep(60)

    def close(self):
        self.note.write_text("closed")

def broken():
    raise OSError("no such store")

def apart(patience_s=30.0):
    return Apart(get_context(START), patience_s, Counting, 7, sys.argv[1])
"""


def python(start: str, note: Path, code: str) -> str:
    """What it prints. Run in a process of its own: to fork this one, which may have threads, would not do."""
    code = f"START = {start!r}\n{CODE}\nif __name__ == '__main__':\n" + textwrap.indent(textwrap.dedent(code), "    ")
    script = note.with_name("script.py")
    script.write_text(code)
    done = subprocess.run(
        [sys.executable, script, note],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("start", ["fork", "forkserver"])
def test_it_answers_from_a_process_of_its_own_and_is_closed_there(tmp_path, start):
    code = """
    first, second = apart(), apart()
    print(first.ask("drain"), len({os.getpid(), first.ask("process"), second.ask("process")}))
    first.close()
    print(Path(sys.argv[1]).read_text(), second.ask("drain"))
    second.close()
    """
    assert python(start, tmp_path / "note", code) == "7 3\nclosed 7\n"


@pytest.mark.parametrize(
    ("what", "patience_s", "why"),
    [
        ("fail", 30, "ValueError: no such thing"),
        ("die", 30, "its process ended with status 3"),
        ("wait", 0.2, "no answer for 0 s"),
    ],
)
def test_it_is_given_up_for_a_reason(tmp_path, what, patience_s, why):
    code = f"""
    process = apart()
    process._patience_s = {patience_s}
    try:
        process.ask("{what}")
    except GivenUp as error:
        print(error)
    begun = time.monotonic()
    process.close()
    print(time.monotonic() - begun < 5)
    """
    assert python("forkserver", tmp_path / "note", code) == f"{why}\nTrue\n"


def test_one_that_cannot_be_made_is_given_up_at_once(tmp_path):
    code = """
    try:
        Apart(get_context("fork"), 30.0, broken)
    except GivenUp as error:
        print(error)
    """
    assert python("fork", tmp_path / "note", code) == "OSError: no such store\n"
