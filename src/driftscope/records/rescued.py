"""What the note beside a rescued model tells of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from driftscope.errors import RecordError
from driftscope.files import named_path
from driftscope.records.file_names import ADAPTED_FOLDER, RESCUE_FILE
from driftscope.records.json_files import read_json
from driftscope.records.schema import RescuedFrom


def rescued_from(model: str) -> RescuedFrom | None:
    """Of what a rescue made a model, and how; None for every other one, or a damaged note.

    Args:
        model: a folder, a run's model in it, or a file in it, as a command names it.
    """
    note = _note_beside(named_path(model.rpartition(":")[2]))
    if note is None:
        return None
    try:
        told = read_json(note)
        return RescuedFrom.model_validate(
            {
                **told["models"],
                "keep_pct": told["keep_pct"],
                "class_names": tuple(told.get("class_names") or ()),
                **(told.get("asked") or {}),
            }
        )
    except (RecordError, ValidationError, KeyError, TypeError):
        return None


def _note_beside(place: Path) -> Path | None:
    try:
        is_within = place.is_file() or place.name == ADAPTED_FOLDER
        note = (place.parent if is_within else place) / RESCUE_FILE
        return note if note.is_file() else None
    except (OSError, ValueError):
        return None
