"""Own targets in the place of class ids: one value a sample, of any type and shape."""

import contextlib
import os
from collections.abc import Mapping
from numbers import Number
from typing import Any

import numpy as np
import torch

from cache_store.canonical import digest_of
from cache_store.errors import UsageError
from cache_store.manifest import SplitTable

_NAMED = 3


class OwnTargets:
    """The value of each sample of a split.

    Parameters
    ----------
    given : tensor, array or list with a value for each sample, in their order; or a mapping from each sample's path, as
        in `CachedDataset.samples`, to its value. A tensor or an array keeps its type; Python's numbers become int64,
        float64 or bool
    table, split : of the samples

    Attributes
    ----------
    values : (n,) or (n, …), a copy in the CPU's memory

    Raises
    ------
    UsageError : not one value for each sample, or values that are no numbers
    """

    def __init__(self, given: Any, table: SplitTable, split: str) -> None:
        if isinstance(given, Mapping):
            given = _by_path(given, [os.fsdecode(path) for path in table.paths()], split)
        self.values = _tensor(given)
        self._order = _order(table)
        if self.values.dim() == 0 or len(self.values) != len(table):
            found = len(self.values) if self.values.dim() else "a single value"
            raise UsageError(
                f"targets: {len(table)} values expected, one for each sample of split {split!r}, found {found}"
            )

    def of(self, numbers: np.ndarray) -> torch.Tensor:
        """The values of samples int64 (n,), in memory of their own."""
        values = self.values
        if values.is_floating_point() and values.dtype.itemsize <= 2:  # numpy does not know all of these types
            values = values.view({1: torch.uint8, 2: torch.int16}[values.dtype.itemsize])
        # torch's own look-up starts threads, which wait for a processor that training has taken.
        return torch.from_numpy(np.take(values.numpy(), numbers, axis=0)).view(self.values.dtype)

    def check(self, table: SplitTable, where: str) -> None:
        """Refuse another snapshot whose samples are not the same in the same order."""
        if _order(table) != self._order:
            raise UsageError(
                f"targets: there are {len(self.values)} for the samples that the dataset was opened with, and {where} "
                f"has others ({len(table)}); open a new CachedDataset with targets for its samples"
            )


def _order(table: SplitTable) -> bytes:
    """Digest of the samples' paths."""
    return digest_of(table["path"].tobytes() + table["path_end"].tobytes())


def _by_path(given: Mapping[Any, Any], paths: list[str], split: str) -> list[Any]:
    missing = [path for path in paths if path not in given]
    if missing:
        raise UsageError(f"targets: {len(missing)} samples of split {split!r} have no value: {_some(missing)}")
    if len(given) > len(paths):
        known = set(paths)
        extra = [key for key in given if key not in known]
        raise UsageError(
            f"targets: {len(extra)} keys are no samples of split {split!r}: {_some(extra)}; "
            f"paths as in CachedDataset.samples expected, such as {paths[0] if paths else None!r}"
        )
    return [given[path] for path in paths]


def _some(names: list[Any]) -> str:
    return ", ".join(map(repr, names[:_NAMED])) + (", …" if len(names) > _NAMED else "")


def _tensor(given: Any) -> torch.Tensor:
    if isinstance(given, np.ma.MaskedArray) or (
        isinstance(given, list | tuple) and any(isinstance(each, np.ma.MaskedArray) for each in given)
    ):
        raise UsageError("targets: a value for each sample expected, found a masked array; give .filled(…)")
    if isinstance(given, list | tuple) and any(isinstance(each, torch.Tensor) for each in given):
        try:
            given = torch.stack(list(given))
        except (TypeError, RuntimeError) as error:
            raise UsageError(f"targets: values of one shape expected: {error}") from None
    if isinstance(given, torch.Tensor):
        if given.layout != torch.strided or given.is_quantized or given.is_nested or given.is_meta:
            what = "quantised" if given.is_quantized else "nested" if given.is_nested else given.layout
            raise UsageError(
                "targets: a dense tensor with its values in memory expected, found "
                f"{'meta' if given.is_meta else str(what).removeprefix('torch.')} ({given.dtype})"
            )
        return given.detach().cpu().resolve_conj().resolve_neg().clone()
    if not isinstance(given, list | tuple | np.ndarray):
        raise UsageError(
            f"targets: a tensor, an array, a list, or a mapping from path to value expected, found "
            f"{type(given).__name__}; of a table's column give .to_numpy() or a dict"
        )
    try:
        array = np.array(given)
    except ValueError as error:  # ragged
        raise UsageError(f"targets: values of one shape expected: {error}") from None
    if array.dtype == object:  # numbers all the same, maybe
        with contextlib.suppress(ValueError):
            array = np.array(array.tolist())
    if array.dtype.kind not in "biufc":
        raise UsageError(f"targets: numbers expected, found {_no_number(given)!r} ({array.dtype})")
    try:
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
    except TypeError as error:
        raise UsageError(f"targets: {error}") from None


def _no_number(given: Any) -> Any:
    """The first of values that is no number; the largest, where they only have too many bits."""
    values = list(np.array(given, object).flat)
    wrong = (each for each in values if not isinstance(each, Number | np.bool_))
    found = next(wrong, None)
    return found if found is not None or None in values else max(values, key=abs)
