"""A pipeline of torchvision's, v1 or v2, in the terms of a recipe; its classes are told by module and name, so that
neither torch nor torchvision is imported here.

What is walked through is what torchvision does to an image of a dataset: it starts as a PIL image, may become a tensor,
is scaled to 0..1 and normalised. The steps in between come out as Albumentations; the rest is what a cache does itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from preprocess.augment import nearest
from preprocess.errors import RecipeError

_PIL_FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
_FILTERS = {
    "nearest": "nearest",
    "nearest-exact": "nearest_exact",
    "bilinear": "linear",
    "bicubic": "cubic",
    "lanczos": "lanczos4",
}
_BORDERS = {"constant": "constant", "edge": "replicate", "reflect": "reflect_101", "symmetric": "reflect"}

_INSTEAD = {
    "AugMix": "write a SomeOf of Albumentations",
    "AutoAugment": "write a OneOf of Albumentations",
    "CutMix": "give it to CachedDataset(batch_transform=...), which calls it for each batch",
    "ElasticTransform": "write ElasticTransform of Albumentations",
    "FiveCrop": "a sample is one image; write CenterCrop, or RandomCrop with several variants",
    "Lambda": "a function cannot be kept in a recipe; give it to CachedDataset(transform=...)",
    "MixUp": "give it to CachedDataset(batch_transform=...), which calls it for each batch",
    "Pad": "write Pad of Albumentations",
    "RandAugment": "write a SomeOf of Albumentations",
    "RandomAdjustSharpness": "write Sharpen of Albumentations",
    "RandomAffine": "write Affine of Albumentations",
    "RandomApply": "write a Sequential of Albumentations with its p",
    "RandomAutocontrast": "write AutoContrast of Albumentations",
    "RandomChoice": "write a OneOf of Albumentations",
    "RandomEqualize": "write Equalize of Albumentations",
    "RandomErasing": "write Erasing of Albumentations, before anything is normalised",
    "RandomInvert": "write InvertImg of Albumentations",
    "RandomOrder": "write a RandomOrder of Albumentations",
    "RandomPerspective": "write Perspective of Albumentations",
    "RandomPosterize": "write Posterize of Albumentations",
    "RandomRotation": "write Rotate of Albumentations",
    "RandomSolarize": "write Solarize of Albumentations",
    "RGB": "leave it out: images are decoded to RGB",
    "TenCrop": "a sample is one image; write CenterCrop, or RandomCrop with several variants",
    "TrivialAugmentWide": "write a OneOf of Albumentations",
}

Size = tuple[int, int]


def recipe_values(transforms: Any, variants: int | Mapping[str, int], *, normalize_given: bool) -> dict[str, Any]:
    """Plain data of a recipe, with normalisation as the last step of each split; see `Recipe.from_torchvision`.

    Parameters
    ----------
    normalize_given : the recipe says how to normalise: then a pipeline that ends in 0..1 does not
    """
    pipelines = dict(transforms) if isinstance(transforms, Mapping) else {"train": transforms}
    if not pipelines:
        raise RecipeError("transforms: a pipeline of torchvision's expected, or {split: pipeline}, found none")
    for name in variants if isinstance(variants, Mapping) else ():
        if name not in pipelines:
            raise RecipeError(
                f"variants: {name!r} has no pipeline{nearest(str(name), [str(key) for key in pipelines])}"
            )
    read = {name: _Reading(f"splits.{name}", pipeline) for name, pipeline in pipelines.items()}
    first_name, first = next(iter(read.items()))
    for name, reading in read.items():
        for what, ours, theirs in (("size", reading.size, first.size), ("channels", reading.channels, first.channels)):
            if ours != theirs:
                raise RecipeError(
                    f"splits.{name}: its pipeline gives {what} {_in_words(ours)}, that of {first_name!r} "
                    f"{_in_words(theirs)}; a cache has one {what}, so make them equal"
                )
    splits = {}
    for name, reading in read.items():
        count = variants.get(name, 1) if isinstance(variants, Mapping) else variants if reading.random else 1
        splits[name] = {"variants": count, "transforms": reading.finished(normalize_given=normalize_given)}
    return {"size": list(first.size), "channels": first.channels, "splits": splits}


def _in_words(value: Any) -> str:
    return value if isinstance(value, str) else f"{value[0]}x{value[1]} (height x width)"


class _Reading:
    """One pipeline, step by step.

    Attributes
    ----------
    steps : Albumentations, by name
    random : whether any of them draws random numbers
    """

    def __init__(self, place: str, pipeline: Any) -> None:
        self.steps: list[dict[str, Any]] = []
        self.random = False
        self._size: Size | None = None  # of the image at hand; None while it depends on the source
        self._gray = False
        self._is_tensor = False
        self._scaled = False  # to 0..1
        self._normalize: dict[str, Any] | None = None
        self._place = place
        for self._place, step in _flat(pipeline, place):
            self._read(step)
        self._place = place

    @property
    def size(self) -> Size:
        if self._size is None:
            raise RecipeError(
                f"{self._place}: no step fixes both height and width of the result; end with CenterCrop, RandomCrop, "
                "RandomResizedCrop or Resize((height, width))"
            )
        return self._size

    @property
    def channels(self) -> str:
        return "gray" if self._gray else "rgb"

    def finished(self, *, normalize_given: bool) -> list[dict[str, Any]]:
        """The steps, and last of all how the result is normalised, unless it stays in 0..255."""
        if self._normalize is not None:
            channels = 1 if self._gray else 3
            each = {key: v * channels if len(v) == 1 else v for key, v in self._normalize.items()}
            return [*self.steps, {"Normalize": each}]
        return [*self.steps, {"ToFloat": {}}] if self._scaled and not normalize_given else self.steps

    def _read(self, step: Any) -> None:
        name = type(step).__name__
        known: dict[str, Callable[[Any], None]] = {
            "CenterCrop": lambda s: self._center_crop(s.size),
            "ColorJitter": self._color_jitter,
            "ConvertImageDtype": lambda s: self._convert(s.dtype, scale=True),
            "GaussianBlur": self._gaussian_blur,
            "Grayscale": self._grayscale,
            "ImageClassification": self._preset,
            "Normalize": lambda s: self._normalise(s.mean, s.std),
            "PILToTensor": lambda s: self._to_tensor(),
            "RandomCrop": self._random_crop,
            "RandomGrayscale": self._random_grayscale,
            "RandomHorizontalFlip": lambda s: self._add("HorizontalFlip", random=True, p=s.p),
            "RandomResizedCrop": self._random_resized_crop,
            "RandomVerticalFlip": lambda s: self._add("VerticalFlip", random=True, p=s.p),
            "Resize": lambda s: self._resize(s.size, s.interpolation, s.antialias, s.max_size),
            "ToDtype": lambda s: self._convert(s.dtype, scale=s.scale),
            "ToImage": lambda s: self._to_tensor(),
            "ToPureTensor": lambda s: self._to_tensor(),
            "ToTensor": lambda s: self._to_tensor(scaled=True),
        }
        if not type(step).__module__.startswith("torchvision.transforms."):
            raise self._refusal(
                f"{type(step).__module__}.{name} is none of torchvision's own transforms; give it to "
                "CachedDataset(transform=...), or write the transforms in Albumentations"
            )
        if name not in known:
            instead = _INSTEAD.get(name, "write the transforms of this split in Albumentations")
            raise self._refusal(f"{name} has no counterpart that does the same; {instead}")
        if self._normalize is not None and name not in ("ToDtype", "ConvertImageDtype", "ToPureTensor"):
            raise self._refusal("it follows Normalize, but transforms work on 8-bit pixels; move it before Normalize")
        known[name](step)

    def _refusal(self, why: str) -> RecipeError:
        return RecipeError(f"{self._place}: {why}")

    def _add(self, transform: str, *, random: bool = False, **arguments: Any) -> None:
        self.steps.append({transform: arguments})
        self.random |= random

    # -- conversions ---------------------------------------------------------------------------------------------------

    def _to_tensor(self, *, scaled: bool = False) -> None:
        self._is_tensor = True
        self._scaled |= scaled

    def _convert(self, dtype: Any, *, scale: bool) -> None:
        """`dtype` is told by its name; 8 bits and 0..1 are the only ranges that make sense here."""
        to_float = str(dtype) in ("torch.float32", "torch.float16", "torch.bfloat16", "torch.float64")
        if not to_float and str(dtype) != "torch.uint8":
            raise self._refusal(f"a torch.dtype expected, uint8 or a floating one, found {dtype!r}")
        if not scale and to_float != self._scaled:
            raise self._refusal(f"scale=True expected: without it, {dtype} has another range than torchvision's")
        self._scaled = to_float

    def _normalise(self, mean: Any, std: Any) -> None:
        if not self._scaled:
            raise self._refusal("pixels are not in 0..1 yet; put ToTensor or ToDtype(torch.float32, scale=True) before")
        self._normalize = {"mean": [float(value) for value in mean], "std": [float(value) for value in std]}

    def _preset(self, step: Any) -> None:
        """What `weights.transforms()` of torchvision's models gives."""
        self._resize(step.resize_size, step.interpolation, step.antialias, None)
        self._center_crop(step.crop_size)
        self._to_tensor(scaled=True)
        self._normalise(step.mean, step.std)

    # -- geometry ------------------------------------------------------------------------------------------------------

    def _resampling(self, interpolation: Any, antialias: bool | None) -> dict[str, Any]:
        """PIL averages whatever `antialias` says; OpenCV has one filter that does, by area."""
        name = getattr(interpolation, "value", interpolation)
        name = _PIL_FILTERS.get(name, name)
        if name not in _FILTERS:
            raise self._refusal(f"interpolation {name!r} cannot be had; {', '.join(_FILTERS)} can")
        if name.startswith("nearest"):  # PIL's takes the pixel at the centre, as torch's nearest-exact does
            return {"interpolation": _FILTERS[name if self._is_tensor else "nearest-exact"]}
        averages = antialias or not self._is_tensor
        return {"interpolation": _FILTERS[name]} | ({"area_for_downscale": "image"} if averages else {})

    def _resize(self, size: Any, interpolation: Any, antialias: bool | None, max_size: Any) -> None:
        if size is None or max_size is not None:
            raise self._refusal("max_size has no counterpart; leave it out, as a crop has to follow anyway")
        resampling = self._resampling(interpolation, antialias)
        sides = [size] if isinstance(size, int) else list(size)
        if len(sides) == 1 and self._size is None:
            self._add("SmallestMaxSize", max_size=sides[0], **resampling)
            return
        if len(sides) == 1:
            assert self._size is not None
            short, long = min(self._size), int(sides[0] * max(self._size) / min(self._size))
            sides = [sides[0], long] if self._size[0] == short else [long, sides[0]]
        self._size = (sides[0], sides[1])
        self._add("Resize", height=sides[0], width=sides[1], **resampling)

    def _center_crop(self, size: Any) -> None:
        self._size = height, width = _pair(size)
        self._add("CenterCrop", height=height, width=width, pad_if_needed=True)

    def _random_crop(self, step: Any) -> None:
        fill = 0 if step.fill is None else step.fill
        if isinstance(fill, Mapping):
            raise self._refusal(f"fill as a number, or one for each channel, expected, found {fill!r}")
        border: dict[str, Any] = {"border_mode": _BORDERS[step.padding_mode], "fill": fill}
        padding = _left_top_right_bottom(step)
        if any(padding):
            self._add("Pad", padding=padding, **border)
        self._size = height, width = _pair(step.size)
        # torchvision pads both sides by all that is missing and crops somewhere: the same as padding at random
        border |= {"pad_if_needed": bool(step.pad_if_needed), "pad_position": "random"}
        self._add("RandomCrop", random=True, height=height, width=width, **border)

    def _random_resized_crop(self, step: Any) -> None:
        self._size = _pair(step.size)
        ranges = {"scale": list(step.scale), "ratio": list(step.ratio)}
        resampling = self._resampling(step.interpolation, step.antialias)
        self._add("RandomResizedCrop", random=True, size=list(self._size), **ranges, **resampling)

    # -- colour --------------------------------------------------------------------------------------------------------

    def _color_jitter(self, step: Any) -> None:
        """Whatever is None stays as it is; Albumentations would take its own default."""
        neutral = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0}
        ranges = {key: list(getattr(step, key) or (value, value)) for key, value in neutral.items()}
        self._add("ColorJitter", random=True, **ranges, p=1.0)

    def _grayscale(self, step: Any) -> None:
        self._gray = step.num_output_channels == 1
        if not self._gray:
            self._add("ToGray", p=1.0)

    def _random_grayscale(self, step: Any) -> None:
        if not self._gray:
            self._add("ToGray", random=True, p=step.p)

    def _gaussian_blur(self, step: Any) -> None:
        across, down = _pair(step.kernel_size)
        if across != down:
            raise self._refusal(f"a square kernel expected, found {across}x{down}")
        low, high = step.sigma
        self._add("GaussianBlur", random=low != high, blur_limit=[across, across], sigma_limit=[low, high], p=1.0)


def _flat(pipeline: Any, place: str) -> Iterator[tuple[str, Any]]:
    """(place, step) of a Compose, a Sequential or a list, those inside of others too; or of a single step."""
    kind = type(pipeline)
    composed = kind.__name__ == "Compose" and kind.__module__.startswith("torchvision.transforms.")
    sequential = kind.__name__ == "Sequential" and kind.__module__.startswith("torch.nn.")
    if composed or sequential or isinstance(pipeline, (list, tuple)):
        for number, step in enumerate(pipeline.transforms if composed else pipeline):
            yield from _flat(step, f"{place}[{number}]")
    else:
        yield f"{place}.{kind.__name__}", pipeline


def _pair(size: int | Sequence[int]) -> Size:
    sides = [size] if isinstance(size, int) else list(size)
    return sides[0], sides[-1]


def _left_top_right_bottom(step: Any) -> list[int]:
    """`padding` of a RandomCrop: v1 keeps what it was given, v2 keeps left, right, top, bottom."""
    if not step.padding:
        return [0] * 4
    given = [step.padding] if isinstance(step.padding, int) else list(step.padding)
    if len(given) < 4:
        return [given[0], given[-1]] * 2
    left, second, third, bottom = given
    return [left, third, second, bottom] if ".v2." in type(step).__module__ else given
