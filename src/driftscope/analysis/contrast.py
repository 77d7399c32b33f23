"""Method contrast: at the same learning rate, at the same accuracy, at the same weight drift."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.answer import (
    ALPHA,
    Answer,
    cannot_answer,
    join_words,
    per_setting,
    with_holm,
)
from driftscope.analysis.grouping import seeded_runs, usable_runs
from driftscope.analysis.tables import LABELS, Exclusion, StudyTables, accuracy_column
from driftscope.stats.effects import cohens_d_z
from driftscope.stats.finite import FloatArray
from driftscope.stats.groups import paired_t, sign_flip, wilcoxon_signed_rank
from driftscope.stats.multiplicity import Family

QUESTION = "method_contrast"
METRICS = (
    "retention_pct",
    "test_accuracy_pct",
    "delta_entropy_pct",
    "cka",
    "embedding_drift",
    "weight_drift",
)
"""The metrics contrasted, and so, with the datasets and methods, Holm's family: declared here."""

LEVELS = (0.25, 0.5, 0.75)
"""Where, within the range that both methods cover, matched contrasts are read."""


def method_contrast(
    tables: StudyTables,
    *,
    baseline: str = "full_ft",
    metrics: Sequence[str] = METRICS,
    alpha: float = ALPHA,
) -> Answer:
    """Each method minus the baseline, paired over what the two share.

    - matching "learning_rate": pairs of runs with identical dataset, rate and seed. Pairs of one
      rate share that rate, so ``p_over_rates`` (paired t over the rates' mean differences) is
      given beside the run-level tests.
    - matching "accuracy" and "weight_drift": along its rates each method and seed traces a curve;
      it is read, by linear interpolation, where it first reaches a given accuracy (or logarithm of
      weight drift), at three levels of the range that both methods cover, and averaged. One
      difference per seed. A curve ends at the rate of its highest accuracy: beyond it accuracy
      is lost again, and nobody would choose to be there.

    Paired t with its interval, d_z, Wilcoxon, and the exact sign flip with its floor; Holm over
    dataset × method × metric, for each matching.

    Returns:
        One row per matching, dataset, method and metric; units are pairs of runs.
    """
    return per_setting(
        QUESTION, tables, lambda part: _in_setting(part, baseline, tuple(metrics), alpha)
    )


def _in_setting(
    tables: StudyTables, baseline: str, metrics: tuple[str, ...], alpha: float
) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    runs = seeded_runs(runs, "means without runs cannot be paired", excluded)
    metrics = tuple(name for name in metrics if runs[name].notna().any())
    others = sorted(set(runs["method"]) - {baseline})
    if baseline not in set(runs["method"]) or not others:
        return cannot_answer(
            QUESTION, f"it needs runs of {baseline!r} and of another method", excluded
        )
    matched_column = {"accuracy": accuracy_column(runs), "weight_drift": "weight_drift"}
    parts: list[pd.DataFrame] = []
    families: list[dict[str, Any]] = []
    for matching in ("learning_rate", "accuracy", "weight_drift"):
        pairs = _pairs(runs, baseline, others, metrics, matching, excluded)
        if not pairs:
            continue
        # What is matched cannot differ.
        left = tuple(name for name in metrics if name != matched_column.get(matching))
        family = Family(
            f"method contrast at matched {matching}: dataset × method × metric",
            tuple(f"{d} · {method} · {metric}" for d, method in pairs for metric in left),
        )
        table = pd.DataFrame(
            [
                _row(matching, dataset, method, baseline, metric, frame, alpha)
                for (dataset, method), frame in pairs.items()
                for metric in left
            ]
        )
        table, declared = with_holm(table, family, alpha)
        parts.append(table)
        families.append(declared)
    if not parts:
        return cannot_answer(
            QUESTION, f"no run shares dataset, rate and seed with one of {baseline!r}", excluded
        )
    whole = pd.concat(parts, ignore_index=True)
    at_rate = whole[whole["matching"] == "learning_rate"]
    return Answer(
        question=QUESTION,
        sentence=_sentence(whole, baseline, alpha),
        table=whole,
        unit="pairs of runs",
        num_units=int(at_rate.groupby(["dataset", "method"])["num_pairs"].max().sum()),
        excluded=tuple(excluded),
        family=tuple(families),
    )


def _pairs(
    runs: pd.DataFrame,
    baseline: str,
    others: list[str],
    metrics: tuple[str, ...],
    matching: str,
    excluded: list[Exclusion],
) -> dict[tuple[str, str], pd.DataFrame]:
    """Per dataset and method: rows of pairs, columns ``METRIC_method`` and ``METRIC_baseline``."""
    pairs: dict[tuple[str, str], pd.DataFrame] = {}
    for dataset, group in runs.groupby("dataset", sort=True):
        base = group[group["method"] == baseline]
        for method in others:
            other = group[group["method"] == method]
            if base.empty or other.empty:
                continue
            if matching == "learning_rate":
                keys = ["variation", "learning_rate", "seed"]
                frame = other.merge(base, on=keys, suffixes=("_method", "_baseline"))
                lonely = len(other) - len(frame)
                if lonely:
                    why = f"no {baseline} run with identical dataset, rate and seed"
                    excluded.append(Exclusion(f"{dataset} {method} runs", lonely, why))
            else:
                frame = _matched(other, base, metrics, matching, str(dataset), excluded)
            if not frame.empty:
                pairs[str(dataset), method] = frame
    return pairs


def _matched(
    other: pd.DataFrame,
    base: pd.DataFrame,
    metrics: tuple[str, ...],
    matching: str,
    dataset: str,
    excluded: list[Exclusion],
) -> pd.DataFrame:
    column = accuracy_column(other) if matching == "accuracy" else "weight_drift"
    rows = []
    apart = 0
    keys = ["variation", "seed"]
    curves = dict(iter(base.groupby(keys)))
    for key, curve in other.groupby(keys):
        if key not in curves:
            continue
        values = _interpolated_pair(curve, curves[key], metrics, column)
        if values is None:
            apart += 1
            continue
        rows.append({"seed": key[1], "learning_rate": nan, **values})
    if apart:
        method = other["method"].iloc[0]
        why = f"the two methods' ranges of {LABELS.get(column, column)} do not overlap"
        excluded.append(Exclusion(f"{dataset} {method} seeds at matched {matching}", apart, why))
    return pd.DataFrame(rows)


def _interpolated_pair(
    method: pd.DataFrame, baseline: pd.DataFrame, metrics: tuple[str, ...], column: str
) -> dict[str, float] | None:
    sides = {}
    for name, curve in (("method", method), ("baseline", baseline)):
        ordered = curve.sort_values("learning_rate")
        along = ordered[column].to_numpy(dtype=np.float64)
        if column == "weight_drift":
            with np.errstate(divide="ignore"):
                along = np.log10(along)
        usable = np.isfinite(along)
        along, ordered = along[usable], ordered[usable]
        if along.size:
            top = int(np.argmax(along)) + 1
            along, ordered = along[:top], ordered[:top]
        if along.size < 2:
            return None
        sides[name] = (along, ordered)
    low = max(side[0].min() for side in sides.values())
    high = min(side[0].max() for side in sides.values())
    if not low < high:
        return None
    levels = low + np.array(LEVELS) * (high - low)
    values: dict[str, float] = {}
    for name, (along, ordered) in sides.items():
        for metric in metrics:
            outcome = ordered[metric].to_numpy(dtype=np.float64)
            read = [_first_crossing(along, outcome, level) for level in levels]
            values[f"{metric}_{name}"] = float(np.mean(read))
    return values


def _first_crossing(along: FloatArray, outcome: FloatArray, level: float) -> float:
    """The outcome where the curve, followed from its lowest rate, first passes the level."""
    for i in range(along.size - 1):
        start, stop = along[i], along[i + 1]
        if min(start, stop) <= level <= max(start, stop) and start != stop:
            share = (level - start) / (stop - start)
            return float(outcome[i] + share * (outcome[i + 1] - outcome[i]))
    return nan


def _row(
    matching: str,
    dataset: str,
    method: str,
    baseline: str,
    metric: str,
    pairs: pd.DataFrame,
    alpha: float,
) -> dict[str, Any]:
    a = pairs[f"{metric}_method"].to_numpy(dtype=np.float64)
    b = pairs[f"{metric}_baseline"].to_numpy(dtype=np.float64)
    test, effect = paired_t(a, b), cohens_d_z(a, b)
    flip, ranks = sign_flip(a, b), wilcoxon_signed_rank(a, b)
    sides = pd.DataFrame({"rate": pairs["learning_rate"].to_numpy(), "a": a, "b": b}).dropna()
    by_rate = sides.groupby("rate").mean()
    over_rates = paired_t(by_rate["a"], by_rate["b"])
    return {
        "matching": matching,
        "dataset": dataset,
        "method": method,
        "baseline": baseline,
        "metric": metric,
        "num_pairs": test.num_a,
        "num_rates": len(by_rate),
        "num_seeds": int(pairs["seed"].nunique()),
        "mean_method": _mean(a),
        "mean_baseline": _mean(b),
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "t": test.statistic,
        "p_value": test.p_value,
        "low_over_rates": over_rates.low,
        "high_over_rates": over_rates.high,
        "p_over_rates": over_rates.p_value,
        "d_z": effect.value,
        "d_z_low": effect.low,
        "d_z_high": effect.high,
        "p_wilcoxon": ranks.p_value if ranks.p_floor <= alpha else nan,
        "p_sign_flip": flip.p_value if flip.p_floor <= alpha else nan,
        "p_sign_flip_floor": flip.p_floor,
    }


def _mean(values: FloatArray) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else nan


def _sentence(table: pd.DataFrame, baseline: str, alpha: float) -> str:
    words = {
        "learning_rate": "At the same learning rate",
        "accuracy": "at the same accuracy",
        "weight_drift": "at the same weight drift",
    }
    parts = []
    for matching, opening in words.items():
        rows = table[(table["matching"] == matching) & (table["metric"] == "retention_pct")]
        rows = rows[rows["difference"].notna()]
        if rows.empty:
            parts.append(f"{opening} there is nothing to compare")
            continue
        listed = [
            f"{row.method} {row.difference:+.1f} points on {row.dataset} "
            f"({row.num_pairs} pairs, {_p_in_words(p_holm)})"
            for row, p_holm in zip(rows.itertuples(), rows["p_holm"], strict=True)
        ]
        parts.append(f"{opening}, retention against {baseline}: {join_words(listed)}")
    floors = table[table["p_sign_flip_floor"] > alpha]
    ending = "."
    if not floors.empty:
        ending = (
            f". {len(floors)} contrasts have too few pairs for an exact test to reach {alpha:g}; "
            "their p-values rest on normality alone."
        )
    return "; ".join(parts) + ending


def _p_in_words(p_holm: float) -> str:
    return "no p-value" if np.isnan(p_holm) else f"Holm p = {p_holm:.2g}"
