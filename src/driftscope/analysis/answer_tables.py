"""The tables of an answer, every column and row of them, with headings that people read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from driftscope.analysis import Answer
from driftscope.analysis.columns import KNOWN
from driftscope.analysis.table import Column, Table
from driftscope.analysis.words import RHO_DECIMALS
from driftscope.metrics import METRICS

TITLES = {
    "dose_response": "Dose response: what changes with the learning rate?",
    "method_contrast": "Methods against each other",
    "seed_contrasts": "Single cells against each other, seeds against seeds",
    "predictors": "Which signal tells how much is left?",
    "selection": "Which signal picks the run to keep?",
    "onset": "Does a signal warn before retention falls?",
    "stopping": "Had training stopped at a warning",
    "frontier": "Accuracy against retention: which cells are worth having?",
    "budgets": "At a retention budget, which way learns most?",
    "layer_profile": "Where in the network, and when?",
    "causes": "Do the layers that change do the damage?",
    "stability": "How steady are the signals?",
    "regularizers": "Do regularizers change attention?",
    "interventions": "Does moving attention move retention?",
}

_TEST = {
    "dose_response": "p (ρ)",
    "layer_profile": "p (ρ)",
    "causes": "p (ρ)",
    "method_contrast": "p (paired t)",
    "seed_contrasts": "p (Welch)",
    "regularizers": "p (paired t)",
    "interventions": "p (paired t)",
}
"""Of which test a question's `p_value` is."""
_NAMING = ("outcome", "metric", "signal", "reference", "value", "rule", "matching")
"""Columns whose values are names of measures."""


def answer_tables(answer: Answer) -> list[Table]:
    """The answer's table and its further ones, every column shown."""
    frames = {answer.question: answer.table}
    frames |= {f"{answer.question}_{name}": table for name, table in answer.details.items()}
    title = TITLES.get(answer.question, answer.question)
    return [
        Table(
            name=name,
            title=_title(title, name.removeprefix(answer.question)),
            note=" ".join([basis(answer), *left_out(answer)]).strip(),
            columns=tuple(
                _column(str(key), answer.question, frame)
                for key in frame.columns
                if not str(key).endswith("_sd")  # written beside its mean
            ),
            frame=frame,
        )
        for name, frame in frames.items()
        if len(frame)
    ]


def basis(answer: Answer) -> str:
    """How many units the answer rests on, and how p-values were adjusted."""
    if not answer.is_answered:
        return ""
    parts = [f"Rests on {answer.units}."]
    parts += [family_words(family) for family in answer.family if family["num_tests"]]
    return " ".join(parts)


def left_out(answer: Answer) -> list[str]:
    """What the answer does not rest on, and why, a sentence each."""
    return [f"Left out: {one}." for one in answer.excluded] if answer.is_answered else []


def family_words(family: Mapping[str, object]) -> str:
    """Which p-values were adjusted together."""
    setting = f"{family['setting']}: " if family.get("setting") else ""
    tests = "1 test" if family["num_tests"] == 1 else f"{family['num_tests']} tests"
    return f"Holm over {tests} ({setting}{family['name']})."


def measure_with_unit(name: str) -> str:
    """A measure's name as people write it, with its unit if it has one.

    >>> measure_with_unit("retention_pct"), measure_with_unit("cka"), measure_with_unit("oracle")
    ('retention, %', 'CKA', 'oracle')
    """
    one = METRICS.get(name)
    return one.name_with_unit if one else name.replace("_", " ")


def _title(title: str, detail: str) -> str:
    words = detail.replace("_", " ").strip()
    return f"{title} ({words})" if words else title


def _column(key: str, question: str, frame: pd.DataFrame) -> Column:
    if key not in KNOWN:  # of a question of one's own
        is_number = pd.api.types.is_numeric_dtype(frame[key])
        return Column(key, key.replace("_", " "), kind="general" if is_number else "text")
    column = KNOWN[key]
    if key in ("low", "high") and not {"rho", "gap"}.isdisjoint(frame):
        return replace(column, kind="number", decimals=RHO_DECIMALS, signed=True)
    if key == "p_value":
        return replace(column, heading=_TEST.get(question, "p"))
    return replace(column, words=measure_with_unit) if key in _NAMING else column
