"""Figures of what `analysis` answered: predictor bars, the accuracy–retention frontier."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from driftscope.analysis.tables import LABELS, accuracy_column
from driftscope.analysis.words import interval_text, rate_text, spread_text
from driftscope.metrics import number_text
from driftscope.report.figures import number_axis
from driftscope.report.style import (
    BLUE,
    HOVER_PREFIX,
    INK,
    MUTED,
    ORANGE,
    PAPER,
    SeriesStyle,
    look,
    method_styles,
)

PROBE_WORDS = {"final": "at the end", "first": "after the first epoch"}
PROBE_COLOURS = {"final": BLUE, "first": ORANGE}


def predictor_bars(table: pd.DataFrame, *, title: str = "") -> Figure:
    """Each signal's rank correlation with retention and its interval, final and first probe.

    Args:
        table: rows of one scope of `analysis.predictors`: signal, form, probe, rho, low, high.
        title: what stands above the axes.
    """
    frame = table.assign(
        name=[signal_name(*pair) for pair in zip(table["signal"], table["form"], strict=True)]
    )
    final = frame[frame["probe"] == "final"].sort_values("abs_rho")
    names = list(dict.fromkeys([*final["name"], *frame["name"]]))
    probes = [probe for probe in PROBE_WORDS if (frame["probe"] == probe).any()]
    thickness = 0.78 / len(probes)
    with look():
        figure = Figure(figsize=(4.6, 0.34 * len(names) + 1.0), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=0.8, zorder=1)
        for at, probe in enumerate(probes):
            for row in frame[frame["probe"] == probe].to_dict("records"):
                if not np.isfinite(row["rho"]):
                    continue
                interval = interval_text(row["low"], row["high"], 2)
                y = names.index(row["name"]) + 0.39 - thickness * (at + 0.5)
                (bar,) = axes.barh(
                    y, row["rho"], 0.9 * thickness, color=PROBE_COLOURS[probe], zorder=2
                )
                bar.set_gid(
                    f"{HOVER_PREFIX}{row['name']}, {PROBE_WORDS[probe]}: "
                    f"ρ = {number_text(row['rho'], 2)} {interval}".rstrip()
                    + f", {row['num_cells']:.0f} cells"
                )
                axes.plot([row["low"], row["high"]], [y, y], color=INK, linewidth=1, zorder=3)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlim=(-1.02, 1.02), ylim=(-0.6, len(names) - 0.4))
        axes.set_xlabel("Spearman's ρ with retention")
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        number_axis(axes.xaxis)
        if title:
            axes.set_title(title)
        handles = [
            Line2D([], [], color=PROBE_COLOURS[probe], linewidth=6, label=PROBE_WORDS[probe])
            for probe in probes
        ]
        figure.legend(handles=handles, loc="outside upper left", ncols=2)
    return figure


def frontier(
    table: pd.DataFrame, styles: Mapping[str, SeriesStyle] | None = None, *, title: str = ""
) -> Figure:
    """Target accuracy against retention, a mark a cell; non-dominated cells ringed and joined.

    Args:
        table: rows of one dataset of `analysis.frontier`.
        styles: how each method is drawn.
        title: what stands above the axes.
    """
    accuracy = accuracy_column(table)
    methods = list(dict.fromkeys(table["method"]))
    own = {**method_styles(methods), **(styles or {})}
    with look():
        figure = Figure(figsize=(4.6, 3.5), layout="constrained")
        axes = figure.subplots()
        best = table[table["is_on_frontier"]].sort_values(accuracy)
        axes.plot(best[accuracy], best["retention_pct"], color=MUTED, linewidth=1, zorder=1)
        for row in table.to_dict("records"):
            style = own[row["method"]]
            x, y = row[accuracy], row["retention_pct"]
            spread = (row.get(f"{accuracy}_sd", np.nan), row.get("retention_pct_sd", np.nan))
            xerr, yerr = (0.0 if not np.isfinite(sd) else sd for sd in spread)
            axes.errorbar(
                x, y, yerr, xerr, fmt="none", ecolor=style.colour, elinewidth=0.9, alpha=0.6
            )
            axes.plot(
                [x],
                [y],
                linestyle="none",
                marker=style.marker,
                color=style.colour,
                markersize=8.5 if row["is_on_frontier"] else 6,
                mec=INK if row["is_on_frontier"] else PAPER,
                mew=1.4 if row["is_on_frontier"] else 0.8,
                zorder=3,
                gid=(
                    f"{HOVER_PREFIX}{row['method']}, rate {rate_text(row['learning_rate'])}: "
                    f"accuracy {spread_text(x, spread[0], 1)} %, "
                    f"retention {spread_text(y, spread[1], 1)} % ({row['num_runs']:.0f} runs)"
                ),
            )
        axes.set_xlabel(f"{LABELS[accuracy]}, %")
        axes.set_ylabel("retention, %")
        axes.set_ylim(bottom=min(0, float(table["retention_pct"].min())))
        if title:
            axes.set_title(title)
        handles = [
            Line2D([], [], color=own[m].colour, marker=own[m].marker, linestyle="none", label=m)
            for m in methods
        ]
        ring = Line2D([], [], color=MUTED, marker="o", mfc="none", mec=INK, label="on the frontier")
        figure.legend(handles=[*handles, ring], loc="outside upper left", ncols=3)
    return figure


def signal_name(signal: str, form: str) -> str:
    """A signal as its bar is labelled; of a signed one, whether its sign or its size counts."""
    name = LABELS.get(signal, signal)
    if form == "absolute":
        return f"|{name}|"
    return f"{name}, signed" if signal.startswith("delta_") else name
