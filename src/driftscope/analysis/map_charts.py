"""The maps of a study as charts: by layer, by head, by class."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from driftscope.analysis.chart import Axis, Chart, Heat, Panel, points
from driftscope.analysis.words import rate_text
from driftscope.metric import Metric
from driftscope.metrics import METRICS

MAX_CLASSES = 24
"""Rows of the figure of classes at most."""
RATE_TITLE = "learning rate"
_ENTROPY_CHANGE = METRICS["delta_entropy_pct"]
_BEFORE = "pretrained_pct"


# ---------------------------------------------------------------- layer by layer


def layer_chart(
    name: str, layer_cells: pd.DataFrame, series: Sequence[str], limit: float | None = None
) -> Chart:
    """Rate × layer, a panel a series: the change of the entropy, on one scale centred at 0.

    Args:
        name: the chart's name.
        layer_cells: `grouping.layer_cells_frame`; a place's text tells each seed's value from its
            column `delta_entropy_pct_by_seed`, where there is one.
        series: the panels, from above.
        limit: the scale's end; by default the largest change.
    """
    limit = limit or symmetric_limit(layer_cells[_ENTROPY_CHANGE.key])
    return _layer_maps(name, layer_cells, series, _ENTROPY_CHANGE, (-limit, limit))


def cka_chart(name: str, layer_cells: pd.DataFrame, series: Sequence[str], least: float) -> Chart:
    """Rate × layer, a panel a series: CKA with the pretrained model, on a scale that ends at 1.

    Args:
        name: the chart's name.
        layer_cells: `grouping.layer_cells_frame`.
        series: the panels, from above.
        least: the scale's other end.
    """
    return _layer_maps(name, layer_cells, series, METRICS["cka"], (least, 1.0))


def _layer_maps(
    name: str,
    layer_cells: pd.DataFrame,
    series: Sequence[str],
    metric: Metric,
    limits: tuple[float, float],
) -> Chart:
    layers = sorted(int(layer) for layer in layer_cells["layer"].unique())
    panels = []
    for one in series:
        mine = layer_cells[layer_cells["series"] == one]
        rates = sorted(float(rate) for rate in mine["learning_rate"].unique())
        more = {
            (float(row["learning_rate"]), int(row["layer"])): row.get(f"{metric.key}_by_seed", "")
            for row in rows_of(mine)
        }
        panels.append(
            _heat_panel(
                one,
                _grid(mine, "learning_rate", rates, layers, metric),
                ("learning rate", [rate_text(rate) for rate in rates]),
                ("layer", [str(layer) for layer in layers]),
                limits,
                metric=metric,
                more=[[more.get((rate, layer), "") for layer in layers] for rate in rates],
                words=f"Heatmap for {one}: {metric.heading}, learning rate by layer. The numbers "
                "are in the table of layers below.",
            )
        )
    return Chart(name, tuple((panel,) for panel in panels))


def head_chart(name: str, heads: pd.DataFrame, title: str = "") -> Chart:
    """Head × layer of one comparison or run: the change of the entropy, centred at 0."""
    panel = _head_panel(heads, title, symmetric_limit(heads[_ENTROPY_CHANGE.key]))
    return Chart(name, ((panel,),))


def head_maps_chart(name: str, head_cells: pd.DataFrame, series: Sequence[str]) -> Chart:
    """Head × layer maps of cells, a row a series and a column a learning rate, on one scale."""
    limit = symmetric_limit(head_cells[_ENTROPY_CHANGE.key])
    rates = sorted({float(rate) for rate in head_cells["learning_rate"]})
    parts = dict(list(head_cells.groupby(["series", "learning_rate"])))
    rows = [
        tuple(
            _head_panel(
                parts.get((one, rate), head_cells.iloc[:0]),
                f"{one}, rate {rate_text(rate)}",
                limit,
                head_cells,
            )
            for rate in rates
        )
        for one in series
    ]
    names = tuple(rate_text(rate) for rate in rates)
    return Chart(
        name, tuple(rows), row_names=tuple(series), column_names=names, legend_title=RATE_TITLE
    )


def _head_panel(
    heads: pd.DataFrame, title: str, limit: float, of_all: pd.DataFrame | None = None
) -> Panel:
    of_all = heads if of_all is None else of_all
    layers, names = (sorted(int(at) for at in of_all[key].unique()) for key in ("layer", "head"))
    return _heat_panel(
        title,
        _grid(heads, "head", names, layers, _ENTROPY_CHANGE),
        ("head", [str(head) for head in names]),
        ("layer", [str(layer) for layer in layers]),
        (-limit, limit),
        metric=_ENTROPY_CHANGE,
        words="Map of the percent change of each head's attention entropy, head by layer.",
    )


def _grid(
    frame: pd.DataFrame, row_key: str, rows: list[Any], columns: list[int], metric: Metric
) -> tuple[tuple[float | None, ...], ...]:
    grid = frame.pivot_table(index=row_key, columns="layer", values=metric.key)
    grid = grid.reindex(index=rows, columns=columns)
    return tuple(points(row) for row in grid.to_numpy(float))


def _heat_panel(
    title: str,
    values: tuple[tuple[float | None, ...], ...],
    rows: tuple[str, Sequence[str]],
    columns: tuple[str, Sequence[str]],
    limits: tuple[float, float],
    *,
    metric: Metric,
    words: str,
    more: Sequence[Sequence[str]] = (),
) -> Panel:
    def told(row: int, column: int) -> str:
        place = f"{rows[0]} {rows[1][row]}, {columns[0]} {columns[1][column]}"
        value = values[row][column]
        text = metric.with_unit(value) if value is not None else "no value"
        text = f"{text} {more[row][column]}".rstrip() if more and value is not None else text
        return f"{f'{title}, ' if title else ''}{place}\n{text}"

    heat = Heat(
        metric.key,
        tuple(rows[1]),
        tuple(columns[1]),
        values,
        tuple(
            tuple(told(row, column) for column in range(len(columns[1])))
            for row in range(len(rows[1]))
        ),
        limits,
    )
    return Panel(title, title, Axis(columns[0]), Axis(rows[0]), heat=heat, words=words)


@dataclass(frozen=True)
class LayerScales:
    """The scales of the maps by layer, one for all places of a page.

    Attributes:
        entropy: the end of the scale of entropy changes, which is centred at 0.
        cka: the lower end of the scale of CKA, which ends at 1.
    """

    entropy: float
    cka: float

    @classmethod
    def of(cls, layer_cells: Iterable[pd.DataFrame]) -> LayerScales:
        """Those that show all cells, each a `grouping.layer_cells_frame`."""
        whole = [cells for cells in layer_cells if len(cells)]
        if not whole:
            return cls(1.0, 0.0)
        both = pd.concat(whole)
        least = float(both["cka"].min()) if "cka" in both else math.nan
        cka = min(math.floor(least * 20) / 20, 0.95) if math.isfinite(least) else 0.0
        return cls(symmetric_limit(both[_ENTROPY_CHANGE.key]), cka)


def symmetric_limit(values: pd.Series[float]) -> float:
    """The largest finite size, the end of a scale centred at 0 (1 where there is none)."""
    sizes = values.abs()
    return max(sizes[sizes < math.inf], default=0.0) or 1.0


# ---------------------------------------------------------------- class by class


def class_chart(
    name: str, class_cells: pd.DataFrame, series: Sequence[str], *, max_classes: int = MAX_CLASSES
) -> Chart:
    """Class × cell: how much of the pretrained accuracy on each class is left, in percent.

    Classes go from the least to the best kept (mean over the cells); of many, both ends are shown.
    The scale ends at 100 %.

    Args:
        name: the chart's name.
        class_cells: `grouping.class_cells_frame`.
        series: the groups of columns, from the left.
        max_classes: rows at most.
    """
    retention = METRICS["retention_pct"]
    of_series = {one: class_cells[class_cells["series"] == one] for one in series}
    rates = {one: sorted(map(float, own["learning_rate"].unique()))
             for one, own in of_series.items()}  # fmt: skip
    cells = [(one, rate) for one in series for rate in rates[one]]
    rows = shown_classes(class_cells, max_classes)
    by_place = {
        (row["class"], row["series"], float(row["learning_rate"])): row
        for row in rows_of(class_cells)
    }
    images = class_cells.dropna(subset=[retention.key]).groupby("class")["num_images"].max()
    same = images.nunique() == 1

    def row_name(one: str | None) -> str:
        if one is None:
            return f"… {len(images) - len(rows) + 1} more …"
        return one if same else f"{one} ({images[one]:.0f})"

    def told(one: str, cell: tuple[str, float]) -> str:
        row = by_place.get((one, *cell), {})
        head = f"{one}, {cell[0]}, rate {rate_text(cell[1])}"
        if points([row.get(retention.key)]) == (None,):
            return f"{head}\nnothing to lose, or not read"
        kept, before = (METRICS[key].with_unit(row[key]) for key in (retention.key, _BEFORE))
        images, seeds = f"{row['num_images']:.0f} images", seed_count(row["num_runs"])
        return f"{head}\n{kept} of {before} ({images}, {seeds})"

    heat = Heat(
        retention.key,
        tuple(row_name(one) for one in rows),
        tuple(rate_text(rate) for _, rate in cells),
        tuple(
            points(by_place.get((one, *cell), {}).get(retention.key) for cell in cells)
            if one is not None
            else ()
            for one in rows
        ),
        tuple(tuple(told(one, cell) for cell in cells) if one is not None else () for one in rows),
        (0, 100),
        tuple((one, len(rates[one])) for one in series),
    )
    title = f"class ({images.iloc[0]:.0f} images each)" if same else "class (images)"
    words = "Retention class by class, the least kept first, a column a cell."
    panel = Panel("classes", "", Axis(RATE_TITLE), Axis(title), heat=heat, words=words)
    return Chart(name, ((panel,),))


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


# ---------------------------------------------------------------- words and rows


def seed_count(num_runs: float) -> str:
    """'1 seed', '3 seeds'."""
    return f"{int(num_runs)} seed{'' if int(num_runs) == 1 else 's'}"


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as mappings; far faster than pandas' own on a frame of few columns."""
    columns = {str(key): frame[key].tolist() for key in frame.columns}
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]
