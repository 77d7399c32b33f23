"""Interventions: does moving attention, at equal accuracy and weight drift, move retention?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import nan
from typing import Any, Literal, TypeAlias

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
from driftscope.analysis.grouping import axis_values, usable_runs
from driftscope.analysis.natural_order import natural_groups
from driftscope.analysis.tables import StudyTables, accuracy_column, leave_out
from driftscope.analysis.twins import held_apart, is_treated, twins
from driftscope.analysis.words import (
    counted,
    few_words,
    join_words,
    of_all,
    rate_text,
    sentences,
)
from driftscope.metric import number_text
from driftscope.stats.effects import cohens_d_z
from driftscope.stats.groups import MeanTest, equivalence, paired_t, sign_flip
from driftscope.stats.known_values import FloatArray
from driftscope.stats.multiplicity import Family

QUESTION = "interventions"
ALL = "all targets"
"""The dataset of a row that pools the pairs of every target."""

RETENTION_MARGIN = 2.0
"""Points of retention within which "it does not move retention" is claimed (TOST)."""
MARGINS = {"entropy": 2.0, "accuracy": 2.0, "weight_drift": 10.0}
"""What counts as moved: points of Δ entropy and of accuracy, percent of the twin's weight drift."""

State: TypeAlias = Literal["moved", "held", "unclear"]


def interventions(
    tables: StudyTables, *, alpha: float = ALPHA, margin: float = RETENTION_MARGIN
) -> Answer:
    """Each intervention, penalty or budget against its twin without, paired over seeds.

    Both share dataset, method, rate, all options and seed; a method with other options is another
    method. Of entropy, accuracy and weight drift a
    row says whether the intervention *moved* it (by more than a margin, and the 95 % interval of
    the paired differences is without 0), *held* it (equivalence within the margin, TOST at
    `alpha`), or neither is shown (unclear). The effect on retention is of attention alone where
    entropy moved and neither accuracy nor weight drift did; else it is confounded. It has the
    paired t and its interval, d_z, the exact sign flip with its floor, and TOST within `margin`
    points; Holm over dataset × method × rate × intervention.

    Returns:
        One row per dataset, method, rate and intervention; units are pairs of runs. Details:
        "pooled" (the same over the pairs of all datasets, of what every dataset has with equal
        options; its exact test has a lower floor).
    """
    return per_setting(QUESTION, tables, lambda part: _in_setting(part, alpha, margin))


def _in_setting(tables: StudyTables, alpha: float, margin: float) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    accuracy = accuracy_column(runs)
    measured = ["run_id", "retention_pct", "delta_entropy_pct", "weight_drift", accuracy]
    if not is_treated(runs).any():
        return cannot_answer(QUESTION, "no run names an intervention or a penalty", excluded)
    pairs = twins(runs, measured, excluded)
    sizes = pairs.groupby(_KEYS)["seed"].transform("size") if len(pairs) else pd.Series(dtype=int)
    why = "the only seed of its intervention that has a twin"
    pairs = leave_out(pairs, sizes > 1, "pairs", why, excluded)
    if pairs.empty:
        return cannot_answer(
            QUESTION, "it needs two seeds of an intervention that have a twin without it", excluded
        )
    table, family = _tested(pairs, _KEYS, accuracy, alpha, margin)
    details, families = {}, [family]
    everywhere, differing = _of_all_datasets(pairs)
    if len(everywhere):
        details["pooled"], pooled = _tested(everywhere, _KEYS, accuracy, alpha, margin)
        families.append(pooled)
    return Answer(
        question=QUESTION,
        sentence=_sentence(table, margin),
        remarks=_remarks(details.get("pooled"), differing, table, alpha),
        table=table,
        details=details,
        unit="pairs of runs",
        num_units=len(pairs),
        excluded=tuple(excluded),
        family=tuple(families),
        is_answered=bool(table["difference"].notna().any()),
    )


_KEYS = ["dataset", "method", "learning_rate", "regularizer"]


def _of_all_datasets(pairs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """The pairs of what every dataset has with equal options, as of `ALL`; none of one dataset.

    What the datasets of a method have `held_apart` is not asked for, but told: such as
    "full_ft: epochs 20 on a and 30 on b".
    """
    num_datasets = pairs["dataset"].nunique()
    if num_datasets < 2:
        return pairs[:0], []
    parts, told = [], []
    axes = axis_values(pairs).drop(columns="regularizer", errors="ignore")
    for method, group in pairs.groupby("plain_method", sort=True):
        of_datasets = dict(iter(group.groupby("dataset")))
        apart = held_apart(axes, of_datasets.values())
        asked = axes.loc[group.index].drop(columns=list(apart))
        by = [group["learning_rate"], group["regularizer"], *(asked[name] for name in asked)]
        found_in = group.groupby(by)["dataset"].transform("nunique")
        kept = group[found_in == num_datasets]
        shared = asked.loc[kept.index]
        said = [f", {name} " + shared[name] for name in shared if shared[name].nunique() > 1]
        parts.append(kept.assign(dataset=ALL, method=sum(said, kept["plain_method"].astype(str))))
        if len(kept):
            told += [
                f"{method}: {name} " + join_words(map("{} on {}".format, values, of_datasets))
                for name, values in apart.items()
            ]
    return pd.concat(parts), told


def _tested(
    pairs: pd.DataFrame, keys: Sequence[str], accuracy: str, alpha: float, margin: float
) -> tuple[pd.DataFrame, dict[str, Any]]:
    groups = dict(natural_groups(pairs, keys))
    family = Family(
        "interventions: dataset × method × rate × intervention",
        tuple(f"{d} · {method} · {rate:g} · {name}" for d, method, rate, name in groups),
    )
    rows = [
        {**dict(zip(keys, key, strict=True)), **_row(group, accuracy, alpha, margin)}
        for key, group in groups.items()
    ]
    table, declared = with_holm(pd.DataFrame(rows), family, alpha)
    table["answer"] = [_answer(row, alpha, margin) for row in table.to_dict("records")]
    leading = ("regularizer", "dataset", "method", "learning_rate", "answer", "attention")
    return lead_with(table, *leading, "difference", "low", "high"), declared


def _row(pairs: pd.DataFrame, accuracy: str, alpha: float, margin: float) -> dict[str, Any]:
    def sides(column: str) -> tuple[FloatArray, FloatArray]:
        with_it, without = pairs[column], pairs[f"{column}_baseline"]
        return with_it.to_numpy(dtype=np.float64), without.to_numpy(dtype=np.float64)

    kept = sides("retention_pct")
    test, flip, effect = paired_t(*kept), sign_flip(*kept), cohens_d_z(*kept)
    drifts = sides("weight_drift")
    percent = 100 * drifts[0] / np.where(drifts[1] > 0, drifts[1], nan)
    moves = {
        "entropy": sides("delta_entropy_pct"),
        "accuracy": sides(accuracy),
        "weight_drift": (percent, np.full_like(percent, 100.0)),
    }
    found = {name: paired_t(*both) for name, both in moves.items()}
    states = {name: _state(found[name], moves[name], MARGINS[name], alpha) for name in moves}
    return {
        "num_pairs": test.num_a,
        "num_seeds": int(pairs["seed"].nunique()),
        "metric": "retention_pct",
        "difference": test.difference,
        "low": test.low,
        "high": test.high,
        "t": test.statistic,
        "p_value": test.p_value,
        "p_equivalence": equivalence(*kept, margin=margin).p_value,
        "p_sign_flip": flip.p_value,
        "p_sign_flip_floor": flip.p_floor,
        "d_z": effect.value,
        "d_z_low": effect.low,
        "d_z_high": effect.high,
        "attention": states["entropy"],
        "entropy_points": found["entropy"].difference,
        "entropy_low": found["entropy"].low,
        "entropy_high": found["entropy"].high,
        "accuracy_is": states["accuracy"],
        "accuracy_points": found["accuracy"].difference,
        "accuracy_low": found["accuracy"].low,
        "accuracy_high": found["accuracy"].high,
        "weight_drift_is": states["weight_drift"],
        "weight_drift_change_pct": found["weight_drift"].difference,
        "weight_drift_low": found["weight_drift"].low,
        "weight_drift_high": found["weight_drift"].high,
    }


def _is_constant(num_pairs: int, p_value: float) -> bool:
    """Whether every pair differs by the same, so that there is nothing to test."""
    return num_pairs > 1 and p_value != p_value


def _state(
    test: MeanTest, sides: tuple[FloatArray, FloatArray], margin: float, alpha: float
) -> State:
    if _is_constant(test.num_a, test.p_value):
        return "moved" if abs(test.difference) > margin else "held"
    if abs(test.difference) > margin and (test.low > 0 or test.high < 0):
        return "moved"
    return "held" if equivalence(*sides, margin=margin).p_value <= alpha else "unclear"


def is_confounded(row: Mapping[Any, Any]) -> bool:
    """Whether accuracy or weight drift moved too."""
    return "moved" in (row["accuracy_is"], row["weight_drift_is"])


def _answer(row: Mapping[Any, Any], alpha: float, margin: float) -> str:
    """What a row says of retention, and of which change it says so."""
    is_constant = _is_constant(row["num_pairs"], row["p_value"])
    if row["p_holm"] <= alpha or (is_constant and abs(row["difference"]) > margin):
        effect = "retention rises" if row["difference"] > 0 else "retention falls"
    elif row["p_equivalence"] <= alpha or is_constant:
        effect = "retention stays"
    else:
        effect = "undecided"
    return effect + _confounded(row)


def _confounded(row: Mapping[Any, Any]) -> str:
    names = {"accuracy_is": "accuracy", "weight_drift_is": "weight drift"}
    also = [name for key, name in names.items() if row[key] == "moved"]
    if also:
        return f"; {join_words(also)} moved too"
    if row["attention"] != "moved":
        return "; attention did not move" if row["attention"] == "held" else ""
    return ""


def _sentence(table: pd.DataFrame, margin: float) -> str:
    """What moving attention alone does, and where it cannot be told from other changes."""
    rows = table.to_dict("records")
    moved = [row for row in rows if row["attention"] == "moved"]
    alone = [row for row in moved if not is_confounded(row)]
    first = (
        f"{of_all(len(moved), len(rows), 'comparison', 'move')} attention entropy by more than "
        f"{MARGINS['entropy']:g} points"
    )
    if not alone:
        why = (
            ", each with accuracy or weight drift, so none says what attention does"
            if moved
            else ""
        )
        return f"{first}{why}."
    told = []
    effects = ("retention rises", "retention falls", "retention stays", "undecided")
    words = (
        "retention rises",
        "retention falls",
        f"retention stays within {margin:g} points",
        "the data cannot say whether retention moves",
    )
    for effect, said in zip(effects, words, strict=True):
        fitting = [row for row in alone if row["answer"].startswith(effect)]
        if fitting:
            told.append(f"{said} in {len(fitting)} of these: {few_words(map(_listed, fitting))}")
    confounded = len(moved) - len(alone)
    if confounded:
        first += f", {len(alone)} of them alone"
        told.append(f"the other {confounded} move accuracy or weight drift too")
    return sentences([first, *told])


def _listed(row: Mapping[Any, Any]) -> str:
    return (
        f"{row['regularizer']} on {row['dataset']} for {row['method']} at "
        f"{rate_text(row['learning_rate'])}: {_moved_text(row)}"
    )


def _moved_text(row: Mapping[Any, Any]) -> str:
    """How far retention moves, with its interval."""
    ends = [number_text(row[key], 1, signed=True) for key in ("difference", "low", "high")]
    if _is_constant(row["num_pairs"], row["p_value"]):
        return f"{ends[0]} points in every pair"
    return f"{ends[0]} points [{ends[1]}, {ends[2]}]"


def _remarks(
    pooled: pd.DataFrame | None, differing: Sequence[str], table: pd.DataFrame, alpha: float
) -> tuple[str, ...]:
    remarks = []
    floor = table["p_sign_flip_floor"].max()
    if floor > alpha:
        remarks.append(
            f"With {counted(int(table['num_pairs'].min()), 'pair')} the exact sign flip cannot go "
            f"below {floor:g}, so the answers of single targets rest on the paired t."
        )
    if pooled is not None:
        rows = pooled[pooled["attention"].eq("moved")].to_dict("records")
        told = [
            f"{row['regularizer']} for {row['method']} {_pooled_text(row)}"
            for row in rows
            if not is_confounded(row)
        ]
        if told:
            remarks.append(f"Over all targets, {few_words(told)}.")
        if differing:
            remarks.append(f"Targets are pooled although they differ in {few_words(differing)}.")
    return tuple(remarks)


def _pooled_text(row: Mapping[Any, Any]) -> str:
    return (
        f"moves entropy by {number_text(row['entropy_points'], 1, signed=True)} and retention by "
        f"{_moved_text(row)} ({counted(row['num_pairs'], 'pair')}, sign flip "
        f"p = {row['p_sign_flip']:.3g}, floor {row['p_sign_flip_floor']:.2g})"
    )
