"""What a study says to do: the setting to take, what more accuracy costs, what is missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from driftscope.analysis.advice import Advice, Place, Setting, train_under
from driftscope.analysis.tables import StudyTables
from driftscope.analysis.words import counted, few_words, share_of_declared
from driftscope.analysis.zero_shot import written
from driftscope.metrics import KEPT_PCT

_FEW_SEEDS = 3


def chosen_cell(
    cells: Iterable[Mapping[Any, Any]], accuracy: str, budget_pct: float = KEPT_PCT
) -> Mapping[Any, Any] | None:
    """The most accurate cell whose every run keeps the budget; None where there is none.

    A mean above the budget is not enough: half of its runs may lie below. A run that diverged keeps
    nothing.

    Args:
        cells: rows of one dataset of `analysis.frontier`.
        accuracy: the key of their accuracy.
        budget_pct: the retention to keep.
    """
    kept = [one for one in cells if _surest_retention(one) >= budget_pct]
    return max(kept, key=lambda one: float(one[accuracy]), default=None)


def _surest_retention(cell: Mapping[Any, Any]) -> float:
    """Of a cell's lowest run, 0 where one diverged; its mean where imported means are all."""
    if _num_diverged(cell):
        return 0.0
    lowest = float(cell["lowest_retention_pct"])
    return lowest if lowest == lowest else float(cell["retention_pct"])


def _mean_or_lowest(cell: Mapping[Any, Any]) -> float:
    """The mean retention; of several transfer sets the lowest of a run on any of them."""
    return float(cell["lowest_retention_pct" if "lowest_on" in cell else "retention_pct"])


def _lowest_words(cell: Mapping[Any, Any]) -> str:
    """What a cell's lowest run keeps, and of several transfer sets on which."""
    on = f" on {cell['lowest_on']}" if "lowest_on" in cell else ""
    return f"its lowest run keeps {written('retention_pct', cell['lowest_retention_pct'])}{on}"


def _but_elsewhere(cell: Mapping[Any, Any]) -> str:
    """What a cell keeps on the transfer set where it keeps least; nothing where there is one."""
    return f": {_lowest_words(cell)}" if "lowest_on" in cell else ""


def _num_diverged(cell: Mapping[Any, Any]) -> int:
    return int(cell.get("num_diverged", 0))


def _but_diverged(cell: Mapping[Any, Any]) -> str:
    """That a cell's means are not of all its runs; nothing where they are."""
    count = _num_diverged(cell)
    return f", but {count} of its {count + cell['num_runs']} runs diverged" if count else ""


def setting_of(row: Mapping[Any, Any], accuracy: str) -> Setting:
    """A cell of `analysis.frontier` as advice names it."""
    return Setting(
        str(row["method"]),
        float(row["learning_rate"]),
        accuracy,
        float(row[accuracy]),
        float(row["retention_pct"]),
        _spread(row, accuracy),
        _spread(row, "retention_pct"),
    )


def _spread(row: Mapping[Any, Any], key: str) -> float | None:
    sd = float(row.get(f"{key}_sd", math.nan))
    return sd if math.isfinite(sd) else None


def advice_on_study(
    cells: pd.DataFrame,
    accuracy: str,
    budget_pct: float = KEPT_PCT,
    *,
    so_far: Mapping[str, str] | None = None,
    sets: Sequence[str] = (),
) -> list[Advice]:
    """What each dataset of a study says to do: the setting to take, what it costs, what is next.

    Args:
        cells: the table of `analysis.frontier`, one row a cell; empty gives no advice.
        accuracy: the key of its accuracy.
        budget_pct: the retention to keep.
        so_far: of each dataset of which runs are missing, how many of how many are there.
        sets: the transfer sets on which the budget is to be kept, where several were measured.
    """
    if cells.empty:
        return []
    on = f" on {'each of ' if len(sets) > 1 else ''}{few_words(sets)}" if sets else ""
    return [
        _on_dataset(
            str(dataset),
            rows.to_dict("records"),
            accuracy,
            budget_pct,
            so_far=(so_far or {}).get(str(dataset), ""),
            on=on,
        )
        for dataset, rows in cells.groupby("dataset", sort=True)
    ]


def runs_so_far(tables: StudyTables) -> dict[str, str]:
    """Of each dataset of which runs are missing, such as "6 of 80 declared runs so far".

    Where a result chose the runs, nobody knows how many of the missing ones it will choose.
    """
    if tables.missing.empty:
        return {}
    there = tables.runs["dataset"].value_counts()

    def told(count: int, missing: int) -> str:
        if "is_unsure" not in tables.missing:
            return f"{share_of_declared(count, missing)} so far"
        return f"{counted(count, 'run')} that fit so far, while {missing} more are declared"

    return {
        str(dataset): told(int(there.get(dataset, 0)), int(count))
        for dataset, count in tables.missing["dataset"].value_counts().items()
    }


def _on_dataset(
    dataset: str,
    cells: Sequence[Mapping[Any, Any]],
    accuracy: str,
    budget: float,
    *,
    so_far: str,
    on: str,
) -> Advice:
    place = f"{dataset}, by {so_far}" if so_far else dataset
    top = max(cells, key=lambda one: float(one[accuracy]))
    best = chosen_cell(cells, accuracy, budget)
    if best is None:
        nearest = max(cells, key=lambda one: (not _num_diverged(one), _mean_or_lowest(one)))
        return Advice(
            "lost",
            f"{place}: no setting keeps {budget:g} % in every run{on}; "
            f"{setting_of(nearest, accuracy).words} keeps "
            f"most{_but_diverged(nearest) or _but_elsewhere(nearest)}.",
            (
                "To keep a trained model: `driftscope rescue BEFORE RUN --images IMAGES --pool "
                "IMAGES --out rescued` blends it with the pretrained one, without training.",
                f"If you can train again: {_under_budget(budget)} Or add lower rates, LoRA or "
                "`last_block`.",
            ),
        )
    verdict = (
        f"{place}: take {setting_of(best, accuracy).words}, the most accurate {_whose(best)} "
        f"{budget:g} %{on}"
    )
    if best is top:
        steps = (*_seeds_step(best), *_probe_step(cells))
        others = "these" if so_far else "all"
        return Advice("kept", f"{verdict}, and the most accurate of {others}.", steps)
    steps = (
        *_on_average_alone(cells, accuracy, budget),
        *_price(best, top, accuracy),
        *_seeds_step(best),
        *_probe_step(cells),
        f"If you can train again: {_under_budget(budget)}",
    )
    return Advice("kept", f"{verdict}.", steps[:3])


def _under_budget(pct: float) -> str:
    return train_under(pct, Place("run"), "the `base` of the study's YAML")


def _on_average_alone(
    cells: Iterable[Mapping[Any, Any]], accuracy: str, budget: float
) -> Iterable[str]:
    """The cell that a mean alone would choose."""
    kept = [one for one in cells if one["retention_pct"] >= budget]
    first = max(kept, key=lambda one: float(one[accuracy]))
    if _surest_retention(first) < budget:
        doubt = _but_diverged(first) or f", but {_lowest_words(first)}"
        yield (
            f"Not surely: {setting_of(first, accuracy).words} keeps {budget:g} % on average{doubt}."
        )


def _whose(cell: Mapping[Any, Any]) -> str:
    if cell["lowest_retention_pct"] != cell["lowest_retention_pct"]:
        return "that keeps, on average,"
    return "whose run keeps" if cell["num_runs"] == 1 else "whose every run keeps"


def _price(take: Mapping[Any, Any], most: Mapping[Any, Any], accuracy: str) -> Iterable[str]:
    """What more accuracy costs, where it costs retention on average."""
    gained = most[accuracy] - take[accuracy]
    lost = take["retention_pct"] - most["retention_pct"]
    if gained <= 0 or lost <= 0:
        return
    yield (
        f"To gain {gained:.1f} points of accuracy: {setting_of(most, accuracy).words} is the most "
        f"accurate, for {lost:.1f} points of retention{_but_diverged(most)}. `driftscope "
        "rescue` on one of its runs may bring part of them back, without training."
    )


def _probe_step(cells: Iterable[Mapping[Any, Any]]) -> Iterable[str]:
    if not any(str(one["method"]).startswith("linear_probe") for one in cells):
        yield (
            "Before you choose: add `linear_probe` to the study, at high rates such as 1e-2 and "
            "1e-1. It leaves the encoder as it is, so a setting of no more accuracy is not worth "
            "having."
        )


def _seeds_step(cell: Mapping[Any, Any]) -> Iterable[str]:
    if cell["num_runs"] < _FEW_SEEDS:
        yield (
            f"Before you rely on it: it was run with {counted(cell['num_runs'], 'seed')}; run at "
            f"least {_FEW_SEEDS}."
        )
