"""Heatmaps of signed percent changes: learning rate × layer, layer × head."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from driftscope.analysis.words import rate_text
from driftscope.metrics import number_text
from driftscope.report.figures import number_axis
from driftscope.report.style import DIVERGING, GRID, HOVER_PREFIX, INK, PAPER, look


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
        layer_cells: `grouping.layer_cells_frame`; pointing at a place tells each seed's value from
            its column `<key>_by_seed`, where there is one.
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
        panels.append(
            Panel(name, "learning rate", rates, grid.to_numpy(float), _seeds_told(mine, grid, key))
        )
    return _heatmaps(panels, "layer", [str(layer) for layer in layers], label, limit)


def _seeds_told(cells: pd.DataFrame, grid: pd.DataFrame, key: str) -> np.ndarray | None:
    """What is told of each place's seeds, in the grid's order."""
    by_seed = f"{key}_by_seed"
    if by_seed not in cells:
        return None
    told = cells.pivot(index="learning_rate", columns="layer", values=by_seed)
    return told.reindex(index=grid.index, columns=grid.columns).fillna("").to_numpy(str)


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


def head_maps(
    head_cells: pd.DataFrame,
    series: Sequence[str],
    *,
    label: str = "Δ entropy, %",
    limit: float | None = None,
) -> Figure:
    """Head × layer maps of cells, a row a series and a column a learning rate, on one shared scale.

    Args:
        head_cells: `grouping.head_cells_frame`.
        series: the rows, top to bottom.
        label: the colour bar's words.
        limit: the colour scale's end; by default the largest change.
    """
    scale = Normalize(*(limit or symmetric_limit(head_cells["delta_entropy_pct"])) * _BOTH_WAYS)
    rates = sorted({float(rate) for rate in head_cells["learning_rate"]})
    layers = [str(layer) for layer in sorted(head_cells["layer"].unique())]
    heads = [str(head) for head in sorted(head_cells["head"].unique())]
    height = max(len(heads) * 0.13, 0.8) + 0.2
    with look():
        figure = Figure(
            figsize=(max(len(layers) * 0.13, 1.1) * len(rates) + 1.5, height * len(series) + 0.7),
            layout="constrained",
        )
        grid = figure.subplots(len(series), len(rates), squeeze=False)
        for row, name in enumerate(series):
            for column, rate in enumerate(rates):
                mine = head_cells[
                    (head_cells["series"] == name) & (head_cells["learning_rate"] == rate)
                ]
                values = mine.pivot_table(
                    index="head", columns="layer", values="delta_entropy_pct"
                ).reindex(index=[int(head) for head in heads], columns=[int(at) for at in layers])
                axes = grid[row, column]
                panel = Panel(f"{name}, rate {rate_text(rate)}", "head", heads, values.to_numpy())
                _heatmap(axes, panel, "layer", layers, scale, print_values=False)
                axes.set_title(rate_text(rate) if row == 0 else "", fontsize=8.5)
                axes.set_ylabel(f"{name}\nhead" if column == 0 else "")
                _thin_ticks(axes, len(layers), len(heads))
                axes.label_outer()
        figure.suptitle("learning rate", fontsize=8.5, color=INK)
        bar = figure.colorbar(
            ScalarMappable(scale, DIVERGING), ax=list(grid.flat), aspect=24, pad=0.02, shrink=0.9
        )
        bar.set_label(label)
        bar.outline.set_visible(False)
        number_axis(bar.ax.yaxis, signed=True)
    return figure


_BOTH_WAYS = np.array([-1.0, 1.0])


def _thin_ticks(axes: Axes, num_layers: int, num_heads: int) -> None:
    """Every tick of a small map, every third of a large one."""
    for axis, count in ((axes.xaxis, num_layers), (axes.yaxis, num_heads)):
        shown = range(0, count, 1 if count <= 6 else 3)
        axis.set_ticks([at + 0.5 for at in shown], [str(at + 1) for at in shown])


def shared_limit(layer_cells: Iterable[pd.DataFrame]) -> float:
    """The end of one scale for the layer heatmaps of all settings."""
    values = [cells["delta_entropy_pct"] for cells in layer_cells if len(cells)]
    return symmetric_limit(pd.concat(values)) if values else 1.0


def symmetric_limit(values: pd.Series[float]) -> float:
    """The largest absolute value, the end of a scale centred at 0 (1 where there is none)."""
    largest = float(values.abs().max())
    return largest if math.isfinite(largest) and largest > 0 else 1.0


@dataclass(frozen=True)
class Panel:
    """One heatmap: its title, what its rows are, their names, the values [row, column].

    `told` are further words for the pointer, place by place.
    """

    title: str
    row_word: str
    rows: list[str]
    values: np.ndarray
    told: np.ndarray | None = None

    def words(self, row: int, column: int) -> str:
        """What a place shows beside its value; nothing where nothing is known."""
        return "" if self.told is None else str(self.told[row, column])


def _heatmaps(
    panels: Sequence[Panel], column_word: str, columns: Sequence[str], label: str, limit: float
) -> Figure:
    scale = Normalize(-limit, limit)
    few, many = len(columns) <= 8, len(columns) > 16
    cell_width, cell_height = (0.46, 0.33) if few else (0.24, 0.24) if many else (0.36, 0.29)
    # one panel of one or two rows is as high as one of three: the colour bar needs the room
    fewest = 3 if len(panels) == 1 else 1
    heights = [max(len(panel.rows), fewest) * cell_height + 0.62 for panel in panels]
    width = max(len(columns) * cell_width, 2.2) + 1.35
    with look():
        figure = Figure(figsize=(width, sum(heights) + 0.1), layout="constrained")
        all_axes = figure.subplots(
            len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        for axes, panel in zip(all_axes, panels, strict=True):
            _heatmap(axes, panel, column_word, columns, scale, print_values=not many)
        bar = figure.colorbar(
            ScalarMappable(scale, DIVERGING),
            ax=list(all_axes),
            aspect=max(14, 7 * sum(heights)),
            pad=0.02,
            shrink=0.9,
        )
        tall_enough = sum(heights) > 1.9
        bar.set_label(label if tall_enough else label.rsplit(", ")[-1])
        bar.outline.set_visible(False)
        number_axis(bar.ax.yaxis, num_ticks=5 if tall_enough else 2, signed=True)
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
                gid=HOVER_PREFIX
                + (
                    f"{panel.title + ', ' if panel.title else ''}{panel.row_word} "
                    f"{panel.rows[row]}, {column_word} {columns[column]}: "
                    + (f"{text} % {panel.words(row, column)}".rstrip() if known else "no value")
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
