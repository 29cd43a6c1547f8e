"""What this installation can do, and what is wrong with it."""

import json
import math
import os
import sys
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cache_store import layout
from cache_store.errors import CacheStoreError
from cache_store.reader import open_cache
from preprocess import augment, environment
from preprocess.errors import UsageError
from preprocess.filesystem import TRIALS, FileSystem, try_file_system
from preprocess.rendering import IN_WORDS, OPENCV
from preprocess.report import in_units

_PACKAGES = ("torch", "torchvision", "albumentations", "numpy", "zarr", "google-crc32c", "pydantic", "click")
_USUAL_SHAPE = (3, 224, 224)


@dataclass(slots=True)
class Diagnosis:
    """What was found.

    Attributes
    ----------
    python : its version
    executable : the interpreter
    packages : name -> version, None for one that is not installed
    opencv : its version; None if it cannot be imported
    decoders : format, whether it can be decoded, and a remark, for each format
    gpu : its name and what decodes on it, or that it cannot be used; None if there is none
    shared_memory_bytes : free in /dev/shm; None where there is none
    cache : path, snapshot and samples by split of a cache; snapshot None if there is none yet; None if none was named
    file_system : see `filesystem.FileSystem`; None if no cache was named
    problems : what needs mending, a line each
    """

    python: str
    executable: str
    packages: dict[str, str | None] = field(default_factory=dict)
    opencv: str | None = None
    decoders: list[dict[str, Any]] = field(default_factory=list)
    gpu: str | None = None
    shared_memory_bytes: int | None = None
    cache: dict[str, Any] | None = None
    file_system: FileSystem | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        return 1 if self.problems else 0

    def to_json(self) -> str:
        """All fields as one JSON object."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        lines = [f"python      {self.python} ({self.executable})"]
        lines += [f"{name:<11} {found or 'not installed'}" for name, found in self.packages.items()]
        if self.opencv is not None:
            lines += [f"opencv      {self.opencv}", "decoders"]
        for decoder in self.decoders:
            able = "yes" if decoder["able"] else "no"
            lines.append(f"  {decoder['format']:<16} {able:<4} {decoder['note']}".rstrip())
        lines.append(f"gpu         {self.gpu or f'none: images are rendered by {IN_WORDS[OPENCV]}'}")
        if self.shared_memory_bytes is not None:
            lines.append(f"/dev/shm    {in_units(self.shared_memory_bytes)} free")
        lines += self._cache_lines()
        lines += [f"PROBLEM     {problem}" for problem in self.problems] or ["all is well"]
        return "\n".join(lines)

    def _cache_lines(self) -> list[str]:
        if self.cache is None or self.file_system is None:
            return []
        tried = self.file_system
        counts = ", ".join(f"{name} {count:,}" for name, count in self.cache["samples"].items())
        snapshot = self.cache["snapshot"]
        lines = [f"cache       {f'snapshot {snapshot}: {counts}' if snapshot else 'none there yet'}"]
        kind = f"{tried.kind}, mounted at {tried.mounted_at}; " if tried.kind else ""
        lines.append(f"files       {kind}tried in {tried.folder}")
        if tried.local_locks:
            lines.append("            locks are known to this machine alone: never build from two at once")
        if tried.read_only is not None:
            lines.append(f"            nothing can be written there: {tried.read_only}")
        passed = [trial.name for trial in TRIALS if trial.name in tried.trials and not tried.trials[trial.name]]
        if passed:
            lines.append(f"            {', '.join(passed)} work")
        files = "" if tried.free_files is None else f", {tried.free_files:,} more files"
        return [*lines, f"free disk   {in_units(tried.free_bytes)}{files}"]


def doctor(cache: str | os.PathLike[str] | None = None) -> Diagnosis:
    """Look at this installation, and at a cache and its file system if one is named.

    Parameters
    ----------
    cache : its folder, or where one is to be
    """
    found = Diagnosis(sys.version.split()[0], sys.executable)
    found.problems += environment.doubts() + environment.hiding()
    _look_at_packages(found)
    _look_at_decoders(found)
    _look_at_gpu(found)
    shape = _look_at_cache(found, layout.given_path(cache)) if cache is not None else _USUAL_SHAPE
    found.shared_memory_bytes = environment.shared_memory_bytes()
    lack = environment.too_little_shared_memory(found.shared_memory_bytes, math.prod(shape))
    found.problems += [lack] if lack else []
    return found


def _look_at_packages(found: Diagnosis) -> None:
    for name in _PACKAGES:
        try:
            found.packages[name] = version(name)
        except PackageNotFoundError:
            found.packages[name] = None
            found.problems.append(f"{name} is not installed; run: pip install decant-cache")
    try:
        augment.library(without_torch=True)
    except UsageError as error:
        found.problems.append(str(error))
    except ImportError as error:
        found.problems.append(f"albumentations cannot be imported: {error}")


def _look_at_decoders(found: Diagnosis) -> None:
    try:
        from preprocess.decode import decoder_table

        found.opencv = environment.versions()["opencv"]
    except ImportError as error:
        found.problems.append(
            f"OpenCV cannot be imported: {error}; run: pip install --force-reinstall opencv-python-headless"
        )
        return
    found.decoders = [{"format": name, "able": able, "note": note} for name, able, note in decoder_table()]


def _look_at_gpu(found: Diagnosis) -> None:
    """Torch is imported only where there is a driver."""
    try:
        name = environment.gpu()
        if name is None:
            return
        import torch

        from preprocess.torch_engine.nvjpeg import named_library

        found.gpu = f"{name}, nvJPEG from {named_library(torch.device('cuda'))[0]}"
    except (ImportError, OSError) as error:
        found.gpu = "cannot be used"
        found.problems.append(f"torch cannot be imported: {error}")
    except UsageError as error:
        found.gpu = "cannot be used"
        found.problems.append(str(error))


def _look_at_cache(found: Diagnosis, cache: Path) -> tuple[int, ...]:
    """Open a cache and try its file system; returns the shape of its tensors."""
    shape: tuple[int, ...] = _USUAL_SHAPE
    found.cache = {"path": str(cache), "snapshot": None, "samples": {}}
    found.file_system = tried = try_file_system(cache)
    if not os.path.lexists(cache) or (cache.is_dir() and not any(cache.iterdir())):
        if tried.read_only is not None:
            found.problems.append(f"no cache can be built in {tried.folder!r}: {tried.read_only}; name another folder")
    else:
        try:
            with open_cache(cache) as opened:
                found.cache["snapshot"] = opened.snapshot.name
                found.cache["samples"] = {name: len(table) for name, table in opened.splits.items()}
                shape = opened.tensors(next(iter(opened.splits))).shape
        except CacheStoreError as error:
            found.problems.append(str(error))
    found.problems += tried.problems()
    return shape
