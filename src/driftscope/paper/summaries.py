"""What a study read, summed up without a test: grid means, full-map structure, backbones, options.

Every frame's rows name their setting (model, protocol, transfer); no row joins two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.grouping import (
    APART,
    MEASURING,
    SERIES_AXES,
    cell_means,
    settings_apart,
    usable_runs,
)
from driftscope.analysis.natural_order import natural_groups
from driftscope.analysis.stability import subset_variation
from driftscope.analysis.tables import StudyTables

OUTCOMES = (
    "delta_entropy_pct",
    "delta_erf95_pct",
    "delta_gini_pct",
    "val_accuracy_pct",
    "test_accuracy_pct",
    "zero_shot_pct",
    "zero_shot_low_pct",
    "zero_shot_high_pct",
    "retention_pct",
    "cka",
)
"""What is summed up, where it is known."""

IMAGES = "zero_shot_num_images"
"""On how many images the zero-shot accuracy rests; it is no sum over runs, which share them."""

STRUCTURE = (
    "rollout_entropy_bits",
    "rollout_erf95",
    "rollout_gini",
    "patch_to_patch_entropy_bits",
)
"""What full attention maps say; known where the spec asked for them."""

PRETRAINED = "pretrained"
NO_REGULARIZER = "none"


def grid_means(tables: StudyTables) -> pd.DataFrame:
    """Per dataset and series: the mean of its cells' means over the learning rates.

    Cells weigh alike, whatever their number of runs. `<name>_sd` is the spread between the rates
    (sample standard deviation over cells), not between seeds. Means of two series are comparable
    only where `rates` agrees.
    """
    return _per_setting(tables, _grid_means)


def auxiliary_structure(tables: StudyTables) -> pd.DataFrame:
    """Per cell: rollout, patch-to-patch, CKA over the blocks, and the spread over probe subsets.

    Means and standard deviations over seeds; `entropy_cv` is each run's coefficient of variation
    of the mean entropy over probe subsets of one size (dividing by n, as published), averaged.
    Each dataset's first row is its pretrained model, where its maps were read. Empty where no run
    read full maps.
    """
    return _per_setting(tables, _auxiliary_structure)


def backbones(tables: StudyTables) -> pd.DataFrame:
    """Per dataset, series, rate, protocol and transfer set, a row a backbone, where there are two.

    `entropy_gap_points` is the backbone's Δ entropy minus that of the first one listed, paired over
    the seeds both have: the one number that joins two backbones, and it compares them.
    """
    usable = [
        usable_runs(part.runs)[0].assign(**{key: setting[key] for key in {MEASURING} & {*setting}})
        for setting, part in settings_apart(tables)
    ]
    runs = pd.concat(usable, ignore_index=True)
    keys = ["protocol", "transfer", MEASURING, "dataset", "series", "learning_rate"]
    keys = [key for key in keys if key != MEASURING or key in runs]
    order = list(dict.fromkeys(tables.runs["model"])) if "model" in tables.runs else []
    rows = []
    for _, group in runs.groupby(keys, sort=True, dropna=False):
        models = [name for name in order if name in set(group["model"])]
        if len(models) < 2:
            continue
        first = group[group["model"] == models[0]].set_index("seed")["delta_entropy_pct"]
        for model in models:
            mine = group[group["model"] == model]
            gaps = (mine.set_index("seed")["delta_entropy_pct"] - first).dropna()
            rows.append(
                {
                    **{name: group[name].iloc[0] for name in keys},
                    "model": model,
                    "num_runs": int(mine["num_runs"].sum()),
                    **_mean_and_sd(mine),
                    IMAGES: _num_images(mine),
                    "entropy_gap_points": gaps.mean() if model != models[0] else np.nan,
                    "entropy_gap_points_sd": gaps.std(ddof=1) if model != models[0] else np.nan,
                    "num_pairs": len(gaps) if model != models[0] else 0,
                }
            )
    return pd.DataFrame(rows)


def regularized_cells(tables: StudyTables) -> pd.DataFrame:
    """Per cell of every dataset, method and rate at which a regularizer or weight decay varies."""
    return _per_setting(tables, _regularized_cells)


# ---------------------------------------------------------------- one setting


def _grid_means(tables: StudyTables) -> pd.DataFrame:
    runs, _ = usable_runs(tables.runs)
    names = _known(runs)
    cells = cell_means(runs, names)
    images = {key: _num_images(group) for key, group in runs.groupby(["dataset", "series"])}
    rows: list[dict[str, Any]] = []
    for (dataset, series), group in natural_groups(cells, ["dataset", "series"]):
        rows.append(
            {
                "dataset": dataset,
                "series": series,
                "num_cells": len(group),
                "num_runs": int(group["num_runs"].sum()),
                "rates": ", ".join(f"{rate:g}" for rate in sorted(group["learning_rate"])),
                **_mean_and_sd(group, names),
                IMAGES: images.get((dataset, series), np.nan),
            }
        )
    return pd.DataFrame(rows)


def _auxiliary_structure(tables: StudyTables) -> pd.DataFrame:
    runs, _ = usable_runs(tables.runs)
    names = [name for name in STRUCTURE if name in runs and runs[name].notna().any()]
    if not names:
        return pd.DataFrame()
    runs = runs.merge(_entropy_variation(tables.subsets), on="run_id", how="left")
    columns = [*names, "cka", "cka_debiased", "entropy_cv"]
    cells = cell_means(runs, columns).drop(columns=["method", "cell"])
    keys = ["dataset", "series", "learning_rate"]
    subsets = runs.groupby(keys)[["num_subsets", "subset_images"]].max()
    cells = cells.merge(subsets.reset_index(), on=keys)
    parts = []
    for dataset, group in cells.groupby("dataset", sort=True):
        before = runs[runs["dataset"] == dataset]
        known = [name for name in names if f"pretrained_{name}" in before]
        reference = {name: before[f"pretrained_{name}"].mean() for name in known}
        if reference:
            first = {"dataset": dataset, "series": PRETRAINED, "num_runs": np.nan, **reference}
            parts.append(pd.DataFrame([first]))
        parts.append(group)
    return pd.concat(parts, ignore_index=True)


def _entropy_variation(subsets: pd.DataFrame) -> pd.DataFrame:
    """Per run: `entropy_cv` over its subsets of one size, those that are most, and their number."""
    variation = subset_variation(subsets[subsets["signal"] == "entropy"])
    if variation.empty:
        columns = {"run_id": object, "entropy_cv": float, "num_subsets": float}
        return pd.DataFrame(columns=[*columns, "subset_images"]).astype(columns)
    repeated = variation[variation["num_subsets"] >= 2].sort_values("num_subsets")
    last = repeated.drop_duplicates("run_id", keep="last")
    last = last.rename(columns={"cv": "entropy_cv", "num_images": "subset_images"})
    return last[["run_id", "entropy_cv", "num_subsets", "subset_images"]]


def _regularized_cells(tables: StudyTables) -> pd.DataFrame:
    runs, _ = usable_runs(tables.runs)
    named = runs["regularizer"].astype(object).where(runs["regularizer"].notna(), NO_REGULARIZER)
    runs = runs.assign(regularizer=named.astype(str))
    names = _known(runs)
    others = [axis for axis in SERIES_AXES if axis not in ("regularizer", "weight_decay")]
    rows = []
    for (dataset, method, rate), group in runs.groupby(
        ["dataset", "method", "learning_rate"], sort=True
    ):
        if len(group[["regularizer", "weight_decay"]].drop_duplicates()) < 2:
            continue
        keys = ["regularizer", "weight_decay", *others]
        for values, cell in group.groupby(keys, sort=True, dropna=False):
            rows.append(
                {
                    "dataset": dataset,
                    "method": method,
                    "learning_rate": rate,
                    **dict(zip(keys, values, strict=True)),
                    "series": cell["series"].iloc[0],
                    "num_runs": int(cell["num_runs"].sum()),
                    **_mean_and_sd(cell, names),
                    IMAGES: _num_images(cell),
                }
            )
    frame = pd.DataFrame(rows)
    if len(frame) and frame["regularizer"].eq(NO_REGULARIZER).all():
        return pd.DataFrame()  # weight decays alone are no study of regularizers
    return frame


# ---------------------------------------------------------------- shared


def _per_setting(tables: StudyTables, ask: Callable[[StudyTables], pd.DataFrame]) -> pd.DataFrame:
    parts = []
    for setting, part in settings_apart(tables):
        frame = ask(part)
        if not frame.empty:
            parts.append(frame.assign(**setting))
    if not parts:
        return pd.DataFrame()
    whole = pd.concat(parts, ignore_index=True)
    first = [name for name in APART if name in whole]
    return whole[[*first, *(name for name in whole.columns if name not in first)]]


def _known(runs: pd.DataFrame) -> list[str]:
    return [name for name in OUTCOMES if name in runs and runs[name].notna().any()]


def _num_images(runs: pd.DataFrame) -> float:
    return float(pd.to_numeric(runs[IMAGES]).max()) if IMAGES in runs else np.nan


def _mean_and_sd(rows: pd.DataFrame, names: list[str] | None = None) -> dict[str, float]:
    values: dict[str, float] = {}
    for name in names if names is not None else _known(rows):
        values[name] = float(rows[name].mean())
        values[f"{name}_sd"] = float(rows[name].std(ddof=1))
    return values
