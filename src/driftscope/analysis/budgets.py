"""Budgets: at a retention to keep, which way of training, rescuing or stopping learns most?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from driftscope.analysis.answer import Answer, cannot_answer, lead_with, per_setting
from driftscope.analysis.budget_words import (
    ANEW,
    LOW,
    OWN,
    PLAIN,
    PROBE,
    STOPPED,
    TRAINED,
    VALIDATION,
    budget_remarks,
    budget_sentence,
)
from driftscope.analysis.grouping import (
    in_reading_order,
    means_and_spreads,
    seeded_runs,
    usable_runs,
)
from driftscope.analysis.tables import (
    Exclusion,
    StudyTables,
    accuracy_column,
    retention_columns,
    without_missing,
)
from driftscope.analysis.trajectories import Trajectories, first_place, trajectories
from driftscope.analysis.twins import is_treated
from driftscope.analysis.words import few_words
from driftscope.metrics import ESTIMATED

QUESTION = "budgets"
UNTOUCHED = "untouched model"
"""Of what a linear probe is that a rescue fits, as its classifiers are; it has no rate."""

_VAL_ACCURACY, _RETENTION = "val_accuracy_pct", "retention_pct"
_RUN = ["dataset", "method", "series", "learning_rate", "seed"]
_KIND = ["dataset", "way", "kind"]
_CELL = [*_KIND, "series", "learning_rate", "accuracy_on"]
_WEIGHT = re.compile(r"_\d.*")


def budgets(tables: StudyTables) -> Answer:
    """What each way learns that keeps a budget, and how much it keeps, measured.

    The budgets are those under which runs were trained, and those of rescues (`post`). A way is

    - training under the budget: a row a cell;
    - training without one, a linear probe among it: of each method, and of each method with each
      kind of penalty, the cell of the highest mean accuracy among those whose mean measured
      retention is at least the budget;
    - a rescue, by each way of `post`: of the same kinds the cell that is best so. Its accuracy is
      that of a classifier fitted anew.
      With it comes a linear probe on the untouched model that is fitted as these classifiers are;
    - a stop by the estimate from the pool, replayed on plain runs: the last look before the first
      one at which the lower end of the estimate's 90 % interval is under the budget. Accuracy is on
      validation images. A run whose first look is under it would keep the pretrained model; it has
      no accuracy, nor has its cell. A linear probe, which moves nothing, is not stopped.

    Where no cell of a kind keeps the budget in the mean, its row is the cell that keeps most,
    without an accuracy. A cell of which a run diverged does not keep it: that run keeps nothing.

    Returns:
        One row a dataset, budget and way, the most accurate that keeps the budget first; units are
        cells.
    """
    return per_setting(QUESTION, tables, _in_setting)


def _in_setting(tables: StudyTables) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    runs = seeded_runs(runs, "means without runs do not say which run keeps a budget", excluded)
    if "budget_pct" not in runs:
        runs["budget_pct"] = np.nan
    if not _asked(runs, tables.rescues):
        return cannot_answer(
            QUESTION,
            "no run was trained under a budget or rescued at one; give budget: {retention_pct: "
            "90}, or post: [search] and a pool, in the spec",
            excluded,
        )
    accuracy = accuracy_column(runs)
    runs = without_missing(runs, [_RETENTION, accuracy], "runs", excluded)
    asked = _asked(runs, tables.rescues)
    if not asked:
        return cannot_answer(
            QUESTION, "no run with a budget or a rescue has both retention and accuracy", excluded
        )
    runs["kind"] = _kinds(runs)
    seen, stopped_by = _followed(tables.history, runs, excluded)
    found = {
        budget: _outcomes(runs, tables.rescues, seen, stopped_by, budget, accuracy)
        for budget in asked
    }
    outcomes = pd.concat(found.values(), ignore_index=True)
    rows = [_ways(mine, budget, accuracy) for budget, mine in found.items()]
    table = pd.concat(rows, ignore_index=True)
    table = table.sort_values(["dataset", "budget_pct"], kind="stable", ignore_index=True)
    return Answer(
        question=QUESTION,
        sentence=budget_sentence(table, outcomes, accuracy),
        remarks=(*budget_remarks(table, outcomes, accuracy, stopped_by), *_sets_remark(runs)),
        table=lead_with(
            table,
            *("dataset", "budget_pct", "way", "method", "learning_rate", accuracy, _RETENTION),
            *("is_kept", "num_kept", "num_runs", "num_diverged", "lowest_retention_pct"),
        ),
        unit="cells",
        num_units=int(runs["cell"].nunique()),
        excluded=tuple(excluded),
    )


def _sets_remark(runs: pd.DataFrame) -> list[str]:
    """That one transfer set decides, where several were measured."""
    main, *others = retention_columns(runs)
    if not others:
        return []
    return [f"Kept is what is kept on {main} alone. Retention on {few_words(others)} is not asked."]


def _asked(runs: pd.DataFrame, rescues: pd.DataFrame) -> list[float]:
    """The budgets, in percent, from the lowest."""
    asked = set(runs["budget_pct"].dropna())
    if len(rescues):
        is_measured = rescues["run_id"].isin(runs["run_id"]) & rescues[_RETENTION].notna()
        asked |= set(rescues.loc[is_measured, "budget_pct"].dropna())
    return sorted(map(float, asked))


def _kinds(runs: pd.DataFrame) -> pd.Series[str]:
    """Method and kinds of penalties, without their weights, such as `full_ft, l2_sp`."""
    named = runs["regularizer"].where(is_treated(runs), "")
    parts = ["+".join(_WEIGHT.sub("", one) for one in name.split("+")) for name in named]
    said = pd.Series([f", {part}" if part else "" for part in parts], index=runs.index, dtype=str)
    kinds: pd.Series[str] = runs["method"].astype(str) + said
    return kinds


# ---------------------------------------------------------------- what each run learns and keeps


def _outcomes(
    runs: pd.DataFrame,
    rescues: pd.DataFrame,
    seen: Trajectories | None,
    stopped_by: str,
    budget: float,
    accuracy: str,
) -> pd.DataFrame:
    """One row a run and way at a budget: its accuracy and measured retention, in percent."""
    own_images = OWN if accuracy == "test_accuracy_pct" else VALIDATION
    under = runs[runs["budget_pct"].eq(budget)]
    cells = [f"{one.series} {one.learning_rate:g}" for one in under.itertuples()]
    free = runs[runs["budget_pct"].isna()]
    is_probe = _is_probe(free)
    parts = [
        under.assign(way=TRAINED, kind=cells, accuracy_on=own_images),
        free.assign(way=np.where(is_probe, PROBE, PLAIN), accuracy_on=own_images),
        *_rescued(rescues, runs, budget, accuracy),
        *([] if seen is None else [_stopped(seen, stopped_by, budget, accuracy)]),
    ]
    counts = ["num_diverged", "test_num_images"]
    wanted = [*_RUN, "way", "kind", "accuracy_on", *counts, accuracy, _RETENTION]
    filled = [one.reindex(columns=wanted) for one in parts if len(one)]
    return pd.concat(filled, ignore_index=True).assign(budget_pct=budget)


def _is_probe(runs: pd.DataFrame) -> pd.Series[bool]:
    return runs["method"].astype(str).str.startswith("linear_probe")


def _rescued(
    rescues: pd.DataFrame, runs: pd.DataFrame, budget: float, accuracy: str
) -> Iterator[pd.DataFrame]:
    """What each way of a rescue keeps of the runs at a budget; nothing without rescues.

    And a linear probe on the untouched model, as a rescue's end: one a dataset and seed.
    """
    if rescues.empty:
        return
    measured = ["run_id", "way", "refitted_accuracy_pct", _RETENTION, "test_num_images"]
    found = rescues.dropna(subset=measured).rename(columns={"refitted_accuracy_pct": accuracy})
    found = found[["budget_pct", *(found.columns.intersection([accuracy, *measured]))]]
    named = (
        runs[runs["budget_pct"].isna()][["run_id", "kind", "num_diverged", *_RUN]]
        .merge(found, on="run_id")
        .assign(accuracy_on=ANEW)
    )
    at_budget = named[named["budget_pct"].eq(budget)]
    yield at_budget.assign(way=[f"rescue by {way}" for way in at_budget["way"]])
    probes = named[named["way"].eq("pretrained")].drop_duplicates(["dataset", "seed"])
    yield probes.assign(
        way=PROBE, kind=UNTOUCHED, series=UNTOUCHED, learning_rate=np.nan, num_diverged=0
    )


def _followed(
    history: pd.DataFrame, runs: pd.DataFrame, excluded: list[Exclusion]
) -> tuple[Trajectories | None, str]:
    """The looks at plain runs, and the column that stops them: older records have no lower end."""
    plain = runs[runs["budget_pct"].isna() & ~is_treated(runs) & ~_is_probe(runs)]
    has_low = LOW in history and bool(history[LOW].notna().any())
    by = LOW if has_low else ESTIMATED
    left_out: list[Exclusion] = []
    seen = trajectories(history, plain, [_VAL_ACCURACY, _RETENTION, by], left_out)
    what = "runs, in the stop by the estimate"
    excluded += [Exclusion(what, one.count, one.why) for one in left_out if one.count]
    return seen, by


def _stopped(seen: Trajectories, by: str, budget: float, accuracy: str) -> pd.DataFrame:
    """Where each run stops; NaN where its first look is under the budget."""
    first = first_place(seen.values[by] < budget)
    places = np.where(first < 0, seen.last, first - 1)
    read = {accuracy: seen.at(_VAL_ACCURACY, places), _RETENTION: seen.at(_RETENTION, places)}
    return seen.runs.assign(way=STOPPED, accuracy_on=VALIDATION, test_num_images=np.nan, **read)


# ---------------------------------------------------------------- the best cell of each kind


def _ways(outcomes: pd.DataFrame, budget: float, accuracy: str) -> pd.DataFrame:
    """One row a dataset and way at a budget, the most accurate that keeps it first."""
    cells = _cells(outcomes, budget, accuracy)
    learns = cells["is_kept"] & cells[accuracy].notna()
    is_shown = learns | cells["way"].eq(TRAINED)
    columns = [accuracy, f"{accuracy}_sd"]
    cells[columns] = cells[columns].where(is_shown)
    ranked = _ranked(cells.assign(learns=learns), accuracy)
    best = _ranked(ranked.drop_duplicates(_KIND), accuracy)
    best = best.drop(columns=["learns", "kind"]).rename(columns={"series": "method"})
    return best.assign(budget_pct=budget)


def _ranked(cells: pd.DataFrame, accuracy: str) -> pd.DataFrame:
    """Those that keep the budget and have an accuracy first, by it; of equals who keeps more."""
    keys = ["dataset", "learns", accuracy, _RETENTION]
    rows: pd.DataFrame = cells.sort_values(
        keys, ascending=[True, False, False, False], kind="stable"
    )
    return rows


def _cells(outcomes: pd.DataFrame, budget: float, accuracy: str) -> pd.DataFrame:
    """Means over the seeds of every cell and way, and how many of its runs keep the budget.

    A cell of which a run learns nothing or diverged has no accuracy: a mean over the others would
    flatter it.
    """
    measured = [accuracy, _RETENTION]
    cells = means_and_spreads(outcomes, _CELL, measured)
    keeps = outcomes[_RETENTION] >= budget
    told = outcomes.assign(keeps=keeps, learns_nothing=outcomes[accuracy].isna())
    groups = told.groupby(_CELL, sort=True, dropna=False)
    cells["num_kept"] = groups["keeps"].sum().to_numpy(dtype=np.int64)
    cells["num_untrained"] = groups["learns_nothing"].sum().to_numpy(dtype=np.int64)
    cells["lowest_retention_pct"] = groups[_RETENTION].min().to_numpy()
    cells["num_diverged"] = groups["num_diverged"].max().to_numpy(dtype=np.int64)
    has_gap = cells[["num_untrained", "num_diverged"]].gt(0).any(axis=1)
    columns: Sequence[str] = [accuracy, f"{accuracy}_sd"]
    cells[columns] = cells[columns].mask(has_gap)
    cells["is_kept"] = (cells[_RETENTION] >= budget) & ~has_gap
    ordered: pd.DataFrame = in_reading_order(cells, ["dataset"], ["learning_rate"])
    return ordered
