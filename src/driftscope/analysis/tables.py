"""The tables of a study, and what every question does to them first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import pandas as pd

from driftscope.errors import ConfigError, did_you_mean

SETTING = ("model", "protocol", "transfer")
"""What must be equal before two runs may enter one statistic."""

SERIES_AXES = ("regularizer", "epochs", "batch_size", "weight_decay", "data_seed", "options")
"""What, beside dataset, method, rate and seed, tells two runs of a study apart, where it varies."""

_AXIS_WORDS = {
    "regularizer": "",
    "epochs": "epochs ",
    "batch_size": "batch ",
    "weight_decay": "weight decay ",
    "data_seed": "data seed ",
    "options": "",
}

SIGNALS = (
    "cka",
    "cka_debiased",
    "embedding_drift",
    "weight_drift",
    "delta_entropy_pct",
    "delta_erf95_pct",
    "delta_gini_pct",
    "delta_head_diversity_pct",
    "train_loss",
)
"""The signals asked about, by column."""

SIGNED_SIGNALS = tuple(name for name in SIGNALS if name.startswith("delta_"))
"""Those whose sign carries meaning, so that their size is a second candidate."""

HIGH_MEANS_RETAINED = frozenset({"cka", "cka_debiased", "train_loss"})
"""Signals of which a high value should mean high retention; of the others, a small size.

Fixed here, before any data are seen: nothing was changed where CKA is 1 and the drifts are 0, and
a run that fitted less (a higher training loss) should have moved less.
"""

LABELS = {
    "cka": "CKA",
    "cka_debiased": "debiased CKA",
    "embedding_drift": "embedding drift",
    "weight_drift": "weight drift",
    "delta_entropy_pct": "Δentropy",
    "delta_erf95_pct": "ΔERF",
    "delta_gini_pct": "Δgini",
    "delta_head_diversity_pct": "Δhead diversity",
    "train_loss": "training loss",
    "retention_pct": "retention",
    "test_accuracy_pct": "test accuracy",
    "val_accuracy_pct": "validation accuracy",
}

_KEYS = ("run_id", "dataset", "method", "learning_rate", "seed")
_NUMBERS = (
    "learning_rate",
    "val_accuracy_pct",
    "test_accuracy_pct",
    "retention_pct",
    *SIGNALS,
)

Wanted: TypeAlias = str | float | Iterable[str | float]


def _no_subsets() -> pd.DataFrame:
    return pd.DataFrame(columns=["run_id", "subset", "num_images", "signal", "value"])


@dataclass(frozen=True)
class StudyTables:
    """A study as tables (columns: see the run-table schema in docs).

    Attributes:
        runs: one row a run (or an imported cell mean: seed NaN, ``num_runs`` its runs).
        history: one row a run and epoch.
        layers: one row a run and layer, layers from 1.
        subsets: one row a run, probe subset and signal, where readings were repeated on subsets:
            run_id, subset, num_images, signal, value.
        heads: one row a run, layer and head, where heads are known: entropy_nats and
            pretrained_entropy_nats among others.
        classes: one row a run and class of the transfer set: class, num_images, pretrained_pct,
            adapted_pct, retention_pct.
    """

    runs: pd.DataFrame
    history: pd.DataFrame
    layers: pd.DataFrame
    subsets: pd.DataFrame = field(default_factory=_no_subsets)
    heads: pd.DataFrame = field(default_factory=pd.DataFrame)
    classes: pd.DataFrame = field(default_factory=pd.DataFrame)

    def only(self, **wanted: Wanted) -> StudyTables:
        """The tables of the runs whose columns have the wanted value, or one of them."""
        keep = pd.Series(True, index=self.runs.index)
        for column, values in wanted.items():
            if column not in self.runs.columns:
                raise ConfigError(
                    f"Runs have no column {column!r}: {did_you_mean(column, self.runs.columns)}."
                )
            chosen = [values] if isinstance(values, str | float | int) else list(values)
            keep &= self.runs[column].isin(chosen)
        return self.with_runs(self.runs[keep])

    def with_runs(self, runs: pd.DataFrame) -> StudyTables:
        """These runs, with the companion rows that belong to them."""
        ids = set(runs["run_id"])
        others = {
            name: table[table["run_id"].isin(ids)] if "run_id" in table else table
            for name, table in self._companions().items()
        }
        return replace(self, runs=runs, **others)

    def _companions(self) -> Mapping[str, pd.DataFrame]:
        names = ("history", "layers", "subsets", "heads", "classes")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Exclusion:
    """Something left out of an answer: what, how many, why."""

    what: str
    count: int
    why: str

    def __str__(self) -> str:
        return f"{self.count} {self.what}: {self.why}"


def usable_runs(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[Exclusion]]:
    """The finished runs with ``series``, ``variation``, ``cell`` and ``log10_learning_rate``.

    Runs of one cell (dataset, series, rate) differ in the seed alone.

    Returns:
        The runs, and what was left out: not finished, given twice, or a second run of the same
        cell and seed.
    """
    frame = runs.copy()
    for column in (*_KEYS, *SETTING, *SERIES_AXES, "status", *_NUMBERS):
        if column not in frame:
            frame[column] = np.nan
    for column in _NUMBERS:
        frame[column] = pd.to_numeric(frame[column], errors="coerce").astype(np.float64)
    excluded: list[Exclusion] = []
    frame = _drop(frame, frame["status"].eq("done"), "runs", "not finished or diverged", excluded)
    frame = _drop(
        frame, ~frame.duplicated("run_id") | frame["run_id"].isna(), "runs", "given twice", excluded
    )
    # An imported cell mean stands for several runs, any other row for one.
    stands_for = frame["num_runs"] if "num_runs" in frame else pd.Series(1, index=frame.index)
    frame["num_runs"] = pd.to_numeric(stands_for, errors="coerce").fillna(1)
    frame["variation"] = _variation(frame)
    frame["series"] = series_labels(frame)
    with np.errstate(divide="ignore"):
        frame["log10_learning_rate"] = np.log10(frame["learning_rate"])
    rate = frame["learning_rate"].map("{:g}".format).astype(str)
    frame["cell"] = frame["dataset"].astype(str) + " · " + frame["series"] + " · " + rate
    is_repeat = frame["seed"].notna() & frame.duplicated(["cell", "seed"])
    why = "a second run of the same cell and seed; what tells them apart is not in the table"
    frame = _drop(frame, ~is_repeat, "runs", why, excluded)
    return frame.reset_index(drop=True), excluded


def seeded_runs(runs: pd.DataFrame, why: str, excluded: list[Exclusion]) -> pd.DataFrame:
    """The rows that are runs; imported cell means, which have no seed, are added to `excluded`."""
    return _drop(runs, runs["seed"].notna(), "cells", why, excluded)


def settings_apart(tables: StudyTables) -> list[tuple[dict[str, str], StudyTables]]:
    """The tables of each backbone, protocol and transfer set, with its name ("unknown" if none)."""
    runs = tables.runs
    keys = [name for name in SETTING if name in runs]
    if runs.empty or not keys:
        return [({}, tables)]
    names = runs[keys].astype(object).where(runs[keys].notna(), "unknown").astype(str)
    groups = runs.groupby([names[key] for key in keys], sort=True)
    return [
        (dict(zip(keys, map(str, name), strict=True)), tables.with_runs(group))
        for name, group in groups
    ]


def cell_means(runs: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """One row a cell: the mean and sample standard deviation over its seeds, and its run count."""
    keys = ["dataset", "series", "method", "learning_rate", "cell"]
    groups = runs.groupby(keys, sort=True, dropna=False)
    names = list(columns)
    means = groups[names].mean()
    deviations = groups[names].std(ddof=1).add_suffix("_sd")
    table = pd.concat([means, deviations], axis=1)
    table.insert(0, "num_runs", groups["num_runs"].sum().astype(int))
    return table.reset_index()


def without_missing(
    frame: pd.DataFrame, columns: Iterable[str], what: str, excluded: list[Exclusion]
) -> pd.DataFrame:
    """The rows where every column is finite; the others are noted as excluded."""
    names = list(columns)
    finite = pd.Series(np.isfinite(frame[names].to_numpy(dtype=np.float64)).all(axis=1))
    finite.index = frame.index
    missing = [name for name in names if not np.isfinite(frame[name].astype(float)).all()]
    return _drop(frame, finite, what, f"without {', '.join(missing)}", excluded)


def accuracy_column(frame: pd.DataFrame) -> str:
    """Test accuracy where a row has it, validation accuracy otherwise."""
    has_test = "test_accuracy_pct" in frame and frame["test_accuracy_pct"].notna().any()
    return "test_accuracy_pct" if has_test else "val_accuracy_pct"


def present_signals(frame: pd.DataFrame) -> list[str]:
    """The signals with at least one finite value."""
    return [name for name in SIGNALS if name in frame and frame[name].notna().any()]


def series_labels(runs: pd.DataFrame) -> pd.Series[str]:
    """Each run's series: its method, and whatever else varies among its runs of one setting.

    That is `SERIES_AXES`: a regularizer, weight decay, epochs, … A method's own options are in its
    name.
    """
    return runs["method"].astype(str) + _variation(runs)


def _variation(frame: pd.DataFrame) -> pd.Series[str]:
    """What a series' name adds to the method's, such as ", weight decay 0.1"; empty if nothing."""
    label = pd.Series("", index=frame.index, dtype=object)
    keys = [frame[name] for name in (*SETTING, "dataset", "method") if name in frame]
    for axis in (name for name in SERIES_AXES if name in frame):
        values = frame[axis].map(_axis_text)
        groups = values.groupby(keys, dropna=False)
        label = label.where(
            groups.transform("nunique") <= 1, label + f", {_AXIS_WORDS[axis]}" + values
        )
    return label.astype(str)


def _axis_text(value: object) -> str:
    if value is None or value != value:
        return "none"
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def _drop(
    frame: pd.DataFrame,
    keep: pd.Series[bool],
    what: str,
    why: str,
    excluded: list[Exclusion],
) -> pd.DataFrame:
    count = int((~keep).sum())
    if count:
        excluded.append(Exclusion(what, count, why))
    return frame[keep]
