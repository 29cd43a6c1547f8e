"""Albumentations by name: from a recipe's transforms to random draws, applied. The only import of albumentations.

Canonical form of a list of transforms: `[{"HorizontalFlip": {"p": 0.5}}, …]`, with every argument resolved by the
library itself, so that YAML, Python objects and other spellings of one pipeline give one identity.
"""

import contextlib
import difflib
import functools
import hashlib
import importlib.metadata
import inspect
import os
import random
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

from preprocess.decisions import Misshapen, Shape, Step, draw, first_other, refuse_larger
from preprocess.errors import RecipeError, SourceError, UsageError

INTERPOLATIONS = {
    "nearest": 0,
    "linear": 1,
    "cubic": 2,
    "area": 3,
    "lanczos4": 4,
    "linear_exact": 5,
    "nearest_exact": 6,
}
"""Names for cv2's INTER_* constants."""

BORDER_MODES = {"constant": 0, "replicate": 1, "reflect": 2, "wrap": 3, "reflect_101": 4}
"""Names for cv2's BORDER_* constants."""

TAIL = ("Normalize", "ToFloat", "ToTensorV2")
"""What pasted pipelines end with, and the cache does itself."""

_COMPOSITIONS = frozenset({"Compose", "Sequential", "OneOf", "SomeOf", "RandomOrder"})
_NOT_USABLE = frozenset(
    {"BasicTransform", "DualTransform", "ImageOnlyTransform", "Transform3D", "ReplayCompose", "Lambda"}
)
_FOREIGN_DATA = frozenset({"reference_images", "read_fn", "metadata_key", "font_path", "templates"})
_NEED_MORE = {
    "AtLeastOneBBoxRandomCrop": "bounding boxes",
    "BBoxSafeRandomCrop": "bounding boxes",
    "ConstrainedCoarseDropout": "a mask or bounding boxes",
    "CropNonEmptyMaskIfExists": "a mask",
    "FromFloat": "pixels in floating point",
    "MaskDropout": "a mask",
    "RandomCropNearBBox": "bounding boxes",
    "RandomSizedBBoxSafeCrop": "bounding boxes",
}
"""Refused by name: some of these do nothing without what they need, and others fail only when their p comes up."""
_STORED_OTHERWISE = {"ShiftScaleRotate": {"shift_limit"}}
"""Arguments that the library keeps under other names, which it also takes."""

_BLANK_SIZES = ((375, 500), (64, 2000), (2000, 64), (1, 1))
_BLANK_SEEDS = 20
_LARGE_BLANK, _LARGE_BLANK_SEEDS = (3000, 4000), 3
_TRIALS = len(_BLANK_SIZES) * _BLANK_SEEDS + _LARGE_BLANK_SEEDS
_LARGE_BLANK_COST = 27
"""Pixels of the large one over those of the others together."""

_PROOF_S = 20.0
"""Longest that a proof goes on after one image of each size; slow transforms get fewer draws, and no large image."""


def library(*, without_torch: bool = False) -> Any:
    """The albumentations module.

    Parameters
    ----------
    without_torch : for processes of our own. albumentations imports torch when it is there, which costs seconds
        and half a gigabyte that rendering on the CPU has no use for

    Raises
    ------
    UsageError : albumentationsx, another package under the same import name, is installed
    """
    _refuse_albumentationsx()
    if "albumentations" not in sys.modules:
        # Without this, importing the library calls a package registry.
        os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
        if without_torch and "torch" not in sys.modules:
            sys.modules["torch"] = None  # type: ignore[assignment]
            try:
                import albumentations
            finally:
                del sys.modules["torch"]
    import albumentations

    return albumentations


@functools.cache
def _refuse_albumentationsx() -> None:
    try:
        found = importlib.metadata.version("albumentationsx")
    except importlib.metadata.PackageNotFoundError:
        return
    raise UsageError(
        f"albumentationsx {found} is installed: it takes the import name of albumentations under another "
        "licence (AGPL); run: pip uninstall -y albumentationsx && pip install --force-reinstall "
        "'albumentations>=2.0.8,<2.1'"
    )


def random_state(seed: int, digest: bytes, variant: int) -> int:
    """The number that all random draws of one variant start from.

    blake2b with 64 bits over seed (8 bytes, little-endian), source digest (16 bytes) and variant (8 bytes,
    little-endian), read as a little-endian integer. It depends on the content alone: not on order, worker or name.
    """
    data = seed.to_bytes(8, "little") + digest + variant.to_bytes(8, "little")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class Pipeline:
    """A canonical list of transforms, ready to run.

    One pair of generators, `numpy.random.default_rng(state)` and `random.Random(state)`, serves all transforms in
    turn. (Albumentations' own `set_random_seed` gives each transform a generator of the same seed: a flip with
    p = 0.5 would then depend on the crop's size.)

    Parameters
    ----------
    transforms : canonical
    max_pixels : that any of them may make of an image; None: as many as they like

    Attributes
    ----------
    other : the first transform that decides by pixels, as `first_other` names it; None if `decide` serves them all
    names : of the transforms, those inside of compositions too
    spent_ns : what calls took so far, by transform: int64 (len(names),)
    """

    def __init__(self, transforms: Sequence[Mapping[str, Any]], max_pixels: int | None = None) -> None:
        self._max_pixels = sys.maxsize if max_pixels is None else max_pixels
        self._compose = library().Compose([_instantiate(name, args) for name, args in _pairs(transforms)])
        self.other = first_other(self._compose.transforms)
        leaves = self.leaves()
        self.names = tuple(type(leaf).__name__ for leaf in leaves)
        self.spent_ns = np.zeros(len(leaves), np.int64)
        self._places = {id(leaf): place for place, leaf in enumerate(leaves)}
        for leaf in leaves:
            self._watch_within_calls(leaf)

    def __call__(self, image: np.ndarray, state: int) -> np.ndarray:
        """Apply the transforms to uint8 (H, W, C); the image is not changed. Returns what they return.

        Raises
        ------
        SourceError : a transform would make more pixels than it may
        Exception : whatever a transform raises of such an image
        """
        if image.shape[2] == 1:  # Equalize as Pillow does it writes into an image of one channel
            image = image.copy()
        if self.other is None:
            with contextlib.suppress(Misshapen):
                return self._apply(image, state)
        self._seed(state)
        out: np.ndarray = self._compose(image=image)["image"]
        return out

    def _apply(self, image: np.ndarray, state: int) -> np.ndarray:
        """What the library's own call does, step by step."""
        self._seed(state)
        height, width, channels = image.shape
        begun = time.monotonic_ns()
        for step in draw(self._compose, (height, width, channels)):
            refuse_larger(step.transform, step.params, image.shape, self._max_pixels)
            out = step.transform.apply(np.ascontiguousarray(image), **step.params)
            image = np.ascontiguousarray(out)
            ended = time.monotonic_ns()
            self.spent_ns[self._places[id(step.transform)]] += ended - begun
            begun = ended
        return image

    def _watch_within_calls(self, leaf: Any) -> None:
        """Bound and time what the library's own call does to the pixels; `_apply` does without it."""
        apply, place = leaf.apply_with_params, self._places[id(leaf)]

        def watched(params: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
            refuse_larger(leaf, params, kwargs["image"].shape, self._max_pixels)
            begun = time.monotonic_ns()
            try:
                return apply(params, *args, **kwargs)
            finally:
                self.spent_ns[place] += time.monotonic_ns() - begun

        leaf.apply_with_params = watched

    def decide(self, shape: Shape, state: int) -> list[Step]:
        """What a call does to an image of this height, width and number of channels; only if `other` is None.

        Raises
        ------
        SourceError : a transform would make more pixels than it may
        Exception : what a call raises of such an image; or `Misshapen`, where its result is nonsense
        """
        assert self.other is None, f"{self.other} needs pixels to decide"
        self._seed(state)
        steps = []
        for step in draw(self._compose, shape):
            refuse_larger(step.transform, step.params, shape, self._max_pixels)
            steps.append(step)
            shape = step.shape
        return steps

    def take_ns(self) -> tuple[int, ...]:
        """What calls have taken since the last time, by transform."""
        spent = tuple(self.spent_ns.tolist())
        self.spent_ns[:] = 0
        return spent

    def leaves(self) -> list[Any]:
        """Its transforms, those inside of compositions too, as objects of the library."""
        return list(_leaves(self._compose))

    def _seed(self, state: int) -> None:
        self._compose.set_random_state(np.random.default_rng(state), random.Random(state))


def _leaves(composition: Any) -> Iterator[Any]:
    for transform in composition.transforms:
        if type(transform).__name__ in _COMPOSITIONS:
            yield from _leaves(transform)
        else:
            yield transform


def resolve(transforms: Any, place: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Check transforms by name and argument and bring them to canonical form.

    Parameters
    ----------
    transforms : a list of names, `{name: arguments}` or Albumentations objects; or an Albumentations `Compose`
    place : where they stand in the recipe, for messages

    Returns
    -------
    canonical transforms, and notes on what was set for the user

    Raises
    ------
    RecipeError : unknown name or argument (with the nearest valid spelling), wrong value, or a transform that cannot
        be serialised or reads other files
    """
    album = library()
    notes: list[str] = []
    if isinstance(transforms, album.Compose):
        if transforms.p != 1:
            raise RecipeError(
                f"{place}: Compose has p={transforms.p}; give p to its transforms, or put them into a Sequential"
            )
        transforms = _members_of(transforms, place, notes)
    if isinstance(transforms, (str, Mapping)) or not isinstance(transforms, Sequence):
        raise RecipeError(f"{place}: a list of transforms expected, found {transforms!r:.60}")
    return [_resolve_one(item, f"{place}[{i}]", notes) for i, item in enumerate(transforms)], notes


def _members_of(compose: Any, place: str, notes: list[str]) -> list[Any]:
    """The transforms of a Compose object, if a cache can do all that it asks for; notes what goes without effect."""
    if type(compose).__module__.partition(".")[0] != "albumentations":
        raise RecipeError(
            f"{place}: {type(compose).__name__} is a Compose of your own; what it adds cannot be serialised. Give its "
            "transforms as a list"
        )
    for what, given in (
        ("bbox_params", "bboxes" in compose.processors),
        ("keypoint_params", "keypoints" in compose.processors),
        ("additional_targets", bool(compose.additional_targets)),
    ):
        if given:
            raise RecipeError(f"{place}: Compose has {what}; decant caches images and class labels only")
    if compose.seed is not None:
        unused = f"Compose has seed={compose.seed}, which is not used: draws follow from the recipe's seed"
        if not any(note.endswith(unused) for note in notes):  # it has given its seed to those inside of it
            notes.append(f"{place}: {unused}")
    return list(compose.transforms)


def _resolve_one(item: Any, place: str, notes: list[str]) -> dict[str, Any]:
    album = library()
    if isinstance(item, (album.BasicTransform, album.BaseCompose)):
        return _resolve_object(item, place, notes)
    name: Any
    args: Any
    if isinstance(item, str):
        name, args = item, None
    elif isinstance(item, Mapping) and len(item) == 1:
        name, args = next(iter(item.items()))
    else:
        raise RecipeError(f"{place}: a transform is written as Name or as Name: {{argument: value}}, found {item!r}")
    cls = _class_of(name, place)
    name = cls.__name__
    place = f"{place}.{name}"
    if name in _COMPOSITIONS and (args is None or (isinstance(args, Sequence) and not isinstance(args, str))):
        args = {"transforms": list(args or ())}
    if args is None:
        args = {}
    if not isinstance(args, Mapping):
        raise RecipeError(f"{place}: arguments as {{name: value}} expected, found {args!r}")
    args = dict(args)
    known = _arguments_of(cls)
    for key in args:
        if key not in known:
            raise RecipeError(f"{place}: no argument {key!r}{nearest(str(key), known)}")
    if name in TAIL:
        return {name: _plain(args, place)}
    for key, value in args.items():
        if "interpolation" in key:
            args[key] = _constant(value, INTERPOLATIONS, f"{place}.{key}")
        elif key == "border_mode":
            args[key] = _constant(value, BORDER_MODES, f"{place}.{key}")
    if "area_for_downscale" in known and not {"interpolation", "area_for_downscale"} & args.keys():
        args["area_for_downscale"] = "image"
    if name in _COMPOSITIONS:
        if not args.get("transforms"):
            raise RecipeError(f"{place}: a list of at least one transform is missing")
        args["transforms"], more = resolve(args["transforms"], f"{place}.transforms")
        notes += more
        _check_composition(args, place)
    return _canonical(cls, args, place)


def _arguments_of(cls: Any) -> list[str]:
    """Names of the arguments that mean something here."""
    if cls.__name__ == "Compose":
        return ["transforms", "p"]
    return [key for key in inspect.signature(cls.__init__).parameters if key not in ("self", "seed", "strict")]


def _check_composition(args: dict[str, Any], place: str) -> None:
    """The library checks the arguments of its transforms, but not those of its compositions."""
    inner = [name for transform in args["transforms"] for name in transform if name in TAIL]
    if inner:
        raise RecipeError(f"{place}.transforms: {inner[0]} can only stand at the end of a split's transforms")
    if place.endswith(".OneOf") and not any(given["p"] for t in args["transforms"] for given in t.values()):
        raise RecipeError(f"{place}.transforms: their p are the weights of the choice; one above 0 expected")
    p = args.get("p", 1)
    if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
        raise RecipeError(f"{place}.p: a number from 0 to 1 expected, found {p!r}")
    n = args.get("n", 1)
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise RecipeError(f"{place}.n: a whole number of 1 or more expected, found {n!r}")
    if not isinstance(args.get("replace", False), bool):
        raise RecipeError(f"{place}.replace: true or false expected, found {args['replace']!r}")


def _resolve_object(item: Any, place: str, notes: list[str]) -> dict[str, Any]:
    name, module = type(item).__name__, type(item).__module__
    if not module.startswith("albumentations."):
        raise RecipeError(f"{place}: {module}.{name} is not Albumentations' own; it cannot be serialised")
    cls = _class_of(name, place)
    place = f"{place}.{name}"
    known = _arguments_of(cls)
    for key in getattr(item, "invalid_args", ()):
        raise RecipeError(f"{place}: no argument {key!r}{nearest(key, known)}")
    if name in TAIL:
        return {name: _plain(_state_of(item, place), place)}
    if name in _COMPOSITIONS:
        members = _members_of(item, place, notes) if name == "Compose" else list(item.transforms)
        state = {key: getattr(item, key) for key in known if key != "transforms"} | {"transforms": members}
        return _resolve_one({name: state}, place.removesuffix(f".{name}"), notes)
    state = _state_of(item, place)
    for key in known:
        if not hasattr(item, key) and key not in _STORED_OTHERWISE.get(name, ()):
            raise RecipeError(
                f"{place}: Albumentations does not keep its argument {key!r}; write the transform in YAML"
            )
    # An object does not tell an argument given from one left out: the library's default counts as left out.
    if state.get("interpolation") == INTERPOLATIONS["linear"] and state.get("area_for_downscale", "") is None:
        state["area_for_downscale"] = "image"
        notes.append(
            f"{place}: area_for_downscale='image' is set, so that shrinking averages; "
            "name the transform in YAML with interpolation: linear to go without"
        )
    return _canonical(cls, state, place)


def _class_of(name: Any, place: str) -> Any:
    album = library()
    if not isinstance(name, str):
        raise RecipeError(f"{place}: the name of a transform expected, found {name!r}")
    short = name.removeprefix("albumentations.").removeprefix("A.").removeprefix("pytorch.")
    if short == "ToTensorV2":
        return _ToTensor  # albumentations has it only beside torch
    found = getattr(album, short, None)
    if short in _usable():
        return found
    if short in _NEED_MORE:
        raise RecipeError(f"{place}: {short} needs {_NEED_MORE[short]}; there are only 8-bit images and class labels")
    if inspect.isclass(found) and issubclass(found, album.Transform3D):
        raise RecipeError(f"{place}: {short} works on volumes; decant caches images")
    if inspect.isclass(found) and issubclass(found, album.BaseCompose):
        raise RecipeError(f"{place}: {short} cannot be used; compositions are {', '.join(sorted(_COMPOSITIONS))}")
    if inspect.isclass(found) and issubclass(found, album.BasicTransform):
        foreign = sorted(_FOREIGN_DATA & inspect.signature(found.__init__).parameters.keys())
        why = f"reads other data than the image ({', '.join(foreign)})" if foreign else "cannot be serialised"
        raise RecipeError(f"{place}: {short} {why}; leave it out")
    raise RecipeError(f"{place}: no transform {name!r} in Albumentations{nearest(short, sorted(_usable()))}")


class _ToTensor:
    def __init__(self, transpose_mask: bool = False, p: float = 1.0) -> None: ...


_ToTensor.__name__ = "ToTensorV2"


@functools.cache
def _usable() -> frozenset[str]:
    """Names of the transforms and compositions that a recipe may use."""
    album = library()
    names = set(_COMPOSITIONS)
    for name, cls in vars(album).items():
        if not (inspect.isclass(cls) and issubclass(cls, album.BasicTransform)) or issubclass(cls, album.Transform3D):
            continue
        if name in _NOT_USABLE or name in _NEED_MORE or name.startswith(("_", "Base", "ToTensor")):
            continue
        if not _FOREIGN_DATA & inspect.signature(cls.__init__).parameters.keys():
            names.add(name)
    return frozenset(names)


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the closest of the known words, otherwise the list of them."""
    lowered = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {lowered[close[0]]!r}?"
    return f"; known are: {', '.join(sorted(known))}" if len(known) <= 30 else ""


def _constant(value: Any, names: Mapping[str, int], place: str) -> Any:
    if isinstance(value, str):
        plain = value.lower().removeprefix("cv2.").removeprefix("inter_").removeprefix("border_")
        if plain not in names:
            raise RecipeError(f"{place}: {value!r} is unknown{nearest(plain, list(names))}")
        return names[plain]
    if isinstance(value, Mapping):  # Downscale takes one for each direction
        return {key: _constant(item, names, f"{place}.{key}") for key, item in value.items()}
    return value


def _canonical(cls: Any, args: dict[str, Any], place: str) -> dict[str, Any]:
    """Arguments as the library resolves them; refused if they do not survive a second time round."""
    state = _plain(_state_of(_build(cls, args, place), place), place)
    for key in args.keys() - state.keys() - _STORED_OTHERWISE.get(cls.__name__, set()):
        raise RecipeError(f"{place}.{key}: {args[key]!r} cannot be serialised by Albumentations; leave it out")
    again = _plain(_state_of(_build(cls, state, place), place), place)
    for key in sorted(state.keys() | again.keys()):
        if again.get(key) != state.get(key):
            given = f"{args[key]!r} is kept as {state.get(key)!r}" if key in args else f"{state.get(key)!r}"
            raise RecipeError(
                f"{place}.{key}: {given}, which Albumentations itself reads back as {again.get(key)!r}; "
                "write a range from low to high, or a positive limit"
            )
    # Equal, but Affine's default of 0 pixels is read back as 0.0, which is other JSON. What is read back stays.
    return {cls.__name__: again}


def _build(cls: Any, args: dict[str, Any], place: str) -> Any:
    if cls.__name__ in _COMPOSITIONS:
        args = args | {"transforms": [_instantiate(name, a) for name, a in _pairs(args["transforms"])]}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cls(**args)
    except Exception as error:  # whatever a constructor raises, it is the arguments that it cannot take
        raise RecipeError(place + _first_complaint(error)) from None


def _first_complaint(error: Exception) -> str:
    """pydantic's report of several lines as one: which argument, what is wrong, what was found."""
    cause = error.__cause__
    details = cause.errors() if cause is not None and hasattr(cause, "errors") else []
    if not details:
        return ": " + " ".join(str(error).split())
    detail = details[0]
    parts = [str(part) for part in detail["loc"] if not str(part).startswith(("function", "tuple[", "lax-"))]
    place = "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in parts)
    message = plainly(detail["msg"])
    if not parts or detail["type"] == "missing":
        return f"{place}: {message}"
    return f"{place}: {message}, found {detail['input']!r}"


def plainly(message: str) -> str:
    """A message of pydantic's in the words of a recipe."""
    text = message.removeprefix("Value error, ").replace("Input should be a valid tuple", "should be a list")
    return text.replace("Input should", "should")


def _state_of(item: Any, place: str) -> dict[str, Any]:
    """The arguments that an object was made with."""
    try:
        state: dict[str, Any] = item.to_dict_private()
    except NotImplementedError as error:
        raise RecipeError(f"{place}: cannot be serialised ({error})") from None
    # RGBShift, PadIfNeeded and others list arguments of their base classes, too, which they do not take themselves.
    state = {key: value for key, value in state.items() if key in _arguments_of(type(item))}
    if "transforms" in state:
        state["p"] = float(state["p"])  # 1 and 1.0 are one identity; transforms see to it themselves
        state["transforms"] = [{type(member).__name__: _state_of(member, place)} for member in item.transforms]
    return state


def _plain(value: Any, place: str) -> Any:
    """The value in JSON's types: tuples as lists, enums and numpy numbers by value."""
    if isinstance(value, Enum):
        return _plain(value.value, place)
    if isinstance(value, np.generic):
        return _plain(value.item(), place)
    if isinstance(value, np.ndarray):
        return _plain(value.tolist(), place)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not np.isfinite(value):
            raise RecipeError(f"{place}: {value} is not a finite number")
        return (
            value + 0.0
        )  # -0.0, which the library makes of a limit of 0, becomes 0.0: they are equal, their JSON is not
    if isinstance(value, Mapping):
        return {str(key): _plain(item, place) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item, place) for item in value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, place) for item in value]
    raise RecipeError(f"{place}: a {type(value).__name__} cannot be serialised")


def _pairs(transforms: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for transform in transforms:
        ((name, args),) = transform.items()
        yield name, dict(args)


def _instantiate(name: str, args: dict[str, Any]) -> Any:
    return _build(getattr(library(), name), args, name)


def prove_size(
    transforms: Sequence[Mapping[str, Any]],
    size_hw: tuple[int, int],
    channels: int,
    place: str,
    max_pixels: int | None = None,
) -> list[str]:
    """Run the transforms on blank images and make sure that every result has the recipe's size.

    Parameters
    ----------
    transforms : canonical
    size_hw : height and width that the recipe promises
    channels : of the decoded images, 1 or 3
    max_pixels : as for `Pipeline`

    Returns
    -------
    warnings about images that would fail, such as ones smaller than a crop; and one that says so if the transforms
    are so slow that the proof was cut short, after at least one image of each of the smaller sizes

    Raises
    ------
    RecipeError : a result has another size, type or number of channels, or every image fails
    """
    pipeline = Pipeline(transforms, max_pixels)
    outcomes: dict[tuple[int, int], list[Exception | None]] = {}
    for blank_hw, state in _trials(outcomes):
        tries = outcomes.setdefault(blank_hw, [])
        try:
            out = _on_blank(pipeline, (*blank_hw, channels), state)
        except Exception as error:  # any transform may refuse any image; the user sees which
            tries.append(error)
            continue
        tries.append(None)
        fault = _fault(out, size_hw, channels)
        if fault:
            raise RecipeError(
                f"{place}: the transforms give {fault} for an image of {_sides(blank_hw)} (height x width); the recipe "
                f"promises {_sides(size_hw)} in uint8 with {channels} channel{'s' * (channels > 1)}; "
                "end with a crop or Resize of that size, or change size (in the file of a recipe 'same' follows it; "
                "the recipe that a cache keeps has numbers instead: give the file with --recipe)"
            )
    # One line for each kind of failure, with the largest of the images that show it.
    failures = {type(e): (hw, e) for hw in sorted(outcomes, key=min) for e in outcomes[hw] if e is not None}
    texts = [f"{_sides(hw)} fails: {_complaint(error, transforms)}" for hw, error in failures.values()]
    if failures and not any(None in tries for tries in outcomes.values()):
        raise RecipeError(f"{place}: the transforms fail on every image; one of {texts[0]}")
    if failures and all(None in outcomes[hw] and set(outcomes[hw]) != {None} for hw in _BLANK_SIZES):
        raise RecipeError(f"{place}: the transforms fail now and then on images of every size; one of {texts[0]}")
    warned = [f"{place}: an image of {text}" for text in texts]
    tried = sum(map(len, outcomes.values()))
    if tried < _TRIALS:
        warned.append(f"{place}: the transforms are slow: their size was tried on {tried} of {_TRIALS} blank images")
    return warned


def _trials(outcomes: Mapping[tuple[int, int], Sequence[object]]) -> Iterator[tuple[tuple[int, int], int]]:
    """(size, random state) of the images that a proof tries, while `outcomes` fills: `_TRIALS`, or what fits into
    `_PROOF_S`."""
    begun = time.monotonic()
    yield from ((blank_hw, 0) for blank_hw in _BLANK_SIZES)
    some_size_works = any(None in tries for tries in outcomes.values())
    if not some_size_works or (time.monotonic() - begun) * _LARGE_BLANK_COST < _PROOF_S:
        yield from ((_LARGE_BLANK, state) for state in range(_LARGE_BLANK_SEEDS))
    for state in range(1, _BLANK_SEEDS):
        if time.monotonic() - begun > _PROOF_S:
            return
        yield from ((blank_hw, state) for blank_hw in _BLANK_SIZES)


def _sides(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}x{size_hw[1]}"


def _on_blank(pipeline: Pipeline, shape: tuple[int, int, int], state: int) -> Any:
    image = np.zeros(shape, np.uint8)
    image.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pipeline(image, state)


def _fault(out: Any, size_hw: tuple[int, int], channels: int) -> str:
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8:
        return f"values of type {getattr(out, 'dtype', type(out).__name__)}"
    if out.ndim != 3 or out.shape[2] != channels:
        return f"{1 if out.ndim < 3 else out.shape[2]} channels"
    if out.shape[:2] != size_hw:
        return _sides(out.shape[:2])
    return ""


def _complaint(error: Exception, transforms: Sequence[Mapping[str, Any]]) -> str:
    if isinstance(error, SourceError):
        return f"{error.reason}; such images would be left out and listed"
    text = " ".join(f"{type(error).__name__}: {error}".split())
    padding = list(dict.fromkeys(name for name, args in _everywhere(transforms) if args.get("pad_if_needed") is False))
    too_small = type(error).__name__ == "CropSizeError"
    if too_small or (padding and "Values for crop" in text):  # Crop has no error of its own
        remedy = (
            f"set pad_if_needed: true in {' and '.join(padding)}"
            if padding
            else "put SmallestMaxSize or PadIfNeeded before it"
        )
        text += f"; such images would be left out and listed; to keep them, {remedy}"
    return text


def leaves_of(transforms: Sequence[Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Name and arguments of canonical transforms, those inside of compositions too; in order of `Pipeline.names`."""
    return [(name, args) for name, args in _everywhere(transforms) if name not in _COMPOSITIONS]


def _everywhere(transforms: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """All transforms, those inside of compositions too."""
    for name, args in _pairs(transforms):
        yield name, args
        if name in _COMPOSITIONS:
            yield from _everywhere(args["transforms"])
