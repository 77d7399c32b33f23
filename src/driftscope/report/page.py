"""One self-contained page: templates, assets, pictures, and data made safe for a script.

No page asks the network for anything (a content security policy forbids it). What comes from
data is escaped: jinja2 escapes text, `script_json` makes JSON safe inside `<script>`.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from driftscope.analysis.chart import Chart, Kind, Panel, plain_json
from driftscope.analysis.label_places import LEADS, SIZES, STILL
from driftscope.analysis.training_summaries import TO_STOP
from driftscope.analysis.words import DOUBTFUL
from driftscope.metrics import METRICS
from driftscope.records import write_whole
from driftscope.report.drawing import draw, series_swatch
from driftscope.report.style import (
    BLUE,
    DARK,
    DIVERGING,
    LIGHT,
    VERMILION,
    SeriesStyle,
    chart_styles,
    look,
    themed_svg,
)


@dataclass(frozen=True)
class Picture:
    """A figure on a page: its SVG, what it shows in words, and its interactive form, if any.

    The SVG serves paper and readers without script; where there is a plot, it takes its place.
    A page of too many figures has plots alone, and no SVG ("").
    """

    svg: Markup
    alt: str
    plot: Markup | None = None


@dataclass(frozen=True)
class LegendEntry:
    """A series' name and a drawn stretch of its line."""

    name: str
    swatch: Markup


def panel_pictures(
    chart: Chart,
    name: str,
    styles: Mapping[str, SeriesStyle] | None = None,
    *,
    legend: bool = False,
    is_interactive: bool = True,
    has_stills: bool = True,
) -> list[list[Picture]]:
    """Rows of pictures, one a panel: each fills the room that the page has for it.

    Args:
        chart: what is shown.
        name: unique on the page; ids are made of it.
        styles: how the names of its legend are drawn.
        legend: whether each still picture has the legend; a page has one of its own for several.
        is_interactive: whether the page draws the panel again, for pointer and keys. Maps stay
            as they are: their places tell their values by themselves.
        has_stills: whether the page has still pictures; one without has maps that can be asked.
    """
    own = {**chart_styles(chart), **(styles or {})}
    rows = []
    for row_number, row in enumerate(chart.panels):
        pictures = []
        for number, panel in enumerate(row):
            if not has_stills:
                pictures.append(Picture(Markup(""), panel.words, _plot(panel, own)))
                continue
            alone = replace(chart, panels=((panel,),), row_names=(), column_names=(), shares_y="")
            svg = themed_svg(draw(alone, own, legend=legend), f"{name}-{row_number}-{number}")
            plot = _plot(panel, own) if is_interactive and panel.heat is None else None
            pictures.append(Picture(Markup(svg), panel.words, plot))  # matplotlib escaped the texts
        rows.append(pictures)
    return rows


def whole_picture(
    chart: Chart, name: str, words: str, styles: Mapping[str, SeriesStyle] | None = None
) -> Picture:
    """A chart whose panels belong beside each other, as one still picture without a legend."""
    return Picture(Markup(themed_svg(draw(chart, styles, legend=False), name)), words)


def _plot(panel: Panel, styles: Mapping[str, SeriesStyle]) -> Markup:
    """What `charts.js` draws a panel from: its data, and how its series look."""
    names = dict.fromkeys(one.name for one in panel.marks if one.name)
    looks = {name: plotly_look(styles[name]) for name in names}
    return script_json({"panel": plain_json(replace(panel, words="")), "styles": looks})


def plotly_look(style: SeriesStyle) -> tuple[str, str, str]:
    """Colour, symbol and dashes in plotly's words (matplotlib's dashes are in line widths)."""
    lengths = () if isinstance(style.line, str) else style.line[1]
    dashes = ",".join(f"{2 * length:g}px" for length in lengths) or "solid"
    return style.colour, _SYMBOLS[style.marker], dashes


_SYMBOLS = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "D": "diamond",
    "v": "triangle-down",
    "P": "cross",
    "X": "x",
    "p": "pentagon",
    "<": "triangle-left",
    ">": "triangle-right",
    "h": "hexagon",
    "*": "star",
}


def chart_shared() -> Markup:
    """What every interactive figure of a page needs: how metrics are written, shared colours."""
    metrics = {
        one.key: {
            "heading": one.heading,
            "decimals": one.decimals,
            "signed": one.signed,
            "unit": one.unit,
            "floor": one.bounds[0],
            "unchanged": one.unchanged,
        }
        for one in METRICS.values()
    }
    styles = {
        "run": (BLUE, "circle", "solid"),
        "before": ("var(--muted)", "circle-open", "solid"),
        "after": (VERMILION, "circle", "solid"),
    }
    diverging = [_rgb(DIVERGING(step / 16)) for step in range(17)]
    shared = {"metrics": metrics, "styles": styles, "diverging": diverging}
    shared |= {"label_widths": [width for width, _ in SIZES], "label_still": STILL, "leads": LEADS}
    return script_json(shared)


def _rgb(colour: tuple[float, ...]) -> str:
    return "rgb({})".format(",".join(str(round(255 * part)) for part in colour[:3]))


def legend(
    styles: Mapping[str, SeriesStyle], prefix: str, kind: Kind = "line"
) -> list[LegendEntry]:
    """The entries of a legend that stands outside the figures, as their marks are drawn."""
    return [
        LegendEntry(
            name, Markup(themed_svg(series_swatch(style, kind), f"{prefix}-swatch-{number}"))
        )
        for number, (name, style) in enumerate(styles.items())
    ]


def png_uri(figure: Figure) -> str:
    """A figure as a PNG data URI, on white paper."""
    buffer = io.BytesIO()
    with look():
        figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def write_page(template: str, out: Path, **values: Any) -> Path:
    """Renders a template into `out` (a file, or a folder that gets `report.html`), whole."""
    page = rendered(template, written=_today(), **values)
    path = out if out.suffix == ".html" else out / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page.encode("utf-8", "backslashreplace"))
    return path


def rendered(template: str, **values: Any) -> str:
    """A template with values in it, as HTML."""
    return _environment().get_template(template).render(**values)


def script_json(value: object) -> Markup:
    """JSON that can stand inside `<script>`: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("driftscope.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["asset"] = _asset
    environment.globals["palettes"] = {"light": LIGHT, "dark": DARK}
    environment.globals["chart_shared"] = chart_shared
    environment.globals["standing_out"] = (DOUBTFUL, TO_STOP)
    environment.globals["plotly_source"] = _plotly_source
    environment.filters["script_json"] = script_json
    environment.filters["unbroken"] = unbroken
    environment.filters["commands"] = commands
    return environment


def unbroken(text: str, emphasised: Sequence[str] = ()) -> Markup:
    """A text without line breaks before a percent sign or within a learning rate.

    Args:
        text: as `analysis` says it; it is escaped.
        emphasised: parts of it that stand out, where they are first.
    """
    safe = str(escape(text))
    for part in map(str, map(escape, emphasised)):
        safe = safe.replace(part, f"<strong>{part}</strong>", 1)
    kept = safe.replace(" %", "\u00a0%")
    return Markup(re.sub(r"\b([\d.]+e-\d+)\b", r'<span class="unbroken">\1</span>', kept))


def commands(text: Markup) -> Markup:
    """Escaped text whose parts between backticks become code; a quoted name may hold backticks."""
    return Markup(re.sub(f"`((?:{_QUOTED}|[^`])++)`", _code, str(text)))


def _code(found: re.Match[str]) -> str:
    """A command whose options stay in one line with what they are given."""
    kept = re.sub(r"(?<!\S)(--[\w-]+(?: [A-Z]+)?)", r'<span class="unbroken">\1</span>', found[1])
    return f"<code>{kept}</code>"


_QUOTED = "&#39;.*?&#39;|&#34;.*?&#34;"
"""What a shell takes for one word, as escaping writes it."""


def _asset(name: str) -> Markup:
    """A stylesheet or script of ours, to stand in the page as it is."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))


def _plotly_source() -> Markup:
    """The library as one script; it has no `</script` in it (a test holds that)."""
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs())


def _today() -> str:
    now = datetime.datetime.now(tz=datetime.UTC)
    return f"{now.day} {now:%B %Y, %H:%M} UTC"
