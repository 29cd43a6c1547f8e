"""The pages of the documentation, taken apart: what of them is run, checked or left alone, in page order.

Fenced blocks, by language:

    python    run, all of a page in one interpreter, in the page's folder
    console   lines with `$ ` are run by sh; other lines are output that is compared (see console.py)
    yaml      a valid recipe
    json      parses
    text      neither run nor checked: drawings, trees, messages
    {...}     a directive of Sphinx: left alone
    others    need one of the comments below

Comments on the line before a block:

    <!-- not run: REASON -->          neither run nor checked; pytest lists it as skipped
    <!-- file: NAME -->               saved under this name in the page's folder, not run; yaml, json are checked
    <!-- output differs: REASON -->   a console block whose output is not compared

And anywhere `<!-- before: COMMAND -->`, run by sh at its place: set-up that the reader need not see.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]

RUN_OR_CHECKED = {"python", "console", "yaml", "json"}
_COMMENT = re.compile(r"<!-- (not run|file|output differs|before):\s*(.*?)\s*-->")


@dataclass(frozen=True)
class Block:
    """One fenced block, or a hidden command (language 'before').

    Attributes
    ----------
    page : the file it stands in
    line : of its first line of text, counted from 1
    language : first word behind the fence
    text : what is inside
    remarks : the comments before it, by their word
    """

    page: Path
    line: int
    language: str
    text: str
    remarks: dict[str, str]

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT) if self.page.is_relative_to(ROOT) else self.page.name}:{self.line}"

    def runs(self) -> bool:
        return "not run" not in self.remarks and (
            self.language in RUN_OR_CHECKED | {"before"} or "file" in self.remarks
        )


def blocks(page: Path) -> list[Block]:
    """All blocks of a page.

    Raises
    ------
    ValueError : a block that would be neither run nor said to be left out, or a comment that names no block
    """
    found: list[Block] = []
    remarks: dict[str, str] = {}
    for token in MarkdownIt().parse(page.read_text()):
        if token.map is None or token.type.endswith("_open"):
            continue
        place = f"{page.name}:{token.map[0] + 1}"
        if token.type == "code_block":
            raise ValueError(f"{place}: an indented block is not run; fence it and name its language")
        if token.type == "html_block":
            for word, value in _COMMENT.findall(token.content):
                if not value:
                    raise ValueError(f"{place}: say more behind '{word}:'")
                if word == "before":
                    found.append(Block(page, token.map[0] + 1, "before", value, {}))
                else:
                    remarks[word] = value
            continue
        if token.type != "fence":
            if remarks:
                raise ValueError(f"{place}: '{next(iter(remarks))}:' has no block behind it")
            continue
        language = (token.info.split() or [""])[0]
        if not language.startswith("{"):
            block = Block(page, token.map[0] + 2, language, token.content, remarks)
            if not (block.runs() or language == "text" or "not run" in remarks):
                raise ValueError(
                    f"{place}: {language or 'a block without a language'} is not run; say why: <!-- not run: … -->"
                )
            found.append(block)
        remarks = {}
    if remarks:
        raise ValueError(f"{page.name}: '{next(iter(remarks))}:' has no block behind it")
    return found
