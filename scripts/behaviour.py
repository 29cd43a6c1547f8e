"""What users of decant see, as JSON: {probe: value}. scripts/same_behaviour.py runs this for two trees and compares.

    PYTHONPATH=TREE python behaviour.py PART TREE     in an empty folder, which is filled

names     public names, signatures, errors with their bases and exit codes, import paths that are kept as strings
commands  every --help; what every command prints, with --json and without
mistakes  exit code and output of commands that cannot work; type and text of the exceptions of such calls
caches    each file of caches that were built, updated, and resumed after a kill: 6 recipes, 2 engines
leave     a cache, a pickled dataset and the state of a sampler, for `open` of this or another tree
open      what they give

It runs under old and new trees alike, so it imports only what `decant` promises, and none of the tests' helpers.
"""

import contextlib
import fcntl
import hashlib
import inspect
import io
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mistakes import CALLS, COMMANDS, FILES, SHELL
from PIL import Image

PACKAGES = ("preprocess", "cache_store", "loaders")
IMPORT_PATHS = """preprocess.decode:decode preprocess.cli:main preprocess.cli:decant decant_cli:main
cache_store.errors:IntegrityError cache_store.layout:name_to_text cache_store.layout:text_to_name""".split()
"""Those that caches' builds, pyproject.toml and the pages of docs/ name."""
SPECIAL = {"__call__", "__enter__", "__exit__", "__getitem__", "__getitems__", "__iter__", "__len__", "__getattr__"}
DECANT = [sys.executable, "-c", "from decant_cli import main; main()"]
LIMIT_S = 120

# What differs from run to run, by its key: in JSON that is printed, and in that of a cache.
RUNS = {"seconds", "estimated_s", "stages", "created", "time", "mtime", "ctime", "inode", "free_bytes", "free_files"}
RUNS |= {"advice", "shared_memory_bytes", "cache_bytes", "freed_bytes", "read_bytes", "page_bytes"}  # times are in them
TIMED = RUNS | {"scanned_ns", "files", "digest", "parent_digest", "check", "former"}
TIMED_TABLES = {"mtime_ns", "ctime_ns", "inode"}
BENCH = {"imagefolder", "cached", "step", "build"}


def masked(value: Any, keys: set[str]) -> Any:
    """A JSON value, with the type in place of what stands under one of `keys`."""
    if isinstance(value, dict):
        return {k: type(v).__name__ if k in keys and v is not None else masked(v, keys) for k, v in value.items()}
    if isinstance(value, list):
        return [masked(each, keys) for each in value]
    return plain(value) if isinstance(value, str) else value


def plain(text: str) -> str:
    """A text without what differs from run to run: paths, times, durations, free space, numbers of processes."""
    text = text.replace(os.getcwd(), "<here>")
    text = re.sub(r"(?m)^( *workers at| *on disk|/dev/shm|free disk) .*$", r"\1 <n>", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d( [+-]\d{4}|Z|[+-]\d\d:\d\d)?", "<time>", text)
    text = re.sub(r"\b\d+(,\d{3})*(\.\d+)? (m?s|seconds|minutes|MiB/s|images/s)\b", r"<n> \3", text)
    return re.sub(r"process \d+|0x[0-9a-f]{6,}", "<id>", text)


def digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


# -- names -------------------------------------------------------------------------------------------------------------


def names() -> dict[str, Any]:
    found = {}
    for package in map(import_module, PACKAGES):
        for name in package.__all__:
            found[f"{package.__name__}.{name}"] = described(getattr(package, name))
    for path in IMPORT_PATHS:
        module, _, name = path.partition(":")
        found[path] = signature(getattr(import_module(module), name))
    return found


def described(thing: Any) -> Any:
    """Signature of a function; of a class also its public bases and members, and the exit code of an error."""
    if not inspect.isclass(thing):
        return signature(thing)
    public = {name for package in PACKAGES for name in import_module(package).__all__}
    bases = [b for b in thing.__mro__ if b.__name__ in public or b.__module__.partition(".")[0] not in PACKAGES]
    members = {name: inspect.getattr_static(thing, name) for name in dir(thing) if name[0] != "_" or name in SPECIAL}
    return {
        "bases": [base.__name__ for base in bases],
        "exit code": getattr(thing, "exit_code", None) if issubclass(thing, Exception) else None,
        "call": signature(thing),
        **{k: signature(v) for k, v in members.items() if callable(v) or isinstance(v, property | classmethod)},
    }


def signature(thing: Any) -> str:
    """Its arguments without the modules of their types; of what cannot be called, its type."""
    thing = getattr(thing, "__func__", thing)  # of static and class methods
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return type(thing).__name__
    return plain(re.sub(r"\b(preprocess|cache_store|loaders)\.(\w+\.)*(?=[A-Z])", "", text))


# -- commands ----------------------------------------------------------------------------------------------------------


def decant(*arguments: str) -> dict[str, Any]:
    """`decant …` in this process: exit code, stdout and stderr."""
    from preprocess.cli import main

    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    sys.argv = ["decant", *arguments]
    code: Any = None
    with contextlib.redirect_stdout(streams[0]), contextlib.redirect_stderr(streams[1]):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        except Exception as error:  # a bug, and so a difference
            code = repr(error)
    out, err = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    said = masked(json.loads(out), RUNS) if "--json" in arguments and out else plain(out).splitlines()
    return {"code": code, "out": said, "err": plain(err).splitlines()}


def commands() -> dict[str, Any]:
    import click

    from preprocess.cli import decant as group

    found: dict[str, Any] = {"decant --help": decant("--help")["out"]}
    for name in group.list_commands(click.Context(group)):
        found[f"decant {name} --help"] = decant(name, "--help")["out"]
    photos(Path("photos"))
    Path("recipe.yaml").write_text(json.dumps(RECIPES["two splits"]))
    Path("empty").mkdir()
    for number, step in enumerate(STEPS):
        if step in ACTIONS:
            ACTIONS[step](Path("photos"), Path("cache"))
            continue
        ran = decant(*step.split())
        if step.startswith("bench "):  # figures, and which there are depends on its time
            keys = {name: sorted(value) if name in BENCH else "" for name, value in ran["out"].items()}
            ran = {"code": ran["code"], "keys": keys}
        found[f"{number} {step}"] = ran
    return found | {"watch": watched()}


def watched() -> list[Any]:
    """Two documents of `decant watch`: nothing to do, and a recipe that cannot be meant."""
    options = "watch photos cache --recipe recipe.yaml --workers 1 --settle 0 --poll 0.05 --json".split()
    process = subprocess.Popen([*DECANT, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    timer = threading.Timer(LIMIT_S, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        Path("recipe.yaml").write_text("sise: 8")
        return [masked(json.loads(line), RUNS) for line in (first, process.stdout.readline())]
    finally:
        process.terminate()
        process.communicate()
        timer.cancel()


def damage(photos: Path, cache: Path) -> None:
    """Flip bits of a shard, and leave a file that is none of the cache's."""
    shard = min(cache.glob("tensors/*/image/c.*"))
    data = shard.read_bytes()
    shard.write_bytes(bytes(byte ^ 255 for byte in data[:9]) + data[9:])
    (cache / "notes.txt").write_text("")


# -- caches ------------------------------------------------------------------------------------------------------------


def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """Smooth pixels: uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def write(path: Path, data: np.ndarray | bytes) -> None:
    """A file of bytes, or a picture in the format of its extension; its time stamp depends on its content alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = data if isinstance(data, bytes) else cv2.imencode(path.suffix, data)[1].tobytes()
    path.write_bytes(content)
    os.utime(path, (1_700_000_000 + int(digest(content)[:5], 16),) * 2)


def by_pillow(seed: int, mode: str, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image = Image.fromarray(picture(seed))
    image = image.quantize(16) if mode == "P" else image.convert(mode)
    image.save(out, kind, **options)
    return out.getvalue()


def photos(folder: Path) -> None:
    """40 small images of many kinds in three classes, two of them equal, one of them broken."""
    for number in range(10):
        for c, name in enumerate(("cat", "dog", "emu")):
            suffix = (".jpg", ".png", ".tiff")[(number + c) % 3]
            write(folder / name / f"{number:02d}{suffix}", picture(100 * c + number, 20 + 5 * number, 60 - 4 * c))
    turned = Image.Exif()
    turned[0x0112] = 6
    write(folder / "cat" / "turned.jpg", by_pillow(1, "RGB", "JPEG", exif=turned))
    write(folder / "cat" / "gray.jpg", by_pillow(2, "L", "JPEG"))
    write(folder / "cat" / "cmyk.jpg", by_pillow(3, "CMYK", "JPEG"))
    write(folder / "dog" / "alpha.png", by_pillow(4, "RGBA", "PNG"))
    write(folder / "dog" / "palette.png", by_pillow(5, "P", "PNG"))
    write(folder / "dog" / "deep.png", picture(6).astype(np.uint16) * 257)
    write(folder / "dog" / "deep.tiff", np.tile(np.arange(500, 1000, dtype=np.uint16), (9, 1)))
    write(folder / "dog" / "same.png", (folder / "dog" / "00.png").read_bytes())
    write(folder / "emu" / "broken.jpg", b"no image")
    write(folder / "emu" / "03.png", cv2.imencode(".png", picture(7))[1].tobytes() + STOP)


def change(folder: Path, *_: Path) -> None:
    """Add, edit, rename, relabel and delete files."""
    write(folder / "cat" / "new.png", picture(900))
    write(folder / "cat" / "00.jpg", picture(901))
    (folder / "dog" / "00.png").rename(folder / "dog" / "renamed.png")
    (folder / "dog" / "01.tiff").rename(folder / "cat" / "relabelled.tiff")
    (folder / "emu" / "00.tiff").unlink()


STOP = b"STOP"
SHARD_MIB = 0.005
RESIZE = {"Resize": {"height": 16, "width": 16}}
CROP = [{"RandomResizedCrop": {"size": [16, 16], "scale": [0.35, 1.0]}}, {"HorizontalFlip": {"p": 0.5}}]


def recipe(transforms: list[Any], variants: int = 1, **settings: Any) -> dict[str, Any]:
    """Of one split, unless `settings` say otherwise."""
    split = {"folder": ".", "variants": variants, "transforms": transforms}
    return {"size": 16, "splits": {"train": split}, **settings}


RECIPES = {
    "plain": recipe([RESIZE]),
    "uint8": recipe([*CROP, {"Rotate": {"limit": 30}}, {"ColorJitter": {}}], 2, dtype="uint8", normalize="imagenet"),
    "gray": recipe([RESIZE, {"GaussianBlur": {}}], 2, channels="gray", seed=5),
    "two splits": recipe([], splits={
        "train": {"folder": ".", "variants": 3, "transforms": CROP},
        "val": {"from": "train", "fraction": 0.3},
    }),
    "oblong": recipe([{"SmallestMaxSize": {"max_size": 18}}, {"CenterCrop": {"height": 12, "width": 16}}],
                     size=[12, 16], normalize={"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.2]},
                     decode={"reduced": True}),
    "opencv alone": recipe([RESIZE, {"CLAHE": {}}, {"MedianBlur": {}}], classes=["emu", "cat"],
                           decode={"levels": [500, 1000]}),
}  # fmt: skip


def caches() -> dict[str, Any]:
    from preprocess import build

    found: dict[str, Any] = {}
    for name, settings in RECIPES.items():
        for device in ("cpu", "torch-cpu"):
            options: Any = {"workers": 1, "device": device, "shard_mib": SHARD_MIB}

            def built(what: str, cache: Path, recipe: Any, options: Any = options) -> Any:
                report = build("photos", cache, recipe, **options)
                found[f"{cache} {what}"] = {"report": masked(json.loads(report.to_json()), RUNS), **contents(cache)}
                return report

            cache, other = Path(f"{name}, {device}"), Path(f"{name}, {device}, killed")
            photos(Path("photos"))
            rendered = built("fresh", cache, settings).rendered
            command = [sys.executable, __file__, "killed", sys.argv[2], str(other), json.dumps([settings, options])]
            ended = subprocess.run(command, timeout=LIMIT_S, check=False).returncode
            assert ended == -signal.SIGKILL, f"{other}: the build ended with {ended} before it was killed"
            left = built("resumed", other, settings).rendered
            assert left < rendered, f"{other}: nothing was kept of the build that was killed"
            change(Path("photos"))
            built("updated", cache, None)
            shutil.rmtree("photos")
    return found


def killed() -> None:
    """A build that its own decoder kills, with some shards finished."""
    from preprocess import build

    settings, options = json.loads(sys.argv[4])
    build("photos", sys.argv[3], settings, **options, decoder="behaviour:killing")


def killing(data: bytes, **settings: Any) -> Any:
    """A decoder, in a worker: as decant's own, but at a file that ends with STOP the builder dies."""
    from preprocess.decode import decode

    if data.endswith(STOP):
        time.sleep(0.5)  # until what other threads have in hand is written
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(LIMIT_S)
    return decode(data, **settings)


def contents(cache: Path) -> dict[str, Any]:
    """All that is committed: path -> JSON without times, or the digest of the bytes."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in cache.rglob("*") if path.is_file()):
        name = str(path.relative_to(cache))
        if name.startswith("pending/"):
            found[name] = "there"
        elif path.name == "zarr.json":
            found[name] = masked(json.loads(path.read_text()), TIMED)
        elif path.parent.name in TIMED_TABLES:
            found[name] = path.stat().st_size
        elif path.parent.name == "failures":  # lines of JSON, then a checksum
            lines = path.read_bytes()[:-4].splitlines()
            found[name] = [masked(json.loads(line), RUNS) for line in lines]
        else:
            found[name] = digest(path.read_bytes())
    return found


# -- from one tree to the other ----------------------------------------------------------------------------------------


def leave() -> dict[str, Any]:
    from torch.utils.data import DataLoader

    from loaders import CachedDataset, ShardShuffleSampler
    from preprocess import build

    photos(Path("photos"))
    report = build("photos", "cache", RECIPES["two splits"], workers=1, shard_mib=SHARD_MIB)
    data = CachedDataset("cache", crop=12, crop_mode="center")
    sampler = ShardShuffleSampler(data, seed=3, window_shards=2)
    sampler.set_epoch(4)
    batches = iter(DataLoader(data, batch_size=8, sampler=sampler))
    seen = [digest(next(batches)[0].numpy().tobytes()) for _ in range(2)]
    Path("left").write_bytes(pickle.dumps([data, sampler.state_dict(samples_seen=16), CachedDataset("cache", "val")]))
    return {"built": report.rendered, "first batches": seen}


def open_left() -> dict[str, Any]:
    from torch.utils.data import DataLoader

    from loaders import ShardShuffleSampler
    from preprocess import Recipe

    data, state, val = pickle.loads(Path("left").read_bytes())
    sampler = ShardShuffleSampler(data)
    said = "classes class_to_idx targets samples failures mean std snapshot_id variants shape split".split()
    found: dict[str, Any] = {name: masked(getattr(data, name), RUNS) for name in said}
    found["state"] = masked(state, {"digest"})
    for name, loader in {
        "all": DataLoader(val, batch_size=8),
        "workers": DataLoader(data, batch_size=8, num_workers=1, multiprocessing_context="spawn"),
        "resumed": DataLoader(data, batch_size=8, sampler=sampler),
    }.items():
        data.set_epoch(1)
        if name == "resumed":
            sampler.load_state_dict(state)
        found[name] = [[digest(images.numpy().tobytes()), labels.tolist()] for images, labels in loader]
    found["rendered"] = digest(Recipe.of("cache").render("photos/cat/turned.jpg", split="train", variant=2).tobytes())
    for step in ("status photos cache --json", "build photos cache --workers 1 --json", "verify cache --json"):
        found[step] = decant(*step.split())
    assert found["build photos cache --workers 1 --json"]["out"]["rendered"] == 0
    return found


STEPS = """
init photos -o proposed.yaml --json
init photos -o proposed.yaml --force --size 32x48
preview photos --recipe recipe.yaml --json
preview photos --recipe recipe.yaml
build photos cache --recipe recipe.yaml --workers 1 --dry-run --json
build photos other --workers 1 --set size=8 --limit 4
build photos cache --recipe recipe.yaml --workers 1 --json
change
status photos cache --json
status photos cache
build photos cache --workers 1 --json
build photos cache --workers 1
status cache --json
status empty cache --json
show cache --json
show cache
show cache 0 cat/new.png --split val --json
show cache -o look.png -- 0 -1
log cache --json
log cache
report cache -o page.html --json
bench photos cache --recipe recipe.yaml --device cpu --steps-per-s 10 --seconds 0.1 --batch-size 4 --json
rollback cache 000001 --json
rollback cache 000002
doctor cache --json
doctor photos
verify cache --json
damage
verify cache
verify cache --json
repair empty cache --json
repair photos cache --json
gc cache --keep 2 --json
gc cache --compact --json
log cache --json
""".split("\n")[1:-1]
ACTIONS: dict[str, Callable[[Path, Path], None]] = {"change": change, "damage": damage}


# -- mistakes ----------------------------------------------------------------------------------------------------------


def mistakes() -> dict[str, Any]:
    import torch

    import preprocess
    from cache_store import open_cache
    from loaders import CachedDataset, ShardShuffleSampler, to_device

    settings = recipe([RESIZE])
    photos(Path("phö tos"))
    Path("empty").mkdir()
    write(Path("few/cat/1.png"), picture(1))
    write(Path("broken/cat/1.png"), b"no image")
    for name, text in FILES.items():
        write(Path(name), text.encode())
    preprocess.build("phö tos", "cä che", settings, workers=1)
    for name in ("damaged", "newer", "needy", "cut", "lost", "locked"):
        shutil.copytree("cä che", name)
    Path("damaged/zarr.json").write_text('{"node')
    edit_root(Path("newer/zarr.json"), format_version=2)
    edit_root(Path("needy/zarr.json"), needs=["zstd"])
    shard = min(Path("cut").glob("tensors/*/image/c.*"))
    shard.write_bytes(shard.read_bytes()[:100])
    Path("lost/pending/source").unlink()
    found: dict[str, Any] = {}
    with open("locked/pending/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in COMMANDS:
            found[command] = decant(*command.split("|"))
    for line in SHELL:
        script = f'decant() {{ "{sys.executable}" -c "from decant_cli import main; main()" "$@"; }}; {line}'
        ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=LIMIT_S, check=False)
        found[line] = [ran.returncode, plain(ran.stdout).splitlines(), plain(ran.stderr).splitlines()]
    known = {name: getattr(preprocess, name) for name in preprocess.__all__} | {"torch": torch}
    known |= {"open_cache": open_cache, "CachedDataset": CachedDataset, "data": CachedDataset("cä che")}
    known |= {"ShardShuffleSampler": ShardShuffleSampler, "to_device": to_device}
    for call in CALLS:
        try:
            found[call] = f"gives {type(eval(call, known)).__name__}"
        except Exception as error:
            found[call] = [type(error).__name__, plain(str(error)).splitlines()]
    return found


def edit_root(path: Path, **changes: Any) -> None:
    """The pointer of a cache as another version would have written it."""
    metadata = json.loads(path.read_text())
    said = metadata["attributes"]["decant"] | changes
    del said["check"]
    said["check"] = digest(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())
    metadata["attributes"]["decant"] = said
    path.write_text(json.dumps(metadata))


PARTS: dict[str, Callable[[], Any]] = {
    "names": names,
    "commands": commands,
    "mistakes": mistakes,
    "caches": caches,
    "killed": killed,
    "leave": leave,
    "open": open_left,
}


def main() -> None:
    part, tree = sys.argv[1], Path(sys.argv[2])
    warnings.simplefilter("ignore")
    os.environ |= {"COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"}
    found = PARTS[part]()
    ours = [module.__file__ for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES]
    astray = [file for file in ours if not Path(file or "").is_relative_to(tree)]
    assert not astray, f"modules of {tree} expected, found {astray}"
    print(json.dumps(found))


if __name__ == "__main__":
    main()
