"""Plots as SVG text that a page takes into itself. The only import of matplotlib.

Colours are left to the page: what is drawn in one of `INKS` comes out as a CSS variable, so that one plot serves a
light and a dark page. Text stays text: it can be read aloud, searched and selected.
"""

import contextlib
import io
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from preprocess.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INKS = {
    "#010101": "var(--text)",
    "#020202": "var(--faint)",
    "#030303": "var(--series-1)",
    "#040404": "var(--series-2)",
    "#050505": "var(--series-3)",
    "#060606": "var(--series-4)",
    "#070707": "var(--series-5)",
    "#080808": "var(--series-6)",
}
"""Colours that matplotlib is given, and what the page makes of them; it has to define these variables."""

_TEXT, _FAINT, *_SERIES = INKS
_WIDTH_IN = 3.6
"""As wide as a phone's screen: a wider page enlarges a plot, and none has to shrink its letters."""

_BINS = 32


def require_matplotlib() -> None:
    """Raise UsageError, with the line that installs it, if there is no matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"the plots of a report need matplotlib, which cannot be imported ({error}); "
            f"run: {shlex.quote(sys.executable)} -m pip install 'matplotlib>=3.8'"
        ) from error


def class_balance(names: Sequence[str], counts: Mapping[str, np.ndarray], gap_after: int | None = None) -> str:
    """Samples of each class, a bar a class, a colour a split.

    Parameters
    ----------
    names : of the classes, from top to bottom
    counts : split -> int64 (n,), one number a class
    gap_after : leave room behind so many classes, as others are left out there
    """
    places = np.arange(len(names), dtype=float)
    if gap_after is not None:
        places[gap_after:] += 1
    with _figure(0.7 + 0.19 * (places[-1] + 1)) as figure:
        axes = figure.subplots()
        left = np.zeros(len(names))
        for number, (split, values) in enumerate(counts.items()):
            axes.barh(places, values, 0.75, left, color=_series(number), label=split)
            left += values
        axes.set_yticks(places, names)
        axes.set_ylim(places[-1] + 0.6, -0.6)
        axes.set_xlabel("samples")
        axes.locator_params("x", integer=True, nbins=5)
        _legend(figure, len(counts))
        return _svg(figure, "Bars: samples of each class, by split")


def source_sizes(sizes_hw: np.ndarray, size_hw: tuple[int, int]) -> str:
    """How many sources have sides of which length.

    Parameters
    ----------
    sizes_hw : int (n, 2), n > 0, height and width of each
    size_hw : of the tensors, which are marked
    """
    sides = {"shorter side": sizes_hw.min(axis=1), "longer side": sizes_hw.max(axis=1)}
    low, high = _apart(float(sizes_hw.min()), float(sizes_hw.max()))
    edges = np.geomspace(low, high, _BINS + 1)
    with _figure(2.4) as figure:
        axes = figure.subplots()
        for number, (name, values) in enumerate(sides.items()):
            axes.stairs(np.histogram(values, edges)[0], edges, color=_series(number), label=name, linewidth=1.8)
        axes.axvline(min(size_hw), color=_TEXT, linestyle=":", label="tensor")
        _log_axis(axes, min(low, *size_hw), max(high, *size_hw), "pixels", "{:.0f}")
        axes.set_ylabel("images")
        axes.locator_params("y", integer=True, nbins=5)
        _legend(figure, 3)
        return _svg(figure, "Histogram: lengths of the sources' sides in pixels")


def scale_factors(factors: Mapping[str, np.ndarray]) -> str:
    """How many variants are enlarged or shrunk by how much, in percent of each split.

    Parameters
    ----------
    factors : split -> float64 (n,), n > 0
    """
    low, high = _apart(min(f.min() for f in factors.values()), max(f.max() for f in factors.values()))
    edges = np.geomspace(low, high, _BINS + 1)
    with _figure(2.4) as figure:
        axes = figure.subplots()
        for number, (split, values) in enumerate(factors.items()):
            share = np.histogram(values, edges)[0] / len(values) * 100
            axes.stairs(share, edges, color=_series(number), label=split, linewidth=1.8)
        axes.axvline(1, color=_TEXT, linestyle=":")
        _log_axis(axes, min(low, 0.7), max(high, 1.5), "shrunk   ←   factor a side   →   enlarged", "×{:g}")
        axes.set_ylabel("% of a split")
        _legend(figure, len(factors))
        return _svg(figure, "Histogram: factors by which sources are enlarged or shrunk, by split")


def _series(number: int) -> str:
    return _SERIES[number % len(_SERIES)]


def _apart(low: float, high: float) -> tuple[float, float]:
    """Room around a range, which may be a single value."""
    return low / 1.05, high * 1.05


def _log_axis(axes: "Axes", low: float, high: float, title: str, form: str) -> None:
    """A logarithmic axis with plain numbers on it: powers of 2, of wide ranges every second or third one."""
    axes.set_xscale("log", base=2)
    axes.set_xlim(low / 1.1, high * 1.1)
    first, last = int(np.ceil(np.log2(low / 1.1))), int(np.log2(high * 1.1))
    ticks = 2.0 ** np.arange(first, last + 1, 1 + max(0, last - first) // 7)
    if not len(ticks):  # a range between two powers of 2, as of images of one size
        ticks = np.array([round(float(np.sqrt(low * high)), 1)])
    axes.set_xticks(ticks, [form.format(tick) if tick >= 1 else f"÷{1 / tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(title)


def _legend(figure: "Figure", columns: int) -> None:
    figure.legend(loc="outside upper left", ncols=min(columns, 3), frameon=False, handlelength=1.2, borderaxespad=0)


@contextlib.contextmanager
def _figure(height_in: float) -> Iterator["Figure"]:
    """An empty figure; whatever the user's own settings of matplotlib are, ours hold inside the block."""
    import matplotlib.style
    from matplotlib.figure import Figure

    settings: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "decant",
        "font.size": 8,
        "text.parse_math": False,  # a class may be called $x$
        "text.color": _TEXT,
        "axes.labelcolor": _TEXT,
        "xtick.color": _TEXT,
        "ytick.color": _TEXT,
        "axes.edgecolor": _FAINT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": _FAINT,
        "grid.alpha": 0.35,
        "xtick.major.size": 2,
        "ytick.major.size": 0,
        "figure.dpi": 72,
    }
    with matplotlib.style.context(["default", settings]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that its font lacks: the browser has others
        yield Figure((_WIDTH_IN, height_in), layout="constrained")


def _svg(figure: "Figure", title: str) -> str:
    """A figure as an element of a page: transparent, in the page's font, and without ids that another plot has too."""
    file = io.StringIO()
    none = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(file, format="svg", transparent=True, metadata=none)
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", title.lower())

    def for_the_page(tag: re.Match[str]) -> str:
        cleaned = re.sub(r"font-family: [^;]*; ", "", re.sub(r'^<g id="[^"]*"', "<g", tag[0]))
        named = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", cleaned)
        return re.sub(r"#(?:0[1-8]){3}", lambda ink: INKS.get(ink[0], ink[0]), named)

    text = re.sub(r"<[^>]*>", for_the_page, text)  # tags alone: what a class is called stays as it is
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" class="plot" ', 1)
