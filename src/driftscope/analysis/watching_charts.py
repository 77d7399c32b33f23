"""The figures of what to watch and when to stop: points still to come, what each rule keeps."""

from __future__ import annotations

import pandas as pd

from driftscope.analysis.chart import Axis, Chart, Marks, Panel, points
from driftscope.analysis.onset import IMAGES, QUIET
from driftscope.analysis.stopping import BEST, LAST, ORACLE, RULES
from driftscope.analysis.tables import label
from driftscope.metrics import METRICS

_BANDS = {QUIET: "beyond all runs without a loss", IMAGES: "beyond what other images change"}
_SHORT = {ORACLE: "oracle", BEST: "best epoch", LAST: "last"}
_APART = 2.0
"""Points of accuracy, below which two labels would lie on each other."""

_ROOM = 1.5
"""The same in points of retention."""

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
        title or "Retention lost after each signal's warning",
        Axis("Retention lost after the warning, points"),
        Axis(scale="names", names=names),
        tuple(marks),
        words="Bars of the points of retention that were lost after each signal had warned, mean "
        "over the runs that lost some; 0 where it never warned. A signal warns where it goes "
        "further than in any of the other datasets' runs without a loss, or than other images "
        "alone would move it. Bars have no intervals: which differ from CKA is said in the text. "
        "The numbers are in the table below.",
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
    labels = _labels(table)
    kept = table[retention.key]
    room = max(0.1 * float(kept.max() - kept.min()), 1.0)
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
                labels=tuple(labels[rule] for rule in mine["rule"]),
            )
        )
    panel = Panel(
        "stopping",
        title or "Where each rule stops",
        Axis(metric=accuracy.key),
        Axis(metric=retention.key, limits=(float(kept.min()) - room, float(kept.max()) + room)),
        tuple(marks),
        words=f"Accuracy against retention where each rule stops{f' on {title}' if title else ''}, "
        "means over runs. The oracle knows retention: it takes the most accurate look that keeps "
        "the budget. The numbers are in the table below.",
    )
    return Chart(name, ((panel,),), tuple(_KINDS.values()), "pair")


def _labels(table: pd.DataFrame) -> dict[str, str]:
    """By rule, its name where there is room: the plain rules' first, then the signals'."""
    told: dict[str, str] = {}
    taken: list[tuple[float, float]] = []
    for row in table.sort_values("rule", key=lambda rules: ~rules.isin(RULES)).to_dict("records"):
        place = (row["val_accuracy_pct"], row["retention_pct"])
        is_free = all(
            abs(place[0] - other[0]) > _APART or abs(place[1] - other[1]) > _ROOM for other in taken
        )
        told[row["rule"]] = _SHORT.get(row["rule"], label(row["rule"])) if is_free else ""
        taken += [place] if is_free else []
    return told
