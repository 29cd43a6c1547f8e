"""The tables of the reference say what the code says."""

import ast
import builtins
import re
import shlex
from importlib import import_module

import click
import pytest
import yaml

import cache_store.errors
import preprocess.errors
from cache_store.manifest import COLUMNS
from preprocess.cli import decant
from preprocess.recipe import Decode, MeanStd, Recipe, SplitRecipe
from tests.docs.pages import ROOT

REFERENCE = ROOT / "docs" / "reference"


def rows(page: str) -> list[list[str]]:
    """Cells of all tables of a page."""
    lines = (REFERENCE / page).read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("|")]


def errors_of(module) -> set[type]:
    found = {each for each in vars(module).values() if isinstance(each, type) and issubclass(each, Exception)}
    return {each for each in found if each.__module__ == module.__name__}


def test_every_error_stands_beside_its_exit_code():
    listed = {(int(row[0]), name) for row in rows("exit-codes.md")[2:] for name in re.findall(r"`([\w.]+)`", row[-1])}
    expected = set()
    for module in (preprocess.errors, cache_store.errors):
        for each in errors_of(module) - {preprocess.errors.PreprocessError, cache_store.errors.CacheStoreError}:
            expected.add((each.exit_code, each.__name__))

    assert listed == expected - {(1, "SourceError")}


def test_every_column_stands_beside_its_type_and_dimensions():
    lengths = {"sample": "n", "variant": "K", "channel": "C", "axis": "2", "byte": "16"}
    types = {"<i8": "int64", "<u4": "uint32", "<u8": "uint64", "u1": "uint8", "<i4": "int32"}
    listed = {}
    for row in rows("format.md"):
        for name in re.findall(r"`(\w+)`", row[0]):
            if len(row) >= 4:
                listed[name] = (row[1], row[2])
    expected = {}
    for name, (dtype, dimensions) in COLUMNS.items():
        shape = ", ".join(lengths[d] for d in dimensions) + ("," if len(dimensions) == 1 else "")
        expected[name] = (types[dtype], "(bytes,)" if name == "path" else f"({shape})")

    assert listed == expected


def test_every_key_of_a_recipe_has_its_place():
    named = set(re.findall(r"`([\w.<>]+)`", " ".join(row[0] for row in rows("recipe.md"))))
    keys = set(Recipe.model_fields)
    keys |= {f"decode.{key}" for key in Decode.model_fields}
    keys |= {f"normalize.{key}" for key in MeanStd.model_fields}
    keys |= {f"splits.<name>.{field.alias or key}" for key, field in SplitRecipe.model_fields.items()}

    assert keys <= named


def test_the_defaults_of_the_reference_are_those_of_the_code():
    block = re.search(r"```yaml\n(.*?)```", (REFERENCE / "recipe.md").read_text(), re.DOTALL)

    assert Recipe.from_dict(yaml.safe_load(block[1])) == Recipe()


def examples() -> list[str]:
    """The command lines in the help of all commands, without what is said beside them."""
    context = click.Context(decant)
    helps = [decant.help, *(decant.get_command(context, name).help for name in decant.list_commands(context))]
    lines = [line.strip() for text in helps for line in (text or "").splitlines()]
    return [re.split(r"\s{2,}", line)[0] for line in lines if line.startswith("decant ")]


@pytest.mark.parametrize("line", examples())
def test_the_examples_of_the_help_are_understood(line):
    _, name, *arguments = shlex.split(line)
    command = decant.get_command(click.Context(decant), name)

    assert command is not None
    command.make_context(name, arguments)  # raises UsageError of an option or argument that there is not


MODULES = sorted(
    path for package in ("preprocess", "cache_store", "loaders") for path in (ROOT / package).rglob("*.py")
)
_ENTRY = re.compile(r"^(\w[\w.]*(?:, \w[\w.]*)*) : ", re.MULTILINE)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_said_to_be_raised_exists(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        text = ast.get_docstring(node) or ""
        for section in re.findall(r"^Raises\n-+\n(.*?)(?:\n\n|\Z)", text, re.DOTALL | re.MULTILINE):
            for each in ", ".join(_ENTRY.findall(section)).split(", "):
                assert is_error(each, name), f"{path}:{node.lineno} {node.name} says it raises {each!r}"


def is_error(name: str, module: str) -> bool:
    """Whether it names a class of error where the docstring stands, or one of ours."""
    for place in (import_module(module), cache_store.errors, preprocess.errors, builtins):
        found = place
        for part in name.split("."):
            found = getattr(found, part, None)
        if isinstance(found, type) and issubclass(found, BaseException):
            return True
    return False
