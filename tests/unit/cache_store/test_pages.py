"""Pages of files in memory, and forgetting them."""

import os
import subprocess

import pytest

from cache_store import pages
from cache_store.pages import RESIDENT, forget, resident

SIZE = 4 << 20


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(os.urandom(SIZE))
    return path


def on_a_disk(path) -> bool:
    """Whether this file system has pages that can go."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", path], capture_output=True, text=True, check=True).stdout
    return kind.strip() not in ("tmpfs", "ramfs")


def test_what_was_written_just_now_is_in_memory(file):
    assert resident([file]) == 1.0


def test_forgotten_pages_are_gone_and_the_content_is_not(file):
    if not on_a_disk(file):
        pytest.skip("the temporary folder has no disk")
    before = file.read_bytes()

    assert forget([file]) < RESIDENT
    assert resident([file]) < RESIDENT
    assert file.read_bytes() == before


def test_nothing_and_an_empty_file_have_no_pages(tmp_path):
    (tmp_path / "empty").write_bytes(b"")

    assert resident([]) == resident([tmp_path / "empty"]) == 0.0


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        forget([tmp_path / "none"])


def test_pages_that_are_still_being_read_are_waited_for(file, monkeypatch):
    found = iter([0.03, 0.02, 0.0])
    monkeypatch.setattr(pages, "resident", lambda files: next(found))

    assert forget([file]) == 0.0


def test_pages_that_stay_are_not_waited_for_long(file, monkeypatch):
    monkeypatch.setattr(pages, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(pages, "resident", lambda files: 1.0)

    assert forget([file]) == 1.0
