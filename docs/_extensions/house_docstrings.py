"""Sphinx extension: sections of docstrings as this project writes them, each entry on a line of its own.

    Parameters                             :Parameters:
    ----------                                 * **size** – of the output in pixels, (height, width)
    size : of the output in pixels,
        (height, width)
    Raises                           ->    :raises ~preprocess.RecipeError: a value that cannot be meant
    ------
    RecipeError : a value that cannot be meant

Types stand in the signature, so what follows a colon is text, and names may share one: as in no common style, hence
this. Attributes get their types from the class.
"""

import builtins
import inspect
import re
import sys
from importlib import import_module
from typing import Any

from docutils import nodes
from public_names import PACKAGES, public_name
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

SECTIONS = ("Parameters", "Attributes", "Returns", "Raises")
_RULE = re.compile(r"-{3,}\s*")
_ENTRY = re.compile(r"(?P<names>\*{0,2}[A-Za-z_][\w.]*(?:, \*{0,2}[A-Za-z_][\w.]*)*) : (?P<text>.*)")
_CLASS = re.compile(r"[A-Z]\w+ : ")  # what a return value is; the signature has it as well


def rewritten(lines: list[str], thing: Any = None) -> list[str]:
    """A docstring's lines, with its sections as field lists of reStructuredText.

    Parameters
    ----------
    thing : whose docstring it is; its module and class tell what names mean
    """
    new: list[str] = []
    title, section = "", list[str]()
    for i, line in enumerate([*lines, ""]):
        begins = line.strip() in SECTIONS and i + 1 < len(lines) and _RULE.fullmatch(lines[i + 1])
        # Text after a blank line does not belong to the section any more.
        ends = i == len(lines) or (line.strip() and not lines[i - 1].strip() and not _ENTRY.match(line))
        if title and (begins or ends):
            new += ["", *_fields(title, section, thing), ""]
            title, section = "", []
        if begins:
            title = line.strip()
        elif title:
            section.append(line)
        elif i < len(lines):
            new.append(line)
    return new


def _fields(title: str, section: list[str], thing: Any) -> list[str]:
    if title == "Returns":
        text = " ".join(line.strip() for line in section if not _RULE.fullmatch(line))
        return [f":returns: {_CLASS.sub('', text.strip())}"]
    entries = _entries(section)
    if title == "Raises":
        return [f":raises {_class_named(name, thing)}: {text}" for names, text in entries for name in names]
    types = getattr(thing, "__annotations__", {}) if title == "Attributes" else {}
    items = [f"* **{', '.join(names)}**{_type_of(names, types)} – {text}" for names, text in entries]
    return [f":{title}:", *(f"    {item}" for item in items)]


def _entries(section: list[str]) -> list[tuple[list[str], str]]:
    """Names and text of each entry."""
    found: list[tuple[list[str], str]] = []
    for line in section:
        match = _ENTRY.match(line)
        if match:
            found.append((match["names"].replace("*", r"\*").split(", "), match["text"]))
        elif found and line.strip() and not _RULE.fullmatch(line):
            names, text = found[-1]
            found[-1] = names, f"{text} {line.strip()}"
    return found


def _type_of(names: list[str], types: dict[str, Any]) -> str:
    """' (type)' of names that have one and the same."""
    found = {stringify_annotation(types[name], "smart").replace("~", "") for name in names if name in types}
    return f" (``{found.pop()}``)" if len(found) == 1 else ""


def _class_named(name: str, thing: Any) -> str:
    """The public name of a class of error, as `thing`'s module knows it; the name itself where it has none."""
    function = inspect.unwrap(thing.fget if isinstance(thing, property) else getattr(thing, "__func__", thing))
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    places = [module, *(import_module(f"{package}.errors") for package in PACKAGES[:2])]
    for place in places:
        found = getattr(place, name, None)
        if isinstance(found, type):
            public = public_name(f"{found.__module__}.{found.__qualname__}")
            return f"~{public}" if public else name
    if not hasattr(builtins, name):
        raise ValueError(f"Raises section of {getattr(function, '__qualname__', function)}: there is no {name}")
    return name


def _process(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = rewritten(lines, thing)


def _dashes(app: Sphinx, doctree: nodes.document) -> None:
    """Sphinx puts two hyphens between a name and its text, for `smartquotes` to join; that would join --options too."""
    for text in list(doctree.findall(nodes.Text)):
        if text.startswith(" -- "):
            text.parent.replace(text, nodes.Text(text.replace(" -- ", " – ", 1)))


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _process)
    app.connect("doctree-read", _dashes)
    return {"parallel_read_safe": True}
