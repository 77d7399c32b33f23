"""The authors' records made a study folder, so that everything reads them like our own runs.

What a record does not say is left out, never filled in; `origin` in each result names the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from driftscope.config import StudySpec
from driftscope.errors import RecordError
from driftscope.files import inner_folder
from driftscope.paper.author_records import Imported, import_records, run_spec
from driftscope.paper.stored_records import stored, stored_events, stored_result
from driftscope.records import (
    EVENTS_FILE,
    RUNS_FOLDER,
    SPEC_FILE,
    read_json,
    write_json,
    write_result,
    write_whole,
)
from driftscope.records.schema import CellMeans, parse
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
        values = {str(key): stored(value) for key, value in row.items()}
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
    lines = "".join(json.dumps(event) + "\n" for event in stored_events(record))
    write_whole(folder / EVENTS_FILE, lines.encode())
    write_json(folder / AUTHORS_FILE, record)
    write_result(folder, stored_result(row, record, spec))
