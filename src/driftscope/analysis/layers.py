"""Layer profile: where and when contraction sets in, and how CKA and entropy go together."""

from __future__ import annotations

from math import isnan, nan
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
from driftscope.analysis.predictors import MIN_CELLS_FOR_RANKING
from driftscope.analysis.tables import StudyTables
from driftscope.analysis.trajectories import ends_of_epochs
from driftscope.analysis.words import counted, rate_text, rho_text
from driftscope.metrics import METRICS, main_drifts, plugged_in
from driftscope.stats.correlation import permutation_correlation
from driftscope.stats.multiplicity import Family

QUESTION = "layer_profile"
CONTRACTION_PCT = 1.0
"""How far the mean entropy must fall before it counts as contraction."""

MIN_CELLS = 4


def layer_profile(
    tables: StudyTables, *, contraction_pct: float = CONTRACTION_PCT, alpha: float = ALPHA
) -> Answer:
    """Per-layer drift of every cell, the onset of contraction in depth and in time.

    A layer has contracted where the mean over seeds of Δentropy lies below −``contraction_pct``
    and every seed's is negative; ``onset_layer`` is the first such layer (1…L), ``onset_epoch`` the
    first epoch at whose end the mean over layers does so. ``most_contracted_layer`` has the lowest
    mean, where that lies below −``contraction_pct``, whether or not the seeds agree;
    ``most_changed_layer`` has the largest change, up or down.

    Returns:
        One row per cell; units are cells. Details: "profile" (one row per cell and layer) and
        "cka_entropy" (per dataset and layer, over cells: the correlation of a block's CKA with the
        same block's Δentropy; layer NaN: of their means over the blocks; Holm over all of them).
    """
    return per_setting(QUESTION, tables, lambda part: _in_setting(part, contraction_pct, alpha))


def _in_setting(tables: StudyTables, contraction: float, alpha: float) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    if tables.layers.empty:
        return cannot_answer(QUESTION, "there are no per-layer readings", excluded)
    names = ["dataset", "series", "learning_rate", "cell", "seed"]
    layers = tables.layers.drop(columns=[name for name in names if name in tables.layers])
    layers = layers.merge(runs[["run_id", *names]], on="run_id")
    if layers.empty:
        return cannot_answer(QUESTION, "no finished run has per-layer readings", excluded)
    profile = _profile(layers, contraction)
    onset = _onset(profile, tables.history, runs, contraction)
    pairing, family = _cka_entropy(profile, alpha)
    return Answer(
        question=QUESTION,
        sentence=_sentence(onset, pairing, contraction),
        table=onset,
        unit="cells",
        num_units=len(onset),
        excluded=tuple(excluded),
        family=family,
        details={"profile": profile, "cka_entropy": pairing},
    )


_PROFILED = ("entropy_nats", "delta_entropy_pct", "delta_erf95_pct", "delta_gini_pct", "cka")
"""What the profile over layers holds, with every other main drift of attention and of plug-ins."""


def _profile(layers: pd.DataFrame, contraction: float) -> pd.DataFrame:
    of_attention = [one for one in main_drifts("layer") if one.group == "attention"]
    added = (one.key for one in (*of_attention, *plugged_in("layer")))
    wanted = tuple(dict.fromkeys((*_PROFILED, *added)))
    columns = [name for name in wanted if name in layers and layers[name].notna().any()]
    keys = ["dataset", "series", "learning_rate", "cell", "layer"]
    groups = layers.groupby(keys, sort=True)
    profile = groups[columns].mean()
    if "delta_entropy_pct" in columns:
        profile["delta_entropy_pct_sd"] = groups["delta_entropy_pct"].std(ddof=1)
        all_negative = groups["delta_entropy_pct"].max() < 0
        profile["is_contracted"] = all_negative & (profile["delta_entropy_pct"] < -contraction)
    profile.insert(0, "num_runs", groups.size())
    return profile.reset_index().rename(columns={"series": "method"})


def _onset(
    profile: pd.DataFrame, history: pd.DataFrame, runs: pd.DataFrame, contraction: float
) -> pd.DataFrame:
    keys = ["dataset", "method", "learning_rate", "cell"]
    groups = profile.groupby(keys, sort=True)
    onset = groups.agg(num_runs=("num_runs", "max"), num_layers=("layer", "size"))
    if "is_contracted" in profile:
        contracted = profile[profile["is_contracted"]].groupby(keys)["layer"]
        onset["onset_layer"] = contracted.min()
        onset["num_contracted_layers"] = contracted.size()
        onset["num_contracted_layers"] = onset["num_contracted_layers"].fillna(0).astype(int)
        ordered = profile.dropna(subset=["delta_entropy_pct"]).sort_values("delta_entropy_pct")
        falls = ordered[ordered["delta_entropy_pct"] < -contraction]
        by_size = ordered.sort_values("delta_entropy_pct", key=abs, ascending=False)
        for part, layer, change in (
            (falls, "most_contracted_layer", "delta_entropy_pct_there"),
            (by_size, "most_changed_layer", "largest_delta_entropy_pct"),
        ):
            first = part.drop_duplicates(keys).set_index(keys)
            onset[layer], onset[change] = first["layer"], first["delta_entropy_pct"]
    onset = onset.reset_index()
    if "is_contracted" in profile:
        epochs = _onset_epochs(history, runs, contraction)
        onset["onset_epoch"] = [epochs.get(str(cell), nan) for cell in onset["cell"]]
    return onset.drop(columns="cell")


def _onset_epochs(
    history: pd.DataFrame, runs: pd.DataFrame, contraction: float
) -> dict[str, float]:
    if history.empty or "delta_entropy_pct" not in history:
        return {}
    ends = ends_of_epochs(history)[["run_id", "epoch", "delta_entropy_pct"]]
    joined = ends.merge(runs[["run_id", "cell"]], on="run_id")
    groups = joined.groupby(["cell", "epoch"])["delta_entropy_pct"]
    contracted = (groups.mean() < -contraction) & (groups.max() < 0)
    reached = contracted[contracted].reset_index()
    return {str(cell): float(e) for cell, e in reached.groupby("cell")["epoch"].min().items()}


def _cka_entropy(
    profile: pd.DataFrame, alpha: float
) -> tuple[pd.DataFrame, tuple[dict[str, Any], ...]]:
    """A row a dataset and layer; the one without a layer takes each cell's mean over its blocks."""
    if not {"cka", "delta_entropy_pct"} <= set(profile.columns):
        return pd.DataFrame(), ()
    known = profile.dropna(subset=["cka", "delta_entropy_pct"])
    of_cells = known.groupby(["dataset", "cell"])[["cka", "delta_entropy_pct"]].mean()
    groups: dict[tuple[str, float], pd.DataFrame] = {
        (str(dataset), nan): group for dataset, group in of_cells.groupby("dataset", sort=True)
    }
    groups |= {
        (str(group["dataset"].iloc[0]), float(group["layer"].iloc[0])): group
        for _, group in known.groupby(["dataset", "layer"], sort=True)
    }
    groups = {key: group for key, group in groups.items() if len(group) >= MIN_CELLS}
    if not groups:
        return pd.DataFrame(), ()
    rows = [
        {"dataset": dataset, "layer": layer, **_correlations(group, alpha)}
        for (dataset, layer), group in groups.items()
    ]
    family = Family(
        "CKA with Δ entropy of the same block: dataset × (mean over blocks, each layer)",
        tuple(
            f"{dataset} · {'mean over blocks' if isnan(layer) else f'layer {layer:.0f}'}"
            for dataset, layer in groups
        ),
    )
    table, declared = with_holm(pd.DataFrame(rows), family, alpha)
    return table, (declared,)


def _correlations(group: pd.DataFrame, alpha: float) -> dict[str, Any]:
    rank, linear = (
        permutation_correlation(group["cka"], group["delta_entropy_pct"], kind=kind)
        for kind in ("spearman", "pearson")
    )
    return {
        "num_cells": rank.num_units,
        "rho": rank.statistic,
        "p_value": rank.p_value if rank.can_reach(alpha) else nan,
        "p_floor": rank.p_floor,
        "pearson_r": linear.statistic,
        "p_pearson": linear.p_value if linear.can_reach(alpha) else nan,
        "p_pearson_floor": linear.p_floor,
    }


def _largest_change(onset: pd.DataFrame) -> list[str]:
    known = onset[onset["largest_delta_entropy_pct"].notna()]
    if known.empty:
        return []
    row = known.iloc[int(np.argmax(known["largest_delta_entropy_pct"].abs()))]
    change = METRICS["delta_entropy_pct"].with_unit(row["largest_delta_entropy_pct"])
    return [
        f"Attention entropy changes most, by {change}, in layer {row['most_changed_layer']:.0f} of "
        f"{row['method']} on {row['dataset']} at {rate_text(row['learning_rate'])}."
    ]


def _deepest_fall(onset: pd.DataFrame) -> list[str]:
    """Where entropy falls most, of all cells: seeds that disagree take no cell out."""
    falls = onset[onset["delta_entropy_pct_there"].notna()]
    if falls.empty:
        return []
    row = falls.sort_values("delta_entropy_pct_there").iloc[0]
    change = METRICS["delta_entropy_pct"].with_unit(row["delta_entropy_pct_there"])
    return [
        f"In the mean over seeds it falls most at layer {row['most_contracted_layer']:.0f} of "
        f"{row['method']} on {row['dataset']} at {rate_text(row['learning_rate'])} ({change})."
    ]


def _sentence(onset: pd.DataFrame, pairing: pd.DataFrame, contraction: float) -> str:
    parts = []
    if "onset_layer" not in onset:
        parts.append("No per-layer entropy was read.")
    else:
        parts += _largest_change(onset)
        reached = onset[onset["onset_layer"].notna()]
        text = (
            f"In {len(reached)} of {len(onset)} cells some layer's entropy falls by more than "
            f"{contraction:g} %, every seed agreeing"
        )
        if not reached.empty:
            first = np.nanmedian(reached["onset_layer"])
            text += f". The first is layer {first:.0f} in the median"
        parts.append(text + ".")
        parts += _deepest_fall(onset)
        in_time = onset["onset_epoch"].notna().sum()
        parts.append(
            f"The mean over layers contracts so far in {counted(in_time, 'cell')}"
            + (
                f", from epoch {onset['onset_epoch'].min():.0f} on at the earliest."
                if in_time
                else "."
            )
        )
    for dataset, rows in pairing.groupby("dataset") if not pairing.empty else ():
        rows = rows[rows["layer"].notna() & (rows["num_cells"] >= MIN_CELLS_FOR_RANKING)]
        if rows["rho"].notna().any():
            best = rows.iloc[int(np.nanargmax(rows["rho"].abs()))]
            parts.append(
                f"On {dataset} a block's CKA and Δ entropy are rank-correlated most strongly "
                f"at layer {best['layer']:.0f} (ρ = {rho_text(best['rho'])} over "
                f"{best['num_cells']:.0f} cells)."
            )
    return " ".join(parts)
