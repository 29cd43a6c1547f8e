"""How fast a build is, against what the same work costs with nothing around it.

    python scripts/bench_build.py --photos PHOTOS [--images 8000] [--rounds 5] [--variants 1 4]

Limits, in as many bare processes as the build has workers, interleaved with it round by round:

    A   the same reads, decodes and reseeded transforms; nothing is stored
    B   A + normalisation by table + plain os.write of the same float16 bytes + one fsync a file

The build is timed from the first job to the fsynced commit; the start of processes is reported apart (the limits'
processes are ready, too, before their clock starts). Its statistics are the dataset's own, so every pixel is staged
and written a second time once they are known. PHOTOS needs train/ and val/; copies are made distinct by a JPEG comment,
as equal files would share their slots. Memory is the peak of the proportional set size (PSS) of the whole process
tree, in a run of its own.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from figures import commit, machine_in_words, spread

WORKERS = 2
SIZE = 224
SHARD_BYTES = 32 << 20
CHUNK_BYTES = 3 * SIZE * SIZE * 2


def recipe(variants: int) -> dict:
    """Random crops and flips for train, a fixed crop for val."""
    return {
        "splits": {
            "train": {
                "folder": "train",
                "variants": variants,
                "transforms": [
                    {"RandomResizedCrop": {"size": [SIZE, SIZE], "scale": [0.35, 1.0]}},
                    {"HorizontalFlip": {"p": 0.5}},
                ],
            },
            "val": {
                "folder": "val",
                "transforms": [
                    {"SmallestMaxSize": {"max_size": 256, "interpolation": "area"}},
                    {"CenterCrop": {"height": SIZE, "width": SIZE}},
                ],
            },
        }
    }


# -- the images -------------------------------------------------------------------------------------------------------


def make_images(photos: Path, folder: Path, count: int) -> Path:
    """`count` distinct JPEG files in train/ and val/ of `folder`, from those of `photos`; kept from run to run."""
    if (folder / "done").exists():
        return folder / "images"
    shutil.rmtree(folder, ignore_errors=True)
    originals = sorted(path for path in photos.glob("*/*/*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not originals:
        sys.exit(f"{photos} holds no JPEG in train/<class>/ or val/<class>/")
    for number in range(count):
        # Fewer than there are: from all classes and both splits.
        original = originals[number * len(originals) // count if count < len(originals) else number % len(originals)]
        data, copy = original.read_bytes(), number // len(originals)
        comment = f"copy {copy}".encode()
        data = data[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]
        target = folder / "images" / original.parent.relative_to(photos) / f"{copy:04d}_{original.name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    (folder / "done").touch()
    return folder / "images"


# -- the limits -------------------------------------------------------------------------------------------------------


def bare_process(images: Path, variants: int, part: int, out: Path | None, ready, go) -> None:  # type: ignore[no-untyped-def]
    """One process of a limit: every WORKERS-th image of every split."""
    import cv2

    from preprocess.augment import library

    album = library(without_torch=True)
    cv2.setNumThreads(1)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    table = ((np.arange(256)[None] / 255 - mean[:, None]) / std[:, None]).astype(np.float16).view(np.uint16)
    rows = [row.reshape(1, -1) for row in table]
    crop = album.RandomResizedCrop(size=(SIZE, SIZE), scale=(0.35, 1.0), area_for_downscale="image")
    train = album.Compose([crop, album.HorizontalFlip(p=0.5)])
    val = album.Compose(
        [album.SmallestMaxSize(max_size=256, interpolation=cv2.INTER_AREA), album.CenterCrop(SIZE, SIZE)]
    )
    work = [(train, variants, path) for path in sorted((images / "train").rglob("*.*"))[part::WORKERS]]
    work += [(val, 1, path) for path in sorted((images / "val").rglob("*.*"))[part::WORKERS]]
    planes, tensor = np.empty((3, SIZE, SIZE), np.uint8), np.empty((3, SIZE, SIZE), np.uint16)
    files: dict[int, list[int]] = {}
    ready.wait()
    go.wait()
    for number, (transform, k, path) in enumerate(work):
        image = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR_RGB)
        for variant in range(k):
            state = number * 1000 + variant
            transform.set_random_state(np.random.default_rng(state), random.Random(state))
            pixels = transform(image=image)["image"]
            if out is None:
                continue
            cv2.split(pixels, list(planes))
            for plane, row, target in zip(planes, rows, tensor, strict=True):
                cv2.LUT(plane, row, dst=target)
            file = files.get(variant)
            if file is None:
                path = out / f"{part}-{variant}-{number}"
                file = files[variant] = [os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 0]
            os.write(file[0], tensor)
            file[1] += CHUNK_BYTES
            if file[1] + CHUNK_BYTES > SHARD_BYTES:
                os.fsync(file[0])
                os.close(file[0])
                del files[variant]
    for fd, _ in files.values():
        os.fsync(fd)
        os.close(fd)


def run_limit(images: Path, variants: int, out: Path | None) -> float:
    """Seconds from the common start to the end of the last process."""
    context = multiprocessing.get_context("spawn")
    ready, go = context.Barrier(WORKERS + 1), context.Event()
    if out is not None:
        out.mkdir(parents=True)
    processes = [
        context.Process(target=bare_process, args=(images, variants, part, out, ready, go)) for part in range(WORKERS)
    ]
    for process in processes:
        process.start()
    ready.wait()
    begun = time.perf_counter()
    go.set()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - begun
    if any(process.exitcode for process in processes):
        sys.exit("a process of the limit failed")
    return seconds


# -- the build --------------------------------------------------------------------------------------------------------

_BUILD = """
import json, sys
from preprocess.augment import library
library(without_torch=True)
from preprocess.builder import build
report = build(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), workers=int(sys.argv[4]))
print(report.to_json())
"""


def run_build(images: Path, cache: Path, variants: int, watch: "MemoryWatch | None" = None) -> dict:
    """The report of a build in a process of its own."""
    command = [sys.executable, "-c", _BUILD, str(images), str(cache), json.dumps(recipe(variants)), str(WORKERS)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if watch is not None:
        watch.follow(process.pid)
    output, _ = process.communicate()
    if process.returncode:
        sys.exit("the build failed")
    return json.loads(output)


def work_seconds(report: dict) -> float:
    """From the first job to the fsynced commit."""
    return sum(report["seconds"].get(stage, 0.0) for stage in ("hash", "render", "normalise", "commit"))


def check(images: Path, cache: Path) -> None:
    """The build's answer: a few images of val, against cv2 and the recorded statistics."""
    import cv2

    from cache_store import open_cache

    with open_cache(cache) as opened:
        table = opened.split("val")
        mean, std = np.array(table.mean), np.array(table.std)
        for number in range(0, len(table), max(1, len(table) // 20)):
            image = cv2.imread(str(images / os.fsdecode(table.paths()[number])), cv2.IMREAD_COLOR_RGB)
            height, width = image.shape[:2]
            scale = 256 / min(height, width)
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            top, left = (image.shape[0] - SIZE) // 2, (image.shape[1] - SIZE) // 2
            crop = image[top : top + SIZE, left : left + SIZE].transpose(2, 0, 1)
            expected = ((crop / 255.0 - mean[:, None, None]) / std[:, None, None]).astype(np.float16)
            if not np.array_equal(opened.image("val", number), expected):
                sys.exit(f"image {number} of val is not what it should be")


class MemoryWatch:
    """Peak PSS of a process and all below it, sampled every 50 ms."""

    def __init__(self) -> None:
        self.peak_bytes = 0

    def follow(self, pid: int) -> None:
        threading.Thread(target=self._watch, args=(pid,), daemon=True).start()

    def _watch(self, pid: int) -> None:
        while Path(f"/proc/{pid}").exists():
            self.peak_bytes = max(self.peak_bytes, sum(map(_pss, _tree(pid))))
            time.sleep(0.05)


def _tree(pid: int) -> list[int]:
    pids = [pid]
    for each in pids:
        try:
            pids += [int(child) for child in Path(f"/proc/{each}/task/{each}/children").read_text().split()]
        except OSError:
            continue
    return pids


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


# -- all of it --------------------------------------------------------------------------------------------------------


def measure(images: Path, work: Path, variants: int, rounds: int) -> dict:
    """A, B and the build in turn, so that all of them meet the same weather."""
    seconds: dict[str, list[float]] = {"A": [], "B": [], "build": []}
    stages: dict[str, list[float]] = {}
    out = work / "out"
    for number in range(rounds):
        order = ["A", "B", "build"]
        for name in order[number % 3 :] + order[: number % 3]:
            shutil.rmtree(out, ignore_errors=True)
            os.sync()
            if name == "build":
                report = run_build(images, out, variants)
                seconds[name].append(work_seconds(report))
                for stage, value in report["seconds"].items():
                    stages.setdefault(stage, []).append(value)
                if number == 0:
                    check(images, out)
            else:
                seconds[name].append(run_limit(images, variants, out if name == "B" else None))
        line = ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items())
        print(f"K={variants} round {number + 1}: {line}", file=sys.stderr)
    shutil.rmtree(out, ignore_errors=True)
    count = sum(1 for _ in images.rglob("*.*"))
    ratios = {name: [a / b for a, b in zip(seconds[name], seconds["build"], strict=True)] for name in ("A", "B")}
    return {
        "variants": variants,
        "images": count,
        "images_per_s": {name: count / statistics.median(values) for name, values in seconds.items()},
        "build_of_A": spread(ratios["A"]),
        "build_of_B": spread(ratios["B"]),
        "stages_s": {stage: statistics.median(values) for stage, values in stages.items()},
        "seconds": seconds,
    }


def memory(photos: Path, work: Path, counts: list[int]) -> dict[str, float]:
    """Peak PSS in MB by number of images."""
    peaks = {}
    for count in counts:
        images = make_images(photos, work / f"{count}", count)
        watch = MemoryWatch()
        run_build(images, work / "out", 1, watch)
        shutil.rmtree(work / "out")
        peaks[str(count)] = watch.peak_bytes / 1e6
    return peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photos", type=Path, required=True, help="folder with train/<class>/ and val/<class>/ of JPEG"
    )
    parser.add_argument("--work", type=Path, default=Path("bench"), help="folder on the disk to measure")
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", type=int, nargs="*", default=[1, 4], help="none: only memory")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory runs out")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    images = make_images(arguments.photos, arguments.work / f"{arguments.images}", arguments.images)
    results = [measure(images, arguments.work, k, arguments.rounds) for k in arguments.variants]
    few = max(8, arguments.images // 8)
    peaks = {} if arguments.no_memory else memory(arguments.photos, arguments.work, [few, arguments.images])
    whole = {
        "machine": machine_in_words(),
        "python": platform.python_version(),
        "commit": commit(),
        "workers": WORKERS,
        "rounds": arguments.rounds,
        "results": results,
        "peak_pss_mb": peaks,
        "recipe_digest": hashlib.blake2b(json.dumps(recipe(1)).encode(), digest_size=8).hexdigest(),
    }
    for result in results:
        rate = result["images_per_s"]
        ratio = {name: result[f"build_of_{name}"] for name in ("A", "B")}
        print(
            f"K={result['variants']}: build {rate['build']:.0f} images/s, A {rate['A']:.0f}, B {rate['B']:.0f}; "
            + "; ".join(f"build/{n} {r['median']:.2f} ({r['min']:.2f} to {r['max']:.2f})" for n, r in ratio.items())
        )
        print("  " + ", ".join(f"{stage} {value:.2f} s" for stage, value in result["stages_s"].items()))
    for count, peak in peaks.items():
        print(f"peak memory of the process tree at {count} images: {peak:.0f} MB")
    if arguments.json:
        arguments.json.write_text(json.dumps(whole, indent=2))


if __name__ == "__main__":
    main()
