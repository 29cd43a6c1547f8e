"""A page about a cache: its figures are right, its pictures are what is stored, and no name becomes markup."""

import json
import os
import shutil
import sys

import cv2
import numpy as np
import pytest

from cache_store import layout, open_cache
from cache_store.errors import NotFoundError, StorageError
from preprocess import UsageError, build, write_report
from preprocess.show import as_seen
from preprocess.specimens import source_cell
from tests.helpers import image_folder, write_image
from tests.markup import Page, pixels
from tests.unit.cache_store.stores import flip_bit

RECIPE = {
    "size": 16,
    "splits": {
        "train": {
            "folder": "train",
            "variants": 2,
            "transforms": [{"Resize": {"height": 16, "width": 16}}, {"HorizontalFlip": {"p": 0.5}}],
        },
        "val": {"folder": "val", "transforms": [{"Resize": {"height": 16, "width": 16}}]},
    },
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """train: 3 cats of 24 x 32 and a dog of 8 x 8; val: one of these cats again; and a file that is no image."""
    root = tmp_path_factory.mktemp("page")
    image_folder(root / "photos" / "train", ["cat"], count=3)
    write_image(root / "photos" / "train" / "dog" / "small.png", 50, 8, 8)
    (root / "photos" / "val" / "cat").mkdir(parents=True)
    shutil.copy(root / "photos" / "train" / "cat" / "001.png", root / "photos" / "val" / "cat" / "again.png")
    (root / "photos" / "train" / "dog" / "broken.png").write_bytes(b"no image at all")
    build(root / "photos", root / "cache", RECIPE, workers=1)
    return root


@pytest.fixture
def place(made, tmp_path):
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


def page(place, **options):
    report = write_report(place / "cache", place / "report.html", **options)
    return Page((place / "report.html").read_text()), report


def test_the_figures_of_a_known_cache(place):
    found, report = page(place)

    assert found.part("Class balance").tables == [
        [
            ["split", "samples", "variants", "classes", "smallest", "median", "largest"],
            ["train", "4", "2", "2", "1", "2", "3"],
            ["val", "1", "1", "1", "0", "0.5", "1"],
        ],
        [["class", "train", "val"], ["cat", "3", "1"], ["dog", "1", "0"]],
    ]
    sizes, scales, most = found.part("Source sizes").tables
    assert sizes[1:] == [
        ["width", "8", "32", "32"],
        ["height", "8", "24", "24"],
        ["width / height", "1.00", "1.33", "1.33"],
    ]
    # 24 x 32 becomes 16 x 16: sqrt(2/3 * 1/2) a side; 8 x 8 is doubled, in both of its variants.
    assert scales[1:] == [
        ["train", "8", "25%", "0%", "75%", "0.58", "0.58", "2.00"],
        ["val", "1", "0%", "0%", "100%", "0.58", "0.58", "0.58"],
    ]
    assert most[1] == ["train/dog/small.png (8 × 8, variant 0)", "2.00"]
    assert found.part("Left out").tables[1][1][:2] == ["train/dog/broken.png", "decode"]
    assert "leakage: 1 image is in 'train' and in 'val'" in found.part("Duplicates and leakage").text
    assert "2.0 times" in found.parts[0].text
    assert report.remarks[0] == "val: 1 class has no image: dog"
    assert [remark for remark in report.remarks if remark.startswith("leakage: ")]
    assert "1 image was left out" in report.remarks


def test_mean_and_std_are_those_of_the_stored_pixels(place):
    found, _ = page(place)
    with open_cache(place / "cache") as opened:
        table = opened.split("train")
        seen = [as_seen(opened.image("train", n, k), table.mean, table.std) for n in range(4) for k in range(2)]
        in_force = [f"{value:.4f}" for value in (*table.mean, *table.std)]
    values = np.stack(seen).reshape(-1, 3) / 255

    _, first, train, val = found.part("Mean and std").tables[0]
    assert first == ["in force", *in_force]
    assert train[1:] == [f"{value:.4f}" for value in (*values.mean(0), *values.std(0))]
    assert val[1:] != train[1:]


def test_statistics_that_are_pinned_and_off_are_pointed_out(place):
    image_folder(place / "photos" / "train", ["cat"], count=9, first_seed=300)
    build(place / "photos", place / "cache", workers=1)

    _, report = page(place)

    assert [remark for remark in report.remarks if remark.startswith("mean and std are pinned")]


def test_every_snapshot_is_listed_with_its_size_and_time(place):
    (place / "photos" / "train" / "cat" / "002.png").unlink()
    build(place / "photos", place / "cache", workers=1)

    _, second, first = page(place)[0].part("Snapshots").tables[0]

    assert (second[0], first[0]) == ("000002, in force", "000001")
    assert (second[2], first[2]) == ("train 3 × 2, val 1", "train 4 × 2, val 1")
    assert all(row[5].endswith("KiB") and row[6].endswith(" s") for row in (first, second))


def test_pictures_are_what_is_stored_beside_its_source(place):
    found, report = page(place)
    with open_cache(place / "cache") as opened:
        table = opened.split("train")
        stored = {k: as_seen(opened.image("train", 3, k), table.mean, table.std) for k in range(2)}

    shown = {image["alt"]: pixels(image["src"]) for image in found.part("Images").images}
    assert report.images == len(shown) == 2 * 3 + 2 + 3  # of the three cats two, evenly spread
    for k, expected in stored.items():
        np.testing.assert_array_equal(shown[f"variant {k} of train/dog/small.png"], expected)
    source = cv2.imread(str(place / "photos" / "train" / "dog" / "small.png"))[..., ::-1]
    np.testing.assert_array_equal(shown["source of train/dog/small.png"], source)


def test_sources_are_shown_only_as_long_as_they_are_the_same(place):
    write_image(place / "photos" / "train" / "cat" / "000.png", 999)
    (place / "photos" / "train" / "cat" / "002.png").unlink()

    found, report = page(place)

    alts = [image["alt"] for image in found.part("Images").images]
    assert "source of val/cat/again.png" in alts
    assert not {"source of train/cat/000.png", "source of train/cat/002.png"} & set(alts)
    assert "1 image cannot be shown below: changed since" in report.remarks
    assert "1 image cannot be shown below: not there any more" in report.remarks


def test_another_picture_of_the_same_length_is_not_taken_for_the_source(place):
    path = place / "photos" / "train" / "dog" / "small.png"
    former = path.read_bytes()
    flat = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    path.write_bytes(flat + bytes(len(former) - len(flat)))

    _, report = page(place)

    assert "1 image cannot be shown below: changed since" in report.remarks


def test_sources_in_another_place_are_named_and_others_left_out(place):
    (place / "photos").rename(place / "moved")
    without, _ = page(place)
    beside, _ = page(place, source=place / "moved")

    assert not [image for image in without.part("Images").images if image["alt"].startswith("source")]
    assert "--source DIR" in without.part("Images").text
    assert len([image for image in beside.part("Images").images if image["alt"].startswith("source")]) == 4
    with pytest.raises(UsageError, match="is not a folder"):
        page(place, source=place / "nowhere")


def test_a_path_that_leads_out_of_the_source_is_not_followed(place):
    (place / "photos").rename(place / "moved")
    (place / "photos").mkdir()
    with open_cache(place / "cache") as opened:
        table = opened.split("train")
        size, digest = int(table["size"][0]), table["digest"][0].tobytes()
        inside = source_cell(place / "moved", b"train/cat/000.png", size, digest)
        outside = source_cell(place / "photos", b"../moved/train/cat/000.png", size, digest)
        absolute = source_cell(place / "photos", os.fsencode(place / "moved/train/cat/000.png"), size, digest)
    assert inside.image is not None
    assert (outside.image, absolute.image) == (None, None)


def test_a_damaged_image_is_named_and_the_others_are_shown(place):
    with open_cache(place / "cache") as opened:
        table = opened.split("train")
        tensors_id, slot = table.tensors_id, int(table["slot"][3, 1])
    flip_bit(layout.shard_file(place / "cache", tensors_id, 0), slot * (3 * 16 * 16 * 2 + 4) + 100)

    found, report = page(place)

    alts = [image["alt"] for image in found.part("Images").images]
    assert "variant 0 of train/dog/small.png" in alts
    assert "variant 1 of train/dog/small.png" not in alts
    assert "1 image cannot be shown below: damaged" in report.remarks


HOSTILE = [
    b"<script>alert(1)<",
    b"<img src=x onerror=alert(2)> &amp; '\"`",
    b'$\\frac{1$ id="a #010101 url(#a)',
    b"caf\xe9 not utf-8",
    "\u202ereversed".encode(),
    b"a line\nand another",
]


def test_no_name_becomes_markup_and_nothing_is_loaded(tmp_path):
    for number, name in enumerate(HOSTILE):
        folder = tmp_path / "photos" / os.fsdecode(name)
        write_image(folder / "<b>\udce9.png", number)
        write_image(folder / "twin.png", 77)
        (folder / "<i onclick=alert(3)>.png").write_bytes(b"")
    build(tmp_path / "photos", tmp_path / "cache", {"size": 8}, workers=1, max_failures="90%")
    found, _ = page(tmp_path)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")

    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "b", "i", "iframe", "link", "object", "base", "form"}
    assert [tag for tag, _ in found.tags].count("style") == 1
    assert len(found.part("Images").images) == 6 * 2 * 2
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        assert attributes.get("src", "data:image/").startswith("data:image/")
        assert all(attributes.get(name, "#").startswith("#") for name in ("href", "xlink:href"))
        assert "url(" not in attributes.get("style", "").replace("url(#", "")
    assert text.count("://") == text.count('="http://www.w3.org/')  # names of SVG, which nobody fetches
    assert "<script>alert(1)<" in found.part("Images").text
    assert "'caf\\udce9 not utf-8'" in found.part("Images").text
    plain = '$\\frac{1$ id="a #010101 url(#a)'
    assert plain in [row[0] for row in found.part("Class balance").tables[1]]
    assert f">{plain[:17]}…</text>" in text.replace("&quot;", '"')
    assert "\u202e" not in text


def test_a_page_is_bounded_and_says_what_it_leaves_out(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(26):
        for name in range(9):
            file = tmp_path / "photos" / f"class {number:02d}" / f"{name}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
            file.write_bytes(cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes())
    recipe = {
        "size": 128,
        "dtype": "uint8",
        "splits": {"train": {"folder": ".", "transforms": [{"Resize": {"height": 128, "width": 128}}]}},
    }
    build(tmp_path / "photos", tmp_path / "cache", recipe, workers=1)

    found, report = page(tmp_path)

    assert report.page_bytes == (tmp_path / "report.html").stat().st_size < 5_000_000
    assert report.images == 24 * 8 * 2
    assert "24 of 26 classes" in found.part("Images").text
    assert found.part("Images").text.count("; one more image") == 24
    assert "The 12 largest and the 12 smallest of 26 classes" in found.part("Class balance").text
    assert len(found.part("Class balance").tables[1]) == 1 + 26


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", "gray"), ("float16", "gray")])
def test_gray_and_unlabelled_caches(tmp_path, dtype, channels):
    for number in range(3):
        write_image(tmp_path / "photos" / f"{number}.png", number)
    build(tmp_path / "photos", tmp_path / "cache", {"size": 8, "dtype": dtype, "channels": channels}, workers=1)

    found, _ = page(tmp_path)

    assert "unlabelled" in found.part("Images").text
    assert "No sample has a label." in found.part("Class balance").text
    assert found.part("Mean and std").tables[0][0] == ["in 0 to 1", "mean, gray", "std, gray"]


def test_the_same_cache_gives_the_same_page(place):
    page(place)
    first = (place / "report.html").read_bytes()
    page(place)

    assert (place / "report.html").read_bytes() == first


def test_what_is_written_is_said_in_words_and_as_json(place):
    _, report = page(place)

    assert str(report).startswith(
        f"wrote {place / 'report.html'} about snapshot 000001 of {place / 'cache'}: 11 pictures, "
    )
    said = json.loads(report.to_json())
    assert (said["images"], said["remarks"]) == (11, report.remarks)


def test_without_matplotlib_the_line_that_installs_it_is_given(place, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    with pytest.raises(UsageError, match="run: .* -m pip install 'matplotlib>=3.8'"):
        page(place)
    assert not (place / "report.html").exists()


def test_no_cache_and_no_place_for_the_page(place):
    with pytest.raises(NotFoundError):
        write_report(place / "nowhere", place / "report.html")
    with pytest.raises(StorageError):
        write_report(place / "cache", place / "no" / "such" / "report.html")
