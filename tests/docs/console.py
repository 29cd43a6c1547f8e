"""Commands as a page shows them, with their output; and whether a run's output is what is shown.

Figures of a page come from real folders, those of its test from tiny ones. So numbers (with their units) and digests
are equal to any others; wording is compared. A run may say more than is shown.
"""

import re
from dataclasses import dataclass

_EXIT = re.compile(r"#\s*exits with (\d+)\s*$")
_FIGURES = re.compile(r"\b[0-9a-f]{8,}\b|\d+(?:[.,]\d+)*(?:\s?(?:[KMGT]?i?B|bytes|ms|s|min|h)\b)?")
ANYTHING = "..."


@dataclass(frozen=True)
class Command:
    """One command, the exit status that is promised, and the lines that are shown of its output."""

    line: int
    text: str
    status: int
    shown: tuple[str, ...]


def commands(text: str, first_line: int) -> list[Command]:
    """The commands of a console block: `$ ` starts one, a backslash at the end of a line continues it.

    Raises
    ------
    ValueError : output before the first command
    """
    found: list[Command] = []
    lines = iter(enumerate(text.splitlines(), first_line))
    for number, line in lines:
        if line.startswith("$ "):
            whole = line[2:]
            while whole.endswith("\\"):
                whole += "\n" + next(lines)[1]
            status = _EXIT.search(whole)
            found.append(Command(number, whole, int(status[1]) if status else 0, ()))
        elif found:
            last = found[-1]
            found[-1] = Command(last.line, last.text, last.status, (*last.shown, line))
        elif line.strip():
            raise ValueError(f"line {number}: a console block starts with a command, '$ …'")
    return found


def missing(shown: tuple[str, ...], output: str) -> str | None:
    """The first shown line that does not occur in the output, after those shown before it; None if all do."""
    lines = iter([_plain(line) for line in output.splitlines()])
    for line in shown:
        pattern = ".*".join(re.escape(_plain(part)) for part in line.split(ANYTHING)).replace(r"\ .*", ".*")
        if line.strip() and not any(re.fullmatch(pattern, said) for said in lines):
            return line
    return None


def _plain(line: str) -> str:
    return " ".join(_FIGURES.sub("#", line).split())
