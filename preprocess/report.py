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
    reclaimable_bytes : what `gc` would free
    departures : what differs from the expected, a line each
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
    departures: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        if self.dry_run:
            return self._dry_run_lines()
        head = f"up to date: snapshot {self.snapshot}" if self.up_to_date else f"built snapshot {self.snapshot}"
        lines = [f"{head} of {self.cache}", f"  samples    {self._counts()}, {self.classes} classes"]
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
        lines += self._failure_lines() + [f"  note       {text}" for text in self.departures]
        lines += ["", "To train from it:", *(f"    {line}" for line in self.loading_lines())]
        return [*lines, "", *textwrap.wrap(self.advice, _COLUMNS)] if self.advice else lines

    def loading_lines(self) -> list[str]:
        """Three lines of Python that load the first split."""
        split = next(iter(self.samples), "train")
        return [
            "from loaders import CachedDataset",
            "from torch.utils.data import DataLoader",
            f"loader = DataLoader(CachedDataset({self.cache!r}, split={split!r}), batch_size=256, shuffle=True)",
        ]

    def _dry_run_lines(self) -> list[str]:
        fits = "fits" if self.peak_bytes <= self.free_bytes else "DOES NOT FIT"
        lines = [
            f"dry run, nothing was written to {self.cache}",
            f"  samples    {self._counts()}, {self.classes} classes",
            f"  variants   {self.rendered:,} to render, {self.reused:,} in the cache already",
            f"  on disk    {in_units(self.peak_bytes)} more at its peak, {in_units(self.free_bytes)} free: {fits}",
            f"  time       about {self.estimated_s:.0f} s, from rendered samples",
            f"  engine     {engines_in_words(self.engines)}",
        ]
        return lines + self._failure_lines() + [f"  note       {text}" for text in self.departures]

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
