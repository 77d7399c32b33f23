"""One self-contained page: templates, assets, pictures, and data made safe for a script.

No page asks the network for anything (a content security policy forbids it). What comes from
data is escaped: jinja2 escapes text, `script_json` makes JSON safe inside `<script>`.
"""

from __future__ import annotations

import base64
import datetime
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from driftscope.records import write_whole
from driftscope.report import figures
from driftscope.report.style import DARK, LIGHT, SeriesStyle, look, themed_svg


@dataclass(frozen=True)
class Picture:
    """A figure on a page: its SVG, what it shows in words, and its interactive form, if any.

    The SVG serves paper and readers without script; where there is a plot, it takes its place.
    """

    svg: Markup
    alt: str
    plot: Markup | None = None


@dataclass(frozen=True)
class LegendEntry:
    """A series' name and a drawn stretch of its line."""

    name: str
    swatch: Markup


def picture(figure: Figure, name: str, alt: str, plot: Mapping[str, Any] | None = None) -> Picture:
    """A figure made ready for a page; `name` must be unique on it, `plot` is of `plots`."""
    # matplotlib escaped the texts within; the name is ours
    svg = Markup(themed_svg(figure, name))
    return Picture(svg, alt, None if plot is None else script_json(plot))


def legend(styles: Mapping[str, SeriesStyle], prefix: str) -> list[LegendEntry]:
    """The entries of a legend that stands outside the figures."""
    return [
        LegendEntry(
            name, Markup(themed_svg(figures.series_swatch(style), f"{prefix}-swatch-{number}"))
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
    page = _environment().get_template(template).render(written=_today(), **values)
    path = out if out.suffix == ".html" else out / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page.encode())
    return path


def script_json(value: object) -> Markup:
    """JSON that can stand inside `<script>`: no character of it can end the element."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


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
    environment.globals["plotly_source"] = _plotly_source
    environment.filters["script_json"] = script_json
    return environment


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
