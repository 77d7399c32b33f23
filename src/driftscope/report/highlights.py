"""What came out in five sentences: the answers of `analysis`, short, with n and uncertainty."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from driftscope.analysis import Answer
from driftscope.analysis.answer import ALPHA, join_words
from driftscope.analysis.answer_charts import apart, pooled, signal_name
from driftscope.analysis.contrast import LEVELS
from driftscope.analysis.grouping import SETTING
from driftscope.analysis.tables import LABELS, accuracy_column
from driftscope.analysis.words import general_text, interval_text
from driftscope.metrics import number_text
from driftscope.report.findings import true_minus
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
    several = _what_varies(answered.values())
    found = [
        write(answered[question], several) for question, write in _WRITERS if question in answered
    ]
    written = {question for question, _ in _WRITERS}
    rest = [
        _highlight(Markup("{}").format(true_minus(answer.sentence)), answer)
        for question, answer in answered.items()
        if question not in written and not several  # of several settings it is no one sentence
    ]
    return ([one for one in found if one is not None] + rest)[:NUM_SENTENCES]


def _what_varies(answers: Iterable[Answer]) -> list[str]:
    """What of a setting has several values over all answers, and so must be named."""
    tables = [answer.table for answer in answers]
    values = {key: {name for t in tables if key in t for name in t[key]} for key in SETTING}
    return [key for key, names in values.items() if len(names) > 1]


def _highlight(
    sentence: Markup, answer: Answer, count: int | None = None, unit: str | None = None
) -> Highlight:
    """The sentence and how much it rests on: what the answer says, unless it has its own count."""
    more = "; what was left out is listed under Statistics" if answer.excluded else ""
    number = answer.num_units if count is None else count
    return Highlight(unbreakable(sentence), f"Rests on {number} {unit or answer.unit}{more}.")


def _contrast_at_rate(answer: Answer, several: list[str]) -> Highlight | None:
    rows = _retention_contrasts(answer.table, "learning_rate", several)
    if not rows:
        return None
    return _highlight(_contrast(rows, "At the same learning rate"), answer, _num_pairs(rows))


def _contrast_at_accuracy(answer: Answer, several: list[str]) -> Highlight | None:
    rows = _retention_contrasts(answer.table, "accuracy", several)
    if not rows:
        return Highlight(
            Markup(
                "No two methods could be compared at the same target accuracy, so the difference "
                "at equal rate says nothing about equal benefit."
            ),
            "",
        )
    start = (
        f"At the same target accuracy (the mean over {len(LEVELS)} levels that both reach, read "
        "between the rates)"
    )
    return _highlight(_contrast(rows, start), answer, _num_pairs(rows), "pairs of seeds")


def _retention_contrasts(
    table: pd.DataFrame, matching: str, several: Sequence[str]
) -> list[dict[str, Any]]:
    """The known contrasts of retention, the largest first, each with `place`: where it was."""
    is_it = (table["matching"] == matching) & (table["metric"] == "retention_pct")
    known = table[is_it & table["difference"].notna()]
    rows = _rows(known.sort_values("difference", key=abs, ascending=False, kind="stable"))
    keys = ("dataset", *(key for key in several if key in table))
    return [{**row, "place": ", ".join(str(row[key]) for key in keys)} for row in rows]


def _num_pairs(rows: Sequence[Mapping[str, Any]]) -> int:
    return sum(int(row["num_pairs"]) for row in rows)


def _contrast(rows: Sequence[Mapping[str, Any]], start: str) -> Markup:
    parts = [
        Markup("{} keeps <strong>{}</strong> points {} than {} on {} ({})").format(
            row["method"],
            number_text(abs(row["difference"]), 0),
            "more" if row["difference"] >= 0 else "less",
            row["baseline"],
            row["place"],
            _evidence(row),
        )
        for row in rows[:_NAMED]
    ]
    return Markup("{}, {}{}.").format(start, Markup("; ").join(parts), _more(len(rows)))


def _evidence(row: Mapping[str, Any]) -> str:
    """The interval and the p; over the rates where pairs of one rate share it, and then of pairs.

    Pairs taken as independent make the interval too narrow and the p too small.
    """
    pairs = f"{row['num_pairs']:.0f} pairs"
    holm = f"Holm p = {general_text(row['p_holm'])}" if math.isfinite(row["p_holm"]) else ""
    if math.isfinite(row["p_over_rates"]):
        interval = interval_text(row["low_over_rates"], row["high_over_rates"], 0)
        return (
            f"95 % interval over its {row['num_rates']:.0f} rates {interval}, "
            f"p = {general_text(row['p_over_rates'])}"
            + (f"; the {pairs} taken as independent, {holm}" if holm else "")
        )
    interval = interval_text(row["low"], row["high"], 0)
    told = (f"95 % interval {interval}" if interval else "", pairs, holm or "too few for a test")
    return ", ".join(text for text in told if text)


def _dose(answer: Answer, _: list[str]) -> Highlight | None:
    parts = [
        Markup("{}{}").format(f"({name}) " if name else "", words)
        for name, mine in apart(answer.table, [])
        for words in [_dose_words(mine)]
        if words
    ]
    if not parts:
        return None
    sentence = Markup("As the learning rate rises {}{}.").format(
        Markup("; ").join(parts[:_NAMED]), _more(len(parts))
    )
    outcomes = answer.table[answer.table["outcome"] == "retention_pct"]
    return _highlight(sentence, answer, int(outcomes["num_runs"].sum()), "runs")


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


def _predictors(answer: Answer, _: list[str]) -> Highlight | None:
    gaps = answer.details.get("gaps", pd.DataFrame())
    parts = []
    for name, mine in apart(answer.table, []):
        overall = mine[(mine["scope"] == "overall") & mine["rho"].notna()]
        for probe, words in (("final", "at the end"), ("first", "already after the first epoch")):
            rows = overall[overall["probe"] == probe]
            if len(rows):
                parts.append(
                    Markup("{}{} {}").format(
                        f"({name}) " if name else "", words, _closest(rows, mine, gaps)
                    )
                )
    if not parts:
        return None
    sentence = Markup(
        "Retention goes most closely, {}{}; that is association, with the "
        "learning rate among its causes."
    ).format(Markup("; ").join(parts[:_NAMED]), _more(len(parts)))
    return _highlight(sentence, answer)


def _closest(rows: pd.DataFrame, of_setting: pd.DataFrame, gaps: pd.DataFrame) -> str:
    """The signal of the largest |ρ|, out of how many, and which cannot be told apart from it."""
    best = max(_rows(rows), key=lambda row: row["abs_rho"])
    numbers = (
        number_text(best["rho"], 2),
        interval_text(best["low"], best["high"], 2),
        f"{best['num_cells']:.0f} cells{pooled(of_setting)}",
    )
    count = rows["signal"].nunique()
    out_of = "the only signal recorded, " if count == 1 else ""
    ties = _not_apart(best, gaps)
    return (
        f"with {out_of}{signal_name(best['signal'], best['form'])} "
        f"(ρ = {', '.join(number for number in numbers if number)}"
        + (f"; not to be told apart from {join_words(ties)}" if ties else "")
        + ")"
    )


def _not_apart(best: Mapping[str, Any], gaps: pd.DataFrame) -> list[str]:
    """Signals whose |ρ| differs from the best one's by an interval that holds 0."""
    if gaps.empty:
        return []
    same = [key for key in (*SETTING, "scope", "probe") if key in gaps and key in best]
    mine = gaps[(gaps[same] == [best[key] for key in same]).all(axis=1)]
    unsure = mine[(mine["low"] <= 0) & (mine["high"] >= 0) & (mine["signal"] != mine["reference"])]
    if best["signal"] in set(unsure["reference"]):
        return [signal_name(row["signal"], row["form"]) for row in _rows(unsure)]
    own = unsure[(unsure["signal"] == best["signal"]) & (unsure["form"] == best["form"])]
    return [signal_name(row["reference"], "signed") for row in _rows(own)]


def _frontier(answer: Answer, _: list[str]) -> Highlight | None:
    parts = []
    for name, mine in apart(answer.table, ["dataset"]):
        best = mine[mine["is_on_frontier"]]
        methods = join_words(dict.fromkeys(best["method"]))
        single = int((mine["num_runs"] < 2).sum())
        unsure = f"; {single} of them hold one run, so their place is uncertain" if single else ""
        parts.append(
            Markup("on {} {} of {} in {} ({}{})").format(
                name, len(best), len(mine), LABELS[accuracy_column(mine)], methods, unsure
            )
        )
    if not parts:
        return None
    sentence = Markup(
        "Cells whose mean over seeds no other beats in both accuracy and retention (the frontier): "
        "{}{}."
    ).format(Markup("; ").join(parts[:_NAMED]), _more(len(parts)))
    return _highlight(sentence, answer)


_WRITERS: tuple[tuple[str, Callable[[Answer, list[str]], Highlight | None]], ...] = (
    ("method_contrast", _contrast_at_rate),
    ("method_contrast", _contrast_at_accuracy),
    ("dose_response", _dose),
    ("predictors", _predictors),
    ("frontier", _frontier),
)


def _more(count: int) -> str:
    return f" ({count - _NAMED} more in the tables)" if count > _NAMED else ""


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
