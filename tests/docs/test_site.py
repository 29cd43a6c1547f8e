"""The pages become a site without a warning; docstrings and help are on it as they are in the code."""

import importlib.util
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("sphinx") is None, reason="sphinx is not installed (the extra `docs` has it)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of HTML pages."""
    root = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", root / "trees", DOCS, root / "html"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return root / "html"


@pytest.fixture
def extension(monkeypatch):
    """Import an extension of the site by name."""
    monkeypatch.syspath_prepend(str(DOCS / "_extensions"))
    return import_module


def test_the_site_is_built_without_a_warning(site):
    for page in ("index", "reference/api", "reference/commands", "decisions/012-one-recipe-two-engines"):
        assert (site / f"{page}.html").is_file()


def test_it_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert 'src="http' not in text, page
        assert 'rel="stylesheet" href="http' not in text, page


@pytest.mark.parametrize("package", ["preprocess", "cache_store", "loaders"])
def test_every_public_name_has_its_place(site, package):
    text = (site / "reference" / "api.html").read_text()
    for name in import_module(package).__all__:
        assert f'id="{package}.{name}"' in text, name


def test_types_lead_to_their_public_names(site):
    text = (site / "reference" / "api.html").read_text()

    assert 'href="#preprocess.BuildReport"' in text
    assert 'href="#cache_store.IntegrityError"' in text


def test_every_command_has_its_place_with_every_option(site):
    import click

    from preprocess.cli import decant

    page, text = (DOCS / "reference" / "commands.md").read_text(), (site / "reference" / "commands.html").read_text()
    context = click.Context(decant)
    for name in decant.list_commands(context):
        assert f"## decant {name}\n" in page
        for option in decant.get_command(context, name).params:
            assert not isinstance(option, click.Option) or option.opts[-1] in text, (name, option.opts)


def test_help_is_text_and_its_examples_keep_their_lines(extension):
    from preprocess.cli import decant

    lines = extension("click_commands").markdown("init")

    assert lines[:4] == ["```text", "decant init [OPTIONS] SOURCE", "```", ""]
    assert lines[4] == decant.get_command(None, "init").help.splitlines()[0]
    examples = lines.index("```text", 4)
    assert lines[examples + 1].startswith("decant init ")
    assert lines[examples + 2].startswith("decant init ")
    assert "\b" not in "\n".join(lines)
    assert "Reads headers only, of 2,000 images at most." in lines
    assert "| `-o PATH` `--output PATH` | File to write. Default: `recipe.yaml`. |" in lines
    with pytest.raises(ValueError, match="no command 'biuld'"):
        extension("click_commands").markdown("biuld")


def test_sections_of_docstrings_become_fields(extension):
    from preprocess import Recipe

    lines = [
        "One line.",
        "",
        "Parameters",
        "----------",
        "size : of the output,",
        "    in pixels",
        "split, variant : as in the cache",
        "Returns",
        "-------",
        "Recipe : a new one",
        "",
        "More text : with a colon.",
        "",
        "Raises",
        "------",
        "RecipeError, NotFoundError : nothing was touched",
        "IndexError : beyond the end",
    ]

    assert [line for line in extension("house_docstrings").rewritten(lines, Recipe.render) if line] == [
        "One line.",
        ":Parameters:",
        "    * **size** – of the output, in pixels",
        "    * **split, variant** – as in the cache",
        ":returns: a new one",
        "More text : with a colon.",
        ":raises ~preprocess.RecipeError: nothing was touched",
        ":raises ~cache_store.NotFoundError: nothing was touched",
        ":raises IndexError: beyond the end",
    ]
    with pytest.raises(ValueError, match="there is no NoSuchError"):
        extension("house_docstrings").rewritten(["Raises", "------", "NoSuchError : never"], Recipe.render)


def test_attributes_get_their_types(extension):
    from preprocess import BuildReport

    lines = ["Attributes", "----------", "rendered, reused : counts", "unheard : of"]

    assert [line for line in extension("house_docstrings").rewritten(lines, BuildReport) if line] == [
        ":Attributes:",
        "    * **rendered, reused** (``int``) – counts",
        "    * **unheard** – of",
    ]


def test_links_are_made_fit_for_the_site(extension):
    def rewritten(text: str, folder: Path) -> str:
        return extension("repository_links").rewritten(text, folder, DOCS, DOCS)

    assert rewritten("[a](docs/engines.md#x) [b](LICENSE) ![c](docs/i.png)", ROOT) == "[a](engines.md#x) b ![c](i.png)"
    assert rewritten("[a](../README.md#limits) [b](https://x.org)", DOCS) == "[a](index.md#limits) [b](https://x.org)"
    assert rewritten("[a](#here) [b](../scripts/)", DOCS) == "[a](#here) b"
