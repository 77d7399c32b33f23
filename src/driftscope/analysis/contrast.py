"""Method contrast: at the same learning rate, at the same accuracy, at the same weight drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import nan
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pandas as pd

from driftscope.analysis.answer import (
    ALPHA,
    Answer,
    cannot_answer,
    lead_with,
    per_setting,
    with_holm,
)
from driftscope.analysis.grouping import axis_values, seeded_runs, usable_runs
from driftscope.analysis.natural_order import natural_key
from driftscope.analysis.tables import Exclusion, StudyTables, accuracy_column, label
from driftscope.analysis.twins import alike
from driftscope.analysis.words import (
    counted,
    join_words,
    of_all,
    rate_text,
    sentences,
    spread_text,
)
from driftscope.metric import number_text
from driftscope.metrics import METRICS, main_drifts
from driftscope.stats.effects import cohens_d_z
from driftscope.stats.groups import paired_t, sign_flip, wilcoxon_signed_rank
from driftscope.stats.known_values import FloatArray, finite_mean, finite_sd
from driftscope.stats.multiplicity import Family

QUESTION = "method_contrast"
NAMED = 3
"""How many methods or datasets a sentence names before it refers to the tables."""

MAX_RATES = 3
"""The differences at this many rates are listed in a sentence; of more their range is given."""

CONTRASTED = (
    "retention_pct",
    "test_accuracy_pct",
    *(one.key for one in main_drifts("run")),
)
"""The metrics contrasted, and so, with the datasets and methods, Holm's family: declared here."""

_DECIMALS = METRICS["retention_pct"].decimals

LEVELS = (0.25, 0.5, 0.75)
"""Where, within the range that both methods cover, matched contrasts are read."""


def method_contrast(
    tables: StudyTables,
    *,
    baseline: str = "full_ft",
    metrics: Sequence[str] = CONTRASTED,
    alpha: float = ALPHA,
) -> Answer:
    """Each method minus the baseline, paired over what the two share.

    A pair agrees in dataset, seed and every option. Pairs that differ from each other in an option
    are contrasts of their own: `method` and `baseline` are the series of either side. Where each
    method holds an option constant, at values of their own, they are paired all the same, and the
    sentence says in what they differ.

    - matching "learning_rate": pairs of runs with identical rate. Pairs of one
      rate share that rate, so ``p_over_rates`` (paired t over the rates' mean differences) is
      given beside the run-level tests.
    - matching "accuracy" and "weight_drift": along its rates each method and seed traces a curve;
      it is read, by linear interpolation, where it first reaches a given accuracy (or logarithm of
      weight drift), at three levels of the range that both methods cover, and averaged. One
      difference per seed. A curve ends at the rate of its highest accuracy: beyond it accuracy
      is lost again, and nobody would choose to be there.

    Paired t with its interval, d_z, Wilcoxon, and the exact sign flip with its floor; Holm over
    dataset × method (its series) × metric, for each matching.

    Returns:
        One row per matching, dataset, method and metric; units are pairs of runs. Details:
        "by_rate" (the mean difference in retention at each rate, with its sd over seeds).
    """
    return per_setting(
        QUESTION, tables, lambda part: _in_setting(part, baseline, tuple(metrics), alpha)
    )


def _in_setting(
    tables: StudyTables, baseline: str, metrics: tuple[str, ...], alpha: float
) -> Answer:
    runs, excluded = usable_runs(tables.runs)
    runs = seeded_runs(runs, "means without runs cannot be paired", excluded)
    metrics = tuple(name for name in metrics if runs[name].notna().any())
    others = sorted(set(runs["method"]) - {baseline})
    if baseline not in set(runs["method"]) or not others:
        return cannot_answer(
            QUESTION, f"it needs runs of {baseline!r} and of another method", excluded
        )
    matched_column = {"accuracy": accuracy_column(runs), "weight_drift": "weight_drift"}
    parts: list[pd.DataFrame] = []
    at_rates: dict[_Sides, pd.DataFrame] = {}
    families: list[dict[str, Any]] = []
    apart: dict[tuple[str, str], list[str]] = {}
    for matching in ("learning_rate", "accuracy", "weight_drift"):
        pairs = _pairs(runs, baseline, others, metrics, matching, excluded, apart)
        if not pairs:
            continue
        if matching == "learning_rate":
            at_rates = pairs
        # What is matched cannot differ.
        left = tuple(name for name in metrics if name != matched_column.get(matching))
        family = Family(
            f"method contrast at matched {matching}: dataset × method × metric",
            tuple(f"{dataset} · {one} · {metric}" for dataset, one, _ in pairs for metric in left),
        )
        table = pd.DataFrame(
            [
                _row(matching, sides, metric, frame, alpha)
                for sides, frame in pairs.items()
                for metric in left
            ]
        )
        table, declared = with_holm(table, family, alpha)
        parts.append(table)
        families.append(declared)
    if not parts:
        return cannot_answer(
            QUESTION,
            f"no run shares dataset, rate, seed and options with one of {baseline!r}",
            excluded,
        )
    whole = pd.concat(parts, ignore_index=True)
    at_rate = whole[whole["matching"] == "learning_rate"]
    by_rate = _by_rate(at_rates) if "retention_pct" in metrics else pd.DataFrame()
    return Answer(
        question=QUESTION,
        sentence=" ".join([_sentence(whole, by_rate), *_apart_sentences(apart, baseline)]),
        remarks=_remarks(whole, alpha),
        table=lead_with(
            *(whole, "matching", "dataset", "method", "metric"),
            *("difference", "low", "high", "p_holm", "p_over_rates"),
        ),
        details={"by_rate": by_rate},
        unit="pairs of runs",
        num_units=int(at_rate.groupby(["dataset", "method"])["num_pairs"].max().sum()),
        excluded=tuple(excluded),
        family=tuple(families),
    )


class _Sides(NamedTuple):
    """What is contrasted: the series of a method against the baseline's that agrees with it."""

    dataset: str
    method: str
    baseline: str


def _pairs(
    runs: pd.DataFrame,
    baseline: str,
    others: list[str],
    metrics: tuple[str, ...],
    matching: str,
    excluded: list[Exclusion],
    apart: dict[tuple[str, str], list[str]],
) -> dict[_Sides, pd.DataFrame]:
    """Per contrast: rows of pairs, columns ``METRIC_method`` and ``METRIC_baseline``.

    To `apart` is added, by method and what else differs, the datasets.
    """
    pairs: dict[_Sides, pd.DataFrame] = {}
    axes = axis_values(runs)
    for dataset, group in runs.groupby("dataset", sort=True):
        base = group[group["method"] == baseline]
        for method in others:
            other = group[group["method"] == method]
            if base.empty or other.empty:
                continue
            numbers, differences = alike(axes, other, base)
            found = {}
            for mine, plain in _agreeing(other, base, numbers):
                sides = _Sides(str(dataset), mine["series"].iloc[0], plain["series"].iloc[0])
                if matching == "learning_rate":
                    keys = ["learning_rate", "seed"]
                    frame = mine.merge(plain, on=keys, suffixes=("_method", "_baseline"))
                else:
                    frame = _matched(sides, mine, plain, metrics, matching, excluded)
                if not frame.empty:
                    found[sides] = frame
            lonely = len(other) - sum(map(len, found.values()))
            if matching == "learning_rate" and lonely:
                why = f"no {baseline} run with identical dataset, rate, seed and options"
                excluded.append(Exclusion(f"{dataset} {method} runs", lonely, why))
            pairs |= found
            if found and differences:
                told = apart.setdefault((method, differences), [])
                told += [str(dataset)] * (str(dataset) not in told)
    return pairs


def _agreeing(
    other: pd.DataFrame, base: pd.DataFrame, numbers: pd.Series[int]
) -> list[tuple[pd.DataFrame, pd.DataFrame]]:
    """The runs of a method and those of the baseline that agree (`alike`), in natural order."""
    plain, found = dict(iter(base.groupby(numbers[base.index]))), []
    for number, mine in other.groupby(numbers[other.index], sort=True):
        if number in plain:
            found.append((mine, plain[number]))
    return sorted(found, key=lambda sides: natural_key(str(sides[0]["series"].iloc[0])))


def _matched(
    names: _Sides,
    other: pd.DataFrame,
    base: pd.DataFrame,
    metrics: tuple[str, ...],
    matching: str,
    excluded: list[Exclusion],
) -> pd.DataFrame:
    """A row a seed that both series have: what is read of either curve at common levels."""
    column = accuracy_column(other) if matching == "accuracy" else "weight_drift"
    rows, apart = [], []
    read = [*dict.fromkeys(["seed", "learning_rate", column, *metrics])]  # of fifty columns
    curves = dict(_curves(base[read]))
    for seed, curve in _curves(other[read]):
        if seed not in curves:
            continue
        sides = {"method": _branch(curve, column), "baseline": _branch(curves[seed], column)}
        values = _interpolated_pair(sides, metrics, column)
        if values is None:
            apart.append(sides)
        else:
            rows.append({"seed": seed, "learning_rate": nan, **values})
    if apart:
        what = f"{names.dataset} {names.method} seeds at matched {matching}"
        excluded.append(Exclusion(what, len(apart), _why_apart(apart, names, column)))
    return pd.DataFrame(rows)


_Curve: TypeAlias = dict[str, FloatArray]


def _curves(runs: pd.DataFrame) -> Iterator[tuple[Any, _Curve]]:
    """The numbers of each seed of a series along its rates, column by column."""
    ordered = runs.sort_values("learning_rate", kind="stable")
    numbers = {str(name): ordered[name].to_numpy(dtype=np.float64) for name in ordered}
    for seed, rows in ordered.groupby("seed").indices.items():
        yield seed, {name: values[rows] for name, values in numbers.items()}


def _branch(curve: _Curve, column: str) -> _Curve:
    """The curve's runs by their rates, up to the highest value of what is matched."""
    is_known = np.isfinite(curve[column])
    if column == "weight_drift":
        is_known &= curve[column] > 0
    known = curve[column][is_known]
    end = int(np.argmax(known)) + 1 if known.size else 0
    return {name: values[is_known][:end] for name, values in curve.items()}


def _why_apart(apart: Sequence[Mapping[str, _Curve]], sides: _Sides, column: str) -> str:
    """Why curves could not be read at a common level."""
    names = {"method": sides.method, "baseline": sides.baseline}
    single = [
        name for side, name in names.items() if any(pair[side][column].size < 2 for pair in apart)
    ]
    up_to = f"up to the highest {label(column)}"
    if single:
        return f"{up_to} {join_words(single)} has runs of one rate only, which is no curve"
    spans = []
    for side, name in names.items():
        reached = np.concatenate([pair[side][column] for pair in apart])
        low, high = (METRICS[column].text(end) for end in (reached.min(), reached.max()))
        spans.append(f"{name} covers {low} to {high}")
    return f"{up_to} {' and '.join(spans)}: no level is common"


def _interpolated_pair(
    sides: Mapping[str, _Curve], metrics: tuple[str, ...], column: str
) -> dict[str, float] | None:
    """Every metric of both sides, read at common levels; None where there are none."""
    scales = {name: side[column] for name, side in sides.items()}
    if min(scale.size for scale in scales.values()) < 2:
        return None
    if column == "weight_drift":
        scales = {name: np.log10(scale) for name, scale in scales.items()}
    low = max(scale.min() for scale in scales.values())
    high = min(scale.max() for scale in scales.values())
    if not low < high:
        return None
    levels = low + np.array(LEVELS) * (high - low)
    values: dict[str, float] = {}
    for name, side in sides.items():
        for metric in metrics:
            read = [_first_crossing(scales[name], side[metric], level) for level in levels]
            values[f"{metric}_{name}"] = float(np.mean(read))
    return values


def _first_crossing(along: FloatArray, outcome: FloatArray, level: float) -> float:
    """The outcome where the curve, followed from its lowest rate, first passes the level."""
    for i in range(along.size - 1):
        start, stop = along[i], along[i + 1]
        if min(start, stop) <= level <= max(start, stop) and start != stop:
            share = (level - start) / (stop - start)
            return float(outcome[i] + share * (outcome[i + 1] - outcome[i]))
    return nan


def _row(
    matching: str, sides: _Sides, metric: str, pairs: pd.DataFrame, alpha: float
) -> dict[str, Any]:
    a = pairs[f"{metric}_method"].to_numpy(dtype=np.float64)
    b = pairs[f"{metric}_baseline"].to_numpy(dtype=np.float64)
    test, effect = paired_t(a, b), cohens_d_z(a, b)
    flip, ranks = sign_flip(a, b), wilcoxon_signed_rank(a, b)
    at_rates = pd.DataFrame({"rate": pairs["learning_rate"].to_numpy(), "a": a, "b": b}).dropna()
    by_rate = at_rates.groupby("rate").mean()
    over_rates = paired_t(by_rate["a"], by_rate["b"])
    return {
        "matching": matching,
        **sides._asdict(),
        "metric": metric,
        "num_pairs": test.num_a,
        "num_rates": len(by_rate),
        "num_seeds": int(pairs["seed"].nunique()),
        "mean_method": finite_mean(a),
        "mean_baseline": finite_mean(b),
        "difference": test.difference,
        "difference_sd": finite_sd(a - b) if matching != "learning_rate" else nan,
        "low": test.low,
        "high": test.high,
        "t": test.statistic,
        "p_value": test.p_value,
        "low_over_rates": over_rates.low,
        "high_over_rates": over_rates.high,
        "p_over_rates": over_rates.p_value,
        "d_z": effect.value,
        "d_z_low": effect.low,
        "d_z_high": effect.high,
        "p_wilcoxon": ranks.p_value if ranks.p_floor <= alpha else nan,
        "p_sign_flip": flip.p_value if flip.p_floor <= alpha else nan,
        "p_sign_flip_floor": flip.p_floor,
    }


def _by_rate(pairs: Mapping[_Sides, pd.DataFrame]) -> pd.DataFrame:
    """Per contrast and rate: the mean difference in retention, and its sd over the seeds."""
    rows = []
    for sides, frame in pairs.items():
        gaps = frame["retention_pct_method"] - frame["retention_pct_baseline"]
        for rate, own in gaps.dropna().groupby(frame["learning_rate"]):
            rows.append(
                {
                    **sides._asdict(),
                    "metric": "retention_pct",
                    "learning_rate": rate,
                    "difference": own.mean(),
                    "difference_sd": own.std(ddof=1),
                    "num_pairs": len(own),
                }
            )
    return pd.DataFrame(rows)


def _sentence(table: pd.DataFrame, by_rate: pd.DataFrame) -> str:
    """What the methods keep at the same rate, and at the same accuracy, in points of retention."""
    groups = [] if by_rate.empty else list(by_rate.groupby(["dataset", "method"], sort=False))
    ordered = sorted(groups, key=lambda group: -abs(group[1]["difference"].mean()))
    if ordered:
        told = [_at_rates(group) for _, group in ordered[:NAMED]]
        first = sentences([*told, *_more_sentence(len(ordered))])
    else:
        first = "At the same learning rate there is no retention to compare."
    known = table[table["metric"].eq("retention_pct") & table["difference"].notna()]
    rows = known[known["matching"] == "accuracy"]
    if rows.empty:
        return (
            f"{first} No two methods could be compared at the same accuracy, so a difference at "
            "the same rate says nothing about equal benefit."
        )
    rows = rows.sort_values("difference", key=abs, ascending=False, kind="stable")
    equal = [
        f"at the same accuracy {row['method']} keeps {_points(row)} "
        f"{_direction(row['difference'])} than {row['baseline']} on {row['dataset']} "
        f"({counted(row['num_pairs'], 'seed')})"
        for row in rows.head(NAMED).to_dict("records")
    ]
    return (
        f"{first} {sentences([*equal, *_more_sentence(len(rows))])} What is kept at the same "
        f"accuracy is the mean over {len(LEVELS)} accuracies that both reach, each interpolated "
        "between rates."
    )


def _apart_sentences(
    apart: Mapping[tuple[str, str], Sequence[str]], baseline: str
) -> Iterator[str]:
    """In what the methods compared differ beside the method, a sentence each."""
    for (method, differences), datasets in apart.items():
        yield (
            f"On {join_words(datasets)} {method} differs from {baseline} in more than the method: "
            f"{differences}."
        )


def _at_rates(group: pd.DataFrame) -> str:
    """One method on one dataset: at how many rates it keeps more, and by how much at each."""
    gaps, rows, rates = group["difference"], group.to_dict("records"), len(group)
    above, below = int((gaps > 0).sum()), int((gaps < 0).sum())
    count = max(above, below) or rates
    keeps = "as much as" if above == below == 0 else f"{'more' if above >= below else 'less'} than"
    written = [rate_text(row["learning_rate"]) for row in rows]
    if rates == 1:
        where = f"at the rate {written[0]}"
    else:
        where = "at every rate" if count == rates else f"at {count} of {rates} rates"
    spread = ", mean ± sd" if group["difference_sd"].notna().any() else ""
    points = [_points(row, signed=True, unit="") for row in rows]
    if rates == 1:
        listed = f": {points[0]} points of retention"
    elif rates <= MAX_RATES:
        pairs = zip(points, written, strict=True)
        listed = (
            f", in points of retention: {join_words(f'{gap} at {rate}' for gap, rate in pairs)}"
        )
    else:
        ends = (number_text(end, _DECIMALS, signed=True) for end in (gaps.min(), gaps.max()))
        listed, spread = f": {' to '.join(ends)} points of retention", ""
    least, most = group["num_pairs"].min(), group["num_pairs"].max()
    seeds = counted(most, "seed") if least == most else f"{least} to {most} seeds"
    each = " each" if rates > 1 else ""
    return (
        f"{where} {rows[0]['method']} keeps {keeps} "
        f"{rows[0]['baseline']} on {rows[0]['dataset']}{listed} ({seeds}{each}{spread})"
    )


def _points(row: Mapping[Any, Any], *, signed: bool = False, unit: str = " points") -> str:
    size = row["difference"] if signed else abs(row["difference"])
    spread = row.get("difference_sd", nan)
    return spread_text(size, spread, _DECIMALS, signed=signed) + unit


def _direction(difference: float) -> str:
    return "more" if difference >= 0 else "less"


def _more_sentence(count: int) -> list[str]:
    """How many more comparisons the tables have, where a sentence names the first."""
    return [f"the tables have {count - NAMED} more"] if count > NAMED else []


def _more(count: int) -> str:
    return f" ({count - NAMED} more in the tables)" if count > NAMED else ""


def _over_rates(rows: pd.DataFrame, alpha: float) -> str:
    """What is left of the contrasts where pairs of one rate count once."""
    # no interval: over so few rates it would end beyond 100 points
    told = [
        f"p = {number_text(row['p_over_rates'], 3)} for {row['method']} on {row['dataset']} "
        f"({row['num_rates']} rates)"
        for row in rows.sort_values("p_over_rates").head(NAMED).to_dict("records")
    ]
    shown = of_all(int((rows["p_over_rates"] <= alpha).sum()), len(rows), "contrast")
    return (
        "Pairs of one rate are not independent, so each rate's mean counts once. At the same rate "
        f"{shown} p ≤ {alpha:g} in retention, by a paired t over rates, unadjusted. The smallest "
        f"come first: {join_words(told)}{_more(len(rows))}."
    )


def _remarks(table: pd.DataFrame, alpha: float) -> tuple[str, ...]:
    """What the tests can say."""
    rows = table[(table["metric"] == "retention_pct") & table["p_holm"].notna()]
    remarks = []
    for matching, words in (("learning_rate", "rate"), ("accuracy", "accuracy")):
        mine = rows[rows["matching"] == matching]
        known = mine[mine["p_over_rates"].notna()]
        if len(known):
            remarks.append(_over_rates(known, alpha))
        elif len(mine):
            shown = of_all(int((mine["p_holm"] <= alpha).sum()), len(mine), "contrast")
            remarks.append(f"At the same {words} {shown} Holm p ≤ {alpha:g} in retention.")
    short = table["p_sign_flip_floor"] > alpha
    if short.any():
        remarks.append(
            f"Over all measures and matchings {of_all(int(short.sum()), len(table), 'contrast')} "
            f"too few pairs for an exact test to reach {alpha:g}. Their p-values rest on normality "
            "alone."
        )
    return tuple(remarks)
