"""Regularizers: per-layer paired tests against the unregularised run."""

from __future__ import annotations

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
from driftscope.analysis.natural_order import natural_groups
from driftscope.analysis.tables import Exclusion, StudyTables
from driftscope.analysis.twins import is_treated, twins
from driftscope.analysis.words import few_words, general_text, of_all, rate_text
from driftscope.stats.groups import paired_t
from driftscope.stats.multiplicity import Family

QUESTION = "regularizers"


def regularizers(tables: StudyTables, *, alpha: float = ALPHA) -> Answer:
    """Each regularizer against no regularizer: the paired t test over layers, with Holm.

    Both sides share dataset, method, rate, all options and seed; a method with other options is
    another method. A layer's value is its mean entropy (nats; percent drift where entropy was not
    recorded) over the seeds that both have. Holm over dataset × method × rate × regularizer. The
    layers of one network are not independent, so these p-values describe a profile; with three or
    more seeds ``p_over_seeds`` (paired t of the runs' mean entropy drift) is the honest test beside
    them.

    Returns:
        One row per dataset, method, rate and regularizer; units are layers.
    """
    return per_setting(QUESTION, tables, lambda part: _in_setting(part, alpha))


def _in_setting(tables: StudyTables, alpha: float) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    if not is_treated(runs).any():
        return cannot_answer(QUESTION, "no run names a regularizer", excluded)
    column = "entropy_nats" if "entropy_nats" in tables.layers else "delta_entropy_pct"
    if tables.layers.empty or column not in tables.layers:
        return cannot_answer(QUESTION, "there are no per-layer entropies", excluded)
    comparisons = _comparisons(runs, excluded)
    if not comparisons:
        return cannot_answer(QUESTION, "no regularised run has an unregularised twin", excluded)
    family = Family("regularizers: dataset × method × rate × regularizer", tuple(comparisons))
    layers = tables.layers.pivot_table(index="run_id", columns="layer", values=column)
    table = pd.DataFrame([_row(pairs, layers, column) for pairs in comparisons.values()])
    table, declared = with_holm(table, family, alpha)
    return Answer(
        question=QUESTION,
        sentence=_sentence(table, alpha),
        remarks=(
            "Layers of one network are not independent: this describes a profile and does not by "
            "itself show that a regularizer works.",
        ),
        table=table,
        unit="layers",
        num_units=int(table["num_layers"].max()),
        excluded=tuple(excluded),
        family=(declared,),
        is_answered=bool(table["p_value"].notna().any()),
    )


def _comparisons(runs: pd.DataFrame, excluded: list[Exclusion]) -> dict[str, pd.DataFrame]:
    pairs = twins(runs, ["run_id", "delta_entropy_pct"], excluded, "regularised runs")
    groups = natural_groups(pairs, ["dataset", "method", "learning_rate", "regularizer"])
    return {
        f"{dataset} · {method} · {rate:g} · {name}": group
        for (dataset, method, rate, name), group in groups
    }


def _row(pairs: pd.DataFrame, layers: pd.DataFrame, column: str) -> dict[str, Any]:
    # A run without layers is a row of NaN, and its pair drops out.
    treated = layers.reindex(pairs["run_id"]).to_numpy(dtype=np.float64)
    baseline = layers.reindex(pairs["run_id_baseline"]).to_numpy(dtype=np.float64)
    both = np.isfinite(treated).any(axis=1) & np.isfinite(baseline).any(axis=1)
    sides = [side[both].mean(axis=0) if both.any() else np.zeros(0) for side in (treated, baseline)]
    test = paired_t(*sides)
    over_seeds = paired_t(pairs["delta_entropy_pct"], pairs["delta_entropy_pct_baseline"])
    first = pairs.iloc[0]
    return {
        "dataset": first["dataset"],
        "method": first["method"],
        "learning_rate": first["learning_rate"],
        "regularizer": first["regularizer"],
        "num_seeds": int(pairs["seed"].nunique()),
        "num_layers": test.num_a,
        "value": column,
        "mean_difference": test.difference,
        "low": test.low,
        "high": test.high,
        "t": test.statistic,
        "p_value": test.p_value,
        "t_over_seeds": over_seeds.statistic if len(pairs) >= 3 else np.nan,
        "p_over_seeds": over_seeds.p_value if len(pairs) >= 3 else np.nan,
    }


def _sentence(table: pd.DataFrame, alpha: float) -> str:
    shown = table[table["p_holm"] <= alpha]
    found = (
        f"{of_all(len(shown), len(table), 'comparison', 'change')} the layers' entropy with Holm "
        f"p ≤ {alpha:g}"
    )
    if not shown.empty:
        listed = [
            f"{row['regularizer']} on {row['dataset']} for {row['method']} at "
            f"{rate_text(row['learning_rate'])} ({general_text(row['mean_difference'])}, "
            f"Holm p = {general_text(row['p_holm'])})"
            for row in shown.to_dict("records")
        ]
        found += f": {few_words(listed)}"
    return found + "."
