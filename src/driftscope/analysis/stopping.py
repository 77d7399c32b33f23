"""Stopping: had training stopped when a signal crossed a threshold, what would have been kept?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.answer import (
    ALPHA,
    Answer,
    cannot_answer,
    lead_with,
    over_cells,
    per_setting,
    with_holm,
)
from driftscope.analysis.grouping import seeded_runs, usable_runs
from driftscope.analysis.tables import StudyTables, label
from driftscope.analysis.trajectories import (
    Mask,
    Places,
    Trajectories,
    first_place,
    trajectories,
)
from driftscope.analysis.words import counted, few_words, of_all, sentences
from driftscope.metric import number_text
from driftscope.metrics import KEPT_PCT, METRICS
from driftscope.stats.groups import sign_flip
from driftscope.stats.multiplicity import Family

QUESTION = "stopping"
BEST, LAST, ORACLE = "best validation accuracy", "last", "oracle"
"""The rules that no signal makes."""

BROKEN_SHARE = 0.1
"""A threshold may break the budget in this share of the runs that it is chosen on."""

MAX_THRESHOLDS = 64
"""So many thresholds are tried at most: quantiles of what was seen."""

RULES = (ORACLE, BEST, LAST)
_ACCURACY, _RETENTION = "val_accuracy_pct", "retention_pct"


def stopping(tables: StudyTables, *, budget_pct: float = KEPT_PCT, alpha: float = ALPHA) -> Answer:
    """Each signal as a rule to stop by, replayed on recorded trajectories.

    A run stops at the first probe at which the signal is further from "nothing changed" than a
    threshold; where it never is, the last probe is kept. The threshold is chosen on the runs of the
    *other* datasets. Of those that break the budget in at most a tenth of the runs that keep it at
    some probe, it is the one with the highest mean accuracy, and of equals the smallest. If every
    threshold breaks it more often, it is the one that does so least. Rivals: the epoch of best
    validation accuracy, the last probe, and the oracle, which knows retention: the probe of the
    highest accuracy that keeps the budget, else the one of the highest retention. No rule keeps
    the budget in more runs; one that breaks it more often can be more accurate. Accuracy is on
    validation images, since the test is read once.

    The learning rate's schedule is that of the whole run: a run that had been planned as short
    would have ended elsewhere.

    Returns:
        One row a dataset and rule; units are cells. Details: "tests", each signal's accuracy and
        retention less those of best validation accuracy, by exact sign flips of the cells of all
        datasets, with Holm over signal × (accuracy, retention).
    """
    return per_setting(QUESTION, tables, lambda part: _in_setting(part, budget_pct, alpha))


def _in_setting(tables: StudyTables, budget: float, alpha: float) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    runs = seeded_runs(runs, "means without runs have no trajectories", excluded)
    seen = trajectories(tables.history, runs, [_ACCURACY, _RETENTION], excluded)
    if seen is None or not seen.signals:
        return cannot_answer(
            QUESTION, "it needs accuracy, retention and signals at several steps of a run", excluded
        )
    datasets = sorted(seen.runs["dataset"].astype(str).unique())
    if len(datasets) < 2:
        return cannot_answer(
            QUESTION, "a threshold is chosen on other datasets, and there is only one", excluded
        )
    plain = _plain_rules(seen, budget)
    can_keep = seen.at(_RETENTION, plain[ORACLE].places) >= budget
    rows = []
    picked = {name: np.full(len(seen.runs), -1) for name in seen.signals}
    for dataset in datasets:
        here = (seen.runs["dataset"] == dataset).to_numpy()
        signals = [name for name in seen.signals if _is_read(seen, name, here, ~here)]
        rules = [
            *plain.values(),
            *(_rule_of(seen, name, ~here, can_keep, budget) for name in signals),
        ]
        oracle = plain[ORACLE].places
        rows += [{"dataset": dataset, **_row(seen, one, oracle, here, budget)} for one in rules]
        for one in rules[len(plain) :]:
            picked[one.name][here] = one.places[here]
    tests = [
        test for name in picked for test in _tests(seen, name, picked[name], plain[BEST].places)
    ]
    family = Family(
        "stopping: signal × (accuracy, retention)",
        tuple(f"{row['rule']} · {row['metric']}" for row in tests),
    )
    tested, declared = with_holm(pd.DataFrame(tests), family, alpha)
    table = pd.DataFrame(rows)
    return Answer(
        question=QUESTION,
        sentence=_sentence(table, budget),
        remarks=tuple(_remarks(seen, table, tested, alpha)),
        table=lead_with(table, "dataset", "rule", _ACCURACY, _RETENTION, "num_kept", "num_runs"),
        unit="cells",
        num_units=int(seen.runs["cell"].nunique()),
        excluded=tuple(excluded),
        family=(declared,),
        details={"tests": tested},
    )


# ---------------------------------------------------------------- rules


@dataclass(frozen=True)
class _Rule:
    """Where each run stops; a signal's rule has a threshold, and runs that crossed it."""

    name: str
    places: Places
    threshold: float = nan
    has_crossed: Mask | None = None

    @property
    def is_signal(self) -> bool:
        return self.has_crossed is not None


def _plain_rules(seen: Trajectories, budget: float) -> dict[str, _Rule]:
    """The rules that need no threshold."""
    accuracy, retention = seen.values[_ACCURACY], seen.values[_RETENTION]
    keeps = retention >= budget
    most_kept = np.where(seen.is_probe, retention, -inf).argmax(axis=1)
    best_that_keeps = np.where(keeps, accuracy, -inf).argmax(axis=1)
    places = {
        ORACLE: np.where(keeps.any(axis=1), best_that_keeps, most_kept),
        BEST: np.where(seen.ends_of_epochs, accuracy, -inf).argmax(axis=1),
        LAST: seen.last,
    }
    return {name: _Rule(name, where) for name, where in places.items()}


def _is_read(seen: Trajectories, signal: str, *parts: Mask) -> bool:
    return all(np.isfinite(seen.values[signal][runs]).any() for runs in parts)


def _rule_of(seen: Trajectories, signal: str, others: Mask, can_keep: Mask, budget: float) -> _Rule:
    """The rule that a signal makes by the threshold that is best on other runs."""
    threshold = _chosen(seen, signal, others, can_keep, budget)
    crossed = first_place(seen.moved(signal) > threshold)
    return _Rule(signal, np.where(crossed < 0, seen.last, crossed), threshold, crossed >= 0)


def _chosen(seen: Trajectories, signal: str, runs: Mask, can_keep: Mask, budget: float) -> float:
    moved = seen.moved(signal)
    values = moved[runs]
    tried = np.unique(np.append(values[np.isfinite(values)], 0.0))
    if tried.size > MAX_THRESHOLDS:
        shares = np.linspace(0, 1, MAX_THRESHOLDS)
        tried = np.unique(np.quantile(tried, shares, method="nearest"))

    def worth(threshold: float) -> tuple[float, float, float]:
        crossed = first_place(moved > threshold)
        places = np.where(crossed < 0, seen.last, crossed)
        breaks = seen.at(_RETENTION, places) < budget
        broken = float(breaks[runs & can_keep].mean()) if (runs & can_keep).any() else 0.0
        accuracy = float(seen.at(_ACCURACY, places)[runs].mean())
        return -max(broken, BROKEN_SHARE), accuracy, -threshold

    return float(max(tried, key=worth))


# ---------------------------------------------------------------- what they keep


def _row(
    seen: Trajectories, rule: _Rule, oracle: Places, here: Mask, budget: float
) -> dict[str, Any]:
    """What one rule keeps of the runs here."""
    accuracy, retention = (seen.at(name, rule.places)[here] for name in (_ACCURACY, _RETENTION))
    least = seen.at(_ACCURACY, oracle)[here]
    return {
        "rule": rule.name,
        _ACCURACY: float(accuracy.mean()),
        _RETENTION: float(retention.mean()),
        "num_kept": int((retention >= budget).sum()),
        "num_runs": int(here.sum()),
        "short_points": float((least - accuracy).mean()),
        "threshold": rule.threshold,
        "num_triggered": nan if rule.has_crossed is None else int(rule.has_crossed[here].sum()),
        "median_step": float(np.median(seen.at("step", rule.places)[here])),
    }


def _tests(
    seen: Trajectories, signal: str, places: Places, best: Places
) -> Iterator[dict[str, Any]]:
    """A signal's rule against best validation accuracy, over the cells of all datasets."""
    cells = seen.runs["cell"]
    for metric in (_ACCURACY, _RETENTION):
        ours, theirs = (
            pd.Series(seen.at(metric, chosen)).groupby(cells).mean() for chosen in (places, best)
        )
        test = sign_flip(ours, theirs)
        yield {
            "rule": signal,
            "metric": metric,
            "difference": test.difference,
            **over_cells(test),
        }


# ---------------------------------------------------------------- words


def _sentence(table: pd.DataFrame, budget: float) -> str:
    """Of every dataset what the best signal's threshold keeps, beside the plain rules."""
    parts = [
        "let training stop where a signal crosses a threshold, which is chosen on other datasets "
        f"to keep {budget:g} %",
        "of the signals those are named that keep the budget most often there, then with the "
        "highest accuracy",
    ]
    for dataset, rows in table.groupby("dataset", sort=True):
        by_rule = {row["rule"]: row for row in rows.to_dict("records")}
        where = f"on {dataset}, "
        signals = [row for name, row in by_rule.items() if name not in RULES]
        if signals:
            best = max(signals, key=_worth)
            alike = [label(str(row["rule"])) for row in signals if _worth(row) == _worth(best)]
            parts.append(f"{where}by {few_words(alike)} {_kept(best)}")
        else:
            parts.append(f"{where}no signal was read")
        parts += [f"by {words} {_kept(by_rule[rule])}" for rule, words in _SPOKEN.items()]
    return sentences(parts)


_SPOKEN = {
    BEST: "best validation accuracy",
    LAST: "the last epoch",
    ORACLE: "the oracle, which knows retention,",
}


def _worth(row: dict[Any, Any]) -> tuple[float, float]:
    """By what a threshold is chosen, too, to the decimals that are written."""
    broken = 1 - row["num_kept"] / row["num_runs"]
    return -max(broken, BROKEN_SHARE), round(row[_ACCURACY], METRICS[_ACCURACY].decimals)


def _kept(row: dict[Any, Any]) -> str:
    accuracy, retention = (METRICS[name].with_unit(row[name]) for name in (_ACCURACY, _RETENTION))
    return (
        f"the budget is kept in {row['num_kept']} of {counted(row['num_runs'], 'run')} "
        f"(accuracy {accuracy}, retention {retention})"
    )


def _remarks(
    seen: Trajectories, table: pd.DataFrame, tested: pd.DataFrame, alpha: float
) -> Iterator[str]:
    can_keep = table[table["rule"] == ORACLE]
    for row in can_keep[can_keep["num_kept"] < can_keep["num_runs"]].to_dict("records"):
        never = row["num_runs"] - row["num_kept"]
        yield (
            f"On {row['dataset']} the budget is kept at no probe of {never} of "
            f"{counted(row['num_runs'], 'run')}."
        )
    signals = table[~table["rule"].isin(RULES)]
    for dataset, rows in signals.groupby("dataset", sort=True):
        silent = [label(name) for name in rows.loc[rows["num_triggered"] == 0, "rule"]]
        if silent:
            yield f"On {dataset} the threshold of {few_words(silent)} is never crossed."
    for metric, words in ((_RETENTION, "retention"), (_ACCURACY, "accuracy")):
        rows = tested[(tested["metric"] == metric) & tested["p_holm"].notna()]
        apart = rows[rows["p_holm"] <= alpha]
        ends = [
            number_text(one, 1, signed=True)
            for one in (rows["difference"].min(), rows["difference"].max())
        ]
        yield (
            f"Against stopping by best validation accuracy the signals' {words} differs by "
            f"{ends[0]} to {ends[1]} points. Of these "
            f"{of_all(len(apart), len(rows), 'test')} Holm p ≤ {alpha:g}."
        )
    if bool((seen.ends_of_epochs == seen.is_probe).all()):
        yield "Probes are at the ends of epochs alone, so a run stops late by up to an epoch."
