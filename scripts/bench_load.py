"""How fast a loader is: against the limits of the machine, and against other ways to load.

    python scripts/bench_load.py [--only limits small uint8 types crop modes peers cold opening growth] [--json FILE]

What is compared is measured in turn, round by round, so that all of it meets the same weather; a figure is the median
over rounds of one contender's speed over another's in the same round. Batches of 256 samples of 3x224x224, shuffled.
What a loader delivers is compared, after it was timed, with a computation from the sample's number alone
(bench_caches.py). Stores are made under --work when they are first needed, and kept.

    limits    a plain DataLoader against copying random samples from RAM into a buffer that is used again
    small     samples of 3x32x32 against a dataset that does nothing, through the same DataLoader
    uint8     8-bit pixels handed out as they are, against copying them
    types     other element types, against plain float16
    crop      224 of 256 and a flip, against plain 224
    modes     pread, checks on first touch, thousands of shards under `ulimit -n 256`, against plain
    peers     other libraries, each in a process of its own, with 0 or 2 workers, whichever is faster
    cold      no page in memory: against sequential reads of the same files
    opening   1.28 million samples: seconds and memory to the first batch
    growth    memory from epoch 5 to epoch 50
"""

import argparse
import ctypes
import json
import mmap
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_caches import MEAN, STD, Content, kept, shard_files, write_cache
from bench_peers import PEERS, Arrays, Peer
from contenders import Apart, Contender, GivenUp, WrongValue, memory_now
from figures import commit, machine, versions
from torch.utils.data import DataLoader, Dataset

from cache_store.pages import RESIDENT, forget
from loaders import CachedDataset, ShardShuffleSampler
from loaders.collate import Batch
from loaders.threads import copy_threads

CHECKED = 256
"""Images of a contender that are compared bit by bit; labels all are."""

EPOCH_S = 5.0
"""An epoch of a peer that takes longer is cut there."""

LEAD_S = 0.5
"""A peer whose epochs are shorter delivers one before each that counts."""

SETTING_EPOCHS = 3
"""Epochs of a peer that decide how many workers it gets, after one that warms it up."""

ANSWER_S = 180.0
"""A peer that says nothing for this long is given up."""

PACKAGES = {"torch", "numpy", "opencv-python-headless", *(kind.distribution for kind in PEERS if kind.distribution)}

DESCRIPTORS = 256
GROWTH_EPOCHS = (5, 50)
READ_BYTES = (1 << 20, 8 << 20)


# -- checks -----------------------------------------------------------------------------------------------------------


def check(batches: Iterable[Any], samples: int, same: Callable[[torch.Tensor, int], bool]) -> None:
    """One epoch: each label exactly once, and images that belong to their labels.

    Raises
    ------
    WrongValue
    """
    seen = np.zeros(samples, np.int64)
    step = max(1, samples // CHECKED)
    for images, labels in batches:
        for image, number in zip(images, labels.tolist(), strict=True):
            seen[number] += 1
            if number % step == 0 and not same(image, number):
                raise WrongValue(f"the image of sample {number} is not what was stored")
    if (seen != 1).any():
        number = int(np.flatnonzero(seen != 1)[0])
        raise WrongValue(f"sample {number} came {seen[number]} times in one epoch")


def as_stored(content: Content, image: torch.Tensor, number: int) -> bool:
    """Whether an image, of whatever type, is the sample of this number."""
    if image.dtype == torch.uint8:
        expected = torch.from_numpy(content.pixels(number))
    else:
        expected = torch.from_numpy(content.expected(number)).to(image.dtype)
    return torch.equal(image, expected)


def is_window(content: Content, image: torch.Tensor, number: int) -> bool:
    """Whether an image is some window of the sample, mirrored or not."""
    stored = content.expected(number)
    height, width = image.shape[1:]
    for found in (image.numpy(), image.numpy()[:, :, ::-1]):
        rows = stored[0, : stored.shape[1] - height + 1]
        strips = np.lib.stride_tricks.sliding_window_view(rows, width, axis=1)
        for top, left in np.argwhere((strips == found[0, 0]).all(axis=2)):
            if np.array_equal(stored[:, top : top + height, left : left + width], found):
                return True
    return False


# -- contenders -------------------------------------------------------------------------------------------------------


class Ours(Contender):
    """A plain DataLoader over a CachedDataset."""

    def __init__(
        self, cache: Path, content: Content, batch: int, workers: int = 0, same: Any = as_stored, **options: Any
    ) -> None:
        warnings.filterwarnings("ignore", message="CachedDataset is faster without worker")  # known: it is measured
        self.dataset = CachedDataset(cache, **options)
        self.loader = self.make_loader(batch, workers)
        self.same = partial(same, content)

    def make_loader(self, batch: int, workers: int) -> DataLoader:
        keep = {"num_workers": workers, "persistent_workers": True} if workers else {}
        return DataLoader(self.dataset, batch_size=batch, shuffle=True, **keep)

    def drain(self) -> int:
        return sum(len(labels) for _, labels in self.loader)

    def check(self) -> None:
        check(self.loader, len(self.dataset), self.same)

    def close(self) -> None:
        self.dataset.close()


class FirstTouch(Ours):
    """Every epoch with a dataset that has touched nothing yet."""

    def drain(self) -> int:
        self.dataset.close()
        return super().drain()


class Ordered(Ours):
    """With the sampler that reads ahead."""

    def make_loader(self, batch: int, workers: int) -> DataLoader:
        self.sampler, self.passes = ShardShuffleSampler(self.dataset), 0
        return DataLoader(self.dataset, batch_size=batch, sampler=self.sampler)

    def drain(self) -> int:
        self.sampler.set_epoch(self.passes)
        self.passes += 1
        return super().drain()


class Copy(Contender):
    """The limit: random samples of an array in RAM, into one buffer that is used again."""

    def __init__(self, source: np.ndarray, batch: int, threads: int) -> None:
        self.source, self.threads = source, threads
        self.row_bytes = source[0].nbytes
        self.batch = batch
        self.buffer = mmap.mmap(-1, batch * self.row_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            self.buffer.madvise(mmap.MADV_HUGEPAGE)
        self.target = np.frombuffer(self.buffer, np.uint8).ctypes.data
        self.pool = ThreadPoolExecutor(max(1, threads - 1))
        self.memcpy = ctypes.CDLL(None).memcpy
        self.memcpy.argtypes, self.memcpy.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t], None

    def drain(self) -> int:
        order = np.random.default_rng().permutation(len(self.source))
        for first in range(0, len(order), self.batch):
            places = (self.source.ctypes.data + order[first : first + self.batch] * self.row_bytes).tolist()
            edges = [len(places) * part // self.threads for part in range(self.threads + 1)]
            others = [self.pool.submit(self.copy, places, a, b) for a, b in pairwise(edges[1:])]
            self.copy(places, edges[0], edges[1])
            for other in others:
                other.result()
        return len(order)

    def copy(self, places: list[int], start: int, end: int) -> None:
        for row in range(start, end):
            self.memcpy(self.target + row * self.row_bytes, places[row], self.row_bytes)

    def close(self) -> None:
        self.pool.shutdown()


class Empty(Contender):
    """The limit of small samples: a dataset whose `__getitems__` does nothing, through the same DataLoader."""

    def __init__(self, samples: int, batch: int, shape: tuple[int, ...]) -> None:
        made = Batch(torch.zeros((batch, *shape), dtype=torch.float16), torch.zeros(batch, dtype=torch.int64))
        self.samples = samples
        self.loader = DataLoader(_Premade(made, samples), batch_size=batch, shuffle=True)

    def drain(self) -> int:
        for _ in self.loader:
            pass
        return self.samples


class _Premade(Dataset):
    def __init__(self, batch: Batch, samples: int) -> None:
        self.batch, self.samples = batch, samples

    def __len__(self) -> int:
        return self.samples

    def __getitems__(self, indices: list[int]) -> Batch:
        return self.batch


class PeerContender(Contender):
    """One peer with one number of workers."""

    def __init__(self, peer: Peer, workers: int) -> None:
        self.peer = peer
        self.loader = peer.loader(workers)
        self.seconds = 0.0

    def epoch(self) -> tuple[int, float]:
        """Fast ones deliver an epoch before, as in training one follows the other: a virtual machine takes free memory
        back between the turns, and who asks for fresh memory would wait for it only because of the others' turns."""
        if self.seconds < LEAD_S:
            self.drain()
        samples, self.seconds = super().epoch()
        return samples, self.seconds

    def drain(self) -> int:
        samples, begun = 0, time.perf_counter()
        for _, labels in self.loader:
            samples += len(labels)
            if time.perf_counter() - begun > EPOCH_S:
                break
        return samples

    def check(self) -> None:
        arrays = self.peer.arrays
        if self.peer.decodes:
            images, _ = next(iter(self.loader))
            if images.dtype != torch.float16 or images.shape[1:] != arrays.shape or not images.isfinite().all():
                raise WrongValue(f"{images.dtype} {tuple(images.shape)} was delivered")
            return
        check(self.loader, len(arrays), partial(as_stored, arrays.content))


class SequentialRead(Contender):
    """The limit of cold reading: all shard files, front to back, into one buffer."""

    def __init__(self, files: list[Path], samples: int, read_bytes: int) -> None:
        self.files, self.samples = files, samples
        self.buffer = mmap.mmap(-1, read_bytes)

    def drain(self) -> int:
        for path in self.files:
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            offset = 0
            while count := os.preadv(file, [self.buffer], offset):
                offset += count
            os.close(file)
        return self.samples


# -- processes --------------------------------------------------------------------------------------------------------


def fresh_processes() -> Any:
    """Starts processes that have imported what we have and done nothing, without importing it for seconds each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.utils.data", "loaders.dataset"])
    return context


class Served(Contender):
    """A contender in a process of its own, so that libraries share neither threads nor settings nor their end.

    Parameters
    ----------
    make : called with `arguments` there, gives the contender
    descriptors : open files that the process may have; None: as here
    """

    def __init__(self, make: Callable[..., Contender], *arguments: Any, descriptors: int | None = None) -> None:
        self._apart = Apart(fresh_processes(), ANSWER_S, _limited, descriptors, make, *arguments)

    def epoch(self) -> tuple[int, float]:
        return self._apart.ask("epoch")

    def check(self) -> None:
        self._apart.ask("check")

    def close(self) -> None:
        self._apart.close()


def _limited(descriptors: int | None, make: Callable[..., Contender], *arguments: Any) -> Contender:
    if descriptors is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    return make(*arguments)


class _Prepared(Contender):
    """Nothing to deliver: a store that is made once."""

    def __init__(self, kind: type[Peer], folder: Path, arrays: Arrays, batch: int) -> None:
        kept(folder, lambda part: kind(part, arrays, batch).prepare(part, arrays))


def _open_peer(kind: type[Peer], folder: Path, arrays: Arrays, batch: int, workers: int) -> Contender:
    return PeerContender(kind(folder, arrays, batch), workers)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """What a function returns in a process that has imported what this one has, and done nothing."""
    with fresh_processes().Pool(1) as pool:
        return pool.apply(function, arguments)


def private_bytes() -> int:
    """RssAnon of this process."""
    return memory_now()["RssAnon"]


# -- cold files -------------------------------------------------------------------------------------------------------


def make_cold(files: list[Path]) -> None:
    """Have the kernel forget the files, or end: a figure from warm pages would be worth nothing."""
    left = forget(files)
    if left >= RESIDENT:
        sys.exit(f"{left:.1%} of {files[0].parent} is still in memory: something has it mapped, or it is no disk")


# -- measuring --------------------------------------------------------------------------------------------------------


class Bench:
    """What was asked for, and what was found.

    Attributes
    ----------
    rates : section -> contender -> samples a second, round by round
    figures : name -> what it is, value, spread, target and whether it is reached
    skipped : contender -> why it has no figure
    workers : peer -> with how many worker processes it was fastest
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.batch, self.size, self.samples = arguments.batch, arguments.size, arguments.samples
        self.content = Content(self.size)
        self.rates: dict[str, dict[str, list[float]]] = {}
        self.figures: dict[str, dict[str, Any]] = {}
        self.skipped: dict[str, str] = {}
        self.workers: dict[str, int] = {}

    def cache(
        self, dtype: str = "float16", size: int | None = None, samples: int | None = None, **options: Any
    ) -> Path:
        """A cache of this content; `options` as for `write_cache`."""
        content = Content(size) if size else self.content
        samples = samples or self.samples
        words = [dtype, str(size or self.size), str(samples), *(f"{name}{value}" for name, value in options.items())]
        folder = self.arguments.work / "load" / "-".join(words)
        return kept(folder, lambda part: write_cache(part, content, samples, dtype, **options))

    def ours(self, cache: Path | None = None, **options: Any) -> Ours:
        return Ours(cache or self.cache(), self.content, self.batch, **options)

    def copies(self, source: np.ndarray) -> dict[str, Contender]:
        """The limit with one thread, and with as many as we use."""
        counts = sorted({1, copy_threads()})
        return {f"copy, {count} thread{'s' * (count > 1)}": Copy(source, self.batch, count) for count in counts}

    def measure(
        self,
        section: str,
        contenders: dict[str, Contender],
        *,
        warm: int | None = None,
        before: Callable[[], None] = lambda: None,
    ) -> dict[str, list[float]]:
        """Rounds of one epoch of each contender, each round beginning with another one; then the checks."""
        rounds, warm = self.arguments.rounds, self.arguments.warm if warm is None else warm
        found: dict[str, list[float]] = {name: [] for name in contenders}
        names = list(contenders)
        for number in range(-warm, rounds):
            shift = number % len(names)
            for name in names[shift:] + names[:shift]:
                before()
                try:
                    samples, seconds = contenders[name].epoch()
                except GivenUp as error:
                    self.skip(name, str(error))
                    found.pop(name)
                    names = [each for each in names if each != name]
                    continue
                if number >= 0:
                    found[name].append(samples / seconds)
        for name in names:
            try:
                contenders[name].check()
            except WrongValue as error:
                sys.exit(f"{section}, {name}: {error}")
            except GivenUp as error:
                self.skip(name, str(error))
                found.pop(name)
        for contender in contenders.values():
            contender.close()
        self.rates.setdefault(section, {}).update(found)
        for name, values in found.items():
            print(f"{section:8} {name:28} {statistics.median(values):12,.0f} samples/s", file=sys.stderr)
        return found

    def skip(self, name: str, why: str) -> None:
        self.skipped[name] = why
        print(f"{name} is skipped: {why}", file=sys.stderr)

    def ratio(self, name: str, what: str, ours: list[float], other: list[float], target: float | None) -> None:
        """A figure: the median over rounds of ours by another's speed."""
        self.figure(name, what, [a / b for a, b in zip(ours, other, strict=True)], target)

    def figure(
        self, name: str, what: str, values: list[float], target: float | None, unit: str = "", at_most: bool = False
    ) -> None:
        median = statistics.median(values)
        reached = None if target is None else median <= target if at_most else median >= target
        self.figures[name] = {
            "what": what,
            "median": median,
            "min": min(values),
            "max": max(values),
            "unit": unit,
            "target": target,
            "at_most": at_most,
            "reached": reached,
        }


def fastest(found: dict[str, list[float]], names: Iterable[str]) -> list[float]:
    """The rounds of the contender with the highest median."""
    return max((found[name] for name in names), key=statistics.median)


def in_memory(content: Content, samples: int, dtype: str) -> np.ndarray:
    source = np.empty((samples, *content.shape), dtype)
    for number in range(samples):
        source[number] = content.chunk(number, dtype)
    return source


# -- sections ---------------------------------------------------------------------------------------------------------


def limits(bench: Bench) -> None:
    copies = bench.copies(in_memory(bench.content, bench.samples, "float16"))
    ours = {"ours": bench.ours()} | {f"ours, {n} workers": bench.ours(workers=n) for n in (1, 2, 4)}
    found = bench.measure("limits", copies | ours)
    limit = fastest(found, copies)
    bench.ratio("plain", "plain DataLoader / copy in RAM", found["ours"], limit, 0.9)
    for count in (1, 2, 4):
        name = f"ours, {count} workers"
        bench.ratio(f"workers {count}", f"{count} worker processes / copy in RAM", found[name], limit, None)


def small(bench: Bench) -> None:
    size, samples = bench.arguments.small_size, bench.arguments.small_samples
    content = Content(size)
    ours = Ours(bench.cache(size=size, samples=samples), content, bench.batch)
    found = bench.measure("small", {"empty": Empty(samples, bench.batch, content.shape), "ours": ours})
    what = f"3x{size}x{size} / an empty __getitems__"
    bench.ratio("small samples", what, found["ours"], found["empty"], 0.25)


def uint8(bench: Bench) -> None:
    copies = bench.copies(in_memory(bench.content, bench.samples, "uint8"))
    found = bench.measure("uint8", copies | {"ours": bench.ours(bench.cache("uint8"), dtype=torch.uint8)})
    bench.ratio("uint8", "uint8 as uint8 / copy in RAM", found["ours"], fastest(found, copies), 0.9)
    image_bytes = int(np.prod(bench.content.shape))
    bench.figure("uint8 bytes", "uint8 as uint8", [rate * image_bytes / 1e9 for rate in found["ours"]], None, "GB/s")


def types(bench: Bench) -> None:
    halves, bytes_ = bench.cache(), bench.cache("uint8")
    contenders: dict[str, Contender] = {"float16": bench.ours(halves)}
    for kind, cache in (("uint8", bytes_), ("float16", halves)):
        for dtype in (torch.float16, torch.float32, torch.bfloat16):
            name = str(dtype).removeprefix("torch.")
            if name != kind:
                contenders[f"{kind} to {name}"] = bench.ours(cache, dtype=dtype)
    found = bench.measure("types", contenders)
    for name in list(contenders)[1:]:
        target = 0.5 if name in ("uint8 to float16", "float16 to float32") else None
        bench.ratio(name, f"{name} / plain float16", found[name], found["float16"], target)


def crop(bench: Bench) -> None:
    large = round(bench.size * 256 / 224)
    cut = Ours(bench.cache(size=large), Content(large), bench.batch, same=is_window, crop=bench.size, flip=True)
    found = bench.measure("crop", {"plain": bench.ours(), "crop and flip": cut})
    bench.ratio(
        "crop and flip", f"{bench.size} of {large} and flip / plain", found["crop and flip"], found["plain"], 0.5
    )


def modes(bench: Bench) -> None:
    single = (bench.cache(slots=1), bench.content, bench.batch)
    contenders: dict[str, Contender] = {
        "plain": bench.ours(),
        "pread": bench.ours(io="pread"),
        "checked before": bench.ours(check="first"),
        "first touch": FirstTouch(bench.cache(), bench.content, bench.batch, check="first"),
        "one-slot shards": Served(Ours, *single, descriptors=DESCRIPTORS),
        "plain, own process": Served(Ours, bench.cache(), bench.content, bench.batch, descriptors=DESCRIPTORS),
    }
    found = bench.measure("modes", contenders)
    for name in ("pread", "checked before", "first touch"):
        bench.ratio(name, f"{name} / plain", found[name], found["plain"], None)
    what = f"{bench.samples:,} one-slot shards, {DESCRIPTORS} descriptors / plain"
    bench.ratio("one-slot shards", what, found["one-slot shards"], found["plain, own process"], None)


def peers(bench: Bench) -> None:
    arrays = Arrays(bench.content, bench.arguments.peer_samples, bench.arguments.photos)
    contenders: dict[str, Contender] = {}
    for kind in PEERS:
        if bench.arguments.peers and kind.name not in (PEERS[0].name, *bench.arguments.peers):
            continue
        folder = bench.arguments.work / "load" / "peers" / f"{kind.__name__}-{bench.size}-{len(arrays)}"
        if kind.decodes and arrays.photos is not None:
            folder = folder.with_name(folder.name + "-photos")
        try:
            if not folder.exists():
                Served(_Prepared, kind, folder, arrays, bench.batch).close()
            contenders[kind.name] = best_setting(bench, kind, folder, arrays)
        except GivenUp as error:
            bench.skip(kind.name, str(error))
    found = bench.measure("peers", contenders)
    ours = found.get(PEERS[0].name)
    if ours is None:
        sys.exit("peers: ours gave no figure")
    for name, rates in found.items():
        if name != PEERS[0].name:
            bench.ratio(f"over {name}", f"ours / {name}", ours, rates, 1.7 if name == "memmap, expert" else 5.0)


def best_setting(bench: Bench, kind: type[Peer], folder: Path, arrays: Arrays) -> Contender:
    """The peer with the number of workers that makes it fastest; the others have ended."""
    settings: dict[int, tuple[float, Contender]] = {}
    try:
        for workers in bench.arguments.peer_workers:
            contender = Served(_open_peer, kind, folder, arrays, bench.batch, workers)
            settings[workers] = (0.0, contender)
            contender.epoch()
            rates = [samples / seconds for samples, seconds in (contender.epoch() for _ in range(SETTING_EPOCHS))]
            settings[workers] = (statistics.median(rates), contender)
    except GivenUp:
        for _, contender in settings.values():
            contender.close()
        raise
    best = max(settings, key=lambda workers: settings[workers][0])
    for workers, (_, contender) in settings.items():
        if workers != best:
            contender.close()
    bench.workers[kind.name] = best
    return settings[best][1]


def cold(bench: Bench) -> None:
    image_bytes = int(np.prod(bench.content.shape)) * 2
    samples = max(1, int(bench.arguments.cold_gib * 2**30 / image_bytes))
    cache = bench.cache(samples=samples)
    files = shard_files(cache)
    reads: dict[str, Contender] = {
        f"sequential, {size >> 20} MiB": SequentialRead(files, samples, size) for size in READ_BYTES
    }
    ours = {
        "ShardShuffleSampler": Ordered(cache, bench.content, bench.batch),
        "shuffle=True": Ours(cache, bench.content, bench.batch),
    }

    def before() -> None:
        for each in ours.values():
            each.close()  # unmaps
        make_cold(files)

    found = bench.measure("cold", reads | ours, warm=0, before=before)
    limit = fastest(found, reads)
    bench.ratio("cold", "cold, ShardShuffleSampler / sequential reads", found["ShardShuffleSampler"], limit, 0.85)
    bench.ratio("cold, shuffled", "cold, shuffle=True / sequential reads", found["shuffle=True"], limit, None)
    for name, rates in (("cold rate", found["ShardShuffleSampler"]), ("cold limit", limit)):
        bench.figure(name, name, [rate * image_bytes / 1e9 for rate in rates], None, "GB/s")


def opening(bench: Bench) -> None:
    stored = min(64, bench.samples)
    rows = bench.arguments.opening_samples
    cache = bench.cache(samples=stored, rows=rows)
    found = [in_fresh_process(_open, cache, bench.content, bench.batch) for _ in range(bench.arguments.rounds + 1)][1:]
    empty = [in_fresh_process(_open_empty, rows, bench.batch) for _ in range(bench.arguments.rounds)]
    what = f"{rows:,} samples to the first batch"
    bench.figure("opening", what, [seconds for seconds, _ in found], 0.25, "s", at_most=True)
    bench.figure("opening memory", what, [size / 1e6 for _, size in found], 150, "MB", at_most=True)
    what = "the same by a DataLoader over nothing"
    bench.figure("empty opening", what, [seconds for seconds, _ in empty], None, "s")
    bench.figure("empty opening memory", what, [size / 1e6 for _, size in empty], None, "MB")


def _open(cache: Path, content: Content, batch: int) -> tuple[float, int]:
    memory, begun = private_bytes(), time.perf_counter()
    loader = DataLoader(CachedDataset(cache), batch_size=batch, shuffle=True)
    images, labels = next(iter(loader))
    seconds, memory = time.perf_counter() - begun, private_bytes() - memory
    for image, number in zip(images, labels.tolist(), strict=True):
        if not as_stored(content, image, number):
            raise WrongValue(f"the image of sample {number} is not what was stored")
    return seconds, memory


def _open_empty(samples: int, batch: int) -> tuple[float, int]:
    memory, begun = private_bytes(), time.perf_counter()
    made = Batch(torch.zeros(batch, 0), torch.zeros(batch, dtype=torch.int64))
    next(iter(DataLoader(_Premade(made, samples), batch_size=batch, shuffle=True)))
    return time.perf_counter() - begun, private_bytes() - memory


def growth(bench: Bench) -> None:
    early, late = in_fresh_process(_grow, bench.cache(), bench.content, bench.batch)
    first, last = GROWTH_EPOCHS
    what = f"RssAnon, epoch {first} to {last}"
    bench.figure("growth", what, [100 * (late / early - 1)], 2.0, "%", at_most=True)


def _grow(cache: Path, content: Content, batch: int) -> list[int]:
    ours, memory = Ours(cache, content, batch), []
    for number in range(1, GROWTH_EPOCHS[-1] + 1):
        ours.drain()
        if number in GROWTH_EPOCHS:
            memory.append(private_bytes())
    return memory


SECTIONS: dict[str, Callable[[Bench], None]] = {
    each.__name__: each for each in (limits, small, uint8, types, crop, modes, peers, cold, opening, growth)
}


# -- all of it --------------------------------------------------------------------------------------------------------


def table(bench: Bench) -> Iterator[str]:
    """Figures, then speeds, then what was skipped."""
    yield f"{'figure':27} {'what':58} {'median':>9} {'lowest':>9} {'highest':>9}  to reach"
    for name, f in bench.figures.items():
        numbers = " ".join(f"{f[which]:9.3f}" for which in ("median", "min", "max"))
        what = f["what"] + (f", {f['unit']}" if f["unit"] else "")
        target = "" if f["target"] is None else f"{'≤' if f['at_most'] else '≥'} {f['target']:g}"
        mark = {None: "", True: "yes", False: "NO"}[f["reached"]]
        yield f"{name:27} {what:58} {numbers}  {target:7} {mark}".rstrip()
    yield ""
    for section, rates in bench.rates.items():
        for name, values in rates.items():
            median, low, high = statistics.median(values), min(values), max(values)
            workers = f", {bench.workers[name]} workers" if section == "peers" else ""
            yield f"{section:8} {name + workers:32} {median:12,.0f} samples/s ({low:,.0f} to {high:,.0f})"
    for name, why in bench.skipped.items():
        yield f"skipped  {name}: {why}"


def report(bench: Bench) -> dict[str, Any]:
    return {
        "config": {name: str(v) if isinstance(v, Path) else v for name, v in vars(bench.arguments).items()},
        "machine": machine(),
        "versions": {"python": platform.python_version()} | versions(sorted(PACKAGES)),
        "commit": commit(),
        "copy_threads": copy_threads(),
        "mean": MEAN,
        "std": STD,
        "figures": bench.figures,
        "samples_per_s": bench.rates,
        "peer_workers": bench.workers,
        "skipped": bench.skipped,
    }


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--work", type=Path, default=Path("bench"), help="folder for stores, on the disk to measure")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--rounds", type=int, default=9, help="epochs of each contender")
    parser.add_argument("--warm", type=int, default=2, help="epochs before them that do not count")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--size", type=int, default=224, help="height and width of an image")
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--small-size", type=int, default=32)
    parser.add_argument("--small-samples", type=int, default=1 << 15)
    parser.add_argument("--peers", nargs="+", metavar="NAME", help="only these (see bench_peers.py)")
    parser.add_argument("--peer-samples", type=int, default=2048)
    parser.add_argument("--peer-workers", type=int, nargs="+", default=[2, 0], help="worker processes to choose from")
    parser.add_argument("--photos", type=Path, help="<class>/*.jpg, for peers that decode; otherwise synthetic ones")
    parser.add_argument("--cold-gib", type=float, default=4.0, help="size of the cache that is read cold")
    parser.add_argument("--opening-samples", type=int, default=1_280_000)
    return parser.parse_args(words)


def main() -> None:
    bench = Bench(parse())
    for name in bench.arguments.only:
        SECTIONS[name](bench)
    print("\n".join(table(bench)))
    if bench.arguments.json:
        bench.arguments.json.write_text(json.dumps(report(bench), indent=2))


if __name__ == "__main__":
    main()
