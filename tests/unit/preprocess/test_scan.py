"""A folder is read as torchvision.datasets.ImageFolder reads it, and odd things in it end nothing."""

import errno
import os
import shutil
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from preprocess.errors import UsageError
from preprocess.header import IMAGE_EXTENSIONS
from preprocess.reading import propose_splits
from preprocess.recipe import Recipe
from preprocess.scan import STAT, check_folder, class_table, holds_images, scan, stat_of


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def tree(root: Path, *names: str) -> Path:
    """Empty files, and folders where a name ends in '/'."""
    root.mkdir(exist_ok=True)
    for name in names:
        if name.endswith("/"):
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            touch(root / name)
    return root


def scanned(source: Path, recipe: Recipe | None = None):
    return scan(source, (recipe or Recipe()).with_splits(propose_splits(source)))


def samples_of(found, split="train"):
    """(path, class) as a user sees them."""
    part = found.splits[split]
    names = part.class_names
    return [(p, names[c] if names is not None else None) for p, c in zip(part.paths, part.class_index, strict=True)]


def assert_as_image_folder(source: Path) -> None:
    theirs = ImageFolder(str(source), allow_empty=True)
    found = scanned(source)
    ours = found.splits["train"]
    assert ours.class_names == theirs.classes
    assert {name: number for number, name in enumerate(class_table(found, None))} == theirs.class_to_idx
    expected = [(os.path.relpath(path, source), label) for path, label in theirs.samples]
    assert list(zip(ours.paths, ours.class_index.tolist(), strict=True)) == expected
    for path, numbers in zip(ours.paths, ours.stats, strict=True):
        assert numbers.item() == stat_of(os.stat(source / path))


# -- as ImageFolder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["cat/1.jpg", "dog/1.jpg", "dog/0.png"],
        ["b/1.jpg", "a/1.jpg", "B/1.jpg", "10/1.jpg", "9/1.jpg"],
        # where sorting whole paths, walking, and sorting per folder differ
        ["k/a/1.jpg", "k/a-b/1.jpg", "k/a.b/1.jpg", "k/a/c/1.jpg", "k/a!/1.jpg", "k/a b/1.jpg", "k/a.jpg", "k/z.jpg"],
        ["a/1.jpg", "a-b/1.jpg", "a.b/1.jpg", "a/c/1.jpg", "a/c-d/1.jpg", "a/b.jpg"],
        # uneven, empty, nested and odd
        ["a/", "b/c/d/e/f/1.jpg", "b/2.jpg", "b/c/d/3.jpg", "c/.keep/"],
        ["é/1.jpg", "e\u0301/1.jpg", "ß/1.jpg", "日本/1.jpg", "😀/1.jpg", "z/1.jpg"],
        ["new\nline/1.jpg", "tab\t/1.jpg", "quote'\"/1.jpg", "per%20cent/1.jpg", "-dash/1.jpg", " space /1.jpg"],
        ["a/1.JPG", "a/2.JpEg", "a/3.PNG", "a/4.jpg.txt", "a/5.txt", "a/6", "a/7.tar.gz", "a/8.jpg "],
        ["a/x.jpg/1.jpg", "a/x.jpg/y.png/2.png", "a/w.jpg"],
        [f"a/{i}.jpg" for i in range(12)] + [f"a/{i:02d}.png" for i in range(12)],
    ],
)
def test_classes_samples_and_order_are_image_folders(tmp_path, names):
    assert_as_image_folder(tree(tmp_path / "source", *names))


def test_links_to_files_and_folders_are_followed(tmp_path):
    elsewhere = tree(tmp_path / "elsewhere", "photos/1.jpg", "photos/deep/2.jpg", "3.jpg")
    source = tree(tmp_path / "source", "a/0.jpg", "b/")
    (source / "a" / "link.jpg").symlink_to(elsewhere / "3.jpg")
    (source / "b" / "one").symlink_to(elsewhere / "photos")
    (source / "b" / "two").symlink_to(elsewhere / "photos")  # two links to one folder are no loop
    (source / "c").symlink_to(elsewhere / "photos")
    (source / "d").symlink_to(Path("a"))
    assert_as_image_folder(source)
    found = scanned(source)
    assert found.loops == []
    assert [path for path, _ in samples_of(found)][2:6] == [
        "b/one/1.jpg",
        "b/one/deep/2.jpg",
        "b/two/1.jpg",
        "b/two/deep/2.jpg",
    ]


def test_a_source_that_is_a_link(tmp_path):
    tree(tmp_path / "real", "a/1.jpg", "b/1.jpg")
    (tmp_path / "source").symlink_to(tmp_path / "real")
    assert_as_image_folder(tmp_path / "source")


part = st.sampled_from(["a", "b", "A", "a-b", "a.b", "a b", "a!", "é", "10", "9", "_", "~", "x.jpg"])
leaf = st.sampled_from(["a.jpg", "b.jpg", "a-b.png", "a.b.jpg", "9.jpg", "10.jpg", "é.PNG", "note.txt", "x.jpg"])
files = st.lists(st.tuples(part, st.lists(part, max_size=3), leaf), max_size=14)
empty = st.lists(st.tuples(part, st.lists(part, max_size=2)), max_size=3)


@settings(max_examples=50, deadline=None)
@given(files, empty, st.lists(st.tuples(part, part), max_size=2))
def test_any_tree_is_image_folders(tmp_path_factory, files, empty, links):
    source = tmp_path_factory.mktemp("tree")
    try:
        tree(source, "a/first.jpg")
        for cls, folders, name in files:
            path = source.joinpath(cls, *folders, name)
            if not path.exists() and not any(parent.is_file() for parent in path.parents):
                touch(path)
        for cls, folders in empty:
            path = source.joinpath(cls, *folders)
            if not path.exists() and not any(parent.is_file() for parent in path.parents):
                path.mkdir(parents=True)
        for place, target in links:
            # never upwards, so that no loop comes about: ImageFolder would follow it forty times
            if (source / target).is_dir() and not (source / f"link-{place}").exists():
                (source / f"link-{place}").symlink_to(source / target)
        assert_as_image_folder(source)
    finally:
        shutil.rmtree(source)


def test_formats_that_image_folder_does_not_know_are_included(tmp_path):
    names = sorted(f"a/x{extension}" for extension in IMAGE_EXTENSIONS)
    source = tree(tmp_path / "source", *names)
    assert [path for path, _ in samples_of(scanned(source))] == names
    assert {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"} < IMAGE_EXTENSIONS


# -- what is passed over -----------------------------------------------------------------------------------------------


def test_hidden_files_and_folders_are_skipped_and_counted(tmp_path):
    source = tree(tmp_path / "source", "a/1.jpg", "a/.2.jpg", "a/._1.jpg", ".git/1.jpg", "a/.thumbs/1.jpg", ".DS_Store")
    found = scanned(source)
    assert samples_of(found) == [("a/1.jpg", "a")]
    assert found.splits["train"].class_names == ["a"]
    assert found.hidden.count == 5
    assert len(found.hidden.examples) == 3
    assert found.hidden.shown().endswith(", …")


def test_other_files_are_skipped_and_counted(tmp_path):
    source = tree(tmp_path / "source", "a/1.jpg", "a/b/readme.txt", "a/labels.csv", "meta.json")
    found = scanned(source)
    assert found.other.count == 3
    assert sorted(found.other.examples) == ["a/b/readme.txt", "a/labels.csv", "meta.json"]
    assert not found.other.shown().endswith("…")


def test_images_beside_class_folders_are_loose(tmp_path):
    source = tree(tmp_path / "source", "a/1.jpg", "2.jpg", "3.jpg")
    found = scanned(source)
    assert samples_of(found) == [("a/1.jpg", "a")]
    assert (found.loose.count, sorted(found.loose.examples)) == (2, ["2.jpg", "3.jpg"])


def test_a_pipe_and_a_socket_are_no_images(tmp_path, monkeypatch):
    source = tree(tmp_path / "source", "a/1.jpg")
    os.mkfifo(source / "a" / "pipe.jpg")
    monkeypatch.chdir(source / "a")  # socket paths are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        found = scanned(source)
    assert samples_of(found) == [("a/1.jpg", "a")]
    assert sorted(found.other.examples) == ["a/pipe.jpg", "a/socket.jpg"]


def test_a_link_to_nothing_is_kept_so_that_reading_says_why(tmp_path):
    source = tree(tmp_path / "source", "a/1.jpg")
    (source / "a" / "0.jpg").symlink_to(tmp_path / "gone.jpg")
    (source / "a" / "folder").symlink_to(tmp_path / "gone")
    found = scanned(source)
    assert samples_of(found) == [("a/0.jpg", "a"), ("a/1.jpg", "a")]
    assert found.splits["train"].stats["size"].tolist() == [-1, 0]
    assert found.dead.examples == ["a/folder"]


JUNK = ["@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found", "thumbnails", "System Volume Information"]
HIDDEN_JUNK = [".ipynb_checkpoints", ".thumbnails"]


@pytest.mark.parametrize("place", ["", "a/", "a/b/", "train/", "train/a/"])
def test_junk_is_neither_class_nor_sample_at_any_depth_and_is_counted_by_name(tmp_path, place):
    kept = "train/a/1.jpg" if place.startswith("train") else "a/b/1.jpg"
    junk = [f"{place}{name}/x.jpg" for name in (*JUNK, *HIDDEN_JUNK)] + [f"{place}{name}/deep/y.jpg" for name in JUNK]
    source = tree(tmp_path / "source", kept, *junk, f"{place}Thumbs.db", f"{place}.DS_Store", f"{place}._1.jpg")
    found = scanned(source)
    assert samples_of(found) == [(kept, "a")]
    assert found.splits["train"].class_names == ["a"]
    assert found.junk == Counter([*JUNK, *HIDDEN_JUNK, "Thumbs.db", ".DS_Store", "._*"])
    assert found.hidden.count == 4
    assert found.other.count == 0
    assert found.empty_folders == []


def test_images_beside_the_folders_of_splits_are_noted(tmp_path):
    source = tree(tmp_path / "source", "train/a/1.jpg", "2.jpg", "3.jpg", "readme.txt", ".hidden.jpg")
    found = scanned(source)
    assert (found.beside.count, found.beside.examples) == (2, ["2.jpg", "3.jpg"])
    assert (found.loose.count, found.other.count, found.hidden.count) == (0, 0, 0)


def test_folders_without_images_beside_the_images_of_a_flat_folder_are_noted(tmp_path):
    assert scanned(tree(tmp_path / "source", "train/1.jpg", "train/logs/x.txt")).empty_folders == ["train/logs"]


def test_folders_with_images_inside_of_classes_are_told(tmp_path):
    source = tree(tmp_path / "source", "a/1.jpg", "a/b/c/2.jpg", "a/d/x.txt", "e/f/3.jpg", "e/b/4.jpg", "g/5.jpg")
    split = scanned(source).splits["train"]
    assert split.nested == {"a": ["b"], "e": ["b", "f"]}
    assert split.nested_alone == {"e"}
    assert split.class_counts() == {"a": 2, "e": 2, "g": 1}


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["a/b/1.jpg"], True), (["a/1.txt", "b/"], False), ([".x/1.jpg", "@eaDir/1.jpg", "._1.jpg"], False), ([], False)],
)
def test_whether_a_folder_holds_an_image(tmp_path, names, expected):
    source = tree(tmp_path / "source", *names)
    (source / "loop").symlink_to(source)
    assert holds_images(source) is expected


def test_the_look_for_images_ends_at_the_first(tmp_path, monkeypatch):
    source = tree(tmp_path / "source", *(f"{c}/{i}.jpg" for c in "abcdefgh" for i in range(3)))
    listed, real = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(path) or real(path))
    assert holds_images(source)
    assert len(listed) == 2


# -- loops -------------------------------------------------------------------------------------------------------------


def test_a_folder_that_holds_itself(tmp_path):
    source = tree(tmp_path / "source", "a/1.jpg", "a/b/2.jpg")
    (source / "a" / "again").symlink_to(source / "a")
    (source / "a" / "b" / "up").symlink_to(source / "a")
    found = scanned(source)
    assert [path for path, _ in samples_of(found)] == ["a/1.jpg", "a/b/2.jpg"]
    assert sorted(found.loops) == ["a/again", "a/b/up"]


def test_two_folders_that_hold_each_other(tmp_path):
    source = tree(tmp_path / "source", "a/1.jpg", "b/2.jpg")
    (source / "a" / "to_b").symlink_to(source / "b")
    (source / "b" / "to_a").symlink_to(source / "a")
    found = scanned(source)
    assert [path for path, _ in samples_of(found)] == ["a/1.jpg", "a/to_b/2.jpg", "b/2.jpg", "b/to_a/1.jpg"]
    assert sorted(found.loops) == ["a/to_b/to_a", "b/to_a/to_b"]


@pytest.mark.parametrize("place", ["a/source", "a/b/source", "source"])
def test_a_link_to_the_source_itself(tmp_path, place):
    source = tree(tmp_path / "source", "a/1.jpg", "a/b/2.jpg")
    (source / place).symlink_to(source)
    found = scanned(source)
    assert [path for path, _ in samples_of(found)] == ["a/1.jpg", "a/b/2.jpg"]
    assert found.loops == [place]


def test_a_link_out_of_a_split_to_the_source_ends_too(tmp_path):
    source = tree(tmp_path / "source", "train/a/1.jpg", "val/a/2.jpg")
    (source / "train" / "a" / "all").symlink_to(source)
    found = scanned(source)
    assert [path for path, _ in samples_of(found)] == ["train/a/1.jpg", "train/a/all/val/a/2.jpg"]
    assert found.loops == ["train/a/all/train"]


def test_a_link_to_itself_hides_nothing_beside_it(tmp_path):
    """The system answers such a link with an error, not with 'no': the rest of the folder is read all the same."""
    source = tree(tmp_path / "source", "a/1.jpg", "a/z.jpg", "b/1.jpg")
    for place in ("a/self", "a/m.jpg", "self"):
        (source / place).symlink_to(source / place)
    (source / "a" / "ping").symlink_to(source / "a" / "pong")
    (source / "a" / "pong").symlink_to(source / "a" / "ping")
    found = scanned(source)
    assert [path for path, _ in samples_of(found)] == ["a/1.jpg", "a/m.jpg", "a/z.jpg", "b/1.jpg"]
    assert found.splits["train"].stats["size"].tolist() == [0, -1, 0, 0]
    assert found.unreadable == {}
    assert found.dead.count == 4


# -- what cannot be listed ---------------------------------------------------------------------------------------------


@pytest.fixture
def forbid(monkeypatch):
    """Folders that cannot be listed, whoever runs the tests."""

    def forbidden(*folders: Path) -> None:
        real = os.scandir

        def scandir(path):
            if Path(os.fsdecode(path)) in folders:
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return forbidden


def test_a_folder_that_cannot_be_listed_is_noted_and_the_rest_is_read(tmp_path, forbid):
    source = tree(tmp_path / "source", "a/1.jpg", "a/b/2.jpg", "c/3.jpg", "d/4.jpg")
    forbid(source / "a" / "b", source / "c")
    found = scanned(source)
    assert samples_of(found) == [("a/1.jpg", "a"), ("d/4.jpg", "d")]
    assert found.splits["train"].class_names == ["a", "c", "d"]  # ids do not depend on a permission
    assert found.unreadable == {
        "a/b": "the folder cannot be listed: Permission denied",
        "c": "the folder cannot be listed: Permission denied",
    }


def test_a_split_that_cannot_be_listed(tmp_path, forbid):
    source = tree(tmp_path / "source", "train/a/1.jpg", "val/a/2.jpg")
    forbid(source / "val")
    found = scanned(source)
    assert found.unreadable == {"val": "the folder cannot be listed: Permission denied"}
    assert found.splits["val"].paths == []


def test_a_source_that_cannot_be_listed(tmp_path, forbid):
    source = tree(tmp_path / "source", "a/1.jpg")
    forbid(source)
    with pytest.raises(UsageError, match="cannot be listed: Permission denied"):
        scanned(source)


def test_if_nothing_else_is_found_the_refusal_says_what_cannot_be_listed(tmp_path, forbid):
    source = tree(tmp_path / "source", "a/1.jpg")
    forbid(source / "a")
    with pytest.raises(UsageError, match="holds no image.*'a': the folder cannot be listed: Permission denied"):
        scanned(source)


class _Entry:
    """A directory entry behind which the system does not let us look."""

    def __init__(self, entry: os.DirEntry) -> None:
        self.name = entry.name

    def is_dir(self) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied")

    def stat(self) -> os.stat_result:
        raise PermissionError(errno.EACCES, "Permission denied")


def test_links_into_a_forbidden_place_are_noted(tmp_path, monkeypatch):
    source = tree(tmp_path / "source", "a/1.jpg", "a/2.jpg", "a/folder/3.jpg")
    real = os.scandir

    class Listing:
        def __init__(self, path):
            with real(path) as entries:
                self._entries = [_Entry(e) if e.name in ("2.jpg", "folder") else e for e in entries]

        def __enter__(self):
            return iter(self._entries)

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(os, "scandir", Listing)
    found = scanned(source)
    assert [path for path, _ in samples_of(found)] == ["a/1.jpg", "a/2.jpg"]
    assert found.splits["train"].stats["size"].tolist() == [0, -1]
    assert found.unreadable == {"a/folder": "it cannot be looked at: Permission denied"}


# -- names -------------------------------------------------------------------------------------------------------------


def test_names_that_are_not_utf8_survive(tmp_path):
    source = tmp_path / "source"
    (source / "a").mkdir(parents=True)
    raw = b"caf\xe9.jpg"
    with open(os.fsencode(source / "a") + b"/" + raw, "wb"):
        pass
    os.mkdir(os.fsencode(source) + b"/\xff")
    with open(os.fsencode(source) + b"/\xff/1.jpg", "wb"):
        pass
    found = scanned(source)
    assert [os.fsencode(path) for path, _ in samples_of(found)] == [b"a/" + raw, b"\xff/1.jpg"]
    assert class_table(found, None) == ["a", os.fsdecode(b"\xff")]
    assert_as_image_folder(source)


# -- splits ------------------------------------------------------------------------------------------------------------


def test_classes_are_one_table_over_all_splits(tmp_path):
    source = tree(tmp_path / "source", "train/b/1.jpg", "train/c/", "val/a/1.jpg", "val/b/2.jpg")
    found = scanned(source)
    assert samples_of(found, "train") == [("train/b/1.jpg", "b")]
    assert samples_of(found, "val") == [("val/a/1.jpg", "a"), ("val/b/2.jpg", "b")]
    assert class_table(found, None) == ["a", "b", "c"]
    assert class_table(found, ["c", "zebra"]) == ["c", "zebra", "a", "b"]
    assert class_table(found, ["b", "c", "a"]) == ["b", "c", "a"]


def test_a_flat_folder_is_unlabelled(tmp_path):
    source = tree(tmp_path / "source", "train/a/1.jpg", "test/2.jpg", "test/10.jpg")
    found = scanned(source)
    assert samples_of(found, "test") == [("test/10.jpg", None), ("test/2.jpg", None)]
    assert found.splits["test"].class_index.tolist() == [-1, -1]
    assert found.loose.count == 0
    flat = scanned(tree(tmp_path / "flat", "1.jpg", "0.jpg"))
    assert samples_of(flat) == [("0.jpg", None), ("1.jpg", None)]
    assert class_table(flat, None) == []


def test_folders_of_a_recipe(tmp_path):
    source = tree(tmp_path / "source", "photos/2024/a/1.jpg", "photos/2025/a/2.jpg", "other/a/3.jpg")
    recipe = Recipe.from_dict({"splits": {"train": {"folder": "photos/2024"}, "val": {"folder": "./photos/2025/"}}})
    found = scanned(source, recipe)
    assert samples_of(found, "train") == [("photos/2024/a/1.jpg", "a")]
    assert samples_of(found, "val") == [("photos/2025/a/2.jpg", "a")]
    assert found.unused_folders == ["other"]


def test_the_whole_source_as_a_split_leaves_no_folder_unused(tmp_path):
    source = tree(tmp_path / "source", "a/1.jpg", "b/1.jpg")
    for folder in ("", ".", "./"):
        recipe = Recipe.from_dict({"splits": {"train": {"folder": folder}}})
        assert scanned(source, recipe).unused_folders == []


def test_a_missing_folder_of_a_recipe_is_refused_with_what_is_there(tmp_path):
    source = tree(tmp_path / "source", "training/a/1.jpg", "val/a/1.jpg", "readme.txt")
    recipe = Recipe.from_dict({"splits": {"train": {"folder": "train"}}})
    with pytest.raises(UsageError, match=r"split 'train': there is no folder 'train' in SOURCE .*: training, val$"):
        scanned(source, recipe)
    with pytest.raises(UsageError, match=r"folders there: none$"):
        scanned(tree(tmp_path / "flat", "1.jpg"), recipe)


def test_splits_taken_from_others_are_not_scanned(tmp_path):
    source = tree(tmp_path / "source", "a/1.jpg")
    recipe = Recipe.from_dict({"splits": {"train": {"folder": "."}, "val": {"from": "train", "fraction": 0.5}}})
    assert list(scanned(source, recipe).splits) == ["train"]


# -- nothing there -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [[], ["a/", "b/"], ["a/1.txt", ".2.jpg"], ["train/", "val/a/"]])
def test_a_source_without_images_is_refused_with_the_extensions(tmp_path, names):
    with pytest.raises(UsageError) as refused:
        scanned(tree(tmp_path / "source", *names))
    assert "holds no image: files with these extensions are looked for: " in str(refused.value)
    assert all(f" {extension}" in str(refused.value) for extension in IMAGE_EXTENSIONS)
    if "a/1.txt" in names:
        assert "found 1 other and 1 hidden files" in str(refused.value)


def test_a_source_that_is_missing_or_a_file_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        check_folder(tmp_path / "none")
    with pytest.raises(UsageError, match="is a file; a folder of images expected"):
        check_folder(touch(tmp_path / "file"))
    (tmp_path / "link").symlink_to(tmp_path / "none")
    with pytest.raises(UsageError, match="does not exist"):
        check_folder(tmp_path / "link")


# -- stat --------------------------------------------------------------------------------------------------------------


def test_the_stat_is_that_of_the_file_behind_a_link(tmp_path):
    source = tree(tmp_path / "source", "a/")
    target = tmp_path / "real.jpg"
    target.write_bytes(b"12345")
    (source / "a" / "1.jpg").symlink_to(target)
    stats = scanned(source).splits["train"].stats
    assert stats.dtype == STAT
    assert stats[0].item() == (5, target.stat().st_mtime_ns, target.stat().st_ctime_ns, target.stat().st_ino)


def test_the_largest_inode_fits():
    values = list(os.stat("/"))
    values[1] = 2**64 - 1
    numbers = stat_of(os.stat_result(values, {"st_mtime_ns": 0, "st_ctime_ns": 0}))
    assert np.array([numbers], STAT)["inode"][0] == -1


@pytest.mark.parametrize(
    ("time_ns", "kept"),
    [(1 << 63, (1 << 63) - 1), (1 << 80, (1 << 63) - 1), (-(1 << 63) - 1, -(1 << 63)), ((1 << 63) - 1, (1 << 63) - 1)],
)
def test_a_time_that_no_int64_holds_is_the_nearest_one(time_ns, kept):
    numbers = stat_of(os.stat_result(list(os.stat("/")), {"st_mtime_ns": time_ns, "st_ctime_ns": time_ns}))
    found = np.array([numbers], STAT)[0]
    assert (found["mtime_ns"], found["ctime_ns"]) == (kept, kept)
