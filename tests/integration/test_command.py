"""`decant` as a user runs it."""

import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import textwrap
import time

import cv2
import numpy as np
import pytest

from cache_store.normalise import denormalise, normalisation_table
from cache_store.reader import open_cache
from preprocess import build
from preprocess.cli import _COMMANDS
from preprocess.sheet import Grid
from tests.helpers import TINY, image_folder
from tests.integration.checks import assert_as_rendered, contents
from tests.integration.processes import DECANT, ROOT
from tests.terminal import watched


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photos, a recipe, and a cache of them."""
    folder = tmp_path_factory.mktemp("command")
    image_folder(folder / "photos")
    (folder / "recipe.yaml").write_text(json.dumps(TINY))
    build(folder / "photos", folder / "cache", TINY, workers=1)
    return folder


def wall_s(*command):
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def test_help_answers_at_once():
    slack_s = 4 * wall_s(sys.executable, "-c", "pass")  # what a busy machine makes of nothing at all

    assert wall_s(DECANT, "--help") < 0.3 + slack_s


def test_help_names_every_command_and_loads_none(decant):
    shown = decant("--help").stdout

    assert re.findall(r"^  (\w+)  ", shown, re.M) == list(_COMMANDS)
    code = "import sys; from preprocess.cli import decant; decant.main(['--help'], standalone_mode=False)"
    loaded = subprocess.run(
        [sys.executable, "-c", f"{code}; print(*sys.modules)"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"numpy", "cv2", "torch", "zarr", "pydantic", "rich"} & set(loaded.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", ["build", "show", "doctor"])
def test_every_command_has_help(decant, command):
    shown = decant(command, "--help").stdout

    assert shown.startswith(f"Usage: decant {command}")
    assert len(shown.splitlines()) > 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["biuld", "a", "b"], "no command 'biuld'; did you mean 'build'?"),
        (["frobnicate"], "no command 'frobnicate'"),
        (["build", "a", "b", "--worker", "2"], "No such option '--worker'. Did you mean '--workers'?"),
        (["build", "a", "b", "--workers", "two"], "'two' is not a valid integer"),
        (["build", "a"], "Missing argument 'CACHE'"),
        (["build", "a", "b", "c"], "unexpected extra argument"),
        (["build", "nowhere", "b"], "SOURCE 'nowhere' does not exist"),
        (["build", "photos", "b", "--workers", "0"], "workers: 1 or more expected, found 0"),
        (["build", "photos", "b", "--limit", "0"], "limit: 1 or more expected, found 0"),
        (["build", "photos", "b", "--shard-mib", "0"], "shard_mib: more than 0 expected"),
        (["build", "photos", "b", "--shard-mib", "inf"], "shard_mib: more than 0 expected"),
        (["build", "photos", "b", "--shard-mib", "nan"], "shard_mib: more than 0 expected"),
        (["build", "photos", "b", "--device", "cuda"], "device 'cuda': torch finds no CUDA device"),
        (["build", "photos", "b", "--device", "cup"], "device 'cup' is unknown; did you mean 'cpu'?"),
        (["build", "photos", "b", "--recipe", "none.yaml"], "recipe 'none.yaml' cannot be read: No such file"),
        (["build", "photos", "b", "--recipe", "photos"], "recipe 'photos' cannot be read: Is a directory"),
        (["build", "photos", "b", "--set", "sise=8"], "sise: unknown key; did you mean 'size'?"),
        (["build", "photos", "b", "--set", "size"], "KEY=VALUE expected"),
        (["build", "photos", "b", "--max-failures", "few"], "max_failures: a number like 100 or a share like 1%"),
        (["build", "photos", "photos/cat"], "lies inside SOURCE"),
        (["build", "~nobody-by-this-name/photos", "b"], "'~nobody-by-this-name/photos' does not exist"),
        (["build", "n" * 300, "b"], "cannot be listed: File name too long"),
        (["build", "photos", "recipe.yaml"], "is a file"),
        (["build", "photos", "photos"], "lies inside SOURCE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_meant_is_refused_in_a_few_lines_with_code_2(place, arguments, message, monkeypatch, capsys):
    """In this process, as each would cost a second of imports; `test_what_a_shell_sees` runs one for real."""
    from preprocess import cli

    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.argv", ["decant", *arguments])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    there = sorted(place.iterdir())

    with pytest.raises(SystemExit) as caught:
        cli.main()

    shown = capsys.readouterr()
    assert caught.value.code == 2
    assert message in shown.err.replace("\n", " ")
    assert len(shown.err.splitlines()) <= 4
    assert shown.out == ""
    assert sorted(place.iterdir()) == there


def test_what_a_shell_sees_of_a_refusal(place, decant):
    finished = decant("build", "nowhere", "b", cwd=place, code=2)

    assert finished.stderr == "decant: SOURCE 'nowhere' does not exist\n"
    assert finished.stdout == ""


def test_the_version(decant):
    from importlib.metadata import version

    assert decant("--version").stdout == f"decant, version {version('decant-cache')}\n"


def test_a_build_as_text(place, decant, tmp_path):
    finished = decant("build", "photos", tmp_path / "cache", "--recipe", "recipe.yaml", "--workers", 1, cwd=place)

    lines = finished.stdout.splitlines()
    assert lines[0] == f"built snapshot 000001 of {tmp_path / 'cache'}"
    assert "train 8, 2 classes" in lines[1]
    assert lines[2] == "  classes    cat 4, dog 4"
    assert "8 rendered, 0 reused" in lines[3]
    assert finished.stderr == ""  # no progress bar where nobody looks
    assert_as_rendered(tmp_path / "cache", place / "photos")


def test_a_build_as_json_is_json_alone(place, decant, tmp_path):
    (tmp_path / "photos").mkdir()
    image_folder(tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "bad.png").write_bytes(b"x")

    finished = decant(
        *("build", tmp_path / "photos", tmp_path / "cache", "--recipe", place / "recipe.yaml", "--workers", 1, "--json")
    )

    report = json.loads(finished.stdout)
    assert finished.stderr == ""
    assert report["snapshot"] == "000001"
    assert report["samples"] == {"train": 8}
    assert report["rendered"] == 8
    assert [failure["path"] for failure in report["failures"]] == ["cat/bad.png"]
    assert len(report["mean"]) == len(report["std"]) == 3


def test_nothing_to_do_is_said_at_once(place, decant):
    before = contents(place / "cache")

    finished = decant("build", "photos", "cache", cwd=place)

    assert finished.stdout.startswith("up to date: snapshot 000001 of cache\n")
    assert contents(place / "cache") == before


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(place, decant, tmp_path):
    text = decant("build", "photos", tmp_path / "new", "--recipe", "recipe.yaml", "--dry-run", cwd=place).stdout
    report = json.loads(decant("build", "photos", "cache", "--set", "seed=1", "--dry-run", "--json", cwd=place).stdout)

    assert text.startswith("dry run, nothing was written")
    assert "train 8, 2 classes" in text
    assert "8 to render, 0 in the cache already" in text
    assert re.search(r"on disk +[\d.]+ \w+ more at its peak, [\d.]+ \w+ free: fits", text)
    assert re.search(r"time +about \d+ s", text)
    assert not (tmp_path / "new").exists()
    assert report["dry_run"]
    assert (report["rendered"], report["snapshot"]) == (8, "000001")
    assert report["free_bytes"] > report["peak_bytes"] > 8 * 384
    assert sorted(os.listdir(place / "cache" / "snapshots")) == ["000001", "zarr.json"]


def test_a_dry_run_of_a_cache_with_most_images_counts_the_rest(place, tmp_path):
    image_folder(tmp_path / "photos")
    build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)
    image_folder(tmp_path / "photos", ("owl",), count=3, first_seed=77)

    report = build(tmp_path / "photos", tmp_path / "cache", workers=1, dry_run=True)

    assert (report.rendered, report.reused, report.samples) == (3, 8, {"train": 11})


def test_strict_and_the_budget_as_options(place, decant, tmp_path):
    image_folder(tmp_path / "photos")
    (tmp_path / "photos" / "cat" / "bad.png").write_bytes(b"x")
    arguments = ("build", tmp_path / "photos", tmp_path / "cache", "--recipe", place / "recipe.yaml", "--workers", 1)

    refused = decant(*arguments, "--strict", code=3)
    decant(*arguments, "--max-failures", "20%")

    assert refused.stderr.startswith("decant: 1 of 9 images failed, the budget is 0; nothing was committed")
    assert "cat/bad.png: decode: not an image" in refused.stderr


def test_a_progress_bar_where_somebody_looks(place, tmp_path):
    command = [DECANT, "build", "photos", tmp_path / "cache", "--recipe", "recipe.yaml", "--workers", "1"]

    ran, shown = watched(command, place, TERM="xterm", COLUMNS="120")

    assert ran.returncode == 0
    assert b"render" in shown
    assert b"8/8" in shown
    assert b"Traceback" not in shown
    assert ran.stdout.startswith(b"built snapshot 000001")


def unread(place, *arguments):
    """`decant … | true`."""
    ours, theirs = os.pipe()
    os.close(ours)
    process = subprocess.run(
        [DECANT, *arguments], cwd=place, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=30, check=False
    )
    os.close(theirs)
    assert "Traceback" not in process.stderr
    assert "Exception ignored" not in process.stderr
    return process.returncode


@pytest.mark.parametrize("arguments", [["show", "cache"], ["build", "photos", "cache"], ["log", "cache", "--json"]])
def test_a_reader_that_has_seen_enough_does_not_make_a_failure_of_what_was_done(place, arguments):
    assert unread(place, *arguments) == 0


def test_a_reader_that_has_seen_enough_does_not_hide_what_was_found(place, tmp_path):
    shutil.copytree(place / "cache", tmp_path / "cache")
    shard = next((tmp_path / "cache").glob("tensors/*/image/c.*"))
    shard.write_bytes(b"damage" + shard.read_bytes()[6:])

    assert unread(tmp_path, "verify", "cache") == 6


def test_a_reader_that_has_seen_enough_of_the_help(place):
    unread(place, "--help")


# -- what is printed can be used ---------------------------------------------------------------------------------------


def test_the_three_lines_of_python_run_as_printed(place, decant):
    printed = decant("build", "photos", "cache", cwd=place).stdout
    lines = textwrap.dedent(printed.split("To train from it:\n")[1])
    assert len(lines.strip().splitlines()) == 3
    code = (
        lines + "images, labels = next(iter(loader))\nprint(tuple(images.shape), images.dtype, sorted(labels.tolist()))"
    )

    # PYTHONPATH as an installed package would be found.
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout == "(8, 3, 8, 8) torch.float16 [0, 0, 0, 0, 1, 1, 1, 1]\n"


OURS = ("loaders", "preprocess", "cache_store")


@pytest.mark.parametrize(
    ("names", "along"), [((*OURS, "cv2", "queue"), False), (OURS, True)], ids=["beside", "PYTHONPATH"]
)
def test_modules_of_the_user_by_our_names_break_nothing(place, decant, tmp_path, names, along):
    """A `loaders.py` or `preprocess.py` beside the user's script is to be expected."""
    for name in names:
        (tmp_path / f"{name}.py").write_text("raise ImportError('the module of the user')\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(tmp_path)} if along else {}

    decant(
        *("build", place / "photos", "cache", "--recipe", place / "recipe.yaml", "--workers", 1),
        cwd=tmp_path,
        env=environment,
    )
    decant("show", "cache", cwd=tmp_path, env=environment)
    found = decant("doctor", cwd=tmp_path, env=environment, code=1)

    assert_as_rendered(tmp_path / "cache", place / "photos")
    assert "hides decant's package 'preprocess'" in found.stdout


# -- show and doctor ---------------------------------------------------------------------------------------------------


def test_show_says_what_a_cache_holds(place, decant):
    text = decant("show", "cache", cwd=place).stdout
    as_json = json.loads(decant("show", "cache", "--json", cwd=place).stdout)

    assert "train: 8 samples x 1 of float16 3x8x8" in text
    assert "2: cat 4, dog 4" in text
    assert as_json["snapshot"] == "000001"
    assert as_json["classes"] == ["cat", "dog"]
    assert as_json["splits"]["train"]["samples"] == 8
    assert as_json["splits"]["train"]["bytes"] == 8 * 384


def test_show_says_where_a_sample_comes_from(place, decant):
    text = decant("show", "cache", 0, 5, cwd=place).stdout
    as_json = json.loads(decant("show", "cache", 5, "--split", "train", "--json", cwd=place).stdout)

    assert "cat/000.png" in text
    assert "24x32 (height x width)" in text
    ((sample,),) = [as_json]
    assert (sample["sample"], sample["path"], sample["class"], sample["label"]) == (5, "dog/001.png", "dog", 1)


def test_show_draws_samples_as_a_person_sees_them(place, decant, tmp_path):
    decant("show", "cache", "-o", tmp_path / "all.png", cwd=place)
    decant("show", "cache", 6, "-o", tmp_path / "one.png", cwd=place)

    grid = Grid((8, 8), 1, 8)
    drawn = cv2.imread(str(tmp_path / "all.png"))[-grid.size_hw[0] :][grid.tile(6, 0)]
    one = cv2.imread(str(tmp_path / "one.png"))[-Grid((8, 8), 1, 1).size_hw[0] :][grid.tile(0, 0)]
    np.testing.assert_array_equal(one, drawn)
    source = cv2.resize(cv2.imread(str(place / "photos" / "dog" / "002.png")), (8, 8), interpolation=cv2.INTER_AREA)
    assert np.abs(one[:: grid.factor, :: grid.factor].astype(int) - source).max() < 12


def test_preview_draws_what_a_recipe_makes_of_the_images(place, decant, tmp_path):
    finished = decant(
        *("preview", place / "photos", "--recipe", place / "recipe.yaml", "--set", "seed=3", "--split", "train"),
        cwd=tmp_path,
    )
    as_json = decant("preview", place / "photos", "-o", "größe.png", "--set", "size=8", "--json", cwd=tmp_path)

    assert finished.stdout.startswith("preview.png: 8 of 8 images of split 'train' in ")
    assert finished.stderr == as_json.stderr == ""
    assert sorted(os.listdir(tmp_path)) == ["größe.png", "preview.png"]
    grid = Grid((8, 8), 2, 8)
    drawn = cv2.imread(str(tmp_path / "preview.png"))[-grid.size_hw[0] :][grid.tile(6, 1)]
    with open_cache(place / "cache") as opened:
        table = opened.split("train")
        expected = denormalise(opened.image("train", 6), normalisation_table(table.mean, table.std))
    np.testing.assert_array_equal(drawn[:: grid.factor, :: grid.factor, ::-1], expected.transpose(1, 2, 0))
    assert json.loads(as_json.stdout)["sources"][6]["path"] == "dog/002.png"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["cache", "8"], 4, "split 'train' has samples 0 to 7, there is no 8"),
        (["cache", "--split", "vla"], 4, "has no split 'vla'; there are: train"),
        (["photos"], 4, "is not a decant cache"),
        (["nowhere"], 4, "does not exist"),
        (["recipe.yaml"], 4, "is a file, a cache is a folder"),
        (["cache", "-o", "no/such/folder/look.png"], 7, "cannot write"),
    ],
)
def test_show_refuses_what_is_not_there(place, arguments, code, message, monkeypatch, capsys):
    from preprocess import cli

    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.argv", ["decant", "show", *arguments])
    monkeypatch.setattr("signal.signal", lambda *_: None)

    with pytest.raises(SystemExit) as caught:
        cli.main()

    shown = capsys.readouterr()
    assert caught.value.code == code
    assert message in shown.err
    assert shown.out == ""


def test_doctor(place, decant):
    text = decant("doctor", "cache", cwd=place).stdout

    assert "snapshot 000001: train 8" in text
    assert re.search(r"JPEG +yes", text)
    assert "free disk" in text
    assert text.splitlines()[-1] == "all is well"


def test_doctor_finds_what_is_wrong_with_a_cache(place, decant):
    text = decant("doctor", "photos", cwd=place, code=1).stdout

    assert "PROBLEM     'photos' is not a decant cache (it has no zarr.json)" in text


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_mistake(place, closed):
    """As cron or a daemon starts it: what would be printed goes nowhere, and into no file that is opened next."""
    done = subprocess.run(["bash", "-c", f"{shlex.quote(DECANT)} verify {place}/cache {closed}"], check=False)
    assert done.returncode == 0
