"""`decant log`, `rollback`, `verify`, `repair` and `gc`, as a shell sees them."""

import json
import shutil

import pytest

from cache_store import layout, open_cache
from preprocess.builder import build
from tests.helpers import TINY, image_folder
from tests.integration.checks import SHARDS_OF_FOUR, assert_as_rendered
from tests.integration.processes import DECANT
from tests.terminal import watched
from tests.unit.cache_store.stores import flip_bit


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Photos, and a cache of two snapshots of them: 8 images, then 2 more."""
    root = tmp_path_factory.mktemp("upkeep")
    image_folder(root / "photos")
    build(root / "photos", root / "cache", TINY, workers=1, shard_mib=SHARDS_OF_FOUR)
    image_folder(root / "photos", ("owl",), count=2, first_seed=77)
    build(root / "photos", root / "cache", workers=1)
    return root


@pytest.fixture
def place(made, tmp_path):
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


def first_shard(cache):
    (tensors,) = [entry for entry in (cache / "tensors").iterdir() if entry.is_dir()]
    return layout.shard_file(cache, tensors.name, 0)


def test_log_and_rollback(place, decant):
    text = decant("log", "cache", cwd=place).stdout
    assert [line[:8] for line in text.splitlines()] == ["* 000002", "  000001"]
    assert "train 10, 3 classes, after 000001" in text

    assert decant("rollback", "cache", "000001", cwd=place).stdout == "000001 is in force; before it was 000002\n"

    entries = json.loads(decant("log", "cache", "--json", cwd=place).stdout)
    assert [(entry["name"], entry["current"]) for entry in entries] == [("000002", False), ("000001", True)]
    refused = decant("rollback", "cache", "000007", cwd=place, code=4)
    assert refused.stderr == "decant: 'cache' has no snapshot '000007'; there are: 000001, 000002\n"
    as_json = decant("rollback", "cache", "000002", "--json", cwd=place).stdout
    assert json.loads(as_json) == {"cache": "cache", "snapshot": "000002", "before": "000001"}


def test_build_after_a_step_back_goes_on_from_there(place, decant):
    decant("rollback", "cache", "000001", cwd=place)

    report = json.loads(decant("build", "photos", "cache", "--json", cwd=place).stdout)

    assert (report["snapshot"], report["rendered"], report["samples"]) == ("000003", 0, {"train": 10})
    decant("verify", "cache", cwd=place)


def test_verify(place, decant):
    text = decant("verify", "cache", cwd=place).stdout
    assert text.startswith("cache is sound: every byte is as committed (")
    flip_bit(first_shard(place / "cache"), 3)

    text = decant("verify", "cache", cwd=place, code=6)
    report = json.loads(decant("verify", "cache", "--json", cwd=place, code=6).stdout)

    assert text.stdout.endswith("run: decant repair SOURCE CACHE\n")
    assert text.stderr == ""
    (finding,) = report["findings"]
    assert finding["slots"] == [0]
    assert {sample["snapshot"] for sample in finding["samples"]} == {"000001", "000002"}
    assert decant("verify", "photos", cwd=place, code=4).stdout == ""


def test_repair(place, decant):
    before = first_shard(place / "cache").read_bytes()
    flip_bit(first_shard(place / "cache"), 3)

    text = decant("repair", "photos", "cache", cwd=place).stdout

    assert text.startswith("mended 1 file (1 tensor rendered again, 0 found in another place):\n    tensors/")
    assert text.endswith("cache is sound again\n")
    assert first_shard(place / "cache").read_bytes() == before
    assert decant("repair", "cache", cwd=place).stdout == "cache is sound: nothing to repair\n"
    (place / "cache" / "notes.txt").write_bytes(b"")
    report = json.loads(decant("repair", "cache", "--json", cwd=place, code=6).stdout)
    assert [finding["file"] for finding in report["remaining"]] == ["notes.txt"]
    decant("repair", "photos", cwd=place, code=4)
    decant("repair", "photos", "photos", "cache", cwd=place, code=2)


def test_gc(place, decant):
    text = decant("gc", "cache", "--keep", 2, cwd=place).stdout
    assert text.splitlines()[1] == "kept snapshots 000001, 000002"

    report = json.loads(decant("gc", "cache", "--compact", "--json", cwd=place).stdout)
    assert (report["kept"], report["compacted"]) == (["000002"], None)
    with open_cache(place / "cache") as opened:  # of each full shard of four, two go
        table = opened.split("train")
        for slot, path in zip(table["slot"][:, 0].tolist(), table.paths()):
            if slot in (0, 1, 4, 5):
                (place / "photos" / path.decode()).unlink()
    decant("build", "photos", "cache", cwd=place)
    report = json.loads(decant("gc", "cache", "--compact", "--json", cwd=place).stdout)
    assert (report["kept"], report["compacted"], report["moved"]) == (["000004"], "000004", 6)
    decant("verify", "cache", cwd=place)
    assert_as_rendered(place / "cache", place / "photos")
    assert decant("build", "photos", "cache", cwd=place).stdout.startswith("up to date")
    decant("gc", "cache", "--keep", 0, cwd=place, code=2)


def test_a_bar_where_somebody_looks_and_none_where_nobody_does(place, decant):
    ran, shown = watched([DECANT, "verify", "cache"], place, TERM="xterm", COLUMNS="120")

    assert ran.returncode == 0
    assert b"verify" in shown
    assert b"/s" in shown
    assert decant("verify", "cache", cwd=place).stderr == ""


def test_a_copy_without_pending_is_sound_after_a_build_with_nothing_to_do(place, decant):
    decant("build", "photos", "cache", cwd=place)
    shutil.rmtree(layout.pending_dir(place / "cache"))

    assert decant("build", "photos", "cache", cwd=place).stdout.startswith("up to date")

    decant("verify", "cache", cwd=place)
