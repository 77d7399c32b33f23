"""What a question gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.advice import Advice
from driftscope.analysis.chart import Chart
from driftscope.analysis.grouping import settings_apart
from driftscope.analysis.tables import Exclusion, StudyTables
from driftscope.analysis.words import join_words
from driftscope.stats.groups import MeanTest
from driftscope.stats.multiplicity import Adjusted, Family, adjust

ALPHA = 0.05
"""The level at which answers speak of evidence."""


@dataclass(frozen=True)
class Answer:
    """A question's answer.

    Attributes:
        question: its name.
        sentence: what came out, in one or two sentences, each number with what it rests on.
        table: the numbers; the columns that answer come first.
        unit: what the independent units are ("cells", "seeds", …).
        num_units: how many of them the answer rests on.
        excluded: what was left out and why.
        family: the multiple-testing family, where p-values were adjusted: name, method, alpha,
            tests (one entry per setting).
        details: further tables by name.
        remarks: what limits the answer, and what else the tables show; a sentence each.
        charts: the figures' data.
        advice: what to do.
        is_answered: False where the data can't answer; the sentence then says why.
    """

    question: str
    sentence: str
    table: pd.DataFrame
    unit: str
    num_units: int
    excluded: tuple[Exclusion, ...] = ()
    family: tuple[dict[str, Any], ...] = ()
    details: dict[str, pd.DataFrame] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    advice: tuple[Advice, ...] = ()
    is_answered: bool = True

    @property
    def words(self) -> str:
        """The sentence and the remarks."""
        return " ".join([self.sentence, *self.remarks])

    @property
    def rests_on(self) -> str:
        """How many units the answer rests on, and whether something was left out."""
        more = "; what was left out is listed under Statistics" if self.excluded else ""
        return f"Rests on {self.units}{more}."

    @property
    def units(self) -> str:
        """What the answer rests on, counted, such as `1 pair of runs` or `16 cells`."""
        noun, of, what = self.unit.partition(" ")
        return (
            f"{self.num_units} {noun.removesuffix('s') if self.num_units == 1 else noun}{of}{what}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON holds it: NaN becomes null."""
        return {
            "question": self.question,
            "is_answered": self.is_answered,
            "sentence": self.sentence,
            "remarks": list(self.remarks),
            "unit": self.unit,
            "num_units": self.num_units,
            "excluded": [vars(exclusion) for exclusion in self.excluded],
            "family": [_plain(family) for family in self.family],
            "table": _records(self.table),
            "details": {name: _records(table) for name, table in self.details.items()},
            "charts": [chart.to_dict() for chart in self.charts],
            "advice": [one.to_dict() for one in self.advice],
        }


def cannot_answer(question: str, why: str, excluded: Iterable[Exclusion] = ()) -> Answer:
    """The answer "these data can't say", with the reason."""
    sentence = f"These data can't answer this: {why}."
    return Answer(
        question, sentence, pd.DataFrame(), "cells", 0, tuple(excluded), is_answered=False
    )


def describe_family(adjusted: Adjusted) -> dict[str, Any]:
    """A family's declaration, for the reader."""
    return {
        "name": adjusted.family.name,
        "method": "holm",
        "alpha": adjusted.alpha,
        "num_tests": adjusted.num_tests,
        "members": list(adjusted.family.members),
        "excluded": list(adjusted.excluded),
    }


def per_setting(question: str, tables: StudyTables, ask: Callable[[StudyTables], Answer]) -> Answer:
    """Ask in each setting by itself (`settings_apart`); none share a statistic."""
    if tables.runs.empty:
        return cannot_answer(question, "there are no runs")
    settings = settings_apart(tables)
    if len(settings) == 1:
        return ask(settings[0][1])
    answers = {tuple(name.values()): ask(part) for name, part in settings}
    keys = list(settings[0][0])
    return _joined(question, keys, answers)


def with_holm(
    table: pd.DataFrame, family: Family, alpha: float
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table with ``p_holm`` beside ``p_value``, row by row the family's members, and the
    family's description."""
    adjusted = adjust(family, dict(zip(family.members, table["p_value"], strict=True)), alpha=alpha)
    whole = table.copy()
    place = list(table.columns).index("p_value") + 1
    whole.insert(place, "p_holm", list(adjusted.p_adjusted.values()))
    return whole, describe_family(adjusted)


def over_cells(test: MeanTest) -> dict[str, Any]:
    """A test whose pairs are cells, as columns of a table."""
    return {"num_cells": test.num_a, "p_value": test.p_value, "p_floor": test.p_floor}


def lead_with(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The table with these columns first: those that answer, which a narrow screen keeps."""
    first = [name for name in columns if name in table]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def _joined(question: str, keys: list[str], answers: dict[tuple[str, ...], Answer]) -> Answer:
    def stacked(parts: dict[tuple[str, ...], pd.DataFrame]) -> pd.DataFrame:
        labelled = [
            table.assign(**dict(zip(keys, name, strict=True)))
            for name, table in parts.items()
            if not table.empty
        ]
        if not labelled:
            return pd.DataFrame()
        whole = pd.concat(labelled, ignore_index=True)
        return whole[[*keys, *(column for column in whole.columns if column not in keys)]]

    names = {name: " / ".join(name) for name in answers}
    varying = [at for at, values in enumerate(zip(*answers, strict=True)) if len(set(values)) > 1]
    short = {name: " / ".join(name[at] for at in varying) for name in answers}
    detail_names = dict.fromkeys(name for answer in answers.values() for name in answer.details)
    said = join_words([keys[at] for at in varying])
    return Answer(
        question=question,
        sentence=" ".join(f"{short[name]}: {answer.sentence}" for name, answer in answers.items()),
        remarks=(
            f"{len(answers)} settings are answered apart; they differ in {said}.",
            *(
                f"{short[name]}: {one}"
                for name, answer in answers.items()
                for one in answer.remarks
            ),
        ),
        table=stacked({name: answer.table for name, answer in answers.items()}),
        unit=next(iter(answers.values())).unit,
        num_units=sum(answer.num_units for answer in answers.values()),
        excluded=tuple(
            Exclusion(f"{exclusion.what} [{names[name]}]", exclusion.count, exclusion.why)
            for name, answer in answers.items()
            for exclusion in answer.excluded
        ),
        family=tuple(
            {"setting": names[name], **family}
            for name, answer in answers.items()
            for family in answer.family
        ),
        details={
            detail: stacked(
                {
                    name: answer.details[detail]
                    for name, answer in answers.items()
                    if detail in answer.details
                }
            )
            for detail in detail_names
        },
        advice=tuple(
            replace(one, verdict=f"{short[name]}: {one.verdict}")
            for name, answer in answers.items()
            for one in answer.advice
        ),
        is_answered=any(answer.is_answered for answer in answers.values()),
    )


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [_plain(row) for row in table.to_dict(orient="records")]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
