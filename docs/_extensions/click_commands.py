"""Sphinx extension: `{decant} NAME` shows the help of a command as the program has it: usage, text, examples, options.

The heading above it is the page's own, so that it is there, and can be linked to, wherever the page is read.
"""

import inspect
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from preprocess.cli import decant


def markdown(name: str) -> list[str]:
    """The help of one command, or of `decant` itself."""
    context = click.Context(decant, info_name="decant")
    command: click.Command = decant
    if name != "decant":
        found = decant.get_command(context, name)
        if found is None:
            raise ValueError(f"there is no command {name!r}; there are: {', '.join(decant.list_commands(context))}")
        command, context = found, click.Context(found, info_name=name, parent=context)
    lines = _block([f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"], "text")
    for paragraph in inspect.cleandoc(command.help or "").split("\n\n"):
        keeps_lines = paragraph.startswith("\b\n")
        lines += _block(paragraph.splitlines()[1:], "text") if keeps_lines else [paragraph, ""]
    options = [p for p in command.get_params(context) if isinstance(p, click.Option)]
    rows = [f"| {_spelling(option, context)} | {_meaning(option)} |" for option in options]
    return [*lines, "| option | |", "|---|---|", *rows, ""]


def _spelling(option: click.Option, context: click.Context) -> str:
    metavar = "" if option.is_flag else f" {option.make_metavar(context)}"
    return " ".join(f"`{name}{metavar}`".replace("|", r"\|") for name in option.opts)


def _meaning(option: click.Option) -> str:
    text = option.help or ""
    if option.required:
        return f"{text} Required."
    return f"{text} Default: `{option.default}`." if option.show_default else text


def _block(lines: list[str], language: str) -> list[str]:
    return [f"```{language}", *lines, "```", ""]


class _Command(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        try:
            lines = markdown(self.arguments[0])
        except ValueError as error:
            raise self.error(str(error)) from None
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("decant", _Command)
    return {"parallel_read_safe": True}
