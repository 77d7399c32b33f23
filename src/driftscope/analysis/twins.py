"""Pairs of runs that differ in what was done beside the method alone: penalties, interventions."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from driftscope.analysis.grouping import SERIES_AXES
from driftscope.analysis.tables import Exclusion

NONE = "none"
"""The `regularizer` of a run to which nothing was done beside its method."""


def is_treated(runs: pd.DataFrame) -> pd.Series[bool]:
    """Which runs had something done to them beside their method."""
    return runs["regularizer"].notna() & (runs["regularizer"] != NONE)


def twins(
    runs: pd.DataFrame, columns: Sequence[str], excluded: list[Exclusion], what: str = "runs"
) -> pd.DataFrame:
    """Each run with a regularizer beside its twin without; the twin's columns end in `_baseline`.

    Both share dataset, method, rate, every other option and seed. A run without a twin is added to
    `excluded`.

    Args:
        runs: of `usable_runs`.
        columns: what is taken of both.
        excluded: what is left out.
        what: what a run without a twin is called.
    """
    others = [axis for axis in SERIES_AXES if axis != "regularizer"]
    keys = ["dataset", "method", "learning_rate", *others, "seed"]
    wanted = [*keys, *columns]
    treated, plain = (runs[which] for which in (is_treated(runs), ~is_treated(runs)))
    pairs = treated[[*wanted, "regularizer"]].merge(
        plain[wanted], on=keys, suffixes=("", "_baseline")
    )
    if lonely := len(treated) - len(pairs):
        excluded.append(Exclusion(what, lonely, "no unregularised twin"))
    return pairs
