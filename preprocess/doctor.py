"""What this installation can do, and what is wrong with it."""

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cache_store.errors import CacheStoreError
from cache_store.reader import open_cache
from preprocess import augment, environment
from preprocess.errors import UsageError
from preprocess.rendering import IN_WORDS, OPENCV
from preprocess.report import in_units

_PACKAGES = ("torch", "torchvision", "albumentations", "numpy", "zarr", "google-crc32c", "pydantic", "click")


def doctor(cache: str | os.PathLike[str] | None = None) -> tuple[str, bool]:
    """Facts and problems, a line each, and whether all is well."""
    problems = environment.doubts()
    lines = [f"python      {sys.version.split()[0]} ({sys.executable})"]
    for name in _PACKAGES:
        try:
            lines.append(f"{name:<11} {version(name)}")
        except PackageNotFoundError:
            lines.append(f"{name:<11} not installed")
            problems.append(f"{name} is not installed; run: pip install decant-cache")
    try:
        augment.library(without_torch=True)
    except UsageError as error:
        problems.append(str(error))
    except ImportError as error:
        problems.append(f"albumentations cannot be imported: {error}")
    try:
        lines += _decoders()
    except ImportError as error:
        problems.append(
            f"OpenCV cannot be imported: {error}; run: pip install --force-reinstall opencv-python-headless"
        )
    try:
        lines.append(f"gpu         {_gpu()}")
    except (ImportError, OSError) as error:
        problems.append(f"torch cannot be imported: {error}")
    except UsageError as error:
        problems.append(str(error))
    if cache is not None:
        try:
            with open_cache(cache) as opened:
                counts = ", ".join(f"{name} {len(table):,}" for name, table in opened.splits.items())
                lines.append(f"cache       snapshot {opened.snapshot.name}: {counts}")
            lines.append(f"free disk   {in_units(shutil.disk_usage(Path(cache)).free)}")
        except CacheStoreError as error:
            problems.append(str(error))
    lines += [f"PROBLEM     {problem}" for problem in problems] or ["all is well"]
    return "\n".join(lines), not problems


def _gpu() -> str:
    """The GPU and what decodes on it. Torch is imported only where there is a driver."""
    name = environment.gpu()
    if name is None:
        return f"none: images are rendered by {IN_WORDS[OPENCV]}"
    import torch

    from preprocess.torch_engine.nvjpeg import named_library

    return f"{name}, nvJPEG from {named_library(torch.device('cuda'))[0]}"


def _decoders() -> list[str]:
    from preprocess.decode import decoder_table

    lines = [f"opencv      {environment.versions()['opencv']}", "decoders"]
    for name, able, note in decoder_table():
        lines.append(f"  {name:<16} {'yes' if able else 'no ':<4} {note}".rstrip())
    return lines
