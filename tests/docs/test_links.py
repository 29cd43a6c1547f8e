"""Links inside the repository lead to a file, and to a heading of it."""

import itertools
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.docs.pages import PAGES, ROOT


def inline(page: Path) -> list[Token]:
    """All that stands in lines of text, headings and tables: text, links, images, code."""
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    return [child for token in tokens for child in token.children or ()]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub forms them."""
    tokens = MarkdownIt().enable("table").parse(page.read_text())
    found: dict[str, int] = {}
    names = set()
    for token, text in itertools.pairwise(tokens):
        if token.type == "heading_open":
            words = "".join(child.content for child in text.children or () if child.type in ("text", "code_inline"))
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            names.add(f"{name}-{found[name]}" if name in found else name)
            found[name] = found.get(name, 0) + 1
    return names


def broken(page: Path) -> list[str]:
    """The links of a page that lead nowhere."""
    found = []
    for token in inline(page):
        link = str(token.attrs.get("href") or token.attrs.get("src") or "")
        if not link or re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = page if not path else page.parent / path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_inner_links_lead_somewhere(page):
    assert broken(page) == []


def test_broken_links_are_found(tmp_path):
    (tmp_path / "other.md").write_text("# A *title*, with `code`\n\n## Again\n\n## Again\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md#a-title-with-code) [b](other.md#again-1) [c](other.md#nowhere) [d](gone.md) ![e](gone.png)\n\n"
        "| table |\n|---|\n| [f](#here) [g](https://example.org/#x) |\n"
    )

    assert broken(page) == ["other.md#nowhere", "gone.md", "gone.png", "#here"]
