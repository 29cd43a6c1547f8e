"""From a drawn folder to a trained network: each command is shown, then run. `make demo` runs this.

    python scripts/demo.py [FOLDER] [--epochs 3]

FOLDER (demo, unless given) gets photos, a cache of them, and a report about it. Then a small network is trained on the
CPU for a few epochs, and images/s of the cache are measured beside torchvision's ImageFolder with the same transforms.
"""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BATCH = 32
MEASURED_S = 2.0
SIZE = 96  # as in demo.yaml


def shown(program: str, *arguments: object) -> None:
    """Run `decant` or a script of this checkout with this Python, its command line shown first."""
    words = [str(argument) for argument in arguments]
    in_venv = Path(".venv/bin").exists()
    what = "decant" if program == "decant" else f"python {program}"
    print(f"\n$ {'.venv/bin/' if in_venv else ''}{what} {shlex.join(words)}", flush=True)
    if program == "decant":
        command = [sys.executable, "-c", "from preprocess.cli import main; main()", *words]
    else:
        command = [sys.executable, str(ROOT / program), *words]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)}, check=False)
    if done.returncode:
        sys.exit(done.returncode)  # it has said why


def images_a_second(loader: Iterable) -> float:
    """Of whole passes, at least one and `MEASURED_S` seconds, after a first one that warms up."""
    for _ in loader:
        pass
    begun, count = time.perf_counter(), 0
    while True:
        for images, _ in loader:
            count += len(images)
        if time.perf_counter() - begun > MEASURED_S:
            return count / (time.perf_counter() - begun)


def compare(photos: Path, cache: Path) -> None:
    """Print how fast a training loop would get its images, from ImageFolder and from the cache."""
    import torch
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    from loaders import CachedDataset

    cached = CachedDataset(cache, split="train", dtype=torch.float32)
    left_out = {str(photos / failure["path"]) for failure in cached.failures}
    transform = v2.Compose(
        [
            v2.PILToTensor(),
            v2.RandomResizedCrop(SIZE, (0.35, 1.0)),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(cached.mean, cached.std),
        ]
    )
    folder = ImageFolder(photos / "train", transform, is_valid_file=lambda path: path not in left_out)
    if len(folder) != len(cached):
        sys.exit(f"demo: ImageFolder finds {len(folder)} images, the cache holds {len(cached)}: remove the demo folder")
    print(f"\nimages/s for a training loop, batches of {BATCH}, float32, shuffled:")
    best = 0.0
    for workers in (0, os.cpu_count() or 1):
        loader = DataLoader(folder, BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
        speed = images_a_second(loader)
        best = max(best, speed)
        print(f"  ImageFolder, num_workers={workers:<3} {speed:>12,.0f}", flush=True)
    ours = images_a_second(DataLoader(cached, BATCH, shuffle=True))
    print(f"  CachedDataset, num_workers=0 {ours:>10,.0f}   {ours / best:,.0f} times the faster ImageFolder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path, nargs="?", default=Path("demo"))
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    begun = time.perf_counter()
    photos, cache, report = args.folder / "photos", args.folder / "small.cache", args.folder / "report.html"
    shown("scripts/make_demo.py", photos)
    shown("decant", "build", photos, cache, "--recipe", Path(os.path.relpath(ROOT / "scripts" / "demo.yaml")))
    shown("decant", "report", cache, "-o", report)
    shown("examples/train.py", cache, "--epochs", args.epochs, "--device", "cpu")
    compare(photos, cache)
    print(
        f"\nThat took {time.perf_counter() - begun:.0f} s. What to look at next:\n"
        f"  {report}  in a browser: what is in the cache, and the one image that was left out\n"
        "  examples/train.py  what has just trained; with --epochs 20 it gets nearly all right\n"
        f"  add, rename or delete files in {photos}, then run the `decant build` line again\n"
        "  decant init YOUR_FOLDER  looks at your own images and writes a recipe for them"
    )


if __name__ == "__main__":
    main()
