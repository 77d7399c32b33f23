"""The figures of what to watch and when to stop: points still to come, what each rule keeps."""

from __future__ import annotations

import pandas as pd

from driftscope.analysis.chart import Axis, Chart, Marks, Panel, limits_around, points, spans
from driftscope.analysis.label_places import Ends, label_offsets
from driftscope.analysis.onset import IMAGES, QUIET
from driftscope.analysis.stopping import BEST, LAST, ORACLE, RULES
from driftscope.analysis.tables import label
from driftscope.metrics import METRICS

_BANDS = {
    QUIET: "further than in any run without a loss",
    IMAGES: "further than other images would move it",
}
_SHORT = {ORACLE: "oracle", BEST: "best epoch", LAST: "last epoch"}
_KINDS = {True: "without a signal", False: "a signal's threshold"}


def onset_chart(name: str, table: pd.DataFrame, title: str = "") -> Chart:
    """Bars of the points of retention still to come when a signal warns, by band.

    Args:
        name: the chart's name.
        table: rows of one scope of `analysis.onset`.
        title: what stands above.
    """
    ordered = table.sort_values("points_to_come")
    names = tuple(dict.fromkeys(label(one) for one in ordered["signal"]))
    text = METRICS["retention_pct"].text
    marks = [
        Marks(
            points(mine["points_to_come"]),
            tuple(label(one) for one in mine["signal"]),
            "bars",
            words,
            x_ends=spans(mine["to_come_low"], mine["to_come_high"]),
            hover=tuple(
                f"{label(row['signal'])}, {words}\n{text(row['points_to_come'])} of "
                f"{text(row['damage_points'])} points to come\nfirst in {row['num_before']} of "
                f"{row['num_lost']} runs, {row['num_false_alarms']} false alarms"
                for row in mine.to_dict("records")
            ),
        )
        for band, words in _BANDS.items()
        for mine in [table[(table["band"] == band) & table["points_to_come"].notna()]]
        if len(mine)
    ]
    panel = Panel(
        "onset",
        title or "Retention still lost after a signal's warning, by when it counts as one",
        Axis("Retention lost after the warning, points"),
        Axis(scale="names", names=names),
        tuple(marks),
        words="Bars of the points of retention that were lost after each signal had warned, mean "
        "over the runs that lost some; 0 where it never warned. A signal warns where it goes "
        "further than in any of the other datasets' runs without a loss, or than other images "
        "alone would move it; the second is known of few signals. Lines are 95 % intervals over "
        "cells. The numbers are in the table below.",
    )
    return Chart(name, ((panel,),), tuple(one.name for one in marks), "pair")


def stopping_chart(name: str, table: pd.DataFrame, title: str = "") -> Chart:
    """Accuracy against retention of every rule to stop by, of one dataset.

    Args:
        name: the chart's name.
        table: rows of one dataset of `analysis.stopping`.
        title: what stands above.
    """
    accuracy, retention = METRICS["val_accuracy_pct"], METRICS["retention_pct"]
    marks = []
    # the plain rules are named first, where room is short
    ordered = table.sort_values("rule", key=lambda rules: ~rules.isin(RULES), kind="stable")
    x_limits, y_limits = limits_around(ordered[accuracy.key]), limits_around(ordered[retention.key])
    texts = [_SHORT.get(rule, label(rule)) for rule in ordered["rule"]]
    places = list(zip(ordered[accuracy.key], ordered[retention.key], strict=True))
    offsets = label_offsets(places, texts, Ends(*x_limits), Ends(*y_limits))
    labels = dict(zip(ordered["rule"], zip(texts, offsets, strict=True), strict=True))
    for is_plain, words in _KINDS.items():
        mine = table[table["rule"].isin(RULES) == is_plain]
        named = [label(one) for one in mine["rule"]]
        marks.append(
            Marks(
                points(mine[accuracy.key]),
                points(mine[retention.key]),
                "dots",
                words,
                hover=tuple(
                    f"{rule}\n{accuracy.label} {accuracy.with_unit(row[accuracy.key])}, "
                    f"{retention.label} {retention.with_unit(row[retention.key])}\nbudget kept in "
                    f"{row['num_kept']} of {row['num_runs']} runs"
                    for rule, row in zip(named, mine.to_dict("records"), strict=True)
                ),
                labels=tuple(labels[rule][0] for rule in mine["rule"]),
                label_offsets=tuple(labels[rule][1] for rule in mine["rule"]),
            )
        )
    panel = Panel(
        "stopping",
        title or "Where each rule stops",
        Axis(metric=accuracy.key, limits=x_limits),
        Axis(metric=retention.key, limits=y_limits),
        tuple(marks),
        words=f"Accuracy against retention where each rule stops{f' on {title}' if title else ''}, "
        "means over runs. The oracle knows retention: it takes the most accurate look that keeps "
        "the budget. The numbers are in the table below.",
    )
    return Chart(name, ((panel,),), tuple(_KINDS.values()), "pair")
