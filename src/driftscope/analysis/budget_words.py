"""What the question `budgets` says in words, and how far two ways are apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from driftscope.analysis.words import (
    counted,
    join_words,
    rate_text,
    sentences,
    spread_text,
)
from driftscope.metric import number_text
from driftscope.metrics import METRICS

Row: TypeAlias = Mapping[Any, Any]

TRAINED = "training under the budget"
PLAIN = "training without a budget"
PROBE = "linear probe"
STOPPED = "stop by the estimate"
"""The ways beside those of a rescue."""

_FIRST = (TRAINED, PLAIN, PROBE, STOPPED)

VALIDATION, OWN, ANEW = "validation images", "test images", "test images, classifier fitted anew"
"""What an accuracy was read on."""

LOW = "low_90_pct"
"""The lower end of the estimate's 90 % interval, by which a budget is kept."""

_RETENTION = "retention_pct"


@dataclass(frozen=True)
class Gap:
    """How much more accurate one way is than another.

    Attributes:
        points: the difference; over the seeds that both have where these are at least two, else
            between their means.
        standard_error: of the paired differences or of the two means; NaN where one of the ways
            has a single run and no two seeds are common.
        num_pairs: seeds that both have; 0 where means are compared.
    """

    points: float
    standard_error: float
    num_pairs: int

    @classmethod
    def of(cls, first: pd.Series[float], second: pd.Series[float]) -> Gap:
        """Of two ways' accuracies in percent by seed."""
        both = pd.concat([first, second], axis=1, join="inner").dropna()
        if len(both) > 1:
            apart = both.iloc[:, 0] - both.iloc[:, 1]
            return cls(float(apart.mean()), float(apart.std() / math.sqrt(len(both))), len(both))
        squares = [float(one.var() / len(one)) for one in (first, second)]
        return cls(float(first.mean() - second.mean()), float(np.sqrt(sum(squares))), 0)

    @property
    def words(self) -> str:
        """Where the second stands, such as "0.4 ± 0.1 points behind"."""
        where = "behind" if self.points >= 0 else "ahead"
        if self.points == self.standard_error == 0:
            return "as accurate"
        if math.isnan(self.standard_error):
            return f"{number_text(abs(self.points), 1)} points {where}, of single runs"
        told = f"{spread_text(abs(self.points), self.standard_error, 1)} points {where}"
        return f"{told}, no more than noise tells apart" if self.is_noise else told

    @property
    def is_noise(self) -> bool:
        """Whether it is smaller than twice its standard error, or nothing."""
        return abs(self.points) < 2 * self.standard_error or self.points == 0


def budget_sentence(table: pd.DataFrame, outcomes: pd.DataFrame, accuracy: str) -> str:
    """Of every dataset and budget the most accurate way, the training under it, and the probe.

    Where runs were trained under budgets, those of rescues alone are left to the remarks.

    Args:
        table: of `budgets`, the most accurate way that keeps the budget first.
        outcomes: one row a run, way and budget.
        accuracy: the key of their accuracy.
    """
    told = [
        "at each budget the most accurate way is named that keeps it in the mean, by its accuracy "
        "and its measured retention"
    ]
    return sentences([*told, *_at_budgets(table, outcomes, accuracy, _is_asked(table))])


def _is_asked(table: pd.DataFrame) -> pd.Series[bool]:
    """The rows of budgets under which runs were trained; all where there is none."""
    trained = table.loc[table["way"].eq(TRAINED), "budget_pct"].unique()
    is_asked = table["budget_pct"].isin(trained)
    return is_asked if is_asked.any() else ~is_asked


def _at_budgets(
    table: pd.DataFrame, outcomes: pd.DataFrame, accuracy: str, which: pd.Series[bool]
) -> Iterator[str]:
    at = ["dataset", "budget_pct"]
    outcomes_at = dict(iter(outcomes.groupby(at)))
    for (dataset, budget), rows in table[which].groupby(at, sort=True):
        where = f"on {dataset} at {budget:g} %"
        ways: list[Row] = [*rows.to_dict("records")]
        kept = [row for row in ways if row["is_kept"] and row[accuracy] == row[accuracy]]
        if not kept:
            yield f"{where} no way keeps the budget in the mean"
            continue
        yield f"{where} it is {way_text(kept[0])}: {_reached(kept[0], accuracy)}"
        yield from _beside(kept, ways, outcomes_at[dataset, budget], accuracy)


def ways_in_order(ways: Iterable[str]) -> tuple[str, ...]:
    """The distinct ways as every legend lists them, those of a rescue last."""
    return tuple(
        sorted(set(ways), key=lambda way: (way not in _FIRST, [*_FIRST, way].index(way), way))
    )


def way_text(row: Row) -> str:
    """A way and its cell, such as "rescue by search (lp_ft at 1e-3)"."""
    rate = float(row["learning_rate"])
    at = f" at {rate_text(rate)}" if rate == rate else ""
    way = f"the {PROBE}" if row["way"] == PROBE else row["way"]
    return f"{way} ({row['method']}{at})"


def _reached(row: Row, accuracy: str) -> str:
    read = {
        name: spread_text(row[key], row[f"{key}_sd"], METRICS[key].decimals)
        for name, key in (("accuracy", accuracy), ("retention", _RETENTION))
    }
    return (
        f"{read['accuracy']} %, retention {read['retention']} %, kept in {row['num_kept']} of "
        f"{counted(row['num_runs'], 'run')}"
    )


def _beside(
    kept: list[Row], ways: list[Row], outcomes: pd.DataFrame, accuracy: str
) -> Iterator[str]:
    """How far the best training under the budget, or the best other way, and the probe are."""

    first = kept[0]

    def gap(row: Row) -> str:
        return Gap.of(*(_by_seed(one, outcomes, accuracy) for one in (first, row))).words

    is_trained = first["way"] == TRAINED
    rivals = [row for row in kept if (row["way"] == TRAINED) != is_trained]
    if rivals:
        named = "the best other way, {}," if is_trained else "the best {}"
        yield f"{named.format(way_text(rivals[0]))} is {gap(rivals[0])}"
    elif is_trained:
        yield "nothing else in the study keeps it in the mean"
    elif any(row["way"] == TRAINED for row in ways):
        yield "no training under the budget keeps it in the mean"
    probes = [row for row in kept if row["way"] == PROBE]
    if probes and first["way"] != PROBE and rivals[:1] != probes[:1]:
        yield f"the linear probe is {gap(probes[0])}"


def _by_seed(row: Row, outcomes: pd.DataFrame, accuracy: str) -> pd.Series[float]:
    """The accuracies of a row's runs by seed."""
    is_its = (
        outcomes["way"].eq(row["way"])
        & outcomes["series"].eq(row["method"])
        & np.isclose(outcomes["learning_rate"], row["learning_rate"], rtol=0, equal_nan=True)
    )
    found: pd.Series[float] = outcomes[is_its].set_index("seed")[accuracy]
    return found


def budget_remarks(
    table: pd.DataFrame, outcomes: pd.DataFrame, accuracy: str, stopped_by: str
) -> Iterator[str]:
    """The budgets of rescues alone, and what limits the answer; arguments as `budget_sentence`.

    `stopped_by` is the column of the history by which a run stops.
    """
    others = sentences(_at_budgets(table, outcomes, accuracy, ~_is_asked(table)))
    if others:
        yield others
    yield (
        "Of each kind of training the most accurate cell is taken that keeps the budget in the "
        "mean, by the runs that are shown: the more rates and weights a kind has, the more this "
        "favours it. A difference has its standard error, over the seeds that both have; below "
        "twice that it is called noise."
    )
    anew = outcomes["accuracy_on"].eq(ANEW)
    if anew.any():
        own = _images(outcomes[outcomes["accuracy_on"].eq(OWN)])
        yield (
            "The accuracy of a rescue is that of a classifier fitted anew to some of the training "
            f"images. It is read on {_images(outcomes[anew])} test images"
            + (f", that of runs on {own}." if own else ".")
        )
    stops = outcomes[outcomes["way"].eq(STOPPED)]
    if len(stops):
        yield from _on_stops(stops, is_by_low=stopped_by == LOW)
    if table["num_diverged"].gt(0).any():
        yield (
            "A cell of which a run diverged does not count as keeping a budget, and has no "
            "accuracy: a diverged run keeps nothing."
        )
    if (~table["is_kept"] & table["way"].ne(TRAINED)).any():
        yield (
            "A kind of training of which no cell keeps the budget in the mean stands without an "
            "accuracy, by the cell that keeps most."
        )


def _images(outcomes: pd.DataFrame) -> str:
    """How many test images accuracies are of, the fewest and the most; "" where it is not known."""
    sizes = outcomes["test_num_images"].dropna()
    ends = dict.fromkeys((sizes.min(), sizes.max())) if len(sizes) else ()
    return " to ".join(f"{size:,.0f}" for size in ends)


def _on_stops(stops: pd.DataFrame, *, is_by_low: bool) -> Iterator[str]:
    by = "the lower end of the estimate's 90 % interval" if is_by_low else "the estimate itself"
    yield (
        f"A stop takes the last look before {by} is under the budget. Its accuracy is on "
        "validation images, and the learning rate's schedule is that of the whole run."
    )
    nothing = stops.assign(nothing=stops[_RETENTION].isna())
    for dataset, rows in nothing.groupby("dataset", sort=True):
        by_budget = rows.groupby("budget_pct")["nothing"]
        counts = [f"{n} at {pct:g} %" for pct, n in by_budget.sum().items() if n]
        if counts:
            yield (
                f"On {dataset}, of {counted(int(by_budget.size().max()), 'plain run')} the first "
                f"look is under the budget in {join_words(counts)}; there a stop keeps the "
                "pretrained model."
            )
