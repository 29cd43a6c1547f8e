"""The README's blocks run as they stand, and its commands exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from preprocess import Recipe, build
from preprocess.cli import decant
from tests.helpers import write_image

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with `photos`, `recipe.yaml`, the cache made of both, and a new picture."""
    root = tmp_path_factory.mktemp("readme")
    for split in ("train", "val"):
        for number in range(4):
            write_image(root / "photos" / split / "cat" / f"{split}{number}.jpg", number, 60, 80)
    write_image(root / "new.jpg", 99, 60, 80)
    (root / "recipe.yaml").write_text(blocks("yaml")[0])
    report = build(root / "photos", root / "photos.cache", root / "recipe.yaml", workers=1)
    assert report.variants == {"train": 4, "val": 1}
    return root


@pytest.mark.parametrize("number", range(len(blocks("python"))))
def test_python_blocks_run(place, number):
    subprocess.run([sys.executable, "-c", blocks("python")[number]], cwd=place, check=True, env=os.environ)


def test_the_table_of_keys_is_a_valid_recipe_with_the_defaults():
    values = yaml.safe_load(blocks("yaml")[1].replace("transforms: [...]", "transforms: []"))
    values["normalize"], plain = "dataset", Recipe().canonical()
    values.pop("splits")
    values.pop("classes")

    assert Recipe.from_dict(values).canonical() == plain


def test_every_command_is_mentioned_and_has_help_with_an_example():
    context = click.Context(decant)
    for name in decant.list_commands(context):
        command = decant.get_command(context, name)
        assert re.search(rf"\bdecant {name}\b", TEXT), name
        assert command.help, name
        assert all(getattr(option, "help", "") for option in command.params if isinstance(option, click.Option))


def test_every_make_target_it_names_exists():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert set(re.findall(r"\bmake ([a-z]+)\b(?= |`)", TEXT)) <= targets | {"it"}
    assert {"cache", "test", "lint", "bench"} <= set(re.findall(r"\bmake ([a-z]+)", TEXT))


def test_links_into_the_repository_lead_somewhere():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT):
        assert (ROOT / target).exists(), target
