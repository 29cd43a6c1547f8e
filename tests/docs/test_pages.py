"""Every block of every page runs, or says why it does not. `pages.py` has the convention."""

import contextlib
import json
import subprocess
from pathlib import Path

import pytest
import yaml

from preprocess import Recipe
from tests.docs.console import commands, missing
from tests.docs.interpreter import Interpreter
from tests.docs.pages import PAGES, ROOT, Block, blocks
from tests.docs.place import furnish

TIMEOUT_S = 120


class Untrue(Exception):
    """A page promises what does not happen."""


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_page(page: Path, folder: Path) -> None:
    """Run or check all blocks of a page in a new `folder`; the error names the line that is not true."""
    environment = furnish(folder)
    with Interpreter(folder, environment) as interpreter:
        for block in blocks(page):
            if not block.runs():
                continue
            if block.language == "yaml":
                Recipe.from_dict(yaml.safe_load(block.text) or {})
            elif block.language == "json":
                json.loads(block.text)
            if "file" in block.remarks:
                (folder / block.remarks["file"]).write_text(block.text)
            elif block.language == "python":
                said = interpreter.run(block.text, page.name, block.line, TIMEOUT_S)
                if said is not None:
                    raise Untrue(f"{block.place}: this Python does not run\n{said}")
            elif block.language == "console":
                run_console(block, folder, environment)
            elif block.language == "before":
                run_command(block.text, 0, block.place, folder, environment)


def run_console(block: Block, folder: Path, environment: dict[str, str]) -> None:
    for command in commands(block.text, block.line):
        place = f"{block.place.rpartition(':')[0]}:{command.line}"
        output = run_command(command.text, command.status, place, folder, environment)
        if "output differs" not in block.remarks:
            lacking = missing(command.shown, output)
            if lacking is not None:
                raise Untrue(f"{place}: $ {command.text}\ndoes not say\n{lacking}\nbut\n{output}")


def run_command(command: str, status: int, place: str, folder: Path, environment: dict[str, str]) -> str:
    ran = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIMEOUT_S,
        check=False,
    )
    output = ran.stdout.decode("utf-8", "replace")
    if ran.returncode != status:
        raise Untrue(f"{place}: $ {command}\nexits with {ran.returncode}, not {status}\n{output}")
    return output


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_the_blocks_of_a_page_run(page, tmp_path):
    run_page(page, tmp_path / "page")


def left_out() -> list[Block]:
    found = []
    for page in PAGES:
        with contextlib.suppress(ValueError):  # a page that cannot be taken apart fails in its own test
            found += [block for block in blocks(page) if "not run" in block.remarks]
    return found


@pytest.mark.parametrize("block", left_out(), ids=lambda block: block.place)
def test_blocks_that_are_not_run(block):
    pytest.skip(f"{block.place}: {block.remarks['not run']}")


# -- the convention itself: what is not true on a page is found --------------------------------------------------------


def failure_of(text: str, tmp_path: Path) -> str:
    """What is said about a page that is not true."""
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises((Untrue, ValueError)) as error:
        run_page(page, tmp_path / "folder")
    return str(error.value)


def test_blocks_run_in_page_order_and_share_names_and_files(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- before: mkdir out -->\n\n"
        "```python\nfrom pathlib import Path\nnames = sorted(p.name for p in Path('photos/train').iterdir())\n```\n\n"
        "1. In a list:\n\n   ```console\n   $ echo 12 files in 0.5 s > out/a; cat out/a\n   7 files ... in 1,200 ms\n"
        "   $ test -e recipe.yaml  # exits with 1\n   ```\n\n"
        "<!-- file: recipe.yaml -->\n```yaml\nsize: 32\n```\n\n"
        "```console\n$ cat \\\n  recipe.yaml\nsize: 64\n$ make help\n...\nmake clean ...\n```\n\n"
        "```python\nassert names == ['cat', 'dog'] and Path('out/a').exists() and __name__ == '__main__'\n```\n"
    )

    run_page(page, tmp_path / "folder")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("Text.\n\n```python\n\nname_that_is_not_there\n```\n", 'File "page.md", line 5'),
        ("```python\nimport os\nos._exit(0)\n```\n", "page.md:2: this Python does not run"),
        ("```console\n$ true\n$ false\n```\n", "page.md:3: $ false\nexits with 1, not 0"),
        ("```console\n$ true   # exits with 6\n```\n", "exits with 0, not 6"),
        ("```console\n$ echo built it\nbuilt two\n```\n", "does not say\nbuilt two"),
        ("```console\n$ echo b; echo a\na\nb\n```\n", "does not say\nb"),
        ("<!-- before: exit 3 -->\n", "exits with 3"),
        ("```yaml\nsizes: 3\n```\n", "sizes"),
        ("```json\n{]\n```\n", "line 1"),
        ("```sh\nls\n```\n", "page.md:1: sh is not run; say why"),
        ("```\nls\n```\n", "a block without a language is not run"),
        ("Text\n\n    indented\n", "page.md:3: an indented block is not run"),
        ("<!-- not run: -->\n```sh\nls\n```\n", "say more behind 'not run:'"),
        ("<!-- file: a.py -->\n\nText\n", "has no block behind it"),
    ],
)
def test_what_is_not_true_is_found(text, complaint, tmp_path):
    assert complaint in failure_of(text, tmp_path)


def test_a_reason_leaves_a_block_out(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("<!-- not run: it needs docker -->\n```console\n$ docker run it\n```\n")

    run_page(page, tmp_path / "folder")
    assert [block.remarks for block in blocks(page)] == [{"not run": "it needs docker"}]
