"""Sphinx extension: pages link to files of the repository, as they must for readers of the repository; the site has
only what is in docs/, and the README as its front page.

A link to the README leads to the front page. Of a link to any other file outside docs/ the text stays.
"""

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

FRONT_PAGE = "index"
README_HERE = "<!-- README -->\n"
"""What index.md has at the place of the README."""

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)#\s]+)(?P<anchor>#[^)]*)?\)")


def rewritten(text: str, written_in: Path, shown_in: Path, docs: Path) -> str:
    """Markdown with its relative links made fit for the site.

    Parameters
    ----------
    text : of a page
    written_in : folder that its links start from
    shown_in : folder that they start from on the site
    docs : the folder that holds the site's pages; the README lies beside it
    """

    def link(match: re.Match[str]) -> str:
        target = match["target"]
        if ":" in target:
            return match[0]
        path = Path(os.path.normpath(written_in / target))
        if path == docs.parent / "README.md":
            path = docs / f"{FRONT_PAGE}.md"
        if not path.is_relative_to(docs):
            return match["text"]
        return f"{match['image']}[{match['text']}]({os.path.relpath(path, shown_in)}{match['anchor'] or ''})"

    return _LINK.sub(link, text)


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    docs = Path(app.srcdir)
    folder = (docs / docname).parent
    text = rewritten(source[0], folder, folder, docs)
    if docname == FRONT_PAGE:
        readme = docs.parent / "README.md"
        app.env.note_dependency(str(readme))
        text = text.replace(README_HERE, rewritten(readme.read_text(), docs.parent, docs, docs))
    source[0] = text


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}
