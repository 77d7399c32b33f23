"""Figures over training: signals and retention against the optimizer step."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from driftscope.analysis.words import rate_text
from driftscope.report.figures import (
    REFERENCE_LINE,
    TITLE_WIDTH_IN_ROW,
    Measure,
    hover,
    legend_handles,
    reference_handle,
    seed_count,
    value_limits,
    value_text,
)
from driftscope.report.style import PAPER, SeriesStyle, look, rate_styles


def trajectories(
    probes: pd.DataFrame, series: Sequence[str], measures: Sequence[Measure]
) -> Figure:
    """A row a series, a column a measure: means over seeds against the step, a line a rate.

    The panels of a measure share its axis. Lines start at the pretrained level, at step 0.

    Args:
        probes: `grouping.history_cells_frame`.
        series: the rows, top to bottom.
        measures: the columns, left to right; each known in `probes`.
    """
    styles = rate_styles(float(rate) for rate in probes["learning_rate"])
    with look():
        figure = Figure(
            figsize=(2.35 * len(measures) + 0.1, 1.75 * len(series) + 0.6),
            layout=ConstrainedLayoutEngine(wspace=0.08),
        )
        grid = figure.subplots(len(series), len(measures), squeeze=False, sharex=True, sharey="col")
        for row, name in enumerate(series):
            mine = probes[probes["series"] == name]
            for axes, measure in zip(grid[row], measures, strict=True):
                _draw(axes, mine, measure, styles)
                heading = textwrap.fill(measure.heading, TITLE_WIDTH_IN_ROW) if row == 0 else ""
                axes.set_title(heading, fontsize=8.5)
            grid[row, 0].set_ylabel(name)
        for axes, measure in zip(grid[0], measures, strict=True):
            value_limits(axes, measure)
        for axes in grid[-1]:
            _training_axis(axes, probes, num_ticks=4)
        handles = legend_handles({rate_text(rate): style for rate, style in styles.items()})
        if any(measure.reference is not None for measure in measures):
            handles.append(reference_handle())
        figure.legend(
            handles=handles, loc="outside upper left", ncols=2 * len(measures) + 1,
            title="learning rate", alignment="left",
        )  # fmt: skip
    return figure


def trajectory_panel(
    probes: pd.DataFrame, series: str, measure: Measure, styles: Mapping[float, SeriesStyle]
) -> Figure:
    """One series and measure of `trajectories`, by itself and without a legend.

    Args:
        probes: `grouping.history_cells_frame`.
        series: which series.
        measure: what is followed.
        styles: how each learning rate is drawn (`style.rate_styles`).
    """
    with look():
        figure = Figure(figsize=(3.35, 2.7), layout="constrained")
        axes = figure.subplots()
        _draw(axes, probes[probes["series"] == series], measure, styles)
        _training_axis(axes, probes, num_ticks=7)
        axes.set_title(f"{series}\n{measure.heading}", pad=8, fontsize=8.5)
        value_limits(axes, measure)
    return figure


def _draw(
    axes: Axes, probes: pd.DataFrame, measure: Measure, styles: Mapping[float, SeriesStyle]
) -> None:
    if measure.reference is not None:
        axes.axhline(measure.reference, **REFERENCE_LINE)
    at = _position(probes)
    for rate, path in probes.dropna(subset=[measure.key]).groupby("learning_rate"):
        style = styles[float(rate)]  # type: ignore[arg-type]  # the key of a float column
        x, y = path[at].to_numpy(float), path[measure.key].to_numpy(float)
        if measure.reference is not None and x.min() > 0:
            x, y = np.append(0.0, x), np.append(measure.reference, y)
        axes.plot(x, y, color=style.colour, linestyle=style.line, zorder=3)
        for row in path.to_dict("records"):
            axes.plot(
                [row[at]],
                [row[measure.key]],
                color=style.colour,
                marker=style.marker,
                markersize=4.5,
                mec=PAPER,
                mew=0.6,
                zorder=4,
                gid=hover(
                    f"{row['series']}, rate {rate_text(row['learning_rate'])}, "
                    f"{at} {row[at]:.0f}: {value_text(row[measure.key], measure)} "
                    f"({seed_count(row['num_runs'])})"
                ),
            )
    axes.grid(axis="x", visible=False)


def _training_axis(axes: Axes, probes: pd.DataFrame, num_ticks: int) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(num_ticks, integer=True))
    axes.set_xlim(left=0)
    axes.set_xlabel(_position(probes))


def _position(probes: pd.DataFrame) -> str:
    """Where a probe stands in training: its step where every one is known, else its epoch."""
    return "step" if probes["step"].notna().all() else "epoch"
