"""Whose samples a batch is made of, where a subclass or a wrapping dataset has a `__getitem__` of its own."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from torch.utils.data import Dataset, Subset
from torch.utils.data._utils.fetch import _MapDatasetFetcher

from loaders import advice

# They ask their `dataset` for whole batches: DataLoader (torchdata's too), and a Subset.
_FETCH, _SUBSET = (getattr(each, "__code__", None) for each in (_MapDatasetFetcher.fetch, Subset.__getitems__))


class Overridable:
    """A dataset whose `__getitems__` honours a `__getitem__` that knows of no batches.

    Of a subclass, the most derived of both methods counts. One that overrides `__getitems__` looks after its batches
    itself, and after those of its bases by asking them.
    """

    _whole_samples: Any
    """`__getitem__` of the class that derives from this one directly, as it was written."""

    _instead = "Override __getitems__ as well: it takes the indices of a batch, and may return a loaders.Batch"

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if Overridable in cls.__bases__:
            cls._whole_samples = cls.__getitem__  # type: ignore[index]
            return
        base = _base(cls)
        first = next((each for each in cls.__mro__ if each is base or _has_items(each, base) or _has_item(each)), base)
        if first is not base and not _has_items(first, base):  # above a class that overrides __getitems__, maybe
            cls.__getitems__ = base.__getitems__  # type: ignore[attr-defined]

    def _single(self, indices: Any) -> tuple[Callable[[Any], Any], Any] | None:
        """What gives the samples of a batch, and from which indices; None: nobody overrides them.

        To be called by `__getitems__` itself, as its caller is looked at.
        """
        wrapper, asked = _wrapper(self, indices, sys._getframe(2))
        if wrapper is not None:
            advice.wrapped(type(wrapper), getattr(self, "_shared", None))
            return (lambda index: wrapper[index]), asked
        cls = type(self)
        if Overridable in cls.__bases__ and cls.__getitem__ is cls._whole_samples:  # type: ignore[index]
            return None
        found = _override(cls, _base(cls))
        if found is None:
            return None
        advice.overridden(cls, self._instead, getattr(self, "_shared", None))
        return found.__get__(self, cls), indices


def _wrapper(asked: Any, indices: Any, frame: FrameType | None) -> tuple[Any, Any]:
    """The dataset whose samples a DataLoader wants, where it only forwards `__getitems__`, and their indices there."""
    while frame is not None and (frame.f_code is _FETCH or frame.f_code is _SUBSET):
        variables = frame.f_locals
        asking = variables["self"]
        if asking.dataset is not asked:
            return (asking.dataset, indices) if forwards(asking.dataset) else (None, None)
        if frame.f_code is _FETCH:
            break
        asked, indices, frame = asking, variables.get("indices"), frame.f_back  # what the Subset itself was asked for
    return None, None


def forwards(dataset: Any) -> bool:
    """Whether `__getitems__` of a dataset is that of another one, found by `__getattr__`, and `__getitem__` its own."""
    cls = type(dataset)
    if hasattr(cls, "__getitems__") or "__getitems__" in getattr(dataset, "__dict__", ()):
        return False
    return getattr(cls, "__getitem__", Dataset.__getitem__) is not Dataset.__getitem__


def _base(cls: type) -> type:
    return next(each for each in cls.__mro__ if Overridable in each.__bases__)


def _has_items(cls: type, base: type) -> bool:
    return vars(cls).get("__getitems__", base.__getitems__) is not base.__getitems__  # type: ignore[attr-defined]


def _has_item(cls: type) -> bool:
    return "__getitem__" in vars(cls)


def _override(cls: type, base: type) -> Any:
    """The most derived `__getitem__` of a class that leaves `__getitems__` as it is; None: there is none."""
    for each in cls.__mro__[: cls.__mro__.index(base)]:
        if _has_item(each) and not _has_items(each, base):
            return vars(each)["__getitem__"]
    now = base.__getitem__  # type: ignore[index]
    return None if now is base._whole_samples else now  # type: ignore[attr-defined]
