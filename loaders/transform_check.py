"""Transforms that expect pixels, found before they meet images that are normalised already.

They are known by the names of their classes, so none of their libraries is imported. A plain function is not looked
into: whoever means it wraps the transform in one.
"""

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

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


def _parts(transform: Any) -> Iterator[Any]:
    """A transform and all that it holds: in lists, in attributes, as a method's object, or as a partial's function."""
    waiting, seen = [transform], set[int]()
    while waiting and len(seen) < _MOST:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, functools.partial):
            waiting += [each.func]
        elif isinstance(each, types.MethodType):
            waiting += [each.__self__]
        elif isinstance(each, types.FunctionType | types.BuiltinFunctionType):
            if _library(each) in _LIBRARIES:
                yield each
        elif isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list | tuple | set):
            waiting += each
        elif callable(each) and not isinstance(each, type):
            yield each
            waiting += getattr(each, "__dict__", {}).values()


def _name(part: Any) -> str:
    return str(getattr(part, "__name__", None) or type(part).__name__)


def _library(part: Any) -> str:
    module = getattr(part, "__module__", None) or ""
    return str(module).partition(".")[0]
