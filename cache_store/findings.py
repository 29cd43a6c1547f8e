"""What `verify` found: a value that says it to a person, to a program, and to `repair`."""

import json
from dataclasses import asdict, dataclass

FOREIGN = "foreign"
GROUP = "group"
IMAGE = "image"
ROOT = "root"
SHARD = "shard"
SNAPSHOT = "snapshot"
TABLE = "table"
TENSORS = "tensors"

_SHOWN_FINDINGS = 20
_SHOWN_SAMPLES = 5


@dataclass(frozen=True, slots=True)
class Sample:
    """One variant of one sample, as a snapshot names it; `path` relative to SOURCE."""

    snapshot: str
    split: str
    path: str
    variant: int

    def __str__(self) -> str:
        return f"{_printable(f'{self.split}: {self.path}')} variant {self.variant} (snapshot {self.snapshot})"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it was committed.

    Attributes
    ----------
    kind : ROOT, GROUP (a `zarr.json` of fixed content), SNAPSHOT (its own `zarr.json`), TABLE (a file that a snapshot
        lists), TENSORS and IMAGE (their `zarr.json`), SHARD, or FOREIGN (nothing of ours)
    file : relative to the cache
    problem : what is wrong with it
    snapshot : of a SNAPSHOT or TABLE
    tensors_id, shard : of a SHARD; the former of TENSORS and IMAGE too
    slots : of a SHARD, counted over the whole array: those that a snapshot needs and that cannot be read rightly
    samples : what is lost by that, newest snapshot first; at most `verify.MOST_SAMPLES` in a report
    """

    kind: str
    file: str
    problem: str
    snapshot: str | None = None
    tensors_id: str | None = None
    shard: int | None = None
    slots: tuple[int, ...] = ()
    samples: tuple[Sample, ...] = ()

    def lines(self) -> list[str]:
        """For a person: the file and its problem, then the samples that are lost."""
        shown = [f"{_printable(self.file)}: {self.problem}"]
        shown += [f"    {sample}" for sample in self.samples[:_SHOWN_SAMPLES]]
        if len(self.samples) > _SHOWN_SAMPLES:
            shown.append(f"    … and {len(self.samples) - _SHOWN_SAMPLES:,} more")
        return shown


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was read, what is damaged, and what is merely left over.

    Attributes
    ----------
    snapshot : the one in force; None if there is none, or the root does not say
    snapshots : all that were verified, oldest first
    files, read_bytes : read
    findings : damage
    notes : leftovers of builds that were killed and the like, a line each; no damage
    """

    cache: str
    snapshot: str | None
    snapshots: tuple[str, ...]
    files: int
    read_bytes: int
    seconds: float
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]

    @property
    def sound(self) -> bool:
        return not self.findings

    @property
    def exit_code(self) -> int:
        return 0 if self.sound else 6

    def to_json(self) -> str:
        return json.dumps({"sound": self.sound} | asdict(self), indent=2)

    def __str__(self) -> str:
        speed = self.read_bytes / 2**20 / self.seconds if self.seconds else 0
        read = f"{self.files:,} files, {self.read_bytes / 2**20:,.1f} MiB in {self.seconds:.1f} s, {speed:,.0f} MiB/s"
        lines = [f"note: {note}" for note in self.notes]
        if self.sound:
            kept = ", ".join(self.snapshots) or "none yet"
            return "\n".join([*lines, f"{self.cache} is sound: every byte is as committed ({read}; snapshots: {kept})"])
        lines += [line for finding in self.findings[:_SHOWN_FINDINGS] for line in finding.lines()]
        if len(self.findings) > _SHOWN_FINDINGS:
            lines.append(f"… and {len(self.findings) - _SHOWN_FINDINGS:,} more (all of them with --json)")
        lost = counted(len({(s.split, s.path, s.variant) for f in self.findings for s in f.samples}), "tensor")
        lines.append(
            f"{self.cache} is damaged: {counted(len(self.findings), 'finding')}, {lost} lost ({read}); "
            "run: decant repair SOURCE CACHE"
        )
        return "\n".join(lines)


def counted(count: int, what: str) -> str:
    """'1 file', '2 files'."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _printable(name: str) -> str:
    return name if name.isprintable() else repr(name)
