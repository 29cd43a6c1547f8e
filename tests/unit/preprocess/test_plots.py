"""Plots as parts of a page: valid, in the page's colours, and indifferent to names and to the user's settings."""

import re
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from preprocess import plots
from preprocess.markup import STYLE

COUNTS = {"train": np.array([3, 0]), "val": np.array([1, 2])}


def all_plots():
    return [
        plots.class_balance(["cat", "<script>"], COUNTS),
        plots.source_sizes(np.array([[10, 20], [300, 40]]), (16, 16)),
        plots.scale_factors({"train": np.array([0.5, 2.0]), "val": np.array([1.0])}),
    ]


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_plots_are_well_formed_and_have_no_id_in_common():
    ids = [re.findall(r'\bid="([^"]*)"', svg) for svg in all_plots()]

    assert all(ElementTree.fromstring(svg).get("aria-label") for svg in all_plots())
    assert all(ids)
    every = [one for some in ids for one in some]
    assert len(every) == len(set(every))
    for svg in all_plots():
        assert set(re.findall(r'(?:href="|url\()#([^")]*)', svg)) <= set(re.findall(r'\bid="([^"]*)"', svg))


def test_every_colour_is_the_pages_own():
    for svg in all_plots():
        assert "var(--text)" in svg
        assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?![^<]*</text>)", re.sub(r'href="#[^"]*"|url\(#[^)]*\)', "", svg))
        assert "<style" not in svg
    for ink in plots.INKS.values():
        assert STYLE.count(f"{ink[4:-1]}: #") == 2, ink  # light and dark


def test_names_are_shown_as_they_are():
    names = ["<script>", "$\\frac{1$", '#010101 url(#x) id="y"', "犬"]
    svg = plots.class_balance(names, {"train": np.arange(4)})

    assert [name for name in texts(svg) if name in names] == names


@pytest.mark.parametrize("sizes", [[[8, 8]], [[20, 20]], [[1, 100_000]]])
def test_ranges_of_one_value_and_wide_ones(sizes):
    assert "tensor" in texts(plots.source_sizes(np.array(sizes), (224, 224)))
    assert texts(plots.source_sizes(np.array(sizes), (sizes[0][0], sizes[0][1])))
    assert "val" in texts(plots.scale_factors({"val": np.array(sizes[0]) / 64}))


def test_the_users_own_settings_do_not_matter():
    expected = all_plots()
    with mpl.rc_context({"svg.fonttype": "path", "text.color": "red", "axes.facecolor": "yellow", "font.size": 30}):
        assert all_plots() == expected


def test_classes_that_are_left_out_leave_a_gap():
    with_gap = plots.class_balance(list("abcd"), {"train": np.ones(4, int)}, gap_after=2)
    places = [float(y) for y in re.findall(r'<text [^>]*\by="([\d.]+)"[^>]*>[abcd]</text>', with_gap)]

    first, second, third = np.diff(places)
    assert first == pytest.approx(third)
    assert second == pytest.approx(2 * first, rel=1e-3)
