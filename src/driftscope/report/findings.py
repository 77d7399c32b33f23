"""What `analysis` answered, made readable: its sentence, its picture, its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup, escape

from driftscope.analysis import Answer
from driftscope.analysis.answer_tables import TITLES, answer_tables, basis
from driftscope.analysis.grouping import SETTING
from driftscope.analysis.table import Table
from driftscope.analysis.words import join_words
from driftscope.report import findings_figures, plots
from driftscope.report.page import Picture, picture
from driftscope.report.style import SeriesStyle
from driftscope.report.summary import unbreakable


@dataclass(frozen=True)
class Finding:
    """One question on a page."""

    title: str
    is_answered: bool
    sentence: Markup
    rests_on: str
    remarks: list[Markup]
    basis: str
    pictures: list[Picture]
    tables: list[Table]


def findings(
    answers: Sequence[Answer], styles: Mapping[str, SeriesStyle], runs: pd.DataFrame
) -> list[Finding]:
    """The answered questions, in the order given; what the data can't answer comes last, short.

    Args:
        answers: what `analysis` answered.
        styles: how each series is drawn.
        runs: `grouping.with_series` of the finished runs, which the figures' hover texts name.
    """
    ordered = sorted(answers, key=lambda answer: not answer.is_answered)
    return [
        Finding(
            title=TITLES.get(answer.question, answer.question),
            is_answered=answer.is_answered,
            sentence=unbreakable(escape(answer.sentence)),
            rests_on=answer.rests_on,
            remarks=[unbreakable(escape(remark)) for remark in answer.remarks],
            basis=basis(answer),
            pictures=_pictures(answer, styles, runs),
            tables=answer_tables(answer),
        )
        for answer in ordered
    ]


def _pictures(
    answer: Answer, styles: Mapping[str, SeriesStyle], runs: pd.DataFrame
) -> list[Picture]:
    if not answer.is_answered:
        return []
    if answer.question == "predictors":
        return _predictor_pictures(answer.table)
    if answer.question == "frontier":
        return [
            picture(
                findings_figures.frontier(mine, styles, title=name),
                f"frontier-{number}",
                f"Target accuracy against retention of every cell on {name}; the cells that no "
                "other beats in both are ringed. The numbers are in the table below.",
                plots.frontier_plot(mine, _runs_of(mine, runs), styles, title=name),
            )
            for number, (name, mine) in enumerate(apart(answer.table, ["dataset"]))
        ]
    return []


def _predictor_pictures(table: pd.DataFrame) -> list[Picture]:
    return [
        picture(
            findings_figures.predictor_bars(overall, title=title),
            f"predictors-{number}",
            "Bars of each signal's rank correlation with retention, at the end and after the "
            f"first epoch{pooled(mine)}. The numbers are in the table below.",
            plots.predictor_plot(overall, title=title),
        )
        for number, (name, mine) in enumerate(apart(table, []))
        for overall in [mine[mine["scope"] == "overall"]]
        for title in [pooled_title(name, mine)]
        if len(overall)
    ]


def pooled_title(name: str, predictors: pd.DataFrame) -> str:
    """What stands above the bars of a setting: its name, and which datasets are pooled."""
    return f"{name}{pooled(predictors)}".removeprefix(", ")


def pooled(predictors: pd.DataFrame) -> str:
    """Which datasets "overall" pools, as ', pooled over A and B'; nothing where there is one."""
    datasets = sorted({str(name) for name in predictors["dataset"]} - {""})
    return f", pooled over {join_words(datasets)}" if len(datasets) > 1 else ""


def _runs_of(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs behind a table of one dataset and setting."""
    row = table.iloc[0]
    for key in ("dataset", "model", "protocol", "transfer"):
        if key in table and key in runs:
            runs = runs[runs[key].astype(object).fillna("unknown").astype(str) == str(row[key])]
    return runs


def apart(table: pd.DataFrame, keys: list[str]) -> list[tuple[str, pd.DataFrame]]:
    """The table's parts by `keys` and by what of their setting differs, and the parts' names."""
    keys = [*keys, *(key for key in SETTING if key in table and table[key].nunique() > 1)]
    if not keys:
        return [("", table)]
    return [
        (", ".join(str(part) for part in name), group)
        for name, group in table.groupby(keys, sort=True, dropna=False)
    ]
