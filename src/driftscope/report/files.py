"""A study's tables and figures as files: CSV, Markdown, LaTeX; SVG, PDF, PNG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from driftscope.analysis import Answer, StudyTables, grouping
from driftscope.analysis.table import TABLE_FORMATS, save_tables, slug, uniquely_named
from driftscope.analysis.tables import accuracy_column
from driftscope.records import RunRecord
from driftscope.report import figures, findings_figures, heatmaps, tables
from driftscope.report.attention_figures import attention_figure
from driftscope.report.catalogue import catalogue
from driftscope.report.class_figures import class_retention
from driftscope.report.figures import Measure
from driftscope.report.findings import apart, pooled_title
from driftscope.report.overlays import side_by_side, study_overlays
from driftscope.report.sections import (
    drift_measures,
    shown_series,
    study_measures,
    trajectory_measures,
)
from driftscope.report.style import FORMATS, SeriesStyle, method_styles, save_figure
from driftscope.report.trajectories import trajectories


def save_study_files(
    study: StudyTables,
    folder: Path,
    *,
    answers: Sequence[Answer] = (),
    records: Sequence[RunRecord] = (),
    table_formats: Iterable[str] = TABLE_FORMATS,
    figure_formats: Iterable[str] = FORMATS,
) -> list[Path]:
    """Writes every table under `folder`/tables and every figure under `folder`/figures.

    Returns:
        The paths, each named by what it shows and, where settings differ, of which setting.
    """
    paths: list[Path] = []
    if table_formats := tuple(table_formats):
        runs = tables.with_intervals(study.runs, records)
        everything = catalogue(replace(study, runs=runs), answers)
        listed = [*everything.tables, everything.missing]
        paths += save_tables(listed, folder / "tables", table_formats)
    if figure_formats := tuple(figure_formats):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, figure in uniquely_named(study_figures(study, answers, records)):
            paths += save_figure(figure, folder / "figures" / name, figure_formats)
    return paths


def study_figures(
    study: StudyTables,
    answers: Sequence[Answer] = (),
    records: Sequence[RunRecord] = (),
) -> Iterator[tuple[str, Figure]]:
    """Names and figures, one at a time: they are large, and only one need be held."""
    styles = method_styles(grouping.series_order(grouping.with_series(study.runs)["series"]))
    settings = grouping.split_settings(study.runs)
    layer_cells = [grouping.layer_cells_frame(study.layers, runs) for _, runs in settings]
    limit = heatmaps.shared_limit(layer_cells)
    for (setting, runs), layers in zip(settings, layer_cells, strict=True):
        name = tables.setting_slug(setting)
        cells = grouping.cells_frame(runs)
        done = grouping.with_series(runs)[grouping.is_done(runs)]
        series = list(dict.fromkeys(cells["series"]))
        own = {one: styles.get(one, style) for one, style in method_styles(series).items()}
        for what, measures in (
            ("learning_rate", study_measures(setting, accuracy_column(cells))),
            ("dose_response", drift_measures(setting)),
        ):
            known = known_measures(measures, cells)
            if known:
                yield (
                    f"{what}_{name}",
                    figures.learning_rate_panels(cells, done, known, styles=own),
                )
        if len(layers):
            yield (
                f"layer_entropy_{name}",
                heatmaps.layer_heatmap(layers, shown_series(layers, series), limit=limit),
            )
        heads = grouping.head_cells_frame(study.heads, runs)
        if len(heads):
            yield f"head_entropy_{name}", heatmaps.head_maps(heads, shown_series(heads, series))
        classes = grouping.class_cells_frame(study.classes, runs)
        if len(classes):
            shown = shown_series(classes, series)
            yield f"retention_by_class_{name}", class_retention(classes, shown)
        probes = grouping.history_cells_frame(study.history, runs) if len(study.history) else None
        if probes is not None and probes["epoch"].nunique() > 1:
            followed = known_measures(trajectory_measures(setting), probes)
            yield (
                f"trajectories_{name}",
                trajectories(probes, shown_series(probes, series), followed),
            )
        overlays = side_by_side(study_overlays(records, runs))
        if overlays:
            yield f"attention_{name}", attention_figure(overlays)
    for answer in answers:
        yield from _answer_figures(answer, styles)


def known_measures(measures: Iterable[Measure], frame: pd.DataFrame) -> list[Measure]:
    """Those of which the frame holds a value."""
    return [m for m in measures if m.key in frame and frame[m.key].notna().any()]


def _answer_figures(
    answer: Answer, styles: Mapping[str, SeriesStyle]
) -> Iterator[tuple[str, Figure]]:
    if not answer.is_answered:
        return
    if answer.question == "predictors":
        for where, mine in apart(answer.table, []):
            overall = mine[mine["scope"] == "overall"]
            if len(overall):
                title = pooled_title(where, mine)
                yield (
                    _name("predictors", where),
                    findings_figures.predictor_bars(overall, title=title),
                )
    if answer.question == "frontier":
        for where, mine in apart(answer.table, ["dataset"]):
            yield _name("frontier", where), findings_figures.frontier(mine, styles)


def _name(what: str, where: str) -> str:
    return f"{what}_{slug(where)}" if where else what
