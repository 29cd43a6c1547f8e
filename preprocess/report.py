"""What a build did, for a person and for a machine."""

import json
import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from preprocess.advice import shares
from preprocess.rendering import IN_WORDS

_LISTED_FAILURES = 10
_COLUMNS = 80


@dataclass(slots=True)
class BuildReport:
    """The outcome of one build.

    Attributes
    ----------
    cache : the cache's folder
    snapshot : name of the snapshot in force; None after a dry run into a new cache
    up_to_date : nothing was to be done, no snapshot was made
    dry_run : nothing was written
    samples : split -> number of samples
    variants : split -> K
    engines : split -> what renders it, see `rendering.IN_WORDS`
    classes : how many there are
    rendered, reused : variants rendered now, and taken from the cache or an interrupted build
    normalised : of the reused ones, those written anew with another normalisation; no image was decoded for them
    failures : path, stage, reason of each image that was left out
    mean, std : in force, in 0..1, one value a channel
    drift : how far pinned statistics are from those of the images now, in pinned standard deviations
    seconds : part of the build -> wall time
    stages : what workers were at -> seconds, the mean of them (`clock.STAGES`), and 'sync', the builder's wait for the
        medium
    transforms : splits, name and seconds (the mean of the workers) of each of the recipe's transforms; without those
        that the GPU renders
    advice : what bounded the build, and what would change that; empty if it was short
    cache_bytes : size of the cache's shards and tables that the snapshot uses
    peak_bytes, free_bytes : dry run: largest size on disk while building, against free space
    estimated_s : dry run: time, from rendered samples
    read_formerly : way of reading (`readers.DECODERS`) -> number of images that would be read in this way now, while
        an earlier version of decant has read their tensors differently
    reclaimable_bytes : what `gc` would free
    departures : what differs from the expected, a line each
    class_counts : class, in the order of their ids -> images in all splits
    unlabelled : splits whose images have no class: their labels are -1
    shift : class ids that mean another class than before, one line; empty if none does
    """

    cache: str
    snapshot: str | None = None
    up_to_date: bool = False
    dry_run: bool = False
    samples: dict[str, int] = field(default_factory=dict)
    variants: dict[str, int] = field(default_factory=dict)
    engines: dict[str, str] = field(default_factory=dict)
    classes: int = 0
    rendered: int = 0
    reused: int = 0
    normalised: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)
    mean: list[float] = field(default_factory=list)
    std: list[float] = field(default_factory=list)
    drift: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    transforms: list[dict[str, Any]] = field(default_factory=list)
    advice: str = ""
    cache_bytes: int = 0
    peak_bytes: int = 0
    free_bytes: int = 0
    estimated_s: float = 0.0
    reclaimable_bytes: int = 0
    read_formerly: dict[str, int] = field(default_factory=dict)
    departures: list[str] = field(default_factory=list)
    class_counts: dict[str, int] = field(default_factory=dict)
    unlabelled: list[str] = field(default_factory=list)
    shift: str = ""

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        lines = self._dry_run_lines() if self.dry_run else self._lines()
        return "\n".join([self.shift, *lines] if self.shift else lines)

    def _lines(self) -> list[str]:
        head = f"up to date: snapshot {self.snapshot}" if self.up_to_date else f"built snapshot {self.snapshot}"
        lines = [f"{head} of {self.cache}", *self._sample_lines()]
        if not self.up_to_date:
            anew = f", {self.normalised:,} of them normalised anew" if self.normalised else ""
            lines.append(f"  variants   {self.rendered:,} rendered, {self.reused:,} reused{anew}")
        lines.append(f"  mean, std  {numbers_in_words(self.mean)}, {numbers_in_words(self.std)}")
        lines.append(f"  time       {', '.join(f'{stage} {s:.1f} s' for stage, s in self.seconds.items())}")
        if self.stages:
            parts = shares(self.stages).items()
            lines.append(f"  workers at {', '.join(f'{stage} {share:.0%}' for stage, share in parts)}")
        free = f"; decant gc would free {in_units(self.reclaimable_bytes)}" if self.reclaimable_bytes else ""
        lines.append(f"  on disk    {in_units(self.cache_bytes)}{free}")
        lines += self._failure_lines() + self._note_lines()
        split = self._split_to_train()
        if split in self.unlabelled:
            lines += ["", *textwrap.wrap(self._how_to_label(split), _COLUMNS)]
        else:
            lines += ["", "To train from it:", *(f"    {line}" for line in self.loading_lines())]
        return [*lines, "", *textwrap.wrap(self.advice, _COLUMNS)] if self.advice else lines

    def loading_lines(self) -> list[str]:
        """Three lines of Python that load the first split, or the first one with labels."""
        split = self._split_to_train()
        return [
            "from loaders import CachedDataset",
            "from torch.utils.data import DataLoader",
            f"loader = DataLoader(CachedDataset({self.cache!r}, split={split!r}), batch_size=256, shuffle=True)",
        ]

    def _split_to_train(self) -> str:
        labelled = [name for name in self.samples if name not in self.unlabelled]
        return "train" if "train" in self.samples else next(iter([*labelled, *self.samples]), "train")

    def _how_to_label(self, split: str) -> str:
        return (
            f"The images of split {split!r} have no labels: each is -1, which a loss refuses as out of bounds. Either "
            "put the images into a folder for each class and build again, which renders nothing anew; or give "
            f"CachedDataset({self.cache!r}, split={split!r}, targets=…) a tensor, an array or a dict by path."
        )

    def _dry_run_lines(self) -> list[str]:
        free = f"; decant gc would free {in_units(self.reclaimable_bytes)}" if self.reclaimable_bytes else ""
        fits = "fits" if self.peak_bytes <= self.free_bytes else f"DOES NOT FIT{free}"
        lines = [
            f"dry run, nothing was written to {self.cache}",
            *self._sample_lines(),
            f"  variants   {self.rendered:,} to render, {self.reused:,} in the cache already",
            f"  on disk    {in_units(self.peak_bytes)} more at its peak, {in_units(self.free_bytes)} free: {fits}",
            f"  time       about {self.estimated_s:.0f} s, from rendered samples",
            f"  engine     {engines_in_words(self.engines)}",
        ]
        return lines + self._failure_lines() + self._note_lines()

    def _note_lines(self) -> list[str]:
        return [f"  note       {text}" for text in self.departures if text != self.shift]

    def _sample_lines(self) -> list[str]:
        lines = [f"  samples    {self._counts()}, {self.classes} classes"]
        return lines + ([f"  classes    {classes_in_words(self.class_counts)}"] if self.class_counts else [])

    def _counts(self) -> str:
        parts = []
        for name, count in self.samples.items():
            k = self.variants.get(name, 1)
            parts.append(f"{name} {count:,}" + (f" x {k} variants" if k > 1 else ""))
        return ", ".join(parts)

    def _failure_lines(self) -> list[str]:
        if not self.failures:
            return []
        reasons: dict[str, int] = {}
        for failure in self.failures:
            reasons[f"{failure['stage']}: {failure['reason']}"] = (
                reasons.get(f"{failure['stage']}: {failure['reason']}", 0) + 1
            )
        by_count = sorted(reasons.items(), key=lambda item: -item[1])
        count = len(self.failures)
        lines = [f"  failed     {count:,} {'image was' if count == 1 else 'images were'} left out:"]
        for reason, count in by_count[:_LISTED_FAILURES]:
            paths = [f["path"] for f in self.failures if f"{f['stage']}: {f['reason']}" == reason]
            more = f" and {count - 1:,} more" if count > 1 else ""
            lines.append(f"    {printable(paths[0])}{more}: {reason}")
        if len(by_count) > _LISTED_FAILURES:
            lines.append(f"    … and {len(by_count) - _LISTED_FAILURES} more reasons (all of them with --json)")
        return lines


def printable(name: str) -> str:
    """A file name on one line, whatever bytes it is made of."""
    return name if name.isprintable() else repr(name)


def classes_in_words(counts: Mapping[str, int]) -> str:
    """The first and last few classes, with how many images each has.

    >>> classes_in_words({name: place for place, name in enumerate("abcdefgh")})
    'a 0, b 1, c 2, …, g 6, h 7'
    """
    shown = [f"{printable(name)} {count:,}" for name, count in counts.items()]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "…", *shown[-2:]])


def engines_in_words(engines: Mapping[str, str]) -> str:
    """What renders; split by split only if they differ."""
    words = {name: IN_WORDS[engine] for name, engine in engines.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{name}: {engine}" for name, engine in words.items())


def in_units(count: float) -> str:
    """Bytes for a person, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def numbers_in_words(values: list[float]) -> str:
    """mean or std, one value a channel."""
    return "[" + ", ".join(f"{value:.4f}" for value in values) + "]"
