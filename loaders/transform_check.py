"""Transforms that expect pixels, found before they meet images that are normalised already.

They are known by the names of their classes, so none of their libraries is imported. A plain function is not looked
into: whoever means it wraps the transform in one.
"""

import functools
import inspect
import types
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from cache_store.errors import UsageError
from loaders import advice
from loaders.shared import Shared

_FROM_PIXELS = frozenset(
    """ToTensor ToTensorV2 MaybeToTensor PILToTensor MaybePILToTensor ToPILImage ToNumpy ToFloat FromFloat
    ConvertImageDtype ConvertDtype convert_image_dtype to_tensor pil_to_tensor to_pil_image to_dtype_image""".split()
)
_OF_COLOURS = frozenset(
    """ColorJitter ColorJiggle RandomPhotometricDistort PhotoMetricDistort RandomBrightness RandomContrast RandomGamma
    RandomHue RandomSaturation RandomPosterize RandomSolarize RandomEqualize RandomInvert RandomAutocontrast
    RandomAutoContrast RandomAdjustSharpness RandomSharpness RandomClahe RandomPlanckianJitter GaussianNoise
    RandomBrightnessContrast HueSaturationValue Posterize Solarize Equalize InvertImg CLAHE
    AutoAugment RandAugment TrivialAugmentWide TrivialAugment AugMix AugMixAugment
    adjust_brightness adjust_contrast adjust_gamma adjust_hue adjust_saturation adjust_sharpness posterize solarize
    equalize invert autocontrast""".split()
)
_LIBRARIES = frozenset({"torchvision", "timm", "kornia", "albumentations", "monai", "transformers", "open_clip"})
_MOST = 10_000
"""Objects looked at: a transform may hold a whole model, or a table."""

_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)
_LEAVES = (str, bytes, int, float, complex, type(None), np.ndarray, np.generic, torch.Tensor, torch.dtype, torch.device)
"""Kinds that hold no transform; they are not counted."""


def check_transforms(name: str, transform: Any, dtype: torch.dtype, shared: Shared) -> None:
    """Refuse what normalises or converts once more; warn of colour operations, which need values of 0..1.

    Parameters
    ----------
    name : of the argument, for messages
    transform : as given; whatever it is made of is looked at as well
    dtype : of the normalised images that it will get
    shared : of the dataset, so that not each of its workers warns

    Raises
    ------
    UsageError : it holds a transform that normalises, or that converts pixels
    """
    colours = []
    for each in _parts(transform):
        what = _wrong(each)
        if what is not None:
            raise UsageError(
                f"{name}: {_name(each)} {what}, but it would get images that are normalised already "
                f"({str(dtype).removeprefix('torch.')}, mean 0 and standard deviation 1); leave it out, or "
                "take pixels: CachedDataset(…, dtype=torch.uint8) out of a cache with dtype: uint8. If it is meant, "
                "wrap it in a function: transform=lambda image: …"
            )
        if _name(each) in _OF_COLOURS and getattr(each, "clip", True):
            colours.append(_name(each))
    if colours:
        advice.colours(
            f"{name}: {', '.join(dict.fromkeys(colours))} work on values of 0..1 (or 0..255), but get images that are "
            f"normalised already ({str(dtype).removeprefix('torch.')}, about -2 to 2.6), and clip or distort them; "
            "take pixels: CachedDataset(…, dtype=torch.uint8) out of a cache with dtype: uint8; normalise after them",
            shared,
        )


def _wrong(part: Any) -> str | None:
    """Why a single transform cannot take normalised images."""
    name = _name(part)
    names = {base.__name__ for base in type(part).__mro__} | {name}
    ours = _library(part) in _LIBRARIES
    has_values = hasattr(part, "mean") and hasattr(part, "std") and "Denormalize" not in names
    if "Normalize" in names and (has_values or hasattr(part, "flags")):  # kornia keeps its values in flags
        return "normalises"
    if ours and (has_values or name == "normalize" or getattr(part, "do_normalize", False) is True):
        return "normalises"
    if names & _FROM_PIXELS:
        return "converts pixels"
    if name in ("ToDtype", "to_dtype") and (getattr(part, "scale", False) or _wants_integers(part)):
        return "converts pixels"
    return None


def _wants_integers(part: Any) -> bool:
    wanted = getattr(part, "dtype", None)
    types = wanted.values() if isinstance(wanted, Mapping) else [wanted]
    return any(isinstance(each, torch.dtype) and not each.is_floating_point for each in types)


class _Call:
    """A function with the arguments that a partial gives it: what it does may depend on them."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> None:
        self.__name__, self.__module__ = _name(function), getattr(function, "__module__", None) or ""
        known: Mapping[str, Any] = {}
        if arguments or keywords:
            try:
                known = inspect.signature(function).bind_partial(*arguments, **keywords).arguments
            except (TypeError, ValueError):  # no signature, or one that they do not fit
                known = keywords
        for name in ("dtype", "scale", "clip"):
            if name in known:
                setattr(self, name, known[name])


def _parts(transform: Any) -> Iterator[Any]:
    """A transform and all that it holds: in lists, in attributes, as a method's object, or in a partial."""
    waiting, seen = deque([transform]), set[int]()
    while waiting and len(seen) < _MOST:
        each = waiting.popleft()  # the nearest first, should there be more than are looked at
        if isinstance(each, _LEAVES) or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, functools.partial):
            waiting += [*each.args, *each.keywords.values()]
            if not isinstance(each.func, _FUNCTIONS):
                waiting.append(each.func)
            elif _library(each.func) in _LIBRARIES:
                yield _Call(each.func, each.args, each.keywords)
        elif isinstance(each, types.MethodType):
            waiting += [each.__self__]
        elif isinstance(each, _FUNCTIONS):
            if _library(each) in _LIBRARIES:
                yield each
        elif isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list | tuple | set | frozenset):
            waiting += [one for one in each if not isinstance(one, _LEAVES)]
        elif not isinstance(each, type | types.ModuleType):
            if callable(each):
                yield each
            elif type(each).__module__.startswith(("loaders.", "cache_store.")):  # of a dataset whose method this is
                continue
            waiting += getattr(each, "__dict__", {}).values()
            waiting += _in_slots(each)


def _in_slots(each: Any) -> Iterator[Any]:
    """Values of attributes that a class keeps in `__slots__`."""
    for cls in type(each).__mro__:
        for name, descriptor in vars(cls).items() if "__slots__" in vars(cls) else ():
            if isinstance(descriptor, types.MemberDescriptorType) and hasattr(each, name):
                yield getattr(each, name)


def steps_of(*transforms: Any) -> list[Any]:
    """Transforms and the steps of those that are a Compose: other objects, once somebody has changed it in place."""
    found: list[Any] = []
    for each in transforms:
        found.append(each)
        steps = getattr(each, "transforms", None)
        if isinstance(steps, list | tuple):
            found += steps
    return found


def _name(part: Any) -> str:
    return str(getattr(part, "__name__", None) or type(part).__name__)


def _library(part: Any) -> str:
    module = getattr(part, "__module__", None) or ""
    return str(module).partition(".")[0]
