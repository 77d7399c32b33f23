"""Reports as self-contained HTML files: a study, imported records, two compared models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from driftscope.analysis import Answer, StudyTables
from driftscope.errors import RecordError
from driftscope.records import Overlay, RunRecord, history_table, layers_table
from driftscope.report import heatmaps, tables
from driftscope.report.findings import findings
from driftscope.report.overlays import NamedOverlay, overlay_block, study_overlays
from driftscope.report.page import picture, write_page
from driftscope.report.provenance import shared_and_varying
from driftscope.report.sections import comparison_profiles, setting_section
from driftscope.report.style import method_styles
from driftscope.report.summary import comparison_summary


def write_study_report(
    records: Sequence[RunRecord],
    out: Path,
    *,
    title: str,
    command: str,
    answers: Sequence[Answer] = (),
) -> Path:
    """Writes a study's report as one HTML file and returns its path.

    Args:
        records: finished runs; several datasets, models or protocols get a section each.
        out: the file, or a folder in which `report.html` is written.
        title: the page's title.
        command: the command line that made the runs, shown under provenance.
        answers: what `driftscope.analysis` answered about them, shown if given.

    Raises:
        RecordError: there are no runs to report.
    """
    records = list(records)
    if not records:
        raise RecordError("there is nothing to report: the study has no finished run yet")
    runs = tables.report_runs(records)
    study = StudyTables(runs, history_table(records), layers_table(records))
    return _write_study(
        study,
        out,
        title=title,
        answers=answers,
        overlays=overlay_block(study_overlays(records, runs)),
        spec_facts=shared_and_varying([record.result["spec"] for record in records]),
        environment_facts=shared_and_varying([record.result["environment"] for record in records]),
        command=command,
        version=_versions(records),
    )


def write_imported_report(
    study: StudyTables, out: Path, *, title: str, command: str, answers: Sequence[Answer] = ()
) -> Path:
    """The same for imported tables (`driftscope.imports`): no overlays, provenance by origin.

    Raises:
        RecordError: there are no runs to report.
    """
    if study.runs.empty:
        raise RecordError("there is nothing to report: no run was imported")
    shown = ("model", "dataset", "protocol", "transfer", "epochs", "batch_size", "weight_decay")
    known = [name for name in shown if name in study.runs]
    facts = [
        {str(key): value for key, value in row.items() if value == value}
        for row in study.runs[known].drop_duplicates().to_dict("records")
    ]
    return _write_study(
        study,
        out,
        title=title,
        answers=answers,
        overlays=None,
        spec_facts=shared_and_varying(facts),
        environment_facts=shared_and_varying([{"origin": name} for name in study.runs["origin"]]),
        command=command,
        version=version("driftscope"),
    )


def _write_study(
    study: StudyTables, out: Path, *, answers: Sequence[Answer], **values: Any
) -> Path:
    styles = method_styles(tables.series_order(tables.with_series(study.runs)["series"]))
    sections = [
        setting_section(number, setting, runs, study.layers, study.history, styles)
        for number, (setting, runs) in enumerate(tables.split_settings(study.runs), start=1)
    ]
    return write_page(
        "study.html",
        out,
        sections=sections,
        findings=findings(answers, styles),
        runs=tables.runs_list(study.runs),
        **values,
    )


def write_compare_report(comparison: Mapping[str, Any], overlay: Overlay | None, out: Path) -> Path:
    """Writes the report of two compared models as one HTML file and returns its path.

    Args:
        comparison: `Comparison.to_dict()`.
        overlay: attention maps of some of the images, or None.
        out: the file, or a folder in which `report.html` is written.
    """
    layers = tables.comparison_layers(comparison)
    reading = comparison["reading_pretrained"]
    heads = pd.DataFrame(
        tables.head_entropy_changes(reading["entropy"], comparison["reading_adapted"]["entropy"])
    )
    overlays = [NamedOverlay("adapted", "adapted", "", overlay)] if overlay is not None else []
    facts = {
        "pretrained": comparison["pretrained"],
        "adapted": comparison["adapted"],
        "images": comparison["images"],
        "images read": comparison["num_images"],
        "images skipped": len(comparison["skipped_images"]),
        "fingerprint of the images": reading["images_fingerprint"],
        "patches": reading["num_patches"],
    }
    return write_page(
        "compare.html",
        out,
        title="What fine-tuning changed",
        summary=comparison_summary(comparison),
        profiles=comparison_profiles(layers),
        heads=picture(
            heatmaps.head_heatmap(heads),
            "heads",
            "Heatmap of the percent change of attention entropy, layer by head. "
            "The numbers are in the table below it.",
        ),
        heads_table=tables.heads_table(heads),
        table=tables.comparison_table(layers),
        overlays=overlay_block(overlays),
        facts=facts,
        version=version("driftscope"),
    )


def _versions(records: Iterable[RunRecord]) -> str:
    """The driftscope versions that made the runs."""
    environments = [record.result["environment"] for record in records]
    versions = {str(e.get("versions", {}).get("driftscope", "")) for e in environments} - {""}
    return ", ".join(sorted(versions)) or version("driftscope")
