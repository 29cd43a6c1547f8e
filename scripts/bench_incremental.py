"""What a build costs when little or nothing changed.

    python scripts/bench_incremental.py [--files 100000] [--images 20000] [--rounds 5]

1. Nothing changed, in a folder of `--files` small files: the time of build() beyond imports against that of
   `find SOURCE -printf '%s %T@ %i\\n'`, in turn, with warm dentries.
2. One image in a hundred edited, scattered over a folder of `--images` drawn JPEG files: what the build takes beyond
   its workers' start and beyond a build of the unchanged folder, against a full build beyond its workers' start; and
   the bytes by which the cache grew, against those of the changed tensors.
3. A class folder renamed: variants rendered, and time.
4. Memory: how much the builder's peak grows with each file, full and unchanged, against the manifest's bytes a sample.

5. `verify` of a cache of `--verify` images of 3x224x224, against reading the same files and their CRC32C alone, in as
   many threads, warm.

Every answer is checked: what was rendered, and that edited images are in the cache as they are now.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from figures import commit, machine_in_words, spread

SIZE = 224
WORKERS = 2
FILES_A_CLASS = 1000
SHARE = 100
_VERIFY_ROUNDS = 9
"""At least so many: they are short, and differ."""

MANIFEST_BYTES = 107 + 60
SMALL = {"size": 8, "splits": {"train": {"folder": ".", "transforms": [{"Resize": {"height": 8, "width": 8}}]}}}
RECIPE = {
    "size": SIZE,
    "splits": {
        "train": {
            "folder": ".",
            "transforms": [
                {"SmallestMaxSize": {"max_size": 256, "interpolation": "area"}},
                {"CenterCrop": {"height": SIZE, "width": SIZE}},
            ],
        }
    },
}

_MEMORY = """
import json, re, sys
from preprocess.augment import library
library(without_torch=True)
from preprocess.builder import build
build(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), workers=int(sys.argv[4]))
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])  # getrusage's begins with the parent's
"""


# -- files -------------------------------------------------------------------------------------------------------------


def small_files(folder: Path, count: int) -> Path:
    """PNG files of 8 x 8 pixels, distinct by bytes behind their end; in classes of a thousand."""
    import cv2

    base = cv2.imencode(".png", np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))[1].tobytes()
    for number in range(count):
        path = folder / f"class{number // FILES_A_CLASS:04d}" / f"image_{number:08d}.png"
        if number % FILES_A_CLASS == 0:
            path.parent.mkdir(parents=True)
        path.write_bytes(base + number.to_bytes(4, "big"))
    return folder


def draw(path: Path, seed: int) -> None:
    """A JPEG file of 256 x 320 pixels, smooth with some grain."""
    import cv2

    random = np.random.default_rng(seed)
    image = cv2.resize(random.integers(0, 256, (6, 8, 3), dtype=np.uint8), (320, 256), interpolation=cv2.INTER_CUBIC)
    grain = random.integers(0, 24, (256, 320, 1), dtype=np.uint8)
    path.write_bytes(cv2.imencode(".jpg", cv2.add(image, cv2.merge([grain] * 3)))[1].tobytes())


def drawn_images(folder: Path, count: int) -> Path:
    for number in range(count):
        path = folder / f"class{number % 20:02d}" / f"{number:08d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw(path, number)
    return folder


# -- measuring ---------------------------------------------------------------------------------------------------------


def timed(source: Path, cache: Path, recipe: dict | None = None) -> tuple[float, dict]:
    """Seconds of a build beyond its workers' start, and its report."""
    from preprocess.builder import build

    begun = time.perf_counter()
    report = build(source, cache, recipe, workers=WORKERS)
    seconds = time.perf_counter() - begun
    return seconds - report.seconds.get("start", 0.0), json.loads(report.to_json())


def settled(source: Path, cache: Path) -> None:
    """Have the cache believe all time stamps: none as close to its last look as two seconds."""
    time.sleep(2.1)
    _, report = timed(source, cache)
    expect(report["up_to_date"], "a folder in which nothing changed is not up to date")


def expect(true: bool, complaint: str) -> None:
    if not true:
        sys.exit(f"wrong answer: {complaint}")


def nothing_changed(work: Path, count: int, rounds: int) -> dict:
    source, cache = small_files(work / "small", count), work / "small.cache"
    timed(source, cache, SMALL)
    settled(source, cache)
    seconds: dict[str, list[float]] = {"find": [], "build": []}
    for _ in range(rounds):
        begun = time.perf_counter()
        subprocess.run(["find", source, "-printf", "%s %T@ %i\\n"], stdout=subprocess.DEVNULL, check=True)
        seconds["find"].append(time.perf_counter() - begun)
        taken, report = timed(source, cache)
        expect(report["up_to_date"] and report["rendered"] == 0, "something was done where nothing changed")
        seconds["build"].append(taken)
    ratios = [b / f for b, f in zip(seconds["build"], seconds["find"], strict=True)]
    return {"files": count, "build_of_find": spread(ratios), "seconds": seconds}


def little_changed(work: Path, count: int, rounds: int) -> dict:
    from cache_store import open_cache
    from preprocess import Recipe

    source = drawn_images(work / "images", count)
    paths = sorted(source.rglob("*.jpg"))
    changed = paths[:: min(SHARE, len(paths))]
    tensor_bytes = 3 * SIZE * SIZE * 2
    found: dict[str, list[float]] = {"full": [], "unchanged": [], "changed": [], "rename": [], "written": []}
    for number in range(rounds):
        cache = work / f"images.cache{number}"
        full, report = timed(source, cache, RECIPE)
        expect(report["rendered"] == count, "not every image was rendered")
        settled(source, cache)
        unchanged, report = timed(source, cache)
        for place, path in enumerate(changed):
            draw(path, count + number * count + place)
        before = disk_bytes(cache)
        one_percent, report = timed(source, cache)
        expect(report["rendered"] == len(changed), f"{report['rendered']} rendered, {len(changed)} changed")
        grown = disk_bytes(cache) - before
        with open_cache(cache) as opened:
            index = [os.fsdecode(path) for path in opened.split("train").paths()].index(
                os.path.relpath(changed[-1], source)
            )
            stored = opened.image("train", index)
        expect(np.array_equal(stored, Recipe.of(cache).render(changed[-1], "train")), "an edited image is not there")
        (source / "class00").rename(source / "renamed")
        rename, report = timed(source, cache)
        expect(report["rendered"] == 0, "a renamed folder was rendered")
        (source / "renamed").rename(source / "class00")
        shutil.rmtree(cache)
        for name, value in zip(found, (full, unchanged, one_percent, rename, grown), strict=True):
            found[name].append(value)
    shares = [(c - u) / f for c, u, f in zip(found["changed"], found["unchanged"], found["full"], strict=True)]
    manifest = count * MANIFEST_BYTES
    return {
        "images": count,
        "changed": len(changed),
        "changed_of_full": spread(shares),
        "written_of_changed": spread([written / (len(changed) * tensor_bytes) for written in found["written"]]),
        "shards_of_changed": spread(
            [(written - manifest) / (len(changed) * tensor_bytes) for written in found["written"]]
        ),
        "rename_rendered": 0,
        "seconds_and_bytes": found,
    }


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def memory(work: Path, count: int) -> dict:
    """Bytes by which the builder's peak grows with each file."""
    peaks: dict[str, list[int]] = {"full": [], "unchanged": []}
    counts = [max(count // 5, 10), count]
    for number in counts:
        source = work / f"memory{number}"
        small_files(source, number)
        for values in peaks.values():  # the second build finds what the first one made
            command = [sys.executable, "-c", _MEMORY, source, work / f"memory{number}.cache", json.dumps(SMALL), "2"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            values.append(int(done.stdout) * 1024)
    growth = {what: (large - small) / (counts[1] - counts[0]) for what, (small, large) in peaks.items()}
    return {
        "files": counts,
        "peak_bytes": peaks,
        "growth_a_file_bytes": growth,
        "growth_of_manifest": {what: value / MANIFEST_BYTES for what, value in growth.items()},
    }


def verifying(work: Path, count: int, rounds: int) -> dict:
    """The speed of verify, of that of reading the same files with CRC32C alone."""
    from cache_store.verify import processors, verify

    source, cache = drawn_images(work / "verified", count), work / "verified.cache"
    timed(source, cache, RECIPE)
    files = [path for path in cache.rglob("*") if path.is_file() and "pending" not in path.parts]
    seconds: dict[str, list[float]] = {"alone": [], "verify": []}
    for number in range(rounds + 1):
        begun = time.perf_counter()
        with ThreadPoolExecutor(processors()) as threads:
            read_bytes = sum(threads.map(read_and_sum, files))
        alone = time.perf_counter() - begun
        begun = time.perf_counter()
        report = verify(cache)
        taken = time.perf_counter() - begun
        expect(report.sound and report.files >= len(files), "verify did not read all, or found damage")
        if number:  # the first round warms up
            seconds["alone"].append(alone)
            seconds["verify"].append(taken)
    ratios = [a / v for a, v in zip(seconds["alone"], seconds["verify"], strict=True)]
    return {"images": count, "bytes": read_bytes, "verify_of_alone": spread(ratios), "seconds": seconds}


def read_and_sum(path: Path) -> int:
    """Read a file in parts of 1 MiB, sum it up; its size."""
    import google_crc32c

    buffer, value, size = np.empty(1 << 20, np.uint8), 0, 0
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            value = google_crc32c.extend(value, buffer[:count])
            size += count
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("bench/incremental"), help="folder on the disk to measure")
    parser.add_argument("--files", type=int, default=100_000, help="small files; 0: leave out parts 1 and 4")
    parser.add_argument("--images", type=int, default=20_000, help="drawn images; 0: leave out parts 2 and 3")
    parser.add_argument(
        "--verify", type=int, default=2000, help="images of the cache that is verified; 0: leave out part 5"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    from preprocess.augment import library

    library(without_torch=True)
    work = arguments.work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    whole: dict = {
        "machine": machine_in_words(),
        "python": platform.python_version(),
        "commit": commit(),
        "rounds": arguments.rounds,
    }
    if arguments.files:
        found = whole["nothing_changed"] = nothing_changed(work, arguments.files, arguments.rounds)
        ratio, seconds = found["build_of_find"], found["seconds"]
        print(
            f"nothing changed in {found['files']:,} files: build {statistics.median(seconds['build']):.3f} s, "
            f"find {statistics.median(seconds['find']):.3f} s, ratio {in_words(ratio)}"
        )
        found = whole["memory"] = memory(work, arguments.files)
        for what, value in found["growth_of_manifest"].items():
            print(f"memory, {what}: {found['growth_a_file_bytes'][what]:.0f} bytes a file, {value:.2f} of the manifest")
    if arguments.images:
        found = whole["little_changed"] = little_changed(work, arguments.images, arguments.rounds)
        middle = {name: statistics.median(values) for name, values in found["seconds_and_bytes"].items()}
        print(
            f"{found['changed']:,} of {found['images']:,} images changed: full {middle['full']:.2f} s, unchanged "
            f"{middle['unchanged']:.2f} s, changed {middle['changed']:.2f} s; (changed - unchanged) / full "
            f"{in_words(found['changed_of_full'])}"
        )
        print(
            f"  the cache grew by {in_words(found['written_of_changed'])} of the changed tensors' bytes, its manifest "
            f"of {found['images']:,} samples included, {in_words(found['shards_of_changed'])} without"
        )
        print(f"  a class folder renamed: {found['rename_rendered']} rendered, {middle['rename']:.2f} s")
    if arguments.verify:
        found = whole["verify"] = verifying(work, arguments.verify, max(arguments.rounds, _VERIFY_ROUNDS))
        print(
            f"verify: {in_words(found['verify_of_alone'])} of the speed of reading {found['bytes'] / 1e6:,.0f} MB with "
            "CRC32C alone"
        )
    shutil.rmtree(work)
    if arguments.json:
        arguments.json.write_text(json.dumps(whole, indent=2))


def in_words(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})"


if __name__ == "__main__":
    main()
