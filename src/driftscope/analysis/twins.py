"""Pairs of runs: those that differ in what was done beside the method, or in the method, alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from driftscope.analysis.grouping import NONE, SERIES_AXES, series_labels
from driftscope.analysis.tables import Exclusion
from driftscope.analysis.words import join_words


def is_treated(runs: pd.DataFrame) -> pd.Series[bool]:
    """Which runs had something done to them beside their method."""
    return runs["regularizer"].notna() & (runs["regularizer"] != NONE)


def twins(
    runs: pd.DataFrame, columns: Sequence[str], excluded: list[Exclusion], what: str = "runs"
) -> pd.DataFrame:
    """Each run with a regularizer beside its twin without; the twin's columns end in `_baseline`.

    Both share dataset, method, rate, every other option and seed. The `method` of a pair is its
    twin's series: the method and whatever else varies among its runs, but for the regularizer;
    `plain_method` is the method alone, and the options are beside it. A run without a twin is added
    to `excluded`.

    Args:
        runs: of `usable_runs`.
        columns: what is taken of both.
        excluded: what is left out.
        what: what a run without a twin is called.
    """
    others = [axis for axis in SERIES_AXES if axis != "regularizer"]
    keys = ["dataset", "plain_method", "method", "learning_rate", *others, "seed"]
    wanted = [*keys, *columns]
    series = series_labels(runs.drop(columns="regularizer"))
    runs = runs.assign(plain_method=runs["method"], method=series)
    treated, plain = (runs[which] for which in (is_treated(runs), ~is_treated(runs)))
    pairs = treated[[*wanted, "regularizer"]].merge(
        plain[wanted], on=keys, suffixes=("", "_baseline")
    )
    if lonely := len(treated) - len(pairs):
        excluded.append(Exclusion(what, lonely, "no unregularised twin"))
    return pairs


def held_apart(axes: pd.DataFrame, parts: Iterable[pd.DataFrame]) -> dict[str, list[str]]:
    """What each of several parts holds constant, but not all at the same value.

    Asking for it would leave no runs that agree.

    Args:
        axes: `grouping.axis_values` of all runs.
        parts: the runs of each part.

    Returns:
        Each part's value, by the name of the axis.
    """
    indices = [part.index for part in parts]
    values = {name: [set(axes.loc[index, name]) for index in indices] for name in map(str, axes)}
    return {
        name: [one.pop() for one in of_parts]
        for name, of_parts in values.items()
        if all(len(one) == 1 for one in of_parts) and len(set[str]().union(*of_parts)) > 1
    }


def alike(
    axes: pd.DataFrame, first: pd.DataFrame, second: pd.DataFrame
) -> tuple[pd.Series[int], str]:
    """Which runs of two methods agree in all else, and what all runs of one differ in.

    What is `held_apart` is not asked for, but told.

    Args:
        axes: `grouping.axis_values` of all runs.
        first: the runs of one method on one dataset.
        second: those of the other one.

    Returns:
        A number for each run, the same for those that agree, and the values that differ, such as
        "epochs 12 against 5".
    """
    apart = held_apart(axes, (first, second))
    asked = [name for name in map(str, axes) if name not in apart]
    numbers = axes.groupby(asked).ngroup() if asked else pd.Series(0, index=axes.index)
    told = [f"{name} {mine} against {others}" for name, (mine, others) in apart.items()]
    return numbers, join_words(told) if told else ""
