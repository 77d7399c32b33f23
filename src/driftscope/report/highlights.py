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
from driftscope.analysis.tables import LABELS, SETTING, accuracy_column
from driftscope.report.findings import apart, pooled, true_minus
from driftscope.report.findings_figures import signal_name
from driftscope.report.style import general_text, interval_text, number_text
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
    found = [write(answered[question]) for question, write in _WRITERS if question in answered]
    written = {question for question, _ in _WRITERS}
    rest = [
        _highlight(Markup("{}").format(true_minus(answer.sentence)), answer)
        for question, answer in answered.items()
        if question not in written
    ]
    return ([one for one in found if one is not None] + rest)[:NUM_SENTENCES]


def _highlight(
    sentence: Markup, answer: Answer, count: int | None = None, unit: str | None = None
) -> Highlight:
    """The sentence and how much it rests on: what the answer says, unless it has its own count."""
    more = "; what was left out is listed under Statistics" if answer.excluded else ""
    number = answer.num_units if count is None else count
    return Highlight(unbreakable(sentence), f"Rests on {number} {unit or answer.unit}{more}.")


def _contrast_at_rate(answer: Answer) -> Highlight | None:
    rows = _retention_contrasts(answer.table, "learning_rate")
    if not rows:
        return None
    return _highlight(_contrast(rows, "At the same learning rate"), answer, _num_pairs(rows))


def _contrast_at_accuracy(answer: Answer) -> Highlight | None:
    rows = _retention_contrasts(answer.table, "accuracy")
    if not rows:
        return Highlight(
            Markup(
                "No two methods could be compared at the same target accuracy, so the difference "
                "at equal rate says nothing about equal benefit."
            ),
            "",
        )
    sentence = _contrast(rows, "At the same target accuracy")
    return _highlight(sentence, answer, _num_pairs(rows), "pairs of seeds, each read off its rates")


def _retention_contrasts(table: pd.DataFrame, matching: str) -> list[dict[str, Any]]:
    """The known contrasts of retention, the largest first, each with `place`: where it was."""
    is_it = (table["matching"] == matching) & (table["metric"] == "retention_pct")
    known = table[is_it & table["difference"].notna()]
    several = [key for key in SETTING if key in table and table[key].nunique() > 1]
    rows = _rows(known.sort_values("difference", key=abs, ascending=False, kind="stable"))
    return [
        {**row, "place": ", ".join(str(row[key]) for key in ("dataset", *several))} for row in rows
    ]


def _num_pairs(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(int(row["num_pairs"]) for row in rows)


def _contrast(rows: Sequence[Mapping[str, Any]], start: str) -> Markup:
    parts = [
        Markup("{} keeps <strong>{}</strong> points {} than {} on {} ({}{} pairs, {})").format(
            row["method"],
            number_text(abs(row["difference"]), 0),
            "more" if row["difference"] >= 0 else "less",
            row["baseline"],
            row["place"],
            _interval(row, 0),
            f"{row['num_pairs']:.0f}",
            _p_text(row),
        )
        for row in rows[:_NAMED]
    ]
    return Markup("{}, {}{}.").format(start, Markup("; ").join(parts), _more(len(rows)))


def _dose(answer: Answer) -> Highlight | None:
    parts = [
        Markup("{}{}").format(f"({name}) " if name else "", words)
        for name, mine in apart(answer.table, [])
        for words in [_dose_words(mine)]
        if words
    ]
    if not parts:
        return None
    sentence = Markup("With the learning rate {}{}.").format(
        Markup("; ").join(parts[:_NAMED]), _more(len(parts))
    )
    return _highlight(sentence, answer)


def _dose_words(table: pd.DataFrame) -> Markup | None:
    """One setting's groups: how many fall, and how many of them surely."""
    retention, entropy = (
        table[(table["outcome"] == outcome) & table["rho"].notna()]
        for outcome in ("retention_pct", "delta_entropy_pct")
    )
    if retention.empty:
        return None
    words = Markup(
        "retention falls in {} of {} dataset × method groups (ρ from {} to {}; {})"
    ).format(
        int((retention["rho"] < 0).sum()),
        len(retention),
        number_text(retention["rho"].min(), 2),
        number_text(retention["rho"].max(), 2),
        _tested(retention),
    )
    if entropy.empty:
        return words
    falls, sure = entropy["rho"] < 0, entropy["p_holm"] <= ALPHA
    words += Markup(", attention entropy falls in {} and rises in {}").format(
        int(falls.sum()), int((~falls).sum())
    )
    if (falls & sure).any() and (~falls & sure).any():
        words += ", so its direction is no measure of damage"
    return words


def _tested(rows: pd.DataFrame) -> str:
    """How many tests found something, of those that could."""
    num_tested = int(rows["p_holm"].notna().sum())
    if not num_tested:
        return "too few rates and seeds for an exact test"
    return f"Holm p ≤ {ALPHA} in {int((rows['p_holm'] <= ALPHA).sum())} of {num_tested} tests"


def _predictors(answer: Answer) -> Highlight | None:
    parts = []
    for name, mine in apart(answer.table, []):
        overall = mine[(mine["scope"] == "overall") & mine["rho"].notna()]
        for probe, words in (("final", "at the end"), ("first", "already after the first epoch")):
            rows = _rows(overall[overall["probe"] == probe])
            if rows:
                best = max(rows, key=lambda row: row["abs_rho"])
                parts.append(
                    Markup("{}{} with {} (ρ = {})").format(
                        f"({name}) " if name else "",
                        words,
                        signal_name(best["signal"], best["form"]),
                        ", ".join(
                            text
                            for text in (
                                number_text(best["rho"], 2),
                                interval_text(best["low"], best["high"], 2),
                                f"{best['num_cells']:.0f} cells{pooled(mine)}",
                            )
                            if text
                        ),
                    )
                )
    if not parts:
        return None
    sentence = Markup(
        "Retention goes most closely, {}{}; that is association, with the "
        "learning rate among its causes."
    ).format(Markup("; ").join(parts[:_NAMED]), _more(len(parts)))
    return _highlight(sentence, answer)


def _frontier(answer: Answer) -> Highlight | None:
    parts = []
    for name, mine in apart(answer.table, ["dataset"]):
        best = mine[mine["is_on_frontier"]]
        methods = join_words(dict.fromkeys(best["method"]))
        single = int((mine["num_runs"] < 2).sum())
        unsure = f"; {single} of them hold one run, so their place is uncertain" if single else ""
        parts.append(
            Markup("on {} {} of {} ({}{})").format(name, len(best), len(mine), methods, unsure)
        )
    if not parts:
        return None
    sentence = Markup(
        "Cells whose mean over seeds no other beats in both {} and retention (the frontier): {}{}."
    ).format(
        LABELS[accuracy_column(answer.table)], Markup("; ").join(parts[:_NAMED]), _more(len(parts))
    )
    return _highlight(sentence, answer)


_WRITERS: tuple[tuple[str, Callable[[Answer], Highlight | None]], ...] = (
    ("method_contrast", _contrast_at_rate),
    ("method_contrast", _contrast_at_accuracy),
    ("dose_response", _dose),
    ("predictors", _predictors),
    ("frontier", _frontier),
)


def _interval(row: Mapping[str, Any], decimals: int) -> str:
    text = interval_text(row["low"], row["high"], decimals)
    return f"95 % interval {text}, " if text else ""


def _p_text(row: Mapping[str, Any]) -> str:
    """Holm's p of the pairs and, since pairs of one rate share it, the p over the rates' means."""
    if not math.isfinite(row["p_holm"]):
        return "too few for a test"
    text = f"Holm p = {general_text(row['p_holm'])}"
    if not math.isfinite(row["p_over_rates"]):
        return text
    return f"{text}, over its {row['num_rates']:.0f} rates p = {general_text(row['p_over_rates'])}"


def _more(count: int) -> str:
    return f" ({count - _NAMED} more in the tables)" if count > _NAMED else ""


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
