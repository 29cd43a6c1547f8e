"""The transforms that a training script of torchvision's would have in place of a recipe's: plain data, no torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Arguments = Mapping[str, Any]


def _jitter(a: Arguments) -> Arguments:
    return {name: tuple(a[name]) for name in ("brightness", "contrast", "saturation", "hue")}


def _blur(a: Arguments) -> Arguments:
    low, high = a["sigma_limit"]
    return {"kernel_size": int(a["blur_limit"][1]) or 2 * math.ceil(3 * high) + 1, "sigma": (max(low, 0.01), high)}


def _smallest(a: Arguments) -> Arguments:
    side = a["max_size"] if a["max_size"] is not None else [each for each in a["max_size_hw"] if each]
    return {"size": max(side) if isinstance(side, Sequence) else side}


def _chance(a: Arguments) -> Arguments:
    return {"p": a["p"]}


_LIKE: dict[str, tuple[str, Callable[[Arguments], Arguments]]] = {
    "CenterCrop": ("CenterCrop", lambda a: {"size": (a["height"], a["width"])}),
    "ColorJitter": ("ColorJitter", _jitter),
    "GaussianBlur": ("GaussianBlur", _blur),
    "HorizontalFlip": ("RandomHorizontalFlip", _chance),
    "RandomCrop": ("RandomCrop", lambda a: {"size": (a["height"], a["width"]), "pad_if_needed": True}),
    "RandomResizedCrop": (
        "RandomResizedCrop",
        lambda a: {"size": tuple(a["size"]), "scale": tuple(a["scale"]), "ratio": tuple(a["ratio"])},
    ),
    "Resize": ("Resize", lambda a: {"size": (a["height"], a["width"])}),
    "Rotate": ("RandomRotation", lambda a: {"degrees": tuple(a["limit"])}),
    "SmallestMaxSize": ("Resize", _smallest),
    "ToGray": ("RandomGrayscale", _chance),
    "VerticalFlip": ("RandomVerticalFlip", _chance),
}
_SETTLE_SIZE = ("CenterCrop", "RandomCrop", "RandomResizedCrop", "Resize")


def like_torchvision(
    transforms: Sequence[Mapping[str, Any]], size_hw: tuple[int, int], channels: str
) -> tuple[list[dict[str, Any]], list[str]]:
    """torchvision's counterparts of a recipe's transforms, up to `ToTensor` and `Normalize`; what has none is left out.

    Parameters
    ----------
    transforms : canonical, see `augment.resolve`

    Returns
    -------
    name, arguments and (where the class itself has no chance) p of each step; names of what was left out
    """
    steps: list[dict[str, Any]] = []
    left_out: list[str] = []
    if channels == "gray":
        steps.append({"name": "Grayscale", "arguments": {"num_output_channels": 1}, "p": 1.0})
    for item in transforms:
        name, arguments = next(iter(item.items()))
        if name not in _LIKE or (name == "ToGray" and channels == "gray"):
            left_out.append(name)
            continue
        theirs, convert = _LIKE[name]
        settled = convert(arguments)
        steps.append({"name": theirs, "arguments": settled, "p": 1.0 if "p" in settled else arguments["p"]})
    sized = [step["arguments"]["size"] for step in steps if step["name"] in _SETTLE_SIZE and step["p"] == 1]
    if not sized or sized[-1] != tuple(size_hw):
        steps.append({"name": "Resize", "arguments": {"size": tuple(size_hw)}, "p": 1.0})
    return steps, left_out
