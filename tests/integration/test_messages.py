"""Mistakes of a newcomer: the exit code, and a message that says what, where, expected, found, what next.

Each row of a table is one situation. All names of folders hold spaces and letters beyond ASCII.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from cache_store.canonical import identity
from cache_store.errors import IntegrityError, NotFoundError
from cache_store.errors import UsageError as StoreUsageError
from cache_store.lock import BuildersLock
from loaders import CachedDataset, ShardShuffleSampler, to_device
from preprocess import Recipe, RecipeError, UsageError, build, cli
from preprocess.errors import SourceError
from tests.helpers import TINY, image_folder
from tests.integration.processes import DECANT, ROOT
from tests.terminal import watched


def edited_root(cache: Path, **changes: object) -> None:
    """The pointer of a cache as another version would have written it."""
    metadata = json.loads((cache / "zarr.json").read_text())
    ours = metadata["attributes"]["decant"] | changes
    ours["check"] = identity({key: value for key, value in ours.items() if key != "check"})
    metadata["attributes"]["decant"] = ours
    (cache / "zarr.json").write_text(json.dumps(metadata, indent=2))


def recipe(text: str) -> str:
    return f"splits: {{train: {{transforms: [{text}]}}}}\n"


RECIPES: dict[str, str | bytes] = {
    "good.yaml": json.dumps(TINY),
    "brackets.yaml": "size: [224\nsplits: {",
    "latin.yaml": "size: 8 # \xe9\n".encode("latin-1"),
    "list.yaml": "- a\n",
    "twice.yaml": "size: 8\nsize: 9\n",
    "object.yaml": "size: !!python/object:os.system {}",
    "key.yaml": "szie: 8\n",
    "value.yaml": "size: big\n",
    "transform.yaml": recipe("{HorizontalFlipp: {}}"),
    "argument.yaml": recipe("{HorizontalFlip: {pp: 1}}"),
    "range.yaml": recipe("{HorizontalFlip: {p: 7}}"),
    "lambda.yaml": recipe("{Lambda: {}}"),
    "mask.yaml": recipe("{MaskDropout: {}}"),
    "shape.yaml": recipe("{Resize: {height: 8, width: 9}}"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Folders, recipes and caches in every state."""
    top = tmp_path_factory.mktemp("mistäkes of a newcomer")
    image_folder(top / "phö tos", count=2)
    for name, content in RECIPES.items():
        (top / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    build(top / "phö tos", top / "cä che", TINY, workers=1)
    (top / "empty").mkdir()
    for folder in ("texts", "foreign"):
        (top / folder).mkdir()
        (top / folder / "notes.txt").write_text("")
    for name in ("damaged", "newer", "needy", "cut", "unbuilt", "lost", "zarr"):
        shutil.copytree(top / "cä che", top / name)
    (top / "damaged" / "zarr.json").write_text('{"node')
    edited_root(top / "newer", format_version=2)
    edited_root(top / "needy", needs=["zstd"])
    edited_root(top / "unbuilt", snapshot=None, digest=None, last=None)
    shutil.rmtree(top / "unbuilt" / "snapshots" / "000001")
    (shard,) = (top / "cut").glob("tensors/*/image/c.*")
    shard.write_bytes(shard.read_bytes()[:100])
    (top / "lost" / "pending" / "source").unlink()
    (top / "zarr" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    image_folder(top / "moved", count=2, first_seed=7)
    build(top / "moved", top / "stays", TINY, workers=1)
    shutil.rmtree(top / "moved")
    return top


def listing(top: Path) -> list[tuple[str, int]]:
    return sorted((str(path), path.stat().st_size) for path in top.rglob("*"))


@pytest.fixture
def run(place, monkeypatch, capsys):
    """`decant …` in this process: the exit code and what is printed; nothing is changed by a refusal."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(place)
        monkeypatch.setattr("sys.argv", ["decant", *arguments])
        monkeypatch.setattr("signal.signal", lambda *_: None)
        before = listing(place)
        with pytest.raises(SystemExit) as caught:
            cli.main()
        assert listing(place) == before
        shown = capsys.readouterr()
        return caught.value.code, shown.out, shown.err

    return call


NEW = "build|phö tos|new|"
PREVIEW = "preview|phö tos|--recipe|good.yaml|"
NO_CACHE = "; build one with: decant build SOURCE CACHE"
NEXT_REPAIR = "run: decant repair SOURCE CACHE"

REFUSALS: list[tuple[str, int, tuple[str, ...]]] = [
    # the command itself
    ("buidl|phö tos|new", 2, ("no command 'buidl'; did you mean 'build'?",)),
    ("frobnicate", 2, ("no command 'frobnicate'", "decant --help")),
    ("--verison", 2, ("'--verison'", "'--version'")),
    ("build", 2, ("Missing argument 'SOURCE'", "decant build --help")),
    ("build|phö tos", 2, ("Missing argument 'CACHE'",)),
    ("build|phö tos|new|more", 2, ("unexpected extra argument (more)",)),
    (NEW + "--wrokers|2", 2, ("'--wrokers'", "'--workers'")),
    ("build||new", 2, ("'SOURCE': a path expected, found an empty text", "variable of the shell")),
    ("show|", 2, ("'CACHE': a path expected, found an empty text",)),
    # SOURCE
    ("build|nowhere|new", 2, ("SOURCE 'nowhere' does not exist",)),
    ("build|good.yaml|new", 2, ("SOURCE 'good.yaml' is a file; a folder of images expected",)),
    ("build|empty|new", 2, ("SOURCE 'empty' holds no image", ".jpeg", "found 0 other and 0 hidden files")),
    ("build|texts|new", 2, ("SOURCE 'texts' holds no image", "found 1 other")),
    ("init|nowhere", 2, ("SOURCE 'nowhere' does not exist",)),
    ("init|empty", 2, ("SOURCE 'empty' holds no image",)),
    ("preview|nowhere", 2, ("SOURCE 'nowhere' does not exist",)),
    ("watch|nowhere|new", 2, ("SOURCE 'nowhere' does not exist",)),
    ("status|nowhere|cä che", 2, ("SOURCE 'nowhere' does not exist",)),
    (
        "status|stays",
        2,
        ("'stays' does not say where", "moved' is not there any more", "run: decant status SOURCE CACHE"),
    ),
    ("status|lost", 2, ("'lost' does not say where its images are; run: decant status SOURCE CACHE",)),
    ("report|cä che|--source|nowhere|-o|r.html", 2, ("SOURCE 'nowhere' is not a folder; name the one",)),
    # CACHE to build
    ("build|phö tos|good.yaml", 2, ("CACHE 'good.yaml' is a file; name a folder that is new",)),
    (
        "build|phö tos|foreign",
        2,
        ("CACHE 'foreign' is not a decant cache and not empty", "'notes.txt'", "a new folder"),
    ),
    ("build|phö tos|phö tos/new", 2, ("CACHE 'phö tos/new' lies inside SOURCE 'phö tos'; name a folder outside",)),
    ("watch|phö tos|phö tos/new", 2, ("lies inside SOURCE",)),
    ("build|phö tos|good.yaml/new", 7, ("cannot create folder 'good.yaml/new': a part of this path is a file",)),
    ("build|phö tos|cä che|--limit|2", 2, ("limit: 'cä che' has a snapshot", "only into a new cache")),
    ("build|phö tos|damaged", 6, ("'damaged/zarr.json' is damaged", NEXT_REPAIR)),
    ("build|phö tos|newer", 6, ("'newer' has format version 2, this decant reads version 1; install",)),
    ("build|phö tos|needy", 6, ("'needy' needs zstd, unknown to this decant; install a newer one",)),
    # the recipe
    (
        NEW + "--recipe|none.yaml",
        2,
        ("recipe 'none.yaml' cannot be read: No such file", "decant init SOURCE writes one"),
    ),
    (NEW + "--recipe|empty", 2, ("recipe 'empty' cannot be read: Is a directory",)),
    (
        NEW + "--recipe|brackets.yaml",
        2,
        ("recipe 'brackets.yaml', line 2, column 7: expected ',' or ']', but got ':'",),
    ),
    (NEW + "--recipe|latin.yaml", 2, ("recipe 'latin.yaml' is not text in UTF-8; save it as UTF-8",)),
    (
        NEW + "--recipe|list.yaml",
        2,
        ("'list.yaml': a mapping of names to values expected, like 'size: 224', found ['a']",),
    ),
    (NEW + "--recipe|twice.yaml", 2, ("'twice.yaml', line 2, column 1: key 'size' stands twice",)),
    (
        NEW + "--recipe|object.yaml",
        2,
        ("'object.yaml', line 1, column 7", "python/object:os.system", "write plain values"),
    ),
    (NEW + "--recipe|key.yaml", 2, ("'key.yaml': szie: unknown key; did you mean 'size'?",)),
    (NEW + "--recipe|value.yaml", 2, ("size: one number, or [height, width] expected, found 'big'",)),
    (
        NEW + "--recipe|transform.yaml",
        2,
        ("splits.train.transforms[0]: no transform", "did you mean 'HorizontalFlip'?"),
    ),
    (NEW + "--recipe|argument.yaml", 2, ("HorizontalFlip: no argument 'pp'; did you mean 'p'?",)),
    (NEW + "--recipe|range.yaml", 2, ("HorizontalFlip.p: should be less than or equal to 1, found 7",)),
    (NEW + "--recipe|lambda.yaml", 2, ("transforms[0]: Lambda cannot be serialised; leave it out",)),
    (NEW + "--recipe|mask.yaml", 2, ("transforms[0]: MaskDropout needs a mask; there are only 8-bit images",)),
    (NEW + "--recipe|shape.yaml", 2, ("the transforms give 8x9", "promises 224x224", "end with a crop or Resize")),
    (NEW + "--set|size", 2, ("--set 'size': KEY=VALUE expected, such as size=160",)),
    (NEW + "--set|=8", 2, ("--set '=8': KEY=VALUE expected",)),
    (NEW + "--set|size=[8", 2, ("--set 'size=[8': '[8' is not a valid value",)),
    (NEW + "--set|sise=8", 2, ("sise: unknown key; did you mean 'size'?",)),
    (
        NEW + "--set|splits.train.variants=0",
        2,
        ("splits.train.variants: should be greater than or equal to 1, found 0",),
    ),
    (NEW + "--set|splits.vla.variants=2", 2, ("split 'vla': there is no folder 'vla' in SOURCE", "there: cat, dog")),
    (NEW + "--set|dtype=float31", 2, ("dtype: 'float31' is unknown; did you mean 'float16'?",)),
    (NEW + "--set|normalize=imagnet", 2, ("normalize: dataset, imagenet or {mean", "did you mean 'imagenet'?")),
    (NEW + "--set|seed=-1", 2, ("seed: should be greater than or equal to 0, found -1",)),
    (NEW + "--set|classes=[a,a]", 2, ("classes: 'a' stands twice; each class has one id",)),
    # numbers
    (NEW + "--workers|0", 2, ("workers: 1 or more expected, found 0",)),
    (NEW + "--workers|many", 2, ("'--workers': 'many' is not a valid integer",)),
    (NEW + "--limit|0", 2, ("limit: 1 or more expected, found 0",)),
    (NEW + "--max-failures|150%", 2, ("max_failures: a number like 100 or a share like 1% expected, found '150%'",)),
    (NEW + "--shard-mib|-1", 2, ("shard_mib: more than 0 expected, found -1.0",)),
    (NEW + "--device|cud", 2, ("device 'cud' is unknown; did you mean 'cuda'?",)),
    ("init|phö tos|--size|big", 2, ("--size: a number like 160, or HEIGHTxWIDTH", "found 'big'")),
    ("init|phö tos|--size|0", 2, ("size: sides of 1 to 16384 pixels expected, found 0 and 0",)),
    ("watch|phö tos|new|--settle|-1", 2, ("settle: seconds, 0 or more, expected, found -1.0",)),
    ("watch|phö tos|new|--poll|nan", 2, ("poll: seconds, 0 or more, expected, found nan",)),
    ("gc|cä che|--keep|0", 2, ("keep: 1 or more snapshots expected, found 0",)),
    # what is asked of a cache
    ("show|cä che|99", 4, ("split 'train' has samples 0 to 3, there is no 99",)),
    ("show|cä che|--|-5", 4, ("split 'train' has samples 0 to 3, there is no -5",)),
    ("show|cä che|x", 4, ("split 'train' has no sample 'x'; paths are relative to SOURCE",)),
    ("show|cä che|--split|vla", 4, ("'cä che' has no split 'vla'; there are: train",)),
    (
        "show|cut|0",
        6,
        ("shard 0 of tensors", "bytes expected, 100 found: the file is cut", "'cat/000.png'", NEXT_REPAIR),
    ),
    ("show|zarr", 4, ("'zarr' is a Zarr group, but not a decant cache" + NO_CACHE,)),
    (PREVIEW + "--split|vla", 2, ("the recipe has no split 'vla'; there are: train",)),
    ("rollback|cä che|7", 4, ("'cä che' has no snapshot '7'; there are: 000001",)),
    ("status|a|b|c", 2, ("SOURCE and CACHE expected, found 3 folders",)),
    ("repair|a|b|c", 2, ("at most SOURCE and CACHE expected",)),
    # where to write
    ("init|phö tos|-o|good.yaml", 2, ("'good.yaml' exists; name another file with -o", "--force")),
    ("init|phö tos|-o|empty", 2, ("'empty' is a folder; the name of a file expected, such as recipe.yaml",)),
    ("init|phö tos|-o|nö where/r.yaml", 7, ("cannot create 'nö where/r.yaml': there is no folder", "create it first")),
    (PREVIEW + "-o|nö where/p.png", 7, ("cannot write 'nö where/p.png': there is no folder 'nö where'; create it",)),
    (PREVIEW + "-o|empty", 2, ("'empty' is a folder; the name of a file expected, such as 'empty/look.png'",)),
    (PREVIEW + "-o|phö tos/p.png", 2, ("'phö tos/p.png' lies inside SOURCE", "name a file outside")),
    (PREVIEW + "-o|p.jpg", 2, ("'p.jpg': a name that ends with .png expected", "found '.jpg'")),
    ("show|cä che|-o|cä che/p.png", 2, ("lies inside CACHE 'cä che', where verify would take it for damage",)),
    ("show|cä che|-o|nö where/p.png", 7, ("cannot write 'nö where/p.png': there is no folder",)),
    ("show|cä che|-o|p.gif", 2, ("'p.gif': a name that ends with .png expected",)),
    ("report|cä che", 2, ("Missing option '-o'",)),
    ("report|cä che|-o|r.pdf", 2, ("'r.pdf': a name that ends with .html expected",)),
    ("report|cä che|-o|empty", 2, ("'empty' is a folder; the name of a file expected, such as 'empty/look.html'",)),
    ("report|cä che|-o|cä che/r.html", 2, ("lies inside CACHE",)),
    ("report|cä che|-o|good.yaml/r.html", 7, ("cannot write 'good.yaml/r.html': there is no folder",)),
]

READERS = ("show", "status", "log", "verify", "repair", "gc", "report", "rollback")
FOLDERS = {
    "nowhere": (4, "'nowhere' does not exist" + NO_CACHE),
    "foreign": (4, "'foreign' is not a decant cache (it has no zarr.json)" + NO_CACHE),
    "good.yaml": (4, "'good.yaml' is a file, a cache is a folder; name the one that decant build made"),
    "newer": (6, "'newer' has format version 2, this decant reads version 1; install the decant that wrote it"),
    "needy": (6, "'needy' needs zstd, unknown to this decant; install a newer one"),
    "damaged": (6, "'damaged/zarr.json' is damaged: it is not the metadata of a Zarr group; " + NEXT_REPAIR),
    "unbuilt": (
        4,
        "'unbuilt' has no finished snapshot: its first build is running or was interrupted; run decant build",
    ),
}
REST = {"report": ["-o", "page.html"], "rollback": ["000001"]}
NO_REFUSAL = {("damaged", "verify"), ("damaged", "repair"), ("damaged", "gc")} | {
    ("unbuilt", command) for command in ("log", "verify", "repair", "gc", "rollback")
}
"""What these do with it is their work, and has tests of its own."""


def is_a_message(text: str) -> bool:
    """One line of ours, or click's usage and one line; never a traceback."""
    lines = text.rstrip("\n").split("\n")
    if lines[0].startswith("watching "):
        lines = lines[1:]
    return (len(lines) == 1 and lines[0].startswith("decant: ")) or (
        len(lines) == 4 and lines[0].startswith("Usage: decant") and lines[3].startswith("Error: ")
    )


@pytest.mark.parametrize(("command", "code", "words"), REFUSALS, ids=[row[0].replace("|", " ") for row in REFUSALS])
def test_a_mistake_is_named_with_the_way_out(run, command, code, words):
    found, out, err = run(*command.split("|"))

    assert found == code, err
    assert out == ""
    assert is_a_message(err), err
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    ("folder", "command"),
    [(folder, command) for folder in FOLDERS for command in READERS if (folder, command) not in NO_REFUSAL],
)
def test_every_command_says_the_same_of_a_folder_that_is_no_cache(run, folder, command):
    code, words = FOLDERS[folder]

    found, out, err = run(command, folder, *REST.get(command, []))

    assert found == code, err
    assert out == ""
    assert is_a_message(err), err
    assert words in err


def test_a_cache_that_another_builder_works_on(run, place):
    with BuildersLock(place / "cä che"):
        code, _, err = run("build", "phö tos", "cä che", "--checksum")

    assert code == 5
    assert is_a_message(err)
    assert "another builder works on 'cä che': process" in err
    assert "wait until it is done, or stop it" in err


def test_a_report_without_its_library(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    code, _, err = run("report", "cä che", "-o", "page.html")

    assert code == 2
    assert "the plots of a report need matplotlib, which cannot be imported" in err
    assert "-m pip install 'matplotlib" in err


# -- from Python -------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(place, monkeypatch):
    monkeypatch.chdir(place)
    return CachedDataset("cä che")


CALLS = [
    (lambda d: CachedDataset("nowhere"), NotFoundError, "nowhere' does not exist; build one with: decant build"),
    (lambda d: CachedDataset("phö tos"), NotFoundError, "phö tos' is not a decant cache (it has no zarr.json)"),
    (lambda d: CachedDataset("damaged"), IntegrityError, "is damaged: it is not the metadata of a Zarr group; run: "),
    (lambda d: CachedDataset("cut")[0], IntegrityError, "bytes expected, 100 found: the file is cut"),
    (lambda d: CachedDataset("cä che", "val"), NotFoundError, "cä che' has no split 'val'; there are: train"),
    (lambda d: CachedDataset("cä che", snapshot="7"), NotFoundError, "has no snapshot '7'; there are: 000001"),
    (lambda d: CachedDataset("cä che", variant=4), NotFoundError, "has variants 0 to 0, there is no 4"),
    (
        lambda d: CachedDataset("cä che", dtype="float16"),
        StoreUsageError,
        "dtype: torch.float16, torch.float32 or torch.bfloat16 expected, as the cache holds float16, found 'float16'",
    ),
    (lambda d: CachedDataset("cä che", io="read"), StoreUsageError, "io: 'mmap' or 'pread' expected, found 'read'"),
    (lambda d: CachedDataset("cä che", check="all"), StoreUsageError, "'never' or 'first' expected, found 'all'"),
    (
        lambda d: CachedDataset("cä che", crop_mode="left"),
        StoreUsageError,
        "'random' or 'center' expected, found 'left'",
    ),
    *[
        (
            lambda d, crop=crop: CachedDataset("cä che", crop=crop),
            StoreUsageError,
            f"crop: a window of 1x1 to 8x8, {why}",
        )
        for why in ("the size of the stored images, expected, found",)
        for crop in (0, 9, (4,), (4, 9), "8", 4.5, (4, 4.5), True)
    ],
    (lambda d: d[4], IndexError, "split 'train' has samples 0 to 3, there is no 4"),
    (lambda d: d[-5], IndexError, "split 'train' has samples 0 to 3, there is no -5"),
    (lambda d: d.set_epoch(-1), StoreUsageError, "epoch: an integer of 0 or more expected, found -1"),
    (lambda d: d.normalizer(), StoreUsageError, "which are normalised already; open it with dtype=torch.uint8"),
    (lambda d: list(DataLoader(d, sampler=[99])), IndexError, "there is no 99"),
    (lambda d: ShardShuffleSampler([1]), StoreUsageError, "a CachedDataset expected, found list"),
    (lambda d: ShardShuffleSampler(d, seed=-1), StoreUsageError, "seed: an integer of 0 or more"),
    (lambda d: ShardShuffleSampler(d, num_replicas=0), StoreUsageError, "num_replicas of 1 or more expected, found 0"),
    (lambda d: ShardShuffleSampler(d, 2, 2), StoreUsageError, "a rank of 0 to 1 expected, found 2"),
    (
        lambda d: ShardShuffleSampler(d).load_state_dict({"epoch": 3}),
        StoreUsageError,
        "what state_dict() of a ShardShuffleSampler gave expected, found {'epoch': 3} (KeyError: 'version')",
    ),
    (
        lambda d: ShardShuffleSampler(CachedDataset("stays")).load_state_dict(ShardShuffleSampler(d).state_dict()),
        StoreUsageError,
        "the same positions may be other samples there; begin the epoch anew",
    ),
    (lambda d: to_device([], "cpu", prefetch=0), StoreUsageError, "prefetch: 1 or more expected, found 0"),
    (
        lambda d: to_device([], "cpu", dtype=torch.int8),
        StoreUsageError,
        "a floating-point type expected, found torch.int8",
    ),
    (lambda d: Recipe(szie=8), RecipeError, "szie: unknown key; did you mean 'size'?"),
    (lambda d: Recipe.of("nowhere"), NotFoundError, "'nowhere' does not exist; build one with"),
    (lambda d: Recipe.of("cä che").render("none.jpg", split="train"), SourceError, "read: 'none.jpg': No such file"),
    (lambda d: Recipe.of("cä che").render(b"xx", split="train"), SourceError, "not an image that OpenCV can decode"),
    (lambda d: Recipe.of("cä che").render(b"xx", split="val"), RecipeError, "no split 'val'; there are: train"),
    (
        lambda d: Recipe.of("cä che").render(np.zeros((4, 4), np.uint8), split="train"),
        SourceError,
        "uint8 (H, W, 3) expected, found uint8 (4, 4)",
    ),
    (
        lambda d: build("phö tos", "new", 3),
        UsageError,
        "a Recipe, a dict or the path of a YAML file expected, found int",
    ),
]


@pytest.mark.parametrize(("call", "kind", "words"), CALLS, ids=[f"{row[1].__name__} {row[2][:40]}" for row in CALLS])
def test_a_call_that_cannot_be_meant(data, call, kind, words):
    with pytest.raises(kind) as caught:
        call(data)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(data):
    with pytest.raises(StoreUsageError, match="torch finds no CUDA device on this machine; use 'cpu'"):
        to_device(DataLoader(data), "cuda")


def test_a_cache_that_was_moved_while_it_was_open(place, tmp_path):
    shutil.copytree(place / "cä che", tmp_path / "cache")
    opened = CachedDataset(tmp_path / "cache")
    (tmp_path / "cache").rename(tmp_path / "elsewhere")

    with pytest.raises(IntegrityError, match=r"missing, and so is '.*/cache' \(was it moved or removed\?\)"):
        opened[0]


# -- shells ------------------------------------------------------------------------------------------------------------


def shell(place: Path, line: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """A line of bash in which `decant` is the command."""
    return subprocess.run(
        ["bash", "-c", f'decant() {{ "{DECANT}" "$@"; }}; {line}'],
        cwd=place,
        env={key: value for key, value in (os.environ | environment).items() if value},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        ("decant log 'cä che' | head -1", 0, b"* 000001", b""),
        ("decant show 'cä che' --json | true", 0, b"", b""),
        ("decant log 'cä che' > /dev/full", 7, b"", b"decant: cannot write 'standard output': the disk is full"),
        ("decant log 'cä che' >&-", 0, b"", b""),
        ("decant log 'cä che' 2>&-", 0, b"* 000001", b""),
        ("decant log nowhere 2>&-", 4, b"", b""),
        ("decant log 'cä che' < /dev/null", 0, b"* 000001", b""),
        ("cd empty && rmdir ../empty && decant log ../nowhere; mkdir ../empty; exit 0", 0, b"", b""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_shell_does_with_streams(place, line, code, out, err):
    ran = shell(place, line)

    assert ran.returncode == code, ran.stderr
    assert ran.stdout.startswith(out)
    assert ran.stderr.startswith(err)
    assert b"Traceback" not in ran.stderr
    assert b"Exception ignored" not in ran.stderr


@pytest.mark.parametrize(
    "environment",
    [
        {"HOME": ""},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
        {"NO_COLOR": "1", "TERM": "dumb"},
        {"TERM": "", "COLUMNS": "20"},
    ],
    ids=str,
)
def test_any_environment_will_do(place, environment):
    ran = shell(place, "decant show 'cä che' 0", **environment)

    assert ran.returncode == 0, ran.stderr
    assert b"cat/000.png" in ran.stdout
    assert ran.stderr == b""
    assert b"\x1b" not in ran.stdout

    refused = shell(place, "decant show 'nö where'", **environment)

    assert refused.returncode == 4
    assert refused.stderr.startswith(b"decant: 'n")
    assert b"Traceback" not in refused.stderr


def test_names_that_are_no_utf_8(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    image_folder(tmp_path / name, (os.fsdecode(b"k\xe4tzchen"), "dog"), count=2)
    (tmp_path / "recipe.yaml").write_text(json.dumps(TINY))
    n = "$'caf\\xe9'"
    lines = [
        f"decant init {n} -o {n}.yaml",
        f"decant build {n} {n}.cache --recipe recipe.yaml --workers 1",
        f"decant show {n}.cache 0 -o {n}.png && test -s {n}.png",
        f"decant report {n}.cache -o {n}.html && test -s {n}.html",
        f"decant status {n}.cache --json",
        f"decant doctor {n}.cache --json",
    ]
    for line in lines:
        ran = shell(tmp_path, line)
        assert ran.returncode == 0, ran.stderr
        ran.stdout.decode("utf-8")  # whatever the names are
    ran = shell(tmp_path, f"decant build {n} {n}/cache")
    assert ran.returncode == 2
    assert b"lies inside SOURCE" in ran.stderr


@pytest.mark.parametrize("command", ["", *cli._COMMANDS])
def test_help_fits_into_80_columns(monkeypatch, capsys, command):
    monkeypatch.setattr("sys.argv", ["decant", *command.split(), "--help"])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit):
        cli.main()

    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert re.search(r"^Usage: decant", shown)


def test_a_terminal_without_colours(place, tmp_path):
    """A dumb terminal of 80 columns gets no escape sequence and no line that it would break."""
    command = [DECANT, "build", "phö tos", tmp_path / "cache", "--recipe", "good.yaml", "--workers", "1"]

    ran, shown = watched(command, place, TERM="dumb", NO_COLOR="1", COLUMNS="80", PYTHONPATH=str(ROOT))

    assert ran.returncode == 0
    assert b"\x1b" not in shown
    assert all(len(line) <= 80 for line in shown.decode().splitlines())
