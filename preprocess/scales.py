"""How much a recipe enlarges or shrinks its images: from the sizes and digests that a snapshot keeps, without a pixel.

Which part of an image a variant shows, and how large, is drawn from the image's size and digest alone
(`decisions`), so it can be drawn again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache_store.manifest import Snapshot, SplitTable
from preprocess.augment import Pipeline, random_state
from preprocess.decisions import Shape, Step
from preprocess.plan import Plan
from preprocess.rendering import Rendering

MOST = 10_000
"""Variants of a split whose draws are made again; of more, so many evenly spread ones."""

_FEW = 200
_MUCH = 2.0
"""So many times as long in the median is worth a word."""

AS_IS = 0.01
"""Factors this close to 1 count as neither enlarged nor shrunk."""


@dataclass(frozen=True, slots=True)
class Scales:
    """Factors between a source and its tensors, a side: 2 is twice as long as in the file.

    Attributes
    ----------
    factors : float64 (n,), of those that were looked at; empty: they cannot be told
    samples, variants : int64 (n,), whose factors they are
    total : how many variants the split has
    untold : the first transform that is not accounted for, as its decisions depend on pixels; empty: there is none
    """

    factors: np.ndarray
    samples: np.ndarray
    variants: np.ndarray
    total: int
    untold: str = ""

    def counts(self) -> tuple[int, int, int]:
        """How many are enlarged, about as they are, and shrunk."""
        enlarged = int((self.factors > 1 + AS_IS).sum())
        shrunk = int((self.factors < 1 - AS_IS).sum())
        return enlarged, len(self.factors) - enlarged - shrunk, shrunk


def enlarged(snapshot: Snapshot, plan: Plan) -> list[str]:
    """A line for each split whose images are mostly stored much larger than they are, from a few of them."""
    lines = []
    for name, table in snapshot.splits.items():
        factors = scales(table, plan.renderings[name], _FEW).factors
        if not len(factors) or np.median(factors) < _MUCH:
            continue
        share = float((factors > 1 + AS_IS).mean())
        size = "x".join(str(max(1, round(side / np.median(factors)))) for side in plan.recipe.size)
        lines.append(
            f"split {name!r}: {'all' if share == 1 else f'{share:.0%} of the'} images are enlarged, in the median "
            f"{np.median(factors):.1f} times a side: that adds bytes, not detail; size {size} is about what they have"
        )
    return lines


def scales(table: SplitTable, rendering: Rendering, most: int = MOST) -> Scales:
    """Draw the decisions of a split's variants again, and see what they do to the length of a side.

    Where the sides of an image are scaled differently, the factor is the geometric mean of the two. Perspective, and
    what depends on pixels, counts as 1.
    """
    total = len(table) * table.variants
    chosen = np.linspace(0, total - 1, min(total, most)).astype(np.int64)
    samples, variants = np.divmod(chosen, max(table.variants, 1))
    pipeline, untold = _told(rendering.transforms)
    factors = np.full(len(chosen), np.nan)
    sizes, digests = table["source_hw"], table["digest"]
    for place, (sample, variant) in enumerate(zip(samples.tolist(), variants.tolist())):
        height, width = sizes[sample].tolist()
        shape = height, width, rendering.shape[0]
        try:
            steps = pipeline.decide(shape, random_state(rendering.seed, digests[sample].tobytes(), variant))
        except Exception:  # any transform may refuse any image: this one's factor is not told
            continue
        final = steps[-1].shape if steps else shape
        if final[:2] == rendering.size_hw:  # else what is not accounted for goes on to change it
            factors[place] = _factor(shape, steps)
    told = np.isfinite(factors)
    return Scales(factors[told], samples[told], variants[told], total, untold)


def _told(transforms: Sequence[dict[str, object]]) -> tuple[Pipeline, str]:
    """The transforms that decide by shape alone, up to the first other one, and the name of that one."""
    pipeline = Pipeline(transforms)
    first = pipeline.other or ""
    count = len(transforms)
    while pipeline.other is not None:
        count -= 1
        pipeline = Pipeline(transforms[:count])
    return pipeline, first


def _factor(shape: Shape, steps: Sequence[Step]) -> float:
    area = 1.0
    for step in steps:
        area *= _area_factor(step, shape)
        shape = step.shape
    return math.sqrt(area)


def _area_factor(step: Step, shape: Shape) -> float:
    """By how much one step changes the area of what it shows."""
    name = type(step.transform).__name__
    if name == "RandomResizedCrop":
        left, top, right, bottom = step.params["crop_coords"]
        return step.shape[0] * step.shape[1] / ((bottom - top) * (right - left))
    if name in ("Resize", "LongestMaxSize", "SmallestMaxSize"):
        return step.shape[0] * step.shape[1] / (shape[0] * shape[1])
    if name in ("Affine", "ShiftScaleRotate"):
        return float(abs(np.linalg.det(step.params["matrix"][:2, :2])))
    return 1.0
