"""What every command prints with `--json` is what docs/json.md says: key by key, in both directions.

A row of the page gives keys and a type: `string`, `integer`, `number`, `boolean`, `null`, `array`, `object`,
`array of T`, `object of T` (the keys are names), or several of them with `or` between. In a key, `[]` is an element and
`*` any name. A container that stands without its content has to link to where that is described. A row whose meaning
says 'only' needs a situation that is not made here: it is compared if it is printed.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from cache_store import layout
from preprocess.cli import decant
from tests.docs.pages import ROOT
from tests.helpers import TINY, image_folder, picture, write_image
from tests.unit.cache_store.stores import flip_bit

Shape = dict[str, set[str]]
"""Key -> its types."""

PAGE = (ROOT / "docs" / "json.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null", list: "array"}
RECIPE = TINY | {
    "splits": {"train": {"folder": ".", "variants": 2, "transforms": [{"Resize": {"height": 8, "width": 8}}, "CLAHE"]}}
}
TENSOR_BYTES = 8 * 8 * 3 * 2 + 4
BUILD = ("--recipe", "recipe.yaml", "--device", "cpu")
BENCH = ("--steps-per-s", 10, "--seconds", 0.1, "--batch-size", 4)


def commands() -> dict[str, click.Command]:
    context = click.Context(decant)
    found = {name: decant.get_command(context, name) for name in decant.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


# -- what is printed ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def printed(tmp_path_factory) -> dict[str, list[Any]]:
    """Section of the page -> what such commands print about a cache that something has happened to."""
    found: dict[str, list[Any]] = defaultdict(list)

    def run(section: str, *arguments: object, code: int = 0) -> None:
        ran = CliRunner().invoke(decant, [*map(str, arguments), "--json"])
        assert ran.exit_code == code, (arguments, ran.output, ran.exception)
        found[section].append(json.loads(ran.stdout))

    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("a place"))
    try:
        make_photos(Path("photos"))
        run("decant init", "init", "photos", "-o", "proposed.yaml")
        run("decant preview", "preview", "photos", "--recipe", "recipe.yaml")
        run("decant build", "build", "photos", "cache", *BUILD, "--dry-run")
        run("decant build", "build", "photos", "cache", *BUILD, "--workers", 1)
        run("decant build", "build", write_image(Path("flat/1.png"), 1).parent, "unlabelled", *BUILD, "--dry-run")
        change(Path("photos"))
        run("decant status", "status", "photos", "cache")
        run("decant build", "build", "photos", "cache", "--workers", 1)
        run("decant status", "status", "cache")
        run("decant status", "status", image_folder(Path("few"), ("cat",), count=1, first_seed=700), "cache")
        run("decant bench", "bench", "photos", "cache", *BUILD, *BENCH)
        run("decant report", "report", "cache", "-o", "page.html")
        run("decant show CACHE", "show", "cache")
        run("decant show CACHE INDEX", "show", "cache", 0, 1)
        run("decant log", "log", "cache")
        run("decant rollback", "rollback", "cache", "000001")
        run("decant rollback", "rollback", "cache", "000002")
        run("decant doctor", "doctor", "cache")
        run("decant doctor", "doctor", "photos", code=1)
        run("decant verify", "verify", "cache")
        damage(Path("cache"))
        run("decant verify", "verify", "cache", code=6)
        run("decant repair", "repair", image_folder(Path("others"), first_seed=500), "cache", code=6)
        run("decant repair", "repair", "photos", "cache", code=6)
        run("decant gc", "gc", "cache")
        found["decant watch"] = watched()
    finally:
        os.chdir(before)
    return found


def watched() -> list[Any]:
    """A build, one that fails, and a wait for the folder."""
    watch = "from preprocess.cli import main; main()"
    options = ("--recipe", "recipe.yaml", "--workers", "1", "--settle", "0", "--poll", "0.05", "--json")
    process = subprocess.Popen(
        [sys.executable, "-c", watch, "watch", "photos", "cache", *options],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    out = process.stdout
    assert out is not None
    try:
        lines = [out.readline()]
        Path("recipe.yaml").write_text("sise: 8")
        lines.append(out.readline())
        Path("photos").rename("elsewhere")
        lines.append(out.readline())
    finally:
        process.terminate()
        process.wait()
        out.close()
    documents = [json.loads(line) for line in lines]
    assert [each["event"] for each in documents] == ["up to date", "failed", "waiting"], documents
    assert [each["exit_code"] for each in documents] == [0, 2, 0]
    return documents


def make_photos(folder: Path) -> None:
    """Images, one of them no image, one of 16 bits and one in two classes, and a recipe beside them."""
    image_folder(folder, count=5)
    shutil.copy(folder / "cat" / "004.png", folder / "dog" / "same.png")
    (folder / "cat" / "bad.png").write_bytes(b"no image")
    (folder / "cat" / "deep.png").write_bytes(cv2.imencode(".png", picture(50).astype(np.uint16) * 257)[1].tobytes())
    folder.with_name("recipe.yaml").write_text(yaml.safe_dump(RECIPE))


def change(folder: Path) -> None:
    """Something of each kind that `status` tells apart."""
    write_image(folder / "cat" / "new.png", 77)
    write_image(folder / "cat" / "000.png", 78)
    (folder / "dog" / "000.png").rename(folder / "dog" / "zero.png")
    (folder / "dog" / "001.png").rename(folder / "cat" / "one.png")
    (folder / "dog" / "002.png").unlink()


def damage(cache: Path) -> None:
    """Both variants of a sample, a file of somebody else's, and tensors that no snapshot uses."""
    (tensors,) = [entry for entry in (cache / "tensors").iterdir() if entry.is_dir()]
    for byte in range(2 * TENSOR_BYTES):  # of a single bit, the checksum tells which one it was
        flip_bit(layout.shard_file(cache, tensors.name, 0), byte)
    (cache / "notes.txt").write_bytes(b"")
    (cache / "tensors" / ("0" * 32)).mkdir()


def shape_of(*documents: Any) -> Shape:
    """All keys of what was printed, with the types that they have there."""
    found: Shape = defaultdict(set)

    def look(value: Any, key: str) -> None:
        found[key].add(NAMES.get(type(value), "object"))
        if isinstance(value, dict):
            for name, below in value.items():
                look(below, f"{key}.{name}".lstrip("."))
        elif isinstance(value, list):
            for below in value:
                look(below, f"{key}[]")

    for document in documents:
        look(document, "")
    return found


# -- what is written ---------------------------------------------------------------------------------------------------


def rows(section: str) -> Iterator[tuple[list[str], str, str]]:
    """Keys, type and meaning of each row of a section's table."""
    for line in SECTIONS[section].splitlines():
        if line.startswith("| `"):
            keys, types, meaning = (cell.strip() for cell in line.strip("|").split(" | "))
            yield re.findall(r"`([^`]+)`", keys), types, meaning


def written(section: str) -> tuple[Shape, set[str], set[str]]:
    """All keys of a section with their types; those whose content is described elsewhere; those that may be absent."""
    found: Shape = defaultdict(set)
    elsewhere, rare = set(), set()
    for keys, types, meaning in rows(section):
        assert meaning, keys
        for key in keys:
            for above in (key[: end.start()] for end in re.finditer(r"\.|\[\]", key)):
                found[above].add("array" if key.startswith(f"{above}[]") else "object")
            for type_ in types.split(" or "):
                below = key
                *containers, last = type_.split(" of ")
                for container in containers:
                    found[below].add(container)
                    below += {"array": "[]", "object": ".*"}[container]
                found[below].add(last)
                if re.search(r"\bonly\b", meaning):
                    rare |= {key, below}
            if "](" in meaning:
                elsewhere.add(key)
    found[""].add("array" if any(key.startswith("[]") for key in found) else "object")
    return found, elsewhere, rare


def differences(said: Shape, wanted: Shape, elsewhere: set[str], rare: set[str]) -> list[str]:
    """What is printed and not written, written and not printed, or of another type."""
    found, seen = [], set()
    patterns = {key: re.compile(re.escape(key).replace(r"\*", r"[^.\[\]]+")) for key in wanted}
    for key, types in said.items():
        if any(key.startswith((f"{above}.", f"{above}[]")) for above in elsewhere):
            continue
        match = key if key in wanted else next((k for k, p in patterns.items() if p.fullmatch(key)), None)
        if match is None:
            found.append(f"{key} is printed, and not on the page")
            continue
        seen.add(match)
        allowed = wanted[match] | ({"integer"} if "number" in wanted[match] else set())
        if not types <= allowed:
            found.append(f"{key} is {' or '.join(sorted(types))}, the page says {' or '.join(sorted(wanted[match]))}")
    found += [f"{key} is on the page, and not printed" for key in wanted if key not in seen | rare]
    return found


# -- the two together --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS)
def test_what_a_command_prints_is_what_the_page_says(printed, section):
    assert differences(shape_of(*printed[section]), *written(section)) == []


def test_every_command_has_json_and_is_on_the_page():
    able = {name for name, command in commands().items() if any("--json" in each.opts for each in command.params)}

    assert {section.split()[1] for section in SECTIONS} == able
    assert able == set(commands())


@pytest.mark.parametrize(
    ("document", "difference"),
    [
        ({"count": 1, "rows": [{"name": "x"}], "by_split": {"train": 1.5}}, None),
        ({"count": None, "rows": [{"name": "x"}], "by_split": {"train": 1}, "rare": []}, None),
        ({"count": 1, "rows": [{"name": "x"}], "by_split": {"train": 1.5}, "more": 1}, "more is printed, and not"),
        ({"count": 1, "rows": [{"name": "x", "more": 1}], "by_split": {"a": 1.5}}, "rows[].more is printed, and not"),
        ({"count": 1, "rows": [], "by_split": {"train": 1.5}}, "rows[].name is on the page, and not"),
        ({"rows": [{"name": "x"}], "by_split": {"train": 1.5}}, "count is on the page, and not"),
        ({"count": 1.5, "rows": [{"name": "x"}], "by_split": {"train": 1.5}}, "count is number, the page says integer"),
        ({"count": True, "rows": [{"name": "x"}], "by_split": {"train": 1.5}}, "count is boolean"),
        ({"count": 1, "rows": [{"name": "x"}], "by_split": {"train": "1"}}, "by_split.train is string"),
        ({"count": 1, "rows": [{"name": "x"}], "by_split": {"train": 1.5}, "rare": [1]}, "rare[] is integer"),
    ],
)
def test_a_difference_is_found(monkeypatch, document, difference):
    table = (
        "| `count` | integer or null | m |\n| `rows[].name` | string | m |\n| `by_split` | object of number | m |\n"
        "| `rare` | array of string | only now and then |\n"
    )
    monkeypatch.setitem(SECTIONS, "made up", table)

    found = differences(shape_of(document), *written("made up"))

    assert (found == []) == (difference is None)
    assert difference is None or difference in "; ".join(found)
