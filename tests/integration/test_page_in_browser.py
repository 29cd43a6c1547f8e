"""The page of `decant report` in a real browser: whole, quiet, readable, and as narrow as a phone.

Skipped without Chromium. The page has no script, so another page looks at it, in frames of several widths.
"""

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass

import pytest

from preprocess import build, write_report
from tests.helpers import image_folder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to look at the page with")

WIDTHS = (400, 1200)

LOOK = """
const numbers = colour => (colour.match(/[\\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => [r, g, b]
  .map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
const contrast = (one, other) => {
  const [low, high] = [light(numbers(one)), light(numbers(other))].sort((a, b) => a - b);
  return (high + .05) / (low + .05);
};
function ground(element) {
  for (let e = element; e; e = e.parentElement) {
    const [,,, alpha = 1, ...rest] = numbers(e.ownerDocument.defaultView.getComputedStyle(e).backgroundColor);
    if (alpha > 0) return e.ownerDocument.defaultView.getComputedStyle(e).backgroundColor;
  }
  return "rgb(255, 255, 255)";
}
function look(frame) {
  const page = frame.contentDocument, view = frame.contentWindow;
  const style = e => view.getComputedStyle(e);
  const said = [...page.querySelectorAll("h1, h2, h3, p, li, td, th, small, figcaption, summary, .lost")];
  const inked = [...page.querySelectorAll("svg.plot text")];
  const drawn = [...page.querySelectorAll("svg.plot path")]
    .filter(e => style(e).fill.startsWith("rgb") && !e.closest("defs"));
  const images = [...page.images];
  return {
    dark: view.matchMedia("(prefers-color-scheme: dark)").matches,
    images: images.length,
    broken: images.filter(i => !i.complete || !i.naturalWidth || !i.getClientRects().length).length,
    plots: [...page.querySelectorAll("svg.plot")].filter(e => e.getBoundingClientRect().width > 200).length,
    width: page.documentElement.scrollWidth,
    height: page.documentElement.scrollHeight,
    contrast: Math.min(...said.map(e => contrast(style(e).color, ground(e))),
                       ...inked.map(e => contrast(style(e).fill, ground(e.closest("div"))))),
    bars: Math.min(...drawn.map(e => contrast(style(e).fill, ground(e.closest("div"))))),
    letters: Math.min(...inked.map(e => e.getBoundingClientRect().height)),
  };
}
onload = () => {
  const found = [...document.querySelectorAll("iframe")].map(look);
  document.getElementById("found").textContent = JSON.stringify(found);
};
"""


@dataclass
class Seen:
    """What a browser makes of a page: a dict for each of WIDTHS, and what it wrote to its console."""

    frames: list[dict]
    console: list[str]


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")

    def browse(page: str, *, dark: bool = False) -> Seen:
        frames = "".join(
            f'<iframe width="{width}" height="800" style="border: 0" srcdoc="{html.escape(page)}"></iframe>'
            for width in WIDTHS
        )
        test_page = folder / "look.html"
        test_page.write_text(f'<!doctype html><script>{LOOK}</script>{frames}<pre id="found"></pre>')
        command = [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"),
            *("--no-first-run", "--disable-extensions", "--disable-background-networking", "--enable-logging=stderr"),
            *(f"--user-data-dir={folder / 'profile'}", f"--blink-settings=preferredColorScheme={0 if dark else 1}"),
            *("--timeout=60000", "--dump-dom", test_page.as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
        (found,) = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
        return Seen(json.loads(html.unescape(found)), re.findall(r".*CONSOLE.*", done.stderr))

    return browse


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page about a cache with long names, failures and leakage, and how many pictures it has."""
    root = tmp_path_factory.mktemp("seen")
    names = ("cat", "<script>alert(1)<", "a_class_with_quite_a_long_name_" * 5)
    for split in ("train", "val"):
        image_folder(root / "photos" / split, names, count=3)
    (root / "photos" / "train" / "cat" / f"{'long' * 40}.jpg").write_bytes(b"")
    recipe = {
        "size": 40,
        "splits": {
            "train": {
                "variants": 4,
                "transforms": [{"RandomResizedCrop": {"size": [40, 40]}}, {"HorizontalFlip": {"p": 0.5}}],
            },
            "val": {"transforms": [{"Resize": {"height": 40, "width": 40}}]},
        },
    }
    build(root / "photos", root / "cache", recipe, workers=1)
    report = write_report(root / "cache", root / "report.html")
    return (root / "report.html").read_text(), report.images


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_is_whole_quiet_and_readable(browse, page, dark):
    text, images = page

    seen = browse(text, dark=dark)

    assert seen.console == []
    for width, frame in zip(WIDTHS, seen.frames, strict=True):
        assert frame["dark"] == dark
        assert (frame["images"], frame["broken"], frame["plots"]) == (images, 0, 3)
        assert frame["width"] <= width, "scrolls sideways"
        assert frame["contrast"] >= 4.5
        assert frame["bars"] >= 3
        assert frame["letters"] >= 9
    narrow, wide = seen.frames
    assert narrow["height"] > wide["height"] > 800


def test_a_page_that_is_none_of_this_is_noticed(browse):
    bad = (
        '<p style="width: 2000px; color: #bbb">wide and faint</p><svg class="plot"><text y="9">x</text></svg>'
        '<img src="data:image/png;base64,AAAA"><script>nowhere()</script><img src="file:///nowhere.png">'
    )

    seen = browse(bad)

    assert any("nowhere is not defined" in line for line in seen.console)
    frame = seen.frames[0]
    assert (frame["images"], frame["broken"]) == (2, 2)
    assert frame["width"] >= 2000
    assert frame["contrast"] < 2.5


def test_the_page_runs_and_fetches_nothing_even_if_an_escape_were_missing(browse, page):
    text, _ = page
    holed = text.replace("</header>", '<script>nowhere()</script><img src="file:///nowhere.png"></header>')

    seen = browse(holed)

    assert not any("is not defined" in line for line in seen.console)
    assert sum("Content Security Policy" in line for line in seen.console) >= 2 * len(WIDTHS)
