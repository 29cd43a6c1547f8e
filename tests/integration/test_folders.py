"""Folders and names as people have them."""

import json
import os
import shutil

import pytest

from cache_store.errors import FormatError, IntegrityError, NotFoundError
from cache_store.errors import UsageError as StoreUsageError
from loaders import CachedDataset
from preprocess import UsageError
from preprocess.builder import build
from tests.helpers import TINY, image_folder, write_image
from tests.integration.checks import assert_as_rendered, contents, paths

REFUSED = (UsageError, StoreUsageError)

STRICT = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
"""As in most people's locales; only in C and POSIX does Python print bytes that are not UTF-8 as they are."""


def tree(folder):
    """Every name below a folder, and what is in the files."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return image_folder(tmp_path_factory.mktemp("folders") / "photos", count=2)


@pytest.fixture(scope="module")
def cache(photos, tmp_path_factory):
    cache = tmp_path_factory.mktemp("folders") / "cache"
    build(photos, cache, TINY, workers=1)
    return cache


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_cache_that_is_a_file_is_refused(tmp_path, photos, dry_run):
    (tmp_path / "cache").write_text("thesis")

    with pytest.raises(REFUSED, match="is a file"):
        build(photos, tmp_path / "cache", TINY, workers=1, dry_run=dry_run)

    assert (tmp_path / "cache").read_text() == "thesis"


@pytest.mark.parametrize("dry_run", [False, True])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("thesis.tex", "\\begin{document}"),
        ("zarr.json", '{"zarr_format": 3, "node_type": "group", "attributes": {}}'),
        ("zarr.json", '{"zarr_format": 3, "node_type": "array", "attributes": {"decant": 3}}'),
        ("zarr.json", "not JSON at all"),
        (".hidden", ""),
    ],
)
def test_a_folder_with_something_else_in_it_is_not_touched(tmp_path, photos, name, text, dry_run):
    there = tmp_path / "cache"
    there.mkdir()
    (there / name).write_text(text)
    before = tree(there)

    with pytest.raises((*REFUSED, IntegrityError), match="not a decant cache|not empty|damaged"):
        build(photos, there, TINY, workers=1, dry_run=dry_run)

    assert tree(there) == before


def test_a_cache_of_another_version_is_not_touched(tmp_path, photos, cache):
    shutil.copytree(cache, tmp_path / "cache")
    root = json.loads((tmp_path / "cache" / "zarr.json").read_bytes())
    root["attributes"]["decant"]["format_version"] = 99
    (tmp_path / "cache" / "zarr.json").write_text(json.dumps(root))
    before = tree(tmp_path / "cache")

    with pytest.raises(FormatError, match="version 99"):
        build(photos, tmp_path / "cache", TINY, workers=1)

    assert tree(tmp_path / "cache") == before


def test_an_empty_folder_becomes_a_cache(tmp_path, photos):
    (tmp_path / "cache").mkdir()

    assert build(photos, tmp_path / "cache", TINY, workers=1).snapshot == "000001"


@pytest.mark.parametrize("place", ["photos", "photos/cache", "photos/cat/cache", "photos/../photos/new", "link/cache"])
def test_a_cache_inside_the_source_is_refused(tmp_path, photos, place):
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    before = tree(tmp_path / "photos")

    with pytest.raises(REFUSED, match="lies inside SOURCE"):
        build(tmp_path / "photos", tmp_path / place, TINY, workers=1)

    assert tree(tmp_path / "photos") == before


def test_a_source_inside_the_cache_is_refused(tmp_path, cache):
    shutil.copytree(cache, tmp_path / "cache")
    image_folder(tmp_path / "cache" / "photos", count=1)

    with pytest.raises(REFUSED, match="lies inside CACHE"):
        build(tmp_path / "cache" / "photos", tmp_path / "cache", TINY, workers=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: path.mkdir(), "holds no image"),
        (lambda path: (path / "cat").mkdir(parents=True), "holds no image"),
        (lambda path: (path.mkdir(), (path / "notes.txt").write_text("x")), "found 1 other and 0 hidden files"),
    ],
    ids=["missing", "file", "empty", "empty class", "no image"],
)
def test_a_source_without_images_is_refused_and_makes_no_cache(tmp_path, make, message):
    make(tmp_path / "photos")

    with pytest.raises(REFUSED, match=message):
        build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    assert not (tmp_path / "cache").exists()


def test_missing_parents_of_the_cache_are_made(tmp_path, photos):
    build(photos, tmp_path / "a" / "b" / "cache", TINY, workers=1)

    assert_as_rendered(tmp_path / "a" / "b" / "cache", photos)


def test_a_refused_recipe_makes_no_folder(tmp_path, photos):
    with pytest.raises(ValueError, match="did you mean 'size'"):
        build(photos, tmp_path / "a" / "cache", {"sise": 8}, workers=1)

    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("name", ["sp ace quo\"te's $HOME `id` %s {} ü", "new\nline b\udcffd"])
def test_odd_names_of_source_and_cache(tmp_path, photos, decant, name):
    source, cache = tmp_path / f"{name} photos", tmp_path / f"{name} cache"
    shutil.copytree(photos, source)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(TINY))

    built = decant("build", source, cache, "--recipe", recipe, "--workers", 1, "--json", env=STRICT)
    again = decant("build", source, cache, "--workers", 1, env=STRICT)
    shown = decant("show", cache, 0, env=STRICT)

    assert json.loads(built.stdout)["samples"] == {"train": 4}
    assert again.stdout.startswith("up to date")
    assert "cat/000.png" in shown.stdout
    assert_as_rendered(cache, source)
    with CachedDataset(cache) as dataset:
        assert len(dataset) == 4


def test_names_that_are_not_utf8_or_hold_newlines(tmp_path, decant):
    """Linux allows any byte in a name. They survive on disk, in the dataset, and in JSON."""
    odd_class, odd_file = "cl\udcffss", "im\udcfe ge\n1.png"
    source, cache = tmp_path / "photos", tmp_path / "cache"
    image_folder(source, ("cat", odd_class, "two\nlines"), count=2)
    write_image(source / "cat" / "x.png", 999).rename(source / "cat" / odd_file)
    write_image(source / "cat" / "y.png", 998).write_bytes(b"no image")
    (source / "cat" / "y.png").rename(source / "cat" / "b\udcffd.png")
    (tmp_path / "recipe.yaml").write_text(json.dumps(TINY))

    built = decant("build", source, cache, "--recipe", tmp_path / "recipe.yaml", "--workers", 1, "--json", env=STRICT)
    text = decant("build", source, cache, "--workers", 1, env=STRICT)
    shown = decant("show", cache, env=STRICT)
    sample = decant("show", cache, 2, "--json", env=STRICT)

    assert json.loads(built.stdout)["samples"] == {"train": 7}
    built.stdout.encode()  # no half of a surrogate pair in it
    assert text.stdout.startswith("up to date")
    assert shown.returncode == 0
    json.loads(sample.stdout)
    with CachedDataset(cache) as dataset:
        assert dataset.classes == sorted(["cat", odd_class, "two\nlines"])
        assert dataset.class_to_idx[odd_class] == dataset.classes.index(odd_class)
        assert (f"cat/{odd_file}", 0) in dataset.samples
        assert [f["path"] for f in dataset.failures] == ["cat/b\udcffd.png"]
        assert all(os.path.exists(source / path) for path, _ in dataset.samples)
    assert_as_rendered(cache, source)


def test_a_cache_can_be_moved_and_copied_whole(tmp_path, photos, cache):
    shutil.copytree(cache, tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "second")

    assert contents(tmp_path / "second") == contents(cache)
    assert build(photos, tmp_path / "second", workers=1).up_to_date


@pytest.mark.parametrize("source", [".", "./", "../photos/", "../photos/cat/.."])
def test_relative_ways_to_write_the_source(tmp_path, photos, monkeypatch, source):
    shutil.copytree(photos, tmp_path / "photos")
    monkeypatch.chdir(tmp_path / "photos")

    build(source, "../cache", TINY, workers=1)

    assert paths(tmp_path / "cache") == ["cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png"]
    with pytest.raises(REFUSED, match="lies inside SOURCE"):
        build(source, "cache", TINY, workers=1)


def test_a_source_that_is_a_symbolic_link(tmp_path, photos):
    (tmp_path / "link").symlink_to(photos)

    build(tmp_path / "link", tmp_path / "cache", TINY, workers=1)

    assert_as_rendered(tmp_path / "cache", photos)
    assert build(photos, tmp_path / "cache", workers=1).up_to_date


def test_a_relative_cache_is_found_after_a_change_of_folder(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(cache.parent)
    dataset = CachedDataset("cache")
    dataset.close()
    monkeypatch.chdir(tmp_path)

    assert dataset[0][1] == 0


def test_a_missing_cache_is_said_to_be_missing(tmp_path):
    with pytest.raises(NotFoundError, match="does not exist; build one with: decant build SOURCE CACHE"):
        CachedDataset(tmp_path / "nowhere")


def test_hidden_and_other_files_are_skipped_and_counted(tmp_path):
    image_folder(tmp_path / "photos", count=1)
    for name in (".DS_Store", "cat/.hidden.png", "cat/notes.txt", "loose.png"):
        (tmp_path / "photos" / name).write_bytes(b"x")

    report = build(tmp_path / "photos", tmp_path / "cache", TINY, workers=1)

    assert paths(tmp_path / "cache") == ["cat/000.png", "dog/000.png"]
    notes = "\n".join(report.departures)
    assert "2 hidden files and folders were skipped" in notes
    assert "1 files were skipped" in notes
    assert "1 images lie beside the class folders and were skipped (loose.png)" in notes
    assert report.failures == []
