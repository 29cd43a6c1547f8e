"""The store: what a cache looks like on disk, how it is read, and how a snapshot is published.

Imports neither torch, cv2 nor albumentations. Names are resolved on first use, so that a worker
process which only writes shards loads neither zarr nor anything else it does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors
    from cache_store.errors import CacheStoreError as CacheStoreError
    from cache_store.errors import FormatError as FormatError
    from cache_store.errors import IntegrityError as IntegrityError
    from cache_store.errors import LockedError as LockedError
    from cache_store.errors import NotFoundError as NotFoundError
    from cache_store.errors import StorageError as StorageError
    from cache_store.errors import UsageError as UsageError
    from cache_store.findings import VerifyReport as VerifyReport
    from cache_store.reader import Cache as Cache
    from cache_store.reader import open_cache as open_cache

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
