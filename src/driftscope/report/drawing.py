"""Charts as matplotlib figures: for files, for print, and for pages without script.

A chart says what is shown (`analysis.chart`); only positions and looks are decided here. Every
figure is drawn by itself (no pyplot, no global state) within `style.look`. An artist may carry a
hover text in its gid (`style.HOVER_PREFIX`); pages show it on the pointer.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis as Ruler
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from driftscope.analysis.chart import Chart, Heat, Kind, Marks, Panel, Place
from driftscope.analysis.label_places import LEADS, STILL
from driftscope.analysis.words import rate_text
from driftscope.metric import Metric, number_text
from driftscope.metrics import METRICS
from driftscope.report.style import (
    DIVERGING,
    GRID,
    HOVER_PREFIX,
    INK,
    MUTED,
    PAPER,
    SeriesStyle,
    chart_styles,
    look,
)

REFERENCE_LINE: dict[str, Any] = {
    "color": MUTED,
    "linewidth": 1,
    "linestyle": (0, (4, 3)),
    "zorder": 1,
}
"""How the pretrained level is drawn, everywhere."""

TITLE_WIDTH_IN_ROW = 24
"""Characters that stand above a panel of a row without running into the next."""

_SHARED: dict[str, Literal["none", "row", "col"]] = {"": "none", "row": "row", "column": "col"}
_MANY_COLUMNS = 16
"""A map of more columns has every second one named and no values printed."""
_LONGEST_NAME = 28
_LONGEST_BAR = 3.5
"""Inches of a colour bar at most: beside many maps it stands at the top."""
_SMALLEST = 7.0
"""Points of the smallest text: a page shows no text below 9 pixels."""


def draw(
    chart: Chart, styles: Mapping[str, SeriesStyle] | None = None, *, legend: bool = True
) -> Figure:
    """The chart as a figure.

    Args:
        chart: what is shown.
        styles: how the names of its legend are drawn; by default `style.chart_styles` of them.
        legend: whether the names stand above the panels.
    """
    with look():
        if chart.flat[0].heat is not None:
            return _maps(chart)
        own = {**chart_styles(chart), **(styles or {})}
        return _panels(chart, {name: own[name] for name in chart.legend}, legend=legend)


def series_swatch(style: SeriesStyle, kind: Kind = "line") -> Figure:
    """A series' mark, for legends outside the figure: a stretch of its line, a dot or a bar."""
    with look():
        figure = Figure(figsize=(0.42, 0.2))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        if kind == "bars":
            axes.plot([0.2, 0.8], [0.5, 0.5], color=style.colour, linewidth=8)
            return figure
        if kind == "line":
            axes.plot([0.02, 0.98], [0.5, 0.5], color=style.colour, linestyle=style.line)
        axes.plot([0.5], [0.5], color=style.colour, marker=style.marker, mec=PAPER, markersize=6.5)
    return figure


# ---------------------------------------------------------------- panels of marks


def _panels(chart: Chart, styles: Mapping[str, SeriesStyle], *, legend: bool) -> Figure:
    num_rows, num_columns = len(chart.panels), len(chart.panels[0])
    width, height = _panel_size(chart)
    # labels are placed between axes of one size, with a legend above or without
    above = 0.05 if not legend and any(one.labels for one in chart.flat[0].marks) else 0.6
    figure = Figure(
        figsize=(width * num_columns + 0.35 * (num_columns > 1), height * num_rows + above),
        layout=ConstrainedLayoutEngine(wspace=0.08 if num_rows > 1 else None),
    )
    grid = figure.subplots(
        num_rows, num_columns, squeeze=False, sharex=num_rows > 1,
        sharey=_SHARED[chart.shares_y],
    )  # fmt: skip
    for axes, panel in zip(grid.flat, chart.flat, strict=True):
        _panel(axes, panel, styles, width, is_alone=len(chart.flat) == 1)
    _name_rows_and_columns(grid, chart, wrapped=not chart.row_names or num_rows > 1)
    for axes, panel in zip(grid.flat, chart.flat, strict=True):
        _value_limits(axes, panel)  # once everything that shares the axis is drawn
    if legend and (handles := _legend_handles(chart, styles)):
        ncols = _legend_columns(chart, [str(one.get_label()) for one in handles], figure)
        figure.legend(
            handles=handles, loc="outside upper left", alignment="left",
            title=chart.legend_title or None, ncols=ncols,
        )  # fmt: skip
        further_rows = math.ceil(len(handles) / ncols) - _USUAL_LEGEND_ROWS
        figure.set_figheight(figure.get_figheight() + _LEGEND_ROW * max(0, further_rows))
    return figure


def _panel_size(chart: Chart) -> tuple[float, float]:
    """Inches of one panel: a column of a journal's page, or a part of one."""
    first = chart.flat[0]
    if first.y.scale == "names":
        return 3.8, 0.34 * len(first.y.names) + 0.4
    if first.x.metric:
        return 4.6 if any(one.labels for one in first.marks) else 3.8, 2.9
    if len(chart.panels) > 1:
        return 2.35, 1.75
    return (3.35 if len(chart.flat) == 1 else 2.85 if chart.shares_y else 2.35), 2.15


_MOST_APART = 0.2
"""Decades over which many series at one rate are spread, so that they stay at that rate."""
_LEGEND_MARK, _LETTER, _LEGEND_ROW = 0.5, 0.065, 0.18
"""Inches of a legend's mark and of a letter beside it, and of a row."""
_USUAL_LEGEND_ROWS = 3


def _legend_columns(chart: Chart, names: Sequence[str], figure: Figure) -> int:
    """As many as suit the panels and as the longest name leaves room for."""
    columns = len(chart.panels[0])
    usual = 2 * columns + 1 if chart.colours == "rates" or chart.shares_y else columns + 1
    usual = 3 if chart.flat[0].x.metric else usual
    fitting = int(figure.get_figwidth() / (_LEGEND_MARK + _LETTER * max(map(len, names))))
    return max(1, min(len(names), usual, fitting))


def _legend_handles(chart: Chart, styles: Mapping[str, SeriesStyle]) -> list[Line2D]:
    kinds = {one.name: one.kind for panel in chart.flat for one in panel.marks}
    handles = []
    for name, style in styles.items():
        line: dict[str, Any] = {"linestyle": style.line, "marker": style.marker, "mec": PAPER}
        if kinds.get(name) == "bars":
            line = {"linewidth": 6}
        elif chart.flat[0].x.metric:
            line = {"linestyle": "none", "marker": style.marker}
        handles.append(Line2D([], [], color=style.colour, label=name, **line))
    if any(one.ringed for panel in chart.flat for one in panel.marks):
        handles.append(
            Line2D([], [], color=MUTED, marker="o", mfc="none", mec=INK, label="on the frontier")
        )
    if any(panel.level is not None for panel in chart.flat):
        handles.append(Line2D([], [], label="pretrained", **REFERENCE_LINE))
    return handles if styles else []


def _name_rows_and_columns(grid: np.ndarray, chart: Chart, *, wrapped: bool) -> None:
    """What stands above the first row and beside the first column, where there are several."""
    if len(chart.flat) == 1:
        return
    for axes, name in zip(grid[0], chart.column_names, strict=False):
        name = textwrap.fill(name, TITLE_WIDTH_IN_ROW) if wrapped else name
        axes.set_title(name, fontsize=8.5)
    for axes, name in zip(grid[:, 0], chart.row_names, strict=False):
        axes.set_ylabel(name)
    is_shared = chart.shares_y == "row" or chart.flat[0].heat is not None
    for axes in grid.flat if chart.row_names and is_shared else ():
        axes.label_outer()
    for axes in grid[:-1].flat:
        axes.set_xlabel("")


def _panel(
    axes: Axes, panel: Panel, styles: Mapping[str, SeriesStyle], width: float, *, is_alone: bool
) -> None:
    if panel.level is not None:
        axes.axhline(panel.level, **REFERENCE_LINE)
    places = {name: at for at, name in enumerate(styles)}
    bars = [one for one in panel.marks if one.kind == "bars"]
    for one in panel.marks:
        style = styles.get(one.name, SeriesStyle(MUTED, "", "-"))
        if one.kind == "bars":
            _bars(axes, one, style, panel.y.names, bars.index(one), len(bars))
        elif one.kind == "dots":
            _dots(axes, one, style, _shift(panel, places.get(one.name, 0), len(places)))
        elif not one.is_single:
            _line(axes, one, style, panel, _shift(panel, places.get(one.name, 0), len(places)))
    _horizontal_axis(axes, panel, width)
    if panel.y.scale == "names":
        axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
        axes.set_yticks(range(len(panel.y.names)), panel.y.names)
        axes.set_ylim(-0.6, len(panel.y.names) - 0.4)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    elif panel.x.metric:
        axes.set_ylabel(panel.y.heading)
    if is_alone and panel.title:
        title = panel.title.replace(": ", "\n") if panel.title.endswith(panel.y.heading) else ""
        axes.set_title(title or panel.title, pad=8, fontsize=8.5 if "\n" in title else None)


def _shift(panel: Panel, place: int, count: int) -> float:
    """On a log axis the marks of one rate stand side by side, not on top of each other."""
    apart = min(0.03, _MOST_APART / count) if count else 0.0  # decades
    return float(10 ** (apart * (place - (count - 1) / 2))) if panel.x.scale == "log" else 1.0


def _line(axes: Axes, marks: Marks, style: SeriesStyle, panel: Panel, shift: float) -> None:
    known = [at for at, value in enumerate(marks.y) if value is not None]
    x = [float(marks.x[at] or 0) * shift for at in known]
    y = [float(marks.y[at] or 0) for at in known]
    muted: dict[str, Any] = {"linewidth": 1, "zorder": 1} if not marks.name else {"zorder": 3}
    axes.plot(x, y, color=style.colour, linestyle=style.line, **muted)
    for place, at in zip(x, known, strict=True):
        interval = marks.y_ends[at] if marks.y_ends else None
        if interval is not None:
            middle = sum(interval) / 2
            axes.errorbar(
                [place], [middle], yerr=[interval[1] - middle], fmt="none", zorder=3,
                ecolor=style.colour, elinewidth=1.1, capsize=2.5,
            )  # fmt: skip
    if not marks.name:
        return
    size = 4.5 if panel.x.scale == "linear" and panel.x.heading != "layer" else 5.5
    for place, value, at in zip(x, y, known, strict=True):
        axes.plot(
            [place], [value], linestyle="none", marker=style.marker, color=style.colour, mec=PAPER,
            mew=0.8, markersize=size, zorder=4, gid=hover(hover_text(panel, marks, at)),
        )  # fmt: skip


def _dots(axes: Axes, marks: Marks, style: SeriesStyle, shift: float) -> None:
    for at, (x, y) in enumerate(zip(marks.x, marks.y, strict=True)):
        if x is None or y is None:
            continue
        gid = hover(marks.hover[at]) if marks.hover else None
        if marks.is_single:
            axes.plot(
                [float(x) * shift * 1.06], [y], linestyle="none", marker=".", markersize=4,
                color=style.colour, alpha=0.55, mec="none", zorder=2, gid=gid,
            )  # fmt: skip
            continue
        is_ringed = bool(marks.ringed) and marks.ringed[at]
        axes.errorbar(
            x, y, _reach(marks.y_ends, at, y), _reach(marks.x_ends, at, x), fmt="none",
            ecolor=style.colour, elinewidth=0.9, alpha=1 if is_ringed else 0.6,
        )  # fmt: skip
        axes.plot(
            [x], [y], linestyle="none", marker=style.marker, color=style.colour, gid=gid,
            zorder=5 if is_ringed else 3,
            markersize=8.5 if is_ringed else 6, mec=INK if is_ringed else PAPER,
            mew=1.4 if is_ringed else 0.8,
        )  # fmt: skip
        places = marks.label_offsets[at] if marks.label_offsets else ()
        if places and (offset := places[STILL]) is not None:
            _label(axes, (float(x), float(y)), marks.labels[at], offset)


def _label(axes: Axes, at: tuple[float, float], text: str, offset: tuple[float, float]) -> None:
    """A label beside its point, with a line that leads to it where it stands far off."""
    across = offset[0]
    is_far = math.hypot(*offset) > LEADS
    axes.annotate(
        text, at, xytext=(0.75 * across, 0.75 * offset[1]), textcoords="offset points",
        ha="left" if across > 1 else "right" if across < -1 else "center", va="center",
        fontsize=7.5, color=INK, zorder=5,
        arrowprops={"arrowstyle": "-", "color": MUTED, "linewidth": 0.6} if is_far else None,
    )  # fmt: skip


def _reach(ends: Sequence[tuple[float, float] | None], at: int, value: Place) -> list[list[float]]:
    """How far a point's interval reaches below and above it, 0 where there is none."""
    interval = ends[at] if ends else None
    if interval is None or not isinstance(value, int | float):
        return [[0.0], [0.0]]
    return [[max(value - interval[0], 0.0)], [max(interval[1] - value, 0.0)]]


def _bars(
    axes: Axes, marks: Marks, style: SeriesStyle, names: Sequence[str], place: int, count: int
) -> None:
    thickness = 0.78 / count
    for at, (length, name) in enumerate(zip(marks.x, marks.y, strict=True)):
        y = names.index(str(name)) + 0.39 - thickness * (place + 0.5)
        (bar,) = axes.barh(y, float(length or 0), 0.9 * thickness, color=style.colour, zorder=2)
        bar.set_gid(hover(marks.hover[at]) if marks.hover else None)
        if marks.x_ends and (interval := marks.x_ends[at]) is not None:
            axes.plot(interval, [y, y], color=INK, linewidth=1, zorder=3)


def hover_text(panel: Panel, marks: Marks, at: int) -> str:
    """What is told of a point: its own text, or its place and value."""
    if marks.hover:
        return marks.hover[at]
    value, metric = marks.y[at], panel.y.known
    number = float(value) if isinstance(value, int | float) else None
    text = metric.with_unit(number) if metric else number_text(number, 3)
    return f"{panel.x.heading} {marks.x[at]:g}\n{text}"


def hover(text: str) -> str:
    """The gid of an artist that shows the text's first two lines, in one, on the pointer."""
    first, *more = text.split("\n")[:2]
    has_colon = bool(more) and more[0].startswith(("seed ", "epoch ", "step "))
    return HOVER_PREFIX + (", " if has_colon else ": ").join([first, *more])


# ---------------------------------------------------------------- axes


def _horizontal_axis(axes: Axes, panel: Panel, width: float) -> None:
    axes.set_xlabel(panel.x.heading)
    if panel.x.scale == "log":
        _rate_axis(axes, panel.x.ticks, width)
    elif panel.x.limits:
        axes.set_xlim(panel.x.limits)
        number_axis(axes.xaxis)
    elif not panel.x.metric:
        is_layers = panel.x.heading == "layer"
        last = max(
            (float(x) for one in panel.marks for x in one.x if isinstance(x, int | float)),
            default=1.0,
        )
        num_ticks = min(12, max(1, int(last))) if is_layers else 4 if width < 3 else 6
        axes.xaxis.set_major_locator(MaxNLocator(num_ticks, integer=True))
        axes.grid(axis="x", visible=False)
        if not is_layers:
            lengths = (x for one in panel.marks for x in one.x if isinstance(x, int | float))
            least = min([0.0, *lengths])
            axes.set_xlim(1.05 * least, None if last > 0 else 1)


def _rate_axis(axes: Axes, rates: Sequence[float], width: float) -> None:
    """Rates on a log axis, as many labels as a panel `width` inches wide has room for."""
    axes.set_xscale("log")
    span = math.log10(rates[-1] / rates[0]) if len(rates) > 1 else 1.0
    margin = 10 ** max(0.12 * span, 0.12)
    axes.set_xlim(rates[0] / margin, rates[-1] * margin)
    label = 0.36 / (width - 0.6)  # a label's share of the axis, inches of both
    shown = _spaced(rates, smallest_gap=label * (span + 2 * math.log10(margin)))
    axes.xaxis.set_major_locator(FixedLocator(list(shown)))
    axes.xaxis.set_major_formatter(
        FixedFormatter([rate_text(float(f"{rate:.3g}")) for rate in shown])
    )
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", visible=False)


def _spaced(rates: Sequence[float], smallest_gap: float) -> list[float]:
    """The rates whose tick labels do not run into the one before (gap in decades)."""
    shown: list[float] = []
    for rate in rates:
        if not shown or math.log10(rate / shown[-1]) >= smallest_gap:
            shown.append(rate)
    return shown


def number_axis(axis: Ruler, *, num_ticks: int = 5, signed: bool = False) -> None:
    """Round tick values, written with exactly the decimals that they have."""
    locator = MaxNLocator(num_ticks, steps=[1, 2, 2.5, 5, 10])
    axis.set_major_locator(locator)
    ticks = locator()
    step = float(ticks[1] - ticks[0]) if len(ticks) > 1 else 1.0
    decimals = next((d for d in range(9) if math.isclose(round(step, d), step)), 9)
    axis.set_major_formatter(lambda value, _: number_text(value, decimals, signed=signed))


def _value_limits(axes: Axes, panel: Panel) -> None:
    """Room above and below, within what the metric can be; round ticks."""
    metric = panel.y.known
    if metric is None:
        if panel.y.limits:
            axes.set_ylim(panel.y.limits)
        return
    axes.relim()
    axes.autoscale(axis="y")
    axes.set_ylim(panel.y.limits or _within(metric, *axes.get_ylim()))
    number_axis(axes.yaxis)
    if panel.x.metric:
        number_axis(axes.xaxis)


def _within(metric: Metric, low: float, high: float) -> tuple[float, float]:
    """The limits with some room, but not past the ends of the metric's range."""
    room = 0.08 * (high - low)
    low, high = low - room / 2, high + room
    floor, ceiling = metric.bounds
    if floor == 0 and (low < 0 or low < 0.35 * high):
        low = 0.0
    if ceiling is not None and high > ceiling:
        high = ceiling + 0.03 * (ceiling - low)
    return low, high


# ---------------------------------------------------------------- maps


def _maps(chart: Chart) -> Figure:
    """Maps of one metric on one scale: stacked, in a grid, or one of classes by cells."""
    heats = [panel.heat for panel in chart.flat if panel.heat is not None]
    first = heats[0]
    is_grid = bool(chart.column_names)
    metric, is_signed = METRICS[first.metric], first.limits[0] < 0
    scale = Normalize(*first.limits, clip=not is_signed)
    colours = DIVERGING if is_signed else mpl.colormaps["cividis"]
    (width, height), ratios = _map_sizes(chart, first, is_grid=is_grid)
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(
        len(chart.panels), len(chart.panels[0]), squeeze=False,
        gridspec_kw={"height_ratios": ratios},
    )  # fmt: skip
    prints_values = not is_grid and (len(first.columns) <= _MANY_COLUMNS or bool(first.groups))
    for axes, panel in zip(grid.flat, chart.flat, strict=True):
        _map(axes, panel, scale, colours, prints_values=prints_values, is_small=is_grid)
    if is_grid:
        _name_rows_and_columns(grid, chart, wrapped=False)
        for axes, name in zip(grid[:, 0], chart.row_names, strict=True):
            axes.set_ylabel(f"{_wrapped(name)}\n{chart.flat[0].y.heading}")
        figure.suptitle(chart.legend_title, fontsize=8.5, color=INK)
    largest = max(
        value for heat in heats for row in heat.values for value in row if value is not None
    )
    is_tall = height > 2 or is_grid
    bar = figure.colorbar(
        ScalarMappable(scale, colours), ax=list(grid.flat), pad=0.02,
        anchor=(0, 1 if is_grid else 0.5), shrink=min(0.9, _LONGEST_BAR / height),
        aspect=24 if is_grid else 30 if first.groups else max(14, 7 * height),
        extend="max" if not is_signed and largest > first.limits[1] else "neither",
    )  # fmt: skip
    bar.set_label(metric.heading if is_tall else metric.unit)
    bar.outline.set_visible(False)
    number_axis(bar.ax.yaxis, num_ticks=5 if is_tall else 2, signed=is_signed)
    return figure


def _map_sizes(
    chart: Chart, first: Heat, *, is_grid: bool
) -> tuple[tuple[float, float], list[float]]:
    """The figure's width and height in inches, and how high each row of panels is."""
    num_rows, num_columns = len(first.rows), len(first.columns)
    equal = [1.0] * len(chart.panels)
    if first.groups:
        width = _column_width(first)
        above = _LETTER * max(len(name) for name, _ in first.groups) * _stand_upright(first)
        return (width * num_columns + 2.7, 0.175 * num_rows + 1.35 + above), equal
    if is_grid:
        width = max(num_columns * 0.13, 1.1) * len(chart.panels[0]) + 1.5
        return (width, (max(num_rows * 0.13, 0.8) + 0.2) * len(chart.panels) + 0.7), equal
    few, many = num_columns <= 8, num_columns > _MANY_COLUMNS
    cell_width, cell_height = (0.4, 0.33) if few else (0.24, 0.24) if many else (0.38, 0.29)
    # one panel of one or two rows is as high as one of three: the colour bar needs the room
    fewest = 3 if len(chart.flat) == 1 else 1
    heights = [
        max(len(panel.heat.rows) if panel.heat else 0, fewest) * cell_height + 0.62
        for panel in chart.flat
    ]
    return (max(num_columns * cell_width, 2.2) + 1.35, sum(heights) + 0.1), heights


def _map(
    axes: Axes,
    panel: Panel,
    scale: Normalize,
    colours: Any,
    *,
    prints_values: bool,
    is_small: bool,
) -> None:
    heat = panel.heat
    if heat is None:
        return
    metric = METRICS[heat.metric]
    for row, values in enumerate(heat.values):
        for column, value in enumerate(values):
            known = value is not None
            colour = None if value is None else colours(scale(value))
            axes.add_patch(
                Rectangle(
                    (column, row), 1, 1, facecolor=colour or "none",
                    linewidth=0.6 if heat.groups else 0.8,
                    edgecolor=PAPER if known else GRID, hatch=None if known else "////",
                    gid=hover(heat.hover[row][column]),
                )
            )  # fmt: skip
            if value is not None and colour is not None and prints_values:
                axes.text(
                    column + 0.5, row + 0.5, metric.text(value),
                    ha="center", va="center", fontsize=_SMALLEST,
                    color=ink_on(colour),
                )  # fmt: skip
    axes.set(xlim=(0, len(heat.columns)), ylim=(len(heat.rows), 0))
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(panel.x.heading)
    axes.set_ylabel(panel.y.heading)
    if panel.title and not is_small:
        axes.set_title(panel.title)
    _map_ticks(axes, heat, is_small=is_small)
    _group_names(axes, heat)


def _map_ticks(axes: Axes, heat: Heat, *, is_small: bool) -> None:
    """Names of rows and columns; of many every second, of a small map's every third."""
    size: dict[str, Any] = {"fontsize": _SMALLEST} if heat.groups else {}
    for axis, names in ((axes.xaxis, heat.columns), (axes.yaxis, heat.rows)):
        every = 1
        if is_small and len(names) > 6:
            every = 3
        elif axis is axes.xaxis and len(names) > _MANY_COLUMNS and not heat.groups:
            every = 2
        shown = range(0, len(names), every)
        axis.set_ticks([at + 0.5 for at in shown], [_short(names[at]) for at in shown], **size)
    if heat.groups:
        axes.tick_params(axis="x", labelrotation=90)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


_LETTERS_BESIDE_HEADS = 13
"""Letters of a name that the map of one cell's heads is high."""


def _wrapped(name: str) -> str:
    """A name in lines that are as long as a map of heads is high."""
    words = name.replace("_", "_ ")
    lines = textwrap.wrap(words, _LETTERS_BESIDE_HEADS, break_on_hyphens=False)
    return "\n".join(lines).replace("_ ", "_")


def _column_width(heat: Heat) -> float:
    """Inches of a column of the map of classes."""
    return 0.36 if len(heat.columns) <= 8 else 0.32


def _stand_upright(heat: Heat) -> bool:
    """Whether the names above groups of columns are longer than their groups are wide."""
    width = _column_width(heat)
    return any(
        _LETTER * max(map(len, name.split(", "))) > width * count for name, count in heat.groups
    )


def _group_names(axes: Axes, heat: Heat) -> None:
    is_upright = _stand_upright(heat)
    starts = np.cumsum([0, *(count for _, count in heat.groups)])
    for (name, _), (start, end) in zip(heat.groups, pairwise(starts), strict=True):
        axes.text(
            (start + end) / 2, -0.35, name if is_upright else name.replace(", ", "\n"),
            ha="center", va="bottom", color=INK, fontsize=7.5, rotation=90 if is_upright else 0,
        )  # fmt: skip
        if start:
            axes.axvline(start, color=MUTED, linewidth=1.2)


def ink_on(colour: tuple[float, float, float, float]) -> str:
    """Black or white, whichever has the higher contrast on the colour (WCAG)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"
