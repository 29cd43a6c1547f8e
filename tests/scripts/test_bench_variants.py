"""The run about variants works on a few pictures, and writes its table and plot where the page has them."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ("--epochs", "3", "--seeds", "1", "--train", "4", "--val", "2", "--processes", "1")


def bench(*arguments):
    command = [sys.executable, ROOT / "scripts" / "bench_variants.py", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("variants")
    docs = folder / "docs"
    docs.mkdir()
    (docs / "augmentation.md").write_text((ROOT / "docs" / "augmentation.md").read_text())
    done = bench(*SMALL, "--json", folder / "figures.json", "--write", docs)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "figures.json").read_text()), docs


def test_every_contender_is_trained(ran):
    _, figures, _ = ran
    names = ["K = 1", "K = 4", "K = 16", "K = 1 + crop, flip", "K = 4 + crop, flip", "fresh"]
    assert list(figures["accuracy"]) == names
    assert all(len(values) == 1 and 0 <= values[0] <= 1 for values in figures["accuracy"].values())
    assert figures["config"]["train"] == 16
    assert figures["config"]["val"] == 8


def test_what_shows_the_same_pixels_gets_the_same_accuracy(ran):
    # With three epochs, K = 4 and K = 16 never come to a variant that fresh augmentation does not have.
    _, figures, _ = ran
    assert figures["accuracy"]["K = 4"] == figures["accuracy"]["K = 16"] == figures["accuracy"]["fresh"]


def test_the_page_gets_the_table_and_keeps_the_rest(ran):
    said, _, docs = ran
    before, after = ((folder / "augmentation.md").read_text() for folder in (ROOT / "docs", docs))
    block = re.compile(r"(<!-- bench_variants: begin -->).*(<!-- bench_variants: end -->)", re.DOTALL)
    assert block.sub(r"\1\2", before) == block.sub(r"\1\2", after)
    assert said.strip() in after


def test_the_plot_is_an_image_by_itself_for_light_and_dark_pages(ran):
    _, _, docs = ran
    text = (docs / "images" / "variants.svg").read_text()
    words = " ".join(ET.fromstring(text).itertext())
    assert "K = 16" in words
    assert "fresh" in words
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"#0[123]0[123]0[123]", text)


def test_a_page_without_the_marks_is_named(tmp_path):
    (tmp_path / "augmentation.md").write_text("# Augmentation\n")
    done = bench(*SMALL, "--write", tmp_path)
    assert done.returncode == 1
    assert "has no lines" in done.stderr
    assert (tmp_path / "augmentation.md").read_text() == "# Augmentation\n"
