"""The pages of single runs: what the study's page draws of a run when a reader opens it.

A page travels as compact JSON (a few kilobytes a run) and is built in the browser, so that a study
of a thousand runs is still one file that opens at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from markupsafe import Markup

from driftscope.analysis import grouping
from driftscope.analysis.columns import metric_column
from driftscope.analysis.study_charts import (
    drift_metrics,
    followed_metrics,
    outcome_metrics,
    seed_text,
)
from driftscope.analysis.table import Column
from driftscope.analysis.words import rate_text
from driftscope.records import ATTENTION_FILE, RunRecord, structure_point
from driftscope.report import tables
from driftscope.report.page import script_json
from driftscope.report.provenance import flattened

_CLASS_COLUMNS = (
    Column("class", "Class", kind="text"),
    Column("num_images", "Images", kind="count"),
    *(metric_column(key, "") for key in ("pretrained_pct", "adapted_pct", "retention_pct")),
)
_FLOW_COLUMNS = (
    Column("class", "Class", kind="text"),
    Column("taken_for", "Now taken for", kind="text"),
    Column("num_images", "Images", kind="count"),
)


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
    histories = dict(list(study_history.groupby("run_id"))) if len(study_history) else {}
    layers = dict(list(study_layers.groupby("run_id"))) if len(study_layers) else {}
    for row in tables.runs_list(runs).rows:
        record = by_id.get(row["run_id"])
        if record is None:
            continue
        label = (
            f"{grouping.place_text(row, runs)}{row['series']}, "
            f"rate {rate_text(row['learning_rate'])}, {seed_text(row)}"
        )
        content = {
            "label": label,
            "numbers": _numbers(row),
            "measures": _keys(row),
            "history": _columns(histories.get(record.id), ("epoch", "step", *_keys(row))),
            "layers": _columns(
                layers.get(record.id), [column.key for column in tables.LAYER_COLUMNS]
            ),
            "heads": _heads(record),
            **_classes(record),
            "has_maps": (record.folder / ATTENTION_FILE).exists(),
            "spec": flattened(record.result["spec"]),
            "provenance": _provenance(record),
        }
        yield RunPage(record.id, label, script_json(content))


def shared_by_run_pages() -> Markup:
    """What all pages have in common: the columns of their tables, the colours of their maps."""
    columns = {
        "layers": tables.LAYER_COLUMNS,
        "classes": _CLASS_COLUMNS,
        "flows": _FLOW_COLUMNS,
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


def _numbers(row: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """The run's results as read: heading, value, small print, explanation."""
    columns = tables.outcome_columns({key: str(row.get(key) or "") for key in grouping.PLACE})
    return [
        (column.heading, column.text(row), column.detail(row), column.explanation)
        for column in columns
        if row.get(column.key) == row.get(column.key) and row.get(column.key) is not None
    ]


def _keys(row: Mapping[str, Any]) -> list[str]:
    """The metrics that a run's figures show, in order."""
    has_transfer = bool(row.get("transfer") and row["transfer"] == row["transfer"])
    shown = [
        *outcome_metrics(has_transfer, "val_accuracy_pct"),
        *followed_metrics(has_transfer),
        *drift_metrics(has_transfer),
    ]
    return list(dict.fromkeys(metric.key for metric in shown))


def _columns(frame: pd.DataFrame | None, names: Iterable[str]) -> dict[str, list[Any]]:
    """The columns that hold a value, as lists of numbers to five digits."""
    if frame is None:
        return {}
    known = [name for name in names if name in frame and frame[name].notna().any()]
    return {name: [_number(value) for value in frame[name]] for name in known}


def _number(value: Any) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.5g}")
    return int(short) if short == int(short) else short


def _heads(record: RunRecord) -> list[list[float | int | None]]:
    """Percent change of each head's entropy [layer][head]; empty where heads are unknown."""
    point = structure_point(record)
    if not point or record.origin != "run":  # imported records hold means over heads
        return []
    before = record.result["pretrained"]["reading"]["entropy"]
    rows = tables.head_entropy_changes(before, point["reading"]["entropy"])
    num_heads = len(before[0])
    values = [_number(round(row["delta_entropy_pct"], 1)) for row in rows]
    return [values[start : start + num_heads] for start in range(0, len(values), num_heads)]


def _classes(record: RunRecord) -> dict[str, Any]:
    """Accuracy by class of the main transfer set, and what lost images are taken for now."""
    score = tables.main_score(record)
    rows = score.get("per_class") or []
    flows = score.get("flows") or {}
    return {
        "transfer": score.get("name", ""),
        "classes": {
            column.key: [_cell(row.get(column.key), column) for row in rows]
            for column in _CLASS_COLUMNS
        },
        "flows": {
            column.key: [_cell(row.get(column.key), column) for row in flows.get("lost_to", [])]
            for column in _FLOW_COLUMNS
        },
        "num_lost": flows.get("num_lost"),
        "num_gained": flows.get("num_gained"),
    }


def _cell(value: Any, column: Column) -> Any:
    return str(value) if column.kind == "text" else _number(value)


def _provenance(record: RunRecord) -> dict[str, str]:
    """Where the numbers come from: versions, machine, hashes, splits, prompts."""
    result = record.result
    splits = {key: value for key, value in (result.get("splits") or {}).items() if key != "hashes"}
    subsets = splits.pop("probe_subsets", None) or []
    facts = {
        "run": record.id,
        "origin": record.origin,
        "status": result["status"],
        "protocol": result.get("protocol"),
        **result["environment"],
        "splits": splits,
        "probe subsets": [f"{one['hash']} ({len(one['indices'])} images)" for one in subsets],
        "prompts": {name: _prompts(rules) for name, rules in (result.get("prompts") or {}).items()},
        "parameters": result["parameters"],
        "wall seconds": {key: f"{value:.1f}" for key, value in result["wall_seconds"].items()
                         if value is not None},
    }  # fmt: skip
    return {key: value for key, value in flattened(facts).items() if value != "none"}


def _prompts(rules: Mapping[str, Any]) -> dict[str, Any]:
    """Split and templates, and of the words for classes those that differ from the name."""
    words = rules.get("class_words") or {}
    changed = [f"{name}: {word}" for name, word in words.items() if name != word]
    return {
        "split": rules.get("split"),
        "templates": rules.get("templates") or [],
        "words unlike the class's name": changed,
    }
