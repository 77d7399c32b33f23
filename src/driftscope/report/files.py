"""A study's tables and figures as files: CSV, Markdown, LaTeX; SVG, PDF, PNG."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from driftscope.analysis import Answer, StudyTables, grouping
from driftscope.analysis.map_charts import LayerScales
from driftscope.analysis.study_charts import PlaceCharts
from driftscope.analysis.table import TABLE_FORMATS, save_tables, uniquely_named
from driftscope.files import inner_folder
from driftscope.records import RunRecord
from driftscope.report import tables
from driftscope.report.attention_figures import attention_figure
from driftscope.report.catalogue import catalogue
from driftscope.report.drawing import draw
from driftscope.report.overlays import side_by_side, study_overlays
from driftscope.report.style import FORMATS, method_styles, save_figure


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
        folder.mkdir(parents=True, exist_ok=True)
        figures = inner_folder(folder, "figures")
        for name, figure in uniquely_named(study_figures(study, answers, records)):
            paths += save_figure(figure, figures / name, figure_formats)
    return paths


def study_figures(
    study: StudyTables,
    answers: Sequence[Answer] = (),
    records: Sequence[RunRecord] = (),
) -> Iterator[tuple[str, Figure]]:
    """Names and figures, one at a time: they are large, and only one need be held."""
    styles = method_styles(grouping.series_order(grouping.series_labels(study.runs)))
    settings = grouping.split_settings(study.runs)
    layer_cells = [grouping.layer_cells_frame(study.layers, runs) for _, runs in settings]
    scales = LayerScales.of(layer_cells)
    for (setting, runs), layers in zip(settings, layer_cells, strict=True):
        for chart in PlaceCharts(study, setting, runs, layers, scales).known:
            yield chart.name, draw(chart, styles if chart.colours == "series" else None)
        if overlays := side_by_side(study_overlays(records, runs)):
            yield f"attention_{tables.setting_slug(setting)}", attention_figure(overlays)
    for answer in answers:
        for chart in answer.charts:
            yield chart.name, draw(chart, styles)
