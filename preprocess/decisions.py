"""What a pipeline does to an image, decided from the image's shape alone: draws apart from pixels.

The decisions are Albumentations' own: its transforms are asked for them, in the order in which a call of its
compositions asks them, and so with the same random numbers. Only pixels are left out: for the transforms in `_SIZES`
neither the numbers nor the size of the result depend on any (a zero-stride array stands in for the image).
"""

from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from preprocess.errors import SourceError

Size = tuple[int, int]
Shape = tuple[int, int, int]


class Misshapen(ValueError):
    """The library mixes up the axes of such an image."""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One transform that is to be applied.

    Attributes
    ----------
    transform : of Albumentations; it holds what the recipe says
    params : what it drew; its `apply(image, **params)` gives the pixels
    shape : height, width and channels of the result
    """

    transform: Any
    params: dict[str, Any]
    shape: Shape


def draw(transform: Any, shape: Shape, forced: bool = False) -> Generator[Step, None, Shape]:
    """Draw a transform's decisions, one step after the other.

    Parameters
    ----------
    transform : of Albumentations, or a composition of them, with its generators set; none that `first_other` names
    shape : height, width and channels of the uint8 image
    forced : it does not depend on its own p, as in a OneOf

    Returns
    -------
    as a generator, the steps; no random number is drawn before the step that needs it is asked for. Then the shape
    of the last result

    Raises
    ------
    Misshapen : when the step that does it is asked for
    Exception : what the transform raises of an image that it refuses
    """
    name = type(transform).__name__
    if name in _COMPOSITIONS:
        for member in _members(transform, forced):
            shape = yield from draw(member, shape, forced=name == "OneOf")
    elif transform.should_apply(force_apply=forced):
        data = {"image": np.ndarray(shape, np.uint8, buffer=b"\0", strides=(0, 0, 0))}
        params = transform.update_transform_params(params=transform.get_params(), data=data)
        params.update(transform.get_params_dependent_on_data(params=params, data=data))
        shape = (*_SIZES[name](transform, params, shape), shape[2])
        yield Step(transform, params, shape)
    return shape


_COMPOSITIONS = frozenset({"Compose", "Sequential", "OneOf", "SomeOf", "RandomOrder"})


def _members(composition: Any, forced: bool) -> list[Any]:
    """The transforms that a composition goes through this time."""
    name = type(composition).__name__
    within_its_p = forced and name not in ("SomeOf", "RandomOrder")  # these draw all the same
    if not within_its_p and composition.py_random.random() >= composition.p:
        return []
    members: list[Any] = composition.transforms
    if name in ("Compose", "Sequential"):
        return members
    choice = composition.random_generator.choice
    if name == "OneOf":
        return [members[choice(len(members), p=composition.transforms_ps)]]
    places = choice(len(members), size=composition.n, replace=composition.replace)
    return [members[place] for place in (sorted(places) if name == "SomeOf" else places)]


def first_other(transforms: Iterable[Any]) -> str | None:
    """The first transform whose decisions, or the size of whose result, are not known without pixels.

    Parameters
    ----------
    transforms : of Albumentations, compositions too

    Returns
    -------
    its name, with the argument that it owes this to, if it is one: `CoarseDropout with fill='random'`; None if there
    is no such transform
    """
    for transform in transforms:
        name = type(transform).__name__
        if name in _COMPOSITIONS:
            inner = first_other(transform.transforms)
            if inner is not None:
                return inner
        elif name not in _SIZES:
            return name
        for whose, argument, is_other in _OTHERWISE:
            if name == whose and is_other(getattr(transform, argument)):
                return f"{name} with {argument}={getattr(transform, argument)!r}"
    return None


_OTHERWISE: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    # Random pixels are drawn while they are filled in; inpainting makes them out of their neighbours.
    ("CoarseDropout", "fill", lambda fill: isinstance(fill, str)),
    # Made from the image, or from what else is given with it.
    ("Equalize", "mask", lambda mask: mask is not None),
    ("Equalize", "mask_params", bool),
    # Relative to the mean of the image.
    ("RandomBrightnessContrast", "brightness_by_max", lambda by_max: not by_max),
    # Other channels than those of the image, and a single one comes without its axis.
    ("ToGray", "num_output_channels", lambda channels: channels != 3),
)
"""Transforms of `_SIZES`, an argument with which they do not belong there, and the values of it."""


def _same(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    return shape[:2]


def _given(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    return transform.height, transform.width


def _scaled(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    return max(1, round(shape[0] * params["scale"])), max(1, round(shape[1] * params["scale"]))


def _resized(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    height, width = transform.size
    return height, width


def _padded(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    return params["pad_top"] + shape[0] + params["pad_bottom"], params["pad_left"] + shape[1] + params["pad_right"]


def _transposed(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    return shape[1], shape[0]


def _turned(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    return (shape[1], shape[0]) if params["factor"] % 2 else shape[:2]


def _moved(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    return (shape[1], shape[0]) if params["group_element"] in ("r90", "r270", "t", "hvt") else shape[:2]


def _mapped(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    """Of an affine map: one that does nothing is left out, and the frame that was made to fit it, too."""
    size: Size = params["output_shape"]
    return shape[:2] if size == shape[:2] or np.allclose(params["matrix"], np.eye(3)) else size


def _rotated(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    if not transform.crop_border:
        return shape[:2]
    return params["y_max"] - params["y_min"], params["x_max"] - params["x_min"]


def _projected(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    size = params["max_height"], params["max_width"]
    # OpenCV takes a size without pixels for none given.
    return shape[:2] if transform.keep_size or min(size) <= 0 else size


def _gray(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    if shape[2] == 3 and min(shape) == 1:  # squeezed out, and not put back
        raise Misshapen(f"ToGray loses an axis of {shape}")
    return shape[:2]


def _sharpened(transform: Any, params: dict[str, Any], shape: Shape) -> Size:
    if transform.method == "gaussian" and shape[2] == 1 < max(shape):  # (H, W, 1) minus (H, W), which is blurred
        raise Misshapen(f"Sharpen takes rows for columns in {shape}")
    return shape[:2]


_SIZES: dict[str, Callable[[Any, dict[str, Any], Shape], Size]] = {
    "Affine": _mapped,
    "CenterCrop": _given,
    "CoarseDropout": _same,
    "ColorJitter": _same,
    "D4": _moved,
    "Equalize": _same,
    "GaussianBlur": _same,
    "HorizontalFlip": _same,
    "HueSaturationValue": _same,
    "InvertImg": _same,
    "LongestMaxSize": _scaled,
    "NoOp": _same,
    "PadIfNeeded": _padded,
    "Perspective": _projected,
    "Posterize": _same,
    "RGBShift": _same,
    "RandomBrightnessContrast": _same,
    "RandomCrop": _given,
    "RandomGamma": _same,
    "RandomResizedCrop": _resized,
    "RandomRotate90": _turned,
    "Resize": _given,
    "Rotate": _rotated,
    "Sharpen": _sharpened,
    "ShiftScaleRotate": _mapped,
    "SmallestMaxSize": _scaled,
    "Solarize": _same,
    "ToGray": _gray,
    "Transpose": _transposed,
    "VerticalFlip": _same,
}
"""Height and width of a result, by (transform, its params, shape of its input); anything where `apply` fails.
The channels stay."""


def _largest_inside(transform: Any, params: dict[str, Any], shape: Shape) -> list[Size]:
    """What a transform makes of an image on its way, although its result is smaller."""
    sizes = []
    padding = params.get("pad_params")  # crops pad first, to cut afterwards
    if isinstance(padding, dict):
        sizes.append(_padded(transform, padding, shape))
    elif padding is not None:  # CropAndPad has them in a list, and the sum of both as well
        sizes.append(params["result_shape"])
    if "max_height" in params:  # Perspective, which may bring its result back to the size of the image
        sizes.append((params["max_height"], params["max_width"]))
    return sizes


_LARGER: dict[str, Callable[[Any, dict[str, Any], Shape], Size]] = {
    "Affine": _mapped,
    "LongestMaxSize": _scaled,
    "Pad": _padded,
    "PadIfNeeded": _padded,
    "RandomResizedCrop": _resized,
    "RandomScale": _scaled,
    "RandomSizedCrop": _resized,
    "Resize": _given,
    "SmallestMaxSize": _scaled,
}
"""Height and width of a result that may be larger than its image; Perspective and crops are in `_largest_inside`."""


def refuse_larger(transform: Any, params: dict[str, Any], shape: Shape, max_pixels: int) -> None:
    """Refuse what a transform would make of an image, before it takes the memory for it.

    Parameters
    ----------
    params : what the transform drew
    shape : of the image, height and width first
    max_pixels : that it may make

    Raises
    ------
    SourceError : stage 'render': it would make more
    """
    name = type(transform).__name__
    sizes = [_LARGER.get(name, _same)(transform, params, shape), *_largest_inside(transform, params, shape)]
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    if height * width > max(max_pixels, shape[0] * shape[1]):  # what came through the cap may stay as large as it is
        raise SourceError(
            "render",
            f"{name} would make {height}x{width} = {height * width / 1e6:.9g} Mpx of its {shape[0]}x{shape[1]} (height "
            "x width), "
            f"over the cap of {max_pixels / 1e6:.9g} Mpx (decode.max_megapixels)",
        )
