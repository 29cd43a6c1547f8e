"""The whole description of how sources become tensors: a frozen value, from YAML, a dict or Python objects.

Every refusal gives the place (`splits.train.transforms[1].RandomResizedCrop`), what was found, and the nearest valid
spelling. `canonical` has every default and argument resolved and is itself a valid recipe; it is what a snapshot keeps.
"""

import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from cache_store.normalise import normalisation_table
from preprocess import augment
from preprocess.errors import RecipeError, UsageError
from preprocess.rendering import Rendering, Statistics

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SPLIT_NAMES = ("train", "val", "valid", "validation", "test")
"""Folder names that make a split; the order is the order in which splits are listed."""

_RESIZE_TO_CROP = 256 / 224
_MAX_SIDE = 16_384
_MAX_VARIANTS = 10_000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)


class Decode(_Part):
    """How encoded bytes become pixels."""

    max_megapixels: float = Field(179, gt=0, le=1e6)
    reduced: bool = False


class MeanStd(_Part):
    """Fixed statistics in 0..1, one value a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class SplitRecipe(_Part):
    """One split: where its images come from, how many variants, and the transforms."""

    folder: str | None = None
    from_: str | None = Field(None, alias="from")
    fraction: float | None = Field(None, gt=0, lt=1)
    variants: int = Field(1, ge=1, le=_MAX_VARIANTS)
    transforms: Any = None
    """A list in the canonical form once the recipe is validated; None: the default for the recipe's size."""

    @field_validator("folder")
    @classmethod
    def _inside_source(cls, folder: str | None) -> str | None:
        if folder is not None and (folder.startswith(("/", "~")) or ".." in PurePosixPath(folder).parts):
            raise ValueError("a folder inside SOURCE expected, relative to it")
        return folder

    @model_validator(mode="after")
    def _one_origin(self) -> "SplitRecipe":
        if (self.from_ is None) != (self.fraction is None):
            raise ValueError("'from' and 'fraction' go together, such as {from: train, fraction: 0.1}")
        if self.from_ is not None and self.folder is not None:
            raise ValueError("either 'folder', or 'from' with 'fraction'")
        return self


class Recipe(_Part):
    """How sources become tensors.

    Parameters
    ----------
    size : output height = width, or (height, width)
    channels : 'rgb' or 'gray'
    dtype : 'float16' (normalised, baked in) or 'uint8' (half the bytes, normalised when loaded)
    normalize : 'dataset' (exact, from `train`, else the first split), 'imagenet', or {'mean': […], 'std': […]} in 0..1
    seed : start of all random draws, 0..2**63 - 1
    decode : {'max_megapixels': 179, 'reduced': False}
    classes : pins class ids in this order; classes not named come last
    splits : name -> {'folder' | 'from' and 'fraction', 'variants', 'transforms'}; left out: every split that is found

    Raises
    ------
    RecipeError : with place, what was found, and the nearest valid spelling
    """

    size: tuple[int, int] = (224, 224)
    channels: Literal["rgb", "gray"] = "rgb"
    dtype: Literal["float16", "uint8"] = "float16"
    normalize: Literal["dataset", "imagenet"] | MeanStd = "dataset"
    seed: int = Field(0, ge=0, lt=2**63)
    decode: Decode = Decode()
    classes: tuple[str, ...] | None = None
    splits: dict[str, SplitRecipe] | None = None

    _notes: tuple[str, ...] = PrivateAttr(())
    _stored: dict[str, tuple[Rendering, Statistics]] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise RecipeError(_complaint(error.errors()[0], type(self))) from None
        self._resolve()

    @field_validator("size", mode="wrap")
    @classmethod
    def _square(cls, size: Any, handler: ValidatorFunctionWrapHandler) -> tuple[int, int]:
        if isinstance(size, int) and not isinstance(size, bool):
            size = (size, size)
        if not isinstance(size, (list, tuple)) or len(size) != 2:
            raise ValueError("one number, or [height, width] expected")
        height, width = handler(size)
        if not (1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE):
            raise ValueError(f"sides of 1 to {_MAX_SIDE} pixels expected")
        return height, width

    @field_validator("splits")
    @classmethod
    def _known_origins(cls, splits: dict[str, SplitRecipe] | None) -> dict[str, SplitRecipe] | None:
        for name, split in (splits or {}).items():
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
                raise ValueError(f"split {name!r}: letters, digits, '_' and '-' expected in a split's name")
            if name == "failures":
                raise ValueError("'failures' is taken: the cache keeps the list of failed images under this name")
            if split.from_ is None:
                continue
            origin = (splits or {}).get(split.from_)
            if origin is None or origin.from_ is not None:
                folders = [n for n, s in (splits or {}).items() if s.from_ is None]
                raise ValueError(f"{name}.from: {split.from_!r} is not a split with a folder; there are: {folders}")
            taken = sum(s.fraction or 0 for s in (splits or {}).values() if s.from_ == split.from_)
            if taken >= 1:
                raise ValueError(f"the fractions taken from {split.from_!r} add up to {taken:g}; less than 1 expected")
        if splits is not None and not splits:
            raise ValueError("at least one split expected; leave 'splits' out to take every split that is found")
        return splits

    # -- from other forms ---------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """A recipe out of plain data, as YAML gives it."""
        if not isinstance(values, Mapping):
            raise RecipeError(f"a recipe is a mapping of names to values, found {type(values).__name__}")
        for key in values:
            if not isinstance(key, str):
                raise RecipeError(f"{key!r}: a name expected")
        return cls(**values)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> "Recipe":
        """A recipe out of a YAML file; `overrides` are KEY=VALUE, dots between keys, values in YAML."""
        return cls.from_dict(with_overrides(load_yaml(path), overrides))

    @classmethod
    def of(cls, cache: str | os.PathLike[str], snapshot: str | None = None) -> "Recipe":
        """The recipe of a cache's snapshot, with the statistics in force: what `render` needs at inference."""
        from cache_store.reader import open_cache
        from preprocess.renderings import stored_rendering

        with open_cache(cache, snapshot) as opened:
            recipe = cls.from_dict(opened.snapshot.recipe)
            for name, table in opened.splits.items():
                stored = stored_rendering(opened.tensors(name).attributes)
                recipe._stored[name] = stored, (table.mean, table.std)
        return recipe

    # -- resolved ------------------------------------------------------------------------------------------------------

    @property
    def notes(self) -> tuple[str, ...]:
        """What was set or taken out for the user, a line each."""
        return self._notes

    def _resolve(self) -> None:
        notes: list[str] = []
        tails: dict[str, MeanStd] = {}
        for name, split in (self.splits or {}).items():
            if split.transforms is None:
                continue
            place = f"splits.{name}.transforms"
            transforms, more = augment.resolve(split.transforms, place)
            notes += more
            kept, tail = _take_tail(transforms, place, 3 if self.channels == "rgb" else 1, notes)
            object.__setattr__(split, "transforms", kept)
            if tail is not None:
                tails[name] = tail
        normalize: Any = self.normalize
        if normalize == "imagenet":
            normalize = MeanStd(mean=IMAGENET[0], std=IMAGENET[1])
        if tails:
            first = next(iter(tails.values()))
            if any(tail != first for tail in tails.values()):
                raise RecipeError(
                    f"splits: the Normalize steps at the end of {', '.join(tails)} disagree; "
                    "the cache has one normalisation"
                )
            if "normalize" in self.model_fields_set and normalize != first:
                raise RecipeError(
                    f"normalize: {self.normalize!r} disagrees with the step at the end of splits.{next(iter(tails))}; "
                    "leave one of them out"
                )
            normalize = first
        if isinstance(normalize, MeanStd):
            _check_statistics(normalize, 3 if self.channels == "rgb" else 1)
        object.__setattr__(self, "normalize", normalize)
        self._notes = tuple(notes)

    def default_split(self) -> list[dict[str, Any]]:
        """Transforms of a split that names none: the shorter side to size x 256/224 by area, then the centre."""
        height, width = self.size
        resize: dict[str, Any]
        if height == width:
            resize = {"SmallestMaxSize": {"max_size": round(height * _RESIZE_TO_CROP)}}
        else:
            sides = [round(side * _RESIZE_TO_CROP) for side in self.size]
            resize = {"SmallestMaxSize": {"max_size_hw": sides}}
        crop = {"CenterCrop": {"height": height, "width": width}}
        return augment.resolve([resize, crop], "default transforms")[0]

    def with_splits(self, found: Sequence[tuple[str, str]]) -> "Recipe":
        """The recipe with every split and its transforms spelled out.

        Parameters
        ----------
        found : (split, folder) as the scan of SOURCE proposes them, for a recipe without `splits`, and for splits
            without `folder`
        """
        folders = dict(found)
        splits = self.splits if self.splits is not None else {name: SplitRecipe() for name in folders}
        whole: dict[str, Any] = {}
        for name, split in splits.items():
            values: dict[str, Any] = {"variants": split.variants}
            values["transforms"] = self.default_split() if split.transforms is None else split.transforms
            if split.from_ is not None:
                values |= {"from": split.from_, "fraction": split.fraction}
            else:
                values["folder"] = (
                    split.folder if split.folder is not None else folders.get(name, "." if not found else name)
                )
            whole[name] = values
        return self._with(splits=whole)

    def is_default(self) -> bool:
        """Whether every split is what a recipe without `splits` gives; new split folders then join by themselves."""
        default = self.default_split()
        return self.splits is None or all(
            name in SPLIT_NAMES and s.from_ is None and s.variants == 1 and s.transforms in (None, default)
            for name, s in self.splits.items()
        )

    def without_splits(self) -> "Recipe":
        """The same recipe for every split that is found."""
        return self._with(splits=None)

    def _with(self, **changes: Any) -> "Recipe":
        recipe = Recipe(**(self.canonical() | changes))
        recipe._notes = self._notes
        return recipe

    def canonical(self) -> dict[str, Any]:
        """Plain data with every argument resolved; a valid recipe again, equal for equal recipes."""
        normalize = self.normalize
        splits = None if self.splits is None else {name: _plain_split(split) for name, split in self.splits.items()}
        return {
            "size": list(self.size),
            "channels": self.channels,
            "dtype": self.dtype,
            "normalize": normalize.model_dump(mode="json") if isinstance(normalize, MeanStd) else normalize,
            "seed": self.seed,
            "decode": self.decode.model_dump(mode="json"),
            "classes": None if self.classes is None else list(self.classes),
            "splits": splits,
        }

    @property
    def max_pixels(self) -> int:
        return int(self.decode.max_megapixels * 1_000_000)

    @property
    def fixed_statistics(self) -> Statistics | None:
        """mean and std that the recipe itself gives; None for 'dataset'."""
        return (self.normalize.mean, self.normalize.std) if isinstance(self.normalize, MeanStd) else None

    @property
    def named_splits(self) -> dict[str, SplitRecipe]:
        """`splits` of a recipe that has them spelled out, as `with_splits` gives it."""
        assert self.splits is not None, "with_splits comes first"
        return self.splits

    def rendering(self, split: str, engine: str, probe: str) -> Rendering:
        """What fixes the pixels of a split, statistics still open."""
        return Rendering(
            size_hw=self.size,
            channels=self.channels,
            dtype=self.dtype,
            transforms=tuple(self.named_splits[split].transforms),
            seed=self.seed,
            reduced=self.decode.reduced,
            engine=engine,
            probe=probe,
        )

    def render(self, image: Any, split: str = "val", variant: int = 0) -> np.ndarray:
        """What the cache would hold of an image, bit for bit: for inference, and for a look at one sample.

        Parameters
        ----------
        image : path or bytes of an encoded image, or its pixels as uint8 (H, W, C); random draws follow from the
            content, so pixels get other draws than the file they came from
        split, variant : as in the cache

        Returns
        -------
        float16 or uint8 (C, H, W), as the recipe's dtype says

        Raises
        ------
        RecipeError : no such split, or the statistics are only known from a cache (`Recipe.of`)
        SourceError : the image cannot be read, decoded or rendered
        """
        from preprocess.renderings import render_one

        return render_one(self, self._stored.get(split), image, split, variant)


def load_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Plain data of a recipe file.

    Raises
    ------
    RecipeError : unreadable, not YAML (with the line), a key twice, or not a mapping
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        values = yaml.load(text, _StrictLoader)
    except OSError as error:
        raise RecipeError(f"recipe {os.fspath(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"recipe {os.fspath(path)!r} is not text in UTF-8") from None
    except yaml.YAMLError as error:
        raise RecipeError(f"recipe {os.fspath(path)!r} is not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError(f"recipe {os.fspath(path)!r}: a mapping of names to values expected, like 'size: 224'")
    return values


class _StrictLoader(yaml.SafeLoader):
    """Plain data only, and no key twice: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable) or key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def with_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """Plain data of a recipe with KEY=VALUE settings applied; dots between keys, values in YAML."""
    whole = dict(values)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator or not key.strip():
            raise RecipeError(f"--set {override!r}: KEY=VALUE expected, such as size=160 or splits.train.variants=4")
        try:
            value = yaml.load(text, _StrictLoader)
        except yaml.YAMLError:
            raise RecipeError(f"--set {override!r}: {text!r} is not a valid value") from None
        whole = _replaced(whole, key.strip().split("."), value, override)
    return whole


def _replaced(tree: Any, keys: list[str], value: Any, override: str) -> Any:
    if not keys:
        return value
    head, rest = keys[0], keys[1:]
    if isinstance(tree, list):
        if not head.isdecimal() or int(head) >= len(tree):
            raise RecipeError(f"--set {override!r}: {head!r} is not a place in a list of {len(tree)}")
        return [_replaced(item, rest, value, override) if i == int(head) else item for i, item in enumerate(tree)]
    if tree is None:
        tree = {}
    if not isinstance(tree, Mapping):
        raise RecipeError(f"--set {override!r}: there is nothing below {head!r}")
    return {**tree, head: _replaced(tree.get(head), rest, value, override)}


def _take_tail(
    transforms: list[dict[str, Any]], place: str, channels: int, notes: list[str]
) -> tuple[list[dict[str, Any]], MeanStd | None]:
    """Split off a trailing Normalize, ToFloat or ToTensorV2, which the cache does itself."""
    kept, normalize = list(transforms), None
    while kept and next(iter(kept[-1])) in augment.TAIL:
        ((name, args),) = kept.pop().items()
        if name != "ToTensorV2":
            if normalize is not None:
                raise RecipeError(f"{place}: both Normalize and ToFloat stand at the end; leave one of them out")
            normalize = _statistics_of(name, args, f"{place}.{name}", channels)
            mean, std = list(normalize.mean), list(normalize.std)
            notes.append(f"{place}: {name} was taken out; normalize is mean {mean}, std {std} instead")
        else:
            notes.append(f"{place}: ToTensorV2 was taken out; the loader gives tensors")
    for transform in kept:
        name = next(iter(transform))
        if name in augment.TAIL:
            raise RecipeError(f"{place}: {name} can only stand at the end; transforms work on 8-bit pixels")
    return kept, normalize


def _statistics_of(name: str, args: Mapping[str, Any], place: str, channels: int) -> MeanStd:
    """(v - mean * m) / (std * m) of Normalize with max_pixel_value m, and v / m of ToFloat, for v / 255 in 0..1."""
    if args.get("p", 1) not in (1, 1.0):
        raise RecipeError(f"{place}: p={args['p']}; a cache is normalised as a whole: p: 1 expected")
    if name == "ToFloat":
        scale = (args.get("max_value") or 255.0) / 255.0
        return MeanStd(mean=(0.0,) * channels, std=(scale,) * channels)
    if args.get("normalization", "standard") != "standard":
        raise RecipeError(
            f"{place}: normalization {args['normalization']!r}; only 'standard' is the same for every image"
        )
    mean, std = args.get("mean", IMAGENET[0]), args.get("std", IMAGENET[1])
    scale = args.get("max_pixel_value", 255.0) / 255.0
    if scale == 0 or mean is None or std is None:
        raise RecipeError(f"{place}: mean, std and a max_pixel_value above 0 expected")
    mean, std = (list(v) if isinstance(v, Sequence) else [v] * channels for v in (mean, std))
    return MeanStd(mean=tuple(v * scale for v in mean), std=tuple(v * scale for v in std))


def _check_statistics(normalize: MeanStd, channels: int) -> None:
    for name, values in (("mean", normalize.mean), ("std", normalize.std)):
        if len(values) != channels:
            raise RecipeError(f"normalize.{name}: {channels} values expected (one a channel), {len(values)} found")
    try:
        normalisation_table(normalize.mean, normalize.std)
    except ValueError as error:
        raise RecipeError(f"normalize: {error}") from None


def _plain_split(split: SplitRecipe) -> dict[str, Any]:
    origin: dict[str, Any] = {"folder": split.folder}
    if split.from_ is not None:
        origin = {"from": split.from_, "fraction": split.fraction}
    return origin | {"variants": split.variants, "transforms": split.transforms}


def _complaint(detail: ErrorDetails, model: type[BaseModel]) -> str:
    """One line out of pydantic's report: place, what is wrong, nearest spelling."""
    location = [
        part for part in detail["loc"] if not isinstance(part, str) or not part.startswith(("literal", "MeanStd"))
    ]
    place = ".".join(str(part) for part in location)
    if detail["type"] == "extra_forbidden":
        known = _fields_at(model, location[:-1])
        return f"{place}: unknown key{augment.nearest(str(location[-1]), known)}"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "literal_error" or location == ["normalize"]:
        choices = {"normalize": ["dataset", "imagenet"], "channels": ["rgb", "gray"], "dtype": ["float16", "uint8"]}
        known = choices.get(str(location[-1]), [])
        hint = augment.nearest(str(detail["input"]), known)
        also = " or {mean: […], std: […]} in 0..1" if location == ["normalize"] else ""
        return f"{place}: {detail['input']!r} is unknown{hint}{also}"
    found = "" if detail["type"] == "value_error" else f", found {detail['input']!r}"
    return f"{place}: {message}{found}" if place else message


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    parts: dict[str, type[BaseModel]] = {"decode": Decode, "normalize": MeanStd, "splits": SplitRecipe}
    inner = parts.get(str(location[0])) if location else None
    fields = (inner or model).model_fields
    return [field.alias or name for name, field in fields.items()]


def as_recipe(recipe: "Recipe | Mapping[str, Any] | str | os.PathLike[str] | None") -> Recipe | None:
    """A recipe given as such, as plain data, or as the path of a YAML file."""
    if recipe is None or isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        return Recipe.from_dict(recipe)
    if isinstance(recipe, (str, os.PathLike)):
        return Recipe.from_yaml(recipe)
    raise UsageError(f"recipe: a Recipe, a dict or the path of a YAML file expected, found {type(recipe).__name__}")
