"""The page: tables between markers, which a run replaces; what is written around them stays."""

import re
import sys
from collections.abc import Mapping
from typing import Any

_BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def filled(text: str, found: Mapping[str, Any], pages: Mapping[str, str]) -> str:
    """The page with new tables, and with what they were measured by.

    A section without a place on the page, or a place without a section, ends the program.
    """
    blocks = {"run": run_in_words(found), **pages}
    places = [match[2] for match in _BLOCK.finditer(text)]
    if sorted(places) != sorted(blocks):
        sys.exit(f"places for {', '.join(blocks)} expected on the page, each once; found {', '.join(places) or 'none'}")
    return _BLOCK.sub(lambda match: f"{match[1]}\n{blocks[match[2]]}\n\n{match[3]}", text)


def run_in_words(found: Mapping[str, Any]) -> str:
    machine = found["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    gpu = found["gpu"] or "none"
    return "\n".join(
        [
            "<!-- not run: takes ten minutes, and needs photographs -->",
            f"```console\n$ {found['command']} --write docs/techniques.md\n```",
            "",
            f"- machine: {machine['processor']}, {machine['processors']} processors, {machine['memory_gib']:g} GiB, "
            f"Linux {machine['system'].split('-')[0]}; GPU: {gpu}",
            f"- versions: {versions}; decant {found['commit']}",
            f"- images: {found['images']}; {found['rounds']} rounds; the run took {found['seconds'] / 60:.0f} minutes",
        ]
    )
