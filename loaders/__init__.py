"""Training-time access to a cache: a plain Dataset for a plain DataLoader."""

from importlib import import_module
from typing import Any

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
