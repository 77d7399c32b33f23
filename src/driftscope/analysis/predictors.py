"""Predictors: which signal tells how much ability is retained, and how early."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import nan
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.answer import Answer, cannot_answer, lead_with, per_setting
from driftscope.analysis.grouping import usable_runs
from driftscope.analysis.natural_order import natural_groups
from driftscope.analysis.tables import (
    HIGH_MEANS_RETAINED,
    SIGNED_SIGNALS,
    Exclusion,
    StudyTables,
    label,
    present_signals,
    signal_name,
    without_missing,
)
from driftscope.analysis.trajectories import ends_of_epochs
from driftscope.analysis.words import (
    capitalised,
    counted,
    few_words,
    interval_text,
    rho_text,
)
from driftscope.stats.bootstrap import BootstrapInterval, spearman_over_cells
from driftscope.stats.correlation import correlation, partial_correlation
from driftscope.stats.discrimination import roc_auc

QUESTION = "predictors"
MIN_CELLS_FOR_INTERVAL = 8
"""From this many cells on, intervals are given."""

MIN_CELLS_FOR_RANKING = 6
"""With fewer cells no signal is said to go with retention most closely."""

TIE = 0.005
"""Signals whose |ρ| is as large to two decimals are named together."""

_GAP_COLUMNS = ["scope", "probe", "reference", "signal", "form", "gap", "low", "high"]

MIN_RUNS = 4
BUDGET_PCT = 80.0
"""The retention below which a run counts as damaged, for the AUC."""

NUM_RESAMPLES = 1_000
DRAWN_RUNS = 2_000_000
"""The runs that all resamples of a scope draw together: of more than 2,000 runs fewer are drawn."""

FEWEST_RESAMPLES = 200

ENTROPY = "delta_entropy_pct"
REFERENCE = "cka"
"""The signal that others are compared with head to head, fixed before any data are seen."""


def predictors(
    tables: StudyTables,
    *,
    budget_pct: float = BUDGET_PCT,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> Answer:
    """Every signal's Spearman correlation with retention: final and first probe, all and within.

    Scopes: "overall" (all datasets and methods pooled, and said to be), "dataset", "group" (one
    dataset × method) and "mean of groups" (the mean of the groups' ρ, and of their |ρ|). Signed
    signals are also taken by size. Intervals bootstrap cells, then seeds, from 8 cells up; of more
    than 2,000 runs by fewer resamples, and a remark says by how many.
    ``partial_rho`` holds log learning rate fixed.

    Returns:
        One row per scope, probe, signal and form; units are cells. Details: "gaps" (CKA's |ρ|
        minus each other signal's, paired over the same resamples) and "auc" (telling runs
        under ``budget_pct`` of retention from the rest; direction fixed in advance, the oriented
        AUC an upper bound).
    """
    return per_setting(
        QUESTION, tables, lambda part: _in_setting(part, budget_pct, num_resamples, seed)
    )


def _in_setting(tables: StudyTables, budget: float, num_resamples: int, seed: int) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    runs = without_missing(runs, ["retention_pct"], "runs", excluded)
    if len(runs) < MIN_RUNS or runs["cell"].nunique() < 3:
        return cannot_answer(QUESTION, "it needs retention of at least three cells", excluded)
    readings = {"final": runs}
    first = _first_probe(tables.history, runs)
    if first.empty:
        excluded.append(Exclusion("first probes", len(runs), "the runs have no history"))
    else:
        readings["first"] = first
    rows: list[dict[str, Any]] = []
    gaps: list[dict[str, Any]] = []
    aucs: list[dict[str, Any]] = []
    for probe, frame in readings.items():
        columns = _candidates(frame)
        for scope, dataset, method, part in _scopes(frame):
            keys = {"scope": scope, "dataset": dataset, "method": method, "probe": probe}
            part_rows, part_gaps = _correlations(part, columns, num_resamples, seed)
            rows += [{**keys, **row} for row in part_rows]
            gaps += [{**keys, **gap} for gap in part_gaps]
            if scope != "group":
                aucs += [{**keys, **row} for row in _aucs(part, columns, budget)]
    table = pd.concat([pd.DataFrame(rows), _means_of_groups(pd.DataFrame(rows))])
    compared = pd.DataFrame(gaps, columns=_GAP_COLUMNS)
    return Answer(
        question=QUESTION,
        sentence=_sentence(table, compared, runs),
        remarks=_remarks(table, compared, runs, num_resamples),
        table=lead_with(
            table.reset_index(drop=True), "signal", "form", "rho", "low", "high", "probe", "scope"
        ),
        unit="cells",
        num_units=int(runs["cell"].nunique()),
        excluded=tuple(excluded),
        details={"gaps": pd.DataFrame(gaps), "auc": pd.DataFrame(aucs)},
    )


def _first_probe(history: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with their signals as read at the end of the first epoch."""
    if history.empty or "epoch" not in history:
        return pd.DataFrame()
    ends = ends_of_epochs(history[history["run_id"].isin(runs["run_id"])])
    first = ends[ends["epoch"] >= 1].sort_values("epoch").drop_duplicates("run_id")
    signals = present_signals(first)
    if not signals:
        return pd.DataFrame()
    kept = ["run_id", "dataset", "series", "cell", "log10_learning_rate", "retention_pct"]
    return runs[kept].merge(first[["run_id", *signals]], on="run_id")


def _candidates(frame: pd.DataFrame) -> list[tuple[str, str]]:
    signals = present_signals(frame)
    return [
        (signal, form)
        for signal in signals
        for form in ("signed", *(("absolute",) if signal in SIGNED_SIGNALS else ()))
    ]


def _values(frame: pd.DataFrame, signal: str, form: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = frame[signal].to_numpy(dtype=np.float64)
    return np.abs(values) if form == "absolute" else values


def _scopes(frame: pd.DataFrame) -> Iterator[tuple[str, str, str, pd.DataFrame]]:
    yield "overall", "", "", frame
    if frame["dataset"].nunique() > 1:
        for dataset, part in frame.groupby("dataset", sort=True):
            yield "dataset", str(dataset), "", part
    for _, part in natural_groups(frame, ["dataset", "series"]):
        if len(part) >= MIN_RUNS and part["cell"].nunique() >= 3:
            yield "group", str(part["dataset"].iloc[0]), str(part["series"].iloc[0]), part


def _correlations(
    part: pd.DataFrame, columns: list[tuple[str, str]], num_resamples: int, seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    rows = []
    for signal, form in columns:
        values = _values(part, signal, form)
        finite = np.isfinite(values)
        kept = part[finite]
        rho = correlation(values[finite], kept["retention_pct"])
        partial = partial_correlation(values, part["retention_pct"], [part["log10_learning_rate"]])
        rows.append(
            {
                "signal": signal,
                "form": form,
                "rho": rho,
                "abs_rho": abs(rho),
                "low": nan,
                "high": nan,
                "partial_rho": partial,
                "num_runs": len(kept),
                "num_cells": int(kept["cell"].nunique()),
            }
        )
    gaps: list[dict[str, Any]] = []
    for members in _complete_together(part, columns):
        intervals, differences, reference = _intervals(
            part, [columns[k] for k in members], num_resamples, seed
        )
        for k, interval in zip(members, intervals, strict=True):
            rows[k].update(low=interval.low, high=interval.high)
        gaps += [
            {
                "reference": columns[members[reference]][0],
                "signal": columns[k][0],
                "form": columns[k][1],
                "gap": gap.estimate,
                "low": gap.low,
                "high": gap.high,
                "num_cells": gap.num_cells,
            }
            for k, gap in zip(members, differences, strict=True)
            if k != members[reference]
        ]
    return rows, gaps


def _complete_together(part: pd.DataFrame, columns: list[tuple[str, str]]) -> list[list[int]]:
    """Signals known on exactly the same runs share resamples; a gap compares only those."""
    groups: dict[bytes, list[int]] = {}
    for k, (signal, _) in enumerate(columns):
        finite = np.isfinite(part[signal].to_numpy(dtype=np.float64))
        cells = part.loc[finite, "cell"].nunique()
        if cells >= MIN_CELLS_FOR_INTERVAL:
            groups.setdefault(np.packbits(finite).tobytes(), []).append(k)
    return list(groups.values())


def _intervals(
    part: pd.DataFrame, columns: list[tuple[str, str]], num_resamples: int, seed: int
) -> tuple[list[BootstrapInterval], list[BootstrapInterval], int]:
    """Intervals of every ρ and of the reference signal's |ρ| less each other's; the reference."""
    kept = part[np.isfinite(part[columns[0][0]].to_numpy(dtype=np.float64))]
    names = [signal for signal, _ in columns]
    reference = names.index(REFERENCE) if REFERENCE in names else 0
    intervals, gaps = spearman_over_cells(
        np.column_stack([_values(kept, *column) for column in columns]),
        kept["retention_pct"],
        kept["cell"].to_numpy(dtype=str),
        reference=reference,
        num_resamples=_resamples(len(kept), num_resamples),
        seed=seed,
    )
    return intervals, gaps, reference


def _resamples(num_runs: int, most: int) -> int:
    """How many resamples an interval of so many runs rests on."""
    return min(most, max(DRAWN_RUNS // num_runs, FEWEST_RESAMPLES))


def _aucs(
    part: pd.DataFrame, columns: list[tuple[str, str]], budget: float
) -> Iterator[dict[str, Any]]:
    is_damaged = part["retention_pct"].to_numpy() < budget
    for signal, form in columns:
        if signal in SIGNED_SIGNALS and form == "signed":
            continue  # which sign means damage was not known in advance
        higher_means_damaged = signal not in HIGH_MEANS_RETAINED
        result = roc_auc(
            _values(part, signal, form), is_damaged, higher_means_positive=higher_means_damaged
        )
        yield {
            "signal": signal,
            "form": form,
            "budget_pct": budget,
            "higher_means_damaged": higher_means_damaged,
            "auc": result.auc,
            "oriented_auc_upper_bound": result.oriented_auc,
            "num_damaged": result.num_positive,
            "num_retained": result.num_negative,
        }


def _means_of_groups(rows: pd.DataFrame) -> pd.DataFrame:
    groups = rows[(rows["scope"] == "group") & rows["rho"].notna()]
    if groups.empty:
        return pd.DataFrame(columns=rows.columns)
    by_signal = groups.groupby(["probe", "signal", "form"], sort=False)
    means = by_signal.agg(
        rho=("rho", "mean"),
        abs_rho=("abs_rho", "mean"),
        partial_rho=("partial_rho", "mean"),
        num_groups=("rho", "size"),
        num_runs=("num_runs", "sum"),
        num_cells=("num_cells", "sum"),
    ).reset_index()
    return means.assign(scope="mean of groups", dataset="", method="", low=nan, high=nan)


def _sentence(table: pd.DataFrame, gaps: pd.DataFrame, runs: pd.DataFrame) -> str:
    num_cells = runs["cell"].nunique()
    if num_cells < MIN_CELLS_FOR_RANKING:
        return (
            f"{counted(num_cells, 'cell')} are too few to say which signal goes with retention: "
            f"{MIN_CELLS_FOR_RANKING} are needed."
        )
    parts = []
    for probe, words in (("final", "at the end"), ("first", "after the first epoch")):
        rows = table[(table["scope"] == "overall") & (table["probe"] == probe)]
        rows = rows[rows["rho"].notna()].sort_values("abs_rho", ascending=False)
        if len(rows):
            of_probe = gaps[(gaps["scope"] == "overall") & (gaps["probe"] == probe)]
            parts.append(_closest(rows, of_probe, words))
    if not parts:
        return "No signal varies in these data, so none goes with retention."
    datasets = sorted(runs["dataset"].astype(str).unique())
    if len(datasets) > 1:
        parts.append(f"All of that is pooled over {few_words(datasets)}.")
    return " ".join(parts)


def _closest(rows: pd.DataFrame, gaps: pd.DataFrame, when: str) -> str:
    """The signals of the largest |ρ|, ties named, and which cannot be told apart from them."""
    best = rows.iloc[0]
    ahead = rows[rows["abs_rho"] >= best["abs_rho"] - TIE]
    tied = [signal_name(row["signal"], row["form"]) for _, row in ahead.iterrows()]
    alike = [name for name in _not_apart(best, gaps) if name not in tied]
    if len(tied) > 1:
        measured = f"|ρ| = {rho_text(best['abs_rho'])}"
    else:
        interval = interval_text(best["low"], best["high"])
        measured = f"ρ = {rho_text(best['rho'])} {interval}".rstrip()
    measured += f" over {counted(best['num_runs'], 'run')}"
    measured += f" in {counted(best['num_cells'], 'cell')}"
    only = "the only signal recorded, " if rows["signal"].nunique() == 1 else ""
    text = (
        f"{capitalised(when)} retention goes most closely with {only}{few_words(tied)}"
        f"{' alike' if len(tied) > 1 else ''} ({measured})."
    )
    if not alike:
        return text
    them = "these" if len(tied) > 1 else "it"
    return f"{text} Not to be told apart from {them}: {few_words(alike)}."


def _not_apart(best: pd.Series[Any], gaps: pd.DataFrame) -> list[str]:
    """Signals whose |ρ| differs from the best one's by an interval that holds 0."""
    if gaps.empty:
        return []
    unsure = gaps[(gaps["low"] <= 0) & (gaps["high"] >= 0) & (gaps["signal"] != gaps["reference"])]
    if best["signal"] in set(gaps["reference"]):
        return [signal_name(row["signal"], row["form"]) for _, row in unsure.iterrows()]
    own = unsure[(unsure["signal"] == best["signal"]) & (unsure["form"] == best["form"])]
    return [signal_name(row["reference"], "signed") for _, row in own.iterrows()]


def _entropy_remarks(table: pd.DataFrame, gaps: pd.DataFrame) -> list[str]:
    """What Δ entropy's direction tells, what its size does, and whether less closely than CKA."""

    def told(row: Mapping[Any, Any]) -> str:
        return f"ρ = {rho_text(row['rho'])} {interval_text(row['low'], row['high'])}".rstrip()

    final = table[(table["scope"] == "overall") & (table["probe"] == "final")]
    by_form = {
        row["form"]: row
        for row in final[final["signal"] == ENTROPY].dropna(subset=["rho"]).to_dict("records")
    }
    if set(by_form) != {"signed", "absolute"}:
        return []
    signed, size = by_form["signed"], by_form["absolute"]
    is_unsure = signed["low"] <= 0 <= signed["high"]
    remarks = [
        f"The direction of Δ entropy {'is not shown to go with retention' if is_unsure else 'has'} "
        f"{f'({told(signed)})' if is_unsure else told(signed)}; its size has {told(size)}."
    ]
    gap = gaps[(gaps["scope"] == "overall") & (gaps["probe"] == "final")]
    gap = gap[(gap["signal"] == ENTROPY) & (gap["form"] == "absolute") & (gap["low"] > 0)]
    for row in gap.to_dict("records"):
        reference = final[final["signal"] == row["reference"]]["abs_rho"].iloc[0]
        remarks.append(
            f"The size goes with retention less closely than {label(row['reference'])} "
            f"(|ρ| {rho_text(size['abs_rho'])} against {rho_text(reference)}, difference "
            f"{rho_text(row['gap'])} {interval_text(row['low'], row['high'])})."
        )
    return remarks


def _remarks(
    table: pd.DataFrame, gaps: pd.DataFrame, runs: pd.DataFrame, num_resamples: int
) -> tuple[str, ...]:
    num_cells = runs["cell"].nunique()
    remarks = _entropy_remarks(table, gaps) if num_cells >= MIN_CELLS_FOR_RANKING else []
    within = table[(table["scope"] == "mean of groups") & (table["probe"] == "final")]
    flips = within[(within["form"] == "signed") & (within["rho"].abs() + 0.1 < within["abs_rho"])]
    if not flips.empty:
        flipping = few_words(label(name) for name in flips["signal"])
        remarks.append(f"Between dataset × method groups the sign of ρ flips for {flipping}.")
    if num_cells < MIN_CELLS_FOR_INTERVAL:
        remarks.append(f"{num_cells} cells are too few for intervals.")
    elif (drawn := _resamples(len(runs), num_resamples)) < num_resamples:
        remarks.append(
            f"The intervals over all {len(runs):,} runs rest on {drawn} resamples, not on "
            f"{num_resamples:,}, for time."
        )
    common = (
        ", the learning rate among their common causes"
        if runs["learning_rate"].nunique() > 1
        else ""
    )
    remarks.append(f"These are associations{common}.")
    return tuple(remarks)
