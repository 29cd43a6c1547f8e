"""The README's blocks run as they stand, and its commands exist."""

import os
import re
import subprocess
import sys
import textwrap
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


def run(place, *numbers, before="", indent=""):
    """Run blocks one after the other in a fresh process."""
    code = before + textwrap.indent("\n".join(blocks("python")[number] for number in numbers), indent)
    subprocess.run([sys.executable, "-c", code], cwd=place, check=True, env=os.environ)


def test_the_training_loop_runs_in_single_precision(place):
    run(place, 0)


def test_the_training_loop_runs_under_autocast(place):
    run(place, 0, before="import torch\nwith torch.autocast('cpu', torch.bfloat16):\n", indent="    ")


def test_what_else_it_does_runs_after_it(place):
    run(place, 0, 1)


def test_rendering_at_inference_runs(place):
    run(place, 2)
    assert len(blocks("python")) == 3


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
