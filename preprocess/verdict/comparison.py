"""What the figures of a verdict mean together."""

import os

from preprocess.report import in_units
from preprocess.verdict import arithmetic
from preprocess.verdict.report import Verdict


def compare(verdict: Verdict) -> None:
    """Fill in shares of waiting, seconds an epoch, when the build has paid for itself, and notes."""
    verdict.notes = _notes(verdict)
    way, cached, step_s = verdict.imagefolder, verdict.cached, verdict.step.seconds
    if step_s is None:
        return
    rates = {
        "imagefolder": (way.images_per_s, bool(way.workers) and not verdict.step.shares_cores),
        "warm": (cached.warm, False),
        "cold": (cached.cold, False),
        "cold_shuffled": (cached.cold_shuffled, False),
    }
    steps = verdict.samples / verdict.batch_size
    for name, (rate, overlapped) in rates.items():
        if rate is not None:
            load_s = verdict.batch_size / rate
            verdict.waiting[name] = arithmetic.waiting(load_s, step_s, overlapped=overlapped)
            verdict.epoch_s[name] = steps * arithmetic.step_s(load_s, step_s, overlapped=overlapped)
    if "imagefolder" in verdict.epoch_s and "warm" in verdict.epoch_s:
        verdict.saved_s = verdict.epoch_s["imagefolder"] - verdict.epoch_s["warm"]
        verdict.break_even_epochs = arithmetic.break_even(verdict.build.seconds, verdict.saved_s)


def _notes(verdict: Verdict) -> list[str]:
    way, cached, build = verdict.imagefolder, verdict.cached, verdict.build
    notes = [f"ImageFolder, num_workers={each.workers}: {each.why}" for each in way.settings if each.why is not None]
    hint = "" if verdict.cache is not None else "; name a CACHE on the disk that is meant"
    notes += [f"the cache, {name}: not measured: {why}{hint * (name == 'cold')}" for name, why in cached.why.items()]
    if way.left_out:
        notes.append(
            f"ImageFolder was measured without {', '.join(way.left_out)}: nothing of torchvision's stands for it"
        )
    if verdict.step.shares_cores:
        notes.append(
            "the model was timed on the CPU, whose cores it shares with ImageFolder's workers, so they save no time. "
            "Give the speed of your own model, or of a GPU, with --steps-per-s"
        )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if build.bytes_float16 > memory:
        notes.append(f"in float16 it is larger than the memory of {in_units(memory)}: expect the figures of a cold one")
    return notes
