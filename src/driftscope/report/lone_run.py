"""The page of a run that belongs to no study: what is left, how it came about, what was changed."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import pandas as pd

from driftscope.analysis.advice import advice_on_run, found_by_run, kept_pct_of_run
from driftscope.analysis.map_charts import rows_of
from driftscope.analysis.training_summaries import run_summary
from driftscope.analysis.words import DOUBTFUL, rate_text
from driftscope.analysis.zero_shot import forgotten_sentences
from driftscope.metrics import METRICS
from driftscope.records import RunRecord, history_table, layers_table
from driftscope.report import tables
from driftscope.report.overlays import overlay_block, run_overlays
from driftscope.report.page import Picture, write_page
from driftscope.report.provenance import flattened
from driftscope.report.run_facts import numbers, provenance, said, shown_metrics
from driftscope.report.sections import (
    comparison_profiles,
    first_picture,
    heads_picture,
    path_pictures,
)


def write_run_page(record: RunRecord, out: Path) -> Path:
    """Writes the page of one run as one HTML file and returns its path.

    Args:
        record: `records.load_run` of its folder.
        out: the file, or a folder in which `report.html` is written.
    """
    spec, found = record.spec, found_by_run(record)
    [row] = rows_of(tables.report_runs([record]))
    layers, history = layers_table([record]), history_table([record])
    heads, told = pd.DataFrame(tables.run_head_changes(record)), said(record)
    return write_page(
        "run.html",
        out,
        title=f"{spec.method.label} at {rate_text(spec.learning_rate)} on {spec.dataset}",
        summary=run_summary(record, advice_on_run(record, str(record.folder))),
        first=first_picture(found, layers, kept_pct_of_run(spec)),
        numbers=numbers(row),
        said=[one for one in told if one[0] in ("", DOUBTFUL)],
        remarks=[one for one in told if one[0] not in ("", DOUBTFUL)],
        trajectories=_trajectories(history, shown_metrics(row)),
        profiles=comparison_profiles(layers),
        layers=tables.run_layers(layers) if len(layers) else None,
        heads=heads_picture(heads) if len(heads) else None,
        heads_table=tables.heads_table(heads),
        forgotten=forgotten_sentences(found["transfer"]),
        classes=tables.compared_classes(found["transfer"]),
        overlays=overlay_block(run_overlays(record)),
        spec_facts=flattened(record.result.spec),
        facts=provenance(record),
        version=record.result.environment.versions.get("driftscope") or version("driftscope"),
    )


def _trajectories(history: pd.DataFrame, keys: list[str]) -> list[Picture]:
    """What came of each epoch; nothing of a run with one look alone."""
    if len(history) < 2:
        return []
    along = "step" if history["step"].notna().all() else "epoch"
    return path_pictures(history, map(METRICS.__getitem__, keys), along)
