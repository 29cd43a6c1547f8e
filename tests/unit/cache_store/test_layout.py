import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cache_store import layout
from cache_store.errors import UsageError

CACHE = Path("cache")


def test_drawing_of_a_cache_is_what_the_functions_build():
    assert layout.tensors_dir(CACHE, "9f3c") == CACHE / "tensors" / "9f3c"
    assert layout.image_dir(CACHE, "9f3c") == CACHE / "tensors" / "9f3c" / "image"
    assert layout.shard_file(CACHE, "9f3c", 17) == CACHE / "tensors" / "9f3c" / "image" / "c.17.0.0.0"
    assert layout.snapshot_dir(CACHE, "000003") == CACHE / "snapshots" / "000003"
    assert layout.lock_file(CACHE) == CACHE / "pending" / "lock"
    assert layout.source_hint(CACHE) == CACHE / "pending" / "source"


@given(st.integers(0, 10**17))
def test_shard_number_is_the_inverse_of_the_file_name(number):
    assert layout.shard_number(layout.shard_file(CACHE, "9f3c", number).name) == number


@pytest.mark.parametrize(
    "name",
    [
        "",
        "c",
        "c.",
        "c.0",
        "c.0.0.0",
        "c.0.0.0.0.0",
        "c.1.0.0.1",
        "c..0.0.0",
        "c.-1.0.0.0",
        "c.+1.0.0.0",
        "c.1_0.0.0.0",
        "c. 1.0.0.0",
        "c.1.0.0.0 ",
        "c.1.0.0.0\n",
        "c.01.0.0.0",  # would be taken for shard 1, which is another file
        "c.00.0.0.0",
        "c.١.0.0.0",
        "c.².0.0.0",
        "c.1.0.0.0.partial",
        "C.1.0.0.0",
        "d.1.0.0.0",
        "c/1/0/0/0",
        "zarr.json",
        "c." + "9" * 5000 + ".0.0.0",
        "c.\udc80.0.0.0",
    ],
)
def test_other_names_are_not_shards(name):
    assert layout.shard_number(name) is None


@given(st.integers(1, 10**17))
@example(999_999)
@example(1_000_000)
def test_snapshot_number_is_the_inverse_of_the_name(number):
    assert layout.snapshot_number(layout.snapshot_name(number)) == number


@pytest.mark.parametrize(
    "name",
    ["", "1", "00001", "0000001", "000000", "-00001", "00000a", "٠٠٠٠٠١", "000001 ", "../../etc", "9" * 5000, None, 1],
)
def test_other_names_are_not_snapshots(name):
    assert layout.snapshot_number(name) is None


# -- names that are not text -------------------------------------------------------------------------------------------

tricky = st.sampled_from([b"\xff", b"\x80", b"\xc3", b"\xf4\x8f\xbd\xbe", b"\xf4\x8f\xbf\xbd", b"\xed\xb2\x80", b"a"])


@given(st.one_of(st.binary(), st.lists(tricky).map(b"".join), st.text().map(lambda s: s.encode(errors="replace"))))
@example(bytes(range(1, 256)))
@example("\U0010ff7e".encode())  # a stand-in that is really in the name
@example("\U0010fffd\U0010ffff".encode() + b"\x80")
def test_any_name_survives_as_text_of_valid_json(raw):
    name = os.fsdecode(raw)

    text = layout.name_to_text(name)

    written = json.dumps(text, ensure_ascii=False).encode()  # what a strict reader does: lone surrogates raise
    assert layout.text_to_name(json.loads(written)) == name
    assert os.fsencode(layout.text_to_name(text)) == raw


def test_ordinary_names_stay_as_they_are():
    assert layout.name_to_text("Hühner/日本 🐔.png") == "Hühner/日本 🐔.png"


def test_different_names_stay_different():
    names = [b"\x80", b"\xff", "\U0010ff7e".encode(), "\U0010fffd".encode(), b"\xf4\x8f\xbd"]

    assert len({layout.name_to_text(os.fsdecode(name)) for name in names}) == len(names)


def test_a_path_as_a_user_gives_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    assert layout.given_path("~/cache") == Path("/home/somebody/cache")
    assert layout.given_path(Path("~") / "cache") == Path("/home/somebody/cache")
    assert layout.given_path(b"/a/\xff") == Path("/a/\udcff")
    assert layout.given_path("a/b/") == Path("a/b")


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_what_is_no_path_is_refused(path):
    with pytest.raises(UsageError, match="a path expected, found"):
        layout.given_path(path)


def test_a_relative_path_needs_a_current_folder(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(UsageError, match="'cache': the current folder was removed"):
        layout.given_path("cache")
    assert layout.given_path(tmp_path) == tmp_path
