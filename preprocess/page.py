"""`decant report`: what a cache holds, as one page that needs nothing but itself."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cache_store import layout
from cache_store.durable import translated
from cache_store.reader import Cache, open_cache
from cache_store.writer import source_by_hint
from preprocess import sections
from preprocess.errors import UsageError
from preprocess.levels import in_words
from preprocess.markup import items, text, whole_page
from preprocess.outputs import output_file
from preprocess.plots import require_matplotlib
from preprocess.report import in_units, printable
from preprocess.specimens import rows
from preprocess.thumbnails import thumbnails

MAX_IMAGE_BYTES = 3_500_000
"""Of all pictures together; what else a page holds is bounded by its lists, so that it stays below 5 MB."""


@dataclass(frozen=True, slots=True)
class PageReport:
    """A page that was written.

    Attributes
    ----------
    page : its file
    cache, snapshot : what it is about
    page_bytes : its size
    images : how many pictures it shows, sources included
    remarks : what stands out, a line each
    """

    page: str
    cache: str
    snapshot: str
    page_bytes: int
    images: int
    remarks: list[str]

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        head = f"wrote {self.page} about snapshot {self.snapshot} of {self.cache}: "
        size = f"{sections.counted(self.images, 'picture')}, {in_units(self.page_bytes)}"
        return "\n".join([head + size, *(f"  note       {remark}" for remark in self.remarks)])


def write_report(
    cache: str | os.PathLike[str], output: str | os.PathLike[str], source: str | os.PathLike[str] | None = None
) -> PageReport:
    """Write a page about the snapshot in force: its images, numbers, failures and history; the cache stays as it is.

    Parameters
    ----------
    cache : folder of the cache
    output : HTML file to write
    source : folder of images, shown beside what became of them; None: the one that the cache was built from, if it is
        where it was

    Raises
    ------
    NotFoundError : there is no such cache, or no finished snapshot in it
    UsageError : `source` is no folder, `output` is one, lies in the cache or is no .html, or matplotlib is missing
    IntegrityError, FormatError : the tables of the cache are damaged, or of another version; damaged images are shown
        as such
    StorageError : the page cannot be written
    """
    require_matplotlib()
    path = layout.given_path(cache)
    folder, where = _sources(path, source)
    with open_cache(path) as opened:
        target = output_file(output, ".html", cache=path)
        written, images, remarks = _page(opened, folder, where)
        name = opened.snapshot.name
    data = written.encode("utf-8")
    with translated("write", target):
        target.write_bytes(data)
    return PageReport(str(target), str(path), name, len(data), images, remarks)


def _sources(cache: Path, given: str | os.PathLike[str] | None) -> tuple[Path | None, str]:
    """The folder of images, and a sentence on it for the page."""
    if given is not None:
        folder = layout.given_path(given)
        if not folder.is_dir():
            raise UsageError(f"SOURCE {str(folder)!r} is not a folder; name the one that the cache was built from")
        return folder, _found(folder)
    hinted = source_by_hint(cache)
    if hinted is not None and hinted.is_dir():
        return hinted, _found(hinted)
    return None, "Where the sources are is not known; --source DIR shows them beside their variants."


def _found(folder: Path) -> str:
    # The name alone: a page that is passed on need not say where its author keeps things.
    return f"Sources are from {printable(folder.resolve().name)}."


def _page(cache: Cache, source: Path | None, where: str) -> tuple[str, int, list[str]]:
    """The page, how many pictures it has, and what stands out."""
    snapshot = cache.snapshot
    drawn = list(rows(cache, source))
    pictures = thumbnails(
        [cell.image for row in drawn for sample in row.samples for cell in sample.cells if cell.image is not None],
        MAX_IMAGE_BYTES,
    )
    parts = [
        sections.images(snapshot, drawn, pictures, where),
        sections.balance(snapshot),
        sections.sizes(cache),
        sections.statistics(snapshot),
        sections.failures(snapshot),
        sections.equal_images(snapshot),
        sections.snapshots(cache.path),
        sections.recipe(snapshot),
    ]
    remarks = [remark for part in parts for remark in part.remarks]
    title = f"{printable(cache.path.resolve().name)}, snapshot {snapshot.name}"
    counts = ", ".join(
        f"{printable(split)} {len(table):,}" + (f" × {table.variants} variants" if table.variants > 1 else "")
        for split, table in snapshot.splits.items()
    )
    size = "×".join(map(str, snapshot.recipe["size"]))
    about = f"{counts}; {sections.counted(len(snapshot.classes), 'class', 'classes')}; {snapshot.recipe['dtype']}, "
    about += f"{snapshot.recipe['channels']}, {size}; built {snapshot.created}"
    if "levels" in snapshot.recipe["decode"]:
        about += f"; of 16-bit values {in_words(snapshot.recipe['decode']['levels'])}"
    stands_out = items(remarks, "remarks") if remarks else '<p class="faint">Nothing stands out.</p>'
    links = " ".join(f'<a href="#part-{number}">{text(part.title)}</a>' for number, part in enumerate(parts))
    body = "\n".join(
        [
            f"<header><h1>{text(title)}</h1><p>{text(about)}</p>{stands_out}<nav>{links}</nav></header>",
            *(
                f'<section id="part-{number}"><h2>{text(part.title)}</h2>\n{part.body}</section>'
                for number, part in enumerate(parts)
            ),
        ]
    )
    return whole_page(title, body), len(pictures), remarks
