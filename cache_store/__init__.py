"""The store: what a cache looks like on disk, how it is read, and how a snapshot is published.

Imports neither torch, cv2 nor albumentations. Names are resolved on first use, so that a worker
process which only writes shards loads neither zarr nor anything else it does not need.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Cache": "reader",
    "open_cache": "reader",
    "VerifyReport": "findings",
    "CacheStoreError": "errors",
    "FormatError": "errors",
    "IntegrityError": "errors",
    "LockedError": "errors",
    "NotFoundError": "errors",
    "StorageError": "errors",
    "UsageError": "errors",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return __all__
