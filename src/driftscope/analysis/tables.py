"""The tables of a study, the signals asked about, and what is left out of an answer."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from driftscope.config.options_text import DEFAULT, UNKNOWN, options_in
from driftscope.errors import ConfigError, did_you_mean
from driftscope.metrics import METRICS, drifts

_OF_RUNS = sorted(drifts("run"), key=lambda one: one.is_change)

SIGNALS = (*(one.key for one in _OF_RUNS), "train_loss")
"""The signals asked about, by column: every drift that a run has, and the loss."""

SIGNED_SIGNALS = tuple(one.key for one in _OF_RUNS if one.is_change)
"""Those whose sign carries meaning, so that their size is a second candidate."""

HIGH_MEANS_RETAINED = frozenset(
    {"train_loss", *(one.key for one in _OF_RUNS if one.better == "higher")}
)
"""Signals of which a high value should mean high retention; of the others, a small size.

Declared before any data are seen: nothing was changed where CKA is 1 and the drifts are 0, and a
run that fitted less (a higher training loss) should have moved less.
"""

NUMBERS = (
    "learning_rate",
    "val_accuracy_pct",
    "test_accuracy_pct",
    "retention_pct",
    *SIGNALS,
)


def label(key: str) -> str:
    """A measure's name in a sentence; the key where it is none of ours."""
    return METRICS[key].label if key in METRICS else key


def signal_name(signal: str, form: str) -> str:
    """A signal as people name it; of a signed one, whether its sign or its size counts."""
    if form == "absolute":
        return f"|{label(signal)}|"
    return f"signed {label(signal)}" if signal in SIGNED_SIGNALS else label(signal)


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
        damage: one row a run and group of weights, where it was asked for: group, block,
            regained_points, lost_points, shapley_points.
        rescues: one row a run, way of a rescue and budget, where `post` asked for it: way,
            budget_pct, retention_pct, refitted_accuracy_pct, test_num_images.
        missing: one row a declared run that is in no table: what it declares, as in ``runs``, and
            its state; empty where all are there. It has a column ``is_unsure`` where a condition on
            a result left out some of the runs: nobody knows whether a missing one will keep it.
    """

    runs: pd.DataFrame
    history: pd.DataFrame
    layers: pd.DataFrame
    subsets: pd.DataFrame = field(default_factory=_no_subsets)
    heads: pd.DataFrame = field(default_factory=pd.DataFrame)
    classes: pd.DataFrame = field(default_factory=pd.DataFrame)
    damage: pd.DataFrame = field(default_factory=pd.DataFrame)
    rescues: pd.DataFrame = field(default_factory=pd.DataFrame)
    missing: pd.DataFrame = field(default_factory=pd.DataFrame)

    def only(self, **wanted: Wanted) -> StudyTables:
        """The tables of the runs whose columns have the wanted value, or one of them."""
        keep, fits_declared = (pd.Series(True, index=self.runs.index) for _ in range(2))
        missing = self.missing
        for column, values in wanted.items():
            if column not in self.runs.columns:
                raise ConfigError(
                    f"Runs have no column {column!r}: {did_you_mean(column, self.runs.columns)}."
                )
            chosen = [values] if isinstance(values, str | float | int) else list(values)
            fitting = self.runs[column].isin(chosen)
            keep &= fitting
            if column in missing:
                fits_declared &= fitting
                missing = missing[missing[column].isin(chosen)]
        return self._narrowed(keep, fits_declared, missing)

    def where(self, conditions: Sequence[str]) -> StudyTables:
        """The tables of the runs that keep every condition, as the command line writes them.

        A condition is a column, or one of the `options`, then `=`, `!=`, `<`, `<=`, `>` or `>=`,
        and a value; of `=` and `!=` several values, `method=full_ft|lora_r8`. A text may hold
        several conditions, with commas. A comma is of the value where no condition follows, as in
        `templates=a photo of a {}, a type of pet.`, or where it is between double quotes. Of
        `missing` those rows stay that may keep them all, once they are finished.

        Raises:
            ConfigError: no condition, an unknown column, a value that is no number, or no run left.
        """
        keep, fits_declared = (pd.Series(True, index=self.runs.index) for _ in range(2))
        missing = self.missing
        for condition in (part for text in conditions for part in _parts(text, _BEFORE_CONDITION)):
            fitting = _fitting(self.runs, condition)
            keep &= fitting
            column = _column_of(condition)
            if column in missing or ("options" in missing and column not in self.runs):
                fits_declared &= fitting
                missing = missing[_fitting(missing, condition, self.runs)]
        if not keep.any():
            raise ConfigError(f"no run of {len(keep)} fits {', '.join(conditions)!r}")
        return self._narrowed(keep, fits_declared, missing)

    def _narrowed(
        self, keep: pd.Series[bool], fits_declared: pd.Series[bool], missing: pd.DataFrame
    ) -> StudyTables:
        """These runs and missing ones, and whether a result left out runs that fit else."""
        if (fits_declared & ~keep).any():
            missing = missing.assign(is_unsure=True)
        return replace(self.with_runs(self.runs[keep]), missing=missing)

    def with_runs(self, runs: pd.DataFrame) -> StudyTables:
        """These runs, with the companion rows that belong to them."""
        others = {
            name: rows_of_runs(table, runs["run_id"]) if "run_id" in table else table
            for name, table in self._companions().items()
        }
        return replace(self, runs=runs, **others)

    def _companions(self) -> Mapping[str, pd.DataFrame]:
        names = ("history", "layers", "subsets", "heads", "classes", "damage", "rescues")
        return {name: getattr(self, name) for name in names}


def rows_of_runs(table: pd.DataFrame, run_ids: Iterable[str]) -> pd.DataFrame:
    """The rows of these runs; `isin` would look at every wanted id again for every table."""
    wanted = set(run_ids)
    numbers, names = pd.factorize(table["run_id"])
    is_wanted = np.array([*(name in wanted for name in names), False])  # -1: a row without a run
    return table if is_wanted[numbers].all() else table[is_wanted[numbers]]


_PLURAL = re.compile(r"\b(run|cell|seed|choice|probe|row|pair)s\b")


@dataclass(frozen=True)
class Exclusion:
    """Something left out of an answer: what, how many, why."""

    what: str
    count: int
    why: str

    def __str__(self) -> str:
        what = _PLURAL.sub(r"\1", self.what, count=1) if self.count == 1 else self.what
        return f"{self.count} {what}: {self.why}"


def without_missing(
    frame: pd.DataFrame, columns: Iterable[str], what: str, excluded: list[Exclusion]
) -> pd.DataFrame:
    """The rows where every column is finite; the others are noted as excluded."""
    names = list(columns)
    finite = pd.Series(np.isfinite(frame[names].to_numpy(dtype=np.float64)).all(axis=1))
    finite.index = frame.index
    missing = [name for name in names if not np.isfinite(frame[name].astype(float)).all()]
    return leave_out(frame, finite, what, f"without {', '.join(missing)}", excluded)


def accuracy_column(frame: pd.DataFrame) -> str:
    """Test accuracy where a row has it, validation accuracy otherwise."""
    has_test = "test_accuracy_pct" in frame and frame["test_accuracy_pct"].notna().any()
    return "test_accuracy_pct" if has_test else "val_accuracy_pct"


def retention_columns(runs: pd.DataFrame) -> dict[str, str]:
    """Each transfer set on which a run's retention is known and its column, the main set first."""
    further = "retention_pct_"
    columns = [str(key) for key in runs if str(key).startswith(further)]
    mains = runs["transfer"].dropna() if "transfer" in runs else ()
    found = {
        next(iter(mains), "the first transfer set"): "retention_pct",
        **{key.removeprefix(further): key for key in columns},
    }
    return {name: key for name, key in found.items() if key in runs and runs[key].notna().any()}


def present_signals(frame: pd.DataFrame) -> list[str]:
    """The signals with at least one finite value."""
    return [name for name in SIGNALS if name in frame and frame[name].notna().any()]


def leave_out(
    frame: pd.DataFrame,
    keep: pd.Series[bool],
    what: str,
    why: str,
    excluded: list[Exclusion],
) -> pd.DataFrame:
    """The rows to keep; how many are not, of what and why, is added to `excluded`."""
    count = int((~keep).sum())
    if count:
        excluded.append(Exclusion(what, count, why))
    return frame[keep]


_CONDITION = re.compile(r"(\w+)\s*(<=|>=|!=|=|<|>)\s*(.+)")
_COMPARED: Mapping[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


_QUOTED = r'"(?:[^"\\]|\\.)*"'
_BEFORE_CONDITION = re.compile(rf"{_QUOTED}|(?P<here>,\s*(?=\w+\s*[<>!=]))")
_BEFORE_VALUE = re.compile(rf"{_QUOTED}|(?P<here>\|)")


def _parts(text: str, separator: re.Pattern[str]) -> Iterator[str]:
    """What lies between the separators that are outside of double quotes."""
    start = 0
    for found in separator.finditer(text):
        if found["here"]:
            yield text[start : found.start()].strip()
            start = found.end()
    yield text[start:].strip()


def _column_of(condition: str) -> str:
    match = _CONDITION.fullmatch(condition)
    return match[1] if match else ""


def _fitting(
    runs: pd.DataFrame, condition: str, known: pd.DataFrame | None = None
) -> pd.Series[bool]:
    """Which runs keep one condition. `known` are the runs whose options there are, if others."""
    match = _CONDITION.fullmatch(condition)
    if match is None:
        raise _no_condition(condition)
    column, sign, text = match.groups()
    wanted = [*_parts(text, _BEFORE_VALUE)]
    if column not in runs.columns:
        found = _of_option(runs if known is None else known, runs, column)
    elif not pd.api.types.is_numeric_dtype(runs[column]):
        found = runs[column].map(lambda value: {value})
    else:
        return _fitting_numbers(runs[column], condition, sign, wanted)
    if sign in _COMPARED:
        _numbers(condition, column, wanted)
        raise ConfigError(f"{condition!r} compares no numbers; {column} takes = and != alone")
    has_comma = [value for value in wanted if "," in value]
    if has_comma and known is None and not _holds(found, has_comma).any():
        raise _no_condition(has_comma[0].partition(",")[2].strip())
    is_one = _holds(found, wanted)
    return is_one if sign == "=" else ~is_one


def _holds(found: pd.Series[Any], wanted: Sequence[str]) -> pd.Series[bool]:
    """Which of the sets of texts hold one that is wanted, as it is written or out of its quotes."""
    texts = set(wanted).union(*map(_texts_of, wanted))
    return found.map(lambda values: not values.isdisjoint(texts)).astype(bool)


def _fitting_numbers(
    values: pd.Series[float], condition: str, sign: str, wanted: Sequence[str]
) -> pd.Series[bool]:
    numbers = _numbers(condition, str(values.name), wanted)
    if sign in _COMPARED:
        if len(numbers) > 1:
            raise ConfigError(
                f"{condition!r} compares no numbers; {values.name} takes = and != alone"
            )
        kept: pd.Series[bool] = _COMPARED[sign](values, numbers[0])
        return kept
    is_one = values.isin(numbers)
    return is_one if sign == "=" else ~is_one


def _numbers(condition: str, column: str, wanted: Sequence[str]) -> list[float]:
    try:
        return [float(value) for value in wanted]
    except ValueError:
        raise ConfigError(f"{condition!r} compares {column} with what is no number") from None


def _no_condition(text: str) -> ConfigError:
    return ConfigError(f"{text!r} is no condition; write it as method=full_ft|lora_r8 or cka>=0.9")


def _of_option(known: pd.DataFrame, runs: pd.DataFrame, name: str) -> pd.Series[Any]:
    """By run the texts that stand for its value of an option, one that some run names.

    Of a run whose options are not known, as of an imported one, that is `unknown`.
    """
    told = known["options"].dropna().unique() if "options" in known else ()
    names = dict.fromkeys(one for text in told for one in options_in(str(text)))
    if name not in names:
        columns = [*map(str, known.columns), *names]
        raise ConfigError(f"Runs have no column {name!r}: {did_you_mean(name, columns)}.")

    def texts(told: object) -> set[str]:
        if not isinstance(told, str):
            return {UNKNOWN}
        return _texts_of(options_in(told).get(name, DEFAULT))

    return runs["options"].map(texts)


def _texts_of(value: str) -> set[str]:
    """An option's value as it is written and, of a text or a list of one, as a user writes it."""
    try:
        plain = json.loads(value)
    except json.JSONDecodeError:
        return {value}
    if isinstance(plain, list) and len(plain) == 1:
        plain = plain[0]
    return {value, plain} if isinstance(plain, str) else {value}
