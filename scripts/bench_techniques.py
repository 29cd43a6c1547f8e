"""What each technique for faster input brings, alone and combined; writes the tables of docs/techniques.md.

    python scripts/bench_techniques.py [--photos PHOTOS] [--only decode …] [--json FILE] [--write docs/techniques.md]

Each contender runs in a process of its own, forked after everything was imported, one at a time and in turn, round by
round; a figure is the median of its rounds, beside the lowest and the highest. What a contender gives is compared with
the right answer after it was timed, and a wrong one ends the run. Without PHOTOS, pictures of 500 x 375 are drawn.
Stores are made under --work and removed at the end. About ten minutes on two processors; --quick takes seconds, and its
figures mean nothing.

    decode      JPEG files to pixels
    blur        Gaussian blur, 5 x 5, in fp32 and fp16, single and batched
    transforms  torchvision against Albumentations
    arithmetic  normalising by a table against arithmetic on floats
    memory      generator against RAM; in place and pooled against fresh memory
    loading     num_workers, pin_memory and batch size
    storage     pickle, .npy files, TensorDataset, memmap, decant
    precision   float32, float16 and uint8 in storage
    combined    all of it, one technique after the other
    scaling     build, update, open, load and verify against images, pixels, variants and changes
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # looking for a GPU must not forbid to fork

import torch
from figures import commit, machine, versions
from techniques import (
    arithmetic,
    blur,
    combined,
    decode,
    loading,
    memory,
    precision,
    scaling,
    storage,
    transforms,
)
from techniques.common import Settings, Technique, set_threads
from techniques.document import filled

SECTIONS: dict[str, Any] = {
    "decode": decode,
    "blur": blur,
    "transforms": transforms,
    "arithmetic": arithmetic,
    "memory": memory,
    "loading": loading,
    "storage": storage,
    "precision": precision,
    "combined": combined,
    "scaling": scaling,
}

DISTRIBUTIONS = ("torch", "torchvision", "albumentations", "opencv-python-headless", "pillow", "numpy", "zarr")


def device() -> str | None:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the sections; everything that the page says."""
    begun, gpu = time.perf_counter(), torch.cuda.is_available()
    sections = {}
    arguments.work.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="techniques-", dir=arguments.work))
    quick = arguments.quick
    settings = Settings(
        photos=arguments.photos,
        work=work,
        rounds=arguments.rounds or (1 if quick else 5),
        images=10 if quick else 64,
        stored=10 if quick else 512,
        scale=10 if quick else 1000,
        doublings=1 if quick else 3,
        cuda=gpu,
    )
    if quick:
        Technique.least_s = 0.0
    try:
        for name in arguments.only:
            sections[name] = SECTIONS[name].run(settings)
    finally:
        shutil.rmtree(work)
    photos = "real photographs (--photos)" if arguments.photos else "drawn pictures"
    return {
        "command": shlex.join(["python", "scripts/bench_techniques.py", *without_paths(arguments)]),
        "images": photos,
        "machine": machine(),
        "gpu": device(),
        "versions": {"Python": sys.version.split()[0]} | versions(DISTRIBUTIONS),
        "commit": commit(),
        "rounds": settings.rounds,
        "seconds": time.perf_counter() - begun,
        "sections": sections,
    }


def without_paths(arguments: argparse.Namespace) -> list[str]:
    """The options that decide figures, for the page."""
    words = ["--photos", "PHOTOS"] if arguments.photos else []
    words += ["--quick"] if arguments.quick else []
    words += ["--rounds", str(arguments.rounds)] if arguments.rounds else []
    return words


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEG files, at least 512; without it, drawn ones")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--rounds", type=int, help="turns of each contender (5)")
    parser.add_argument("--quick", action="store_true", help="ten images, one round: to try the script")
    parser.add_argument("--work", type=Path, default=Path("bench"), help="folder for stores, on the disk to measure")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="fill in the tables of this page")
    parser.add_argument("--figures", type=Path, metavar="JSON", help="measure nothing: take what --json has written")
    arguments = parser.parse_args(words)
    if arguments.write and not arguments.figures and set(arguments.only) != set(SECTIONS):
        parser.error("--write with --only would put figures of different runs on one page; use --json")
    return arguments


def main() -> None:
    arguments = parse()
    for known in (".*pin_memory", ".*worker processes in total", "CachedDataset is faster without worker"):
        warnings.filterwarnings("ignore", message=known)  # they are what is measured
    set_threads(1)  # also because threads that ran before a fork would be missing after it
    if arguments.figures:
        found = json.loads(arguments.figures.read_text())
    else:
        found = measured(arguments)
    pages = {name: SECTIONS[name].page(each) for name, each in found["sections"].items()}
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    if arguments.write:
        arguments.write.write_text(filled(arguments.write.read_text(), found, pages))
    else:
        print("\n\n".join(f"## {name}\n\n{page}" for name, page in pages.items()))


if __name__ == "__main__":
    main()
