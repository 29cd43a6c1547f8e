"""Equal images where they do harm: in two splits, or under two labels. Told from digests alone."""

from collections.abc import Callable, Mapping

import numpy as np

from cache_store.manifest import SplitTable
from preprocess.report import printable

_SHOWN = 3


def duplicates(splits: Mapping[str, SplitTable]) -> list[str]:
    """A line for each pair of splits that share images, and one for images with several labels.

    Equal images of one label in one split are a matter of taste, and not reported.
    """
    tables = [table for table in splits.values() if len(table)]
    if not tables:
        return []
    owner = np.repeat(np.arange(len(splits)), [len(table) for table in splits.values()])
    digests = np.concatenate([table["digest"] for table in tables])
    labels = np.concatenate([table["label"] for table in tables])
    groups = _groups(digests)
    names = list(splits)
    starts = np.cumsum([0, *(len(table) for table in splits.values())])

    def path(number: int) -> str:
        split = owner[number]
        table = splits[names[split]]
        place = int(number - starts[split])
        ends = table["path_end"]
        start = int(ends[place - 1]) if place else 0
        name = table["path"][start : int(ends[place])].tobytes()
        return printable(name.decode("utf-8", "surrogateescape"))

    lines = []
    shared: dict[tuple[int, int], list[tuple[int, int]]] = {}
    contradicting = []
    for group in groups:
        firsts = {int(split): int(number) for split, number in zip(owner[group][::-1], group[::-1], strict=True)}
        ordered = sorted(firsts)
        for i, one in enumerate(ordered):
            for other in ordered[i + 1 :]:
                shared.setdefault((one, other), []).append((firsts[one], firsts[other]))
        if len(set(labels[group].tolist())) > 1:
            first = group[0]
            contradicting.append((int(first), int(next(n for n in group if labels[n] != labels[first]))))
    for (one, other), pairs in shared.items():
        lines.append(
            f"leakage: {len(pairs):,} {'image is' if len(pairs) == 1 else 'images are'} in {names[one]!r} and in "
            f"{names[other]!r} ({_shown(pairs, path)})"
        )
    if contradicting:
        count = len(contradicting)
        lines.append(
            f"{count:,} {'image has' if count == 1 else 'images have'} several labels ({_shown(contradicting, path)})"
        )
    return lines


def _shown(pairs: list[tuple[int, int]], path: Callable[[int], str]) -> str:
    more = ", …" if len(pairs) > _SHOWN else ""
    return ", ".join(f"{path(one)} = {path(other)}" for one, other in pairs[:_SHOWN]) + more


def _groups(digests: np.ndarray) -> list[np.ndarray]:
    """Numbers of equal digests, in order; only of those that occur twice or more.

    Sorted by eight of their sixteen bytes, which is all that most digests need.
    """
    keys = np.ascontiguousarray(digests[:, :8]).view("<u8").reshape(-1)
    order = np.argsort(keys, kind="stable")
    same = keys[order][1:] == keys[order][:-1]
    if not same.any():
        return []
    # A run of equal keys begins where the next one is equal and the former is not.
    begins = np.flatnonzero(same & ~np.concatenate([[False], same[:-1]]))
    ends = np.flatnonzero(same & ~np.concatenate([same[1:], [False]])) + 2
    groups = []
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        by_digest: dict[bytes, list[int]] = {}
        for number in order[begin:end].tolist():
            by_digest.setdefault(digests[number].tobytes(), []).append(number)
        groups += [np.array(numbers) for numbers in by_digest.values() if len(numbers) > 1]
    return sorted(groups, key=lambda group: int(group[0]))
