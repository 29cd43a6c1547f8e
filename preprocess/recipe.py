"""The whole description of how sources become tensors: a frozen value, from YAML, a dict or Python objects.

Every refusal gives the place (`splits.train.transforms[1].RandomResizedCrop`), what was found, and the nearest valid
spelling. `canonical` has every default and argument resolved and is itself a valid recipe; it is what a snapshot keeps.
"""

import os
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Literal, TypedDict, Unpack

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

from cache_store import layout
from cache_store.canonical import canonical_json
from cache_store.normalise import normalisation_table
from preprocess import augment
from preprocess.errors import RecipeError, UsageError
from preprocess.levels import HIGH_BYTE, HIGHEST, LOWEST, Levels, Window
from preprocess.names import SPLIT_NAMES, split_of
from preprocess.own_size import filled_in
from preprocess.rendering import Rendering, Statistics

IMAGENET: Statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_RESIZE_TO_CROP = 256 / 224
_MAX_SIDE = 16_384
_MAX_VARIANTS = 10_000


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, arbitrary_types_allowed=True)


class Decode(_Part):
    """How encoded bytes become pixels."""

    max_megapixels: float = Field(179, gt=0, le=1e6)
    reduced: bool = Field(False, strict=True)
    levels: Any = None
    """[lo, hi], 'high-byte', or None, see `levels.Levels`; a tuple once the recipe is validated."""
    extra_channels: Literal["drop"] | None = None
    pages: Literal["first"] | None = None

    @field_validator("levels")
    @classmethod
    def _window(cls, levels: Any) -> Levels:
        if levels is None or levels == HIGH_BYTE:
            return levels  # type: ignore[no-any-return]
        if isinstance(levels, (list, tuple)) and len(levels) == 2 and all(type(value) is int for value in levels):
            low, high = levels
            if LOWEST <= low < high <= HIGHEST:
                return low, high
        hint = augment.nearest(levels, [HIGH_BYTE]) if isinstance(levels, str) else ""
        raise ValueError(
            f"[lo, hi] of whole numbers, lo < hi, from {LOWEST} to {HIGHEST}, or {HIGH_BYTE} expected, found "
            f"{levels!r}{hint}"
        )

    @property
    def admitted(self) -> dict[str, str]:
        """What is said of images that would be refused, and leaves the pixels of all others as they are."""
        keys = {"levels": self.levels, "extra_channels": self.extra_channels, "pages": self.pages}
        return {key: value for key, value in keys.items() if isinstance(value, str)}

    @property
    def window(self) -> Window | None:
        """What becomes 0..255 of 16-bit values."""
        return self.levels if isinstance(self.levels, tuple) else None


class MeanStd(_Part):
    """Fixed statistics in 0..1, one value a channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class SplitRecipe(_Part):
    """One split: where its images come from, how many variants, and the transforms."""

    folder: str | None = None
    from_: str | None = Field(None, alias="from")
    fraction: float | None = Field(None, gt=0, lt=1)
    variants: int = Field(1, ge=1, le=_MAX_VARIANTS, strict=True)
    transforms: Any = None
    """A list in the canonical form once the recipe is validated; None: the default for the recipe's size."""

    @field_validator("folder")
    @classmethod
    def _inside_source(cls, folder: str | None) -> str | None:
        if folder is not None and (folder.startswith(("/", "~")) or ".." in PurePosixPath(folder).parts):
            raise ValueError(f"a folder inside SOURCE expected, relative to it, found {folder!r}")
        return None if folder is None else str(PurePosixPath(folder))

    @model_validator(mode="after")
    def _one_origin(self) -> "SplitRecipe":
        if (self.from_ is None) != (self.fraction is None):
            raise ValueError("'from' and 'fraction' go together, such as {from: train, fraction: 0.1}")
        if self.from_ is not None and self.folder is not None:
            raise ValueError("either 'folder', or 'from' with 'fraction'")
        return self


class _Values(TypedDict, total=False):
    """What `Recipe` takes, for type checkers; more than what its fields are once it is checked."""

    size: int | Sequence[int]
    channels: Literal["rgb", "gray"]
    dtype: Literal["float16", "uint8"]
    normalize: Literal["dataset", "imagenet"] | Mapping[str, Sequence[float]] | MeanStd
    seed: int
    decode: Mapping[str, Any] | Decode | None
    classes: Sequence[str] | None
    splits: Mapping[str, Any] | None


class Recipe(_Part):
    """How sources become tensors.

    Parameters
    ----------
    size : output height = width, or (height, width)
    channels : 'rgb' or 'gray'
    dtype : 'float16' (normalised, baked in) or 'uint8' (half the bytes, normalised when loaded)
    normalize : 'dataset' (exact, from `train`, else the first split), 'imagenet', or {'mean': […], 'std': […]} in 0..1
    seed : start of all random draws, 0..2**63 - 1
    decode : {'max_megapixels': 179, 'reduced': False}, and, only if wanted, 'levels': [lo, hi] or 'high-byte',
        'extra_channels': 'drop', 'pages': 'first'
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
    seed: int = Field(0, ge=0, lt=2**63, strict=True)
    decode: Decode = Decode()
    classes: tuple[str, ...] | None = None
    splits: dict[str, SplitRecipe] | None = None

    _notes: tuple[str, ...] = PrivateAttr(())
    _stored: dict[str, tuple[Rendering, Statistics]] = PrivateAttr(default_factory=dict)

    def __init__(self, **values: Unpack[_Values]) -> None:
        try:
            super().__init__(**values)  # type: ignore[misc]  # pydantic checks them, and converts
        except ValidationError as error:
            raise RecipeError(_complaint_of(error, values)) from None
        self._resolve()

    @field_validator("size", mode="wrap")
    @classmethod
    def _square(cls, size: Any, handler: ValidatorFunctionWrapHandler) -> tuple[int, int]:
        if isinstance(size, int) and not isinstance(size, bool):
            size = (size, size)
        if not isinstance(size, (list, tuple)) or len(size) != 2:
            raise ValueError(f"one number, or [height, width] expected, found {size!r}")
        height, width = handler(size)
        if not (1 <= height <= _MAX_SIDE and 1 <= width <= _MAX_SIDE):
            raise ValueError(f"sides of 1 to {_MAX_SIDE} pixels expected, found {height} and {width}")
        return height, width

    @field_validator("decode", mode="before")
    @classmethod
    def _default_decode(cls, decode: Any) -> Any:
        return {} if decode is None else decode  # a key of YAML with nothing behind it

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: tuple[str, ...] | None) -> tuple[str, ...] | None:
        twice = [name for i, name in enumerate(classes or ()) if name in (classes or ())[:i]]
        if twice:
            raise ValueError(f"{twice[0]!r} stands twice; each class has one id")
        return classes

    @field_validator("splits", mode="before")
    @classmethod
    def _default_splits(cls, splits: Any) -> Any:
        if not isinstance(splits, Mapping):
            return splits
        for name in splits:
            if not isinstance(name, str):
                raise ValueError(f"the name of a split expected, found {name!r}; write it in quotes")
        return {name: {} if split is None else split for name, split in splits.items()}

    @field_validator("splits")
    @classmethod
    def _known_origins(cls, splits: dict[str, SplitRecipe] | None) -> dict[str, SplitRecipe] | None:
        for name, split in (splits or {}).items():
            if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
                raise ValueError(f"letters, digits, '_' and '-' expected in the name of a split, found {name!r}")
            if name == "failures":
                raise ValueError("'failures' cannot be a split: the cache keeps the list of failed images under it")
            if split.from_ is None:
                continue
            origin = (splits or {}).get(split.from_)
            if origin is None or origin.from_ is not None:
                folders = [n for n, s in (splits or {}).items() if s.from_ is None]
                hint = augment.nearest(split.from_, folders) if folders else ""
                raise ValueError(f"from of {name!r}: {split.from_!r} is not a split with a folder of its own{hint}")
            taken = sum(s.fraction or 0 for s in (splits or {}).values() if s.from_ == split.from_)
            if taken >= 1:
                raise ValueError(f"the fractions taken from {split.from_!r} add up to {taken:g}; less than 1 expected")
        if splits is not None and not splits:
            raise ValueError("at least one split expected; leave 'splits' out to take every split that is found")
        return splits

    # -- from other forms ---------------------------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """A recipe out of plain data, as YAML gives it.

        Raises
        ------
        RecipeError : with place, what was found, and the nearest valid spelling
        """
        if not isinstance(values, Mapping):
            raise RecipeError(f"a recipe is a mapping of names to values, found {type(values).__name__}")
        for key in values:
            if not isinstance(key, str):
                raise RecipeError(f"{key!r}: a name expected")
        return cls(**values)

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str], overrides: Iterable[str] = ()) -> "Recipe":
        """A recipe out of a YAML file; `overrides` are KEY=VALUE, dots between keys, values in YAML.

        Raises
        ------
        RecipeError : the file cannot be read, is not YAML (with the line), or what it says cannot be meant
        """
        values = with_overrides(load_yaml(path), overrides)
        try:
            return cls.from_dict(values)
        except RecipeError as error:
            raise RecipeError(f"recipe {os.fspath(path)!r}: {error}") from None

    @classmethod
    def from_torchvision(cls, transforms: Any, *, variants: int | Mapping[str, int] = 1, **values: Any) -> "Recipe":
        """A recipe that does what a pipeline of torchvision's does, as closely as OpenCV and Albumentations can.

        Understood are, of v1 and v2: Resize, CenterCrop, RandomCrop, RandomResizedCrop, RandomHorizontalFlip,
        RandomVerticalFlip, ColorJitter, Grayscale, RandomGrayscale, GaussianBlur, Normalize, ToTensor, PILToTensor,
        ToImage, ToDtype, ConvertImageDtype and ToPureTensor, in Compose, nn.Sequential or lists; and what
        `weights.transforms()` gives for an image classifier. Each of the others is refused by its name.

        Parameters
        ----------
        transforms : a pipeline, for the split `train`; or split -> pipeline
        variants : K of the splits that draw random numbers (the others have one); or split -> K
        values : other keys of the recipe: dtype, seed, decode, classes; normalize, if no pipeline has a Normalize

        Returns
        -------
        Recipe : its size is that of the last crop or resize. Normalize becomes `normalize: {mean, std}`; of a pipeline
            that ends in 0..1, mean 0 and std 1; of one that ends in 0..255, `normalize` stays open

        What differs from torchvision:

        - Random numbers: the same distributions, other draws, which depend on each file's content.
        - Shrinking averages by area, where PIL and torch weigh a wider neighbourhood (bilinear, bicubic). Enlarging is
          OpenCV's. Of photographs after Resize(256) and CenterCrop(224), this makes 0.7 levels of 255 on average.
        - Resize(256) rounds the longer side, which torchvision cuts off, and CenterCrop takes the left or upper one of
          two middles, torchvision the even one: of a third of the photographs the result is shifted by a pixel.
        - Hues are turned in floating point, as torchvision does with tensors; with PIL images it does so in 8 bits.
        - Everything up to Normalize works on 8-bit pixels, also what torchvision does to tensors in 0..1.
        - Images stand as their EXIF orientation says; `ImageFolder` leaves them as they are stored.

        Raises
        ------
        RecipeError : a transform that has no counterpart, with what to do instead; splits that differ in size, channels
            or normalisation; or values that a recipe refuses
        """
        from preprocess.from_torchvision import recipe_values

        for key in ("size", "channels", "splits"):
            if key in values:
                raise RecipeError(f"{key}: follows from the transforms; leave it out")
        return cls.from_dict(recipe_values(transforms, variants, normalize_given="normalize" in values) | values)

    @classmethod
    def of(cls, cache: str | os.PathLike[str], snapshot: str | None = None) -> "Recipe":
        """The recipe of a cache's snapshot, with the statistics in force: what `render` needs at inference.

        Parameters
        ----------
        cache : folder of the cache
        snapshot : name of a snapshot; None: the one in force now

        Raises
        ------
        NotFoundError : no such cache or snapshot
        FormatError, IntegrityError : written by another version, or damaged
        """
        from cache_store.reader import open_cache
        from preprocess.renderings import stored_rendering

        with open_cache(cache, snapshot) as opened:
            recipe = cls.from_dict(opened.snapshot.recipe)
            for name, table in opened.splits.items():
                stored = stored_rendering(opened.tensors(name).attributes)
                stored = replace(stored, admitted=tuple(recipe.decode.admitted.items()))
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
        splits = dict(self.splits or {})
        channels = 3 if self.channels == "rgb" else 1
        for name, split in splits.items():
            if split.transforms is None:
                continue
            place = f"splits.{name}.transforms"
            transforms, more = augment.resolve(filled_in(split.transforms, self.size, place), place)
            notes += more
            kept, tail = _take_tail(transforms, place, channels, notes)
            splits[name] = split.model_copy(update={"transforms": kept})
            if tail is not None:
                tails[name] = tail
        if self.splits is not None:
            object.__setattr__(self, "splits", splits)
        object.__setattr__(self, "normalize", self._settled_normalize(tails))
        self._notes = tuple(notes)

    def _settled_normalize(self, tails: Mapping[str, MeanStd]) -> Any:
        """`normalize`, or what the transforms of the splits end with."""
        normalize: Any = self.normalize
        channels = 3 if self.channels == "rgb" else 1
        if normalize == "imagenet":
            if channels != len(IMAGENET[0]):
                raise RecipeError(
                    f"normalize: 'imagenet' has statistics for rgb, channels is {self.channels}; "
                    "write dataset, or {mean: [m], std: [s]} in 0..1"
                )
            normalize = MeanStd(mean=IMAGENET[0], std=IMAGENET[1])
        if isinstance(normalize, MeanStd):
            _check_statistics(normalize, channels, "normalize")
        if not tails:
            return normalize
        first_split, first = next(iter(tails.items()))
        for name, tail in tails.items():
            if tail != first:
                raise RecipeError(
                    f"splits.{name}.transforms: the last step normalises by {_in_words(tail)}, that of {first_split!r} "
                    f"by {_in_words(first)}; the cache has one normalisation, so make them equal"
                )
        if "normalize" in self.model_fields_set and normalize != first:
            raise RecipeError(
                f"normalize: {_in_words(normalize)} disagrees with the last step of splits.{first_split}.transforms, "
                f"{_in_words(first)}; leave one of them out"
            )
        return first

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
        own = [name for name, split in (self.splits or {}).items() if split.from_ is None]
        if len(own) > 1 and "." in folders.values():
            folders = {}  # SOURCE as a whole is one split; of several, each has its folder
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

    def open_splits(self) -> list[str] | None:
        """The splits whose folders SOURCE decides; None: all that it has."""
        if self.splits is None:
            return None
        return [name for name, split in self.splits.items() if split.folder is None and split.from_ is None]

    def is_default(self) -> bool:
        """Whether every split is what a recipe without `splits` gives; new split folders then join by themselves."""
        whole = self.splits is not None and set(self.splits) == {"train"} and self.splits["train"].folder == "."
        default = self.default_split()
        return all(
            name in SPLIT_NAMES
            and (whole or split.folder is None or split_of(split.folder) == name)
            and split.from_ is None
            and split.variants == 1
            and split.transforms in (None, default)
            for name, split in (self.splits or {}).items()
        )

    def reopened(self, *, splits_written: bool = False) -> "Recipe":
        """A recipe that a snapshot keeps, as its user may have written it: what defaults filled in is open again.

        Another size, say, then fills it in anew, and new split folders join a recipe that named none.

        Parameters
        ----------
        splits_written : as in `cache_store.manifest.Snapshot`; then the splits stay as they are
        """
        if self.is_default() and not splits_written:
            return self.without_splits()
        default = self.default_split()
        splits = {name: _plain_split(split) for name, split in self.named_splits.items()}
        for values in splits.values():
            if values["transforms"] == default:
                values["transforms"] = None
        return self._with(splits=splits)

    def without_splits(self) -> "Recipe":
        """The same recipe for every split that is found."""
        return self._with(splits=None)

    def _with(self, **changes: Any) -> "Recipe":
        recipe = Recipe(**(self.canonical() | changes))
        recipe._notes = self._notes
        return recipe

    def __eq__(self, other: object) -> bool:
        """Equal if all that they ask for is, however it was written."""
        return isinstance(other, Recipe) and canonical_json(self.canonical()) == canonical_json(other.canonical())

    def __hash__(self) -> int:
        return hash(canonical_json(self.canonical()))

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
            "decode": self.decode.model_dump(mode="json", exclude_none=True),
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
            window=self.decode.window,
            admitted=tuple(self.decode.admitted.items()),
        )

    def render(
        self, image: Any, split: str = "val", variant: int = 0, *, digest: bytes | str | None = None
    ) -> np.ndarray:
        """What the cache would hold of an image, bit for bit: for inference, and for a look at one sample.

        Parameters
        ----------
        image : path or bytes of an encoded image; or its decoded pixels, upright, uint8 (H, W, C), RGB or gray
        split, variant : as in the cache
        digest : of the encoded file, blake2b with 128 bits, 16 bytes or as hex: random draws follow from it. Pixels do
            not tell which file they came from, so a split that draws at random needs it with them; a file has its own

        Pixels are taken as they are. Where the recipe has decode.reduced, a build decodes some JPEGs smaller than that.

        Returns
        -------
        float16 or uint8 (C, H, W), as the recipe's dtype says

        Raises
        ------
        RecipeError : no such split, or the statistics are only known from a cache (`Recipe.of`)
        UsageError : a negative variant; an image of another type; pixels without the digest that the split draws by;
            a digest that is none, or another file's
        SourceError : the image cannot be read, decoded or rendered
        """
        from preprocess.renderings import render_one

        return render_one(self, self._stored.get(split), image, split, variant, digest)


def load_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Plain data of a recipe file.

    Raises
    ------
    RecipeError : unreadable, not YAML (with the line), a key twice, or not a mapping
    """
    what = f"recipe {os.fspath(path)!r}"
    try:
        values = yaml.load(layout.given_path(path).read_text(encoding="utf-8"), _StrictLoader)
    except OSError as error:
        hint = "; decant init SOURCE writes one" if isinstance(error, FileNotFoundError) else ""
        raise RecipeError(f"{what} cannot be read: {error.strerror}{hint}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{what} is not text in UTF-8; save it as UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        is_object = isinstance(error, yaml.constructor.ConstructorError) and "tag" in (error.problem or "")
        hint = "; write plain values: numbers, texts, lists and mappings" if is_object else ""
        raise RecipeError(f"{what}{line}: {error.problem or error.context}{hint}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise RecipeError(f"{what} is not valid YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RecipeError(f"{what}: a mapping of names to values expected, like 'size: 224', found {values!r:.60}")
    return values


class _StrictLoader(yaml.SafeLoader):
    """Plain data only, and no key twice: the second would silently win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                problem = f"a name expected as key, found {key!r}"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in seen:
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
        here = f"{place}[{len(kept)}].{name}"
        if name == "ToTensorV2":
            notes.append(f"{here} was taken out; the loader gives tensors")
            continue
        if normalize is not None:
            raise RecipeError(f"{here}: both Normalize and ToFloat stand at the end; leave one of them out")
        normalize = _statistics_of(name, args, here, channels)
        _check_statistics(normalize, channels, here)
        notes.append(f"{here} was taken out; normalize is {_in_words(normalize)} instead")
    for number, transform in enumerate(kept):
        name = next(iter(transform))
        if name in augment.TAIL:
            raise RecipeError(f"{place}[{number}].{name}: can only stand at the end; transforms work on 8-bit pixels")
    return kept, normalize


def _statistics_of(name: str, args: Mapping[str, Any], place: str, channels: int) -> MeanStd:
    """(v - mean * m) / (std * m) of Normalize with max_pixel_value m, and v / m of ToFloat, for v / 255 in 0..1."""
    if args.get("p", 1) != 1:
        raise RecipeError(f"{place}.p: 1 expected, as a cache is normalised as a whole; found {args['p']!r}")
    if name == "ToFloat":
        largest = args.get("max_value")
        scale = _number(255.0 if largest is None else largest, f"{place}.max_value") / 255.0
        return MeanStd(mean=(0.0,) * channels, std=(scale,) * channels)
    if args.get("normalization", "standard") != "standard":
        raise RecipeError(
            f"{place}.normalization: only 'standard' is the same for every image, found {args['normalization']!r}"
        )
    scale = _number(args.get("max_pixel_value", 255.0), f"{place}.max_pixel_value") / 255.0
    values = []
    for key, default in (("mean", IMAGENET[0]), ("std", IMAGENET[1])):
        given = args.get(key, default)
        given = [given] * channels if isinstance(given, (int, float)) else given
        if not isinstance(given, Sequence) or isinstance(given, str):
            raise RecipeError(f"{place}.{key}: one number a channel expected, found {given!r}")
        for value in given:
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise RecipeError(f"{place}.{key}: a number expected, found {value!r}")
        values.append(tuple(value * scale for value in given))
    return MeanStd(mean=values[0], std=values[1])


def _number(value: Any, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise RecipeError(f"{place}: a number above 0 expected, found {value!r}")
    return float(value)


def _check_statistics(normalize: MeanStd, channels: int, place: str) -> None:
    for name, values in (("mean", normalize.mean), ("std", normalize.std)):
        if len(values) != channels:
            expected = "1 value" if channels == 1 else f"{channels} values"
            raise RecipeError(
                f"{place}.{name}: {expected} expected, one a channel; found {len(values)}: {list(values)}"
            )
    try:
        normalisation_table(normalize.mean, normalize.std)
    except ValueError as error:
        raise RecipeError(f"{place}: {error}") from None


def _in_words(normalize: Any) -> str:
    if not isinstance(normalize, MeanStd):
        return repr(normalize)
    return f"mean {list(normalize.mean)}, std {list(normalize.std)}"


def _plain_split(split: SplitRecipe) -> dict[str, Any]:
    origin: dict[str, Any] = {"folder": split.folder}
    if split.from_ is not None:
        origin = {"from": split.from_, "fraction": split.fraction}
    return origin | {"variants": split.variants, "transforms": split.transforms}


_CHOICES = {
    "normalize": ["dataset", "imagenet"],
    "channels": ["rgb", "gray"],
    "dtype": ["float16", "uint8"],
    "decode.extra_channels": ["drop"],
    "decode.pages": ["first"],
}


def _complaint_of(error: ValidationError, values: Mapping[str, Any]) -> str:
    """One line out of pydantic's report on a recipe: place, what is wrong, nearest spelling."""
    detail = error.errors()[0]
    if detail["loc"][:1] == ("normalize",):
        return _complaint_of_normalize(values["normalize"])
    return _complaint(detail, detail["loc"], _fields_at(detail["loc"][:-1]))


def _complaint_of_normalize(given: Any) -> str:
    """pydantic reports every branch of a union; the user meant one."""
    if isinstance(given, Mapping):
        try:
            MeanStd(**given)
        except ValidationError as error:
            # A wrong name says more than that the right one is missing.
            details = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
            if details[0]["type"] != "missing":
                return _complaint(details[0], ("normalize", *details[0]["loc"]), list(MeanStd.model_fields))
    hint = augment.nearest(given, _CHOICES["normalize"]) if isinstance(given, str) else ""
    return f"normalize: dataset, imagenet or {{mean: […], std: […]}} in 0..1 expected, found {given!r}{hint}"


def _complaint(detail: ErrorDetails, location: Sequence[Any], known: Sequence[str]) -> str:
    place, found = _place(location), detail["input"]
    if detail["type"] == "extra_forbidden":
        return f"{place}: unknown key{augment.nearest(str(location[-1]), known)}"
    if detail["type"] == "literal_error":
        return f"{place}: {found!r} is unknown{augment.nearest(str(found), _CHOICES[place])}"
    if detail["type"] in ("model_type", "dict_type"):
        return f"{place}: keys and values expected, found {found!r}"
    if detail["type"] == "value_error":  # one of ours, with all that is to be said
        return f"{place}: {detail['msg'].removeprefix('Value error, ')}"
    quoted = "; write it in quotes" if detail["type"] == "string_type" else ""
    return f"{place}: {augment.plainly(detail['msg'])}, found {found!r}{quoted}"


def _place(location: Sequence[Any]) -> str:
    """`splits.train.folder`, `classes[0]`."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _fields_at(location: Sequence[Any]) -> list[str]:
    parts: dict[str, type[BaseModel]] = {"decode": Decode, "splits": SplitRecipe}
    fields = parts.get(str(location[0]) if location else "", Recipe).model_fields
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
