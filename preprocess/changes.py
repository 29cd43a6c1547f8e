"""What became of the files of a snapshot, as `git status` tells it: by path and digest."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cache_store.manifest import SplitTable
from preprocess.plan import Plan


@dataclass(slots=True)
class Changes:
    """Files by what happened to them, in the order of the folder.

    Attributes
    ----------
    new, edited, removed : paths relative to SOURCE
    renamed, relabelled : (old path, new path) of equal content; the latter are in another class now
    """

    new: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str]] = field(default_factory=list)
    relabelled: list[tuple[str, str]] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Known:
    digest: bytes
    class_name: str


def changes_of(
    plan: Plan, numbers: np.ndarray, former: Mapping[str, SplitTable], classes: tuple[str, ...], failed: set[str]
) -> Changes:
    """Compare the usable sources of a plan with the tables of a snapshot.

    Parameters
    ----------
    numbers : of the sources that are samples now
    classes : class names of the snapshot, by id
    failed : paths that the snapshot lists as failed; one of them that is a sample now counts as edited
    """
    sources, result = plan.sources, Changes()
    before: dict[str, _Known] = {}
    for table in former.values():
        for name, digest, label in zip(table.paths(), table["digest"], table["label"].tolist(), strict=True):
            before[os.fsdecode(name)] = _Known(digest.tobytes(), classes[label] if label >= 0 else "")
    present = set(sources.paths)
    gone: dict[bytes, list[str]] = {}
    for path, known in before.items():
        if path not in present:
            gone.setdefault(known.digest, []).append(path)
    matched: set[str] = set()
    for number in numbers.tolist():
        path = sources.paths[number]
        digest = sources.digests[number].tobytes() if sources.known[number] else None
        if path in before:
            if before[path].digest != digest:
                result.edited.append(path)
        elif digest is not None and gone.get(digest):
            old = gone[digest].pop(0)
            matched.add(old)
            label = int(sources.labels[number])
            same_class = before[old].class_name == (plan.classes[label] if label >= 0 else "")
            (result.renamed if same_class else result.relabelled).append((old, path))
        else:
            (result.edited if path in failed else result.new).append(path)
    result.removed = [path for path in before if path not in present and path not in matched]
    return result
