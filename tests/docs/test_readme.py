"""The README names every command, and what it names exists. Its blocks are run with those of the other pages."""

import re
from pathlib import Path

import click

from preprocess.cli import decant

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


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
