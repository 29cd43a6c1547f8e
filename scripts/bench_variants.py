"""What the number of variants, crop and flip inside the copy, and fresh augmentation do to accuracy.

    python scripts/bench_variants.py [--epochs 96] [--seeds 3] [--json FILE] [--write docs]

A small network learns a few of the demo's images at 64 x 64 pixels, from scratch, once for each contender and seed; all
take the same number of steps. Its accuracy is that after the last step, on pictures of other demos that nothing is
trained on. What differs is which pixels the network sees in an epoch:

    K = 1, 4, 16      variant `epoch mod K` of each image, as out of a cache with so many variants
    ... + crop, flip  the same, with a random window of 64 of 72 pixels, mirrored or not, cut out while it is copied
    fresh             a variant that no epoch before has seen, as augmentation on the fly gives it

One cache with as many variants as epochs serves all: its variant v is, bit for bit, variant v of a cache with any other
K, and what the reference renderer draws on the fly. Contenders without crop and flip get the window in the middle.
A seed fixes the augmentation's draws, the network's first weights and the order of the images.

`--write docs` puts table and plot into docs/augmentation.md and docs/images/variants.svg.
"""

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from figures import commit

STORED, SIDE = 72, 64
BATCH = 16
LEARNING_RATE = 3e-3
BEGIN, END = "<!-- bench_variants: begin -->", "<!-- bench_variants: end -->"


@dataclass(frozen=True)
class Contender:
    """How a run takes its images out of a cache whose variants are all distinct.

    Attributes
    ----------
    variants : K; None: as many as epochs
    moves : random window and mirroring inside the copy
    """

    name: str
    variants: int | None
    moves: bool = False


CONTENDERS = (
    Contender("K = 1", 1),
    Contender("K = 4", 4),
    Contender("K = 16", 16),
    Contender("K = 1 + crop, flip", 1, True),
    Contender("K = 4 + crop, flip", 4, True),
    Contender("fresh", None),
)


def recipe(epochs: int, seed: int) -> dict[str, Any]:
    square = [STORED, STORED]
    train = [
        {"RandomResizedCrop": {"size": square, "scale": [0.35, 1.0], "interpolation": "area"}},
        {"HorizontalFlip": {"p": 0.5}},
    ]
    val = [
        {"SmallestMaxSize": {"max_size": STORED, "interpolation": "area"}},
        {"CenterCrop": {"height": STORED, "width": STORED}},
    ]
    splits = {"train": {"variants": epochs, "transforms": train}, "val": {"transforms": val}}
    return {"size": STORED, "seed": seed, "splits": splits}


def draw(folder: Path, train: int, val: int) -> None:
    """So many training pictures a class out of demo 0, so many for validation out of the demos after it."""
    import make_demo

    left = {(split, name): count for split, count in (("train", train), ("val", val)) for name in make_demo.CLASSES}
    demo = 0
    while any(left.values()):
        split = "val" if demo else "train"
        for picture in make_demo.plan(demo):
            if left[split, picture.label] and not picture.odd:
                left[split, picture.label] -= 1
                path = folder / split / picture.label / f"{demo}-{picture.path.replace('/', '-')}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(make_demo.encode(picture))
        demo += 1
        if split == "train" and any(left["train", name] for name in make_demo.CLASSES):
            sys.exit(f"bench_variants: a demo has no {train} plain pictures a class")


def network(classes: int) -> Any:
    from torch import nn

    widths = (3, 16, 32, 64, 64)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(widths[-1], classes))


def accuracy_of(cache: Path, contender: Contender, epochs: int, seed: int) -> float:
    """Train once, in one thread; the share of the validation images that come out right."""
    import torch
    from torch.nn.functional import cross_entropy
    from torch.utils.data import DataLoader

    from loaders import CachedDataset

    torch.set_num_threads(1)
    mode = "random" if contender.moves else "center"
    window = {"dtype": torch.float32, "crop": SIDE}
    train = CachedDataset(cache, split="train", flip=contender.moves, crop_mode=mode, **window)
    val = CachedDataset(cache, split="val", crop_mode="center", **window)
    torch.manual_seed(seed)
    model = network(len(train.classes))
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=0.01)
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(train, BATCH, shuffle=True, drop_last=True, generator=order)
    steps = epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for epoch in range(epochs):
        train.set_epoch(epoch % (contender.variants or epochs))
        for images, labels in loader:
            loss = cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    right = 0
    with torch.no_grad():
        for images, labels in DataLoader(val, 256):
            right += int((model(images).argmax(1) == labels).sum())
    return right / len(val)


def measured(scratch: Path, args: argparse.Namespace) -> dict[str, list[float]]:
    """Contender -> accuracy for each seed. Runs share the processors, one thread each."""
    from preprocess import build

    photos = scratch / "photos"
    draw(photos, args.train, args.val)
    found: dict[str, list[float]] = {contender.name: [] for contender in CONTENDERS}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.processes, context) as pool:
        for seed in range(args.seeds):
            cache = scratch / f"cache-{seed}"
            build(photos, cache, recipe(args.epochs, seed))
            runs = {c.name: pool.submit(accuracy_of, cache, c, args.epochs, seed) for c in CONTENDERS}
            for name, run in runs.items():
                found[name].append(run.result())
                print(f"seed {seed}  {name:<20} {found[name][-1]:.1%}", file=sys.stderr, flush=True)
    return found


def table(figures: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = ["| | accuracy | lowest to highest |", "|---|---|---|"]
    for name, values in figures["accuracy"].items():
        lines.append(f"| {name} | {statistics.mean(values):.1%} | {min(values):.1%} – {max(values):.1%} |")
    config = figures["config"]
    lines += [
        "",
        f"{config['train']} training images, {config['epochs']} epochs of {config['train'] // BATCH} steps, "
        f"{config['val']:,} validation images, {config['seeds']} seeds; {figures['seconds']:.0f} s in all, "
        f"{config['processes']} runs at a time.",
    ]
    return "\n".join(lines)


def plot(figures: dict[str, Any]) -> str:
    """Mean, and a dot a seed, of each contender: an SVG that is readable on light and on dark pages."""
    import io

    import matplotlib.style
    from matplotlib.figure import Figure

    stand_ins = {"#010101": "var(--text)", "#020202": "var(--faint)", "#030303": "var(--mark)"}
    text, faint, mark = stand_ins
    settings = {"svg.fonttype": "none", "svg.hashsalt": "decant", "font.size": 9, "text.color": text}
    settings |= {"axes.labelcolor": text, "xtick.color": text, "ytick.color": text, "axes.edgecolor": faint}
    settings |= {"axes.spines.top": False, "axes.spines.right": False, "ytick.major.size": 0, "figure.dpi": 72}
    with matplotlib.style.context(["default", settings]):
        figure = Figure((5.2, 2.6), layout="constrained")
        axes = figure.subplots()
        names = list(figures["accuracy"])
        for place, name in enumerate(names):
            values = [100 * value for value in figures["accuracy"][name]]
            mean = statistics.mean(values)
            axes.plot([min(values), max(values)], [place, place], color=mark, linewidth=2, alpha=0.5)
            axes.plot(values, [place] * len(values), "o", color=mark, markersize=4, alpha=0.6)
            axes.plot(mean, place, "|", color=text, markersize=14, markeredgewidth=2)
            axes.annotate(f"{mean:.1f}", (mean, place), (0, 9), textcoords="offset points", ha="center", fontsize=8)
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.5, -0.8)
        axes.set_xlabel(f"% right on validation images: mean, and each of {figures['config']['seeds']} seeds")
        axes.grid(axis="x", color=faint, alpha=0.35)
        axes.set_axisbelow(True)
        file = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    drawn = file.getvalue()
    for stand_in, variable in stand_ins.items():
        drawn = drawn.replace(stand_in, variable)
    drawn = re.sub(r"<metadata>.*?</metadata>\s*", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    colours = (
        "<style>svg { --text: #1f2328; --faint: #8c959f; --mark: #0969da }\n"
        "@media (prefers-color-scheme: dark) { svg { --text: #e6edf3; --faint: #6e7681; --mark: #58a6ff } }</style>"
    )
    drawn = re.sub(r"(<svg [^>]*>)", rf"\g<1>\n{colours}", drawn, count=1)
    return "\n".join(line.rstrip() for line in drawn.splitlines()) + "\n"


def around_the_table(docs: Path) -> tuple[str, str]:
    """What stands before and after the table in the page about augmentation."""
    page = docs / "augmentation.md"
    if not page.is_file():
        sys.exit(f"bench_variants: {page} is not there; --write takes the folder docs of a checkout")
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        sys.exit(f"bench_variants: {page} has no lines {BEGIN} and {END}, between which the table belongs")
    return before, after


def write(docs: Path, figures: dict[str, Any]) -> None:
    """Put table and plot where the page has them."""
    before, after = around_the_table(docs)
    page = docs / "augmentation.md"
    page.write_text(f"{before}{BEGIN}\n{table(figures)}\n{END}{after}", encoding="utf-8")
    (docs / "images").mkdir(exist_ok=True)
    (docs / "images" / "variants.svg").write_text(plot(figures), encoding="utf-8")


def surroundings() -> dict[str, str]:
    import torch

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    return {**versions, "machine": platform.machine(), "commit": commit()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train", type=int, default=20, help="training images of each class, up to 90")
    parser.add_argument("--val", type=int, default=250, help="validation images of each class")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at a time, one thread each")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--write", type=Path, metavar="DOCS", help="put table and plot into this folder of documents")
    args = parser.parse_args()
    if args.write:
        around_the_table(args.write)  # before the work, not after it
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="decant-variants-") as scratch:
        accuracy = measured(Path(scratch), args)
        counts = {split: len(list((Path(scratch) / "photos" / split).rglob("*.*"))) for split in ("train", "val")}
    config = {"epochs": args.epochs, "seeds": args.seeds, "processes": args.processes, "batch": BATCH, **counts}
    seconds = time.perf_counter() - begun
    figures = {"config": config, "accuracy": accuracy, "seconds": seconds, "surroundings": surroundings()}
    print(table(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")
    if args.write:
        write(args.write, figures)


if __name__ == "__main__":
    main()
