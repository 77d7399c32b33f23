"""One look for everything driftscope draws and prints: colours, markers, number formats.

Colours of ink, grid and paper are written into figures as the light values below; where a figure
goes into a page, `themed_svg` swaps them for CSS variables, so one drawing serves light and dark.
Interactive figures name the same colours as `var(--ink)` and the like.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure

from driftscope.analysis.answer_charts import PROBE_WORDS
from driftscope.analysis.chart import OTHERS, Chart
from driftscope.errors import plain
from driftscope.files import whole_file, write_whole

LIGHT = {
    "paper": "#fefefe",
    "raised": "#f5f6f8",
    "ink": "#16181d",
    "muted": "#5a616d",
    "grid": "#dcdfe5",
    "line": "#c6cad2",
    "accent": "#00588a",
    "focus": "#0072b2",
}
"""Colours of light pages and of print, by what they are for."""

DARK = {
    "paper": "#14161a",
    "raised": "#1d2026",
    "ink": "#e9ebef",
    "muted": "#a4acb8",
    "grid": "#31353d",
    "line": "#464b55",
    "accent": "#7fc4ee",
    "focus": "#56b4e9",
}

INK, MUTED, GRID, PAPER = (LIGHT[name] for name in ("ink", "muted", "grid", "paper"))

# Okabe and Ito's palette without yellow and black, which vanish on light and dark paper.
VERMILION, BLUE, _GREEN = "#D55E00", "#0072B2", "#009E73"
_PURPLE, ORANGE, _SKY = "#CC79A7", "#E69F00", "#56B4E9"
_FAMILY_COLOURS = (
    ("full_ft", VERMILION),
    ("lora", BLUE),
    ("linear_probe", _GREEN),
    ("last_block", _PURPLE),
)
_OTHER_COLOURS = (_SKY, ORANGE, _GREEN, _PURPLE, BLUE, VERMILION)
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h", "*")
_LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))

DIVERGING = LinearSegmentedColormap.from_list(
    "driftscope_diverging",
    ["#004a73", "#0072B2", "#7fb6d6", "#f5f4f1", "#efad7c", "#D55E00", "#7f3600"],
)
"""Blue below zero, near-white at zero, vermilion above: safe for every kind of colour vision."""

_RATES = LinearSegmentedColormap.from_list(
    "driftscope_rates", ["#2a7f9e", "#5d8f6b", "#a68a2c", "#c96f1e"]
)
"""Learning rates from low to high, of middle brightness: visible on light and dark paper."""

HOVER_PREFIX = "hover:"
"""An artist whose gid starts so carries, after it, the text shown when the pointer is over it."""

FORMATS = ("svg", "pdf", "png")

_RC: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # names come from data
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    "svg.hashsalt": "driftscope",
}


@dataclass(frozen=True)
class SeriesStyle:
    """How one method is drawn, everywhere."""

    colour: str
    marker: str
    line: Any


@contextmanager
def look() -> Iterator[None]:
    """Matplotlib's settings while a figure is drawn or saved; the caller's come back after.

    It tells of no letter that its font lacks.
    """
    settings: Any = _RC  # matplotlib types every key; a plain dict is what it takes
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def method_styles(methods: Iterable[str]) -> dict[str, SeriesStyle]:
    """A style for each method label; known families keep their colour wherever they are drawn.

    Markers are all different as far as they go, so that no method is told by colour alone.
    """
    styles: dict[str, SeriesStyle] = {}
    uses: dict[str, int] = {}
    for index, method in enumerate(dict.fromkeys(methods)):
        colour = next((c for family, c in _FAMILY_COLOURS if method.startswith(family)), None)
        if colour is None or uses.get(colour):
            free = [c for c in _OTHER_COLOURS if not uses.get(c)]
            colour = free[0] if free else min(_OTHER_COLOURS, key=lambda c: uses.get(c, 0))
        line = _LINES[uses.get(colour, 0) % len(_LINES)]
        uses[colour] = uses.get(colour, 0) + 1
        styles[method] = SeriesStyle(colour, _MARKERS[index % len(_MARKERS)], line)
    return styles


def rate_styles(learning_rates: Iterable[float]) -> dict[float, SeriesStyle]:
    """A style for each learning rate, from teal (lowest) to amber (highest)."""
    rates = sorted(set(learning_rates))
    steps = max(len(rates) - 1, 1)
    return {
        rate: SeriesStyle(to_hex(_RATES(at / steps)), _MARKERS[at % len(_MARKERS)], "-")
        for at, rate in enumerate(rates)
    }


def chart_styles(chart: Chart) -> dict[str, SeriesStyle]:
    """How each name of a chart's legend is drawn."""
    if chart.colours == "rates":
        return dict(zip(chart.legend, rate_styles(map(float, chart.legend)).values(), strict=True))
    if chart.colours == "probes":
        colours = dict(zip(PROBE_WORDS.values(), (BLUE, ORANGE), strict=True))
        return {name: SeriesStyle(colours[name], "o", "-") for name in chart.legend}
    if chart.colours == "pair":
        looks = ((BLUE, "o"), (ORANGE, "D"))
        pairs = zip(chart.legend, looks, strict=False)
        return {name: SeriesStyle(*own, "-") for name, own in pairs}
    styles = method_styles([name for name in chart.legend if name != OTHERS])
    return {name: styles.get(name, SeriesStyle(MUTED, "o", "-")) for name in chart.legend}


def themed_svg(figure: Figure, name: str) -> str:
    """The figure as an inline `<svg>` element that follows the page's colours.

    Ids are prefixed with `name`, since several figures share a page; the size is left to CSS
    (`--natural-width` is the drawn width in px).
    """
    svg = _svg(figure)
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    svg = re.sub(r"font: (bold|\d+) ([\d.]+px) [^;\"]*", r"font-weight: \1; font-size: \2", svg)
    for name in ("ink", "muted", "grid", "paper"):
        svg = svg.replace(LIGHT[name], f"var(--{name}, {LIGHT[name]})")
    width_px = figure.get_figwidth() * 96
    return re.sub(
        r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>",
        rf'<svg xmlns:xlink="http://www.w3.org/1999/xlink" \1 '
        rf'style="--natural-width: {width_px:.0f}px" aria-hidden="true" focusable="false">',
        svg,
        count=1,
    )


def save_figure(figure: Figure, stem: Path, formats: Iterable[str] = FORMATS) -> list[Path]:
    """Writes the figure as `stem`.svg, .pdf, .png (white paper, 200 dpi); returns the paths."""
    paths = []
    for kind in formats:
        path = stem.with_name(f"{stem.name}.{kind}")
        if kind == "svg":
            write_whole(path, _svg(figure, paper="white").encode())
        else:
            metadata = {"CreationDate": None} if kind == "pdf" else {}
            with look(), whole_file(path) as partial:
                figure.savefig(partial, format=kind, dpi=200, facecolor="white", metadata=metadata)
        paths.append(path)
        figure.set_layout_engine("none")  # laid out once: the formats look the same
    return paths


def _svg(figure: Figure, paper: str = "none") -> str:
    """The figure as SVG text: no date, no ids but those referred to, hover texts as `<title>`."""
    buffer = io.StringIO()
    with look():
        metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(buffer, format="svg", metadata=metadata, facecolor=paper)
    svg = re.sub(
        rf'<g id="{HOVER_PREFIX}([^"]*)">',
        r'<g class="hover"><title>\1</title>',
        buffer.getvalue(),
    )
    return plain(re.sub(r'<g id="[^"]*">', "<g>", svg))  # XML knows no control characters
