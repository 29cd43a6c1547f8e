"""Pages as tests look at them: tags, and the text and tables of each section."""

import base64
from dataclasses import dataclass, field
from html.parser import HTMLParser

import cv2
import numpy as np


@dataclass
class Part:
    """What stands under one heading; `folded` tables included."""

    title: str = ""
    text: str = ""
    tables: list[list[list[str]]] = field(default_factory=list)
    images: list[dict[str, str]] = field(default_factory=list)


class Page(HTMLParser):
    """A parsed page.

    Attributes
    ----------
    tags : every tag with its attributes, in order
    parts : of the page; the first is what comes before all headings of the second order
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.parts = [Part()]
        self._within: list[str] = []
        self.feed(text)

    def part(self, title: str) -> Part:
        (found,) = [part for part in self.parts if part.title == title]
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._within.append(tag)
        part = self.parts[-1]
        if tag == "h2":
            self.parts.append(Part())
        elif tag == "img":
            part.images.append(self.tags[-1][1])
        elif tag == "table":
            part.tables.append([])
        elif tag == "tr":
            part.tables[-1].append([])
        elif tag in ("td", "th"):
            part.tables[-1][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self._within:
            return
        part = self.parts[-1]
        if "h2" in self._within:
            part.title += data
            return
        part.text += data
        if {"td", "th"} & set(self._within):
            part.tables[-1][-1][-1] += data


def pixels(uri: str) -> np.ndarray:
    """The picture in a data URI: uint8 (H, W, 3) RGB."""
    data = base64.b64decode(uri.partition(";base64,")[2], validate=True)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
