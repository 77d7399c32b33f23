"""Settings, series and cells: which runs belong together, defined here for everything.

- A **setting** is what must be equal before two runs may enter one statistic: `SETTING`, and what
  the runs of one place are measured with (`measuring_of`).
- A **place** is a setting and a target dataset: what one number or one picture is about.
- A **series** is the runs that one line of a figure joins: a method, and whatever else of
  `SERIES_AXES` varies among its runs of a place.
- A **cell** is the runs of a place and series with one learning rate: they differ in the seed
  alone. An imported cell mean is one row that stands for `num_runs` runs.

Means, standard deviations and counts of cells are computed here; pages and files only write them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

from driftscope.analysis.natural_order import natural_key
from driftscope.analysis.tables import NUMBERS, Exclusion, StudyTables, leave_out
from driftscope.config.options_text import DEFAULT, UNKNOWN, options_in
from driftscope.metric import number_text
from driftscope.protocols import set_of
from driftscope.records import DRIFT_SCALARS
from driftscope.stats.change import percent_drift

SETTING = ("model", "protocol", "transfer")
"""What must be equal before two runs may enter one statistic."""

PLACE = ("dataset", *SETTING)
"""Runs that differ in one of these are never put into one number or one picture."""

MEASURING = "measuring"
"""The name of what runs are measured with, where runs of one place differ in it."""

APART = (*SETTING, MEASURING)
"""What answers are apart by."""

_MEASURING_OPTIONS = (
    "templates",
    "class_words",
    "transfer_images",
    "probe_images",
    "val_images",
    "test_images",
    "balanced",
)
"""Options by which a number is of other images or prompts. A pool is none: budgets train by it."""

SERIES_AXES = ("regularizer", "epochs", "batch_size", "weight_decay", "data_seed", "options")
"""What, beside dataset, method, rate and seed, tells two runs of a study apart, where it varies."""

NONE = "none"
"""The `regularizer` of a run to which nothing was done beside its method."""
_KNOWN = "known"
_PLAIN = {"regularizer": NONE, "options": DEFAULT}
"""What the name of a series leaves out."""

_AXIS_WORDS = {
    "regularizer": "",
    "epochs": "epochs ",
    "batch_size": "batch ",
    "weight_decay": "weight decay ",
    "data_seed": "data seed ",
    "options": "",
}
_KEYS = ("run_id", "dataset", "method", "learning_rate", "seed")

_ROUNDING_POINTS = 1e-6
"""Retentions of the same images differ by less."""

CELL_MEASURES = (
    "test_accuracy_pct",
    "test_low_pct",
    "test_high_pct",
    "val_accuracy_pct",
    "zero_shot_pct",
    "zero_shot_low_pct",
    "zero_shot_high_pct",
    "retention_pct",
    *DRIFT_SCALARS,
)
"""What is averaged over the seeds of a cell, as `<name>` (mean) and `<name>_sd`."""

_FAMILIES = ("full_ft", "lora", "last_block", "linear_probe")


# ---------------------------------------------------------------- settings


def split_settings(
    runs: pd.DataFrame, keys: Sequence[str] = PLACE
) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """The runs of each place, in natural order, with its name; "" for what is unknown."""
    keys = [key for key in keys if key in runs]
    if not keys:
        return [({}, runs)]
    places = [
        (
            {
                key: "" if part is None or part != part else str(part)
                for key, part in zip(keys, values, strict=True)
            },
            group.reset_index(drop=True),
        )
        for values, group in runs.groupby(keys, sort=True, dropna=False)
    ]
    return sorted(
        places, key=lambda one: [(not said, natural_key(said)) for said in one[0].values()]
    )


def settings_apart(tables: StudyTables) -> list[tuple[dict[str, str], StudyTables]]:
    """The tables of each backbone, protocol and transfer set, with its name ("unknown" if none).

    Runs of one place that are measured with different things are apart, too: `measuring_of`.
    """
    if tables.runs.empty:
        return [({}, tables)]
    varying = varying_measuring(_declared(tables))
    settings = [
        ({key: value or "unknown" for key, value in name.items()}, runs)
        for name, runs in split_settings(
            tables.runs.assign(**{MEASURING: _measuring(tables.runs, varying)}),
            (*SETTING, *([MEASURING] if varying else [])),
        )
    ]
    missing = tables.missing
    if not missing.empty:
        missing = missing.assign(**{MEASURING: _measuring(missing, varying)})
    return [
        (
            name,
            replace(
                tables.with_runs(runs.drop(columns=MEASURING)), missing=_of_setting(missing, name)
            ),
        )
        for name, runs in settings
    ]


def _declared(tables: StudyTables) -> pd.DataFrame:
    """The runs of a study, and those that are missing, by what they declare."""
    if tables.missing.empty or "options" not in tables.runs:
        return tables.runs
    runs = tables.runs.reindex(columns=[*PLACE, "options"])
    runs["transfer"] = runs["transfer"].map(set_of, na_action="ignore")
    return pd.concat([runs, tables.missing.reindex(columns=[*runs])], ignore_index=True)


def _of_setting(missing: pd.DataFrame, name: Mapping[str, str]) -> pd.DataFrame:
    """The missing runs that a setting waits for."""
    if missing.empty:
        return missing
    known = {key: set_of(value) if key == "transfer" else value for key, value in name.items()}
    return missing[(missing[[*known]].fillna("unknown") == pd.Series(known)).all(axis=1)]


def measuring_of(runs: pd.DataFrame) -> pd.Series[str]:
    """What each run is measured with, such as "probe images 20", where runs of one place differ.

    Of one dataset that is. Datasets are measured on images of their own anyhow.
    """
    return _measuring(runs, varying_measuring(runs))


def varying_measuring(runs: pd.DataFrame) -> list[str]:
    """Which measuring options differ among the runs of one place.

    One is `options`, all of them, where those of some runs are unknown, as of imported ones.
    """
    if "options" not in runs or runs["options"].nunique(dropna=False) < 2:
        return []
    told = _axis_texts(runs, "options")
    is_known = told != UNKNOWN
    named = told.map(cache(options_in))
    values = {
        name: named.map(lambda one, name=name: one.get(name, DEFAULT)).where(is_known)
        for name in _MEASURING_OPTIONS
    }
    values["options"] = is_known
    places = [runs[key] for key in PLACE if key in runs]
    return [
        name
        for name, column in values.items()
        if (column.groupby(places, dropna=False).nunique() > 1).any()
    ]


def _measuring(runs: pd.DataFrame, varying: Sequence[str]) -> pd.Series[str]:
    @cache
    def told(options: str) -> str:
        if options == UNKNOWN:
            return f"options {UNKNOWN}"
        given = options_in(options)
        values = (
            f"{name.replace('_', ' ')} {given.get(name, DEFAULT)}"
            for name in varying
            if name != "options"
        )
        return ", ".join(values) or f"options {_KNOWN}"

    if not varying:
        return pd.Series("", index=runs.index, dtype=object)
    return _axis_texts(runs, "options").map(told).astype(object)


def place_text(row: Mapping[str, Any], runs: pd.DataFrame) -> str:
    """What tells a run's place from the others, as "terrain, mini: "; nothing if all agree."""
    keys = [key for key in PLACE if key in runs and runs[key].nunique() > 1]
    return f"{', '.join(str(row[key]) for key in keys)}: " if keys else ""


# ---------------------------------------------------------------- series


def series_labels(runs: pd.DataFrame) -> pd.Series[str]:
    """Each run's series: its method, and whatever else varies among its runs of one place.

    A method's own options are in its name.
    """
    return runs["method"].astype(str) + _variation(runs)


def with_series(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs with their `series` beside them."""
    return runs.assign(series=series_labels(runs))


def series_order(series: Iterable[str]) -> list[str]:
    """The distinct series as every table, legend and page lists them: by family, then by name."""

    def rank(name: str) -> tuple[int, object]:
        families = (at for at, family in enumerate(_FAMILIES) if name.startswith(family))
        return next(families, len(_FAMILIES)), natural_key(name)

    return sorted(set(series), key=rank)


def in_reading_order(frame: pd.DataFrame, before: Sequence[str], then: Sequence[str]) -> Any:
    """The rows by the columns `before`, by series as everywhere, then by the columns `then`."""
    order = {name: position for position, name in enumerate(series_order(frame["series"]))}
    placed = frame.assign(_order=frame["series"].map(order))
    return placed.sort_values([*before, "_order", *then]).drop(columns="_order")


def _variation(frame: pd.DataFrame) -> pd.Series[str]:
    """What a series' name adds to the method's, such as ", weight decay 0.1"; empty if nothing.

    A plain value adds nothing where it varies. Then another one is named everywhere, so that no two
    series of a study have the method's name alone.
    """
    label = pd.Series("", index=frame.index, dtype=object)
    keys = [frame[name] for name in (*PLACE, "method") if name in frame]
    for axis in (name for name in SERIES_AXES if name in frame):
        values = _axis_texts(frame, axis)
        if values.nunique() < 2:
            continue
        groups = values.groupby(keys, dropna=False)
        varies = groups.transform("nunique") > 1
        is_bare = varies & (values == _PLAIN.get(axis))
        beside_bare = is_bare.groupby(keys[-1], dropna=False).transform("any")
        varies |= beside_bare
        if axis == "options":
            values = _without_common(values, groups.ngroup().mask(beside_bare, -1))
        values = values.where(values != _PLAIN.get(axis), "")
        said = (f", {_AXIS_WORDS[axis]}" + values).where(values != "", "")
        label = label.where(~varies, label + said)
    return label.astype(str)


def _without_common(options: pd.Series[str], group: pd.Series[int]) -> pd.Series[str]:
    """Options such as "train_images 400, maps true" but for those that all of a group have.

    Of the group -1 nothing is left out.
    """
    plain = {DEFAULT: [], UNKNOWN: [f"options {UNKNOWN}"]}
    parts = [
        [f"{name} {value}" for name, value in options_in(one).items()] or plain.get(one, [one])
        for one in options
    ]
    common: dict[int, set[str]] = {-1: set()}
    for number, mine in zip(group, parts, strict=True):
        common[number] = common.get(number, set(mine)) & set(mine)
    rest = [
        ", ".join(one for one in mine if one not in common[number])
        for number, mine in zip(group, parts, strict=True)
    ]
    return pd.Series(rest, index=options.index, dtype=object)


def axis_values(runs: pd.DataFrame) -> pd.DataFrame:
    """Each run's values of `SERIES_AXES`, as text: of those that vary, each option by itself.

    An option that a run does not name has its default. Of an imported run it is not known.
    """
    values = {
        _AXIS_WORDS[axis].strip() or axis: _axis_texts(runs, axis)
        for axis in SERIES_AXES
        if axis != "options"
    }
    told = _axis_texts(runs, "options")
    values["options"] = told.where(told == UNKNOWN, _KNOWN)
    named = [options_in(one) for one in told]
    options = pd.DataFrame(named, index=runs.index).fillna(DEFAULT)
    options = options.where(told != UNKNOWN, UNKNOWN)
    options.columns = [str(name).replace("_", " ") for name in options]
    axes = pd.DataFrame(values).join(options)
    return axes.loc[:, axes.nunique() > 1]


def _axis_texts(runs: pd.DataFrame, axis: str) -> pd.Series[str]:
    """What each run has of one of `SERIES_AXES`; a run that names no regularizer has none."""
    texts = runs[axis].map(cache(_axis_text)).astype(object)
    return texts.mask(texts == UNKNOWN, NONE) if axis == "regularizer" else texts


def _axis_text(value: object) -> str:
    if value is None or value != value:
        return UNKNOWN
    return f"{value:g}" if isinstance(value, int | float) else str(value)


OVERALL = "overall"
"""The scope that pools the datasets."""


def scopes(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The rows of all datasets, where there are several, and of each, with what they are called."""
    if frame["dataset"].nunique() > 1:
        yield OVERALL, frame
    for dataset, part in frame.groupby("dataset", sort=True):
        yield str(dataset), part


# ---------------------------------------------------------------- cells


def is_done(runs: pd.DataFrame) -> pd.Series[bool]:
    """Which runs ended well; imported rows without a status did."""
    if "status" not in runs:
        return pd.Series(True, index=runs.index)
    return runs["status"].eq("done") | runs["status"].isna()


def usable_runs(
    runs: pd.DataFrame, *, apart: Sequence[str] = ()
) -> tuple[pd.DataFrame, list[Exclusion]]:
    """The finished runs with `series`, `cell` and `log10_learning_rate`.

    `num_diverged` is how many other runs of the cell diverged. They are named apart as the finished
    ones are, so that a cell has one name wherever it stands.

    Args:
        runs: the runs of one setting.
        apart: columns in which runs may be equal but for them, such as the study that they are of.

    Returns:
        The runs, and what was left out: not finished, given twice, or a second run of the same
        cell and seed.
    """
    frame = runs.reset_index(drop=True)
    for column in (*_KEYS, *SETTING, *SERIES_AXES, "status", *NUMBERS):
        if column not in frame:
            frame[column] = np.nan
    for column in NUMBERS:
        frame[column] = pd.to_numeric(frame[column], errors="coerce").astype(np.float64)
    # An imported cell mean stands for several runs, any other row for one.
    stands_for = frame["num_runs"] if "num_runs" in frame else pd.Series(1, index=frame.index)
    frame["num_runs"] = pd.to_numeric(stands_for, errors="coerce").fillna(1)
    frame["series"] = series_labels(frame)
    with np.errstate(divide="ignore"):
        frame["log10_learning_rate"] = np.log10(frame["learning_rate"])
    rate = frame["learning_rate"].map("{:g}".format).astype(str)
    frame["cell"] = frame["dataset"].astype(str) + " · " + frame["series"] + " · " + rate
    is_new = ~frame.duplicated([*apart, "run_id"]) | frame["run_id"].isna()
    diverged = frame["num_runs"].where(is_new & ~is_done(frame), 0)
    in_cells = diverged.groupby([frame[key] for key in (*apart, *SETTING, "cell")], dropna=False)
    frame["num_diverged"] = in_cells.transform("sum").astype(int)
    excluded: list[Exclusion] = []
    frame = leave_out(frame, is_done(frame), "runs", "not finished or diverged", excluded)
    frame = leave_out(frame, is_new[frame.index], "runs", "given twice", excluded)
    is_repeat = frame["seed"].notna() & frame.duplicated([*apart, *SETTING, "cell", "seed"])
    why = "a second run of the same cell and seed; what tells them apart is not in the table"
    frame = leave_out(frame, ~is_repeat, "runs", why, excluded)
    return frame.reset_index(drop=True), excluded


def seeded_runs(runs: pd.DataFrame, why: str, excluded: list[Exclusion]) -> pd.DataFrame:
    """The rows that are runs; imported cell means, which have no seed, are added to `excluded`."""
    return leave_out(runs, runs["seed"].notna(), "cells", why, excluded)


def means_and_spreads(
    rows: pd.DataFrame, keys: Sequence[str], columns: Iterable[str]
) -> pd.DataFrame:
    """Per group: each column's mean and sample sd (`<name>_sd`), and `num_runs`, its runs."""
    names = list(columns)
    groups = rows.groupby(list(keys), sort=True, dropna=False)
    counts = groups["num_runs"].sum() if "num_runs" in rows else groups.size()
    table = groups[names].mean().join(groups[names].std(ddof=1).add_suffix("_sd"))
    table.insert(0, "num_runs", counts.astype(int))
    return table.reset_index()


def cell_means(runs: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """One row a cell of `usable_runs`: mean and sample sd over its seeds, and its run count."""
    keys = ["dataset", "series", "method", "learning_rate", "cell"]
    return means_and_spreads(runs, keys, columns)


def cells_frame(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell of one place: mean and sample sd over its seeds, how many finished, diverged.

    Diverged runs are counted and left out of the means. One run alone has no sd (NaN).
    """
    runs = with_series(runs)
    done = is_done(runs)
    keys = ["method", "series", "learning_rate"]
    measures = [name for name in CELL_MEASURES if name in runs]
    numbers = runs[measures].apply(pd.to_numeric).where(done)
    # an imported cell mean stands for several runs
    stands_for = runs["num_runs"].fillna(1) if "num_runs" in runs else 1
    cells = means_and_spreads(
        pd.concat([runs[keys], numbers], axis=1).assign(num_runs=done * stands_for), keys, measures
    ).set_index(keys)
    groups = runs.assign(diverged=~done * stands_for).groupby(keys)
    cells["num_diverged"] = groups["diverged"].sum().astype(int)
    for count in ("test_num_images", "zero_shot_num_images"):
        if count in runs:
            cells[count] = pd.to_numeric(groups[count].max())
    ordered: pd.DataFrame = in_reading_order(cells.reset_index(), [], ["learning_rate"])
    return ordered.reset_index(drop=True)


def layer_cells_frame(layers: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and layer: mean and sample sd over its finished runs of every layer signal.

    `delta_entropy_pct_by_seed` says each run's own, in words. Empty where no run has layers.
    """
    if layers.empty:
        return pd.DataFrame(columns=["series", "learning_rate", "layer", "delta_entropy_pct"])
    own = _of_finished_runs(layers, runs, ("method", "seed"))
    signals = [str(name) for name in own if name not in (*_KEYS, "series", "layer")]
    keys = ["method", "series", "learning_rate", "layer"]
    cells = means_and_spreads(own, keys, signals)
    if "delta_entropy_pct" in own:
        own["_told"] = [
            f"{seed:.0f}: {number_text(value, 1, signed=True)}"
            for seed, value in zip(own["seed"], own["delta_entropy_pct"], strict=True)
        ]
        told = own.groupby(keys, sort=True, dropna=False)["_told"].agg(", ".join)
        cells["delta_entropy_pct_by_seed"] = told.map("(by seed {})".format).to_numpy()
    ordered: pd.DataFrame = in_reading_order(cells, [], ["learning_rate", "layer"])
    return ordered.reset_index(drop=True)


def run_history_frame(history: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a finished run and probe, with the run's series, rate and seed."""
    own = _of_finished_runs(history, runs, ("seed",))
    if "step" not in own:
        own["step"] = np.nan
    signals = [name for name in CELL_MEASURES if name in own]
    own[signals] = own[signals].apply(pd.to_numeric)
    return own


def history_cells_frame(history: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and probe: mean and sd over the cell's finished runs of every signal."""
    own = run_history_frame(history, runs)
    signals = [name for name in CELL_MEASURES if name in own]
    return means_and_spreads(own, ["series", "learning_rate", "epoch", "step"], signals)


def is_followed_on_other_images(history: pd.DataFrame, runs: pd.DataFrame) -> bool:
    """Whether retention over training was read on other images than the runs' own.

    On the same images, one of a run's epochs has the retention that the run has.
    """
    if "retention_pct" not in history or "retention_pct" not in runs:
        return False
    own = pd.to_numeric(runs.set_index("run_id")["retention_pct"])
    followed = pd.to_numeric(history.set_index("run_id")["retention_pct"]).dropna()
    apart = (followed - own.reindex(followed.index)).abs().groupby(level=0).min()
    return bool((apart > _ROUNDING_POINTS).any())


def head_cells_frame(heads: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell, layer and head: mean and sd over the cell's finished runs of Δ entropy.

    Args:
        heads: `records.heads_table`; rows without a head (imported means over heads) drop out.
        runs: the runs of one place.
    """
    names = ["run_id", "layer", "head", "entropy_nats", "pretrained_entropy_nats"]
    own = _of_finished_runs(heads.reindex(columns=names).dropna(), runs)
    pairs = zip(own["entropy_nats"], own["pretrained_entropy_nats"], strict=True)
    own["delta_entropy_pct"] = [percent_drift(*pair) for pair in pairs]
    own[["layer", "head"]] = own[["layer", "head"]].astype(int)
    keys = ["series", "learning_rate", "layer", "head"]
    return means_and_spreads(own, keys, ["delta_entropy_pct"])


def class_cells_frame(classes: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """One row a cell and class of the transfer set: accuracy and retention, mean ± sd over seeds.

    Args:
        classes: `records.tables.Tables.classes`.
        runs: the runs of one place.
    """
    measured = ["num_images", "pretrained_pct", "adapted_pct", "retention_pct"]
    own = _of_finished_runs(classes.reindex(columns=["run_id", "class", *measured]), runs)
    cells = means_and_spreads(own, ["series", "learning_rate", "class"], measured)
    return cells.drop(columns=["num_images_sd", "pretrained_pct_sd"])  # all seeds share them


def _of_finished_runs(
    rows: pd.DataFrame, runs: pd.DataFrame, more: Sequence[str] = ()
) -> pd.DataFrame:
    """The rows of finished runs, with each run's series, learning rate and `more` of it."""
    runs = with_series(runs)
    columns = ["run_id", "series", "learning_rate", *more]
    finished = runs[is_done(runs)].reindex(columns=columns)
    own = rows.drop(columns=[name for name in (*_KEYS[1:], "series") if name in rows])
    return own.merge(finished, on="run_id")
