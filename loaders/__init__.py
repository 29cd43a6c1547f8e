"""Training-time access to a cache: a plain Dataset for a plain DataLoader."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors
    from loaders.collate import Batch as Batch
    from loaders.concat import ConcatDataset as ConcatDataset
    from loaders.dataset import CachedDataset as CachedDataset
    from loaders.device import to_device as to_device
    from loaders.sampler import ShardShuffleSampler as ShardShuffleSampler

_PUBLIC = {
    "Batch": "collate",
    "CachedDataset": "dataset",
    "ConcatDataset": "concat",
    "ShardShuffleSampler": "sampler",
    "to_device": "device",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
