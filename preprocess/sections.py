"""The sections of a report's page: what each says, as HTML, and what stands out in it."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

from cache_store import layout
from cache_store.errors import CacheStoreError
from cache_store.gc import disk_usage
from cache_store.manifest import Snapshot, SplitTable
from cache_store.reader import Cache, open_cache
from cache_store.snapshots import Entry, history
from preprocess import plots
from preprocess.duplicates import duplicates
from preprocess.levels import LEAST_LEVELS
from preprocess.markup import block, card, folded, items, table, text
from preprocess.paths import Paths
from preprocess.rendering import Statistics
from preprocess.renderings import stored_rendering
from preprocess.report import in_units, printable
from preprocess.scales import Scales, scales
from preprocess.specimens import UNLABELLED, Cell, Row, Sample, present
from preprocess.statistics import NOTABLE_DRIFT, current_statistics, drift, exact_statistics
from preprocess.thumbnails import Thumbnail

_LISTED = 100
_LISTED_CLASSES = 1000
_LISTED_SNAPSHOTS = 50
_CLASSES_IN_PLOT = 24
_NAME_IN_PLOT = 18
_MOST_ENLARGED = 5
_MISSING_NAMED = 5

_NOTABLE_RATIO = 10
"""Samples of the largest class of a split, against the smallest one."""

_NOTABLE_SHARE = 0.1
"""Enlarged variants of a split, and images that use few levels."""


class Section(NamedTuple):
    """A part of the page.

    Attributes
    ----------
    title : its heading
    body : HTML
    remarks : what stands out in it, as plain text
    """

    title: str
    body: str
    remarks: list[str]


def images(snapshot: Snapshot, rows: Sequence[Row], drawn: Sequence[Thumbnail], sources: str) -> Section:
    """The contact sheet, a frame a class.

    Parameters
    ----------
    drawn : the pictures of all cells that have one, in order
    sources : where they were looked for, or why they were not
    """
    pictures = iter(drawn)
    frames = [_frame(snapshot, row, pictures) for row in rows]
    count = len(present(snapshot.splits))
    classes = counted(count, "class", "classes")
    if count > len(rows):
        classes = f"{len(rows)} of {classes}, evenly spread"
    said = f"{classes}. This is what is stored, mean and std taken back. {sources}"
    lost = Counter(cell.why_not for row in rows for sample in row.samples for cell in sample.cells if cell.why_not)
    remarks = [f"{counted(number, 'image')} cannot be shown below: {why}" for why, number in lost.items()]
    stored = [cell.few_levels for row in rows for sample in row.samples for cell in sample.variants if not cell.why_not]
    if sum(stored) > _NOTABLE_SHARE * len(stored):
        remarks.append(
            f"{sum(stored):,} of {counted(len(stored), 'stored image')} shown below use fewer than {LEAST_LEVELS} of "
            "256 levels: nearly black, or flat; of 16-bit sources decode: {levels: [lo, hi]} in the recipe keeps more"
        )
    return Section("Images", f'<p class="faint">{text(said)}</p>{"".join(frames)}', remarks)


def _frame(snapshot: Snapshot, row: Row, pictures: Iterator[Thumbnail]) -> str:
    counts = ", ".join(f"{split} {count:,}" for split, count in row.counts.items())
    stored = sum(count * snapshot.splits[split].variants for split, count in row.counts.items())
    more = stored - sum(len(sample.variants) for sample in row.samples)
    left = f"; {more:,} more images" if more > 1 else "; one more image" if more else ""
    samples = "".join([_sample(sample, pictures) for sample in row.samples])
    return card(
        f"<h3>{text(_class(snapshot, row.label))} <small>{text(counts + left)}</small></h3>",
        f'<div class="samples">{samples}</div>',
    )


def _sample(sample: Sample, pictures: Iterator[Thumbnail]) -> str:
    cells = "".join([_cell(sample, cell, pictures) for cell in sample.cells])
    height, width = sample.source_hw
    name = text(sample.path.rpartition("/")[2])
    return (
        f'<figure class="sample" title="{text(sample.path)}"><div class="strip">{cells}</div>'
        f"<figcaption>{text(sample.split)}: {name} ({width} × {height})</figcaption></figure>"
    )


def _cell(sample: Sample, cell: Cell, pictures: Iterator[Thumbnail]) -> str:
    kind = "cell source" if cell is sample.source else "cell"
    if cell.image is None:
        picture = f'<div class="lost">{text(cell.why_not)}</div>'
    else:
        uri, height, width = next(pictures)
        small = ' class="small"' if max(height, width) < 64 else ""
        alt = text(f"{cell.title} of {printable(sample.path)}")
        picture = f'<img src="{uri}" width="{width}" height="{height}" alt="{alt}"{small}>'
    return f'<div class="{kind}">{picture}<small>{text(cell.title)}</small></div>'


def balance(snapshot: Snapshot) -> Section:
    """Samples of each class, by split."""
    labelled = {name: table for name, table in snapshot.splits.items() if len(table) and table["label"].max() >= 0}
    if not labelled:
        return Section("Class balance", '<p class="faint">No sample has a label.</p>', [])
    counts = {
        name: np.bincount(table["label"][table["label"] >= 0], minlength=len(snapshot.classes))
        for name, table in labelled.items()
    }
    total = sum(counts.values(), np.zeros(1, np.int64))
    names = [_class(snapshot, label) for label in range(len(total))]
    order, gap, title = np.arange(len(total)), None, "Samples by class"
    if len(total) > _CLASSES_IN_PLOT:
        order, gap = np.argsort(-total, kind="stable"), _CLASSES_IN_PLOT // 2
        order = np.concatenate([order[:gap], order[-gap:]])
        title = f"The {gap} largest and the {gap} smallest of {len(total):,} classes"
    short = [n if len(n) <= _NAME_IN_PLOT else f"{n[: _NAME_IN_PLOT - 1]}…" for n in (names[label] for label in order)]
    plot = plots.class_balance(short, {name: values[order] for name, values in counts.items()}, gap)
    summary = table(
        ["split", "samples", "variants", "classes", "smallest", "median", "largest"],
        [
            [
                *(printable(name), f"{len(t):,}", t.variants, f"{(c > 0).sum():,}"),
                *(f"{c.min():,}", f"{np.median(c):g}", f"{c.max():,}"),
            ]
            for (name, t), c in zip(labelled.items(), counts.values())
        ],
    )
    every = folded(
        "Every class",
        table(
            ["class", *map(printable, counts)],
            [[name, *(f"{c[label]:,}" for c in counts.values())] for label, name in enumerate(names[:_LISTED_CLASSES])],
        ),
        _rest(len(names), _LISTED_CLASSES, "classes"),
    )
    body = f'<div class="cards">{card(f"<h3>{title}</h3>", plot)}{card(summary, every)}</div>'
    return Section("Class balance", body, _about_balance(counts, names))


def _about_balance(counts: Mapping[str, np.ndarray], names: Sequence[str]) -> list[str]:
    remarks = []
    for split, values in counts.items():
        empty = [name for name, count in zip(names, values.tolist()) if not count]
        if empty:
            more = ", …" if len(empty) > _MISSING_NAMED else ""
            what = counted(len(empty), "class has", "classes have")
            remarks.append(f"{printable(split)}: {what} no image: {', '.join(empty[:_MISSING_NAMED])}{more}")
        some = values[values > 0]
        if some.max() >= _NOTABLE_RATIO * some.min():
            ratio = some.max() / some.min()
            remarks.append(f"{printable(split)}: the largest class has {ratio:.0f} times the images of the smallest")
    return remarks


def sizes(cache: Cache) -> Section:
    """How large the sources are, and what the recipe makes of it."""
    snapshot = cache.snapshot
    filled = {name: t for name, t in snapshot.splits.items() if len(t)}
    if not filled:
        return Section("Source sizes", '<p class="faint">There is no sample.</p>', [])
    every = np.concatenate([t["source_hw"] for t in filled.values()])
    tensor_hw = snapshot.recipe["size"][0], snapshot.recipe["size"][1]
    lines = []
    for name, values in (
        ("width", every[:, 1]),
        ("height", every[:, 0]),
        ("width / height", every[:, 1] / every[:, 0]),
    ):
        low, middle, high = np.quantile(values, [0, 0.5, 1])
        lines.append([name, *(f"{v:.2f}" if "/" in name else f"{v:,.0f}" for v in (low, middle, high))])
    sides = card(
        "<h3>Sides of the sources</h3>",
        plots.source_sizes(every, tensor_hw),
        table(["pixels", "smallest", "median", "largest"], lines),
    )
    body, remarks = _scaling(cache, filled)
    return Section("Source sizes", f'<div class="cards">{sides}{body}</div>', remarks)


def _scaling(cache: Cache, filled: Mapping[str, SplitTable]) -> tuple[str, list[str]]:
    found: dict[str, Scales] = {}
    notes, remarks = [], []
    for name, table_ in filled.items():
        try:
            rendering = stored_rendering(cache.tensors(name).attributes)
        except CacheStoreError:
            notes.append(f"{printable(name)}: its tensors' metadata are damaged")
            continue
        one = scales(table_, rendering)
        if one.untold:
            notes.append(f"{printable(name)}: {one.untold} and what follows it is not accounted for")
        if len(one.factors):
            found[name] = one
        else:
            notes.append(f"{printable(name)}: no factor can be told")
    if not found:
        return card("<h3>Enlarged or shrunk</h3>", items(notes)), []
    lines = []
    for name, one in found.items():
        enlarged, as_is, shrunk = one.counts()
        low, middle, high = np.quantile(one.factors, [0, 0.5, 1])
        count = len(one.factors)
        lines.append([printable(name), f"{count:,}", _share(enlarged, count), _share(as_is, count)])
        lines[-1] += [_share(shrunk, count), *(f"{factor:.2f}" for factor in (low, middle, high))]
        if count < one.total:
            notes.append(f"{printable(name)}: {count:,} of {one.total:,} variants were looked at")
        if enlarged > _NOTABLE_SHARE * count:
            remarks.append(
                f"{printable(name)}: {_share(enlarged, count)} of the variants are enlarged, up to {high:.1f} times"
            )
    heads = ["split", "variants", "enlarged", "as is", "shrunk", "least", "median", "most"]
    return card(
        "<h3>Enlarged or shrunk by the recipe</h3>",
        plots.scale_factors({printable(name): one.factors for name, one in found.items()}),
        table(heads, lines),
        '<p class="faint">Factor a side, from the file to what is seen in the tensor.</p>',
        items(notes) if notes else "",
        folded("Most enlarged", table(["file", "factor"], _most_enlarged(filled, found), "words")),
    ), remarks


def _most_enlarged(filled: Mapping[str, SplitTable], found: Mapping[str, Scales]) -> list[list[str]]:
    candidates = []
    for name, one in found.items():
        paths = Paths.of(filled[name]["path"], filled[name]["path_end"])
        for place in np.argsort(-one.factors, kind="stable")[:_MOST_ENLARGED].tolist():
            sample, variant = int(one.samples[place]), int(one.variants[place])
            height, width = filled[name]["source_hw"][sample].tolist()
            which = f", variant {variant}" if filled[name].variants > 1 else ""
            what = f"{printable(paths[sample])} ({width} × {height}{which})"
            candidates.append((float(one.factors[place]), what))
    candidates.sort(key=lambda candidate: -candidate[0])
    return [[what, f"{factor:.2f}"] for factor, what in candidates[:_MOST_ENLARGED]]


def statistics(snapshot: Snapshot) -> Section:
    """mean and std by channel: in force, and of the images as they are."""
    in_force: Statistics | None = next(((t.mean, t.std) for t in snapshot.splits.values()), None)
    pixels = math.prod(snapshot.recipe["size"])
    now = current_statistics(snapshot.splits, pixels)
    if in_force is None or now is None:
        return Section("Mean and std", '<p class="faint">There is no sample.</p>', [])
    channels = ["red", "green", "blue"] if len(in_force[0]) == 3 else ["gray"]
    lines = [["in force", *_in_numbers(in_force)]]
    for name, t in snapshot.splits.items():
        if len(t):
            mean, std = exact_statistics(t["sum"], t["sumsq"], pixels)
            lines.append([f"{printable(name)}, as it is now", *_in_numbers((tuple(mean), tuple(std)))])
    amount = drift(in_force, now)
    pinned = snapshot.recipe["normalize"] == "dataset"
    said = f"What is in force is {amount:.2g} standard deviations off the images as they are now"
    said += "." if pinned else ", as the recipe gives it and not the images."
    remarks = []
    if pinned and amount >= NOTABLE_DRIFT:
        remarks.append(
            f"mean and std are pinned, and {amount:.2g} standard deviations off those of the images as they are now; "
            "decant build --refresh-stats takes these"
        )
    heads = ["in 0 to 1", *(f"mean, {c}" for c in channels), *(f"std, {c}" for c in channels)]
    return Section("Mean and std", card(table(heads, lines), f'<p class="faint">{text(said)}</p>'), remarks)


def _in_numbers(values: Statistics) -> list[str]:
    return [f"{value:.4f}" for part in values for value in part]


def failures(snapshot: Snapshot) -> Section:
    """Images that were left out, and why."""
    found = [
        (str(f.get("stage")), str(f.get("reason")), layout.text_to_name(str(f.get("path")))) for f in snapshot.failures
    ]
    if not found:
        return Section("Left out", '<p class="faint">No image was left out.</p>', [])
    reasons = Counter((stage, reason) for stage, reason, _ in found).most_common()
    body = card(
        table(["images", "stage", "reason"], [[f"{count:,}", *why] for why, count in reasons[:_LISTED]], "words"),
        _rest(len(reasons), _LISTED, "reasons"),
        folded(
            "Every file",
            table(["file", "stage", "reason"], [[path, stage, why] for stage, why, path in found[:_LISTED]], "words"),
            _rest(len(found), _LISTED, "files; decant status --json lists them all"),
        ),
    )
    return Section("Left out", body, [f"{counted(len(found), 'image was', 'images were')} left out"])


def equal_images(snapshot: Snapshot) -> Section:
    """Equal images in two splits, or under two labels."""
    lines = duplicates(snapshot.splits)
    if not lines:
        none = "No image is in two splits, and none has several labels."
        return Section("Duplicates and leakage", f'<p class="faint">{none}</p>', [])
    return Section("Duplicates and leakage", card(items(lines)), lines)


def snapshots(cache: Path) -> Section:
    """The history of a cache, newest first."""
    entries = history(cache)
    lines = [_snapshot(cache, entry) for entry in entries[:_LISTED_SNAPSHOTS]]
    heads = ["snapshot", "created", "samples", "classes", "left out", "on disk", "build time"]
    body = card(
        table(heads, lines),
        _rest(len(entries), _LISTED_SNAPSHOTS, "older ones"),
        '<p class="faint">On disk: tables, and all shards that a snapshot uses; snapshots share shards.</p>',
    )
    damaged = sum(1 for entry in entries if entry.damage)
    remarks = [f"{counted(damaged, 'snapshot')} cannot be read: run decant verify"] if damaged else []
    return Section("Snapshots", body, remarks)


def _snapshot(cache: Path, entry: Entry) -> list[str]:
    name = f"{entry.name}, in force" if entry.current else entry.name
    if entry.damage:
        return [name, "cannot be read", "", "", "", "", ""]
    variants = entry.variants or {}
    samples = [
        f"{printable(split)} {count:,}" + (f" × {variants[split]}" if variants[split] > 1 else "")
        for split, count in (entry.samples or {}).items()
    ]
    try:
        with open_cache(cache, entry.name) as opened:
            size = in_units(disk_usage(cache, opened.snapshot)[0])
    except (CacheStoreError, OSError):  # damaged, or removed by a gc that runs meanwhile
        size = "?"
    numbers = [f"{entry.classes:,}", f"{entry.failures:,}", size, f"{entry.seconds:,.1f} s"]
    return [name, entry.created, ", ".join(samples), *numbers]


def recipe(snapshot: Snapshot) -> Section:
    """What the snapshot was built by, every default spelled out."""
    written = yaml.safe_dump(snapshot.recipe, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100)
    return Section("Recipe", card(folded("With every default spelled out", block(written))), [])


def counted(number: int, one: str, several: str = "") -> str:
    """A number and what it counts."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def _class(snapshot: Snapshot, label: int) -> str:
    if label == UNLABELLED:
        return "unlabelled"
    return printable(snapshot.classes[label])


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if part in (0, whole) or 0.01 <= part / whole <= 0.99 else f"{part / whole:.2%}"


def _rest(count: int, listed: int, what: str) -> str:
    return f'<p class="faint">… and {count - listed:,} more {what}</p>' if count > listed else ""
