"""Names on disk, and the only code that builds a path inside a cache.

cache/
  zarr.json                        group; attributes.decant = {format_version, needs, snapshot, last, digest}
  tensors/                         group                                        ^ the commit point
    <tensors_id>/                  group; attributes: rendering, mean, std, engine, probe, versions
      image/
        zarr.json                  float16 | uint8 (slot, channel, y, x), sharding_indexed, S slots a shard
        c.<shard>.0.0.0            chunks of one slot, each followed by its CRC32C; the index at the end
  snapshots/                       group
    <000001>/                      group; attributes: recipe, parent, parent_digest, created, seconds, classes,
                                     files (digests), tensors (digests)
      failures/                    JSON lines, as bytes
      <split>/                     group; attributes: tensors_id, mean, std, scanned_ns, decoders
        slot/ checksum/ … inode/   one array each, one chunk each, raw bytes followed by their CRC32C
  pending/                         group
    lock                           held by the builder (flock)
    source                         relative hint to SOURCE
    scanned                        when a build last found the snapshot's files unchanged
    <build id>/                    shards and records of a build in progress; never read by loaders
"""

import os
import re
from pathlib import Path

from cache_store.errors import UsageError

FORMAT_VERSION = 1
KNOWN_NEEDS: frozenset[str] = frozenset()
"""Words in `needs` that this version understands; none yet."""

METADATA = "zarr.json"

_SHARD = re.compile(r"c\.(0|[1-9][0-9]{0,17})\.0\.0\.0")
_SNAPSHOT = re.compile(r"[0-9]{6}|[1-9][0-9]{6,17}")


def given_path(path: str | os.PathLike[str]) -> Path:
    """A path as a user gives it, where `~` stands for the home folder.

    Raises
    ------
    UsageError : an empty text, which would be taken for the current folder; one with a NUL byte; or a relative path
        while the current folder is gone
    """
    text = os.fsdecode(path)
    if not text or "\0" in text:
        raise UsageError(f"a path expected, found {text!r}" + ("" if text else "; is a variable not set?"))
    found = Path(os.path.expanduser(text))
    if not found.is_absolute():
        try:
            os.getcwd()
        except FileNotFoundError:
            raise UsageError(
                f"{text!r}: the current folder was removed; change to another, or give a whole path"
            ) from None
    return found


def tensors_dir(cache: Path, tensors_id: str) -> Path:
    return cache / "tensors" / tensors_id


def image_dir(cache: Path, tensors_id: str) -> Path:
    return tensors_dir(cache, tensors_id) / "image"


def shard_file(cache: Path, tensors_id: str, shard: int) -> Path:
    return image_dir(cache, tensors_id) / f"c.{shard}.0.0.0"


def shard_number(name: str) -> int | None:
    """The number in a shard's file name, or None for any other file."""
    match = _SHARD.fullmatch(name)
    return int(match[1]) if match else None


def snapshot_dir(cache: Path, snapshot: str) -> Path:
    return cache / "snapshots" / snapshot


def snapshot_name(number: int) -> str:
    return f"{number:06d}"


def snapshot_number(name: object) -> int | None:
    """The number in a snapshot's name, or None for anything else: 1 and more."""
    match = _SNAPSHOT.fullmatch(name) if isinstance(name, str) else None
    return (int(match[0]) or None) if match else None


def pending_dir(cache: Path) -> Path:
    return cache / "pending"


def lock_file(cache: Path) -> Path:
    return pending_dir(cache) / "lock"


def scan_hint(cache: Path) -> Path:
    return pending_dir(cache) / "scanned"


def source_hint(cache: Path) -> Path:
    return pending_dir(cache) / "source"


# Names of files are bytes; JSON text must be UTF-8, and a lone surrogate (Python's stand-in for a byte that is
# not) is refused by other readers of Zarr. Such bytes travel as the last 128 private-use code points instead, and so
# do the four bytes of each of these code points, should a name really have one.
_TO_TEXT: dict[int, int | str] = {0xDC80 + i: 0x10FF7E + i for i in range(128)}
_FROM_TEXT = {text: surrogate for surrogate, text in _TO_TEXT.items()}
_TO_TEXT |= {0x10FF7E + i: "".join(chr(0x10FEFE + b) for b in chr(0x10FF7E + i).encode()) for i in range(128)}


def name_to_text(name: str) -> str:
    """File name as Python has it -> text that is valid in any JSON; the inverse of `text_to_name`."""
    return name.translate(_TO_TEXT)


def text_to_name(text: str) -> str:
    """Text out of a cache's JSON -> file name as Python has it (`os.fsencode` gives the bytes)."""
    name = text.translate(_FROM_TEXT)
    return name if name == text else os.fsdecode(os.fsencode(name))
