"""Stability: how much a reading depends on which images, how many, and which seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.answer import Answer, cannot_answer, per_setting
from driftscope.analysis.columns import KNOWN
from driftscope.analysis.grouping import cell_means, usable_runs
from driftscope.analysis.tables import SIGNED_SIGNALS, StudyTables, label, present_signals
from driftscope.metric import number_text
from driftscope.stats.groups import coefficient_of_variation
from driftscope.stats.known_values import FloatArray

QUESTION = "stability"


def stability(tables: StudyTables) -> Answer:
    """The spread of readings over probe subsets, over probe sizes, and over seeds.

    Over subsets of one size: the coefficient of variation of each run and signal, dividing by n as
    the published study does (``cv``) and by n − 1 (``cv_sample``); of one subset it is undefined
    (NaN). Over sizes: the mean reading at
    each size against the largest. Over seeds: the standard deviation within cells against that
    between cells; a signal with seeds as wide as cells tells no cells apart.

    Returns:
        One row per run, signal and size where subsets were read, else one per dataset and signal
        over seeds; units are runs or cells. Details: "seeds", and "probe_size" where several sizes
        were read.
    """
    return per_setting(QUESTION, tables, _in_setting)


def subset_variation(subsets: pd.DataFrame) -> pd.DataFrame:
    """Per run, signal and subset size: mean, and coefficients of variation over subsets.

    Args:
        subsets: columns run_id, subset, num_images, signal, value.
    """
    keys = ["run_id", "signal", "num_images"]
    ordered = subsets.sort_values(keys, kind="stable")
    values = ordered["value"].to_numpy(dtype=np.float64)
    firsts = np.flatnonzero(~ordered.duplicated(keys).to_numpy())
    ends = np.append(firsts[1:], len(ordered))
    variation = ordered.iloc[firsts][keys].reset_index(drop=True)
    for name in ("num_subsets", "mean", "cv", "cv_sample"):
        variation[name] = np.nan
    # all groups of one size are one array: a run has a dozen, and a study thousands of runs
    for size in np.unique(ends - firsts):
        mine = np.flatnonzero(ends - firsts == size)
        variation.loc[mine, ["num_subsets", "mean", "cv", "cv_sample"]] = _spreads(
            values[firsts[mine][:, None] + np.arange(size)]
        )
    known = variation[variation["num_subsets"] > 0]  # else of a plug-in that could not measure it
    return known.astype({"num_subsets": int}).reset_index(drop=True)


def _spreads(values: FloatArray) -> FloatArray:
    """Of each row: how many values are finite, their mean, and both coefficients of variation."""
    found = np.full((len(values), 4), np.nan)
    is_whole = np.isfinite(values).all(axis=1)
    whole = values[is_whole]
    size, means = values.shape[1], whole.mean(axis=1)
    scale = np.where(means == 0, np.nan, np.abs(means))
    found[is_whole, :3] = np.column_stack(
        [np.full(len(whole), size), means, whole.std(axis=1) / scale]
    )
    if size > 1:
        found[is_whole, 3] = whole.std(axis=1, ddof=1) / scale
    for at in np.flatnonzero(~is_whole):
        kept = values[at][np.isfinite(values[at])]
        cvs = (coefficient_of_variation(kept, ddof=ddof) for ddof in (0, 1))
        found[at] = (kept.size, kept.mean() if kept.size else np.nan, *cvs)
    found[found[:, 0] < 2, 2:] = np.nan  # one value has no spread
    return found


def probe_size_sensitivity(variation: pd.DataFrame) -> pd.DataFrame:
    """Per signal and probe size: the mean reading, and how far it is from the largest size's.

    Args:
        variation: from `subset_variation`.
    """
    largest = variation.loc[
        variation.groupby(["run_id", "signal"])["num_images"].idxmax(),
        ["run_id", "signal", "mean"],
    ].rename(columns={"mean": "mean_at_largest"})
    joined = variation.merge(largest, on=["run_id", "signal"])
    joined["difference"] = joined["mean"] - joined["mean_at_largest"]
    return (
        joined.groupby(["signal", "num_images"])
        .agg(
            num_runs=("run_id", "nunique"),
            mean=("mean", "mean"),
            difference_from_largest=("difference", "mean"),
            cv=("cv", "mean"),
        )
        .reset_index()
    )


def _in_setting(tables: StudyTables) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    subsets = tables.subsets[tables.subsets["run_id"].isin(runs["run_id"])]
    seeds = _over_seeds(runs)
    if subsets.empty and seeds.empty:
        return cannot_answer(
            QUESTION, "no run was read on several subsets and no cell has two seeds", excluded
        )
    if subsets.empty:
        return Answer(
            question=QUESTION,
            sentence="No run was read on several probe subsets or sizes, so these data can't say "
            "how much the images matter. " + _seed_sentence(seeds),
            table=seeds,
            unit="cells",
            num_units=int(seeds.groupby("dataset")["num_cells"].max().sum()),
            excluded=tuple(excluded),
            details={"seeds": seeds},
        )
    variation = subset_variation(subsets)
    details = {"seeds": seeds}
    sentence = _subset_sentence(variation)
    if variation["num_images"].nunique() > 1:
        details["probe_size"] = probe_size_sensitivity(variation)
        sentence += " " + _size_sentence(details["probe_size"])
    if not seeds.empty:
        sentence += " " + _seed_sentence(seeds)
    return Answer(
        question=QUESTION,
        sentence=sentence,
        table=variation,
        unit="runs",
        num_units=int(variation["run_id"].nunique()),
        excluded=tuple(excluded),
        details=details,
    )


def _over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    columns = [*present_signals(runs), "retention_pct", "test_accuracy_pct"]
    columns = [name for name in columns if runs[name].notna().any()]
    if not columns or runs.empty:
        return pd.DataFrame()
    cells = cell_means(runs, columns)
    cells = cells[cells["num_runs"] >= 2]
    rows = []
    for dataset, group in cells.groupby("dataset", sort=True):
        for name in columns:
            within = float(np.sqrt((group[f"{name}_sd"] ** 2).mean()))
            between = float(group[name].std(ddof=1)) if len(group) > 1 else np.nan
            rows.append(
                {
                    "dataset": dataset,
                    "signal": name,
                    "num_cells": len(group),
                    "sd_over_seeds": within,
                    "sd_between_cells": between,
                    "seed_share": within / between if between else np.nan,
                }
            )
    return pd.DataFrame(rows)


def _subset_sentence(variation: pd.DataFrame) -> str:
    repeated = variation[variation["num_subsets"] >= 2]
    if repeated.empty:
        return "No run was read on two subsets of one size, so no variation over images is known."
    is_change = repeated["signal"].isin(SIGNED_SIGNALS)
    told = []
    if not (levels := repeated[~is_change & repeated["cv"].notna()]).empty:
        worst = levels.iloc[int(np.argmax(levels["cv"]))]
        told.append(f"{number_text(100 * worst['cv'], 1)} % of its mean ({_named_run(worst)})")
    # a mean near 0 makes a percent of it large whatever the precision
    if not (changes := repeated[is_change & repeated["cv"].notna()]).empty:
        spreads = changes["cv"] * changes["mean"].abs()
        worst = changes.iloc[int(np.argmax(spreads))]
        told.append(
            f"{number_text(spreads.max(), 1)} points of a percent change ({_named_run(worst)})"
        )
    if not told:
        return "No signal varies over probe subsets."
    return f"Over probe subsets a signal's standard deviation is at most {' and '.join(told)}."


def _size_sentence(sizes: pd.DataFrame) -> str:
    smallest = sizes[sizes["num_images"] == sizes["num_images"].min()]
    worst = smallest.iloc[int(np.nanargmax(smallest["difference_from_largest"].abs()))]
    away = KNOWN["difference_from_largest"].text(worst.to_dict())
    return (
        f"With {worst['num_images']:.0f} images {_named(worst)} reads {away} away from the "
        "largest probe's."
    )


def _seed_sentence(seeds: pd.DataFrame) -> str:
    shares = seeds[seeds["seed_share"].notna()]
    if shares.empty:
        return "One cell alone says nothing about seeds against cells."
    worst = shares.sort_values("seed_share").iloc[-1]
    return (
        "Over seeds a signal's standard deviation is at most "
        f"{number_text(worst['seed_share'], 2)} times that between cells "
        f"({_named(worst)} on {worst['dataset']})."
    )


def _named_run(row: pd.Series[Any]) -> str:
    return f"{_named(row)}, {row['num_images']:.0f} images, run {row['run_id']}"


def _named(row: pd.Series[Any]) -> str:
    return label(row["signal"])
