"""Time and memory of build, update, open, load and verify against images, pixels, variants and changes, by doubling."""

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from contenders import WrongValue, memory_now
from torch.utils.data import DataLoader

from cache_store.verify import verify
from loaders import CachedDataset
from preprocess import build
from techniques.common import Settings, alone, private, say, short, table

ROUNDS = {"build": 3, "update": 3, "open": 10, "load": 20, "verify": 5}
"""Of each measurement, unless fewer are asked for; the quickest counts, as powers are wanted and not the weather."""

BATCH = 256
FLOOR_IMAGES = 10
SETTLE_S = 2.1
"""Time stamps as close to a build as two seconds are not believed by the next."""

JOBS = ("build", "update", "open", "load", "verify")


@dataclass(frozen=True)
class Point:
    """A folder and its cache.

    Attributes
    ----------
    images : files
    side : height of a source; its width is a third more
    size : height and width of a stored image
    variants : of an image
    changed : files that change before an update
    """

    images: int
    side: int = 96
    size: int = 32
    variants: int = 1
    changed: int = 1


@dataclass(frozen=True)
class Series:
    """What is doubled, and by what power of it each job should grow."""

    what: str
    points: list[Point]
    value: Callable[[Point], int]
    expected: dict[str, str]


def all_series(scale: int, doublings: int) -> list[Series]:
    powers = [1 << step for step in range(doublings + 1)]
    few = max(scale // 2, FLOOR_IMAGES)
    plain = Point(scale)
    return [
        Series(
            "images N (1 % change)",
            [replace(plain, images=scale * n, changed=max(1, scale * n // 100)) for n in powers],
            lambda point: point.images,
            {"build": "1", "update": "≤ 1", "open": "≤ 1", "load": "1", "verify": "≤ 1"},
        ),
        Series(
            "source pixels",
            [Point(few, side=round(192 * n**0.5), size=32) for n in powers],
            lambda point: point.side * point.side * 4 // 3,
            {"build": "≤ 1", "update": "0", "open": "0", "load": "0", "verify": "0"},
        ),
        Series(
            "stored pixels",
            [Point(few, side=256, size=round(64 * n**0.5)) for n in powers],
            lambda point: point.size**2,
            {"build": "≤ 1", "update": "0", "open": "≤ 1", "load": "1", "verify": "≤ 1"},
        ),
        Series(
            "variants K",
            [Point(few, size=96, variants=n) for n in powers],
            lambda point: point.variants,
            {"build": "≤ 1", "update": "0", "open": "≤ 1", "load": "0", "verify": "≤ 1"},
        ),
        Series(
            "changes",
            [replace(plain, images=2 * scale, changed=max(1, scale * n // 10)) for n in powers],
            lambda point: point.changed,
            {"build": "0", "update": "≤ 1", "open": "0", "load": "0", "verify": "0"},
        ),
    ]


# -- a point -----------------------------------------------------------------------------------------------------------


class Place:
    """The folder and the cache of a point.

    Attributes
    ----------
    held : the most private memory while a dataset was open, bytes
    """

    def __init__(self, point: Point, work: Path) -> None:
        self.point, self.source, self.cache = point, work / "source", work / "cache"
        self.held = 0
        self.recipe = {
            "size": point.size,
            "splits": {
                "train": {
                    "folder": ".",
                    "variants": point.variants,
                    "transforms": [
                        {"RandomResizedCrop": {"size": [point.size, point.size]}},
                        {"HorizontalFlip": {}},
                    ],
                }
            },
        }
        side = point.side
        self.pictures = [self.picture(number, side, side * 4 // 3) for number in range(8)]
        for number in range(point.images):
            self.write(number, number)

    @staticmethod
    def picture(number: int, height: int, width: int) -> bytes:
        """Smooth with some grain, as photographs are."""
        random = np.random.default_rng(number)
        image = cv2.resize(random.integers(0, 256, (6, 8, 3), np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
        encoded: bytes = cv2.imencode(".jpg", cv2.add(image, random.integers(0, 24, image.shape, np.uint8)))[
            1
        ].tobytes()
        return encoded

    def write(self, number: int, content: int) -> None:
        """A picture that no other equals: its number stands behind its end."""
        path = self.source / f"class{number % 10}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.pictures[content % len(self.pictures)] + content.to_bytes(8, "big"))

    def build(self) -> float:
        """Seconds of a whole build beyond the start of its workers."""
        shutil.rmtree(self.cache, ignore_errors=True)
        begun = time.perf_counter()
        report = build(self.source, self.cache, self.recipe, device="cpu")
        seconds = time.perf_counter() - begun
        expect(report.rendered, self.point.images * self.point.variants, "rendered")
        return seconds - report.seconds.get("start", 0.0)

    def settle(self) -> None:
        """A build that finds nothing to do, after which all time stamps are believed."""
        expect(build(self.source, self.cache, device="cpu").rendered, 0, "rendered where nothing changed")

    def update(self, first: int) -> float:
        for number in range(self.point.changed):
            self.write((first + number) % self.point.images, self.point.images + first + number)
        begun = time.perf_counter()
        report = build(self.source, self.cache, device="cpu")
        seconds = time.perf_counter() - begun
        expect(report.rendered, self.point.changed * self.point.variants, "rendered after changes")
        return seconds - report.seconds.get("start", 0.0)

    def open(self) -> float:
        """Seconds to the first batch."""
        begun = time.perf_counter()
        dataset = CachedDataset(self.cache)
        batch = next(iter(DataLoader(dataset, batch_size=BATCH, shuffle=True)))
        seconds = time.perf_counter() - begun
        self.held = max(self.held, private(memory_now()))
        expect(len(batch[1]), min(BATCH, self.point.images), "samples in a batch")
        return seconds

    def load(self) -> float:
        """Seconds of an epoch, the second one of its dataset."""
        loader = DataLoader(CachedDataset(self.cache), batch_size=BATCH, shuffle=True)
        for _ in loader:
            pass
        begun = time.perf_counter()
        samples = sum(len(labels) for _, labels in loader)
        seconds = time.perf_counter() - begun
        self.held = max(self.held, private(memory_now()))
        expect(samples, self.point.images, "samples in an epoch")
        return seconds

    def verify(self) -> float:
        begun = time.perf_counter()
        report = verify(self.cache)
        seconds = time.perf_counter() - begun
        expect(report.sound, True, "sound")
        return seconds


def expect(found: Any, wanted: Any, what: str) -> None:
    if found != wanted:
        raise WrongValue(f"{what}: {wanted} expected, found {found}")


def rounds_of(settings: Settings) -> dict[str, int]:
    return {job: count if settings.rounds >= ROUNDS["build"] else settings.rounds for job, count in ROUNDS.items()}


def measured(place: Place, job: str, rounds: int) -> dict[str, float]:
    """Seconds, and peak of memory of the process that asked for it, not of the processes that render."""
    changed = place.point.changed

    def work(number: int) -> float:
        return place.update(number * changed) if job == "update" else getattr(place, job)()

    def all_rounds() -> tuple[float, int]:
        before = private(memory_now())
        seconds = min(work(number) for number in range(rounds))
        return seconds, place.held - before

    (seconds, held), memory = alone(job, all_rounds)
    if job in ("open", "load"):  # the peak of a process that unmaps files again counts their pages
        memory = held
    return {"s": seconds, "mb": memory / 1e6}


def run(settings: Settings) -> dict[str, Any]:
    series = all_series(settings.scale, settings.doublings)
    floor, rounds = Point(FLOOR_IMAGES), rounds_of(settings)
    points = list(dict.fromkeys([floor, *(point for each in series for point in each.points)]))
    places = {point: Place(point, settings.work / f"point{number}") for number, point in enumerate(points)}
    found: dict[Point, dict[str, Any]] = {}
    for point, place in places.items():
        found[point] = {"build": measured(place, "build", rounds["build"])}
        say(
            "scaling",
            f"{point.images} of {point.side}, to {point.size}, K {point.variants}",
            f"{found[point]['build']['s']:10.3f} s",
        )
    os.sync()  # or the first updates would wait for the builds' bytes
    time.sleep(SETTLE_S)
    for point, place in places.items():
        alone("settle", place.settle)
        for job in JOBS[1:]:
            found[point][job] = measured(place, job, rounds[job])
    return {
        "floor": found[floor],
        "floor_images": FLOOR_IMAGES,
        "rounds": rounds,
        "series": [
            {
                "what": each.what,
                "values": [each.value(point) for point in each.points],
                "expected": each.expected,
                "jobs": {job: [found[point][job] for point in each.points] for job in JOBS},
            }
            for each in series
        ],
    }


# -- the page ----------------------------------------------------------------------------------------------------------


def exponent(values: list[float], seconds: list[float], floor: float) -> float | None:
    """The slope of time beyond a floor over what was doubled, both as logarithms; None: nothing is beyond it."""
    beyond = np.array(seconds) - floor
    if (beyond <= 0).any():
        return None
    return float(np.polyfit(np.log(values), np.log(beyond), 1)[0])


def page(found: dict[str, Any]) -> str:
    parts = []
    for each in found["series"]:
        rows = []
        for job in JOBS:
            points = each["jobs"][job]
            seconds = [point["s"] for point in points]
            expected = each["expected"][job]
            slope = exponent(each["values"], seconds, 0 if expected == "0" else found["floor"][job]["s"])
            rows.append(
                [
                    job,
                    *(short(second * 1e3) for second in seconds),
                    expected,
                    "floor" if slope is None else f"{slope:.2f}",
                    f"{points[0]['mb']:,.1f} → {points[-1]['mb']:,.1f}",
                ]
            )
        head = ["ms", *(f"{value:,}" for value in each["values"]), "expected", "found", "MB"]
        parts += [f"Doubling {each['what']}:", table(head, rows)]
    floors = ", ".join(f"{job} {short(found['floor'][job]['s'] * 1e3)} ms" for job in JOBS)
    lead = (
        f"Milliseconds, the quickest of {', '.join(f'{count} ({job})' for job, count in found['rounds'].items())}. "
        "Where a power above 0 is expected, the floor, which is what "
        f"{found['floor_images']} images take, is taken off before the power is fitted: {floors}. MB is the peak of "
        "private memory of the process that asks, at the first and the last point."
    )
    return "\n\n".join([lead, *parts])
