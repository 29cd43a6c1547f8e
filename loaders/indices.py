"""Which samples an index names: integers are taken as they are, and nothing else is turned into them."""

import operator
from typing import Any

import numpy as np
import torch

from cache_store.errors import UsageError

_NOT_INTEGERS = (torch.bool, torch.quint8, torch.qint8, torch.qint32)

_INTEGERS = frozenset({int, np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32})
_TENSORS = frozenset((dtype, 0) for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64))


def integer(index: Any) -> int | None:
    """The one sample that is named; None: `index` is not one integer.

    Taken is whatever has `__index__` (Python's and numpy's integers, arrays and tensors without a dimension), but no
    bool: `dataset[mask]` would be one of the first two samples.
    """
    if type(index) is int:
        return index
    if isinstance(index, bool | np.ma.MaskedArray) or getattr(index, "ndim", 0) != 0:
        return None
    if getattr(index, "dtype", None) is torch.bool:
        return None
    try:
        return operator.index(index)
    except TypeError:
        return None


def counted(name: str, value: Any, least: int = 0) -> int:
    """An integer of an argument, as Python's own.

    Raises
    ------
    UsageError : less than `least`, more than 63 bits, or no integer
    """
    number = integer(value)
    if number is None or not least <= number < 1 << 63:
        raise UsageError(f"{name}: an integer of {least} or more expected, found {value!r}")
    return number


def integers(indices: Any, sequences: tuple[type, ...] = (list, tuple, range)) -> np.ndarray:
    """The samples that a batch names: int64 (n,), a copy.

    Parameters
    ----------
    indices : 1-d array or tensor of integers, or one of `sequences` of what `integer` takes

    Raises
    ------
    TypeError : anything else; bools, masks, slices and floats among them
    IndexError : an integer of more than 64 bits
    """
    found: np.ndarray | None = None
    if isinstance(indices, sequences):
        found = _of_sequence(indices)
        if found is not None:
            return found
    elif isinstance(indices, torch.Tensor):
        if not (indices.is_floating_point() or indices.is_complex() or indices.dtype in _NOT_INTEGERS):
            found = indices.numpy(force=True)
    elif isinstance(indices, np.ndarray) and not isinstance(indices, np.ma.MaskedArray):
        found = indices
    if found is None or found.ndim != 1 or found.dtype.kind not in "iu":
        raise TypeError(
            "index: an integer, or for a batch a list of integers or a 1-d array or tensor of integers, expected, "
            f"found {_described(indices)}"
        )
    if found.dtype == np.uint64:
        found = np.minimum(found, np.uint64(np.iinfo(np.int64).max))  # out of range as well, and still positive
    return np.array(found, np.int64)


def _of_sequence(indices: Any) -> np.ndarray | None:
    if len(indices) > 1 and isinstance(indices[0], torch.Tensor):  # NumPy takes them one by one, slowly
        kinds = {(each.dtype, each.dim()) if isinstance(each, torch.Tensor) else None for each in indices}
        if kinds <= _TENSORS:
            return integers(torch.stack([each.cpu() for each in indices]))
    try:
        found = np.array(indices)
    except (ValueError, TypeError, RuntimeError):  # ragged, or tensors of a device
        found = None
    if found is not None and found.ndim == 1 and found.dtype == np.int64:
        # To look at each type takes as long as all else, and only 0 and 1 can have been bools.
        if not (0 in indices or 1 in indices) or set(map(type, indices)) <= _INTEGERS:
            return found
    numbers = [integer(each) for each in indices]
    try:
        return None if None in numbers else np.array(numbers, np.int64)
    except OverflowError:
        raise IndexError("an index of more than 64 bits names no sample") from None


def within(numbers: np.ndarray, length: int, where: str) -> np.ndarray:
    """The same samples counted from the start, changed in place.

    Parameters
    ----------
    numbers : int64 (n,), negative ones count from the end
    where : what has the samples, for the message

    Raises
    ------
    IndexError : before the first or behind the last sample
    """
    if not len(numbers) or numbers.view(np.uint64).max() < length:  # negative ones are huge as unsigned numbers
        return numbers
    negative = numbers < 0
    numbers[negative] += length
    wrong = np.flatnonzero((numbers < 0) | (numbers >= length))
    if len(wrong):
        found = int(numbers[wrong[0]]) - length * bool(negative[wrong[0]])
        raise IndexError(f"{where} has samples 0 to {length - 1}, there is no {found}")
    return numbers


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor | np.ndarray):
        return f"{type(value).__name__} of {str(value.dtype).removeprefix('torch.')}, shape {tuple(value.shape)}"
    text = repr(value)
    return text if len(text) <= 80 else f"{type(value).__name__} {text[:70]}…"
