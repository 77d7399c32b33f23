"""What separates two studies, or two versions of one: cells of one only, and the common cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.answer import ALPHA, with_holm
from driftscope.analysis.grouping import SETTING, usable_runs
from driftscope.analysis.natural_order import by_natural_order
from driftscope.analysis.tables import Exclusion, StudyTables, label
from driftscope.analysis.words import general_text, join_words
from driftscope.metric import number_text
from driftscope.metrics import METRICS, main_drifts
from driftscope.stats.groups import paired_t, sign_flip, welch_t
from driftscope.stats.known_values import FloatArray
from driftscope.stats.multiplicity import Family

MEASURES = (
    "test_accuracy_pct",
    "val_accuracy_pct",
    "retention_pct",
    *(one.key for one in main_drifts("run")),
)
"""What is compared, where both have it."""

_OPTIONS = "options"
_LABEL = ("dataset", "series", "learning_rate", *SETTING)


@dataclass(frozen=True)
class Difference:
    """Two studies, A and B, cell by cell; a run is one by its cell and its seed, not by its id.

    Attributes:
        sentence: what came out, in words.
        table: one row a common cell and measure: the means of both (over the seeds that both have;
            where they share none, over each one's own), `difference` (B − A), its sd and 95 %
            interval, p with Holm beside it, the exact sign flip with its floor.
        only_a: the cells that only A has, with their number of runs.
        only_b: likewise.
        unpaired: the runs of common cells that only one side has: study, cell, seed.
        num_common_runs: pairs of runs with the same cell and seed.
        num_identical_runs: those whose every measure is equal to the last bit.
        excluded: what was left out, and why.
        family: the declaration of Holm's family.
    """

    sentence: str
    table: pd.DataFrame
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    unpaired: pd.DataFrame
    num_common_runs: int
    num_identical_runs: int
    excluded: tuple[Exclusion, ...]
    family: dict[str, Any]


def study_difference(a: StudyTables, b: StudyTables, *, alpha: float = ALPHA) -> Difference:
    """B against A over the cells that both have, paired by seed wherever seeds are shared.

    Cells agree in model, protocol, transfer set, dataset, method, learning rate, regularizer,
    epochs, batch size, weight decay and data seed, and in all other options where one of the
    studies varies them itself: two versions of a study that differ in one are what is compared.
    With two shared seeds or more: the paired t and
    its interval, and the exact sign flip, whose floor is 2 / 2ⁿ. Without any: Welch's t of the two
    groups of seeds. Holm over common cells × measures.
    """
    excluded: list[Exclusion] = []
    sides = _sides(a.runs, b.runs, excluded)
    keys = {name: set(side["_cell"]) for name, side in sides.items()}
    common = keys["a"] & keys["b"]
    shared = {name: side[side["_cell"].isin(common)] for name, side in sides.items()}
    measures = [
        name
        for name in MEASURES
        if all(name in side and side[name].notna().any() for side in sides.values())
    ]
    rows = _rows(shared["a"], shared["b"], measures)
    pairs = shared["a"].merge(shared["b"], on=["_cell", "seed"], suffixes=("_a", "_b"))
    identical = _identical(pairs, measures)
    table, family = _with_family(pd.DataFrame(rows), alpha)
    lonely = {name: _only(sides[name], keys[name] - common) for name in sides}
    return Difference(
        sentence=_sentence(table, lonely, len(common), len(pairs), identical, alpha),
        table=table,
        only_a=lonely["a"],
        only_b=lonely["b"],
        unpaired=_unpaired(shared),
        num_common_runs=len(pairs),
        num_identical_runs=identical,
        excluded=tuple(excluded),
        family=family,
    )


def _sides(a: pd.DataFrame, b: pd.DataFrame, excluded: list[Exclusion]) -> dict[str, pd.DataFrame]:
    """The usable runs of both with `series` and `_cell`, named over both so that they agree."""
    both = pd.concat([a.assign(_side="a"), b.assign(_side="b")], ignore_index=True)
    for column in ("dataset", "method", _OPTIONS):
        if column not in both:
            both[column] = np.nan
    kinds = both.groupby(["_side", "dataset", "method"], dropna=False)[_OPTIONS]
    varies = kinds.transform("nunique").gt(1)
    varies = varies.groupby([both["dataset"], both["method"]], dropna=False).transform("any")
    both[_OPTIONS] = both[_OPTIONS].astype(object).where(varies)
    both, left_out = usable_runs(both, apart=("_side",))
    excluded += left_out
    setting = both[list(SETTING)].astype(object).where(both[list(SETTING)].notna(), "")
    both["_cell"] = setting.astype(str).agg("\x1f".join, axis=1) + "\x1f" + both["cell"]
    return {name: both[both["_side"] == name] for name in ("a", "b")}


def _rows(a: pd.DataFrame, b: pd.DataFrame, measures: list[str]) -> list[dict[str, Any]]:
    of_a = dict(iter(a.groupby("_cell", sort=False)))
    of_b = dict(iter(b.groupby("_cell", sort=False)))
    ordered = by_natural_order(a, [*SETTING, "dataset", "series", "learning_rate"])
    return [
        {**_label(of_a[cell]), "measure": measure, **_contrast(of_a[cell], of_b[cell], measure)}
        for cell in dict.fromkeys(ordered["_cell"])
        for measure in measures
    ]


def _label(cell: pd.DataFrame) -> dict[str, Any]:
    first = cell.iloc[0]
    return {name: first[name] for name in _LABEL}


def _contrast(a: pd.DataFrame, b: pd.DataFrame, measure: str) -> dict[str, Any]:
    pairs = a.dropna(subset=["seed"]).merge(b.dropna(subset=["seed"]), on="seed")
    before = pairs[f"{measure}_x"].to_numpy(np.float64)
    after = pairs[f"{measure}_y"].to_numpy(np.float64)
    known = np.isfinite(before) & np.isfinite(after)
    before, after = before[known], after[known]
    is_paired = len(before) > 0
    of_a, of_b = (before, after) if is_paired else (_known(a[measure]), _known(b[measure]))
    values: dict[str, Any] = {
        **_moments("a", of_a),
        **_moments("b", of_b),
        "num_pairs": len(before),
        "compared": "seed by seed" if is_paired else "groups of seeds",
    }
    if is_paired:
        flip, test = sign_flip(after, before), paired_t(after, before)
        spread = np.std(after - before, ddof=1) if len(before) > 1 else np.nan
        same = bool((before == after).all())  # nothing to test
        values |= {
            "is_identical": same,
            "p_sign_flip": np.nan if same else flip.p_value,
            "p_sign_flip_floor": np.nan if same else flip.p_floor,
        }
    else:
        test = welch_t(of_b, of_a)
        spread = np.nan
        values |= {"is_identical": False, "p_sign_flip": np.nan, "p_sign_flip_floor": np.nan}
    return values | {
        "difference": test.difference,
        "difference_sd": spread,
        "low": test.low,
        "high": test.high,
        "t": test.statistic,
        "p_value": test.p_value,
    }


def _known(values: pd.Series[float]) -> FloatArray:
    return np.asarray(values.dropna(), dtype=np.float64)


def _moments(side: str, values: FloatArray) -> dict[str, Any]:
    return {
        f"num_{side}": len(values),
        f"mean_{side}": values.mean() if len(values) else np.nan,
        f"mean_{side}_sd": values.std(ddof=1) if len(values) > 1 else np.nan,
    }


def _with_family(table: pd.DataFrame, alpha: float) -> tuple[pd.DataFrame, dict[str, Any]]:
    if table.empty:
        return table, {}
    members = tuple(" · ".join(map(str, row)) for row in table[[*_LABEL, "measure"]].to_numpy())
    return with_holm(table, Family("difference: common cell × measure", members), alpha)


def _identical(pairs: pd.DataFrame, measures: list[str]) -> int:
    if pairs.empty or not measures:
        return 0
    sides = [pairs[[f"{name}_{side}" for name in measures]].to_numpy(float) for side in "ab"]
    same = (sides[0] == sides[1]) | (np.isnan(sides[0]) & np.isnan(sides[1]))
    return int(same.all(axis=1).sum())


def _only(side: pd.DataFrame, cells: set[str]) -> pd.DataFrame:
    rows = [
        {**_label(cell), "num_runs": int(cell["num_runs"].fillna(1).sum())}
        for name, cell in side.groupby("_cell", sort=False)
        if name in cells
    ]
    frame = pd.DataFrame(rows, columns=[*_LABEL, "num_runs"])
    return by_natural_order(frame, [*SETTING, "dataset", "series", "learning_rate"])


def _unpaired(shared: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """The runs of common cells whose seed the other side does not have."""
    keys = ["_cell", "seed"]
    parts = []
    for name, other in (("a", "b"), ("b", "a")):
        mine = shared[name][shared[name]["seed"].notna()]
        marked = mine.merge(
            shared[other][keys].drop_duplicates(), on=keys, how="left", indicator=True
        )
        left = marked[marked["_merge"] == "left_only"]
        ordered = by_natural_order(left, ["dataset", "series", "learning_rate", "seed"])
        parts.append(ordered[[*_LABEL, "seed"]].assign(study=name.upper()))
    return pd.concat(parts, ignore_index=True)


def _sentence(
    table: pd.DataFrame,
    lonely: dict[str, pd.DataFrame],
    num_common: int,
    num_pairs: int,
    num_identical: int,
    alpha: float,
) -> str:
    alone = f"{len(lonely['a'])} cells are in A only and {len(lonely['b'])} in B only"
    if not num_common:
        return f"No cell is in both: {alone}."
    parts = [f"{num_common} cells are in both ({num_pairs} runs of the same seed).", f"{alone}."]
    if num_pairs and num_identical == num_pairs:
        return f"{' '.join(parts)} Every run of both is identical in every measure."
    if num_pairs:
        parts.append(f"{num_identical} of {num_pairs} common runs are identical in every measure.")
    shown = table[table["p_holm"] <= alpha] if len(table) else table
    for measure in ("retention_pct", "cka", "test_accuracy_pct"):
        rows = table[(table["measure"] == measure) & table["difference"].notna()]
        if len(rows):
            parts.append(
                f"B − A in {label(measure)}: {_range(rows['difference'], measure)} over "
                f"{len(rows)} cells, {int((shown['measure'] == measure).sum())} of them with Holm "
                f"p ≤ {alpha:g}."
            )
    floors = table["p_sign_flip_floor"].dropna() if len(table) else pd.Series(dtype=float)
    if len(floors) and floors.min() > alpha:
        parts.append(
            "In no cell could an exact test over the shared seeds go below "
            f"{general_text(floors.min())}; the p-values rest on normality."
        )
    apart = sorted(set(table.loc[table["num_pairs"] == 0, "compared"])) if len(table) else []
    if apart:
        parts.append(f"Where no seed is shared, {join_words(apart)} are compared.")
    return " ".join(parts)


def _range(values: pd.Series[float], measure: str) -> str:
    metric = METRICS[measure]
    ends = (number_text(end, metric.decimals, signed=True) for end in (values.min(), values.max()))
    return " to ".join(ends) + (" points" if metric.unit == "%" else "")
