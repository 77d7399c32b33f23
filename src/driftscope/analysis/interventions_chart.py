"""The figure of the question `interventions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from driftscope.analysis.chart import Axis, Chart, Marks, Panel, points, spans
from driftscope.analysis.interventions import QUESTION, is_confounded
from driftscope.analysis.words import rate_text
from driftscope.metric import number_text

ALONE, TOGETHER, STILL = (
    "attention alone moved",
    "more than attention moved",
    "attention did not move",
)


def interventions_chart(name: str, table: pd.DataFrame, title: str = "") -> Chart:
    """Bars of how far each intervention moves retention, by what else it moved.

    Args:
        name: the chart's name.
        table: rows of one dataset of `analysis.interventions`.
        title: what stands above.
    """
    frame = table.assign(
        name=[_name(row) for row in table.to_dict("records")],
        kind=[_kind(row) for row in table.to_dict("records")],
    ).sort_values("difference")
    marks = [
        Marks(
            points(mine["difference"]),
            tuple(mine["name"]),
            "bars",
            kind,
            x_ends=spans(mine["low"], mine["high"]),
            hover=tuple(_hover(row) for row in mine.to_dict("records")),
        )
        for kind in (ALONE, TOGETHER, STILL)
        for mine in [frame[(frame["kind"] == kind) & frame["difference"].notna()]]
        if len(mine)
    ]
    ends = [abs(end) for end in (*frame["low"].dropna(), *frame["high"].dropna(), 1.0)]
    panel = Panel(
        QUESTION,
        title or "What moving attention does to retention",
        Axis(
            "Retention moved by, points (in brackets: entropy)",
            limits=(-1.05 * max(ends), 1.05 * max(ends)),
        ),
        Axis(scale="names", names=tuple(frame["name"])),
        tuple(marks),
        words="Bars of how far each intervention moves retention against the same runs without it, "
        f"with 95 % intervals over seeds{f' on {title}' if title else ''}; behind its name stands "
        "how far it moves attention entropy. The numbers are in the table below.",
    )
    # all three, so that each has one colour in every panel
    return Chart(name, ((panel,),), (ALONE, TOGETHER, STILL))


def _name(row: Mapping[Any, Any]) -> str:
    moved = number_text(row["entropy_points"], 1, signed=True)
    return f"{row['method']}, {row['regularizer']} (entropy {moved})"


def _kind(row: Mapping[Any, Any]) -> str:
    if row["attention"] != "moved":
        return STILL
    return TOGETHER if is_confounded(row) else ALONE


def _hover(row: Mapping[Any, Any]) -> str:
    return (
        f"{row['name']} at {rate_text(row['learning_rate'])}\n{row['answer']}\n"
        f"retention {number_text(row['difference'], 1, signed=True)} points\n"
        f"{row['num_pairs']} pairs"
    )
