"""Reports as self-contained HTML files: a study, imported records, two compared models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from driftscope import limits
from driftscope.analysis import Answer, StudyTables, answer_all, grouping
from driftscope.analysis.advice import damage_sentence
from driftscope.analysis.map_charts import LayerScales
from driftscope.analysis.model_card import comparison_command
from driftscope.analysis.study_charts import are_runs_drawn
from driftscope.analysis.summaries import (
    Caveat,
    comparison_summary,
    doubts_caveats,
    missing_caveats,
    scope_caveat,
    studied_together,
)
from driftscope.analysis.table import Table
from driftscope.analysis.tables import retention_columns
from driftscope.analysis.zero_shot import forgotten_sentences, unmeasured_sentences
from driftscope.errors import RecordError
from driftscope.forks import MANY_RUNS, spread
from driftscope.metrics import drift_groups
from driftscope.paper.catalogue import published_tables
from driftscope.records import Overlay, RunRecord
from driftscope.report import tables
from driftscope.report.findings import findings
from driftscope.report.overlays import NamedOverlay, other_overlays, overlay_block, study_overlays
from driftscope.report.page import write_page
from driftscope.report.provenance import pool_facts, shared_and_varying
from driftscope.report.run_pages import notable_runs, run_pages, shared_by_run_pages
from driftscope.report.sections import (
    Section,
    comparison_profiles,
    first_picture,
    heads_picture,
    setting_names,
    setting_section,
)
from driftscope.report.style import method_styles


def write_study_report(
    study: StudyTables,
    records: Sequence[RunRecord],
    out: Path,
    *,
    title: str,
    command: str,
    answers: Sequence[Answer] | None = None,
) -> Path:
    """Writes a study's report as one HTML file and returns its path.

    Args:
        study: its finished runs (`results.Study.tables`), or imported tables; several datasets,
            models or protocols get a section each.
        records: what the runs left behind, for what tables don't hold: overlays, provenance.
            Imported cell means have none.
        out: the file, or a folder in which `report.html` is written.
        title: the page's title.
        command: the command line that made the runs, shown under provenance.
        answers: what `driftscope.analysis` answered about them; by default every question is asked.

    Raises:
        RecordError: there are no runs to report.
    """
    if study.runs.empty:
        raise RecordError("there is nothing to report: the study has no finished run yet")
    if answers is None:
        answers = answer_all(study)
    runs = tables.with_intervals(study.runs, records)
    styles = method_styles(grouping.series_order(grouping.series_labels(runs)))
    settings = grouping.split_settings(runs)
    names = setting_names([setting for setting, _ in settings])
    layer_cells = [grouping.layer_cells_frame(study.layers, mine) for _, mine in settings]
    scales = LayerScales.of(layer_cells)
    listed = notable_runs(runs)
    pieces: list[Callable[[], Any]] = [  # the longest first
        lambda: list(run_pages(study.history, study.layers, records, listed)),
        *(
            partial(setting_section, number, name, setting, mine, layers, study, styles, scales)
            for number, (name, (setting, mine), layers) in enumerate(
                zip(names, settings, layer_cells, strict=True), start=1
            )
        ),
        lambda: published_tables(replace(study, runs=runs), answers),
        lambda: _facts(study, records),
        lambda: study_overlays(records, runs),
    ]
    pages, *sections, published_and_missing, facts, overlays = spread(
        lambda piece: piece(), pieces, is_worth_it=len(runs) >= MANY_RUNS
    )
    (published, missing), (spec_facts, environment_facts) = published_and_missing, facts
    return write_page(
        "study.html",
        out,
        title=title,
        sections=sections,
        studied=studied_together(
            [
                (setting["dataset"], one.summary.studied)
                for (setting, _), one in zip(settings, sections, strict=True)
            ]
        ),
        caveats=[
            *missing_caveats(len(runs), study.missing),
            *doubts_caveats(records),
            *_caveats(sections),
            scope_caveat([setting for setting, _ in settings], [*retention_columns(runs)]),
        ],
        findings=findings(answers, styles, has_stills=are_runs_drawn(runs)),
        advice=[one for answer in answers for one in answer.advice],
        published=published,
        missing=missing,
        overlays=overlay_block(overlays, other_overlays(records, listed, overlays)),
        runs=_runs_table(listed, len(runs)),
        run_pages=pages,
        shared_by_run_pages=shared_by_run_pages(),
        spec_facts=spec_facts,
        environment_facts=environment_facts,
        command=command,
        version=_versions(records),
    )


def _runs_table(listed: pd.DataFrame, num_runs: int) -> Table:
    whole = tables.runs_list(listed)
    if len(listed) == num_runs:
        return whole
    return replace(
        whole,
        title=f"The {len(listed)} notable of {num_runs:,} runs",
        note="Of each cell the run of the lowest retention, and of too many cells those of the "
        f"lowest: {limits.PAGE_RUNS.sentence}. These have pages of their own; every run is in the "
        "table runs.csv, which driftscope study report --format csv writes.",
    )


def _caveats(sections: Sequence[Section]) -> list[Caveat]:
    """Every setting's caveats, each once."""
    own: dict[Caveat, list[str]] = {}
    for section in sections:
        for caveat in section.summary.caveats:
            own.setdefault(caveat, []).append(section.heading)
    return [
        caveat
        if len(where) == len(sections)
        else replace(caveat, text=f"{caveat.text} ({'; '.join(where)})")
        for caveat, where in own.items()
    ]


_Facts: TypeAlias = tuple[dict[str, str], dict[str, list[str]]]


def _facts(study: StudyTables, records: Sequence[RunRecord]) -> tuple[_Facts, _Facts]:
    """Specification and environment; of imported cell means what their table says."""
    if records:
        return (
            shared_and_varying([record.result.spec for record in records]),
            shared_and_varying([record.result.environment.facts() for record in records]),
        )
    shown = ("model", "dataset", "protocol", "transfer", "epochs", "batch_size", "weight_decay")
    known = [name for name in shown if name in study.runs]
    facts = [
        {str(key): value for key, value in row.items() if value == value}
        for row in study.runs[known].drop_duplicates().to_dict("records")
    ]
    origins = [{"origin": name} for name in study.runs["origin"]]
    return shared_and_varying(facts), shared_and_varying(origins)


def write_compare_report(comparison: Mapping[str, Any], overlay: Overlay | None, out: Path) -> Path:
    """Writes the report of two compared models as one HTML file and returns its path.

    Args:
        comparison: `Comparison.to_dict()`.
        overlay: attention maps of some of the images, or None.
        out: the file, or a folder in which `report.html` is written.
    """
    layers = tables.comparison_layers(comparison)
    reading = comparison["reading_pretrained"]
    other = comparison["reading_adapted"]
    heads = None
    if reading["entropy"] and other["num_patches"] == reading["num_patches"]:  # else not compared
        heads = pd.DataFrame(tables.head_entropy_changes(reading["entropy"], other["entropy"]))
    overlays = [NamedOverlay("adapted", "adapted", "", overlay)] if overlay is not None else []
    facts = {
        "pretrained": comparison["pretrained"],
        "adapted": comparison["adapted"],
        "images": comparison["images"],
        "images read": comparison["num_images"],
        "images skipped": len(comparison["skipped_images"]),
        **pool_facts(comparison.get("estimate")),
        **({"notes": "; ".join(comparison["notes"])} if comparison.get("notes") else {}),
        "fingerprint of the images": reading["images_fingerprint"],
        **({"patches": reading["num_patches"]} if reading["num_patches"] else {}),
        "command, but for counts of images and prompts": comparison_command(comparison),
    }
    return write_page(
        "compare.html",
        out,
        title="What is left, and what has changed",
        summary=comparison_summary(comparison),
        first=first_picture(comparison, layers),
        damage=damage_sentence(comparison),
        forgotten=forgotten_sentences(comparison.get("transfer") or {}),
        classes=tables.compared_classes(comparison.get("transfer") or {}),
        fewer=tables.fewer_images(comparison),
        profiles=comparison_profiles(layers),
        heads=None if heads is None else heads_picture(heads),
        heads_table=None if heads is None else tables.heads_table(heads),
        table=tables.comparison_table(layers),
        overlays=overlay_block(overlays),
        unmeasured=list(unmeasured_sentences(comparison.get("unmeasured") or {})),
        numbers={
            title: {one.name: one.with_unit(comparison["drift"][one.key]) for one in metrics}
            for title, metrics in drift_groups(comparison["drift"]).items()
        },
        facts=facts,
        version=version("driftscope"),
    )


def _versions(records: Iterable[RunRecord]) -> str:
    """The driftscope versions that made the runs."""
    found = (record.result.environment.versions.get("driftscope", "") for record in records)
    versions = {*found} - {""}
    return ", ".join(sorted(versions)) or version("driftscope")
