"""Retention as it was estimated without labels against as it was measured, run by run."""

from __future__ import annotations

import pandas as pd

from driftscope.analysis.chart import Axis, Chart, Marks, Panel, points
from driftscope.analysis.grouping import is_done, with_series
from driftscope.analysis.map_charts import rows_of
from driftscope.analysis.words import rate_text, seed_text
from driftscope.metrics import ESTIMATED, METRICS

MEASURED = "retention_pct"
ENDS = ("low_90_pct", "high_90_pct")


def estimate_chart(name: str, runs: pd.DataFrame) -> Chart | None:
    """A dot a run with the estimate's 90 % interval, and the line on which both are equal.

    Args:
        name: the chart's name.
        runs: of one setting, the runs table.

    Returns:
        None where no finished run has both.
    """
    if not {MEASURED, ESTIMATED} <= {*runs.columns}:
        return None
    known = with_series(runs)[is_done(runs)].dropna(subset=[MEASURED, ESTIMATED])
    if known.empty:
        return None
    known = known.reindex(columns=[*dict.fromkeys([*known.columns, *ENDS])])
    most = max(float(known[[MEASURED, ESTIMATED]].max().max()), 100.0)
    dots = [_dots(mine, str(series)) for series, mine in known.groupby("series", sort=False)]
    panel = Panel(
        "estimate",
        "Estimated against measured retention",
        Axis(f"measured {METRICS[MEASURED].heading.lower()}", metric=MEASURED),
        Axis(metric=ESTIMATED),
        (Marks((0.0, most), (0.0, most), "line"), *dots),
        words=f"Estimated against measured retention; on the line both are equal. {told(known)}",
    )
    return Chart(name, ((panel,),), tuple(mark.name for mark in dots))


def told(runs: pd.DataFrame) -> str:
    """How far the estimates of runs are off, in a sentence or two."""
    off = (runs[ESTIMATED] - runs[MEASURED]).abs()
    bounded = runs.dropna(subset=[*ENDS])
    held = bounded[MEASURED].between(bounded[ENDS[0]], bounded[ENDS[1]]).sum()
    count = f"{len(runs)} runs" if len(runs) > 1 else "1 run"
    text = f"The estimates of {count} are {off.mean():.1f} points off on average, {off.max():.1f} "
    text += "at most."
    if len(bounded):
        text += f" {held} of {len(bounded)} 90 % intervals hold the measured retention."
    return text


def _dots(runs: pd.DataFrame, series: str) -> Marks:
    rows = rows_of(runs)
    bounds = (tuple(points(row[end] for end in ENDS)) for row in rows)
    shown = {key: METRICS[key] for key in (MEASURED, ESTIMATED)}
    return Marks(
        points(runs[MEASURED]),
        points(runs[ESTIMATED]),
        "dots",
        series,
        y_ends=tuple(None if low is None or high is None else (low, high) for low, high in bounds),
        hover=tuple(
            f"{series}, rate {rate_text(row['learning_rate'])}\n{seed_text(row)}\n"
            f"estimated {shown[ESTIMATED].with_unit(row[ESTIMATED])}, "
            f"measured {shown[MEASURED].with_unit(row[MEASURED])}"
            for row in rows
        ),
        run_ids=tuple(str(one) for one in runs["run_id"]),
    )
