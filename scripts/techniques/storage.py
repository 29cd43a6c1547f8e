"""Where tensors are kept: pickle, .npy files, TensorDataset, memmap, decant; and what each does about trouble."""

import os
import pickle
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_caches import shard_files
from bench_peers import ExpertMemmap, Memmap, Peer
from torch.utils.data import Dataset, TensorDataset

from cache_store.errors import CacheStoreError
from loaders import CachedDataset
from preprocess import build
from preprocess import status as changes_since
from techniques.common import Settings, alone, measure, say, short, table, whole
from techniques.stores import RECIPE, Loading, file_of, render, rendered, source

BATCH = 256


class Photos:
    """What all stores are made from: files, rendered when they are asked for."""

    shape = (3, 224, 224)

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def __len__(self) -> int:
        return self.count

    def image(self, number: int) -> np.ndarray:
        return render(file_of(self.folder, number).read_bytes())


class Store(Peer):
    """A way to keep tensors.

    Attributes
    ----------
    partial : how a changed image gets into the store
    """

    partial = "written anew"

    def file(self) -> Path:
        """One that holds values: the one that is damaged or replaced to see what happens."""
        raise NotImplementedError

    def notices_changes(self) -> bool:
        """Whether it can tell that a source file has changed since. These know nothing of their sources."""
        return False


class PickledDict(Store):
    name = "pickle of a dict"

    def prepare(self, folder: Path, arrays: Any) -> None:
        folder.mkdir()
        stored = {number: (arrays.image(number), number) for number in range(len(arrays))}
        with open(folder / "images.pickle", "wb") as file:
            pickle.dump(stored, file, protocol=pickle.HIGHEST_PROTOCOL)

    def file(self) -> Path:
        return self.folder / "images.pickle"

    def loader(self, workers: int) -> Iterable[Any]:
        with open(self.file(), "rb") as file:
            return self.plain(_Pairs(pickle.load(file)), workers)


class _Pairs(Dataset):
    def __init__(self, stored: dict[int, tuple[np.ndarray, int]]) -> None:
        self.stored = stored

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        image, label = self.stored[number]
        return torch.from_numpy(image), label


class NpyFiles(Store):
    name = ".npy files, one an image"
    partial = "one file"

    def prepare(self, folder: Path, arrays: Any) -> None:
        folder.mkdir()
        for number in range(len(arrays)):
            np.save(folder / f"{number}.npy", arrays.image(number))

    def file(self) -> Path:
        return self.folder / "0.npy"

    def loader(self, workers: int) -> Iterable[Any]:
        return self.plain(_Files(self.folder), workers)


class _Files(Dataset):
    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, len(os.listdir(folder))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(np.load(self.folder / f"{number}.npy")), number


class SavedTensors(Store):
    """The object itself, as tutorials save it: to load it, torch must be told that any object may come."""

    name = "`TensorDataset`, `torch.save`"

    def prepare(self, folder: Path, arrays: Any) -> None:
        folder.mkdir()
        images = torch.stack([torch.from_numpy(arrays.image(number)) for number in range(len(arrays))])
        torch.save(TensorDataset(images, torch.arange(len(arrays))), self.file(folder))

    def file(self, folder: Path | None = None) -> Path:
        return (folder or self.folder) / "images.pt"

    def loader(self, workers: int) -> Iterable[Any]:
        return self.plain(torch.load(self.file(), weights_only=False), workers)


class MappedFile(Memmap, Store):
    name = "`np.memmap`, an image at a time"
    partial = "in place, by hand"

    def file(self) -> Path:
        return self.folder / "images"


class MappedBatches(ExpertMemmap, Store):
    name = "`np.memmap`, a batch at a time"
    partial = "in place, by hand"

    def file(self) -> Path:
        return self.folder / "images"


class Decant(Store):
    name = "decant"
    partial = "what changed"

    def prepare(self, folder: Path, arrays: Any) -> None:
        build(arrays.folder, folder, RECIPE, workers=1, device="cpu")

    def file(self) -> Path:
        return shard_files(self.folder)[0]

    def loader(self, workers: int, check: str = "never") -> Iterable[Any]:
        return self.plain(CachedDataset(self.folder, check=check), workers)

    def notices_changes(self) -> bool:
        return not changes_since(self.arrays.folder, self.folder).up_to_date


class CheckedDecant(Decant):
    """With checks on first touch."""

    name = 'decant, `check="first"`'

    def loader(self, workers: int, check: str = "first") -> Iterable[Any]:
        return super().loader(workers, check)


STORES: tuple[type[Store], ...] = (
    PickledDict,
    NpyFiles,
    SavedTensors,
    MappedFile,
    MappedBatches,
    Decant,
    CheckedDecant,
)


# -- measuring ---------------------------------------------------------------------------------------------------------


class Stored(Loading):
    """A store, opened; and the time to its first batch."""

    def __init__(self, store: Store, right: np.ndarray) -> None:
        begun = time.perf_counter()
        super().__init__(store.loader(0), right)
        next(iter(self.loader))
        self.open_s = time.perf_counter() - begun
        self.folder = store.folder

    def extra(self) -> dict[str, Any]:
        self.drain()
        return {"open_ms": self.open_s * 1e3, "mapped_mb": mapped_bytes(self.folder) / 1e6}


def mapped_bytes(folder: Path) -> int:
    """Pages of files under a folder that this process has in its address space."""
    inside, found = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if not line.partition(" ")[0].endswith(":"):
            inside = str(folder) in line
        elif inside and line.startswith("Rss:"):
            found += int(line.split()[1]) * 1024
    return found


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class Planted:
    """An object that leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[str]]:
        return (os.mkdir, (str(self.mark),))


def runs_code(store: Store, mark: Path) -> bool:
    """Whether something planted in place of its file is executed when it is opened and read."""
    file = store.file()
    former = file.read_bytes()
    if isinstance(store, SavedTensors):
        torch.save(Planted(mark), file)
    else:
        file.write_bytes(pickle.dumps(Planted(mark)))
    try:
        read_all(store)
    finally:
        file.write_bytes(former)
    return mark.exists()


def notices_damage(store: Store) -> bool:
    """Whether reading all of it fails after one bit of a value was flipped."""
    file = store.file()
    former = file.read_bytes()
    place = len(former) // 2
    file.write_bytes(former[:place] + bytes([former[place] ^ 1]) + former[place + 1 :])
    try:
        return read_all(store) is not None
    finally:
        file.write_bytes(former)


def read_all(store: Store) -> str | None:
    """One epoch; the error that ended it."""
    try:
        for _ in store.loader(0):
            pass
    except (CacheStoreError, pickle.UnpicklingError, OSError, ValueError, RuntimeError, TypeError, EOFError) as error:
        return str(error)
    return None


def probe(store: Store, mark: Path) -> dict[str, bool]:
    """All three questions, each tried. Of a source file that changes, the last byte does: it stays a JPEG."""
    first = file_of(store.arrays.folder, 0)
    former = first.read_bytes()
    first.write_bytes(former + b"\n")
    try:
        changes = store.notices_changes()
    finally:
        first.write_bytes(former)
    return {"changes": changes, "damage": notices_damage(store), "code": runs_code(store, mark)}


def run(settings: Settings) -> dict[str, Any]:
    right = rendered(settings)
    arrays: Any = Photos(source(settings), len(right))
    found: dict[str, Any] = {}
    stores = [kind(settings.work / kind.__name__, arrays, BATCH) for kind in STORES]
    for store in stores:
        prepare = partial(store.prepare, store.folder, arrays)
        begun = time.perf_counter()
        _, memory = alone(store.name, prepare)
        build_s = time.perf_counter() - begun
        found[store.name] = {"build_s": build_s, "build_mb": memory / 1e6, "disk_mb": disk_bytes(store.folder) / 1e6}
        say("storage", store.name, f"{build_s:10.2f} s to build {memory / 1e6:8.1f} MB")
    loaded = measure("storage", {store.name: partial(Stored, store, right) for store in stores}, settings.rounds)
    for number, store in enumerate(stores):
        answers, _ = alone(store.name, partial(probe, store, settings.work / f"mark{number}"))
        found[store.name] |= loaded[store.name] | answers | {"partial": store.partial}
    return {"images": len(right), "figures": found}


def page(found: dict[str, Any]) -> str:
    cost = [
        [
            name,
            short(each["build_s"]),
            f"{each['build_mb']:,.0f}",
            f"{each['disk_mb']:,.0f}",
            short(each["open_ms"]),
            f"{each['peak_mb']:,.0f}",
            f"{each['mapped_mb']:,.0f}",
            short(each["ms"]),
            whole(each),
        ]
        for name, each in found["figures"].items()
    ]
    yes = {True: "yes", False: "no"}
    trust = [
        [name, yes[each["changes"]], yes[each["damage"]], yes[each["code"]], each["partial"]]
        for name, each in found["figures"].items()
    ]
    lead = (
        f"{found['images']} photos to float16, built by one process from the files (decoding included); one epoch in "
        f'batches of {BATCH}, shuffled, `num_workers=0`, warm. "open" is the time to the first batch.'
    )
    head = ["store", "build s", "MB", "disk MB", "open ms", "peak MB", "mapped MB", "ms an image", "images/s"]
    asked = ["store", "notices a changed source?", "notices a flipped bit?", "runs code?", "a changed image"]
    return "\n\n".join([lead, table(head, cost), table(asked, trust, left=5)])
