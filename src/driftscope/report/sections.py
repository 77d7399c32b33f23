"""The part of a study's page that shows one setting: one dataset, model, protocol, transfer set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from driftscope.analysis import StudyTables, grouping
from driftscope.analysis.table import Table
from driftscope.analysis.tables import accuracy_column
from driftscope.analysis.words import rate_text
from driftscope.metrics import number_text
from driftscope.report import figures, heatmaps, plots, tables
from driftscope.report.class_figures import class_retention
from driftscope.report.figures import Measure
from driftscope.report.page import LegendEntry, Picture, legend, picture
from driftscope.report.style import SeriesStyle, method_styles, rate_styles
from driftscope.report.summary import Summary, study_summary
from driftscope.report.trajectories import trajectory_panel

MAX_HEAD_CELLS = 6000
"""Heads drawn on a page at most, over all cells of a setting; files have them all."""
MAX_CLASS_COLUMNS = 40
"""Cells in the figure of classes on a page at most."""


@dataclass(frozen=True)
class Section:
    """All that a page shows of one setting."""

    anchor: str
    has_runs: bool
    heading: str
    summary: Summary
    legend: list[LegendEntry]
    panels: list[Picture]
    drift_panels: list[Picture]
    heatmaps: list[Picture]
    heads: list[Picture]
    class_retention: list[Picture]
    rate_legend: list[LegendEntry]
    trajectories: list[list[Picture]]
    table: Table
    layers: Table | None
    classes: Table | None


CKA = Measure("cka", "CKA with the pretrained model", unit="", reference=1, decimals=3)
VALIDATION_ACCURACY = Measure("val_accuracy_pct", "Validation accuracy", floor=0, ceiling=100)
ENTROPY = Measure("delta_entropy_pct", "Δ attention entropy", reference=0, signed=True)


def setting_section(
    number: int,
    name: str,
    setting: Mapping[str, str],
    runs: pd.DataFrame,
    layer_cells: pd.DataFrame,
    study: StudyTables,
    styles: Mapping[str, SeriesStyle],
    layer_limit: float,
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
        layer_limit: the end of the heatmaps' scale, one for the page.
    """
    prefix = f"s{number}"
    cells = grouping.cells_frame(runs)
    series = list(dict.fromkeys(cells["series"]))
    own_styles = {name: styles.get(name, style) for name, style in method_styles(series).items()}
    history = study.history
    class_cells = grouping.class_cells_frame(study.classes, runs)
    probes = grouping.history_cells_frame(history, runs) if len(history) else history
    paths = grouping.run_history_frame(history, runs) if len(history) else history
    rates = sorted({float(rate) for rate in cells["learning_rate"]})
    rate_lines = {rate_text(rate): style for rate, style in rate_styles(rates).items()}
    trajectories = _trajectories(probes, paths, series, rate_styles(rates), setting, prefix)
    return Section(
        anchor=f"setting-{number}",
        has_runs="seed" not in runs or bool(runs["seed"].notna().any()),
        heading=name,
        summary=study_summary(cells, runs, setting),
        legend=legend(own_styles, prefix),
        panels=_rate_panels(
            cells, runs, study_measures(setting, accuracy_column(cells)), own_styles, prefix
        ),
        drift_panels=_rate_panels(cells, runs, drift_measures(setting), own_styles, prefix),
        heatmaps=_heatmaps(layer_cells, series, prefix, layer_limit),
        heads=_heads(grouping.head_cells_frame(study.heads, runs), series, prefix),
        class_retention=_class_retention(class_cells, series, setting, prefix),
        classes=tables.classes_list(class_cells, setting) if len(class_cells) else None,
        rate_legend=legend(rate_lines, f"{prefix}-rates") if trajectories else [],
        trajectories=trajectories,
        table=tables.study_table(cells, setting),
        layers=tables.layers_list(layer_cells, setting) if len(layer_cells) else None,
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


def study_measures(
    setting: Mapping[str, str], accuracy: str = "test_accuracy_pct"
) -> list[Measure]:
    """The panels against the learning rate: accuracy, entropy drift, and what was kept.

    Args:
        setting: one of `grouping.split_settings`.
        accuracy: which one is known of its cells (`analysis.tables.accuracy_column`).
    """
    of_target = Measure(accuracy, f"Accuracy on {setting['dataset']}", floor=0, ceiling=100)
    kept = (
        Measure("retention_pct", f"Retention on {setting['transfer']}", reference=100, floor=0)
        if setting.get("transfer")
        else CKA
    )
    return [
        VALIDATION_ACCURACY if accuracy == VALIDATION_ACCURACY.key else of_target,
        ENTROPY,
        kept,
    ]


def drift_measures(setting: Mapping[str, str]) -> list[Measure]:
    """The dose response of the representation and the weights."""
    measures = [
        Measure("embedding_drift", "Embedding drift", unit="", reference=0, decimals=3),
        Measure("weight_drift", "Weight drift", unit="", reference=0, decimals=4),
    ]
    return [CKA, *measures] if setting.get("transfer") else measures


def trajectory_measures(setting: Mapping[str, str]) -> list[Measure]:
    """What is followed over training: entropy drift, CKA, retention."""
    kept = Measure("retention_pct", "Retention", reference=100)
    return [ENTROPY, CKA, *([kept] if setting.get("transfer") else [])]


def _rate_panels(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    measures: Sequence[Measure],
    styles: Mapping[str, SeriesStyle],
    prefix: str,
) -> list[Picture]:
    known = [m for m in measures if m.key in cells and cells[m.key].notna().any()]
    # rows are walked one by one below: only with what is drawn, since a run has fifty columns
    keys = ["run_id", "series", "learning_rate", "seed", "num_runs", *(m.key for m in known)]
    done = grouping.with_series(runs)[grouping.is_done(runs)].reindex(columns=keys)
    return [
        picture(
            figures.learning_rate_panels(cells, done, [measure], legend=False, styles=styles),
            f"{prefix}-rate-{measure.key}",
            _rate_panel_words(cells, measure),
            plots.rate_plot(cells, done, measure, styles),
        )
        for measure in known
    ]


def _rate_panel_words(cells: pd.DataFrame, measure: Measure) -> str:
    """The panel in words: each series' means from the lowest to the highest rate."""
    parts = []
    for series, mine in cells.dropna(subset=[measure.key]).groupby("series", sort=False):
        values = ", ".join(
            f"{number_text(row[measure.key], measure.decimals, signed=measure.signed)} "
            f"at {rate_text(row['learning_rate'])}"
            for row in mine.sort_values("learning_rate").to_dict("records")
        )
        parts.append(f"{series}: {values}")
    return f"{measure.heading} against the learning rate. {'; '.join(parts)}."


def _heatmaps(
    layer_cells: pd.DataFrame, series: Sequence[str], prefix: str, limit: float
) -> list[Picture]:
    return [
        picture(
            heatmaps.layer_heatmap(layer_cells, [name], limit=limit),
            f"{prefix}-layers-{number}",
            f"Heatmap for {name}: percent change of attention entropy, learning rate by layer. "
            "The numbers are in the table of layers below.",
        )
        for number, name in enumerate(series)
        if (layer_cells["series"] == name).any()
    ]


def _heads(head_cells: pd.DataFrame, series: Sequence[str], prefix: str) -> list[Picture]:
    """The layer × head maps of every cell, unless they are too many for a page."""
    if head_cells.empty or len(head_cells) > MAX_HEAD_CELLS:
        return []
    return [
        picture(
            heatmaps.head_maps(head_cells, shown_series(head_cells, series)),
            f"{prefix}-heads",
            "Maps of each cell, head by layer: percent change of each head's attention entropy. "
            "The numbers are in the study's export.",
        )
    ]


def _class_retention(
    class_cells: pd.DataFrame, series: Sequence[str], setting: Mapping[str, str], prefix: str
) -> list[Picture]:
    """What is left of each class, unless the cells are too many for a page."""
    num_cells = len(class_cells[["series", "learning_rate"]].drop_duplicates())
    if class_cells.empty or num_cells > MAX_CLASS_COLUMNS:
        return []
    return [
        picture(
            class_retention(class_cells, shown_series(class_cells, series)),
            f"{prefix}-classes",
            f"Retention of the classes of {setting['transfer']}, the least kept first, a column a "
            "cell. The numbers are in the table of classes below.",
        )
    ]


def shown_series(frame: pd.DataFrame, series: Iterable[str]) -> list[str]:
    """Those that have a row in the frame, in the order given."""
    there = set(frame["series"])
    return [name for name in series if name in there]


def _trajectories(
    probes: pd.DataFrame,
    paths: pd.DataFrame,
    series: Sequence[str],
    styles: Mapping[float, SeriesStyle],
    setting: Mapping[str, str],
    prefix: str,
) -> list[list[Picture]]:
    """A row of panels a series, a panel a measure; nothing where no run has two epochs."""
    if probes.empty or probes["epoch"].nunique() < 2:
        return []
    measures = [
        measure
        for measure in trajectory_measures(setting)
        if measure.key in probes and probes[measure.key].notna().any()
    ]
    return [
        [
            picture(
                trajectory_panel(probes, name, measure, styles),
                f"{prefix}-path-{number}-{measure.key}",
                f"{measure.heading} of {name} over training, one line a learning rate.",
                plots.trajectory_plot(paths, name, measure, styles),
            )
            for measure in measures
        ]
        for number, name in enumerate(series)
        if (probes["series"] == name).any()
    ]


def comparison_profiles(layers: pd.DataFrame) -> list[Picture]:
    """The panels of two compared models: entropy change and CKA at each layer."""
    return [
        picture(
            figures.layer_profile(layers, [measure]),
            f"profile-{measure.key}",
            f"{measure.heading} at each layer. The numbers are in the table below.",
        )
        for measure in (ENTROPY, CKA)
        if measure.key in layers and layers[measure.key].notna().any()
    ]
