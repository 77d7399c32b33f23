"""What a signal is good for: picking a run, and the frontier that picks are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.answer import Answer, cannot_answer, lead_with, per_setting
from driftscope.analysis.grouping import cell_means, usable_runs
from driftscope.analysis.study_advice import advice_on_study, chosen_cell, runs_so_far
from driftscope.analysis.tables import (
    HIGH_MEANS_RETAINED,
    Exclusion,
    StudyTables,
    accuracy_column,
    label,
    present_signals,
    retention_columns,
    without_missing,
)
from driftscope.analysis.words import (
    MOST_LISTED,
    counted,
    few_words,
    join_words,
    rate_text,
    sentences,
    spread_text,
)
from driftscope.metric import number_text
from driftscope.metrics import KEPT_PCT, METRICS
from driftscope.stats.frontier import hypervolume, non_dominated

SELECTION = "selection"
FRONTIER = "frontier"
MARGIN_POINTS = 2.0
_ROUNDING = 1e-9
_AMONG = {"all runs": "all its runs", "each seed": "the runs of one seed"}
_PICKS = {"train_loss": "highest: fitted least"}


def selection_utility(tables: StudyTables, *, margin_points: float = MARGIN_POINTS) -> Answer:
    """The retention each signal picks among the runs that are accurate enough, and its regret.

    Candidates are the runs within ``margin_points`` of the best validation accuracy of their
    dataset; each rule picks one: the largest CKA, the smallest size of a drift, the largest
    training loss, which is the run that fitted least. Compared with the oracle (the best
    retention), a random pick (the mean), the worst, and the run of best validation accuracy. Two
    pools: all runs of a dataset (one decision), and each seed's runs apart (the mean over the
    seeds' decisions). Ties are picked at random: their mean. A pool of which
    no decision has two candidates, or whose candidates all keep the same, has nothing to choose and
    no rows.

    Returns:
        One row per dataset, pool and rule; units are choices of a run.
    """
    return per_setting(SELECTION, tables, lambda part: _selection(part, margin_points))


def _selection(tables: StudyTables, margin: float) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    runs = without_missing(runs, ["retention_pct", "val_accuracy_pct"], "runs", excluded)
    if runs.empty:
        return cannot_answer(
            SELECTION, "no run has both retention and validation accuracy", excluded
        )
    signals = present_signals(runs)
    rows, whys = [], []
    for dataset, group in runs.groupby("dataset", sort=True):
        decisions = {"all runs": [group]}
        by_seed = [part for _, part in group.groupby("seed") if len(part) > 1]
        if len(by_seed) > 1:
            decisions["each seed"] = by_seed
        for pool, parts in decisions.items():
            chosen = _pool_rows(str(dataset), pool, parts, signals, margin)
            why = _why_no_choice(chosen, margin)
            if not why:
                rows += chosen
                continue
            whys.append(why)
            excluded.append(
                Exclusion(f"choices on {dataset} among {_AMONG[pool]}", len(parts), why)
            )
    if not rows:
        reasons = join_words(dict.fromkeys(whys))
        return cannot_answer(SELECTION, f"there is no choice on any dataset: {reasons}", excluded)
    table = pd.DataFrame(rows)
    return Answer(
        question=SELECTION,
        sentence=_selection_sentence(table, margin),
        remarks=("One pool is one decision: this describes, it does not test.",),
        table=lead_with(table, "dataset", "pool", "rule", "retention_pct", "regret_points"),
        unit="choices of a run",
        num_units=int(table.groupby(["dataset", "pool"])["num_decisions"].first().sum()),
        excluded=tuple(excluded),
    )


def _why_no_choice(chosen: Sequence[Mapping[str, Any]], margin: float) -> str:
    """Why a pool's rules choose nothing; "" where they do."""
    if chosen[0]["num_candidates"] <= 1:
        return (
            f"only one run is within {margin:g} points of the best validation accuracy, so nothing "
            "is chosen"
        )
    kept = {row["rule"]: row["retention_pct"] for row in chosen}
    if kept["oracle"] - kept["worst"] <= _ROUNDING:
        return (
            f"all runs within {margin:g} points of the best validation accuracy keep the same, so "
            "there is nothing to choose by"
        )
    return ""


def _pool_rows(
    dataset: str, pool: str, parts: list[pd.DataFrame], signals: list[str], margin: float
) -> list[dict[str, Any]]:
    candidates = []
    for part in parts:
        best = part["val_accuracy_pct"].max()
        candidates.append(part[part["val_accuracy_pct"] >= best - margin - _ROUNDING])
    oracle = float(np.mean([c["retention_pct"].max() for c in candidates]))
    picks: dict[str, tuple[str, list[float]]] = {
        "oracle": ("highest retention", [c["retention_pct"].max() for c in candidates]),
        "random": ("any candidate", [c["retention_pct"].mean() for c in candidates]),
        "worst": ("lowest retention", [c["retention_pct"].min() for c in candidates]),
        "val_accuracy_pct": (
            "highest",
            [_picked(c, c["val_accuracy_pct"]) for c in candidates],
        ),
    }
    for signal in signals:
        is_high = signal in HIGH_MEANS_RETAINED
        scores = [c[signal] if is_high else -c[signal].abs() for c in candidates]
        picks[signal] = (
            _PICKS.get(signal, "highest") if is_high else "smallest size",
            [_picked(c, score) for c, score in zip(candidates, scores, strict=True)],
        )
    return [
        {
            "dataset": dataset,
            "pool": pool,
            "rule": rule,
            "picks": picks_what,
            "num_decisions": len(parts),
            "num_candidates": float(np.mean([len(c) for c in candidates])),
            "retention_pct": float(np.mean(retained)),
            "retention_pct_sd": float(np.std(retained, ddof=1)) if len(parts) > 1 else np.nan,
            "regret_points": oracle - float(np.mean(retained)),
        }
        for rule, (picks_what, retained) in picks.items()
    ]


def _picked(candidates: pd.DataFrame, score: pd.Series[float]) -> float:
    """The retention of the highest finite score; NaN where no candidate has one."""
    score = score.where(np.isfinite(score))
    return float(candidates.loc[score == score.max(), "retention_pct"].mean())


def _selection_sentence(table: pd.DataFrame, margin: float) -> str:
    parts = []
    for dataset, whole in table.groupby("dataset", sort=True):
        rows = whole[whole["pool"] == whole["pool"].iloc[0]]
        by_rule = rows.set_index("rule")["retention_pct"]
        signals = by_rule.drop(["oracle", "random", "worst", "val_accuracy_pct"]).dropna()
        ranked = signals.sort_values(ascending=False)
        kept = {rule: METRICS["retention_pct"].with_unit(value) for rule, value in by_rule.items()}
        alike: dict[str, list[str]] = {}
        for name in ranked.index:
            alike.setdefault(kept[name], []).append(label(str(name)))
        chosen = [f"by {few_words(names)} it keeps {value}" for value, names in alike.items()]
        parts.append(
            f"On {dataset}, of {_count_text(rows['num_candidates'].iloc[0])} such runs, the most "
            f"accurate one keeps {kept['val_accuracy_pct']}, one picked at random "
            f"{kept['random']}, the best {kept['oracle']}. {_picked_words(chosen)}"
            if chosen
            else f"On {dataset} no signal was read."
        )
    return (
        f"Which of the runs within {margin:g} points of the best validation accuracy to take? "
        f"{' '.join(parts)}"
    )


def _picked_words(chosen: Sequence[str]) -> str:
    """What the picks keep, the best first; of more than three kinds the best and the worst."""
    if len(chosen) > MOST_LISTED:
        chosen = [chosen[0], chosen[-1]]
    first, *others = (f"picked {one}" for one in chosen)
    return sentences([first, *others])


def _count_text(mean: float) -> str:
    """A mean number of candidates: whole where it is."""
    return number_text(mean, 0 if mean == round(mean) else 1)


def frontier(tables: StudyTables) -> Answer:
    """The cells that no other cell beats in both accuracy and retention, and the area they hold.

    Means over seeds of test accuracy (validation accuracy where there is no test) and retention on
    the first transfer set. What a cell keeps for sure is the lowest retention of its runs on any
    set that was measured (``lowest_retention_pct``, ``lowest_on``).
    The hypervolume is the area dominated above (0, 0), in percent²; 10,000 would be perfect
    accuracy at full retention.

    Returns:
        One row per cell, the frontier first; units are cells.
    """
    return per_setting(FRONTIER, tables, _frontier)


def _frontier(tables: StudyTables) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    accuracy = accuracy_column(runs)
    runs = without_missing(runs, ["retention_pct", accuracy], "runs", excluded)
    if runs.empty:
        return cannot_answer(FRONTIER, "no run has both retention and accuracy", excluded)
    cells = cell_means(runs, [accuracy, "retention_pct"])
    cells["num_diverged"] = cells["cell"].map(runs.groupby("cell")["num_diverged"].first())
    measured = retention_columns(runs)
    sets = _judged_sets(runs, measured)
    lowest = _lowest_retentions(runs, sets)
    cells = cells.merge(lowest, left_on="cell", right_index=True, how="left").drop(columns="cell")
    cells = cells.rename(columns={"series": "method", "method": "method_label"})
    cells = cells.drop(columns="method_label")
    cells["is_on_frontier"] = False
    cells["hypervolume_pct2"] = np.nan
    cells["method_hypervolume_pct2"] = np.nan
    for _, group in cells.groupby("dataset"):
        x, y = group[accuracy].to_numpy(), group["retention_pct"].to_numpy()
        cells.loc[group.index, "is_on_frontier"] = non_dominated(x, y)
        cells.loc[group.index, "hypervolume_pct2"] = hypervolume(x, y)
        for _, own in group.groupby("method"):
            cells.loc[own.index, "method_hypervolume_pct2"] = hypervolume(
                own[accuracy], own["retention_pct"]
            )
    table = cells.sort_values(
        ["dataset", "is_on_frontier", accuracy], ascending=[True, False, True]
    ).reset_index(drop=True)
    single = int((table["num_runs"] < 2).sum())
    remarks = []
    if single:
        remarks.append(
            f"{counted(single, 'cell')} of them hold one run, so their place is uncertain."
        )
    if lossy := int(table["num_diverged"].gt(0).sum()):
        remarks.append(
            f"In {counted(lossy, 'cell')} a run diverged. Means are of the others, but a diverged "
            "run keeps nothing, so such a cell is not advised."
        )
    areas = [
        f"{number_text(group['hypervolume_pct2'].iloc[0], 0)} %² on {dataset}"
        for dataset, group in table.groupby("dataset", sort=True)
    ]
    remarks.append(f"The area that the cells hold: {join_words(areas)}.")
    if len(sets) > 1:
        main, *others = sets
        remarks.append(
            f"Retention is that on {main}. A cell keeps {KEPT_PCT:.0f} % where its runs keep that "
            f"on {few_words(others)}, too."
        )
    if unjudged := [name for name in measured if name not in sets]:
        remarks.append(
            f"No cell is judged by {join_words(unjudged)}: some runs have no retention there, or "
            "are means of runs, of which the lowest is not known."
        )
    return Answer(
        FRONTIER,
        _frontier_sentence(table, accuracy),
        lead_with(table, "dataset", "method", "learning_rate", accuracy, "retention_pct",
                  "is_on_frontier"),
        "cells",
        len(table),
        tuple(excluded),
        remarks=tuple(remarks),
        advice=tuple(advice_on_study(table, accuracy, so_far=runs_so_far(tables),
                              sets=list(sets) if len(measured) > 1 else [])),
    )  # fmt: skip


def _judged_sets(runs: pd.DataFrame, measured: Mapping[str, str]) -> dict[str, str]:
    """The columns of the first transfer set, and of those that every run was measured on.

    Imported means are judged by the first alone: what their runs keep on each is lost.
    """
    main = next(iter(measured))
    have_means = "num_runs" in runs and bool(runs["num_runs"].fillna(1).gt(1).any())
    return {
        name: key
        for name, key in measured.items()
        if name == main or (not have_means and bool(runs[key].notna().all()))
    }


def _lowest_retentions(runs: pd.DataFrame, sets: Mapping[str, str]) -> pd.DataFrame:
    """By cell the lowest retention of any run on any set, and of several sets on which.

    NaN where an imported mean stands for several runs, whose lowest is lost.
    """
    by_set = pd.DataFrame({name: runs.groupby("cell")[key].min() for name, key in sets.items()})
    lowest = by_set.min(axis=1)
    if "num_runs" in runs:
        lowest = lowest.mask(runs.groupby("cell")["num_runs"].max().fillna(1) > 1)
    found = pd.DataFrame({"lowest_retention_pct": lowest})
    return found.assign(lowest_on=by_set.idxmin(axis=1)) if len(sets) > 1 else found


def _frontier_sentence(table: pd.DataFrame, accuracy: str) -> str:
    """The most accurate cell, the most accurate that keeps its ability, how many are worth it."""
    parts = []
    for dataset, group in table.groupby("dataset", sort=True):
        rows = group.to_dict("records")
        top = max(rows, key=lambda one: float(one[accuracy]))
        text = f"On {dataset} the most accurate cell is {_cell(top, accuracy)}"
        best = chosen_cell(rows, accuracy)
        if best is None:
            text += f". No cell keeps {KEPT_PCT:.0f} % in every run"
        elif best is not top:
            text += f". Of those whose every run keeps at least {KEPT_PCT:.0f} % it is "
            text += _cell(best, accuracy)
        on = group[group["is_on_frontier"]]
        named = few_words(dict.fromkeys(on["method"]))
        if len(group) > 1:
            verb = "is" if len(on) == 1 else "are"
            text += f". {len(on)} of {len(group)} cells ({named}) {verb} beaten by no other in both"
        parts.append(f"{text}.")
    return " ".join(parts)


def _cell(cell: Mapping[Any, Any], accuracy: str) -> str:
    """A cell's name, its accuracy and its retention, each ± sd over seeds."""
    reached, kept = (
        spread_text(cell[name], cell[f"{name}_sd"], METRICS[name].decimals)
        for name in (accuracy, "retention_pct")
    )
    diverged = f", {cell['num_diverged']} more diverged" if cell["num_diverged"] else ""
    return (
        f"{cell['method']} at {rate_text(cell['learning_rate'])} ({label(accuracy)} {reached} %, "
        f"retention {kept} %, {counted(cell['num_runs'], 'seed')}{diverged})"
    )
