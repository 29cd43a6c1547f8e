"""What a recipe should say for the images of a census, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess.census import Census
from preprocess.commented import Place
from preprocess.decode import reduction
from preprocess.measure import Depths
from preprocess.report import in_units
from preprocess.scan import Scan

_USUAL = 224
_STEP = 32  # what most networks halve five times
_RESIZE_TO_CROP = 8 / 7
_LARGER = "same * 8/7"
_VARIANTS = 4
_SCALE = (0.35, 1.0)
_TINY, _TINY_SCALE = 64, (0.64, 1.0)
_VAL_FRACTION, _FEWEST_FOR_VAL = 0.1, 50

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Choices:
    """A recipe as plain data, and what there is to say about it.

    Attributes
    ----------
    values : the recipe
    comments : what is to be said at each place of it
    reasons : key -> what was chosen, and why, for a person to read
    """

    values: dict[str, Any]
    comments: dict[Place, str]
    reasons: dict[str, tuple[str, str]]


def choose(found: Scan, census: Census, depths: Depths, wanted: Size | None, doubt: str = "") -> Choices:
    """The recipe for a scanned folder; `wanted` is the size that was asked for, `doubt` one about its splits."""
    size, why_size = _size(census, wanted)
    resize = _resize_to(size, census)
    why_size += _how_it_fits(size, resize, census)
    channels, why_channels = _channels(census)
    reduced, why_reduced = _reduced(size, census)
    odd = _odd(census, depths)
    splits, why_splits = _splits(found)
    if doubt:
        why_splits += f". This is a guess: {doubt}"
    for name, split in splits.items():
        split |= _training(size, census) if name == "train" else _evaluation(size, resize)
    stored = in_units(_stored_bytes(splits, found, size, channels))
    why_type = (
        f"normalised once and stored so, about {stored} in all; uint8 takes half of that and is normalised when it is "
        "loaded"
    )
    why_normalize = "mean and std of the stored images themselves, exact, from train if there is one"
    others = "{mean: [...], std: [...]} in 0..1" if channels == "gray" else "imagenet, or {mean: [...], std: [...]}"
    return Choices(
        values={
            "size": size[0] if size[0] == size[1] else list(size),
            "channels": channels,
            "dtype": "float16",
            "normalize": "dataset",
            "seed": 0,
            "decode": {"max_megapixels": 179, "reduced": reduced, **{key: value for key, (value, _) in odd.items()}},
            "splits": splits,
        },
        comments={
            ("size",): f"Height and width of what is stored, which 'same' below stands for. {_sentence(why_size)}",
            ("channels",): f"rgb or gray. {_sentence(why_channels)}",
            ("dtype",): f"float16 or uint8. {_sentence(why_type)}",
            ("normalize",): f"{_sentence(why_normalize)} Or {others}.",
            ("seed",): "Start of all random draws; another seed gives other variants.",
            ("decode",): " ".join(
                [
                    f"Images of more than max_megapixels are left out and listed. reduced is {why_reduced}.",
                    *(f"{key}: {why}." for key, (_, why) in odd.items()),
                ]
            ),
            ("splits",): _sentence(why_splits),
            **{place: text for name in splits for place, text in _split_comments(name, splits[name], resize, size)},
        },
        reasons={
            "size": (in_words(size), why_size),
            "channels": (channels, why_channels),
            "splits": (", ".join(splits), why_splits),
            "variants": _variants(splits),
            "dtype": ("float16", why_type),
            "normalize": ("dataset", why_normalize),
            "reduced": (str(reduced).lower(), why_reduced),
            **{key: (str(value), why) for key, (value, why) in odd.items()},
        },
    )


def in_words(size_hw: Sequence[int]) -> str:
    """Height x width, as in `--size`."""
    return f"{size_hw[0]}x{size_hw[1]}"


def _size(census: Census, wanted: Size | None) -> tuple[Size, str]:
    sides = census.size_hw
    if wanted is not None:
        return wanted, "as asked for"
    if not len(sides):
        return (_USUAL, _USUAL), "the usual size; no header says how large the images are"
    first = sides[0]
    if (sides == first).all() and first.max() <= _USUAL:
        return (int(first[0]), int(first[1])), "the size of every image"
    shorter = sides.min(1)
    median = int(np.median(shorter))
    span = f"shorter sides are {shorter.min():,} to {shorter.max():,} px, median {median:,}"
    if median >= _USUAL:
        return (_USUAL, _USUAL), f"the usual size; {span}"
    side = max(median // _STEP * _STEP, min(median, _STEP))
    return (side, side), f"{span}, and enlarging to {_USUAL} would add bytes, not detail"


def _scales(size: Size, census: Census) -> np.ndarray:
    """By how much each image is enlarged to cover `size`; below 1 it shrinks."""
    return (np.array(size) / census.size_hw).max(1)


def _resize_to(size: Size, census: Census) -> Size:
    """What the evaluation splits resize to before the centre is cut: somewhat more than size, if there is more."""
    larger = (round(size[0] * _RESIZE_TO_CROP), round(size[1] * _RESIZE_TO_CROP))
    scales = _scales(larger, census)
    return larger if not len(scales) or np.median(scales) <= 1 else size


def _how_it_fits(size: Size, resize: Size, census: Census) -> str:
    """How far images are enlarged and shrunk, as the continuation of a sentence."""
    scales = _scales(resize, census)
    if not len(scales):
        return ""
    smaller, enlarged, shrunk = (_scales(size, census) > 1).sum(), scales[scales > 1], 1 / scales[scales < 1]
    parts = [f"; {smaller:,} of {len(scales):,} images are smaller"]
    if len(enlarged):
        parts.append(f"resizing for evaluation enlarges {len(enlarged):,}, at most {enlarged.max():.1f} times")
    if len(shrunk):
        typical = f"typically {np.median(shrunk):.1f} times, at most {shrunk.max():.1f}"
        parts.append(f"{'and' if len(enlarged) else 'resizing for evaluation'} shrinks {len(shrunk):,}, {typical}")
    return "; ".join(parts[:2]) + "".join(f", {part}" for part in parts[2:])


def _channels(census: Census) -> tuple[str, str]:
    gray = sum(header.channels == 1 for header in census.headers)
    seen = len(census.headers)
    if seen and gray == seen:
        also = f"; {census.unsized.count:,} more were not looked into" if census.unsized.count else ""
        return "gray", f"all {seen:,} images looked at are stored in gray{also}; one channel takes a third of the bytes"
    if not seen:
        return "rgb", "no header says whether there is colour"
    return "rgb", f"{seen - gray:,} of {seen:,} images looked at are stored in colour" + (
        ", the others get three equal channels" if gray else ""
    )


def _reduced(size: Size, census: Census) -> tuple[bool, str]:
    jpegs = [header for header in census.headers if header.format == "JPEG"]
    far_larger = sum(reduction(header, size) != 0 for header in jpegs)
    if far_larger * 2 <= len(jpegs):
        return False, "for JPEGs at least 4 times as large as size on both sides; " + (
            f"here {far_larger:,} of {len(jpegs):,} are" if jpegs else "there is none here"
        )
    return True, (
        f"for JPEGs at least 4 times as large as size on both sides; {far_larger:,} of {len(jpegs):,} are, and are "
        "decoded at a half to an eighth of their size: faster, and still at least twice as large as size"
    )


def _odd(census: Census, depths: Depths) -> dict[str, tuple[Any, str]]:
    """Keys of `decode` for images that a build refuses without them, and why."""
    odd: dict[str, tuple[Any, str]] = {}
    if depths.window is not None:
        odd["levels"] = list(depths.window), depths.why
    if census.surplus.count:
        why = (
            f"{_of(census.surplus.count, census)} TIFFs with samples beyond colour and alpha ({census.surplus.shown()})"
        )
        odd["extra_channels"] = "drop", f"{why}, of which only the colours are kept; without the key they are left out"
    if census.pages.count:
        why = f"{_of(census.pages.count, census)} TIFFs of several pages ({census.pages.shown()})"
        odd["pages"] = "first", f"{why}, of which only the first is kept; without the key they are left out"
    return odd


def _of(count: int, census: Census) -> str:
    return f"{count:,} of {census.looked_at:,} images looked at are"


def _splits(found: Scan) -> tuple[dict[str, dict[str, Any]], str]:
    splits: dict[str, dict[str, Any]] = {name: {"folder": split.folder} for name, split in found.splits.items()}
    if len(splits) > 1:
        return splits, f"the folders {', '.join(repr(split.folder) for split in found.splits.values())} of SOURCE"
    name, split = next(iter(found.splits.items()))
    if name != "train":
        return splits, f"the folder {split.folder!r} of SOURCE"
    if split.class_names is None:
        return splits, "a flat folder is one split without labels"
    where = "all of SOURCE" if split.folder == "." else f"the folder {split.folder!r} of SOURCE"
    if len(split.paths) < _FEWEST_FOR_VAL:
        return splits, f"train is {where}; too few images to take some out of it for validation"
    splits["val"] = {"from": name, "fraction": _VAL_FRACTION}
    return splits, (
        f"train is {where}; {_VAL_FRACTION:.0%} of it becomes val, chosen by content so that equal files stay together"
    )


def _training(size: Size, census: Census) -> dict[str, Any]:
    crop: dict[str, Any] = {"size": "same", "scale": list(_TINY_SCALE if _is_tiny(size, census) else _SCALE)}
    if size[0] != size[1]:
        crop["ratio"] = ["same * 3/4", "same * 4/3"]
    return {"variants": _VARIANTS, "transforms": [{"RandomResizedCrop": crop}, {"HorizontalFlip": {"p": 0.5}}]}


def _is_tiny(size: Size, census: Census) -> bool:
    """Whether most images have no detail to lose; it is theirs, whatever the size that is asked for."""
    sides = census.size_hw
    return bool(np.median(sides.max(1)) <= _TINY) if len(sides) else max(size) <= _TINY


def _evaluation(size: Size, resize: Size) -> dict[str, Any]:
    cover = "same" if resize == size else _LARGER
    shrink = {"max_size" if size[0] == size[1] else "max_size_hw": cover}
    crop = {"height": "same", "width": "same"}
    return {"variants": 1, "transforms": [{"SmallestMaxSize": shrink}, {"CenterCrop": crop}]}


def _variants(splits: Mapping[str, Any]) -> tuple[str, str]:
    if "train" not in splits:
        return "1", "there is no split train, and nothing else is random"
    return str(_VARIANTS), (
        "augmented renderings of each training image, one an epoch in turn, as many times the bytes; CachedDataset's "
        "crop= and flip= vary them further"
    )


def _split_comments(name: str, split: Mapping[str, Any], resize: Size, size: Size) -> list[tuple[Place, str]]:
    if name == "train":
        low = split["transforms"][0]["RandomResizedCrop"]["scale"][0]
        kept = "tiny images lose detail fast" if low == _TINY_SCALE[0] else "less than that often misses the object"
        texts = {
            "variants": _sentence(_variants({name: split})[1]),
            "transforms": "Albumentations, by name, in order.",
            "RandomResizedCrop": f"A window of {low:.0%} to 100% of the area, resized; {kept}.",
            "HorizontalFlip": "Leave it out where left and right differ: digits, text, sides of a body.",
        }
    else:
        resized = "The shorter side is resized" if size[0] == size[1] else "Resized, in proportion, to cover this size"
        more = "" if resize == size else ", to somewhat more than size"
        texts = {
            "variants": "Nothing is random here, so one is all there is.",
            "SmallestMaxSize": f"{resized}{more}; shrinking averages, unless an interpolation is named.",
            "CenterCrop": "The middle of it.",
        }
    return [(("splits", name, key), text) for key, text in texts.items()]


def _stored_bytes(splits: Mapping[str, Mapping[str, Any]], found: Scan, size: Size, channels: str) -> float:
    """Of all tensors in float16."""
    tensors = 0.0
    for name, split in splits.items():
        taken = sum(other.get("fraction", 0) for other in splits.values() if other.get("from") == name)
        share = split.get("fraction", 1 - taken)
        tensors += len(found.splits[split.get("from", name)].paths) * share * split["variants"]
    return tensors * size[0] * size[1] * (3 if channels == "rgb" else 1) * 2


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
