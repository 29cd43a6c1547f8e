"""What the headers of a folder's images say: sizes, channels, depth, formats, alpha, orientation. Decodes nothing."""

import mmap
import os
import stat
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from preprocess.depth import bits_of
from preprocess.header import Header, read_header, sniff
from preprocess.scan import Scan, Tally
from preprocess.tiff_header import read_tiff_header

_MOST_FILES = 2000
_BEGINNING_BYTES = 64 << 10
_LONG_BEGINNING_BYTES = 8 << 20
"""For the few files that keep a large preview or colour profile before their pixels."""


@dataclass(slots=True)
class Census:
    """What was found in the headers of some of the images, or all.

    Attributes
    ----------
    files : how many images there are
    looked_at : how many of them were opened
    headers : those whose header could be read
    formats : name -> number of files, told by content; also those whose header says no more than that
    unsized : files of formats whose header is not read (TIFF, AVIF, …): they are decoded all the same
    deep : names of files of more than 8 bits a component, as far as headers say
    surplus, pages : TIFFs with samples beyond colour and alpha, and with more than one page
    unreadable : files that cannot be opened, or whose bytes are those of no image or of a damaged header
    """

    files: int
    looked_at: int = 0
    headers: list[Header] = field(default_factory=list)
    formats: Counter[str] = field(default_factory=Counter)
    unsized: Tally = field(default_factory=Tally)
    deep: list[str] = field(default_factory=list)
    surplus: Tally = field(default_factory=Tally)
    pages: Tally = field(default_factory=Tally)
    unreadable: Tally = field(default_factory=Tally)

    @property
    def size_hw(self) -> np.ndarray:
        """Upright height and width of each header: int64 (n, 2)."""
        return np.array([header.upright_hw for header in self.headers], np.int64).reshape(-1, 2)


def take_census(source: Path, found: Scan) -> Census:
    """Read the headers of all images of a scan, or of `_MOST_FILES` of them, evenly spread over each split."""
    census = Census(sum(len(split.paths) for split in found.splits.values()))
    for split in found.splits.values():
        count = len(split.paths)
        share = -(-count * _MOST_FILES // max(census.files, _MOST_FILES))
        for number in np.linspace(0, count - 1, share).astype(int).tolist():
            _look(census, source, split.paths[number])
    return census


def _look(census: Census, source: Path, name: str) -> None:
    census.looked_at += 1
    try:
        data = beginning(os.fsencode(source / name))
    except OSError:
        census.unreadable.add(name)
        return
    header = read_header(data)
    kind = header.format if header is not None else sniff(data)
    if kind is not None:
        census.formats[kind] += 1
    if header is not None:
        census.headers.append(header)
        if header.bits > 8:
            census.deep.append(name)
    elif kind in (None, "JPEG", "PNG", "WebP", "BMP", "GIF"):  # `read_header` knows these: the header is damaged
        census.unreadable.add(name)
    else:
        census.unsized.add(name)
        if kind == "TIFF":
            _look_into_tiff(census, source, name)
        elif 8 < (bits_of(data) or 0) <= 16:
            census.deep.append(name)


def _look_into_tiff(census: Census, source: Path, name: str) -> None:
    """Its directories may stand anywhere in the file: it is mapped, not read."""
    try:
        with open(source / name, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = read_tiff_header(data)
    except (OSError, ValueError):  # changed or gone meanwhile
        return
    if header is None:
        return
    if 8 < header.bits <= 16:
        census.deep.append(name)
    if header.surplus:
        census.surplus.add(name)
    if header.pages > 1:
        census.pages.add(name)


def beginning(path: bytes) -> bytes:
    """The first bytes of a regular file, more of them where a header goes on for long."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hang us
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return b""
        data = file.read(_BEGINNING_BYTES)
        if len(data) == _BEGINNING_BYTES and read_header(data) is None:
            data += file.read(_LONG_BEGINNING_BYTES)
    return data
