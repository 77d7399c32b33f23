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
    per_setting,
    with_holm,
)
from driftscope.analysis.grouping import usable_runs
from driftscope.analysis.tables import StudyTables, present_signals
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
        One row per dataset, method and outcome; units are cells.
    """
    return per_setting(QUESTION, tables, lambda part: _in_setting(part, alpha))


def _in_setting(tables: StudyTables, alpha: float) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    outcomes = ["retention_pct", *present_signals(runs)]
    if runs["retention_pct"].isna().all():
        outcomes.remove("retention_pct")
    groups = {
        (str(dataset), str(series)): group
        for (dataset, series), group in runs.groupby(["dataset", "series"], sort=True)
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
        sentence=_sentence(table, alpha),
        table=table,
        unit="cells",
        num_units=sum(group["cell"].nunique() for group in groups.values()),
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
    for outcome, test, linear in zip(outcomes, spearman, pearson, strict=True):
        yield {"dataset": dataset, "method": series, **_row(outcome, group, test, linear, alpha)}


def _row(
    outcome: str, group: pd.DataFrame, test: CorrelationTest, linear: CorrelationTest, alpha: float
) -> dict[str, Any]:
    means = group.groupby("log10_learning_rate")[outcome].mean().dropna()
    slope = nan
    if len(means) >= 2:
        slope = float(np.polyfit(means.index.to_numpy(), means.to_numpy(), 1)[0])
    reachable = test.can_reach(alpha)
    return {
        "outcome": outcome,
        "num_rates": int(means.size),
        "num_seeds": int(group["seed"].nunique()),
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
    return "" if reachable else f"no p-value: the smallest possible is {test.p_floor:.3g}"


def _sentence(table: pd.DataFrame, alpha: float) -> str:
    parts = []
    for outcome, label in (("retention_pct", "Retention"), ("delta_entropy_pct", "Entropy drift")):
        rows = table[(table["outcome"] == outcome) & table["rho"].notna()]
        if rows.empty:
            continue
        falls, rises = rows["rho"] < 0, rows["rho"] > 0
        shown = rows["p_holm"] <= alpha
        parts.append(
            f"{label} falls with the learning rate in {int(falls.sum())} of {len(rows)} dataset × "
            f"method groups ({int((falls & shown).sum())} with Holm p ≤ {alpha:g}) and rises in "
            f"{int(rises.sum())} ({int((rises & shown).sum())}); ρ from {rows['rho'].min():.2f} "
            f"to {rows['rho'].max():.2f}."
        )
        if outcome == "delta_entropy_pct" and falls.any() and rises.any():
            parts.append("The direction of entropy drift is therefore no measure of damage.")
    unreachable = int(table["note"].str.startswith("no p-value").sum())
    if unreachable:
        parts.append(
            f"{unreachable} of {len(table)} tests give no p-value because too few rates and seeds "
            f"could never reach {alpha:g}."
        )
    return " ".join(parts) or "No outcome varies with the learning rate in these data."
