"""What a recipe makes of a few images: rendered as a build renders them, and kept in no cache."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from cache_store import layout
from cache_store.canonical import digest_of
from preprocess import augment, decode, engines
from preprocess.builder import RecipeLike, chosen_recipe, processors
from preprocess.departures import departures, lost_in_decoding
from preprocess.errors import SourceError, UsageError
from preprocess.hashing import hash_files
from preprocess.jobs import Files
from preprocess.outputs import output_file
from preprocess.own_size import squeezed
from preprocess.read import most_bytes, read_source
from preprocess.reading import settle
from preprocess.recipe import Recipe
from preprocess.render import File, Rendered, opencv_as_in_a_worker
from preprocess.rendering import IN_WORDS, OPENCV, Rendering
from preprocess.report import in_units, printable
from preprocess.scan import Tally, class_table
from preprocess.sheet import MOST_VARIANTS, SAMPLES, Block, Grid, draw, fitted, spread, write_png
from preprocess.sources import Sources, collect, members

_STALL_S = 120


@dataclass(slots=True)
class Tried:
    """One source and what became of it.

    Attributes
    ----------
    path : relative to SOURCE
    label, class_name : -1 and None in a flat folder
    size : bytes of the file; None if it cannot be read
    source_hw : height and width, upright; None if it cannot be decoded
    digest : of the file, hex; None if it cannot be read
    stage, reason : why it cannot be used; None if it can
    """

    path: str
    label: int
    class_name: str | None
    size: int | None = None
    source_hw: tuple[int, int] | None = None
    digest: str | None = None
    stage: str | None = None
    reason: str | None = None


@dataclass(slots=True)
class Preview:
    """A recipe tried on a few images of one split.

    Attributes
    ----------
    source, split : where they come from
    output : PNG file that was written; None: none
    images : how many the split has; None if that takes the digests of all files, as `{from: train, fraction: 0.1}` does
    variants : K of the recipe
    shape : C, H, W of a tensor
    engine : what renders, see `rendering.IN_WORDS`
    sources : those that were tried, in the order of the sheet
    departures : what differs from the expected, a line each, as a build reports it
    sheet : uint8 (H, W, 3) RGB, what the file shows; not in the JSON
    """

    source: str
    split: str
    output: str | None
    images: int | None
    variants: int
    shape: tuple[int, int, int]
    engine: str
    sources: list[Tried]
    departures: list[str]
    sheet: np.ndarray

    def to_json(self) -> str:
        """All fields but the pixels as one JSON object."""
        fields = asdict(replace(self, sheet=np.zeros(0)))
        del fields["sheet"]
        return json.dumps(fields, indent=2)

    def __str__(self) -> str:
        lines = [f"{self.output}: {self._headline()}"] if self.output else [self._headline()]
        failed = [tried for tried in self.sources if tried.reason is not None]
        if failed:
            lines.append(f"  failed     {len(failed)} of {len(self.sources)}, which a build would leave out:")
            lines += [f"    {printable(tried.path)}: {tried.stage}: {tried.reason}" for tried in failed]
        return "\n".join(lines + [f"  note       {text}" for text in self.departures])

    def _headline(self) -> str:
        each = "1 variant each" if self.variants == 1 else f"{self.variants} variants each"
        if self.variants > MOST_VARIANTS:
            each += f", the first {MOST_VARIANTS} are drawn"
        count = str(len(self.sources)) + ("" if self.images is None else f" of {self.images:,}")
        return (
            f"{count} images of split {self.split!r} in {self.source}; {each}, "
            f"{'x'.join(map(str, self.shape))}, by {IN_WORDS[self.engine]}"
        )


def preview(
    source: str | os.PathLike[str],
    recipe: RecipeLike = None,
    output: str | os.PathLike[str] | None = None,
    *,
    overrides: Iterable[str] = (),
    split: str | None = None,
) -> Preview:
    """Draw up to 16 images of a folder, each beside its variants, as a build with the recipe would store them.

    Tiles are the 8-bit pixels that a build on this machine stores, or normalises and stores, bit for bit. Nothing but
    the PNG file is written. The images are spread evenly over classes, always the same ones.

    Parameters
    ----------
    source : folder of images; it is only read
    recipe : a Recipe, plain data, or the path of a YAML file; None: the default
    output : PNG file to draw them into; None: none is written
    overrides : KEY=VALUE settings on top of the recipe
    split : the recipe's first unless given

    Raises
    ------
    RecipeError : a recipe that cannot be meant, as for a build
    UsageError : no such folder or split, no image in it, or `output` lies inside SOURCE
    StorageError : the PNG cannot be written
    """
    source_path = layout.given_path(source)
    chosen = chosen_recipe(recipe, list(overrides), source_path, None)
    output_path = None if output is None else output_file(output, ".png", source=source_path)
    whole, found, _ = settle(source_path, chosen)
    name = split or next(iter(whole.named_splits))
    if name not in whole.named_splits:
        raise UsageError(f"the recipe has no split {name!r}; there are: {', '.join(whole.named_splits)}")
    classes = class_table(found, whole.classes)
    sources = collect(found, classes, None)
    rendering, notes = _rendering(whole, name)
    numbers = _choose(sources, whole, name, source_path)
    if not len(numbers):
        raise UsageError(f"split {name!r} has no image in SOURCE {str(source_path)!r}")

    variants = min(whole.named_splits[name].variants, MOST_VARIANTS)
    grid = Grid(rendering.size_hw, 1 + variants, len(numbers))
    labels = sources.labels[numbers].tolist()
    tried = [
        Tried(sources.paths[number], label, classes[label] if label >= 0 else None)
        for number, label in zip(numbers.tolist(), labels, strict=True)
    ]
    tiles, noted = _render(tried, source_path, rendering, variants, whole.max_pixels, grid)
    notes = [*departures(whole, found, classes, ()), *notes, *lost_in_decoding(noted)]
    result = Preview(
        str(source_path),
        name,
        None if output_path is None else str(output_path),
        None if _divided(whole, name) else len(members(sources, whole)[name]),
        whole.named_splits[name].variants,
        rendering.shape,
        rendering.engine,
        tried,
        notes,
        np.zeros((0, 0, 3), np.uint8),
    )
    title = f"{result._headline()}. Each source, then its variants; sizes are height x width."
    result.sheet = draw(title, [Block(_caption(t), tuple(row)) for t, row in zip(tried, tiles, strict=True)], grid)
    if output_path is not None:
        write_png(output_path, result.sheet)
    return result


def _rendering(recipe: Recipe, split: str) -> tuple[Rendering, list[str]]:
    """What fixes the pixels of a split in a new cache on this machine, and warnings."""
    rendering = recipe.rendering(split, OPENCV, "")
    engine, notes = engines.choose(split, rendering, "auto", None, None, rerender=False)
    place = f"splits.{split}.transforms"
    most = max(recipe.max_pixels, rendering.pixels)
    notes += squeezed(rendering.transforms, place)
    notes += augment.prove_size(rendering.transforms, rendering.size_hw, rendering.shape[0], place, most)
    return replace(rendering, engine=engine), notes


def _choose(sources: Sources, recipe: Recipe, split: str, source: Path) -> np.ndarray:
    """Numbers of the sources to try: int64 (n,).

    Of a split that takes a part of another one by digest, or is taken from, files are read until enough belong to it.
    """
    origin = recipe.named_splits[split].from_ or split
    divided = _divided(recipe, split)
    start, end = sources.ranges[origin]
    count = SAMPLES
    while True:
        numbers = start + spread(sources.labels[start:end], count)
        if divided:
            _read_digests(sources, numbers, recipe, source)
            numbers = numbers[np.isin(numbers, members(sources, recipe)[split])]
        if not divided or len(numbers) >= SAMPLES or count >= end - start:
            return numbers[spread(sources.labels[numbers], SAMPLES)]
        count *= 2


def _divided(recipe: Recipe, split: str) -> bool:
    """Whether digests decide which images of its folder belong to a split."""
    origin = recipe.named_splits[split].from_ or split
    return any(other.from_ == origin for other in recipe.named_splits.values())


def _read_digests(sources: Sources, numbers: np.ndarray, recipe: Recipe, source: Path) -> None:
    unknown = numbers[~sources.known[numbers]]
    files = Files(os.fsencode(source), sources.paths, unknown)
    most = most_bytes(recipe.max_pixels)
    sources.take(unknown, hash_files(files, processors(), _STALL_S, lambda done, failed: None, most))


@opencv_as_in_a_worker()
def _render(
    tried: list[Tried], source: Path, rendering: Rendering, variants: int, max_pixels: int, grid: Grid
) -> tuple[list[list[np.ndarray | str]], dict[str, Tally]]:
    """The tiles of each source: itself, then its variants; where one of them fails, the reason and no more. And what
    decoding dropped, as `Run.noted` has it."""
    files: list[File] = []
    rows: list[list[np.ndarray | str]] = []
    noted: dict[str, Tally] = {}
    for place, one in enumerate(tried):
        row: list[np.ndarray | str] = []
        rows.append(row)
        try:
            data, (one.size, *_) = read_source(os.fsencode(source / one.path), most_bytes(max_pixels))
            digest = digest_of(data)
            one.digest = digest.hex()
            picture = decode.decode(
                data,
                channels=rendering.channels,
                max_pixels=max_pixels,
                reduce_to=grid.box_hw,
                **rendering.decode_arguments,
            )  # for the eye alone: the renderer decodes for itself, maybe with another decoder
            one.source_hw = picture.source_hw
            row.append(fitted(picture.image, grid.box_hw))
        except SourceError as error:
            _fail(one, row, error)
        else:
            files.append(File(place, partial(bytes, data), digest, tuple(range(variants))))
    renderer = engines.renderer_of(rendering, max_pixels=max_pixels)
    for result in renderer.render(files, lambda place: None):
        row = rows[result.place]
        if isinstance(result, Rendered):
            row.append(result.planes.transpose(1, 2, 0).copy())
            continue
        for note in result.notes:
            noted.setdefault(note, Tally()).add(tried[result.place].path)
        if result.error is not None:
            del row[1:]
            _fail(tried[result.place], row, result.error)
    return rows, noted


def _fail(one: Tried, row: list[np.ndarray | str], error: SourceError) -> None:
    one.stage, one.reason = error.stage, error.reason
    row.append(str(error))


def _caption(one: Tried) -> tuple[str, ...]:
    size = [] if one.source_hw is None else ["x".join(map(str, one.source_hw))]
    if one.size is not None:
        size.append(in_units(one.size))
    return one.class_name or "no label", os.path.basename(one.path), ", ".join(size)
