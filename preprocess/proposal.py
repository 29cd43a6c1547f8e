"""A first recipe for a folder of images, from what the folder and its headers say, with the reason of every choice."""

import json
import os
import shlex
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache_store import durable, layout
from cache_store.errors import StorageError
from preprocess.census import Census, take_census
from preprocess.choices import Size, choose, in_words
from preprocess.commented import comment_lines, commented_yaml
from preprocess.decode import decoder_table
from preprocess.departures import departures
from preprocess.errors import UsageError
from preprocess.measure import Depths, measure
from preprocess.reading import best_reading, scan_as
from preprocess.recipe import Recipe
from preprocess.report import classes_in_words, printable
from preprocess.scan import Scan, class_table

_WIDTH = 80


@dataclass(slots=True)
class Proposal:
    """A recipe, and why it is as it is.

    Attributes
    ----------
    source : folder of images
    recipe : the proposed recipe
    text : the same as commented YAML, UTF-8 without any odd character of a file name
    reasons : key of the recipe -> what was chosen, and why
    found : what the folder holds: counts of files, splits, formats, kinds of images
    notes : what would be left out, dropped or overlooked, a line each
    path : where the text was written; None before
    """

    source: str
    recipe: Recipe
    text: str
    reasons: dict[str, tuple[str, str]]
    found: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    path: str | None = None

    def write(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Put the text into a file.

        Raises
        ------
        UsageError : the file exists, and is not to be overwritten; or it is a folder
        StorageError : it cannot be written
        """
        target, data = layout.given_path(path), self.text.encode()
        if target.is_dir():
            raise UsageError(f"{str(target)!r} is a folder; the name of a file expected, such as recipe.yaml")
        if overwrite:
            durable.replace_file(target, data, target.with_name(f".{target.name}.decant-init"))
        else:
            try:
                durable.write_file(target, data)
            except StorageError as error:
                if not isinstance(error.__cause__, FileExistsError):
                    raise
                raise UsageError(
                    f"{str(target)!r} exists; name another file with -o, or overwrite it with --force"
                ) from None
        self.path = str(target)

    def to_json(self) -> str:
        """All of it as one JSON object; `recipe` as plain data with every argument resolved."""
        reasons = {key: {"chosen": chosen, "why": why} for key, (chosen, why) in self.reasons.items()}
        values = {"source": self.source, "path": self.path, "recipe": self.recipe.canonical(), "text": self.text}
        return json.dumps(values | {"choices": reasons, "found": self.found, "notes": self.notes}, indent=2)

    def __str__(self) -> str:
        rows = {"found": _found_in_words(self.found)}
        rows["classes"] = classes_in_words(self.found["class_counts"]) or "none: the labels of flat folders are -1"
        rows |= {key: f"{chosen}: {why}" for key, (chosen, why) in self.reasons.items()}
        lines = [f"{f'wrote {self.path}' if self.path else 'a recipe'} for {printable(self.source)}"]
        for key, text in [*rows.items(), *(("note", note) for note in self.notes)]:
            lines += textwrap.wrap(f"  {key:<10} {text}", _WIDTH, subsequent_indent=" " * 13, break_on_hyphens=False)
        command = ["decant", "build", self.source, self._cache(), "--recipe", self.path or "recipe.yaml"]
        return "\n".join([*lines, "", "To build it:", f"    {shlex.join(command)}"])

    def _cache(self) -> str:
        """A place for the cache: here, unless that is inside of SOURCE; then beside it."""
        source = os.path.realpath(self.source)
        try:
            inside = os.path.commonpath([source, os.path.realpath(".")]) == source
        except FileNotFoundError:  # the current folder was removed
            inside = True
        return (source if inside else os.path.basename(source)) + ".cache"


def propose_recipe(source: str | os.PathLike[str], size: int | Size | None = None) -> Proposal:
    """Look at a folder of images and propose a recipe for it. Reads the headers of 2,000 images at most, and decodes up
    to 16 of those that have more than 8 bits a component.

    Parameters
    ----------
    source : folder of images
    size : output height = width, or (height, width); None: follows from the images

    Returns
    -------
    Proposal : print it to see what was chosen and why; `recipe` goes to `build`, `write` keeps it as commented YAML

    Raises
    ------
    UsageError : SOURCE is not there, or holds no image
    RecipeError : a size that cannot be meant
    """
    wanted = Recipe(size=size).size if size is not None else None
    folder = layout.given_path(source)
    reading = best_reading(folder)
    found = scan_as(folder, Recipe().with_splits(reading.splits), reading)
    census = take_census(folder, found)
    depths = measure(folder, census.deep)
    chosen = choose(found, census, depths, wanted, reading.doubt)
    recipe = Recipe.from_dict(chosen.values)
    title = f"A recipe for {printable(os.path.basename(os.path.abspath(folder)))}, as decant init proposes it."
    summary = _summary(found, census)
    head = [title, f"Found: {_found_in_words(summary)}.", "Every key may be changed, or left out for its default."]
    lines = [line for part in head for line in comment_lines(part)] + commented_yaml(chosen.values, chosen.comments)
    notes = reading.left_out + _notes(census, depths, recipe) + departures(recipe, found, class_table(found, None), ())
    return Proposal(str(folder), recipe, "\n".join(lines) + "\n", chosen.reasons, summary, notes)


def _summary(found: Scan, census: Census) -> dict[str, Any]:
    sides = census.size_hw
    classes = class_table(found, None)
    return {
        "splits": {name: len(split.paths) for name, split in found.splits.items()},
        "classes": len(classes),
        "looked_at": census.looked_at,
        "formats": dict(census.formats.most_common()),
        "smallest_hw": sides[sides.prod(1).argmin()].tolist() if len(sides) else None,
        "median_hw": sides[np.argsort(sides.prod(1), kind="stable")[len(sides) // 2]].tolist() if len(sides) else None,
        "largest_hw": sides[sides.prod(1).argmax()].tolist() if len(sides) else None,
        "channels": _counted(header.channels for header in census.headers),
        "bits": _counted(header.bits for header in census.headers),
        "alpha": sum(header.alpha for header in census.headers),
        "orientations": _counted(header.orientation for header in census.headers),
        "size_unknown": census.unsized.count,
        "unreadable": census.unreadable.count,
        "class_counts": _class_counts(found, classes),
    }


def _class_counts(found: Scan, classes: list[str]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for split in found.splits.values():
        counts.update(split.class_counts())
    return {name: counts[name] for name in classes}


def _counted(values: Iterator[int]) -> dict[str, int]:
    return {str(value): count for value, count in sorted(Counter(values).items())}


def _found_in_words(summary: Mapping[str, Any]) -> str:
    counts = ", ".join(f"{name} {count:,}" for name, count in summary["splits"].items())
    formats = ", ".join(f"{name} {count:,}" for name, count in summary["formats"].items())
    parts = [f"{counts} images, {summary['classes']} class{'es' * (summary['classes'] != 1)}"]
    parts.append(f"{summary['looked_at']:,} headers looked at" + (f" ({formats})" if formats else ""))
    if summary["median_hw"]:
        sizes = [in_words(summary[f"{which}_hw"]) for which in ("smallest", "median", "largest")]
        all_of = "all {0}" if len(set(sizes)) == 1 else "{0} to {2}, median {1}"
        parts.append("height x width " + all_of.format(*sizes))
    return "; ".join(parts)


def _kept(recipe: Recipe, depths: Depths, census: Census) -> str:
    """What is kept of 16-bit values."""
    if recipe.decode.window is not None:
        return f"the window {list(recipe.decode.window)} of them is kept"
    if depths.refused or depths.flat:
        fates = [(depths.refused, "will be left out"), (depths.flat, "will be black or of few shades")]
        words = " and ".join(
            f"{count:,} of {depths.measured:,} that were decoded {fate}" for count, fate in fates if count
        )
        return (
            f"{words}, as 8 bits keep too few levels, and no one window suits most of them (values {depths.span}): see "
            "decode.levels"
        )
    of_pnm = "; PNM with another largest value than 65,535 is scaled to 0..255"
    return "the upper 8 are kept" + of_pnm * ("PNM" in census.formats)


def _notes(census: Census, depths: Depths, recipe: Recipe) -> list[str]:
    """What the user would not expect of the images."""
    headers, total = census.headers, census.looked_at
    undecodable = set(census.formats) - {name for name, able, _ in decoder_table() if able}
    cap = recipe.max_pixels
    kinds = [
        (len(census.deep), f"more than 8 bits a channel; {_kept(recipe, depths, census)}"),
        (sum(h.alpha for h in headers), "alpha, which is dropped: the colours beneath show"),
        (sum(h.channels == 4 for h in headers), "CMYK, converted without a colour profile"),
        (sum(h.orientation != 1 for h in headers), "an EXIF orientation, which is applied"),
        (
            sum(h.height * h.width > cap for h in headers),
            f"over {cap / 1e6:g} megapixels, and left out; a higher decode.max_megapixels keeps them",
        ),
    ]
    notes = [f"{count:,} of {total:,} images looked at: {what}" for count, what in kinds if count]
    for tally, what in (
        (census.unreadable, "no readable header, so that they will probably be left out"),
        (census.unsized, "of a format whose size is not known before it is decoded"),
    ):
        if tally.count:
            notes.append(f"{tally.count:,} of {total:,} images looked at: {what} ({tally.shown()})")
    for name in sorted(undecodable):
        notes.append(f"{census.formats[name]:,} of {total:,} images looked at: {name}, which OpenCV cannot decode here")
    return notes
