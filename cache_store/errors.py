"""What can go wrong in the store, grouped by what the reader of the message has to do.

    CacheStoreError                  exit code
    ├── NotFoundError (LookupError)      4   name another cache, split, snapshot or sample
    ├── UsageError (ValueError)          2   call it differently
    ├── LockedError                      5   wait for the other builder, or stop it
    ├── IntegrityError                   6   bytes are damaged: repair the cache
    ├── FormatError                      6   written by another version of decant
    └── StorageError (OSError)           7   make room, or mend the permissions

A message says what, where, expected, found, and what to do next, in this order.
Every class survives pickling: errors cross process borders.

`UsageError` is the build's as well, and so a `PreprocessError`: that base stands here because this package may import
nothing from `preprocess`, where its tree is drawn.
"""

REPAIR = "run: decant repair SOURCE CACHE"
"""What to do next about damage; the end of many messages."""


class CacheStoreError(Exception):
    """Base of the store's errors; `exit_code` is what the command line returns."""

    exit_code = 1


class PreprocessError(Exception):
    """Base of the build's errors; `exit_code` is what the command line returns."""

    exit_code = 1


class NotFoundError(CacheStoreError, LookupError):
    """A cache, snapshot, split or sample that is not there."""

    exit_code = 4


class UsageError(CacheStoreError, PreprocessError, ValueError):
    """An argument with a value that makes no sense, or a folder that is not ours to write."""

    exit_code = 2


class LockedError(CacheStoreError):
    """Another builder works on this cache."""

    exit_code = 5


class IntegrityError(CacheStoreError):
    """Bytes on disk differ from what was committed."""

    exit_code = 6


class FormatError(CacheStoreError):
    """The cache's format version, or an extension it needs, is unknown to this version of decant."""

    exit_code = 6


class StorageError(CacheStoreError, OSError):
    """The system refused to write or read: full disk, quota, permission, failing medium."""

    exit_code = 7

    def __str__(self) -> str:
        # OSError would print a lone message as it is, but a (errno, message) pair as "[Errno …] …".
        return str(self.args[-1]) if self.args else ""
