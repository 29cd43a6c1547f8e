"""What the figures of a verdict mean together."""

import os
from collections.abc import Iterator

from preprocess.report import in_units
from preprocess.verdict import arithmetic
from preprocess.verdict.report import WORTH_WAITING, Verdict

_BUSY = 0.5
"""Of the processors, in use by others: figures are not to be trusted."""


def compare(verdict: Verdict) -> None:
    """Fill in shares of waiting, seconds an epoch, when the build has paid for itself, and notes."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    build = verdict.build
    fits = {"float16": build.bytes_float16, "uint8": build.bytes_uint8}[build.dtype] <= memory
    verdict.expected = "warm" if fits else "cold"
    verdict.notes = list(_notes(verdict))
    if not fits:
        verdict.notes.append(f"it does not fit into the memory of {in_units(memory)}: expect the figures of a cold one")
    step_s = verdict.step.seconds
    if step_s is None:
        return
    steps = verdict.samples / verdict.batch_size
    for name, rate in verdict.rates().items():
        if rate is not None:
            by_workers = name == "imagefolder" and bool(verdict.imagefolder.workers)
            load_s, overlapped = verdict.batch_size / rate, by_workers and not verdict.step.shares_cores
            verdict.waiting[name] = arithmetic.waiting(load_s, step_s, overlapped=overlapped)
            verdict.epoch_s[name] = steps * arithmetic.step_s(load_s, step_s, overlapped=overlapped)
    verdict.notes += _fetched_ahead(verdict, step_s)
    if {"imagefolder", verdict.expected} <= set(verdict.epoch_s):
        verdict.saved_s = verdict.epoch_s["imagefolder"] - verdict.epoch_s[verdict.expected]
        verdict.break_even_epochs = arithmetic.break_even(build.seconds, verdict.saved_s)


def _fetched_ahead(verdict: Verdict, step_s: float) -> Iterator[str]:
    """What `to_device` makes of the waiting for the cache. Where the CPU trains, it would take from the model what it
    uses."""
    plain, rate = verdict.waiting.get(verdict.expected, 0.0), verdict.rates()[verdict.expected]
    if rate is not None and plain >= WORTH_WAITING and not verdict.step.shares_cores:
        ahead = arithmetic.waiting(verdict.batch_size / rate, step_s, overlapped=True)
        yield (
            f"the cache's {plain:.0%} of waiting are those of a plain loop, which loads and trains in turn; with "
            f"to_device(loader, device), which loads while a GPU trains, it is {ahead:.0%}"
        )


def _notes(verdict: Verdict) -> Iterator[str]:
    way = verdict.imagefolder
    if verdict.load > _BUSY * verdict.processors:
        yield (
            f"other programs kept the machine busy (load {verdict.load:.1f} on {verdict.processors}): all figures are "
            "too low, some far; run it again in a quiet moment"
        )
    for each in way.settings:
        if each.why is not None:
            yield f"ImageFolder, num_workers={each.workers}: {each.why}"
    hint = "" if verdict.cache is not None else "; name a CACHE on the disk that is meant"
    for name, why in verdict.cached.why.items():
        yield f"the cache, {name}: not measured: {why}{hint * (name == 'cold')}"
    if way.left_out:
        yield f"ImageFolder was measured without {', '.join(way.left_out)}: nothing of torchvision's stands for it"
    if verdict.step.shares_cores:
        yield (
            "the model was timed on the CPU, whose cores it shares with ImageFolder's workers, so they save no time. "
            "Give the speed of your own model, or of a GPU, with --steps-per-s"
        )
