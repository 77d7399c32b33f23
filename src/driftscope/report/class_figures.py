"""Retention class by class: which of the transfer set's classes a cell has lost."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from driftscope.analysis.words import rate_text
from driftscope.metrics import number_text
from driftscope.report.figures import hover, seed_count
from driftscope.report.heatmaps import ink_on
from driftscope.report.style import GRID, INK, MUTED, PAPER, look

MAX_CLASSES = 24
_LONGEST_NAME = 28


def class_retention(
    class_cells: pd.DataFrame, series: Sequence[str], *, max_classes: int = MAX_CLASSES
) -> Figure:
    """Class × cell: how much of the pretrained accuracy on each class is left, in percent.

    Classes go from the least to the best kept (mean over the cells); of many, both ends are shown.
    Retention above 100 % has the colour of 100 %, which the colour bar's arrow says.

    Args:
        class_cells: `grouping.class_cells_frame`.
        series: the groups of columns, left to right.
        max_classes: rows at most.
    """
    cells = [
        (name, float(rate))
        for name in series
        for rate in sorted(class_cells.loc[class_cells["series"] == name, "learning_rate"].unique())
    ]
    rows = shown_classes(class_cells, max_classes)
    by_place = {
        (row["class"], row["series"], float(row["learning_rate"])): row
        for row in class_cells.to_dict("records")
    }
    scale, colours = Normalize(0, 100, clip=True), mpl.colormaps["cividis"]
    with look():
        figure = Figure(
            figsize=(
                (0.31 if len(cells) <= 8 else 0.26) * len(cells) + 2.7,
                0.175 * len(rows) + 1.35,
            ),
            layout="constrained",
        )
        axes = figure.subplots()
        for at, name in enumerate(rows):
            for column, (of_series, rate) in enumerate(cells):
                row = by_place.get((name, of_series, rate)) if name is not None else None
                value = math.nan if row is None else float(row["retention_pct"])
                if name is None:
                    continue
                known = math.isfinite(value)
                text = (
                    f"{number_text(value, 0)} % of {number_text(row['pretrained_pct'], 0)} % "
                    f"({row['num_images']:.0f} images, {seed_count(row['num_runs'])})"
                    if known and row is not None
                    else "nothing to lose, or not read"
                )
                axes.add_patch(
                    Rectangle(
                        (column, at),
                        1,
                        1,
                        facecolor=colours(scale(value)) if known else "none",
                        edgecolor=PAPER if known else GRID,
                        hatch=None if known else "////",
                        linewidth=0.6,
                        gid=hover(f"{name}, {of_series}, rate {rate_text(rate)}: {text}"),
                    )
                )
                if known:
                    axes.text(
                        column + 0.5,
                        at + 0.52,
                        number_text(value, 0),
                        ha="center",
                        va="center",
                        fontsize=5.5,
                        color=ink_on(colours(scale(value))),
                    )
        _label(axes, class_cells, rows, cells)
        is_beyond = class_cells.loc[class_cells["class"].isin(rows), "retention_pct"].max() > 100
        bar = figure.colorbar(
            ScalarMappable(scale, colours),
            ax=axes,
            aspect=30,
            pad=0.02,
            extend="max" if is_beyond else "neither",
        )
        bar.set_label("retention, %")
        bar.outline.set_visible(False)
    return figure


def shown_classes(class_cells: pd.DataFrame, max_classes: int) -> list[str | None]:
    """The classes from the least to the best kept; None where those between are left out.

    Classes of which the pretrained model knew nothing have no retention and are not among them.
    """
    kept = class_cells.groupby("class")["retention_pct"].mean().dropna().sort_values(kind="stable")
    names = [str(name) for name in kept.index]
    if len(names) <= max_classes:
        return [*names]
    half = max_classes // 2
    return [*names[:half], None, *names[-half:]]


def _label(
    axes: Axes,
    class_cells: pd.DataFrame,
    rows: Sequence[str | None],
    cells: Sequence[tuple[str, float]],
) -> None:
    known = class_cells.dropna(subset=["retention_pct"])
    images = known.groupby("class")["num_images"].max()
    same = images.nunique() == 1
    axes.set(xlim=(0, len(cells)), ylim=(len(rows), 0))
    axes.set_yticks(
        np.arange(len(rows)) + 0.5,
        [_row_name(name, images, same=same, left_out=len(images) - len(rows) + 1) for name in rows],
        fontsize=7,
    )
    axes.set_xticks(
        np.arange(len(cells)) + 0.5, [rate_text(rate) for _, rate in cells], rotation=90, fontsize=7
    )
    axes.set_xlabel("learning rate")
    axes.set_ylabel(f"class ({images.iloc[0]:.0f} images each)" if same else "class (images)")
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for name in dict.fromkeys(name for name, _ in cells):
        columns = [at for at, (other, _) in enumerate(cells) if other == name]
        axes.text(
            sum(columns) / len(columns) + 0.5,
            -0.35,
            name.replace(", ", "\n"),
            ha="center",
            va="bottom",
            color=INK,
            fontsize=7.5,
        )
        if columns[0]:
            axes.axvline(columns[0], color=MUTED, linewidth=1.2)


def _row_name(name: str | None, images: pd.Series[float], *, same: bool, left_out: int) -> str:
    if name is None:
        return f"… {left_out} more …"
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    return short if same else f"{short} ({images[name]:.0f})"
