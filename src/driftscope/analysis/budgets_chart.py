"""The figure of the question `budgets`: what each way learns, over what it keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from driftscope.analysis.budget_words import TRAINED, way_text
from driftscope.analysis.chart import Axis, Chart, Marks, Panel, ends, limits_around, points
from driftscope.analysis.label_places import Ends, Places, Spot, label_offsets
from driftscope.analysis.tables import accuracy_column
from driftscope.analysis.words import rate_text, short_series, spread_text
from driftscope.metrics import METRICS


def budgets_chart(
    name: str, table: pd.DataFrame, ways: Sequence[str], title: str = ""
) -> Chart | None:
    """Accuracy over measured retention, a mark a way; None where no way has an accuracy.

    Args:
        name: the chart's name.
        table: rows of one dataset and budget of `analysis.budgets`.
        ways: those of all charts, so that each has one colour in every one.
        title: what stands above.
    """
    accuracy, retention = METRICS[accuracy_column(table)], METRICS["retention_pct"]
    shown = table[table[accuracy.key].notna()]
    if shown.empty:
        return None
    budget = float(table["budget_pct"].iloc[0])
    kept = [*_reach(shown, retention.key), budget]
    x_limits, y_limits = limits_around(kept), limits_around(_reach(shown, accuracy.key))
    labels = _labels(shown, accuracy.key, budget, (x_limits, y_limits))
    marks = [Marks((budget, budget), y_limits)]
    for way in (one for one in ways if one in set(shown["way"])):
        mine = shown[shown["way"] == way]
        marks.append(
            Marks(
                points(mine[retention.key]),
                points(mine[accuracy.key]),
                "dots",
                way,
                x_ends=ends(mine[retention.key], mine[f"{retention.key}_sd"]),
                y_ends=ends(mine[accuracy.key], mine[f"{accuracy.key}_sd"]),
                hover=tuple(_hover(row, accuracy.key) for row in mine.to_dict("records")),
                labels=tuple(labels[place][0] for place in mine.index),
                label_offsets=tuple(labels[place][1] for place in mine.index),
            )
        )
    where = f" ({title})" if title else ""
    panel = Panel(
        "budgets",
        title or "Accuracy of each way that keeps the budget",
        Axis(metric=retention.key, limits=x_limits),
        Axis("Accuracy, %", limits=y_limits),
        tuple(marks),
        words=f"Accuracy over measured retention of each way{where}, means over seeds; a line "
        f"stands at the budget of {budget:g} %. Of each kind of training the most accurate cell "
        "that keeps it in the mean is shown, and every training under the budget. The numbers are "
        "in the table below.",
    )
    return Chart(name, ((panel,),), tuple(ways))


def _reach(table: pd.DataFrame, key: str) -> list[float]:
    """All values of a column, and the ends of their spreads."""
    spread = table[f"{key}_sd"].fillna(0.0)
    return [*(table[key] - spread), *(table[key] + spread)]


def _labels(
    table: pd.DataFrame, accuracy: str, budget: float, limits: tuple[Spot, Spot]
) -> dict[Any, tuple[str, Places]]:
    """What stands beside each row, by its index: its method and rate, and how far off.

    The most accurate way and every training under the budget have theirs in any case,
    others where there is room beside them: lines from many afar would cross each other.
    """
    is_needed = table["way"].eq(TRAINED) | (table.index == table.index[0])
    table = pd.concat([table[is_needed], table[~is_needed]])
    rows = table.to_dict("records")
    texts = [_label(row) for row in rows]
    places = [(float(row["retention_pct"]), float(row[accuracy])) for row in rows]
    spreads = [
        line
        for (x, y), row in zip(places, rows, strict=True)
        for line in _spread(x, y, row["retention_pct_sd"], row[f"{accuracy}_sd"])
    ]
    offsets = label_offsets(
        places,
        texts,
        Ends(*limits[0]),
        Ends(*limits[1]),
        lines=[((budget, limits[1][0]), (budget, limits[1][1])), *spreads],
        num_far=int(is_needed.sum()),
        num_needed=int(is_needed.sum()),
    )
    return dict(zip(table.index, zip(texts, offsets, strict=True), strict=True))


def _label(row: Mapping[Any, Any]) -> str:
    """A row's method and rate; its way is in the legend, its budget in the title."""
    rate = float(row["learning_rate"])
    said = f", budget_{row['budget_pct']:g}"
    name = short_series(str(row["method"]).removesuffix(", none").removesuffix(said))
    return f"{name} {rate_text(rate)}" if rate == rate else name


def _spread(x: float, y: float, across: float, along: float) -> list[tuple[Spot, Spot]]:
    """The lines through a mark that show its spreads, as far as they are known."""
    lines = [((x - across, y), (x + across, y)), ((x, y - along), (x, y + along))]
    return [
        line for line, size in zip(lines, (across, along), strict=True) if size == size and size > 0
    ]


def _hover(row: Mapping[Any, Any], accuracy: str) -> str:
    read = [
        f"{METRICS[key].label} {spread_text(row[key], row[f'{key}_sd'], METRICS[key].decimals)} %"
        for key in (accuracy, "retention_pct")
    ]
    on = f"accuracy on {row['accuracy_on']}"
    kept = f"budget kept in {row['num_kept']} of {row['num_runs']} runs"
    return "\n".join([way_text(row), *read, on, kept])
