"""Dose response: how signals and retention follow the learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.answer import (
    ALPHA,
    Answer,
    cannot_answer,
    lead_with,
    per_setting,
    with_holm,
)
from driftscope.analysis.grouping import usable_runs
from driftscope.analysis.natural_order import natural_groups
from driftscope.analysis.tables import StudyTables, present_signals
from driftscope.analysis.words import general_text, of_all, rho_text, sentences
from driftscope.stats.correlation import CorrelationTest, permutation_correlations
from driftscope.stats.multiplicity import Family

QUESTION = "dose_response"
MIN_RATES = 3


def dose_response(tables: StudyTables, *, alpha: float = ALPHA) -> Answer:
    """How each signal and retention follow log learning rate, per dataset and method.

    Spearman (``rho``) over the runs with permutation within seeds (exact where their product
    allows): seeds are blocks, rates the units that are exchanged. Imported cell means are permuted
    freely. Where even a perfect order could not reach alpha (four rates of one seed: p ≥ 2/24) no
    p-value is given. Holm over all groups × outcomes of the setting. Pearson's r stands beside it,
    as the publication has it, with its permutation p; it is not in the family.

    Returns:
        One row per dataset, method and outcome; units are runs.
    """
    return per_setting(QUESTION, tables, lambda part: _in_setting(part, alpha))


def _in_setting(tables: StudyTables, alpha: float) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    outcomes = ["retention_pct", *present_signals(runs)]
    if runs["retention_pct"].isna().all():
        outcomes.remove("retention_pct")
    groups = {
        (str(dataset), str(series)): group
        for (dataset, series), group in natural_groups(runs, ["dataset", "series"])
        if group["learning_rate"].nunique() >= MIN_RATES
    }
    if not groups or not outcomes:
        return cannot_answer(
            QUESTION, f"no dataset × method has {MIN_RATES} learning rates", excluded
        )
    family = Family(
        "dose response: dataset × method × outcome",
        tuple(f"{d} · {series} · {outcome}" for d, series in groups for outcome in outcomes),
    )
    rows = [
        row
        for (dataset, series), group in groups.items()
        for row in _rows(dataset, series, outcomes, group, alpha)
    ]
    table = pd.DataFrame(rows)
    table, declared = with_holm(table, family, alpha)
    return Answer(
        question=QUESTION,
        sentence=_sentence(table),
        remarks=_remarks(table, alpha),
        table=lead_with(table, "dataset", "method", "outcome", "rho", "p_holm", "num_runs"),
        unit="runs",
        num_units=sum(map(len, groups.values())),
        excluded=tuple(excluded),
        family=(declared,),
        is_answered=bool(table["rho"].notna().any()),
    )


def _rows(
    dataset: str, series: str, outcomes: list[str], group: pd.DataFrame, alpha: float
) -> Iterator[dict[str, Any]]:
    seeds = group["seed"]
    spearman, pearson = (
        permutation_correlations(
            group["log10_learning_rate"].to_numpy(),
            [group[outcome].to_numpy() for outcome in outcomes],
            kind=kind,
            blocks=list(seeds) if seeds.notna().all() else None,
        )
        for kind in ("spearman", "pearson")
    )
    by_rate = group.groupby("log10_learning_rate")[outcomes].mean()
    num_seeds = int(seeds.nunique())
    for outcome, test, linear in zip(outcomes, spearman, pearson, strict=True):
        means = by_rate[outcome].dropna()
        row = _row(outcome, means, num_seeds, test, linear, alpha)
        yield {"dataset": dataset, "method": series, **row}


def _row(
    outcome: str,
    means: pd.Series[float],
    num_seeds: int,
    test: CorrelationTest,
    linear: CorrelationTest,
    alpha: float,
) -> dict[str, Any]:
    """A row of one group and outcome, of the outcome's mean at each rate and its tests."""
    slope = nan
    if len(means) >= 2:
        slope = float(np.polyfit(means.index.to_numpy(), means.to_numpy(), 1)[0])
    reachable = test.can_reach(alpha)
    return {
        "outcome": outcome,
        "num_rates": int(means.size),
        "num_seeds": num_seeds,
        "num_runs": test.num_units,
        "rho": test.statistic,
        "p_value": test.p_value if reachable else nan,
        **_procedure(test),
        "pearson_r": linear.statistic,
        "p_pearson": linear.p_value if linear.can_reach(alpha) else nan,
        "p_pearson_floor": linear.p_floor,
        "slope_per_decade": slope,
        "at_lowest_rate": float(means.iloc[0]) if len(means) else nan,
        "at_highest_rate": float(means.iloc[-1]) if len(means) else nan,
        "note": _note(test, reachable),
    }


def _procedure(test: CorrelationTest) -> dict[str, Any]:
    wanted = ("p_floor", "p_standard_error", "procedure", "num_arrangements")
    return {name: asdict(test)[name] for name in wanted}


def _note(test: CorrelationTest, reachable: bool) -> str:
    if test.procedure == "undefined":
        return "undefined: constant, or fewer than three values"
    return "" if reachable else f"no p-value: the smallest possible is {general_text(test.p_floor)}"


def _sentence(table: pd.DataFrame) -> str:
    retention, entropy = (
        table[(table["outcome"] == outcome) & table["rho"].notna()]
        for outcome in ("retention_pct", "delta_entropy_pct")
    )
    parts = [
        f"{name} falls in {int((rows['rho'] < 0).sum())} and rises in "
        f"{int((rows['rho'] > 0).sum())} of {len(rows)} dataset × method groups (ρ from "
        f"{rho_text(rows['rho'].min())} to {rho_text(rows['rho'].max())} over "
        f"{_range_of(rows['num_runs'])} runs each)"
        for name, rows in (("retention", retention), ("attention entropy", entropy))
        if len(rows)
    ]
    if not parts:
        return "No outcome varies with the learning rate in these data."
    first, *others = parts
    told = [f"as the learning rate rises, {first}", *others]
    if (entropy["rho"] < 0).any() and (entropy["rho"] > 0).any():
        told.append("the direction of the entropy drift is no measure of damage")
    return sentences(told)


def _range_of(counts: pd.Series[int]) -> str:
    low, high = int(counts.min()), int(counts.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _remarks(table: pd.DataFrame, alpha: float) -> tuple[str, ...]:
    remarks = []
    for outcome, words in (("retention_pct", "retention"), ("delta_entropy_pct", "entropy drift")):
        rows = table[(table["outcome"] == outcome) & table["p_holm"].notna()]
        if len(rows):
            shown = int((rows["p_holm"] <= alpha).sum())
            remarks.append(f"Of {words}, {of_all(shown, len(rows), 'test')} Holm p ≤ {alpha:g}.")
    unreachable = int(table["note"].str.startswith("no p-value").sum())
    if unreachable:
        remarks.append(
            f"{of_all(unreachable, len(table), 'test', 'give')} no p-value because too few rates "
            f"and seeds could never reach {alpha:g}."
        )
    return tuple(remarks)
