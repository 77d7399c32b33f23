"""Figures: tables in, matplotlib `Figure` out. Nothing is computed here but positions.

Every function draws on a `Figure` of its own (no pyplot, no global state) within `style.look`.
An artist may carry a hover text in its gid (`style.HOVER_PREFIX`); pages show it on the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator

from driftscope.records import Overlay
from driftscope.report.style import (
    DIVERGING,
    GRID,
    HOVER_PREFIX,
    INK,
    MUTED,
    PAPER,
    SeriesStyle,
    look,
    method_styles,
    number_text,
    rate_text,
    spread_text,
)

_LUMA = np.array([0.299, 0.587, 0.114])
_REFERENCE_LINE: dict[str, Any] = {
    "color": MUTED,
    "linewidth": 1,
    "linestyle": (0, (4, 3)),
    "zorder": 1,
}


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
        cells: `tables.cells_frame`.
        runs: `tables.with_series` of the same runs; each is a small dot beside the mean.
        measures: the panels, left to right.
        legend: whether the methods are named above the panels.
        styles: how each series is drawn; by default `style.method_styles` of the series.
    """
    styles = styles or method_styles(cells["series"])
    with look():
        figure = Figure(figsize=(3.35 * len(measures), 2.75), layout="constrained")
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        for axes, measure in zip(panels, measures, strict=True):
            _learning_rate_panel(axes, cells, runs, measure, styles)
        if legend:
            handles = legend_handles(styles)
            if any(measure.reference is not None for measure in measures):
                handles.append(_reference_handle())
            columns = max(1, min(len(handles), int(1.6 * len(measures)) + 1))
            figure.legend(handles=handles, loc="outside upper left", ncols=columns)
    return figure


def legend_handles(styles: Mapping[str, SeriesStyle]) -> list[Line2D]:
    """A line with its marker for each series, to hand to a legend."""
    return [
        Line2D([], [], color=s.colour, marker=s.marker, linestyle=s.line, mec=PAPER, label=name)
        for name, s in styles.items()
    ]


def _reference_handle() -> Line2D:
    return Line2D([], [], label="pretrained", **_REFERENCE_LINE)


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
) -> None:
    rates = sorted({float(rate) for rate in cells["learning_rate"]})
    if measure.reference is not None:
        axes.axhline(measure.reference, **_REFERENCE_LINE)
    for position, (series, style) in enumerate(styles.items()):
        # the dots of one rate stand side by side, not on top of each other
        shift = 10 ** (0.03 * (position - (len(styles) - 1) / 2))
        _draw_series(axes, cells, runs, series, style, measure, shift)
    _rate_axis(axes, rates)
    axes.set_title(measure.title + (f", {measure.unit}" if measure.unit else ""), pad=8)
    _value_limits(axes, measure)


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
    seeds = runs[runs["series"] == series].dropna(subset=[measure.key])
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
            gid=_hover(
                f"{series}, rate {rate_text(row['learning_rate'])}, seed {row['seed']}: "
                + _value_text(row[measure.key], measure)
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
            gid=_hover(
                f"{series}, rate {rate_text(row['learning_rate'])}: {spread}"
                f"{' ' + measure.unit if measure.unit else ''} ({_seed_count(row['num_runs'])})"
            ),
        )


def _rate_axis(axes: Axes, rates: Sequence[float]) -> None:
    axes.set_xscale("log")
    span = math.log10(rates[-1] / rates[0]) if len(rates) > 1 else 1.0
    margin = 10 ** max(0.12 * span, 0.12)
    axes.set_xlim(rates[0] / margin, rates[-1] * margin)
    shown = _spaced(rates, smallest_gap=0.13 * (span + 2 * math.log10(margin)))
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


def _value_limits(axes: Axes, measure: Measure) -> None:
    low, high = axes.get_ylim()
    room = 0.08 * (high - low)
    low, high = low - room / 2, high + room
    if measure.floor is not None:
        low = measure.floor if low < measure.floor or low < 0.35 * high else low
    if measure.ceiling is not None and high > measure.ceiling:
        high = measure.ceiling + 0.03 * (measure.ceiling - low)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    step = (high - low) / 5
    decimals = max(0, math.ceil(-math.log10(step))) if step > 0 else 0
    axes.yaxis.set_major_formatter(lambda value, _: number_text(value, decimals))


# ---------------------------------------------------------------- heatmaps


def layer_heatmap(
    layer_cells: pd.DataFrame,
    series: Sequence[str],
    *,
    key: str = "delta_entropy_pct",
    label: str = "Δ entropy, %",
    limit: float | None = None,
) -> Figure:
    """Rate × layer, one panel a series: a signed percent change, centred at 0, one shared scale.

    Args:
        layer_cells: `tables.layer_cells_frame`.
        series: the panels, top to bottom.
        key: the column drawn.
        label: the colour bar's words.
        limit: the colour scale's end, the same for every panel; by default the largest change.
    """
    limit = limit or symmetric_limit(layer_cells[key])
    layers = sorted(int(layer) for layer in layer_cells["layer"].unique())
    panels = []
    for name in series:
        mine = layer_cells[layer_cells["series"] == name]
        grid = mine.pivot_table(index="learning_rate", columns="layer", values=key)
        grid = grid.reindex(columns=layers).sort_index()
        rates = [rate_text(float(rate)) for rate in grid.index]
        panels.append(Panel(name, "learning rate", rates, grid.to_numpy(float)))
    return _heatmaps(panels, "layer", [str(layer) for layer in layers], label, limit)


def head_heatmap(
    heads: pd.DataFrame,
    *,
    key: str = "delta_entropy_pct",
    label: str = "Δ entropy, %",
    title: str = "",
    limit: float | None = None,
) -> Figure:
    """Layer × head of one comparison or cell: a signed percent change, centred at 0."""
    grid = heads.pivot_table(index="head", columns="layer", values=key).sort_index()
    panel = Panel(title, "head", [str(head) for head in grid.index], grid.to_numpy(float))
    columns = [str(layer) for layer in grid.columns]
    return _heatmaps([panel], "layer", columns, label, limit or symmetric_limit(heads[key]))


def symmetric_limit(values: pd.Series[float]) -> float:
    """The largest absolute value, the end of a scale centred at 0 (1 where there is none)."""
    largest = float(values.abs().max())
    return largest if math.isfinite(largest) and largest > 0 else 1.0


@dataclass(frozen=True)
class Panel:
    """One heatmap: its title, what its rows are, their names, the values [row, column]."""

    title: str
    row_word: str
    rows: list[str]
    values: np.ndarray


def _heatmaps(
    panels: Sequence[Panel], column_word: str, columns: Sequence[str], label: str, limit: float
) -> Figure:
    scale = Normalize(-limit, limit)
    cell_width, cell_height = (0.4, 0.29) if len(columns) <= 16 else (0.24, 0.24)
    # a panel of one or two rows is as high as one of three: the colour bar needs the room
    heights = [max(len(panel.rows), 3) * cell_height + 0.62 for panel in panels]
    width = max(len(columns) * cell_width, 2.2) + 1.35
    with look():
        figure = Figure(figsize=(width, sum(heights) + 0.1), layout="constrained")
        all_axes = figure.subplots(
            len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        for axes, panel in zip(all_axes, panels, strict=True):
            _heatmap(axes, panel, column_word, columns, scale, print_values=len(columns) <= 16)
        bar = figure.colorbar(
            ScalarMappable(scale, DIVERGING), ax=list(all_axes), aspect=14, pad=0.02, shrink=0.9
        )
        tall_enough = sum(heights) > 1.9
        bar.set_label(label if tall_enough else label.rsplit(", ")[-1])
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_locator(MaxNLocator(4 if tall_enough else 2, symmetric=True))
        bar.ax.yaxis.set_major_formatter(
            lambda value, _: number_text(
                value, 0 if limit > 3 else _scale_decimals(scale), signed=True
            )
        )
    return figure


def _heatmap(
    axes: Axes,
    panel: Panel,
    column_word: str,
    columns: Sequence[str],
    scale: Normalize,
    *,
    print_values: bool,
) -> None:
    decimals = _scale_decimals(scale)
    for (row, column), value in np.ndenumerate(panel.values):
        known = math.isfinite(value)
        text = number_text(value, decimals, signed=True)
        axes.add_patch(
            Rectangle(
                (column, row),
                1,
                1,
                facecolor=DIVERGING(scale(value)) if known else "none",
                edgecolor=PAPER if known else GRID,
                hatch=None if known else "////",
                linewidth=0.8,
                gid=_hover(
                    f"{panel.title + ', ' if panel.title else ''}{panel.row_word} "
                    f"{panel.rows[row]}, {column_word} {columns[column]}: "
                    + (f"{text} %" if known else "no value")
                ),
            )
        )
        if known and print_values:
            axes.text(
                column + 0.5,
                row + 0.5,
                number_text(value, 0 if abs(value) >= 9.95 else decimals, signed=True),
                ha="center",
                va="center",
                fontsize=7,
                color=ink_on(DIVERGING(scale(value))),
            )
    axes.set(xlim=(0, len(columns)), ylim=(len(panel.rows), 0))
    every = 1 if len(columns) <= 16 else 2
    ticks = range(0, len(columns), every)
    axes.set_xticks([tick + 0.5 for tick in ticks], [columns[tick] for tick in ticks])
    axes.set_yticks(np.arange(len(panel.rows)) + 0.5, panel.rows)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(column_word)
    axes.set_ylabel(panel.row_word)
    if panel.title:
        axes.set_title(panel.title)


def _scale_decimals(scale: Normalize) -> int:
    """Decimals that tell values of this scale apart: 1 for percents, more for tiny changes."""
    limit = float(scale.vmax or 1.0)
    return 1 if limit >= 1 else min(4, 1 - math.floor(math.log10(limit)))


def ink_on(colour: tuple[float, float, float, float]) -> str:
    """Black or white, whichever has the higher contrast on the colour (WCAG)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000000" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "#ffffff"


# ---------------------------------------------------------------- a comparison, layer by layer


def layer_profile(layers: pd.DataFrame, measures: Sequence[Measure]) -> Figure:
    """One panel a measure: its value at each layer as a line with markers."""
    style = method_styles(["lora"])["lora"]
    with look():
        figure = Figure(figsize=(3.35 * len(measures), 2.55), layout="constrained")
        panels = figure.subplots(1, len(measures), squeeze=False)[0]
        for axes, measure in zip(panels, measures, strict=True):
            if measure.reference is not None:
                axes.axhline(measure.reference, **_REFERENCE_LINE)
            x, y = layers["layer"].to_numpy(int), layers[measure.key].to_numpy(float)
            axes.plot(x, y, color=style.colour, zorder=3)
            for at, value in zip(x, y, strict=True):
                axes.plot(
                    [at],
                    [value],
                    color=style.colour,
                    marker="o",
                    mec=PAPER,
                    zorder=4,
                    gid=_hover(f"layer {at}: {_value_text(value, measure)}"),
                )
            axes.xaxis.set_major_locator(MaxNLocator(min(len(x), 12), integer=True))
            axes.grid(axis="x", visible=False)
            axes.set_xlabel("layer")
            axes.set_title(measure.title + (f", {measure.unit}" if measure.unit else ""), pad=8)
            _value_limits(axes, measure)
    return figure


# ---------------------------------------------------------------- attention over images


def attention_figure(
    overlay: Overlay, *, num_images: int = 4, adapted_label: str = "adapted"
) -> Figure:
    """Image, pretrained and adapted attention side by side: mean of heads, last layer.

    Both maps of an image share one brightness scale, so that they can be compared.
    """
    count = min(num_images, len(overlay.images))
    with look():
        figure = Figure(figsize=(4.6, 1.55 * count + 0.3), layout="constrained")
        axes = figure.subplots(count, 3, squeeze=False)
        for index in range(count):
            before = overlay.pretrained[index, -1].mean(axis=0)
            after = overlay.adapted[index, -1].mean(axis=0)
            top = max(float(before.max()), float(after.max()))
            height, width = overlay.images[index].shape[:2]
            extent = (0, width, height, 0)
            for column, weights in enumerate((None, before, after)):
                panel = axes[index, column]
                if weights is None:
                    panel.imshow(overlay.images[index], extent=extent)
                else:
                    grey = overlay.images[index] @ _LUMA
                    panel.imshow(grey, extent=extent, cmap="gray", vmin=0, vmax=255)
                    panel.imshow(
                        weights,
                        cmap="inferno",
                        vmin=0,
                        vmax=top,
                        alpha=0.75,
                        extent=extent,
                        interpolation="nearest",
                    )
                panel.set_axis_off()
        for column, title in enumerate(("image", "pretrained", adapted_label)):
            axes[0, column].set_title(title, loc="center", color=INK)
    return figure


def _value_text(value: float, measure: Measure) -> str:
    text = number_text(value, measure.decimals, signed=measure.signed)
    return f"{text} {measure.unit}" if measure.unit else text


def _seed_count(num_runs: float) -> str:
    return f"{int(num_runs)} seed{'' if int(num_runs) == 1 else 's'}"


def _hover(text: str) -> str:
    return HOVER_PREFIX + text
