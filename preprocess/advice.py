"""What bounded a build, and what would change that: one sentence from the times that its stages took. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SYNC = "sync"
"""Beside `clock.STAGES`: the builder's waits for bytes to reach the medium."""

_SHRINKING = frozenset(
    "CenterCrop Crop LongestMaxSize RandomCrop RandomResizedCrop RandomSizedCrop Resize SmallestMaxSize".split()
)
_AREA = 3  # cv2.INTER_AREA
_REDUCIBLE = 4
"""JPEGs so many times larger than the target, in both directions, are decoded at a half or less with decode.reduced."""

_LEAST_S = 0.5
"""Below this there is nothing to be gained."""


@dataclass(frozen=True, slots=True)
class TransformTime:
    """What one transform of the recipe took.

    Attributes
    ----------
    splits : whose transform it is
    name : of Albumentations
    seconds : of a worker, the mean of them
    arguments : canonical
    later : names of the transforms that come after it
    """

    splits: tuple[str, ...]
    name: str
    seconds: float
    arguments: Mapping[str, Any]
    later: tuple[str, ...]


def shares(stages: Mapping[str, float]) -> dict[str, float]:
    """Stage -> its part of all, the largest first; those that took nothing are left out.

    >>> shares({"read": 1.0, "decode": 3.0, "sync": 0.0})
    {'decode': 0.75, 'read': 0.25}
    """
    total = sum(stages.values())
    return {
        stage: seconds / total for stage, seconds in sorted(stages.items(), key=lambda item: -item[1]) if seconds > 0
    }


def advice(
    stages: Mapping[str, float],
    transforms: Sequence[TransformTime],
    *,
    dtype: str,
    reduced: bool,
    times_larger: float,
    workers: int,
) -> str:
    """What to change to build faster, after what bounded this build; empty where nothing is to be gained.

    Parameters
    ----------
    stages : stage -> seconds, of `clock.STAGES` and `SYNC`
    transforms : empty for an engine that does not time them
    dtype : of the recipe
    reduced : the recipe's decode.reduced
    times_larger : the smaller of height and width of the sources over that of the target, in the median; 0 where
        decode.reduced has nothing to offer: most of them are no JPEGs, or the GPU decodes them
    workers : processes
    """
    if sum(stages.values()) < _LEAST_S:
        return ""
    bound, share = next(iter(shares(stages).items()))
    if bound == "read":
        cure = (
            f"reading the images ({share:.0%}): put SOURCE on a faster disk, or hide the waiting behind more workers "
            f"(--workers {2 * workers})"
        )
    elif bound == "decode" and times_larger >= _REDUCIBLE and not reduced:
        cure = (
            f"decoding ({share:.0%}): half of the JPEGs are at least {times_larger:.1f} times as large as what is "
            "kept of them; decode: {reduced: true} in the recipe decodes such ones at a half or less (other pixels)"
        )
    elif bound == "decode":
        cure = f"decoding ({share:.0%}), which any recipe needs: only more processors (--workers) or a GPU help"
    elif bound == "render":
        cure = f"the transforms ({share:.0%}){_dearest(transforms)}"
    elif bound == "write":
        cure = f"storing tensors ({share:.0%}): " + (
            "dtype: uint8 in the recipe halves the bytes, and they are normalised when loaded"
            if dtype == "float16"
            else "a faster disk for CACHE, a smaller size or fewer variants help"
        )
    elif bound == "normalise":
        cure = (
            f"normalising by the images' own statistics, once they were known ({share:.0%}): later builds do without; "
            "so do normalize: imagenet, a given mean and std" + (", and dtype: uint8" if dtype == "float16" else "")
        )
    else:
        less = "dtype: uint8" if dtype == "float16" else "a smaller size"
        cure = f"waiting for the disk of CACHE ({share:.0%}): a faster one, {less} or fewer variants help"
    return f"Bound by {cure}"


def _dearest(transforms: Sequence[TransformTime]) -> str:
    """`: ` and the transform that took longest, with what would make it cheaper."""
    if not transforms:
        return ": fewer variants help, or more workers"
    dearest, total = max(transforms, key=lambda one: one.seconds), sum(one.seconds for one in transforms)
    share = dearest.seconds / total if total else 1.0
    text = f": {dearest.name} of {' and '.join(dearest.splits)} takes {share:.0%} of their time; "
    behind = next((name for name in dearest.later if name in _SHRINKING), None)
    if behind is not None and dearest.name not in _SHRINKING:
        return text + f"behind {behind} it would have fewer pixels to work on"
    if dearest.arguments.get("interpolation") == _AREA or dearest.arguments.get("area_for_downscale"):
        return text + "interpolation: linear is several times as fast, and aliases where it shrinks"
    return text + "a cheaper one in its place helps, or fewer variants"
