"""The part of a study's page that shows one setting: one dataset, model, protocol, transfer set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pandas as pd

from driftscope import limits
from driftscope.analysis import StudyTables, grouping
from driftscope.analysis.chart import Chart
from driftscope.analysis.kept_chart import kept_chart
from driftscope.analysis.map_charts import LayerScales, head_chart
from driftscope.analysis.study_charts import (
    PlaceCharts,
    are_runs_drawn,
    known_metrics,
    profile_chart,
)
from driftscope.analysis.summaries import Summary, study_summary
from driftscope.analysis.table import Table
from driftscope.metric import Metric
from driftscope.metrics import KEPT_PCT, METRICS, main_drifts
from driftscope.report import tables
from driftscope.report.page import LegendEntry, Picture, legend, panel_pictures, whole_picture
from driftscope.report.style import SeriesStyle, chart_styles, method_styles

MAX_HEAD_CELLS = 6000
"""Heads drawn on a page at most, over all cells of a setting; files have them all."""
MAX_HEAD_MAPS = 100
"""Cells whose heads are drawn on a page at most."""
MAX_SERIES = 12
"""Series of a setting that a page draws over training and layer by layer at most."""
MAX_CLASS_COLUMNS = 40
"""Cells in the figure of classes on a page at most."""

_OTHER_IMAGES = (
    "Retention over training was read on other images than at the end, so the curves need not end "
    "at the numbers of the tables."
)

_NO_HEADS = (
    "Head by head there are too many cells for a page; driftscope study report --format svg draws "
    "them."
)
_NO_SINGLE_RUNS = (
    "The study's {:,} runs are too many to draw each; "
    f"{limits.PAGE_RUNS.variable} says up to how many are drawn."
)


@dataclass(frozen=True)
class Section:
    """All that a page shows of one setting."""

    anchor: str
    has_runs: bool
    single_runs: str
    heading: str
    summary: Summary
    legend: list[LegendEntry]
    panels: list[Picture]
    drift_panels: list[Picture]
    cka_maps: list[Picture]
    heatmaps: list[Picture]
    heads: list[Picture]
    layers_note: str
    class_retention: list[Picture]
    rate_legend: list[LegendEntry]
    trajectories: list[list[Picture]]
    trajectories_note: str
    table: Table
    layers: Table | None
    classes: Table | None
    estimates: list[Picture]


def setting_section(
    number: int,
    name: str,
    setting: Mapping[str, str],
    runs: pd.DataFrame,
    layer_cells: pd.DataFrame,
    study: StudyTables,
    styles: Mapping[str, SeriesStyle],
    scales: LayerScales,
) -> Section:
    """Tables, pictures and sentences of one setting.

    Args:
        number: its place on the page, from 1; ids are made of it.
        name: what tells it from the page's other settings.
        setting: what `grouping.split_settings` says it is.
        runs: its runs.
        layer_cells: `grouping.layer_cells_frame` of them, may be empty.
        study: whose history, heads and classes are shown (rows of other settings are left out).
        styles: how each series of the page is drawn.
        scales: of the maps by layer, one for the page.
    """
    prefix = f"s{number}"
    cells = grouping.cells_frame(runs)
    series = list(dict.fromkeys(cells["series"]))
    own_styles = {name: styles.get(name, style) for name, style in method_styles(series).items()}
    charts = PlaceCharts(study, setting, runs, layer_cells, scales)
    trajectories = _first_series(charts.trajectories)
    drawn = partial(_flat, has_stills=are_runs_drawn(study.runs))
    heads = _heads(charts, f"{prefix}-heads")
    return Section(
        anchor=f"setting-{number}",
        has_runs="seed" not in runs or bool(runs["seed"].notna().any()),
        single_runs="" if are_runs_drawn(study.runs) else _NO_SINGLE_RUNS.format(len(study.runs)),
        heading=name,
        summary=study_summary(cells, runs, setting),
        legend=legend(own_styles, prefix),
        panels=drawn(charts.outcomes, f"{prefix}-rate", own_styles),
        drift_panels=drawn(charts.drifts, f"{prefix}-drift", own_styles),
        cka_maps=drawn(_first_series(charts.layers_cka), f"{prefix}-cka"),
        heatmaps=drawn(_first_series(charts.layers), f"{prefix}-layers"),
        heads=heads,
        layers_note=" ".join(
            [_cut_note(charts.layers)] + [_NO_HEADS] * (charts.has_heads and not heads)
        ).strip(),
        class_retention=_class_retention(charts, setting, f"{prefix}-classes"),
        classes=tables.classes_list(charts.class_cells, setting)
        if len(charts.class_cells)
        else None,
        rate_legend=legend(chart_styles(trajectories), f"{prefix}-rates") if trajectories else [],
        trajectories=_rows(trajectories, f"{prefix}-path", has_stills=are_runs_drawn(study.runs)),
        trajectories_note=" ".join(
            [_OTHER_IMAGES] * grouping.is_followed_on_other_images(study.history, runs)
            + [_cut_note(charts.trajectories)]
        ).strip(),
        table=tables.study_table(cells, setting),
        layers=tables.layers_list(layer_cells, setting) if len(layer_cells) else None,
        estimates=drawn(charts.estimates, f"{prefix}-estimates", own_styles),
    )


def setting_names(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """What tells each setting from the others: its dataset, and whatever else differs."""
    others = [
        key for key in grouping.PLACE[1:] if len({setting.get(key, "") for setting in settings}) > 1
    ]
    return [
        ", ".join(setting.get(key) or "none" for key in ("dataset", *others))
        for setting in settings
    ]


def _rows(
    chart: Chart | None,
    name: str,
    styles: Mapping[str, SeriesStyle] | None = None,
    *,
    has_stills: bool,
) -> list[list[Picture]]:
    return panel_pictures(chart, name, styles, has_stills=has_stills) if chart else []


def _flat(
    chart: Chart | None,
    name: str,
    styles: Mapping[str, SeriesStyle] | None = None,
    *,
    has_stills: bool,
) -> list[Picture]:
    """A picture a panel."""
    rows = _rows(chart, name, styles, has_stills=has_stills)
    return [picture for row in rows for picture in row]


def _first_series(chart: Chart | None) -> Chart | None:
    """The chart with as many rows, one a series, as a page draws."""
    if chart is None:
        return None
    return replace(
        chart, panels=chart.panels[:MAX_SERIES], row_names=tuple(chart.row_names[:MAX_SERIES])
    )


def _cut_note(chart: Chart | None) -> str:
    """Which series `_first_series` leaves out, and where they are; nothing if none."""
    if chart is None or len(chart.panels) <= MAX_SERIES:
        return ""
    return (
        f"The first {MAX_SERIES} of {len(chart.panels)} series; driftscope study report --format "
        "svg draws all."
    )


def _heads(charts: PlaceCharts, name: str) -> list[Picture]:
    """The layer × head maps of every cell, unless they are too many for a page."""
    if len(charts.cells) > MAX_HEAD_MAPS:
        return []
    chart = charts.heads
    maps = [panel.heat for panel in chart.flat if panel.heat] if chart else []
    num_heads = sum(len(one.rows) * len(one.columns) for one in maps)
    if not chart or num_heads > MAX_HEAD_CELLS or len(maps) > MAX_HEAD_MAPS:
        return []
    words = (
        "Maps of each cell, head by layer: percent change of each head's attention entropy. "
        "The numbers are in the study's export."
    )
    return [whole_picture(chart, name, words)]


def heads_picture(heads: pd.DataFrame) -> Picture:
    """The percent change of each head's entropy, of `tables.head_entropy_changes`."""
    words = (
        "Heatmap of the percent change of attention entropy, layer by head. "
        "The numbers are in the table below it."
    )
    return whole_picture(head_chart("heads", heads), "heads", words)


def _class_retention(charts: PlaceCharts, setting: Mapping[str, str], name: str) -> list[Picture]:
    """What is left of each class, unless the cells are too many for a page."""
    if len(charts.class_cells.drop_duplicates(["series", "learning_rate"])) > MAX_CLASS_COLUMNS:
        return []
    chart = charts.classes
    if not chart:
        return []
    words = (
        f"Retention of the classes of {setting['transfer']}, the least kept first, a column a "
        "cell. The numbers are in the table of classes below."
    )
    return [whole_picture(chart, name, words)]


@dataclass(frozen=True)
class FirstPicture:
    """The picture of a page's first screen, and what stands above it."""

    title: str
    picture: Picture


def first_picture(
    found: Mapping[str, Any], layers: pd.DataFrame, budget_pct: float = KEPT_PCT
) -> FirstPicture | None:
    """What is left of a model's ability; where that is not known, CKA at each layer.

    None where neither is known.

    Args:
        found: with `transfer` and `estimate`, as `kept_chart` takes it.
        layers: a row a layer.
        budget_pct: the retention to keep.
    """
    chart = kept_chart("kept", found, budget_pct)
    if chart is not None:
        return FirstPicture("What is left", whole_picture(chart, "kept", chart.flat[0].words))
    cka = METRICS["cka"]
    if not known_metrics([cka], layers):
        return None
    [panel] = profile_chart("first", layers, [cka]).flat
    chart = Chart("first", ((replace(panel, title=""),),))  # the page's heading says it
    return FirstPicture(
        "CKA with the pretrained model, by layer", whole_picture(chart, "first", panel.words)
    )


def path_pictures(points: pd.DataFrame, metrics: Iterable[Metric], along: str) -> list[Picture]:
    """A panel a metric over a training; nothing of a metric that has one value alone.

    Args:
        points: a row a look.
        metrics: in the order of the panels.
        along: `step` or `epoch`, a column of `points`.
    """
    pictures = []
    for metric in known_metrics(metrics, points):
        chart = profile_chart("path", points, [metric], along=along)
        if len(chart.flat[0].marks[0].x) > 1:
            [[one]] = panel_pictures(chart, f"path-{metric.key}", is_interactive=False)
            pictures.append(one)
    return pictures


def comparison_profiles(layers: pd.DataFrame) -> list[Picture]:
    """The panels of two compared models: the main drifts at each layer."""
    chart = profile_chart("profile", layers, known_metrics(main_drifts("layer"), layers))
    return [one for row in panel_pictures(chart, "profile", is_interactive=False) for one in row]
