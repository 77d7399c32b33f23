"""Figures: tables in, matplotlib `Figure` out. Nothing is computed here but positions.

Every function draws on a `Figure` of its own (no pyplot, no global state) within `style.look`.
An artist may carry a hover text in its gid (`style.HOVER_PREFIX`); pages show it on the pointer.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from driftscope.analysis.words import rate_text, spread_text
from driftscope.metrics import number_text
from driftscope.report.style import HOVER_PREFIX, MUTED, PAPER, SeriesStyle, look, method_styles

REFERENCE_LINE: dict[str, Any] = {
    "color": MUTED,
    "linewidth": 1,
    "linestyle": (0, (4, 3)),
    "zorder": 1,
}
"""How the pretrained level is drawn, everywhere."""

TITLE_WIDTH_IN_ROW = 24
"""Characters that stand above a panel of a row without running into the next."""

_PANEL_WIDTH, _PANEL_WIDTH_IN_ROW = 3.35, 2.35
"""Inches: a column of a journal's page; three panels across both columns."""


@dataclass(frozen=True)
class Measure:
    """What a panel's vertical axis shows, and where the pretrained model stands on it."""

    key: str
    title: str
    unit: str = "%"
    reference: float | None = None
    decimals: int = 1
    signed: bool = False
    floor: float | None = None
    ceiling: float | None = None

    @property
    def heading(self) -> str:
        """The title with the unit, if there is one."""
        return f"{self.title}, {self.unit}" if self.unit else self.title


def learning_rate_panels(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    measures: Sequence[Measure],
    *,
    legend: bool = True,
    styles: Mapping[str, SeriesStyle] | None = None,
) -> Figure:
    """One panel a measure: mean ± sd against the learning rate (log), a line a method.

    Args:
        cells: `grouping.cells_frame`.
        runs: `grouping.with_series` of the same runs; each is a small dot beside the mean.
        measures: the panels, left to right.
        legend: whether the methods are named above the panels.
        styles: how each series is drawn; by default `style.method_styles` of the series.
    """
    styles = styles or method_styles(cells["series"])
    width = _PANEL_WIDTH if len(measures) == 1 else _PANEL_WIDTH_IN_ROW
    with look():
        figure = Figure(figsize=(width * len(measures), 2.75), layout="constrained")
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        for axes, measure in zip(panels, measures, strict=True):
            _learning_rate_panel(axes, cells, runs, measure, styles, width)
            if len(measures) > 1:
                heading = textwrap.fill(measure.heading, TITLE_WIDTH_IN_ROW)
                axes.set_title(heading, fontsize=8.5, pad=8)
        if legend:
            handles = legend_handles(styles)
            if any(measure.reference is not None for measure in measures):
                handles.append(reference_handle())
            columns = max(1, min(len(handles), int(1.4 * len(measures)) + 1))
            figure.legend(handles=handles, loc="outside upper left", ncols=columns)
    return figure


def same_axes_panels(
    parts: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]],
    measure: Measure,
    styles: Mapping[str, SeriesStyle],
    *,
    legend: bool = True,
) -> Figure:
    """One measure against the learning rate, a panel a study, all on the same two axes.

    Args:
        parts: by what stands above the panel, the cells and runs as `learning_rate_panels` takes
            them.
        measure: what is shown.
        styles: how each series is drawn, in every panel.
        legend: whether the series are named above the panels.
    """
    width = 3.0
    with look():
        figure = Figure(figsize=(width * len(parts) + 0.35, 2.9), layout="constrained")
        panels = figure.subplots(1, len(parts), squeeze=False, sharey=True)[0]
        rates = sorted({float(r) for cells, _ in parts.values() for r in cells["learning_rate"]})
        for axes, (name, (cells, runs)) in zip(panels, parts.items(), strict=True):
            _learning_rate_panel(axes, cells, runs, measure, styles, width)
            _rate_axis(axes, rates, width)
            axes.set_title(name, fontsize=8.5)
            axes.label_outer()
        panels[0].set_ylabel(measure.heading)
        for axes in panels:
            axes.relim()
        panels[0].autoscale(axis="y")
        value_limits(panels[0], measure)
        if legend:
            handles = legend_handles(styles)
            if measure.reference is not None:
                handles.append(reference_handle())
            figure.legend(handles=handles, loc="outside upper left", ncols=2 * len(parts))
    return figure


def legend_handles(styles: Mapping[str, SeriesStyle]) -> list[Line2D]:
    """A line with its marker for each series, to hand to a legend."""
    return [
        Line2D([], [], color=s.colour, marker=s.marker, linestyle=s.line, mec=PAPER, label=name)
        for name, s in styles.items()
    ]


def reference_handle() -> Line2D:
    """The pretrained level's line, to hand to a legend."""
    return Line2D([], [], label="pretrained", **REFERENCE_LINE)


def series_swatch(style: SeriesStyle) -> Figure:
    """A short stretch of a series' line with its marker, for legends outside the figure."""
    with look():
        figure = Figure(figsize=(0.42, 0.2))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.plot([0.02, 0.98], [0.5, 0.5], color=style.colour, linestyle=style.line)
        axes.plot([0.5], [0.5], color=style.colour, marker=style.marker, mec=PAPER, markersize=6.5)
    return figure


def _learning_rate_panel(
    axes: Axes,
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    measure: Measure,
    styles: Mapping[str, SeriesStyle],
    width: float,
) -> None:
    rates = sorted({float(rate) for rate in cells["learning_rate"]})
    if measure.reference is not None:
        axes.axhline(measure.reference, **REFERENCE_LINE)
    for position, (series, style) in enumerate(styles.items()):
        # the dots of one rate stand side by side, not on top of each other
        shift = 10 ** (0.03 * (position - (len(styles) - 1) / 2))
        _draw_series(axes, cells, runs, series, style, measure, shift)
    _rate_axis(axes, rates, width)
    axes.set_title(measure.heading, pad=8)
    value_limits(axes, measure)


def _draw_series(
    axes: Axes,
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    series: str,
    style: SeriesStyle,
    measure: Measure,
    shift: float,
) -> None:
    mine = cells[cells["series"] == series].dropna(subset=[measure.key])
    x = mine["learning_rate"].to_numpy(float) * shift
    mean = mine[measure.key].to_numpy(float)
    sd = mine[f"{measure.key}_sd"].fillna(0).to_numpy(float)
    axes.plot(x, mean, color=style.colour, linestyle=style.line, zorder=3)
    axes.errorbar(
        x, mean, yerr=sd, fmt="none", ecolor=style.colour, elinewidth=1.1, capsize=2.5, zorder=3
    )
    of_series = runs[runs["series"] == series]
    seeds = of_series.dropna(subset=[measure.key, *(["seed"] if "seed" in runs else [])])
    for row in seeds.to_dict("records"):
        axes.plot(
            [row["learning_rate"] * shift * 1.06],
            [row[measure.key]],
            linestyle="none",
            marker=".",
            markersize=4,
            color=style.colour,
            alpha=0.55,
            mec="none",
            zorder=2,
            gid=hover(
                f"{series}, rate {rate_text(row['learning_rate'])}, {seed_text(row)}: "
                + value_text(row[measure.key], measure)
            ),
        )
    for at, row in zip(x, mine.to_dict("records"), strict=True):
        spread = spread_text(
            row[measure.key],
            row[f"{measure.key}_sd"],
            measure.decimals,
            signed=measure.signed,
        )
        axes.plot(
            [at],
            [row[measure.key]],
            linestyle="none",
            marker=style.marker,
            color=style.colour,
            mec=PAPER,
            mew=0.8,
            zorder=4,
            gid=hover(
                f"{series}, rate {rate_text(row['learning_rate'])}: {spread}"
                f"{' ' + measure.unit if measure.unit else ''} ({seed_count(row['num_runs'])})"
            ),
        )


def _rate_axis(axes: Axes, rates: Sequence[float], width: float) -> None:
    """Rates on a log axis, as many labels as a panel `width` inches wide has room for."""
    axes.set_xscale("log")
    span = math.log10(rates[-1] / rates[0]) if len(rates) > 1 else 1.0
    margin = 10 ** max(0.12 * span, 0.12)
    axes.set_xlim(rates[0] / margin, rates[-1] * margin)
    label = 0.36 / (width - 0.6)  # a label's share of the axis, inches of both
    shown = _spaced(rates, smallest_gap=label * (span + 2 * math.log10(margin)))
    axes.xaxis.set_major_locator(FixedLocator(list(shown)))
    axes.xaxis.set_major_formatter(FixedFormatter([rate_text(rate) for rate in shown]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("learning rate")


def _spaced(rates: Sequence[float], smallest_gap: float) -> list[float]:
    """The rates whose tick labels do not run into the one before (gap in decades)."""
    shown: list[float] = []
    for rate in rates:
        if not shown or math.log10(rate / shown[-1]) >= smallest_gap:
            shown.append(rate)
    return shown


def number_axis(axis: Axis, *, num_ticks: int = 5, signed: bool = False) -> None:
    """Round tick values, written with exactly the decimals that they have."""
    locator = MaxNLocator(num_ticks, steps=[1, 2, 2.5, 5, 10])
    axis.set_major_locator(locator)
    ticks = locator()
    step = float(ticks[1] - ticks[0]) if len(ticks) > 1 else 1.0
    decimals = next((d for d in range(9) if math.isclose(round(step, d), step)), 9)
    axis.set_major_formatter(lambda value, _: number_text(value, decimals, signed=signed))


def value_limits(axes: Axes, measure: Measure) -> None:
    """Room above and below, the measure's own floor and ceiling, round ticks."""
    low, high = axes.get_ylim()
    room = 0.08 * (high - low)
    low, high = low - room / 2, high + room
    if measure.floor is not None:
        low = measure.floor if low < measure.floor or low < 0.35 * high else low
    if measure.ceiling is not None and high > measure.ceiling:
        high = measure.ceiling + 0.03 * (measure.ceiling - low)
    axes.set_ylim(low, high)
    number_axis(axes.yaxis)


# ---------------------------------------------------------------- a comparison, layer by layer


def layer_profile(
    layers: pd.DataFrame, measures: Sequence[Measure], along: str = "layer"
) -> Figure:
    """One panel a measure: its value at each layer (or step) as a line with markers."""
    style = method_styles(["lora"])["lora"]
    with look():
        figure = Figure(figsize=(3.35 * len(measures), 2.55), layout="constrained")
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        for axes, measure in zip(panels, measures, strict=True):
            if measure.reference is not None:
                axes.axhline(measure.reference, **REFERENCE_LINE)
            x, y = layers[along].to_numpy(int), layers[measure.key].to_numpy(float)
            axes.plot(x, y, color=style.colour, zorder=3)
            for at, value in zip(x, y, strict=True):
                axes.plot(
                    [at],
                    [value],
                    color=style.colour,
                    marker="o",
                    mec=PAPER,
                    zorder=4,
                    gid=hover(f"{along} {at}: {value_text(value, measure)}"),
                )
            num_ticks = min(len(x), 12) if along == "layer" else 6
            axes.xaxis.set_major_locator(MaxNLocator(num_ticks, integer=True))
            axes.grid(axis="x", visible=False)
            axes.set_xlabel(along)
            axes.set_title(measure.heading, pad=8)
            value_limits(axes, measure)
    return figure


def value_text(value: float, measure: Measure) -> str:
    """A value as the measure writes it, with its unit."""
    text = number_text(value, measure.decimals, signed=measure.signed)
    return f"{text} {measure.unit}" if measure.unit else text


def seed_text(row: Mapping[Any, Any]) -> str:
    """'seed 7'; of an imported cell mean 'mean of 5 runs'."""
    seed = row["seed"]
    if seed is None or seed != seed:
        return f"mean of {row['num_runs']:.0f} runs"
    return f"seed {int(seed)}"


def seed_count(num_runs: float) -> str:
    """'1 seed', '3 seeds'."""
    return f"{int(num_runs)} seed{'' if int(num_runs) == 1 else 's'}"


def hover(text: str) -> str:
    """The gid of an artist that shows this text on the pointer."""
    return HOVER_PREFIX + text
