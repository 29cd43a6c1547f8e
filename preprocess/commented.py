"""A recipe as YAML, each key under a comment that says why it is as it is."""

import textwrap
from collections.abc import Mapping
from typing import Any

import yaml

_WIDTH = 80

Place = tuple[str, ...]
"""Keys from the top of a recipe down; of a transform its name takes the place of its number."""


def comment_lines(text: str, indent: int = 0) -> list[str]:
    """Text as comments, wrapped."""
    start = " " * indent + "# "
    return textwrap.wrap(
        text, _WIDTH, initial_indent=start, subsequent_indent=start, break_on_hyphens=False, break_long_words=False
    )


def commented_yaml(values: Mapping[str, Any], comments: Mapping[Place, str], place: Place = ()) -> list[str]:
    """Plain data as YAML, each key under its comment; splits and transforms one below the other, the rest in a line."""
    lines: list[str] = []
    indent = 2 * len(place)
    for key, value in values.items():
        here = (*place, key)
        if not place:
            lines.append("")
        if here in comments:
            lines += comment_lines(comments[here], indent)
        if key == "splits" or place == ("splits",):
            lines += [f"{' ' * indent}{key}:", *commented_yaml(value, comments, here)]
        elif key == "transforms":
            lines.append(f"{' ' * indent}{key}:")
            for transform in value:
                ((name, arguments),) = transform.items()
                if (*place, name) in comments:
                    lines += comment_lines(comments[(*place, name)], indent + 2)
                lines.append(f"{' ' * indent}  - {name}: {_in_line(arguments)}")
        else:
            lines.append(f"{' ' * indent}{key}: {_in_line(value)}")
    return lines


def _in_line(value: Any) -> str:
    return yaml.safe_dump([value], default_flow_style=True, sort_keys=False, width=10_000).strip()[1:-1]
