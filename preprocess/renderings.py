"""Renderings as a cache keeps them, and one image rendered outside of a build."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cache_store import layout
from cache_store.canonical import DIGEST_BYTES, digest_of
from cache_store.normalise import normalisation_table, normalise
from preprocess.chance import draws
from preprocess.errors import RecipeError, SourceError, UsageError
from preprocess.read import most_bytes, refuse_too_large, reported
from preprocess.rendering import ADMIT_ALL, OPENCV, Rendering, Statistics

if TYPE_CHECKING:
    from preprocess.engines import AnyRenderer
    from preprocess.recipe import Recipe


def stored_rendering(attributes: Mapping[str, Any]) -> Rendering:
    """The rendering that a tensors group describes."""
    described = attributes["rendering"]
    statistics = described["mean"], described["std"]
    rendering = Rendering(
        size_hw=tuple(described["size"]),
        channels=described["channels"],
        dtype=described["dtype"],
        transforms=tuple(described["transforms"]),
        seed=described["seed"],
        reduced=described["decode"]["reduced"],
        engine=described["engine"],
        probe=described["probe"],
        window=tuple(described["decode"]["levels"]) if "levels" in described["decode"] else None,
    )
    return rendering.with_statistics(statistics if statistics[0] is not None else None)


def render_one(
    recipe: "Recipe",
    stored: tuple[Rendering, Statistics] | None,
    image: Any,
    split: str,
    variant: int,
    digest: bytes | str | None,
) -> np.ndarray:
    """See `Recipe.render`."""
    from preprocess.engines import renderer_of
    from preprocess.render import opencv_as_in_a_worker

    if variant < 0:
        raise UsageError(f"variant: 0 or more expected, found {variant}")
    if stored is not None:
        rendering, statistics = stored
    else:
        resolved = recipe.with_splits([(split, split)]) if recipe.splits is None else recipe.with_splits([])
        if split not in (resolved.splits or {}):
            raise RecipeError(f"the recipe has no split {split!r}; there are: {', '.join(resolved.splits or {})}")
        rendering = resolved.rendering(split, OPENCV, "")
        fixed = recipe.fixed_statistics
        if fixed is None and rendering.dtype == "float16":
            raise RecipeError("normalize: 'dataset' is only known from a cache; use Recipe.of(cache).render(…)")
        statistics = fixed or ((), ())
    renderer = renderer_of(rendering, max_pixels=recipe.max_pixels)
    given = None if digest is None else _as_digest(digest)
    if isinstance(image, np.ndarray):
        decoded: Any = _as_pixels(image, rendering.shape[0])
        if given is None and draws(rendering.transforms):
            raise UsageError(
                f"digest: the one of the encoded file expected, found none: split {split!r} draws at random, and "
                "pixels do not tell which file they came from; give the file's path or bytes, or "
                "digest=hashlib.blake2b(data, digest_size=16).digest()"
            )
        digest = given or bytes(DIGEST_BYTES)
    else:
        data = image if isinstance(image, (bytes, bytearray, memoryview)) else _read(image, recipe.max_pixels)
        data = bytes(data)
        digest = digest_of(data)
        if given not in (None, digest):
            raise UsageError(f"digest: that of the file is {digest.hex()}, found {given.hex()}; a file needs none")
        with opencv_as_in_a_worker():
            decoded = _decoded(renderer, data, max_pixels=recipe.max_pixels, from_cache=stored is not None)
    with opencv_as_in_a_worker():
        planes = np.ascontiguousarray(renderer.pixels(decoded, digest, variant).transpose(2, 0, 1))
    return planes if rendering.dtype == "uint8" else normalise(planes, normalisation_table(*statistics))


def _decoded(renderer: "AnyRenderer", data: bytes, *, max_pixels: int, from_cache: bool) -> Any:
    """The image of a file; with a warning, one that builds take no more but the cache may hold from former ones."""
    from preprocess.engines import renderer_of

    try:
        return renderer.decode(data).image
    except SourceError as error:
        if not from_cache:
            raise
        admitting = renderer_of(replace(renderer.rendering, admitted=ADMIT_ALL), max_pixels=max_pixels)
        decoded = admitting.decode(data).image
        message = f"an image that builds leave out by now is rendered as before: {error.reason}"
        warnings.warn(message, UserWarning, stacklevel=4)
        return decoded


def _as_pixels(image: np.ndarray, channels: int) -> np.ndarray:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels or not image.size:
        raise SourceError("decode", f"uint8 (H, W, {channels}) expected, found {image.dtype} {image.shape}")
    pixels = np.ascontiguousarray(image).view()
    pixels.flags.writeable = False
    return pixels


def _as_digest(digest: bytes | str) -> bytes:
    try:
        given = bytes.fromhex(digest) if isinstance(digest, str) else bytes(digest)
    except (TypeError, ValueError):
        given = b""
    if len(given) != DIGEST_BYTES:
        raise UsageError(f"digest: {DIGEST_BYTES} bytes, or as many in hex, expected, found {digest!r:.60}")
    return given


def _read(path: Any, max_pixels: int) -> bytes:
    if not isinstance(path, (str, os.PathLike)):
        raise UsageError(
            "image: a path, the bytes of a file, or its pixels as uint8 (H, W, C) expected, found "
            f"{type(path).__name__}; of a PIL image: numpy.asarray(image.convert('RGB'))"
        )
    try:
        with reported():
            found = layout.given_path(path)
            refuse_too_large(found.stat().st_size, most_bytes(max_pixels))
            return found.read_bytes()
    except SourceError as error:
        raise SourceError(error.stage, f"{os.fspath(path)!r}: {error.reason}") from error
