"""`decant report`, as a shell sees it."""

import json

import pytest

from preprocess import build
from tests.helpers import TINY, image_folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report of Jürgen")
    image_folder(folder / "my photos")
    build(folder / "my photos", folder / "my cache", TINY, workers=1)
    return folder


def test_report_writes_a_page_and_says_so(place, decant):
    said = decant("report", "my cache", "-o", "my page.html", cwd=place).stdout
    assert said.startswith("wrote my page.html about snapshot 000001 of my cache: 16 pictures, ")
    found = json.loads(decant("report", "my cache", "--output", "again.html", "--json", cwd=place).stdout)
    assert (found["snapshot"], found["images"]) == ("000001", 16)
    assert (place / "again.html").read_bytes() == (place / "my page.html").read_bytes()
    decant("verify", "my cache", cwd=place)


def test_what_cannot_be_meant_is_refused_and_leaves_no_page(place, decant):
    assert "'-o'" in decant("report", "my cache", cwd=place, code=2).stderr
    refused = decant("report", "my cache", "--source", "nowhere", "-o", "no.html", cwd=place, code=2)
    assert refused.stderr == "decant: SOURCE 'nowhere' is not a folder; name the one that the cache was built from\n"
    decant("report", "my photos", "-o", "no.html", cwd=place, code=4)
    decant("report", "my cache", "-o", "no/such/no.html", cwd=place, code=7)
    assert not list(place.glob("**/no.html"))
