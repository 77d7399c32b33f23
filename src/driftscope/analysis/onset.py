"""Onset: which signal leaves its noise before retention does, and what was still to come then."""

from __future__ import annotations

from collections.abc import Iterator
from math import nan, sqrt
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student_t

from driftscope.analysis.answer import (
    ALPHA,
    Answer,
    cannot_answer,
    lead_with,
    over_cells,
    per_setting,
    with_holm,
)
from driftscope.analysis.grouping import OVERALL, scopes, usable_runs
from driftscope.analysis.tables import Exclusion, StudyTables, label, leave_out
from driftscope.analysis.trajectories import (
    Places,
    Trajectories,
    first_place,
    trajectories,
)
from driftscope.analysis.words import capitalised, counted, few_words, join_words
from driftscope.metric import number_text
from driftscope.metrics import METRICS
from driftscope.protocols import pretrained_accuracy_key
from driftscope.stats.groups import sign_flip
from driftscope.stats.known_values import FloatArray
from driftscope.stats.multiplicity import Family
from driftscope.stats.proportions import wilson_interval_pct

QUESTION = "onset"
IMAGES, QUIET = "images", "quiet runs"
"""The two bands: what other images alone would change, and what runs reached that lost nothing."""

MIN_QUIET_RUNS = 2
"""With fewer runs of other datasets that lost nothing, they make no band."""

MIN_SUBSETS = 3
REFERENCE = "cka"
"""The signal that others are held against, fixed before any data are seen."""

_LEVEL_OF = {"delta_entropy_pct": "entropy"}
"""The signals whose level is recorded by probe subset, and its name there."""


def onset(tables: StudyTables, *, alpha: float = ALPHA) -> Answer:
    """When each signal first leaves its noise band, against when retention leaves its interval.

    Retention leaves at the first probe at which it is below the lower end of the pretrained score's
    own 95 % Wilson interval, in percent of that score. A signal leaves at the first probe at which
    it is further from "nothing changed" than its band is wide. There are two bands:

    - *images*: 95 % of what the pretrained reading's mean over the probe set would differ by on
      other images: Student's t times the standard deviation over the probe subsets of one size m,
      times √(m / probe images), in percent of the mean. It is known of signals whose level is
      recorded by subset. CKA and the distances compare the same images before and after, so they
      are exact at the start on any images, have no such noise, and no such band.
    - *quiet runs*: the furthest that the signal went in any run of the other datasets whose
      retention never left. So all signals are held to the same: no false alarm there.

    Of the runs whose retention left, a signal scores +1 where it left at an earlier probe, 0 at the
    same one, and −1 later or never. The score's mean over the seeds of a cell is the unit of an
    exact sign-flip test over all datasets' cells; Holm over band × signal. `points_to_come` is
    retention at the probe at which the signal left less that at the last one, 0 where it never
    left. Its mean and Student's interval are over the means of the cells, as is the mean of
    `damage_points`.

    Returns:
        One row a scope, band and signal; units are cells. Details: "cells"; "tests"; "against_cka":
        each signal's points to come less CKA's, paired by cell, with Holm over signals.
    """
    return per_setting(QUESTION, tables, lambda part: _in_setting(part, alpha))


def _in_setting(tables: StudyTables, alpha: float) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    has_score = _least_retention(runs).notna()
    why = "the pretrained score, or on how many images, is unknown"
    runs = leave_out(runs, has_score, "runs", why, excluded)
    seen = trajectories(tables.history, runs, ["retention_pct"], excluded)
    if seen is None or not seen.signals:
        return cannot_answer(
            QUESTION, "it needs signals and retention at several steps of a run", excluded
        )
    least = _least_retention(seen.runs).to_numpy()[:, None]
    left = first_place(seen.values["retention_pct"] < least)
    bands = {
        IMAGES: _of_images(seen, tables.subsets),
        QUIET: _of_quiet_runs(seen, left),
    }
    found = [
        _signal_in(seen, left, band, signal, widths)
        for band, by_signal in bands.items()
        for signal, widths in by_signal.items()
        if np.isfinite(widths).any()
    ]
    if not found:
        return cannot_answer(
            QUESTION,
            "no probe subsets were recorded, and no other dataset has "
            f"{MIN_QUIET_RUNS} runs that lost nothing, so no signal has a band",
            excluded,
        )
    return _answer(seen, pd.concat(found, ignore_index=True), excluded, alpha)


# ---------------------------------------------------------------- bands


def _least_retention(runs: pd.DataFrame) -> pd.Series[float]:
    """The lower end of each run's pretrained score, in percent of that score."""

    def least(row: dict[Any, Any]) -> float:
        score = row.get(pretrained_accuracy_key(str(row["transfer"])))
        count = row.get("zero_shot_num_images")
        if not (score and count and score > 0 and count > 0):  # NaN compares as False
            return nan
        low, _ = wilson_interval_pct(round(score / 100 * count), int(count))
        return 100 * low / float(score)

    found = np.array([least(row) for row in runs.to_dict("records")], dtype=np.float64)
    return pd.Series(found, runs.index)


def _of_images(seen: Trajectories, subsets: pd.DataFrame) -> dict[str, FloatArray]:
    """By signal, what other images alone would change, of each run."""
    found = {}
    for signal, level in _LEVEL_OF.items():
        if signal not in seen.signals or "num_images" not in seen.values:
            continue
        levels = dict(list(_pretrained_levels(subsets, signal, level).groupby("run_id")))
        images = seen.at("num_images", seen.last)
        found[signal] = np.array(
            [
                _width(levels[run], count) if run in levels else nan
                for run, count in zip(seen.runs["run_id"], images, strict=True)
            ]
        )
    return found


def _pretrained_levels(subsets: pd.DataFrame, signal: str, level: str) -> pd.DataFrame:
    """The pretrained level on every probe subset, from the adapted one and its percent change."""
    keys = ["run_id", "subset", "num_images"]
    mine = subsets[subsets["signal"].isin([signal, level])]
    wide = mine.pivot_table(index=keys, columns="signal", values="value").reset_index()
    if not {signal, level} <= set(wide.columns):
        return pd.DataFrame(columns=[*keys, "level"])
    return wide.assign(level=wide[level] / (1 + wide[signal] / 100))


def _width(levels: pd.DataFrame, num_images: float) -> float:
    """Half the 95 % interval of the mean over the probe set, in percent of the mean."""
    sizes = levels["num_images"].value_counts()
    size, count = sizes.index[0], int(sizes.iloc[0])
    if count < MIN_SUBSETS:
        return nan
    values = levels.loc[levels["num_images"] == size, "level"]
    spread = float(values.std(ddof=1)) * sqrt(float(size) / num_images)
    return 100 * float(student_t.ppf(0.975, count - 1)) * spread / float(values.mean())


def _of_quiet_runs(seen: Trajectories, left: Places) -> dict[str, FloatArray]:
    """By signal, how far it went in the other datasets' runs that lost nothing, of each run."""
    datasets = seen.runs["dataset"].to_numpy()
    quiet = left < 0
    found = {}
    for signal in seen.signals:
        moved = seen.moved(signal)
        furthest = np.nanmax(np.where(np.isfinite(moved), moved, -np.inf), axis=1)
        widths = np.full(len(datasets), nan)
        for dataset in set(datasets):
            others = furthest[quiet & (datasets != dataset) & np.isfinite(furthest)]
            if others.size >= MIN_QUIET_RUNS:
                widths[datasets == dataset] = others.max()
        found[signal] = widths
    return found


# ---------------------------------------------------------------- what a signal told


def _signal_in(
    seen: Trajectories, left: Places, band: str, signal: str, widths: FloatArray
) -> pd.DataFrame:
    """One row a run that has this band: when signal and retention left, and what was to come."""
    warned = first_place(seen.moved(signal) > widths[:, None])
    retention = seen.values["retention_pct"]
    final = retention[np.arange(len(left)), seen.last]
    at_warning = seen.at("retention_pct", warned)
    never = len(retention[0])
    order = np.sign(np.where(left < 0, never, left) - np.where(warned < 0, never, warned))
    frame = seen.runs[["run_id", "dataset", "series", "learning_rate", "cell"]].assign(
        band=band,
        signal=signal,
        band_width=widths,
        is_damaged=left >= 0,
        has_warned=warned >= 0,
        score=order.astype(float),
        signal_step=seen.at("step", warned),
        retention_step=seen.at("step", left),
        damage_points=100.0 - final,
        points_to_come=np.where(warned >= 0, at_warning - final, 0.0),
    )
    return frame[np.isfinite(widths)]


def _answer(
    seen: Trajectories, found: pd.DataFrame, excluded: list[Exclusion], alpha: float
) -> Answer:
    rows = [
        {"scope": scope, "band": band, "signal": signal, **_row(mine)}
        for scope, part in scopes(found)
        for (band, signal), mine in part.groupby(["band", "signal"], sort=False)
    ]
    families, details = [], {"cells": _by_cell(found)}
    tested = _tests(found)
    against = _against_reference(found)
    for name, what, tests in (
        ("tests", "onset: band × signal", tested),
        ("against_cka", "points to come less those of CKA: signal", against),
    ):
        if tests:
            members = [f"{one.get('band', '')} {one['signal']}".strip() for one in tests]
            family = Family(what, tuple(members))
            details[name], declared = with_holm(pd.DataFrame(tests), family, alpha)
            families.append(declared)
    table = pd.DataFrame(rows)
    return Answer(
        question=QUESTION,
        sentence=_sentence(found, table),
        remarks=tuple(_remarks(seen, found, details, alpha)),
        table=lead_with(
            table, "signal", "band", "scope", "num_before", "num_lost", "points_to_come"
        ),
        unit="cells",
        num_units=int(found["cell"].nunique()),
        excluded=tuple(excluded),
        family=tuple(families),
        details=details,
    )


def _row(mine: pd.DataFrame) -> dict[str, Any]:
    damaged, quiet = mine[mine["is_damaged"]], mine[~mine["is_damaged"]]
    is_one = mine["dataset"].nunique() == 1
    cells = damaged.groupby("cell")[["points_to_come", "damage_points"]].mean()
    to_come, reach = _with_reach(cells["points_to_come"])
    return {
        "band_width": float(mine["band_width"].mean()) if is_one else nan,
        "num_lost": len(damaged),
        "num_before": int((damaged["score"] > 0).sum()),
        "num_same_probe": int((damaged["score"] == 0).sum()),
        "num_later": int(((damaged["score"] < 0) & damaged["has_warned"]).sum()),
        "num_never": int((~damaged["has_warned"]).sum()),
        "num_quiet": len(quiet),
        "num_false_alarms": int(quiet["has_warned"].sum()),
        "points_to_come": to_come,
        "to_come_low": to_come - reach,
        "to_come_high": to_come + reach,
        "damage_points": float(cells["damage_points"].mean()),
    }


def _with_reach(cells: pd.Series[float]) -> tuple[float, float]:
    """The mean over cells, and how far its 95 % interval reaches."""
    count, mean = len(cells), float(cells.mean())
    if count < 2:
        return mean, nan
    return mean, float(student_t.ppf(0.975, count - 1) * cells.std(ddof=1) / sqrt(count))


def _tests(found: pd.DataFrame) -> list[dict[str, Any]]:
    """Whether a signal leaves before retention or after it, over the cells of all datasets."""
    damaged = found[found["is_damaged"]]
    tests = []
    for (band, signal), mine in damaged.groupby(["band", "signal"], sort=False):
        scores = mine.groupby("cell")["score"].mean()
        test = sign_flip(scores, np.zeros(len(scores)))
        tests.append({"band": band, "signal": signal, "score": test.difference, **over_cells(test)})
    return tests


def _against_reference(found: pd.DataFrame) -> list[dict[str, Any]]:
    """Each signal's points to come less the reference's, in the quiet runs' band, over cells."""
    damaged = found[found["is_damaged"] & (found["band"] == QUIET)]
    means = damaged.pivot_table(index="cell", columns="signal", values="points_to_come")
    if REFERENCE not in means:
        return []
    tests = []
    for signal in means.columns.drop(REFERENCE):
        test = sign_flip(means[signal], means[REFERENCE])
        ours = {"signal": signal, "reference": REFERENCE, "difference": test.difference}
        tests.append({**ours, **over_cells(test)})
    return tests


def _by_cell(found: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds; steps are of the runs that left."""
    keys = ["dataset", "series", "learning_rate", "band", "signal"]
    cells = found.groupby(keys, sort=True).agg(
        num_runs=("run_id", "size"),
        num_lost=("is_damaged", "sum"),
        num_warned=("has_warned", "sum"),
        signal_step=("signal_step", "median"),
        retention_step=("retention_step", "median"),
        points_to_come=("points_to_come", "mean"),
        damage_points=("damage_points", "mean"),
    )
    return cells.reset_index().rename(columns={"series": "method"})


# ---------------------------------------------------------------- words


def _sentence(found: pd.DataFrame, table: pd.DataFrame) -> str:
    runs = found.drop_duplicates("run_id")
    damaged = int(runs["is_damaged"].sum())
    text = (
        f"In {damaged} of {counted(len(runs), 'run')} retention falls below the 95 % interval of "
        "the pretrained score"
    )
    if not damaged:
        return f"{text}, so no signal can warn of it."
    text += _how_often_first(table)
    parts = []
    for band, words in (
        (
            QUIET,
            "Say that a signal warns once it goes further than in any run of another dataset that "
            "lost nothing",
        ),
        (
            IMAGES,
            "Say that a signal warns once it goes further than other images alone would move it",
        ),
    ):
        mine = table[(table["band"] == band) & (table["num_lost"] > 0)]
        mine = mine[mine["scope"] == mine["scope"].iloc[0]] if len(mine) else mine
        if len(mine):
            parts.append(f"{words}. {_ranked(mine)}.")
    return " ".join([f"{text}.", *parts])


def _how_often_first(table: pd.DataFrame) -> str:
    """In how many runs the signal that warns most often did so before retention left."""
    widest = table[(table["scope"] == table["scope"].iloc[0]) & (table["num_lost"] > 0)]
    most = widest["num_before"].max()
    if not most > 0:
        return ". No signal warned before that"
    alike = few_words(dict.fromkeys(map(label, widest[widest["num_before"] == most]["signal"])))
    return f". A signal warned before that in {most} of them at most ({alike})"


def _ranked(rows: pd.DataFrame) -> str:
    """The signal that warns with the most still to come, ties named, and what it is worth."""
    text = METRICS["retention_pct"].text
    scope = rows["scope"].iloc[0]
    where = "" if scope == OVERALL else f" on {scope}"
    have_warned = rows[rows["num_never"] < rows["num_lost"]]
    if have_warned.empty:
        return _silent(rows) + where
    have_warned = have_warned.sort_values("points_to_come", ascending=False)
    best, told = have_warned.iloc[0], have_warned["points_to_come"].map(text)
    alike = [label(name) for name in have_warned.loc[told == told.iloc[0], "signal"]]
    is_one = len(alike) == 1
    earliest = f"The earliest{where} {'is' if is_one else 'are'} {few_words(alike)}"
    lost = f"of the {text(best['damage_points'])} points of retention lost on average"
    warned = "it warned" if is_one else "they warned"
    still = f"{lost}, {told.iloc[0]} were still to come when {warned}"
    if best["points_to_come"] <= 0:
        still = f"when {warned}, nothing {lost} was still to come"
    own = "It" if is_one else capitalised(alike[0])
    return (
        f"{earliest if len(rows) > 1 else capitalised(alike[0])}: {still}. {own} warned before "
        f"retention fell in {best['num_before']} of {counted(best['num_lost'], 'run')}, at the "
        f"same probe in {best['num_same_probe']}, later in {best['num_later']} and never in "
        f"{best['num_never']}. Of {counted(best['num_quiet'], 'run')} that lost nothing it warned "
        f"falsely in {best['num_false_alarms']}"
    )


def _silent(rows: pd.DataFrame) -> str:
    """That no signal warned."""
    names, runs = rows["signal"].map(label), counted(rows["num_lost"].max(), "run")
    if len(names) == 1:
        return f"{capitalised(names.iloc[0])} warned in none of {runs}"
    return f"None of {few_words(names)} warned in any of {runs}"


def _remarks(
    seen: Trajectories, found: pd.DataFrame, details: dict[str, pd.DataFrame], alpha: float
) -> Iterator[str]:
    held = set(found.loc[found["band"] == QUIET, "dataset"])
    free = [str(one) for one in sorted(set(seen.runs["dataset"]) - held)]
    if free:
        yield (
            f"On {join_words(free)} signals are not held to quiet runs: fewer than "
            f"{MIN_QUIET_RUNS} runs of other datasets lost nothing."
        )
    if "tests" in details:
        shown = details["tests"][details["tests"]["p_holm"] <= alpha]
        for is_first, words in ((True, "before retention"), (False, "after retention or never")):
            named = shown[(shown["score"] > 0) == is_first]
            listed = [f"{label(row['signal'])} ({row['band']})" for row in named.to_dict("records")]
            if listed:
                yield f"By Holm p ≤ {alpha:g} these leave {words}: {few_words(listed)}."
        if shown.empty:
            yield f"No signal leaves before or after retention by Holm p ≤ {alpha:g}."
    if "against_cka" in details:
        shown = details["against_cka"][details["against_cka"]["p_holm"] <= alpha]
        listed = [
            f"{label(row['signal'])} ({number_text(row['difference'], 1, signed=True)} points)"
            for row in shown.to_dict("records")
        ]
        yield (
            f"In what is still to come these differ from {label(REFERENCE)}: {few_words(listed)}."
            if listed
            else f"In what is still to come no signal differs from {label(REFERENCE)}."
        )
    yield (
        "CKA and the distances compare the same images before and after: they have no noise of "
        "images, they move at the first step of every run, and only a level makes them a warning."
    )
    if bool((seen.ends_of_epochs == seen.is_probe).all()):
        yield "Probes are at the ends of epochs alone, so an onset is known to an epoch."
