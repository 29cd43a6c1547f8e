"""Any history of a folder and its cache, beside a plain dict: after every build the cache is what a fresh one would be.

How much is tried is chosen by the environment variable DECANT_EXAMPLES (`make soak` sets it): histories of up to 20
steps each.
"""

import contextlib
import os
import shutil
import tempfile
from functools import cache as remembered
from pathlib import Path
from typing import Any

import cv2
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from cache_store.gc import collect_garbage
from cache_store.reader import open_cache, snapshot_names
from cache_store.snapshots import rollback
from cache_store.verify import verify
from preprocess import build, repair
from tests.helpers import picture
from tests.integration.checks import SHARDS_OF_FOUR, contents, stop_at

EXAMPLES = int(os.environ.get("DECANT_EXAMPLES", "150"))
STEPS = 20

SIZE_BYTES = 1200
"""Of every file, so that size never tells an edit."""

SPLITS = ("train", "val")
CLASSES = ("ant", "cat", "dog")


def _file(seed: int) -> bytes:
    data = cv2.imencode(".png", picture(seed, 9, 10))[1].tobytes()
    return data.ljust(SIZE_BYTES, b"\0")  # image formats ignore bytes behind their end


CONTENTS = [*(_file(seed) for seed in range(14)), b"not an image".ljust(SIZE_BYTES, b"\0")]
BROKEN = len(CONTENTS) - 1

good = st.integers(0, BROKEN - 1)
anything = st.integers(0, BROKEN)

somewhere = st.integers(0, 2**32 - 1)
"""A place in something whose length is not the same at every run (metadata hold times): to be taken modulo it."""

_RESIZE = [{"Resize": {"height": 8, "width": 8}}]
_CROP = [{"RandomCrop": {"height": 8, "width": 8}}]


def _recipe(train: list[Any], variants: int, val: list[Any], **changes: Any) -> dict[str, Any]:
    splits = {
        "train": {"folder": "train", "variants": variants, "transforms": train},
        "val": {"folder": "val", "transforms": val},
    }
    return {"size": 8, "normalize": "dataset", "splits": splits} | changes


RECIPES = {
    "plain": _recipe(_RESIZE, 1, _RESIZE),
    "crops": _recipe(_CROP, 2, _RESIZE),
    "more crops": _recipe(_CROP, 3, _RESIZE),
    "other val": _recipe(_RESIZE, 1, _CROP),
    "fixed": _recipe(_RESIZE, 1, _RESIZE, normalize="imagenet"),
    "fixed crops": _recipe(_CROP, 2, _RESIZE, normalize={"mean": [0.5] * 3, "std": [0.25] * 3}),
    "bytes": _recipe(_RESIZE, 1, _RESIZE, dtype="uint8"),
}

Files = frozenset[tuple[str, int | None]]
"""Paths with which content each has; folders have none."""


@remembered
def fresh(files: Files, recipe: str, stats: Any) -> dict[str, Any]:
    """What a new cache of these files holds."""
    with tempfile.TemporaryDirectory() as folder:
        source, cache = Path(folder) / "source", Path(folder) / "cache"
        for path, content in files:
            folder_of = source / path if content is None else (source / path).parent
            folder_of.mkdir(parents=True, exist_ok=True)
            if content is not None:
                (source / path).write_bytes(CONTENTS[content])
        build(source, cache, RECIPES[recipe], workers=1, stats=stats)
        return contents(cache)


class History(RuleBasedStateMachine):
    """The folder, its cache, and what they should be."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="history-"))
        self.source, self.cache = self.root / "source", self.root / "cache"
        self.files: dict[str, int] = {}  # path -> which content
        self.recipe = "plain"
        self.built = False
        self.named = 0
        self.snapshots: dict[str, Any] = {}  # name -> what it held when it was published

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    # -- the folder -----------------------------------------------------------------------------------------------

    @initialize(data=st.data(), recipe=st.sampled_from(sorted(RECIPES)))
    def begin(self, data: Any, recipe: str) -> None:
        self.recipe = recipe
        for split in SPLITS:
            for _ in range(3):
                self._put(
                    self._new_path(split, data.draw(st.sampled_from(CLASSES))),
                    data.draw(good),
                )

    def _new_path(self, split: str, name: str) -> str:
        self.named += 1
        return f"{split}/{name}/{self.named * 7919 % 1000:03d}.png"  # names do not come in order

    def _put(self, path: str, content: int) -> None:
        target = self.source / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(CONTENTS[content])
        self.files[path] = content

    def _some(self, data: Any) -> str:
        return str(data.draw(st.sampled_from(sorted(self.files))))

    @rule(data=st.data(), split=st.sampled_from(SPLITS), name=st.sampled_from(CLASSES), content=anything)
    def add(self, data: Any, split: str, name: str, content: int) -> None:
        self._put(self._new_path(split, name), content)

    @rule(data=st.data(), content=anything)
    def edit(self, data: Any, content: int) -> None:
        path = self._some(data)
        if self._leaves_good(path, content):
            self._put(path, content)

    @rule(data=st.data(), content=good)
    def edit_keeping_size_and_mtime(self, data: Any, content: int) -> None:
        path = self._some(data)
        before = (self.source / path).stat()
        self._put(path, content)
        os.utime(self.source / path, ns=(before.st_atime_ns, before.st_mtime_ns))

    @rule(data=st.data())
    def touch(self, data: Any) -> None:
        os.utime(self.source / self._some(data))

    @rule(data=st.data(), how=st.sampled_from(["rename", "relabel", "move"]), name=st.sampled_from(CLASSES))
    def rename_relabel_or_move(self, data: Any, how: str, name: str) -> None:
        path = self._some(data)
        split, former, _ = path.split("/")
        if how == "move":
            if not self._leaves_good(path, None):
                return
            split = SPLITS[1 - SPLITS.index(split)]
        target = self._new_path(split, name if how == "relabel" else former)
        (self.source / target).parent.mkdir(parents=True, exist_ok=True)
        os.rename(self.source / path, self.source / target)
        self.files[target] = self.files.pop(path)

    @rule(data=st.data())
    def delete(self, data: Any) -> None:
        path = self._some(data)
        if self._leaves_good(path, None):
            (self.source / path).unlink()
            del self.files[path]

    @rule(data=st.data(), split=st.sampled_from(SPLITS), name=st.sampled_from(CLASSES))
    def duplicate(self, data: Any, split: str, name: str) -> None:
        path = self._some(data)
        target = self._new_path(split, name)
        (self.source / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(self.source / path, self.source / target)
        self.files[target] = self.files[path]

    def _leaves_good(self, path: str, content: int | None) -> bool:
        """A split without a single image is refused, which is tested elsewhere."""
        split = path.split("/", maxsplit=1)[0]
        others = [p for p, there in self.files.items() if p.startswith(split) and there != BROKEN and p != path]
        return bool(others) or content not in (None, BROKEN)

    # -- the cache ------------------------------------------------------------------------------------------------

    @rule(recipe=st.sampled_from(sorted(RECIPES)))
    def change_recipe(self, recipe: str) -> None:
        self.recipe = recipe

    def _build(self, **options: Any) -> Any:
        return build(
            self.source,
            self.cache,
            RECIPES[self.recipe],
            workers=1,
            shard_mib=SHARDS_OF_FOUR,
            allow_shrink=True,
            max_failures="100%",
            **options,
        )

    def _there(self) -> Files:
        """All that is in the folder; a class that has lost its last image is a class still."""
        folders = {(f"{split}/{path.name}", None) for split in SPLITS for path in (self.source / split).iterdir()}
        return frozenset({*self.files.items(), *folders})

    def _check(self) -> None:
        """The first law."""
        found = contents(self.cache)
        self._remember(found)
        stats = None
        if RECIPES[self.recipe]["normalize"] == "dataset":
            train = found["splits"]["train"]
            stats = (train["mean"], train["std"])
        assert found == fresh(self._there(), self.recipe, stats)

    def _remember(self, found: dict[str, Any]) -> None:
        with open_cache(self.cache) as opened:
            former = self.snapshots.setdefault(opened.snapshot.name, found)
        assert former == found, "a snapshot has changed"

    @rule(checksum=st.booleans())
    def build(self, checksum: bool) -> None:
        self._build(checksum=checksum)
        self.built = True
        self._check()

    @precondition(lambda self: self.built)
    @rule()
    def build_twice(self) -> None:
        self.build(False)
        again = self._build()
        assert again.up_to_date, str(again)

    @rule()
    def build_again(self) -> None:
        self.build(False)

    @rule(stage=st.sampled_from(["hash", "render", "normalise"]), done=st.integers(0, 4))
    def build_and_kill(self, stage: str, done: int) -> None:
        before = contents(self.cache) if self.built else None
        with contextlib.suppress(KeyboardInterrupt):
            self._build(progress=stop_at(stage, done))
            self.built = True
            self._check()
            return
        if before is not None:
            assert contents(self.cache) == before

    @precondition(lambda self: self.built and RECIPES[self.recipe]["normalize"] == "dataset")
    @rule()
    def refresh_statistics(self) -> None:
        self._build(refresh_stats=True)
        self._check()
        assert contents(self.cache) == fresh(self._there(), self.recipe, None)

    @precondition(lambda self: self.built)
    @rule(data=st.data())
    def roll_back(self, data: Any) -> None:
        names = snapshot_names(self.cache)
        name = names[data.draw(somewhere) % len(names)]
        rollback(self.cache, name)
        assert contents(self.cache) == self.snapshots[name]

    @precondition(lambda self: self.built)
    @rule(keep=st.integers(1, 3), compact=st.booleans())
    def collect(self, keep: int, compact: bool) -> None:
        before = contents(self.cache)
        collect_garbage(self.cache, keep, compact=compact)
        assert contents(self.cache) == before
        self._remember(before)
        for name in snapshot_names(self.cache):
            assert contents(self.cache, name) == self.snapshots[name]
        assert verify(self.cache).sound

    @precondition(lambda self: self.built)
    @rule(data=st.data())
    def damage_and_repair(self, data: Any) -> None:
        """A damaged file is put back as it was, unless it holds an image whose file is gone."""
        files = [path for path in sorted(self.cache.rglob("*")) if path.is_file() and "pending" not in path.parts]
        path = files[data.draw(somewhere) % len(files)]
        sound = path.read_bytes()
        place = data.draw(somewhere) % len(sound)
        before = contents(self.cache)
        damaged = sound[:place] + bytes([sound[place] ^ 1 << data.draw(st.integers(0, 7))]) + sound[place + 1 :]
        path.write_bytes(damaged)
        assert not verify(self.cache).sound

        report = repair(self.source, self.cache)

        if report.remaining:
            assert path.read_bytes() == damaged
            path.write_bytes(sound)
        assert contents(self.cache) == before
        assert verify(self.cache).sound


@pytest.mark.slow
def test_any_history() -> None:
    run_state_machine_as_test(
        History,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
