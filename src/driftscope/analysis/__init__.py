"""The questions asked of a study: a study's tables in, tables and a sentence out.

>>> from driftscope.analysis import QUESTIONS, StudyTables, answer  # doctest: +SKIP
>>> print(answer("predictors", StudyTables(runs, history, layers)).sentence)  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from driftscope.analysis.answer import Answer
from driftscope.analysis.answer_charts import answer_charts
from driftscope.analysis.budgets import budgets
from driftscope.analysis.causes import causes
from driftscope.analysis.contrast import method_contrast
from driftscope.analysis.dose import dose_response
from driftscope.analysis.interventions import interventions
from driftscope.analysis.layers import layer_profile
from driftscope.analysis.onset import onset
from driftscope.analysis.predictors import predictors
from driftscope.analysis.regularizers import regularizers
from driftscope.analysis.seed_contrasts import seed_contrasts
from driftscope.analysis.selection import frontier, selection_utility
from driftscope.analysis.stability import stability
from driftscope.analysis.stopping import stopping
from driftscope.analysis.tables import Exclusion, StudyTables
from driftscope.deprecation import keywords
from driftscope.errors import ConfigError, did_you_mean
from driftscope.forks import MANY_RUNS, spread

QUESTIONS: dict[str, Callable[..., Answer]] = {
    "method_contrast": method_contrast,
    "frontier": frontier,
    "budgets": budgets,
    "dose_response": dose_response,
    "predictors": predictors,
    "selection": selection_utility,
    "onset": onset,
    "stopping": stopping,
    "seed_contrasts": seed_contrasts,
    "layer_profile": layer_profile,
    "causes": causes,
    "stability": stability,
    "regularizers": regularizers,
    "interventions": interventions,
}
"""Every question by the name that the command line knows, in the order of showing."""

__all__ = ["QUESTIONS", "Answer", "Exclusion", "StudyTables", "answer", "answer_all"]


def answer(question: str, tables: StudyTables, **options: Any) -> Answer:
    """The answer to a question by name, with its charts.

    Args:
        question: one of `QUESTIONS`.
        tables: the study's.
        options: the question's own keyword arguments.

    Raises:
        ConfigError: if there is no such question, or it has no such option.
    """
    if question not in QUESTIONS:
        raise ConfigError(f"Unknown question {question!r}: {did_you_mean(question, QUESTIONS)}.")
    found = keywords()(QUESTIONS[question])(tables, **options)
    return replace(found, charts=tuple(answer_charts(found, tables.runs)))


def answer_all(tables: StudyTables) -> list[Answer]:
    """Every question, in the order of `QUESTIONS`; what the data can't answer says why."""
    is_worth_it = len(tables.runs) >= MANY_RUNS
    return list(spread(lambda one: answer(one, tables), [*QUESTIONS], is_worth_it=is_worth_it))
