"""The benchmark of techniques runs every section, fills in its page, and notices a wrong answer."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(<!-- figures: \w+ -->\n).*?(<!-- end)", re.DOTALL)
PAGE = ROOT / "docs" / "techniques.md"
SECTIONS = "decode blur transforms arithmetic memory loading storage precision combined scaling".split()


def bench(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/bench_techniques.py", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run in a process of its own: to fork this one, in which OpenCV and torch may have threads, would not do."""
    code = "import numpy as np\nfrom techniques.common import EachInput, measure\n" + textwrap.dedent(code)
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'scripts'}"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict]:
    """A page that one quick run of all sections has filled in, and the figures of that run."""
    folder = tmp_path_factory.mktemp("techniques")
    page, figures = folder / "page.md", folder / "figures.json"
    page.write_text(
        re.sub(r"(<!-- figures: \w+ -->\n).*?(<!-- end)", r"\1stale\n\2", PAGE.read_text(), flags=re.DOTALL)
    )
    done = bench("--quick", "--work", folder / "work", "--json", figures, "--write", page)
    assert done.returncode == 0, done.stderr
    assert not list((folder / "work").iterdir())
    return page, json.loads(figures.read_text())


@pytest.fixture
def common(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from techniques import common

    return common


@pytest.mark.slow
def test_every_section_is_measured(whole):
    sections = whole[1]["sections"]
    assert list(sections) == SECTIONS
    for name in ("decode", "blur", "transforms", "arithmetic", "storage", "precision", "combined"):
        for each in sections[name]["figures"].values():
            assert "missing" in each or each["low"] <= each["ms"] <= each["high"]
    assert {each["missing"] for each in sections["decode"]["figures"].values() if "missing" in each} <= {
        "not measured: no GPU"
    }


@pytest.mark.slow
def test_the_page_is_filled_in_and_what_stands_around_it_stays(whole):
    text = whole[0].read_text()
    assert "stale" not in text
    assert re.findall(r"<!-- figures: (\w+) -->\n\n", text) == ["run", *SECTIONS]
    assert "python scripts/bench_techniques.py --quick --write docs/techniques.md" in text
    assert BLOCK.sub(r"\1\2", text) == BLOCK.sub(r"\1\2", PAGE.read_text())


@pytest.mark.slow
def test_stores_are_asked_what_they_do_about_trouble(whole):
    stores = whole[1]["sections"]["storage"]["figures"]
    answers = {name: (each["changes"], each["damage"], each["code"]) for name, each in stores.items()}
    assert answers["pickle of a dict"] == answers["`TensorDataset`, `torch.save`"] == (False, False, True)
    assert answers[".npy files, one an image"] == (False, False, False)
    assert answers["decant"] == (True, False, False)
    assert answers['decant, `check="first"`'] == (True, True, False)


@pytest.mark.slow
def test_a_page_is_written_from_kept_figures(whole, tmp_path):
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text(PAGE.read_text())
    figures.write_text(json.dumps(whole[1]))

    done = bench("--figures", figures, "--write", page)

    assert done.returncode == 0, done.stderr
    assert page.read_text() == whole[0].read_text()


def test_a_page_of_two_runs_is_refused(tmp_path):
    done = bench("--only", "decode", "--write", tmp_path / "page.md")
    assert done.returncode == 2
    assert "different runs" in done.stderr


def test_a_page_without_a_place_for_a_section_is_refused(common):
    from techniques.document import filled

    run = {"command": "x", "machine": dict.fromkeys(("processor", "processors", "system"), "x") | {"memory_gib": 1}}
    run |= {"versions": {}, "gpu": None, "commit": "x", "images": "x", "rounds": 1, "seconds": 1.0}
    text = "<!-- figures: run -->\n<!-- end of figures -->\n"
    with pytest.raises(SystemExit, match="places for run, decode expected"):
        filled(text, run, {"decode": "table"})


def test_a_wrong_answer_ends_the_run():
    done = python(
        """
        def contender(tolerance):
            return lambda: EachInput(lambda _: np.full((2, 2), 0.5), [0], lambda _: np.zeros((2, 2)), tolerance)

        measure("test", {"close": contender(0.5)}, 1)
        print("so far")
        measure("test", {"close": contender(0.5), "far": contender(0.4)}, 1)
        print("too far")
        """
    )
    assert done.stdout == "so far\n"
    assert done.returncode == 1
    assert "test, far: WrongValue: the answer is 0.5 off in the mean, 0.4 is allowed" in done.stderr


def test_an_answer_of_another_shape_or_without_a_value_is_wrong(common):
    import numpy as np

    with pytest.raises(common.WrongValue, match="shape"):
        common.compare(np.zeros((2, 2)), np.zeros((2, 3)), 1)
    with pytest.raises(common.WrongValue, match="nan"):
        common.compare(np.full((2, 2), np.nan), np.zeros((2, 2)), 1)


def test_a_loader_that_mixes_up_images_is_wrong(common):
    import numpy as np
    import torch
    from techniques.stores import Loading
    from torch.utils.data import DataLoader, TensorDataset

    images = torch.arange(4.0).view(4, 1, 1, 1).half()
    loader = DataLoader(TensorDataset(images, torch.arange(4)), batch_size=2)
    Loading(loader, images.numpy()).check()
    with pytest.raises(common.WrongValue, match="sample 0"):
        Loading(loader, np.roll(images.numpy(), 1, axis=0)).check()


def test_a_peak_that_was_freed_again_is_counted():
    done = python(
        """
        def once(_):
            return np.zeros(1) if np.ones(50_000_000, np.uint8).any() else np.ones(1)

        print(measure("test", {"": lambda: EachInput(once, [0], lambda _: np.zeros(1), 0)}, 1)[""]["peak_mb"])
        """
    )
    assert 49 < float(done.stdout) < 60, done.stderr


def test_a_power_is_found_beyond_the_floor(common):
    from techniques.scaling import exponent

    assert exponent([1, 2, 4], [11, 12, 14], 10) == pytest.approx(1)
    assert exponent([1, 2, 4], [1, 4, 16], 0) == pytest.approx(2)
    assert exponent([1, 2], [9, 12], 10) is None
