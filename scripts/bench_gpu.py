"""How fast a build on a GPU is, against what each part of it costs with nothing around it.

    python scripts/bench_gpu.py --photos PHOTOS [--device cuda|cpu] [--images 8000] [--variants 1 4] [--json FILE]

In one run: nvJPEG alone by batch size, the link in both directions, the render alone, the disk alone, the whole build,
the CPU engine on all processors, batches to the device; memory and utilisation of the GPU; how far nvJPEG's pixels are
from OpenCV's by chroma subsampling. Every limit is told in images/s, and the build as a share of it. With --device cpu
the torch engine runs on the CPU, and what needs a GPU says so in place of a figure.

PHOTOS needs train/ and val/; copies are made distinct by a JPEG comment, as equal files would share their slots. The
build's statistics are the dataset's own: each variant is written as 8-bit pixels, then as float16.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bench_build import SIZE, make_images, recipe, work_seconds
from figures import commit

NOT_RUN = "not run: no CUDA"
PIXELS = 3 * SIZE * SIZE
ROUNDS = 3

_BUILD = """
import json, sys
from preprocess.builder import build
options = {"workers": int(sys.argv[5])} if int(sys.argv[5]) else {}
print(build(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), device=sys.argv[4], **options).to_json())
"""


def rate(count: float, work: Callable[[], Any], synchronise: Callable[[], None]) -> float:
    """`count` by the median time of a few rounds, after one that does not count."""
    times = []
    for _ in range(ROUNDS + 1):
        synchronise()
        begun = time.perf_counter()
        work()
        synchronise()
        times.append(time.perf_counter() - begun)
    return count / statistics.median(times[1:])


# -- the limits -------------------------------------------------------------------------------------------------------


def nvjpeg_alone(files: list[bytes], device: Any, sizes: list[int]) -> dict[str, Any] | str:
    """Images/s by how many are decoded in a call."""
    if device.type != "cuda":
        return NOT_RUN
    import torch

    from preprocess.torch_engine.baseline import jpeg_for_nvjpeg
    from preprocess.torch_engine.nvjpeg import Nvjpeg, library

    decode = Nvjpeg(library(device), device, batch_pixels=1 << 62)
    jpegs = [jpeg for data in files if (jpeg := jpeg_for_nvjpeg(data, max_pixels=10**8)) is not None]
    found = {}
    for size in sizes:
        parts = [jpegs[start : start + size] for start in range(0, len(jpegs), size)]
        found[str(size)] = rate(len(jpegs), lambda parts=parts: [decode(p) for p in parts], torch.cuda.synchronize)  # type: ignore[misc]
    return found


def link_alone(device: Any, size_bytes: int) -> dict[str, float] | str:
    """GB/s between pinned memory and the device."""
    if device.type != "cuda":
        return NOT_RUN
    import torch

    host = torch.empty(size_bytes, dtype=torch.uint8, pin_memory=True)
    there = torch.empty(size_bytes, dtype=torch.uint8, device=device)
    return {
        "host_to_device": rate(size_bytes / 1e9, lambda: there.copy_(host, non_blocking=True), torch.cuda.synchronize),
        "device_to_host": rate(size_bytes / 1e9, lambda: host.copy_(there, non_blocking=True), torch.cuda.synchronize),
    }


def render_alone(files: list[bytes], device: Any, most: int) -> float:
    """Variants/s from decoded images on the device to chunks and sums on the host, random decisions included."""
    import torch

    from cache_store.canonical import digest_of
    from preprocess import Recipe
    from preprocess.rendering import TORCH
    from preprocess.torch_engine.images import batched
    from preprocess.torch_engine.renderer import TorchRenderer

    renderer = TorchRenderer(Recipe.from_dict(recipe(1)).rendering("train", TORCH, ""), device=device)
    files = files[:most]
    batches, order = batched([renderer.decode(data).image for data in files])
    digests = [digest_of(files[place]) for place in order]

    def work() -> None:
        for fetch, release in renderer._variants(batches, digests, [0] * len(files), renderer._stage):
            fetch()
            release()

    return rate(len(files), work, torch.cuda.synchronize if device.type == "cuda" else lambda: None)


def disk_alone(folder: Path, size_bytes: int, shard_bytes: int = 32 << 20) -> float:
    """GB/s of plain writes of files as large as a shard, each flushed."""
    data = np.random.default_rng(0).integers(0, 256, min(size_bytes, shard_bytes), dtype=np.uint8)

    def work() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for number in range(-(-size_bytes // len(data))):
            descriptor = os.open(folder / str(number), os.O_WRONLY | os.O_CREAT)
            try:
                os.write(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    found = rate(-(-size_bytes // len(data)) * len(data) / 1e9, work, lambda: None)
    shutil.rmtree(folder)
    return found


# -- the whole --------------------------------------------------------------------------------------------------------


class GpuWatch:
    """Peak memory and utilisation of all GPUs, from nvidia-smi, while a `with` block runs."""

    def __init__(self) -> None:
        self.memory_mb: list[float] = []
        self.busy_percent: list[float] = []
        self._over = threading.Event()

    def __enter__(self) -> "GpuWatch":
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        command = ["nvidia-smi", "--query-gpu=memory.used,utilization.gpu", "--format=csv,noheader,nounits"]
        while shutil.which(command[0]) and not self._over.wait(0.2):
            lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
            values = [[float(value) for value in line.split(",")] for line in lines if line.count(",") == 1]
            if values:
                self.memory_mb.append(sum(memory for memory, _ in values))
                self.busy_percent.append(statistics.mean(busy for _, busy in values))

    def figures(self) -> dict[str, float] | str:
        if not self.memory_mb:
            return "not measured: no nvidia-smi"
        busy = self.busy_percent
        return {"peak_memory_mb": max(self.memory_mb), "busy_percent_mean": statistics.mean(busy)}


def run_build(images: Path, cache: Path, variants: int, device: str, workers: int) -> tuple[float, dict[str, Any]]:
    """Seconds from the first job to the flushed commit, and the report."""
    shutil.rmtree(cache, ignore_errors=True)
    os.sync()
    command = [sys.executable, "-c", _BUILD, images, cache, json.dumps(recipe(variants)), device, str(workers)]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if finished.returncode:
        sys.exit(f"the build with {device} failed")
    report = json.loads(finished.stdout)
    if report["failures"]:
        sys.exit(f"the build with {device} lost images: {report['failures'][:3]}")
    return work_seconds(report), report


def to_device_alone(cache: Path, device: Any) -> float:
    """GB/s of batches of float16 to the device, in training's order."""
    from torch.utils.data import DataLoader

    from loaders import CachedDataset, to_device

    with CachedDataset(cache) as dataset:
        loader = to_device(DataLoader(dataset, batch_size=256, shuffle=True), device)

        def work() -> None:
            for _ in loader:
                pass

        import torch

        synchronise = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        return rate(len(dataset) * PIXELS * 2 / 1e9, work, synchronise)


def parity(files: list[bytes], device: Any) -> dict[str, Any] | str:
    """How far nvJPEG's pixels are from OpenCV's, in levels, by the sampling factors of luma and both chromas."""
    if device.type != "cuda":
        return NOT_RUN
    from preprocess.decode import decode
    from preprocess.torch_engine.baseline import jpeg_for_nvjpeg
    from preprocess.torch_engine.decoder import upright
    from preprocess.torch_engine.nvjpeg import Nvjpeg, library

    nvjpeg, apart = Nvjpeg(library(device), device), {}  # type: ignore[var-annotated]
    for data in files:
        if (jpeg := jpeg_for_nvjpeg(data, max_pixels=10**8)) is None:
            continue
        (image,) = nvjpeg([jpeg])
        found = upright(image, jpeg.header.orientation).permute(1, 2, 0).cpu().numpy().astype(int)
        apart.setdefault(f"{jpeg.sampling:06x}", []).append(np.abs(found - decode(data, channels="rgb").image))
    return {
        sampling: {
            "images": len(each),
            "largest": int(max(one.max() for one in each)),
            "mean": float(np.mean([one.mean() for one in each])),
            "beyond_2_levels": float(np.mean([(one.max(axis=2) > 2).mean() for one in each])),
        }
        for sampling, each in sorted(apart.items())
    }


# -- all of it --------------------------------------------------------------------------------------------------------


def limits_of(figures: dict[str, Any], variants: float) -> dict[str, float]:
    """Images/s that each part alone would allow a build of so many variants an image, all splits together."""
    limits = {
        "render": figures["render_variants_per_s"] / variants,
        "disk": figures["disk_gb_per_s"] * 1e9 / (variants * PIXELS * 3),  # a byte, then two, for each value
    }
    if figures["nvjpeg_images_per_s"] != NOT_RUN:
        limits["nvjpeg"] = max(figures["nvjpeg_images_per_s"].values())
        limits["device_to_host"] = figures["link_gb_per_s"]["device_to_host"] * 1e9 / (variants * PIXELS)
    return limits


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    device = torch.device(arguments.device)
    engine = "cuda" if device.type == "cuda" else "torch-cpu"
    images = make_images(arguments.photos, arguments.work / f"{arguments.images}", arguments.images)
    paths = sorted(images.rglob("*.*"))
    files = [path.read_bytes() for path in paths[: arguments.sample]]
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "the CPU, by the torch engine",
        "gpus": torch.cuda.device_count() if device.type == "cuda" else 0,
        "processors": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "commit": commit(),
        "images": len(paths),
        "nvjpeg_images_per_s": nvjpeg_alone(files, device, [1, 16, 64, 256, 1024]),
        "link_gb_per_s": link_alone(device, 256 << 20),
        "render_variants_per_s": render_alone(files, device, 512),
        "disk_gb_per_s": disk_alone(arguments.work / "disk", arguments.images * PIXELS * 3),
        "nvjpeg_against_opencv": parity(files, device),
        "builds": [],
    }
    cache = arguments.work / "cache"
    workers = arguments.workers or (0 if device.type == "cuda" else 1)
    for variants in arguments.variants:
        with GpuWatch() as watch:
            seconds, report = run_build(images, cache, variants, engine, workers)
        found = len(paths) / seconds
        each = sum(count * report["variants"][split] for split, count in report["samples"].items()) / len(paths)
        limits = limits_of(figures, each)
        result = {
            "variants": variants,
            "engine": report["engines"]["train"],
            "images_per_s": found,
            "seconds": report["seconds"],
            "stages_s": report["stages"],
            "limits_images_per_s": limits,
            "share_of_limit": {name: found / limit for name, limit in limits.items()},
            "smallest_limit": min(limits, key=limits.__getitem__),
            "gpu": watch.figures() if device.type == "cuda" else NOT_RUN,
        }
        if variants == arguments.variants[0]:
            figures["to_device_gb_per_s"] = to_device_alone(cache, device)
            link = figures["link_gb_per_s"]
            figures["to_device_share_of_link"] = (
                NOT_RUN if link == NOT_RUN else figures["to_device_gb_per_s"] / link["host_to_device"]
            )
        seconds, _ = run_build(images, cache, variants, "cpu", 0)
        result["cpu_engine_images_per_s"] = len(paths) / seconds
        figures["builds"].append(result)
    shutil.rmtree(cache)
    return figures


def tell(figures: dict[str, Any]) -> None:
    for name, value in figures.items():
        if name != "builds":
            print(f"{name}: {value}")
    for build in figures["builds"]:
        shares = ", ".join(f"{share:.2f} of {name}" for name, share in build["share_of_limit"].items())
        print(
            f"K={build['variants']}: {build['images_per_s']:.0f} images/s by {build['engine']}, "
            f"{build['cpu_engine_images_per_s']:.0f} by OpenCV on all processors; {shares}; "
            f"smallest limit: {build['smallest_limit']}; GPU: {build['gpu']}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--photos", type=Path, required=True, help="folder with train/<class>/ and val/<class>/ of JPEG"
    )
    parser.add_argument("--work", type=Path, default=Path("bench-gpu"), help="folder on the disk to measure")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--images", type=int, default=8000)
    parser.add_argument("--sample", type=int, default=2048, help="images for what is measured alone")
    parser.add_argument("--variants", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--workers", type=int, default=0, help="processes of the build; 0: one a GPU, or one")
    parser.add_argument("--json", type=Path, help="write all figures here")
    arguments = parser.parse_args()
    figures = measure(arguments)
    tell(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
