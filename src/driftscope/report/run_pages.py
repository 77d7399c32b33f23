"""The pages of single runs: what the study's page draws of a run when a reader opens it.

A page travels as compact JSON (a few kilobytes a run) and is built in the browser, so that a study
of a thousand runs is still one file that opens at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from driftscope import limits
from driftscope.analysis import grouping
from driftscope.analysis.advice import advice_on_run
from driftscope.analysis.table import Column
from driftscope.analysis.words import rate_text, seed_text
from driftscope.records import (
    ATTENTION_FILE,
    RunRecord,
    load_run,
)
from driftscope.report import tables
from driftscope.report.page import script_json
from driftscope.report.provenance import flattened
from driftscope.report.run_facts import numbers, provenance, said, shown_metrics


@dataclass(frozen=True)
class RunPage:
    """One run's page: its id, what a picker calls it, and its content for the browser."""

    run_id: str
    label: str
    json: Markup


def run_pages(
    study_history: pd.DataFrame,
    study_layers: pd.DataFrame,
    records: Sequence[RunRecord],
    runs: pd.DataFrame,
) -> Iterator[RunPage]:
    """The pages of the recorded runs, in the order of the table of runs.

    Args:
        study_history: `records.history_table`.
        study_layers: `records.layers_table`.
        records: the runs' records; a run without one (an imported cell mean) has no page.
        runs: `tables.with_intervals` of all runs.
    """
    by_id = {record.id: record for record in records}
    wanted = set(runs["run_id"])
    study_history = study_history[study_history["run_id"].isin(wanted)]
    study_layers = study_layers[study_layers["run_id"].isin(wanted)]
    histories = dict(list(study_history.groupby("run_id"))) if len(study_history) else {}
    layers = dict(list(study_layers.groupby("run_id"))) if len(study_layers) else {}
    for row in tables.runs_list(runs).rows:
        record = by_id.get(row["run_id"])
        if record is None:
            continue
        if record.is_outline:
            record = load_run(record.folder)
        label = (
            f"{grouping.place_text(row, runs)}{row['series']}, "
            f"rate {rate_text(row['learning_rate'])}, {seed_text(row)}"
        )
        content = {
            "label": label,
            "numbers": numbers({**row, **tables.test_interval(record)}),
            "said": said(record),
            "advice": _advice(record),
            "measures": shown_metrics(row),
            "history": _columns(histories.get(record.id), ("epoch", "step", *shown_metrics(row))),
            "layers": _columns(
                layers.get(record.id), [column.key for column in tables.LAYER_COLUMNS]
            ),
            "heads": _heads(record),
            **_classes(record),
            "has_maps": (record.folder / ATTENTION_FILE).exists(),
            "spec": flattened(record.result.spec),
            "provenance": provenance(record),
        }
        yield RunPage(record.id, label, script_json(content))


def notable_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that a page lists and that have pages of their own: all, or of too many a part.

    Of each cell that is the run of the lowest retention, the lowest of all first.
    """
    most = limits.PAGE_RUNS.value
    if len(runs) <= most:
        return runs
    ordered = grouping.with_series(runs).sort_values("retention_pct", na_position="last")
    cells = [key for key in (*grouping.PLACE, "series", "learning_rate") if key in ordered]
    lowest = ordered.drop_duplicates(cells).head(most)
    return runs[runs["run_id"].isin(lowest["run_id"])]


def shared_by_run_pages() -> Markup:
    """What all pages have in common: the columns of their tables, the colours of their maps."""
    columns = {
        "layers": tables.LAYER_COLUMNS,
        "classes": tables.CLASS_COLUMNS,
        "flows": tables.FLOW_COLUMNS,
    }
    shown = ("key", "heading", "explanation", "kind", "decimals", "signed")
    return script_json(
        {
            "columns": {
                name: [{key: getattr(column, key) for key in shown} for column in listed]
                for name, listed in columns.items()
            },
        }
    )


def _advice(record: RunRecord) -> dict[str, Any] | None:
    """What to do about a run of ours whose retention is known; imported ones have no model."""
    if record.origin != "run":
        return None
    place = f"STUDY/{record.folder.parent.name}/{record.folder.name}"  # wherever the page is read
    advice = advice_on_run(record, place)
    return None if advice.outcome == "unknown" else advice.to_dict()


def _columns(frame: pd.DataFrame | None, names: Iterable[str]) -> dict[str, list[Any]]:
    """The columns that hold a value, as lists of numbers."""
    if frame is None:
        return {}
    known = [name for name in names if name in frame and frame[name].notna().any()]
    return {name: [_number(value) for value in frame[name]] for name in known}


def _number(value: Any) -> float | int | None:
    """The number to twelve digits: fewer, rounded again, would be written unlike in the tables."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.12g}")
    return int(short) if short == int(short) else short


def _heads(record: RunRecord) -> list[list[float | int | None]]:
    """Percent change of each head's entropy [layer][head]; empty where heads are unknown."""
    layers: dict[float, list[float | int | None]] = {}
    for row in tables.run_head_changes(record):
        layers.setdefault(row["layer"], []).append(_number(round(row["delta_entropy_pct"], 1)))
    return list(layers.values())


def _classes(record: RunRecord) -> dict[str, Any]:
    """Accuracy by class of the main transfer set, and what lost images are taken for now."""
    score = record.main_score
    flows = [one.model_dump(by_alias=True) for one in score.flows.lost_to] if score.flows else []
    return {
        "transfer": score.name,
        "classes": _class_columns(tables.CLASS_COLUMNS, score.per_class),
        "flows": _class_columns(tables.FLOW_COLUMNS, flows),
        "num_lost": score.flows and score.flows.num_lost,
        "num_gained": score.flows and score.flows.num_gained,
    }


def _class_columns(columns: Sequence[Column], rows: Sequence[Any]) -> dict[str, list[Any]]:
    return {one.key: [_cell(row.get(one.key), one) for row in rows] for one in columns}


def _cell(value: Any, column: Column) -> Any:
    return str(value) if column.kind == "text" else _number(value)
