"""The authors' records made a study folder, so that everything reads them like our own runs.

What a record does not say is left out, never filled in; `origin` in each result names the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

from driftscope.config import RunSpec, StudySpec
from driftscope.errors import RecordError
from driftscope.files import inner_folder
from driftscope.paper.author_records import (
    Imported,
    corrupted_accuracies_pct,
    history_rows,
    import_records,
    layer_rows,
    run_spec,
    transfer_scores,
)
from driftscope.records import (
    DRIFT_SCALARS,
    EVENTS_FILE,
    RUNS_FOLDER,
    SPEC_FILE,
    read_json,
    write_json,
    write_result,
    write_whole,
)
from driftscope.records.schema import SCHEMA_VERSION, CellMeans, parse
from driftscope.study.folder import StudyFolder

CELLS_FILE = "cells.json"
AUTHORS_FILE = "authors_record.json"
"""The record as its authors wrote it, beside what our schema knows of it."""


def import_study(
    files: Iterable[Path | str], out: Path, *, pretrained_zero_shot_pct: float | None = None
) -> Imported:
    """Makes a study folder of records; says what was read and what was skipped, and why.

    Args:
        files: records, tables of cell means, or folders of them.
        out: a new or empty folder, or one that was imported into before.
        pretrained_zero_shot_pct: see `driftscope.paper.author_records.import_records`.

    Raises:
        RecordError: a file does not exist, nothing could be read, or `out` holds something else.
    """
    imported = import_records(files, pretrained_zero_shot_pct=pretrained_zero_shot_pct)
    if not imported.num_runs and not imported.num_cells:
        reasons = "; ".join(f"{one.path}: {one.reason}" for one in imported.skipped[:3])
        raise RecordError(f"there is nothing to import ({reasons or 'no .json or .csv file'})")
    StudyFolder(out).declare(StudySpec(name="imported", title="Imported records"))
    cells = {cell["run_id"]: cell for cell in read_cells(out)}  # of an earlier import
    for row in imported.tables.runs.to_dict(orient="records"):
        values = {str(key): _known(value) for key, value in row.items()}
        if values["run_id"] in imported.paths:
            _write_run(out, values, imported.paths[values["run_id"]])
        else:
            cells[values["run_id"]] = values
    if cells:
        write_json(out / CELLS_FILE, {"cells": list(cells.values())})
    return imported


def read_cells(root: Path) -> list[dict[str, Any]]:
    """The imported cell means of a study folder, as rows of the runs table."""
    if not (root / CELLS_FILE).exists():
        return []
    path = root / CELLS_FILE
    return [one.facts() for one in parse(CellMeans, read_json(path), path).cells]


def _write_run(out: Path, row: Mapping[str, Any], path: Path) -> None:
    record = read_json(path)
    spec = run_spec(record)
    folder = inner_folder(out / RUNS_FOLDER, str(row["run_id"]))
    write_json(folder / SPEC_FILE, spec.model_dump(mode="json"))
    events = [{"kind": "epoch", **_event(one)} for one in history_rows(record)]
    lines = "".join(json.dumps(event) + "\n" for event in events)
    write_whole(folder / EVENTS_FILE, lines.encode())
    write_json(folder / AUTHORS_FILE, record)
    write_result(folder, _result(row, record, spec))


def _event(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _known(value) for key, value in row.items() if key in _EVENT_KEYS}


_EVENT_KEYS = (
    *("epoch", "step", "train_loss", "train_accuracy_pct", "val_accuracy_pct", "retention_pct"),
    *DRIFT_SCALARS,
)


def _result(row: Mapping[str, Any], record: Mapping[str, Any], spec: RunSpec) -> dict[str, Any]:
    baseline, final = record["baseline"]["attention"], record["final"]["attention"]
    layers, transfer = layer_rows(record), transfer_scores(record)
    steps = {one["epoch"]: one["step"] for one in history_rows(record)}
    return {
        "schema": SCHEMA_VERSION,
        "run_id": row["run_id"],
        "origin": row["origin"],
        "status": row["status"],
        "spec": spec.model_dump(mode="json"),
        "protocol": row["protocol"],
        "parameters": {
            "trainable": row["trainable_parameters"],
            "total": row["total_parameters"],
        },
        "pretrained": {
            "reading": _reading(baseline, spec),
            "transfer": {
                name: {
                    "name": name,
                    "accuracy_pct": one["pretrained_accuracy_pct"],
                    "num_images": one["num_images"],
                }
                for name, one in transfer.items()
            },
        },
        "selected": {
            "epoch": row["selected_epoch"],
            "step": steps.get(row["selected_epoch"]),
            "val_accuracy_pct": row["val_accuracy_pct"],
            "test_accuracy_pct": row["test_accuracy_pct"],
            "test_num_images": spec.test_images,
            "reading": _reading(final, spec),
            "drift": {
                **{name: row.get(name) for name in DRIFT_SCALARS},
                **{f"{name}_per_layer": [layer[name] for layer in layers] for name in _PER_LAYER},
                "cka_per_block": [layer["cka"] for layer in layers],
            },
            "transfer": {name: {"name": name, **one} for name, one in transfer.items()},
            "robustness": {
                name: {"accuracy_pct": accuracy}
                for name, accuracy in corrupted_accuracies_pct(record).items()
            },
        },
        "last": None,
        "environment": record.get("environment") or {},
        "wall_seconds": {"total": row["wall_seconds"]},
    }


_PER_LAYER = ("delta_entropy_pct", "delta_erf95_pct", "delta_gini_pct")


def _reading(attention: Mapping[str, Sequence[float]], spec: RunSpec) -> dict[str, Any]:
    """Means over heads in the place of heads: one value a layer."""
    return {
        "num_images": spec.probe_images,
        **{
            name: [[value] for value in attention[f"{name}_per_layer"]]
            for name in ("entropy", "erf95", "gini")
        },
    }


def _known(value: Any) -> Any:
    """A table's cell as JSON holds it: unknown is null, whole numbers are integers."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if not isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) >= 1 else value
    return value
