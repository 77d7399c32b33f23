"""What `analysis` answered, made readable: its sentence, its picture, its tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from driftscope.analysis import Answer
from driftscope.analysis.tables import LABELS
from driftscope.report import findings_figures, plots
from driftscope.report.columns import Column, Kind, Table
from driftscope.report.page import Picture, picture
from driftscope.report.style import SeriesStyle

TITLES = {
    "dose_response": "Dose response: what changes with the learning rate?",
    "method_contrast": "Methods against each other",
    "seed_contrasts": "Single cells against each other, seeds against seeds",
    "predictors": "Which signal tells how much is left?",
    "selection": "Which signal picks the run to keep?",
    "frontier": "Accuracy against retention: which cells are worth having?",
    "layer_profile": "Where in the network, and when?",
    "stability": "How steady are the signals?",
    "regularizers": "Do regularizers change attention?",
}
_RATES = ("learning_rate",)
_COUNTS = ("layer", "epoch", "onset_layer", "onset_epoch", "most_contracted_layer")


@dataclass(frozen=True)
class Finding:
    """One question on a page."""

    title: str
    sentence: str
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
        runs: `tables.with_series` of the finished runs, which the figures' hover texts name.
    """
    ordered = sorted(answers, key=lambda answer: not answer.is_answered)
    return [
        Finding(
            title=TITLES.get(answer.question, answer.question),
            sentence=true_minus(answer.sentence),
            basis=basis(answer),
            pictures=_pictures(answer, styles, runs),
            tables=answer_tables(answer),
        )
        for answer in ordered
    ]


def true_minus(sentence: str) -> str:
    """The sentence with minus signs before numbers as the page writes them everywhere.

    >>> true_minus("ρ from -0.97 to 4e-07, full-rank")
    'ρ from −0.97 to 4e-07, full-rank'
    """
    return re.sub(r"(?<![\w.])-(?=\d)", "−", sentence)


def answer_tables(answer: Answer) -> list[Table]:
    """The answer's table and its further ones, every column shown."""
    frames = {answer.question: answer.table}
    frames |= {f"{answer.question}_{name}": table for name, table in answer.details.items()}
    title = TITLES.get(answer.question, answer.question)
    return [
        Table(
            name=name,
            title=title if name == answer.question else f"{title} {_words(name)}",
            note=basis(answer),
            columns=tuple(_column(frame, str(key)) for key in frame.columns),
            frame=_labelled(frame),
        )
        for name, frame in frames.items()
        if len(frame)
    ]


def basis(answer: Answer) -> str:
    """How many units the answer rests on, what was left out, how p-values were adjusted."""
    if not answer.is_answered:
        return ""
    parts = [f"Rests on {answer.num_units} {answer.unit}."]
    parts += [f"Left out: {exclusion}." for exclusion in answer.excluded]
    for family in answer.family:
        name, tests = family.get("name", ""), family.get("num_tests", "")
        parts.append(
            f"p-values adjusted by {family.get('method', '')} over {tests} tests ({name})."
        )
    return " ".join(parts)


def _column(frame: pd.DataFrame, key: str) -> Column:
    values = frame[key]
    kind: Kind = "general"
    if key in _RATES:
        kind = "rate"
    elif not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values):
        kind = "text"
    elif key in _COUNTS or key.startswith("num_"):
        kind = "count"
    return Column(key, LABELS.get(key, _words(key)), kind=kind)


def _labelled(frame: pd.DataFrame) -> pd.DataFrame:
    """Column names as they are; truth values as words."""
    words = {True: "yes", False: "no"}
    booleans = [key for key in frame.columns if pd.api.types.is_bool_dtype(frame[key])]
    return frame.assign(**{str(key): frame[key].map(words) for key in booleans})


_UNIT_WORDS = {"pct": "%", "num": "number of", "p": "p", "sd": "sd", "pct2": "%²"}


def _words(key: str) -> str:
    return " ".join(_UNIT_WORDS.get(part, part) for part in key.split("_"))


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
    overall = table[table["scope"] == "overall"]
    return [
        picture(
            findings_figures.predictor_bars(mine, title=name),
            f"predictors-{number}",
            "Bars of each signal's rank correlation with retention, at the end and after the "
            "first epoch. The numbers are in the table below.",
            plots.predictor_plot(mine, title=name),
        )
        for number, (name, mine) in enumerate(apart(overall, []))
        if len(mine)
    ]


def _runs_of(table: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs behind a table of one dataset and setting."""
    row = table.iloc[0]
    for key in ("dataset", "model", "protocol", "transfer"):
        if key in table and key in runs:
            runs = runs[runs[key].astype(object).fillna("unknown").astype(str) == str(row[key])]
    return runs


def apart(table: pd.DataFrame, keys: list[str]) -> list[tuple[str, pd.DataFrame]]:
    """The table's parts by setting, where settings were answered apart, and by `keys`."""
    keys = [key for key in ("model", "protocol", "transfer") if key in table] + keys
    if not keys:
        return [("", table)]
    return [
        (", ".join(str(part) for part in name), group)
        for name, group in table.groupby(keys, sort=True, dropna=False)
    ]
