"""What came out in five sentences: the answers of `analysis`, short, with n and uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from driftscope.analysis import Answer
from driftscope.analysis.answers import ALPHA, join_words
from driftscope.analysis.tables import LABELS
from driftscope.report.findings import apart, true_minus
from driftscope.report.findings_figures import signal_name
from driftscope.report.style import general_text, number_text
from driftscope.report.summary import unbreakable

NUM_SENTENCES = 5
_NAMED = 3
"""How many methods or datasets a sentence names before it refers to the tables."""


@dataclass(frozen=True)
class Highlight:
    """One sentence of what came out, and what it rests on."""

    sentence: Markup
    basis: str


def highlights(answers: Sequence[Answer]) -> list[Highlight]:
    """Up to five sentences: contrasts, dose response, predictors, frontier, then what is left.

    A question that the data can't answer gives no sentence; the page says so further down.
    """
    answered = {answer.question: answer for answer in answers if answer.is_answered}
    found = [
        Highlight(unbreakable(sentence), _basis(answered[question]))
        for question, write in _WRITERS
        if question in answered
        for sentence in [write(answered[question].table)]
        if sentence
    ]
    written = {question for question, _ in _WRITERS}
    rest = [
        Highlight(unbreakable(Markup("{}").format(true_minus(answer.sentence))), _basis(answer))
        for question, answer in answered.items()
        if question not in written
    ]
    return (found + rest)[:NUM_SENTENCES]


def _basis(answer: Answer) -> str:
    """How much it rests on; what was left out is listed with the statistics."""
    left_out = sum(exclusion.count for exclusion in answer.excluded)
    more = f"; {left_out} left out, see Statistics" if left_out else ""
    return f"Rests on {answer.num_units} {answer.unit}{more}."


def _contrast_at_rate(table: pd.DataFrame) -> Markup | None:
    return _contrast(table, "learning_rate", "At the same learning rate")


def _contrast_at_accuracy(table: pd.DataFrame) -> Markup | None:
    found = _contrast(table, "accuracy", "At the same target accuracy")
    return found or Markup(
        "No two methods could be compared at the same target accuracy, so the difference at equal "
        "rate says nothing about equal benefit."
    )


def _contrast(table: pd.DataFrame, matching: str, start: str) -> Markup | None:
    rows = _rows(table[(table["matching"] == matching) & (table["metric"] == "retention_pct")])
    rows.sort(key=lambda row: -abs(row["difference"]))
    if not rows:
        return None
    parts = [
        Markup("{} keeps <strong>{}</strong> points {} than {} on {} ({}{} pairs, {})").format(
            row["method"],
            number_text(abs(row["difference"]), 0),
            "more" if row["difference"] >= 0 else "less",
            row["baseline"],
            row["dataset"],
            _interval(row, 0),
            f"{row['num_pairs']:.0f}",
            _p_text(row["p_holm"]),
        )
        for row in rows[:_NAMED]
    ]
    return Markup("{}, {}{}.").format(start, Markup("; ").join(parts), _more(len(rows)))


def _dose(table: pd.DataFrame) -> Markup | None:
    def counted(outcome: str) -> tuple[int, int, int, int]:
        rows = table[(table["outcome"] == outcome) & table["rho"].notna()]
        falls = rows["rho"] < 0
        sure = rows["p_holm"] <= ALPHA
        return int(falls.sum()), int((falls & sure).sum()), int((~falls & sure).sum()), len(rows)

    falls, sure, _, groups = counted("retention_pct")
    if not groups:
        return None
    rho = table.loc[table["outcome"] == "retention_pct", "rho"].dropna()
    sentence = Markup(
        "With the learning rate retention falls in {} of {} dataset × method groups "
        "(ρ from {} to {}; {} with Holm p ≤ {})"
    ).format(falls, groups, number_text(rho.min(), 2), number_text(rho.max(), 2), sure, ALPHA)
    entropy_falls, falls_surely, rises_surely, entropy_groups = counted("delta_entropy_pct")
    if not entropy_groups:
        return sentence + "."
    sentence += Markup("; attention entropy falls in {} and rises in {}").format(
        entropy_falls, entropy_groups - entropy_falls
    )
    if falls_surely and rises_surely:
        sentence += ", so its direction is no measure of damage"
    return sentence + "."


def _predictors(table: pd.DataFrame) -> Markup | None:
    overall = table[(table["scope"] == "overall") & table["rho"].notna()]
    parts = []
    for name, mine in apart(overall, []):
        for probe, words in (("final", "at the end"), ("first", "already after the first epoch")):
            rows = _rows(mine[mine["probe"] == probe].sort_values("abs_rho", ascending=False))
            if rows:
                parts.append(
                    Markup("{}{} with {} (ρ = {}{}{} cells)").format(
                        f"{name}: " if name else "",
                        words,
                        signal_name(rows[0]["signal"], rows[0]["form"]),
                        number_text(rows[0]["rho"], 2),
                        f" {interval}, " if (interval := _bracket(rows[0], 2)) else ", ",
                        f"{rows[0]['num_cells']:.0f}",
                    )
                )
    if not parts:
        return None
    return Markup(
        "Retention goes most closely, {}{}; that is association, with the "
        "learning rate among its causes."
    ).format(Markup("; ").join(parts[:_NAMED]), _more(len(parts)))


def _frontier(table: pd.DataFrame) -> Markup | None:
    accuracy = "test_accuracy_pct" if "test_accuracy_pct" in table else "val_accuracy_pct"
    parts = []
    for name, mine in apart(table, ["dataset"]):
        best = mine[mine["is_on_frontier"]]
        methods = join_words(dict.fromkeys(best["method"]))
        parts.append(Markup("on {} {} of {} ({})").format(name, len(best), len(mine), methods))
    if not parts:
        return None
    return Markup(
        "Cells that no other beats in both {} and retention (the frontier): {}{}."
    ).format(LABELS[accuracy], Markup("; ").join(parts[:_NAMED]), _more(len(parts)))


_WRITERS: tuple[tuple[str, Callable[[pd.DataFrame], Markup | None]], ...] = (
    ("method_contrast", _contrast_at_rate),
    ("method_contrast", _contrast_at_accuracy),
    ("dose_response", _dose),
    ("predictors", _predictors),
    ("frontier", _frontier),
)


def _interval(row: Mapping[str, Any], decimals: int) -> str:
    text = _bracket(row, decimals)
    return f"95 % interval {text}, " if text else ""


def _bracket(row: Mapping[str, Any], decimals: int) -> str:
    low, high = row.get("low", math.nan), row.get("high", math.nan)
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number_text(low, decimals)}, {number_text(high, decimals)}]"


def _p_text(p_value: float) -> str:
    if not math.isfinite(p_value):
        return "too few for a test"
    return f"Holm p = {general_text(p_value)}"


def _more(count: int) -> str:
    return f" ({count - _NAMED} more in the tables)" if count > _NAMED else ""


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
