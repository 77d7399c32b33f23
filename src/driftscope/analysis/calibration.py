"""A finished study as a gauge: what is left of zero-shot ability, forecast from drift alone.

Each signal gets an isotonic map to the measured retention, and the forecast is the maps' mean. Its
error is that on datasets left out, of runs whose method the others have. Which signals are taken is
not searched for: what fits best within two or three datasets does not carry over to the next
(docs/decisions.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from shlex import quote
from typing import Final, Literal, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from driftscope.analysis.grouping import (
    MEASURING,
    NONE,
    SETTING,
    measuring_of,
    usable_runs,
    varying_measuring,
)
from driftscope.analysis.tables import StudyTables
from driftscope.analysis.trajectories import ends_of_epochs
from driftscope.analysis.words import join_words
from driftscope.config.options_text import DEFAULT, options_in
from driftscope.errors import ConfigError, RecordError, did_you_mean
from driftscope.files import named_path
from driftscope.metrics import METRICS, drifts
from driftscope.records import read_json
from driftscope.records.schema import Part, parse

At: TypeAlias = Literal["end", "first epoch"]
SIGNALS: Final = ("cka", "embedding_drift")
"""What is taken unless others are asked for: the two main signals of the representation."""
CONFIDENCE: Final = 0.9
_MIN_RUNS = 10
_BEYOND = 0.05
"""Share of a signal's range by which a model may lie outside of it."""
_Numbers: TypeAlias = NDArray[np.float64]


class IsotonicMap(Part):
    """A signal's monotone map to retention: straight between its knots."""

    signal: str
    values: list[float]
    retention_pct: list[float]

    @property
    def reach(self) -> tuple[float, float]:
        """The least and greatest value that a forecast is made of."""
        slack = _BEYOND * (self.values[-1] - self.values[0])
        return self.values[0] - slack, self.values[-1] + slack

    def at(self, values: _Numbers) -> _Numbers:
        """The retention at these values, in percent."""
        return np.interp(values, self.values, self.retention_pct)


class Forecast(Part):
    """What is left, as a calibration tells it; or why it does not.

    `retention_pct` is None where the calibration has seen nothing like the model.
    """

    retention_pct: float | None = None
    low_pct: float | None = None
    high_pct: float | None = None
    at: At = "end"
    refused: str = ""
    sentence: str = ""


class Calibration(Part):
    """Maps from signals to retention, with the error that they have on other datasets."""

    kind: Literal["calibration"] = "calibration"
    schema_version: Literal[1] = 1
    at: At
    maps: list[IsotonicMap]
    half_width_pct: float
    mean_error_pct: float
    left_out: Literal["dataset", "method"]
    models: list[str]
    datasets: list[str]
    methods: list[str]
    transfer: list[str]
    num_runs: int

    def forecast(
        self,
        numbers: Mapping[str, float],
        *,
        model: str | None = None,
        method: str | None = None,
        is_after_first_epoch: bool = False,
    ) -> Forecast:
        """The retention of a model with these numbers; a refusal where none like it was seen.

        Args:
            numbers: the drift's, by the metric's key.
            model: the pretrained model's name, where it is known.
            method: how it was adapted, where it is known, as `adapted_by` says it.
            is_after_first_epoch: whether they are known to be of the end of the first epoch; else
                a calibration of that time says "if".
        """
        reason = self._refusal(numbers, model, method)
        if reason:
            said = f"Retention is not forecast: {reason}."
            return Forecast(at=self.at, refused=reason, sentence=said)
        each = [float(one.at(np.array([numbers[one.signal]]))[0]) for one in self.maps]
        value = sum(each) / len(each)
        low, high = max(0.0, value - self.half_width_pct), value + self.half_width_pct
        is_early = self.at == "first epoch"
        unknown = [] if method else [f"adapted by {_either(self.methods)}"]
        unknown += ["trained for one epoch so far"] * (is_early and not is_after_first_epoch)
        whose = f", if it was {' and '.join(unknown)}" if unknown else ""
        when = "at the end of the training, " if is_early else ""
        return Forecast(
            retention_pct=value,
            low_pct=low,
            high_pct=high,
            at=self.at,
            sentence=(
                f"Retention {value:.0f} % ({when}forecast from {self.num_runs} runs; "
                f"90 %: {low:.0f} to {high:.0f}{whose})."
            ),
        )

    def _refusal(self, numbers: Mapping[str, float], model: str | None, method: str | None) -> str:
        if model is not None and model not in self.models:
            return f"the calibration is of {_either(self.models)}, and this model is {model}"
        if method is not None and method not in self.methods:
            return f"the calibration has seen {_either(self.methods)}, and this is {method}"
        for one in self.maps:
            label, value = METRICS[one.signal].label, numbers.get(one.signal)
            if value is None or not math.isfinite(value):
                when = " in the first epoch" if self.at == "first epoch" else ""
                return f"{label} was not measured{when}"
            low, high = one.reach
            if not low <= value <= high:
                shown = [METRICS[one.signal].text(each) for each in (value, *one.reach)]
                return f"{label} is {shown[0]}, and the calibration has seen {shown[1]}–{shown[2]}"
        return ""


def adapted_by(method: str, regularizer: str | float | None) -> str:
    """A method with what was done beside it, which changes what drift tells of retention.

    Args:
        method: the method's label.
        regularizer: penalties, budget and interventions; `none`, or unknown, where there are none.

    >>> adapted_by("full_ft", "l2_sp_0.1"), adapted_by("full_ft", "none")
    ('full_ft with l2_sp_0.1', 'full_ft')
    """
    is_plain = not isinstance(regularizer, str) or regularizer == NONE
    return method if is_plain else f"{method} with {regularizer}"


def load_calibration(path: Path | str) -> Calibration:
    """The calibration that `driftscope study calibrate` wrote.

    Raises:
        RecordError: the file is none.
    """
    path = named_path(path)
    values = read_json(path)
    if values.get("kind") != "calibration":
        raise RecordError(
            f"{path} is no calibration; `driftscope study calibrate STUDY --out FILE` writes one"
        )
    return parse(Calibration, values, path)


def calibrate(
    study: StudyTables, signals: Sequence[str] = SIGNALS, *, at: At = "end"
) -> tuple[Calibration, pd.DataFrame]:
    """Fits signals to the retention that a finished study measured.

    Args:
        study: its tables.
        signals: keys of drifts whose better direction is known.
        at: whether the signals are those of the selected epoch or of the first one; the retention
            is the selected epoch's.

    Returns:
        The calibration, and a table: for these signals, each of them alone and pairs of them the
        mean and worst error on what was left out, and how often an interval made from the other
        parts held the retention.

    Raises:
        ConfigError: a signal that cannot be used.
        RecordError: the study has too few runs, those of several settings, or none that tell an
            error: of one dataset and one method alone, or of datasets without a common method.
    """
    runs = _usable(study, _checked(signals), at)
    group = "dataset" if runs["dataset"].nunique() > 1 else "method"
    if runs[group].nunique() < 2:
        raise RecordError(
            "a calibration needs runs of two datasets, or of two methods, so that its error can be "
            f"told on what was left out; this study has {runs['dataset'].iloc[0]} and "
            f"{runs['method'].iloc[0]} alone"
        )
    if group == "dataset":
        _refuse_without_a_common_method(runs)
    table = pd.DataFrame([_errors(runs, some, group) for some in _alternatives(tuple(signals))])
    off = _left_out(runs, tuple(signals), group)
    return (
        Calibration(
            at=at,
            maps=[_fitted(runs, signal) for signal in signals],
            half_width_pct=max(_conformal(part["error"]) for _, part in off.groupby(group)),
            mean_error_pct=float(off["error"].mean()),
            left_out="dataset" if group == "dataset" else "method",
            models=sorted(runs["model"].unique()),
            datasets=sorted(runs["dataset"].unique()),
            methods=sorted(runs["method"].unique()),
            transfer=sorted(runs["transfer"].dropna().unique()),
            num_runs=len(runs),
        ),
        table,
    )


def _refuse_without_a_common_method(runs: pd.DataFrame) -> None:
    if runs.groupby("method")["dataset"].nunique().max() > 1:
        return
    methods = runs.groupby("dataset")["method"].unique()
    own = [f"{dataset} has {join_words(sorted(mine))}" for dataset, mine in methods.items()]
    raise RecordError(
        "a calibration needs a method that two of its datasets have, so that its error can be told "
        f"on what was left out; {'; '.join(own)}"
    )


def _refuse_several_settings(runs: pd.DataFrame) -> None:
    """Runs of several models, protocols or transfer sets, or measured with different things."""
    measured = sorted(runs[MEASURING].unique())
    if len(measured) > 1:
        raise RecordError(
            "a calibration is of runs that are measured alike, and this study's are measured with "
            f"{join_words(measured)}; take those of one, as by --where {quote(_one_measured(runs))}"
        )
    values = {key: sorted(runs[key].dropna().astype(str).unique()) for key in SETTING}
    several = [key for key in SETTING if len(values[key]) > 1]
    if several:
        told = "; ".join(f"{key} {join_words(values[key])}" for key in several)
        raise RecordError(
            f"a calibration is of one model, protocol and transfer set, and this study has {told}; "
            f"take the runs of one, as by --where {several[0]}={values[several[0]][0]}"
        )


def _one_measured(runs: pd.DataFrame) -> str:
    """A condition that parts what is measured apart, and that some of the runs keep."""
    name = varying_measuring(runs)[0]
    options = str(runs["options"].dropna().iloc[0])
    return f"{name}={options if name == 'options' else options_in(options).get(name, DEFAULT)}"


def _checked(signals: Sequence[str]) -> tuple[str, ...]:
    known = [one.key for one in drifts() if one.better is not None]
    for signal in signals:
        if signal not in known:
            raise ConfigError(f"cannot calibrate on {signal!r}: {did_you_mean(signal, known)}")
    if not signals:
        raise ConfigError(f"name a signal to calibrate on, such as {SIGNALS[0]}")
    return tuple(signals)


def _usable(study: StudyTables, signals: tuple[str, ...], at: At) -> pd.DataFrame:
    """The finished runs of one setting with a retention and every signal, each of them once.

    Their `method` is that of `adapted_by`.
    """
    kept = ["run_id", *SETTING, MEASURING, "options", "dataset", "method", "retention_pct"]
    runs, _ = usable_runs(study.runs)
    runs[MEASURING] = measuring_of(runs)
    runs["method"] = [*map(adapted_by, runs["method"], runs["regularizer"])]
    if at == "end":
        found = runs[[*kept, *[one for one in signals if one in runs]]]
    else:
        first = ends_of_epochs(study.history).query("epoch == 1")
        found = runs[kept].merge(
            first[["run_id", *[one for one in signals if one in first]]], on="run_id"
        )
    missing = [one for one in signals if one not in found or found[one].isna().all()]
    if missing:
        raise RecordError(f"the study's runs have no {METRICS[missing[0]].label} ({missing[0]})")
    found = found.dropna(subset=["retention_pct", *signals])
    _refuse_several_settings(found)
    if len(found) < _MIN_RUNS:
        raise RecordError(
            f"the study has {len(found)} finished runs with a retention and {', '.join(signals)}; "
            f"a calibration needs {_MIN_RUNS} or more"
        )
    return found


def _fitted(runs: pd.DataFrame, signal: str) -> IsotonicMap:
    """The isotonic map of a signal; runs of equal values are one knot."""
    knots = runs.groupby(signal)["retention_pct"].agg(["mean", "size"])
    fitted = isotonic_regression(
        knots["mean"].to_numpy(float),
        weights=knots["size"].to_numpy(float),
        increasing=METRICS[signal].better == "higher",
    )
    return IsotonicMap(
        signal=signal,
        values=knots.index.to_numpy(float).tolist(),
        retention_pct=np.asarray(fitted.x, float).tolist(),
    )


def _left_out(runs: pd.DataFrame, signals: tuple[str, ...], group: str) -> pd.DataFrame:
    """The runs with their error when their group was left out; of methods that others have."""
    parts = []
    for name, part in runs.groupby(group):
        rest = runs[runs[group] != name]
        if group == "dataset":
            part = part[part["method"].isin(rest["method"])]
        maps = [_fitted(rest, signal) for signal in signals]
        told = np.mean([one.at(part[one.signal].to_numpy(float)) for one in maps], axis=0)
        parts.append(part.assign(error=np.abs(told - part["retention_pct"])))
    return pd.concat(parts)


def _conformal(errors: pd.Series) -> float:
    """The error that a further one of the same kind exceeds in one case of ten at most."""
    place = min(len(errors), math.ceil((len(errors) + 1) * CONFIDENCE))
    return float(np.sort(errors)[place - 1])


def _alternatives(signals: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """These signals, then each alone, then pairs: what they are set against."""
    rivals = [(one,) for one in signals] + list(combinations(signals, 2))
    return iter(dict.fromkeys([signals, *rivals]))


def _errors(runs: pd.DataFrame, signals: tuple[str, ...], group: str) -> dict[str, object]:
    off = _left_out(runs, signals, group)
    widths = {name: _conformal(part["error"]) for name, part in off.groupby(group)}
    held = [
        error <= max(width for other, width in widths.items() if other != name)
        for name, error in zip(off[group], off["error"], strict=True)
    ]
    return {
        "signals": " + ".join(METRICS[one].label for one in signals),
        "mean_error_pct": float(off["error"].mean()),
        "worst_error_pct": float(off["error"].max()),
        "covered_pct": 100 * float(np.mean(held)),
        "num_runs": len(off),
    }


def _either(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
