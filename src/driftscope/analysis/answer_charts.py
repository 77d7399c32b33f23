"""The figures of answers as charts: which signal tells of retention, accuracy against retention."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pandas as pd

from driftscope.analysis.advice import Setting
from driftscope.analysis.answer import Answer
from driftscope.analysis.budget_words import ways_in_order
from driftscope.analysis.budgets import QUESTION as BUDGETS
from driftscope.analysis.budgets_chart import budgets_chart
from driftscope.analysis.chart import (
    MOST_NAMED,
    OTHERS,
    Axis,
    Chart,
    Marks,
    Panel,
    ends,
    points,
    spans,
)
from driftscope.analysis.grouping import (
    MEASURING,
    PLACE,
    SETTING,
    is_done,
    measuring_of,
    with_series,
)
from driftscope.analysis.interventions import QUESTION as INTERVENTIONS
from driftscope.analysis.interventions_chart import interventions_chart
from driftscope.analysis.label_places import Ends, Places, Spot, label_offsets
from driftscope.analysis.onset import QUESTION as ONSET
from driftscope.analysis.predictors import MIN_CELLS_FOR_RANKING
from driftscope.analysis.stopping import QUESTION as STOPPING
from driftscope.analysis.study_advice import chosen_cell, setting_of
from driftscope.analysis.study_charts import runs_of_cells, spread_of
from driftscope.analysis.table import slug
from driftscope.analysis.tables import accuracy_column, signal_name
from driftscope.analysis.watching_charts import onset_chart, stopping_chart
from driftscope.analysis.words import interval_text, join_words, rate_text, rho_text, short_series
from driftscope.metrics import KEPT_PCT, METRICS

PROBE_WORDS = {"final": "at the end", "first": "after the first epoch"}


def answer_charts(answer: Answer, runs: pd.DataFrame) -> list[Chart]:
    """The answer's figures: of predictors and onset one a setting, of others one a dataset, of
    budgets one a dataset and budget.

    Args:
        answer: what a question gave.
        runs: the study's, which the texts of points name.
    """
    if not answer.is_answered:
        return []
    if answer.question == "predictors":
        return [
            predictor_chart(
                _named("predictors", name), overall, pooled_title(name, mine), pooled(mine)
            )
            for name, mine in apart(answer.table, [])
            for overall in [mine[mine["scope"] == "overall"]]
            if len(overall) and overall["num_cells"].max() >= MIN_CELLS_FOR_RANKING
        ]
    if answer.question == "frontier":
        return [
            frontier_chart(_named("frontier", name), mine, _runs_of(mine, finished), name)
            for finished in [with_series(runs[is_done(runs)])]
            for name, mine in apart(answer.table, ["dataset"])
        ]
    if answer.question == BUDGETS:
        ways = ways_in_order(answer.table["way"])
        return [
            chart
            for budget in [answer.table["budget_pct"].map("{:g} %".format)]
            for name, mine in apart(answer.table.assign(budget=budget), ["dataset", "budget"])
            for chart in [budgets_chart(_named(BUDGETS, name), mine, ways, name)]
            if chart is not None
        ]
    if answer.question == ONSET:
        return [
            onset_chart(_named(ONSET, name), widest, name)
            for name, mine in apart(answer.table, [])
            for widest in [mine[mine["scope"] == mine["scope"].iloc[0]]]
            if (widest["points_to_come"] > 0).any()  # else the sentence says it all
        ]
    if answer.question == STOPPING:
        return [
            stopping_chart(_named(STOPPING, name), mine, name)
            for name, mine in apart(answer.table, ["dataset"])
        ]
    if answer.question == INTERVENTIONS:
        return [
            interventions_chart(_named(INTERVENTIONS, name), mine, name)
            for name, mine in apart(answer.table, ["dataset"])
        ]
    return []


def apart(table: pd.DataFrame, keys: list[str]) -> list[tuple[str, pd.DataFrame]]:
    """The table's parts by `keys` and by what of their setting differs, and the parts' names."""
    setting = (*SETTING, MEASURING)
    keys = [*keys, *(key for key in setting if key in table and table[key].nunique() > 1)]
    if not keys:
        return [("", table)]
    return [
        (", ".join(str(part) for part in name), group)
        for name, group in table.groupby(keys, sort=True, dropna=False)
    ]


def pooled_title(name: str, predictors: pd.DataFrame) -> str:
    """What stands above the bars of a setting: its name, and which datasets are pooled."""
    return f"{name}{pooled(predictors)}".removeprefix(", ")


def pooled(predictors: pd.DataFrame) -> str:
    """Which datasets "overall" pools, as ', pooled over A and B'; nothing where there is one."""
    datasets = sorted({str(name) for name in predictors["dataset"]} - {""})
    return f", pooled over {join_words(datasets)}" if len(datasets) > 1 else ""


def _runs_of(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs behind a table of one place."""
    row = table.iloc[0]
    if MEASURING in table:
        runs = runs.assign(**{MEASURING: measuring_of(runs)})
    for key in (*PLACE, MEASURING):
        if key in table and key in runs:
            runs = runs[runs[key].astype(object).fillna("unknown").astype(str) == str(row[key])]
    return runs


def _named(what: str, where: str) -> str:
    return f"{what}_{slug(where)}" if where else what


def predictor_chart(name: str, table: pd.DataFrame, title: str = "", pooled: str = "") -> Chart:
    """Bars of each signal's rank correlation with retention, at the end and after one epoch.

    Args:
        name: the chart's name.
        table: rows of one scope of `analysis.predictors`: signal, form, probe, rho, low, high.
        title: what stands above.
        pooled: which datasets are pooled, as ", pooled over A and B".
    """
    signals = zip(table["signal"], table["form"], strict=True)
    frame = table.assign(name=[signal_name(*pair) for pair in signals])
    final = frame[frame["probe"] == "final"].sort_values("abs_rho")
    names = tuple(dict.fromkeys([*final["name"], *frame["name"]]))
    marks = []
    for probe, words in PROBE_WORDS.items():
        mine = frame[(frame["probe"] == probe) & frame["rho"].notna()]
        if mine.empty:
            continue
        marks.append(
            Marks(
                points(mine["rho"]),
                tuple(mine["name"]),
                "bars",
                words,
                x_ends=spans(mine["low"], mine["high"]),
                hover=tuple(
                    f"{row['name']}, {words}\nρ = {rho_text(row['rho'])} "
                    f"{interval_text(row['low'], row['high'])}\n{row['num_cells']:.0f} cells"
                    for row in mine.to_dict("records")
                ),
            )
        )
    panel = Panel(
        "predictors",
        title or "Rank correlation with retention",
        Axis("Spearman's ρ with retention", limits=(-1.02, 1.02)),
        Axis(scale="names", names=names),
        tuple(marks),
        words="Bars of each signal's rank correlation with retention, at the end and after the "
        f"first epoch{pooled}. The numbers are in the table below.",
    )
    return Chart(name, ((panel,),), tuple(one.name for one in marks), "probes")


def frontier_chart(name: str, table: pd.DataFrame, runs: pd.DataFrame, title: str = "") -> Chart:
    """Target accuracy against retention, a mark a cell; the cells on the frontier stand out.

    They are labelled by method and rate where a label lies on nothing else: those of the frontier
    first, others of few cells where there is room beside them. The most accurate cell that keeps
    the budget always has its label, which says so.

    Args:
        name: the chart's name.
        table: rows of one dataset of `analysis.frontier`.
        runs: `grouping.with_series` of that dataset's finished runs, named in the texts.
        title: what stands above.
    """
    accuracy, retention = METRICS[accuracy_column(table)], METRICS["retention_pct"]
    named = runs_of_cells(runs)
    best = table[table["is_on_frontier"]].sort_values(accuracy.key)
    x_limits = _limits(table, accuracy.key)
    y_limits = _limits(table, retention.key, KEPT_PCT)
    chosen = chosen_cell(table.to_dict("records"), accuracy.key)
    labels = _labels(table, accuracy.key, chosen, x_limits, y_limits)

    def told(row: Mapping[Any, Any]) -> str:
        where = ", on the frontier" if row["is_on_frontier"] else ""
        cell = named.get((row["method"], float(row["learning_rate"])))
        lines = [f"{row['method']}, rate {rate_text(row['learning_rate'])}{where}"]
        lines += [f"{one.label} {spread_of(row, one)} {one.unit}" for one in (accuracy, retention)]
        return "\n".join([*lines, cell or f"{row['num_runs']:.0f} runs"])

    marks = [
        Marks(x_limits, (KEPT_PCT, KEPT_PCT)),
        Marks(points(best[accuracy.key]), points(best[retention.key])),
    ]
    called = _called(table)
    series = tuple(dict.fromkeys(called))
    for one in series:
        mine = table[called == one]
        spreads = [
            mine[f"{key}_sd"] if f"{key}_sd" in mine else [None] * len(mine)
            for key in (accuracy.key, retention.key)
        ]
        written = [labels.get(setting_of(row, accuracy.key)) for row in mine.to_dict("records")]
        marks.append(
            Marks(
                points(mine[accuracy.key]),
                points(mine[retention.key]),
                "dots",
                one,
                x_ends=ends(mine[accuracy.key], spreads[0]),
                y_ends=ends(mine[retention.key], spreads[1]),
                hover=tuple(told(row) for row in mine.to_dict("records")),
                ringed=tuple(bool(on) for on in mine["is_on_frontier"]),
                labels=tuple(label[0] if label else "" for label in written),
                label_offsets=tuple(label[1] if label else () for label in written),
            )
        )
    panel = Panel(
        "frontier",
        title or "Accuracy against retention",
        Axis(metric=accuracy.key, limits=x_limits),
        Axis(metric=retention.key, limits=y_limits),
        tuple(marks),
        words=f"{accuracy.name} against retention of every cell{f' on {title}' if title else ''}; "
        "the cells that no other beats in both are ringed. "
        + (
            f"The most accurate whose every run keeps {KEPT_PCT:.0f} % is "
            f"{setting_of(chosen, accuracy.key).words}. "
            if chosen is not None
            else f"None keeps {KEPT_PCT:.0f} % in every run. "
        )
        + "The numbers are in the table below.",
    )
    return Chart(name, ((panel,),), series)


def _called(table: pd.DataFrame) -> pd.Series[str]:
    """What a legend calls each cell's method: of too many those on the frontier alone by name."""
    methods = table["method"].astype(str)
    if methods.nunique() <= MOST_NAMED:
        return methods
    return methods.where(methods.isin(methods[table["is_on_frontier"]]), OTHERS)


def _limits(table: pd.DataFrame, key: str, *more: float) -> tuple[float, float]:
    """The ends of an axis in percent: all values with their spread, and room around them."""
    spread = table[f"{key}_sd"].fillna(0.0) if f"{key}_sd" in table else 0.0
    low = min([*(table[key] - spread), *more])
    high = max([*(table[key] + spread), *more])
    room = max(0.08 * (high - low), 1.0)
    return max(low - room, 0.0 if low >= 0 else low), high + room


def _labels(
    table: pd.DataFrame,
    accuracy: str,
    chosen: Mapping[Any, Any] | None,
    x_limits: tuple[float, float],
    y_limits: tuple[float, float],
) -> dict[Setting, tuple[str, Places]]:
    """What stands beside cells, and how far off: the chosen one's, the frontier's, then others."""
    rows = sorted(
        table.to_dict("records"), key=lambda row: (not row["is_on_frontier"], row[accuracy])
    )
    first = None if chosen is None else setting_of(chosen, accuracy)
    cells = [setting_of(row, accuracy) for row in rows]
    cells.sort(key=lambda one: one != first)
    ahead = {first, *(setting_of(row, accuracy) for row in rows if row["is_on_frontier"])}
    places = [(one.accuracy_pct, one.retention_pct) for one in cells]
    names_all = len(cells) <= _FEW_CELLS
    texts = [
        _cell_label(one, is_chosen=one == first) if names_all or one in ahead else ""
        for one in cells
    ]
    on = sorted((row[accuracy], row["retention_pct"]) for row in rows if row["is_on_frontier"])
    offsets = label_offsets(
        places,
        texts,
        Ends(*x_limits),
        Ends(*y_limits),
        lines=[
            ((x_limits[0], KEPT_PCT), (x_limits[1], KEPT_PCT)),
            *pairwise(on),
            *_spreads(table, accuracy),
        ],
        num_far=len(on) if len(on) <= _MOST_LED else 1,
        num_needed=0 if first is None else 1,
    )
    return {
        one: (text, offset)
        for one, text, offset in zip(cells, texts, offsets, strict=True)
        if any(offset)
    }


def _spreads(table: pd.DataFrame, accuracy: str) -> Iterator[tuple[Spot, Spot]]:
    """The lines through each cell that show its spread, as far as it is known."""
    kept = "retention_pct"
    for row in table.to_dict("records"):
        x, y = row[accuracy], row[kept]
        across, along = row.get(f"{accuracy}_sd", math.nan), row.get(f"{kept}_sd", math.nan)
        if math.isfinite(across):
            yield (x - across, y), (x + across, y)
        if math.isfinite(along):
            yield (x, y - along), (x, y + along)


def _cell_label(cell: Setting, *, is_chosen: bool) -> str:
    name = f"{short_series(cell.method)} {rate_text(cell.learning_rate)}"
    return f"{name}:\nmost accurate\nthat keeps {KEPT_PCT:.0f} %" if is_chosen else name


_FEW_CELLS = 20
"""As many cells all have labels where there is room; of more those on the frontier alone."""
_MOST_LED = 12
"""Points of a frontier that lines may lead to from their labels; of more only the chosen one's."""
