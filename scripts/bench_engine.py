"""How fast the torch engine is on the CPU beside OpenCV's: each operation, and a whole recipe.

    python scripts/bench_engine.py [--photos PHOTOS] [--images 64] [--rounds 5] [--only Resize,Affine] [--json FILE]

Both engines get the same decoded photos and draw the same parameters: OpenCV takes one image after the other, torch
batches of 64. Of a recipe's files, they decode and render every one, by OpenCV's decoder. One thread each, in turn, the
median of the rounds after one that warms up. Without PHOTOS, pictures of 500 x 375 pixels are drawn.

The torch engine on the CPU is what the GPU is held against, not what builds without a GPU use: its speed matters for
tests and checks. Every answer is checked: 99.9 % of the pixels differ by no more than 2 levels.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from figures import commit, machine_in_words, spread

BATCH = 64
SIZE = 224
OPERATIONS: dict[str, dict] = {
    "Resize": {"height": SIZE, "width": SIZE},
    "SmallestMaxSize": {"max_size": 256},
    "LongestMaxSize": {"max_size": 256},
    "CenterCrop": {"height": SIZE, "width": SIZE, "pad_if_needed": True},
    "RandomCrop": {"height": SIZE, "width": SIZE, "pad_if_needed": True},
    "RandomResizedCrop": {"size": [SIZE, SIZE], "scale": [0.35, 1.0]},
    "PadIfNeeded": {"min_height": 512, "min_width": 512},
    "HorizontalFlip": {},
    "VerticalFlip": {},
    "Transpose": {},
    "RandomRotate90": {},
    "D4": {},
    "Affine": {"rotate": [-30, 30], "scale": [0.8, 1.2], "shear": [-10, 10]},
    "ShiftScaleRotate": {},
    "Rotate": {},
    "Perspective": {},
    "ColorJitter": {},
    "RandomBrightnessContrast": {},
    "HueSaturationValue": {},
    "RGBShift": {},
    "RandomGamma": {},
    "ToGray": {},
    "InvertImg": {},
    "Solarize": {},
    "Posterize": {},
    "Equalize": {},
    "GaussianBlur": {},
    "Sharpen": {},
    "CoarseDropout": {},
}
"""All but the resizes and crops keep the photo's size, where in a recipe they mostly come after a crop."""

RECIPES = {
    "train": [{"RandomResizedCrop": OPERATIONS["RandomResizedCrop"]}, {"HorizontalFlip": {"p": 0.5}}],
    "val": [
        {"SmallestMaxSize": {"max_size": 256, "interpolation": "area"}},
        {"CenterCrop": {"height": SIZE, "width": SIZE}},
    ],
}


def files_of(photos: Path | None, count: int) -> list[bytes]:
    """JPEG files: those of a folder, spread over it, or drawn ones of 500 x 375 and 375 x 500 pixels."""
    if photos is not None:
        paths = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        if len(paths) < count:
            sys.exit(f"{photos} holds {len(paths)} JPEG files, {count} are wanted")
        return [paths[number * len(paths) // count].read_bytes() for number in range(count)]
    return [drawn(number) for number in range(count)]


def drawn(seed: int) -> bytes:
    """Smooth with some grain; every fourth upright."""
    random = np.random.default_rng(seed)
    width, height = (375, 500) if seed % 4 == 3 else (500, 375)
    image = cv2.resize(
        random.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height), interpolation=cv2.INTER_CUBIC
    )
    grain = random.integers(0, 24, (height, width, 1), dtype=np.uint8)
    encoded: bytes = cv2.imencode(".jpg", cv2.add(image, cv2.merge([grain] * 3)))[1].tobytes()
    return encoded


def both_on_pixels(transforms: list[dict], images: list[np.ndarray]) -> dict[str, Callable[[], list[np.ndarray]]]:
    """Decoded images, uint8 (h, w, 3), through one list of transforms."""
    import torch

    from preprocess.augment import Pipeline, resolve
    from preprocess.torch_engine.images import batched
    from preprocess.torch_engine.programs import program_of, run

    pipeline = Pipeline(resolve(transforms, "transforms")[0])
    planes = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))) for image in images]

    def by_opencv() -> list[np.ndarray]:
        return [pipeline(image, state) for state, image in enumerate(images)]

    def by_torch() -> list[np.ndarray]:
        out: list[np.ndarray] = []
        for begin in range(0, len(images), BATCH):
            batches, order = batched(planes[begin : begin + BATCH])
            programs = [
                program_of(pipeline.decide(images[number].shape, number), images[number].shape[:2], 3)
                for number in (begin + place for place in order)
            ]
            done = dict(zip(order, run(batches, programs), strict=True))
            out += [done[place].numpy().transpose(1, 2, 0) for place in range(len(order))]
        return out

    return {"opencv": by_opencv, "torch": by_torch}


def both_on_files(transforms: list[dict], files: list[bytes]) -> dict[str, Callable[[], list[np.ndarray]]]:
    """Files as a worker process renders them."""
    from preprocess.augment import resolve
    from preprocess.engines import renderer_of
    from preprocess.render import File, Rendered
    from preprocess.rendering import OPENCV, TORCH, Rendering

    rendering = {"seed": 0, "reduced": False, "probe": "", "channels": "rgb", "dtype": "uint8"}
    canonical = tuple(resolve(transforms, "transforms")[0])
    renderers = {
        name: renderer_of(Rendering(size_hw=(SIZE, SIZE), transforms=canonical, engine=engine, **rendering))
        for name, engine in (("opencv", OPENCV), ("torch", TORCH))
    }

    def by(name: str) -> list[np.ndarray]:
        given = (File(number, lambda data=data: data, bytes(16), (number,)) for number, data in enumerate(files))
        found: dict[int, np.ndarray] = {}
        for result in renderers[name].render(given, lambda place: None):
            if isinstance(result, Rendered):
                found[result.place] = result.planes.transpose(1, 2, 0).copy()
            elif result.error is not None:
                sys.exit(f"wrong answer: file {result.place} was not rendered: {result.error}")
        return [found[number] for number in range(len(files))]

    return {name: lambda name=name: by(name) for name in renderers}


def measured(engines: dict[str, Callable[[], list[np.ndarray]]], images: int, rounds: int) -> dict:
    """Images a second of each engine, and how much faster torch is, round by round."""
    check(engines["opencv"](), engines["torch"]())
    speeds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds):
        for name in sorted(engines, reverse=number % 2 == 1):
            begun = time.perf_counter()
            engines[name]()
            speeds[name].append(images / (time.perf_counter() - begun))
    ratios = [torch / opencv for opencv, torch in zip(speeds["opencv"], speeds["torch"], strict=True)]
    return {"torch_of_opencv": spread(ratios), "images_a_second": {name: spread(v) for name, v in speeds.items()}}


def check(theirs: list[np.ndarray], ours: list[np.ndarray]) -> None:
    off = total = 0
    for one, other in zip(theirs, ours, strict=True):
        if one.shape != other.shape:
            sys.exit(f"wrong answer: {other.shape}, OpenCV's engine has {one.shape}")
        off += int((np.abs(one.astype(np.int16) - other) > 2).any(axis=2).sum())
        total += one.shape[0] * one.shape[1]
    if off > total / 1000:
        sys.exit(f"wrong answer: {off / total:.2%} of the pixels are more than 2 levels off")


def benches(files: list[bytes], only: set[str]) -> Iterator[tuple[str, dict[str, Callable[[], list[np.ndarray]]]]]:
    from preprocess.decode import decode

    images = [decode(data).image for data in files]
    for name, arguments in OPERATIONS.items():
        if not only or name in only:
            yield name, both_on_pixels([{name: {"p": 1, **arguments}}], images)
    for name, transforms in RECIPES.items():
        if not only or name in only:
            yield name, both_on_pixels(transforms, images)
            yield f"{name} with decode", both_on_files(transforms, files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEG files; drawn ones if left out")
    parser.add_argument("--images", type=int, default=BATCH)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="operations and recipes, with commas")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    only = set(filter(None, arguments.only.split(",")))
    if unknown := only - OPERATIONS.keys() - RECIPES.keys():
        parser.error(f"not known: {', '.join(sorted(unknown))}")

    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    files = files_of(arguments.photos, arguments.images)
    whole: dict = {
        "machine": machine_in_words(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "opencv": cv2.__version__},
        "commit": commit(),
        "images": arguments.images,
        "rounds": arguments.rounds,
        "results": {},
    }
    print(f"{'images/s, one thread':26}{'opencv':>10}{'torch':>10}{'ratio':>8}")
    for name, engines in benches(files, only):
        found = whole["results"][name] = measured(engines, arguments.images, arguments.rounds)
        speed, ratio = found["images_a_second"], found["torch_of_opencv"]
        print(
            f"{name:26}{speed['opencv']['median']:10,.0f}{speed['torch']['median']:10,.0f}{ratio['median']:8.2f}"
            f"  ({ratio['min']:.2f} to {ratio['max']:.2f})",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(whole, indent=2))


if __name__ == "__main__":
    main()
