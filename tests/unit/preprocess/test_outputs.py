"""Where a command may write."""

from pathlib import Path

import pytest

from cache_store.errors import StorageError
from preprocess.errors import UsageError
from preprocess.outputs import output_file


@pytest.mark.parametrize("name", ["look.png", "look.PNG", "look", "größe und mehr.png"])
def test_a_file_that_can_be_meant(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert output_file(name, ".png", source=tmp_path / "photos", cache=tmp_path / "cache") == Path(name)
    assert output_file(f"~/{name}", ".png") == tmp_path / name


@pytest.mark.parametrize("name", ["look.jpg", "look.png.html", "my.cache"])
def test_a_file_of_another_kind(tmp_path, name):
    with pytest.raises(UsageError, match=r"a name that ends with \.png expected"):
        output_file(tmp_path / name, ".png")


def test_a_folder(tmp_path):
    with pytest.raises(UsageError, match=r"is a folder; the name of a file expected, such as '.*/look\.html'"):
        output_file(tmp_path, ".html")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match=r"there is no folder '.*/a'; create it first") as caught:
        output_file(tmp_path / "a" / "look.png", ".png")
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("place", ["photos/look.png", "photos/cat/look.png", "link/look.png"])
def test_a_place_where_it_would_be_taken_for_something_else(tmp_path, place):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "link").symlink_to("photos/cat")
    with pytest.raises(UsageError, match="lies inside SOURCE .* for one of the images; name a file outside of it"):
        output_file(tmp_path / place, ".png", source=tmp_path / "photos")
    with pytest.raises(UsageError, match="lies inside CACHE .* for damage; name a file outside of it"):
        output_file(tmp_path / place, ".png", cache=tmp_path / "photos")
