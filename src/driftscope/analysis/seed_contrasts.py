"""Multi-seed contrasts: the seeds of a cell against those of the baseline's, unpaired."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.answer import ALPHA, Answer, cannot_answer, per_setting, with_holm
from driftscope.analysis.grouping import SERIES_AXES, seeded_runs, usable_runs
from driftscope.analysis.tables import Exclusion, StudyTables
from driftscope.analysis.words import general_text, of_all
from driftscope.metrics import plugged_in
from driftscope.stats.effects import cohens_d
from driftscope.stats.groups import permutation_of_means, welch_t
from driftscope.stats.known_values import FloatArray, finite_mean, finite_sd
from driftscope.stats.multiplicity import Family

QUESTION = "seed_contrasts"
METRICS = (
    "delta_entropy_pct",
    "delta_erf95_pct",
    "delta_gini_pct",
    "delta_head_diversity_pct",
    "val_accuracy_pct",
    "retention_pct",
    *(one.key for one in plugged_in("run")),
)
"""The metrics contrasted: the publication's, retention, and those of plug-ins."""

_PLAIN = tuple(axis for axis in SERIES_AXES if axis != "regularizer")


def seed_contrasts(
    tables: StudyTables,
    *,
    baseline: str = "full_ft",
    metrics: Sequence[str] = METRICS,
    alpha: float = ALPHA,
) -> Answer:
    """Every other cell's seeds minus the unregularised baseline's, by Welch's t.

    A cell is contrasted with the baseline cell of its learning rate; where the baseline has one
    cell only, at another rate, with that one, and `rates_differ` says so. Beside Welch's t stand
    Cohen's d with its interval and the exact permutation test with its floor, which three seeds
    against three put at 0.1. Holm over dataset × comparison × rate × metric.

    Returns:
        One row per contrast and metric, first (the other cell) minus second (the baseline), the
        direction of `method_contrast`; units are runs.
    """
    return per_setting(
        QUESTION, tables, lambda part: _in_setting(part, baseline, tuple(metrics), alpha)
    )


def _in_setting(
    tables: StudyTables, baseline: str, metrics: tuple[str, ...], alpha: float
) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    runs = seeded_runs(runs, "means without runs have no seeds", excluded)
    metrics = tuple(name for name in metrics if name in runs and runs[name].notna().any())
    pairs = list(_pairs(runs, baseline, excluded))
    if not pairs or not metrics:
        return cannot_answer(
            QUESTION,
            f"it needs two seeds of {baseline!r} and of another cell of its dataset",
            excluded,
        )
    rows = [
        {**_told(first, second), **_compared(first.values(metric), second.values(metric), metric)}
        for first, second in pairs
        for metric in metrics
    ]
    family = Family(
        "multi-seed contrasts: dataset × comparison × rate × metric",
        tuple(f"{r['dataset']} · {r['comparison']} · {r['rates']} · {r['metric']}" for r in rows),
    )
    table, declared = with_holm(pd.DataFrame(rows), family, alpha)
    return Answer(
        question=QUESTION,
        sentence=_sentence(table, baseline, alpha),
        table=table,
        unit="runs",
        num_units=len({run for pair in pairs for side in pair for run in side.runs["run_id"]}),
        excluded=tuple(excluded),
        family=(declared,),
        is_answered=bool(table["p_value"].notna().any()),
    )


@dataclass(frozen=True)
class _Cell:
    """The runs of one cell, and what of it decides which cell it is set against."""

    runs: pd.DataFrame
    dataset: str
    series: str
    is_plain: bool
    options: tuple[str, ...]
    rate: float
    _values: dict[str, FloatArray] = field(default_factory=dict)

    def values(self, metric: str) -> FloatArray:
        """The seeds' numbers; a baseline cell is asked again and again."""
        if metric not in self._values:
            self._values[metric] = self.runs[metric].to_numpy(dtype=np.float64)
        return self._values[metric]


def _pairs(
    runs: pd.DataFrame, baseline: str, excluded: list[Exclusion]
) -> Iterator[tuple[_Cell, _Cell]]:
    """Other cell and baseline cell, of two seeds at least on either side."""
    for dataset, group in runs.groupby("dataset", sort=True):
        cells = [
            _cell(one, baseline)
            for _, one in group.groupby(["series", "learning_rate"], sort=True)
            if len(one) > 1
        ]
        plain: dict[tuple[str, ...], list[_Cell]] = {}
        for cell in cells:
            if cell.is_plain:
                plain.setdefault(cell.options, []).append(cell)
        unmatched = 0
        for cell in cells:
            if cell.is_plain:
                continue
            like = plain.get(cell.options, [])
            at_rate = [one for one in like if one.rate == cell.rate]
            chosen = at_rate or (like if len(like) == 1 else [])
            if chosen:
                yield cell, chosen[0]
            else:
                unmatched += 1
        if unmatched:
            why = f"no {baseline} cell of its rate and options with two seeds"
            excluded.append(Exclusion(f"{dataset} cells", unmatched, why))


def _cell(runs: pd.DataFrame, baseline: str) -> _Cell:
    first = runs.iloc[0]
    regularizer = first["regularizer"]
    is_unregularized = regularizer != regularizer or regularizer in (None, "none")
    return _Cell(
        runs,
        first["dataset"],
        first["series"],
        is_plain=bool(first["method"] == baseline and is_unregularized),
        options=tuple(str(runs[name].iloc[0]) for name in _PLAIN),
        rate=float(first["learning_rate"]),
    )


def _told(first: _Cell, second: _Cell) -> dict[str, Any]:
    """What is compared, in a row's words."""
    rates = (first.rate, second.rate)
    return {
        "dataset": first.dataset,
        "comparison": f"{first.series} − {second.series}",
        "learning_rate": first.rate,
        "rates": " vs ".join(dict.fromkeys(f"{rate:g}" for rate in rates)),
        "rates_differ": first.rate != second.rate,
    }


def _compared(a: FloatArray, b: FloatArray, metric: str) -> dict[str, Any]:
    test, effect, exact = welch_t(a, b), cohens_d(a, b), permutation_of_means(a, b)
    return {
        "metric": metric,
        "num_first": test.num_a,
        "num_second": test.num_b,
        "mean_first": finite_mean(a),
        "mean_first_sd": finite_sd(a),
        "mean_second": finite_mean(b),
        "mean_second_sd": finite_sd(b),
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "t": test.statistic,
        "p_value": test.p_value,
        "p_exact": exact.p_value,
        "p_exact_floor": exact.p_floor,
        "d": effect.value,
        "d_low": effect.low,
        "d_high": effect.high,
    }


def _sentence(table: pd.DataFrame, baseline: str, alpha: float) -> str:
    tested = table[table["p_value"].notna()]
    shown = int((tested["p_holm"] <= alpha).sum())
    reachable = int((tested["p_exact_floor"] <= alpha).sum())
    text = (
        f"Single cells against {baseline}: {of_all(shown, len(tested), 'contrast')} Holm p ≤ "
        f"{alpha:g} by Welch's t"
    )
    if reachable < len(tested):
        text += (
            f". Of {len(tested) - reachable} the seeds are too few for an exact test to reach "
            f"{alpha:g} (floor {general_text(tested['p_exact_floor'].max())}), so the p-value "
            "rests on normality alone"
        )
    if table["rates_differ"].any():
        count = int(table["rates_differ"].sum())
        text += f". {of_all(count, len(table), 'contrast', 'compare')} different learning rates"
    return text + "."
