"""The probes of a study's runs side by side: what was seen of each run, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from driftscope.analysis.tables import SIGNALS, Exclusion, leave_out
from driftscope.metrics import METRICS
from driftscope.stats.known_values import FloatArray

Mask: TypeAlias = NDArray[np.bool_]
Places: TypeAlias = NDArray[np.intp]
"""A probe a run, counted from 0; -1 is none."""

WATCHED = tuple(name for name in SIGNALS if METRICS[name].unchanged is not None)
"""Signals that have a value where nothing has changed; the training loss has none."""

IS_EPOCH = "is_epoch"
"""1 at the end of an epoch, 0 at a probe within one."""


@dataclass(frozen=True)
class Trajectories:
    """Runs with their probes in the order of steps.

    Attributes:
        runs: one row a run, of `usable_runs`.
        values: by column of the history, an array of runs × probes; NaN where nothing was read, and
            beyond a run's last probe.
    """

    runs: pd.DataFrame
    values: dict[str, FloatArray]

    @property
    def signals(self) -> list[str]:
        """The watched signals that were read."""
        return [name for name in WATCHED if name in self.values]

    def moved(self, signal: str) -> FloatArray:
        """How far a signal is from where nothing has changed, by size."""
        away: FloatArray = np.abs(self.values[signal] - float(METRICS[signal].unchanged or 0.0))
        return away

    def at(self, column: str, places: Places) -> FloatArray:
        """A column's value at a probe of each run; NaN where there is none."""
        found = self.values[column][np.arange(len(places)), places]
        return np.where(places >= 0, found, np.nan)

    @property
    def is_probe(self) -> Mask:
        """Where there is a probe."""
        known: Mask = np.isfinite(self.values["step"])
        return known

    @property
    def last(self) -> Places:
        """The last probe of each run."""
        places: Places = self.is_probe.sum(axis=1) - 1
        return places

    @property
    def ends_of_epochs(self) -> Mask:
        """Which probes are the ends of epochs; all of a run that has none, or does not say so."""
        ends: Mask = np.equal(self.values.get(IS_EPOCH, np.zeros(self.is_probe.shape)), 1)
        has_ends = ends.any(axis=1, keepdims=True)
        return np.where(has_ends, ends, self.is_probe)


def ends_of_epochs(history: pd.DataFrame) -> pd.DataFrame:
    """The rows of a history that are ends of epochs: of each run and epoch the last look.

    A look within an epoch bears its number too. Where a history does not say of what kind a row is,
    the end is the row of the highest step.
    """
    rows = history
    if "kind" in rows:
        rows = rows[rows["kind"].ne("probe")]
    if "step" in rows:
        rows = rows.sort_values("step", kind="stable")
    return rows.drop_duplicates(["run_id", "epoch"], keep="last")


def first_place(is_so: Mask) -> Places:
    """The first probe of each run at which something is so."""
    places: Places = np.where(is_so.any(axis=1), is_so.argmax(axis=1), -1)
    return places


def trajectories(
    history: pd.DataFrame,
    runs: pd.DataFrame,
    needed: Sequence[str],
    excluded: list[Exclusion],
) -> Trajectories | None:
    """The probes of these runs; None where no run has any.

    A probe without a step or without one of the needed columns is no probe.

    Args:
        history: one row a run and probe.
        runs: of `usable_runs`.
        needed: columns of the history that a probe must have.
        excluded: the runs without such probes are added here.
    """
    wanted = ["step", *needed]
    if not set(wanted) <= set(history.columns):
        excluded.append(Exclusion("runs", len(runs), f"no probes with {', '.join(wanted)}"))
        return None
    rows = history[history["run_id"].isin(runs["run_id"])]
    numbers = rows[wanted].apply(pd.to_numeric, errors="coerce")
    rows = rows[np.isfinite(numbers).all(axis=1)]
    rows = rows.sort_values(["run_id", "step"]).drop_duplicates(["run_id", "step"])
    has_probes = runs["run_id"].isin(rows["run_id"])
    why = f"no probes with {', '.join(wanted)}"
    runs = leave_out(runs, has_probes, "runs", why, excluded).reset_index(drop=True)
    if runs.empty:
        return None
    row_of = pd.Series(range(len(runs)), index=runs["run_id"])
    at = (row_of.loc[rows["run_id"]].to_numpy(), rows.groupby("run_id").cumcount().to_numpy())
    shape = (len(runs), int(at[1].max()) + 1)
    if "kind" in rows:
        rows = rows.assign(**{IS_EPOCH: rows["kind"] == "epoch"})
    columns = [*wanted, *(name for name in (*WATCHED, IS_EPOCH, "num_images") if name in rows)]
    values = {name: _filled(shape, at, rows[name]) for name in dict.fromkeys(columns)}
    return Trajectories(runs, {name: one for name, one in values.items() if np.isfinite(one).any()})


def _filled(shape: tuple[int, int], at: tuple[Any, Any], column: pd.Series[Any]) -> FloatArray:
    filled = np.full(shape, np.nan)
    filled[at] = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    return filled
