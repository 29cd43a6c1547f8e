"""Renderings as a cache keeps them, and one image rendered outside of a build."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache_store.canonical import digest_of
from cache_store.normalise import normalisation_table, normalise
from preprocess.errors import RecipeError, SourceError, UsageError
from preprocess.rendering import OPENCV, Rendering, Statistics

if TYPE_CHECKING:
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
    )
    return rendering.with_statistics(statistics if statistics[0] is not None else None)


def render_one(
    recipe: "Recipe",
    stored: tuple[Rendering, Statistics] | None,
    image: Any,
    split: str,
    variant: int,
) -> np.ndarray:
    """See `Recipe.render`."""
    from preprocess.engines import renderer_of

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
    if isinstance(image, np.ndarray):
        channels = rendering.shape[0]
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != channels:
            raise SourceError("decode", f"uint8 (H, W, {channels}) expected, found {image.dtype} {image.shape}")
        image = np.ascontiguousarray(image)
        digest, decoded = digest_of(image.tobytes()), image
    else:
        data = image if isinstance(image, (bytes, bytearray)) else _read(image)
        digest, decoded = digest_of(data), renderer.decode(bytes(data)).image
    planes = np.ascontiguousarray(renderer.pixels(decoded, digest, variant).transpose(2, 0, 1))
    return planes if rendering.dtype == "uint8" else normalise(planes, normalisation_table(*statistics))


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise SourceError("read", f"{os.fspath(path)!r}: {error.strerror}") from error
