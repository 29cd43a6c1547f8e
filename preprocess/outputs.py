"""Files that a command is told to write: what cannot be meant is refused before any work is done for it."""

import errno
import os
from pathlib import Path

from cache_store import layout
from cache_store.errors import StorageError
from preprocess.errors import UsageError


def output_file(
    path: str | os.PathLike[str], suffix: str, *, source: Path | None = None, cache: Path | None = None
) -> Path:
    """A file to write, as a path.

    Parameters
    ----------
    path : may lack a suffix
    suffix : what it has to be if there is one, such as .png
    source, cache : folders that it must not lie in

    Raises
    ------
    UsageError : a folder, a file of another kind, or a place where it would be taken for something else
    StorageError : there is no such folder
    """
    target = layout.given_path(path)
    if target.is_dir():
        raise UsageError(
            f"{str(target)!r} is a folder; the name of a file expected, such as {str(target / 'look') + suffix!r}"
        )
    if target.suffix.lower() not in ("", suffix):
        raise UsageError(
            f"{str(target)!r}: a name that ends with {suffix} expected, as that is what is written, found "
            f"{target.suffix!r}"
        )
    inside = (
        ("SOURCE", source, "where a build would take it for one of the images"),
        ("CACHE", cache, "where verify would take it for damage"),
    )
    for name, folder, why in inside:
        if folder is not None and Path(os.path.realpath(folder)) in Path(os.path.realpath(target)).parents:
            raise UsageError(f"{str(target)!r} lies inside {name} {str(folder)!r}, {why}; name a file outside of it")
    if not target.parent.is_dir():
        raise StorageError(
            errno.ENOENT, f"cannot write {str(target)!r}: there is no folder {str(target.parent)!r}; create it first"
        )
    return target
