"""What an appraisal found, for a person and for a machine."""

import json
import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

from preprocess.report import in_units, printable

_WIDTH = 80
_NAMES = 14
_LISTED_FAILURES = 5
WORTH_WAITING = 0.02
"""A step that waits for less than this part of its time gains nothing that anybody would notice."""


@dataclass(slots=True)
class Setting:
    """ImageFolder with one number of workers.

    Attributes
    ----------
    workers : num_workers
    images_per_s : None if it could not be measured
    why : why not
    """

    workers: int
    images_per_s: float | None = None
    why: str | None = None


@dataclass(slots=True)
class ImageFolderWay:
    """torchvision's ImageFolder in a DataLoader; page cache warm.

    Attributes
    ----------
    transforms : torchvision's names, in order, that stand for the recipe's
    left_out : transforms of the recipe that torchvision has no counterpart for: the figures lack their time
    settings : num_workers as swept
    workers, images_per_s : the best of them; None if none could be measured
    batch : images a batch while sweeping
    """

    transforms: list[str]
    left_out: list[str]
    settings: list[Setting] = field(default_factory=list)
    workers: int | None = None
    images_per_s: float | None = None
    batch: int | None = None


@dataclass(slots=True)
class CacheWay:
    """A plain DataLoader over a CachedDataset, num_workers=0; images a second.

    Attributes
    ----------
    measured : 'cache': CACHE itself; 'sample': the temporary one
    warm, warm_float16 : pages in memory, float32 and as float16, shuffle=True; median epoch
    cold, cold_shuffled : pages on disk, float32, ShardShuffleSampler and shuffle=True; a first epoch
    why : figure -> why it is None
    """

    measured: str
    warm: float | None = None
    warm_float16: float | None = None
    cold: float | None = None
    cold_shuffled: float | None = None
    why: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class TrainingStep:
    """A training step that has its batch at once.

    Attributes
    ----------
    seconds : of a whole batch; None if it could not be measured
    origin : 'given', or the model that was timed
    device : where; None if given
    shares_cores : the CPU was timed: workers then take from the model what they use
    why : why it could not be measured
    """

    seconds: float | None
    origin: str
    device: str | None = None
    shares_cores: bool = False
    why: str | None = None


@dataclass(slots=True)
class FullBuild:
    """`decant build` of the whole folder, on this machine; extrapolated from the sample's.

    Attributes
    ----------
    seconds : of all of it
    images, tensors : how many that are, as expected
    images_per_s : without start-up
    bound_by, bound_share : the stage that takes most of the time, and which part of it, 0..1
    advice : what would make it faster, as `BuildReport` has it; empty if the sample was built in a moment
    dtype : that the recipe stores: float16 or uint8
    bytes_float16, bytes_uint8 : on disk at most: equal files are stored once
    free_bytes : on that disk
    """

    seconds: float
    images: int
    tensors: int
    images_per_s: float
    bound_by: str
    bound_share: float
    advice: str
    dtype: str
    bytes_float16: int
    bytes_uint8: int
    free_bytes: int


@dataclass(slots=True)
class Verdict:
    """Whether a cache is worth it, measured on a sample.

    Attributes
    ----------
    source, cache : as given; cache None: there is none yet
    images, sampled : in SOURCE, and built for the sample
    failures : path, stage, reason of each sampled image that cannot be used
    split : the split whose figures are given, the recipe's first
    samples : it has, as expected
    variants, shape : K, and C, H, W
    dtype, batch_size : of the batches that both ways deliver, normalised
    processors : that were there to use
    load : of the machine in the minute before, by others: programs that wanted a processor
    imagefolder, cached, step, build : what was measured
    waiting : 'imagefolder', 'warm', 'cold', 'cold_shuffled' -> which part of a step is spent waiting, 0..1, see
        `arithmetic`; without those that lack a figure
    epoch_s : the same -> seconds of an epoch
    expected : 'warm', or 'cold' where the cache does not fit into memory: the figure of it that counts
    saved_s : an epoch, by the cache as expected; None without a figure
    break_even_epochs : after so many the build has paid for itself; None: never, or without a figure
    seconds : that all of this took
    notes : what else is worth knowing, a line each
    """

    source: str
    images: int
    sampled: int
    failures: list[dict[str, Any]]
    split: str
    samples: int
    variants: int
    shape: tuple[int, int, int]
    batch_size: int
    processors: int
    imagefolder: ImageFolderWay
    cached: CacheWay
    step: TrainingStep
    build: FullBuild
    cache: str | None = None
    load: float = 0.0
    dtype: str = "float32"
    waiting: dict[str, float] = field(default_factory=dict)
    epoch_s: dict[str, float] = field(default_factory=dict)
    expected: str = "warm"
    saved_s: float | None = None
    break_even_epochs: int | None = None
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        lines = [*self._head(), "", *self._table(), ""]
        for name, text in self._facts():
            lines += _wrapped(name, text)
        return "\n".join([*lines, "", *textwrap.wrap(self.conclusion(), _WIDTH)])

    def _head(self) -> list[str]:
        count = "all of them measured" if self.sampled >= self.images else f"{self.sampled:,} of them measured"
        each = f", {self.variants} variants" if self.variants > 1 else ""
        return [
            printable(self.source),
            f"{self.images:,} images, {count} in {self.seconds:.0f} s on {_processors(self.processors)}",
            f"split {self.split!r}{each}, {self.dtype} batches of {self.batch_size} x {'x'.join(map(str, self.shape))}",
        ]

    def _table(self) -> list[str]:
        best = self.imagefolder.workers
        what = "the cache" if self.cached.measured == "cache" else "a cache"
        rows = [
            (f"ImageFolder, num_workers={'-' if best is None else best}", "imagefolder"),
            (f"{what}, warm", "warm"),
            (f"{what}, cold, ShardShuffleSampler", "cold"),
            (f"{what}, cold, shuffle=True", "cold_shuffled"),
        ]
        rates = self.rates()
        lines = [f"{'':40}{'images/s':>12}{'steps/s':>12}{'waiting':>12}"]
        for name, key in rows:
            share = f"{self.waiting[key]:.0%}" if key in self.waiting else "-"
            lines.append(_row(name, rates[key], self.batch_size, share))
        seconds = self.step.seconds
        return [*lines, _row("the training step alone", seconds and self.batch_size / seconds, self.batch_size, "")]

    def _facts(self) -> list[tuple[str, str]]:
        """What to say below the table: name, text."""
        swept = ", ".join(
            f"{each.workers}: {'-' if each.images_per_s is None else in_digits(each.images_per_s)}"
            for each in self.imagefolder.settings
        )
        build, step = self.build, self.step
        stored = {"float16": build.bytes_float16, "uint8": build.bytes_uint8}
        bound = build.advice or f"bound by {build.bound_by} ({build.bound_share:.0%} of the time)"
        fits = "" if stored[build.dtype] <= build.free_bytes else f": {build.dtype} DOES NOT FIT"
        origin = step.origin + (f", on {step.device}" if step.device else "")
        facts = [
            (
                "ImageFolder",
                f"{', '.join(self.imagefolder.transforms)}; files in memory; images/s by num_workers: {swept or '-'}",
            ),
            ("step", origin if step.why is None else f"{origin}: not measured: {step.why}"),
            (
                "full build",
                f"{in_time(build.seconds)} for {build.images:,} images ({build.tensors:,} tensors), "
                f"{in_digits(build.images_per_s)} images/s; {bound}",
            ),
            (
                "on disk",
                f"{', '.join(f'{dtype} {in_units(size)}' for dtype, size in stored.items())}; "
                f"{in_units(build.free_bytes)} free{fits}",
            ),
        ]
        if self.break_even_epochs is not None and self.waiting["imagefolder"] >= WORTH_WAITING:
            many = f"{self.break_even_epochs:,} epoch{'s' * (self.break_even_epochs > 1)}"
            before, after = in_time(self.epoch_s["imagefolder"]), in_time(self.epoch_s[self.expected])
            facts.append(("pays after", f"{many}: one takes {after} instead of {before}"))
        return facts + [("failed", text) for text in self._failed()] + [("note", text) for text in self.notes]

    def _failed(self) -> list[str]:
        shown = [f"{printable(f['path'])}: {f['stage']}: {f['reason']}" for f in self.failures[:_LISTED_FAILURES]]
        more = len(self.failures) - len(shown)
        return [*shown, f"{more:,} more (all of them with --json)"] if more else shown

    def rates(self) -> dict[str, float | None]:
        """Images a second, under the names that `waiting` has."""
        cached = self.cached
        return {
            "imagefolder": self.imagefolder.images_per_s,
            "warm": cached.warm,
            "cold": cached.cold,
            "cold_shuffled": cached.cold_shuffled,
        }

    def _steps(self, name: str) -> float:
        return (self.rates()[name] or 0.0) / self.batch_size

    def conclusion(self) -> str:
        """Is it worth it, in a sentence or two."""
        if not {"imagefolder", self.expected} <= set(self.waiting):
            return "No verdict: a figure is missing, see above."
        before, after = self.waiting["imagefolder"], self.waiting[self.expected]
        keeps_up = (
            f"ImageFolder keeps up with {in_digits(self._steps('imagefolder'))} steps/s, "
            f"the cache with {in_digits(self._steps(self.expected))}"
        )
        shares = f"training waits for {before:.0%} of each step with ImageFolder, {after:.0%} with the cache"
        if self.break_even_epochs is None or before < WORTH_WAITING:
            return f"Verdict: not needed for speed, the model is slower than either way: {shares}. {keeps_up}."
        many = f"{self.break_even_epochs:,} epoch{'s' * (self.break_even_epochs > 1)}"
        return f"Verdict: {shares}; the build has paid for itself after {many}. {keeps_up}."


def in_time(seconds: float) -> str:
    """A duration for a person.

    >>> in_time(0.042), in_time(8.25), in_time(100), in_time(8000)
    ('0.04 s', '8.2 s', '1 min 40 s', '2 h 13 min')
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def _processors(count: int) -> str:
    return f"{count} processor{'s' * (count > 1)}"


def _row(name: str, rate: float | None, batch: int, share: str) -> str:
    numbers = f"{'-':>12}{'-':>12}" if not rate else f"{in_digits(rate):>12}{in_digits(rate / batch):>12}"
    return f"{name:<40}{numbers}{share:>12}".rstrip()


def in_digits(rate: float) -> str:
    """A rate for a person, with three digits or so.

    >>> in_digits(12345.6), in_digits(12.34), in_digits(0.0213)
    ('12,346', '12.3', '0.0213')
    """
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, initial_indent=f"{name:<{_NAMES}}", subsequent_indent=" " * _NAMES, break_on_hyphens=False
    )
