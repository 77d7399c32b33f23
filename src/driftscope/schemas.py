"""JSON schemas of specs and reports, projected from the models that read them and from `METRICS`.

An editor completes and checks a spec by them; other programs know by them what a report holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field

from driftscope.analysis.advice import Outcome
from driftscope.analysis.calibration import Forecast
from driftscope.config import RunSpec, StudySpec
from driftscope.config.explain import METHOD_KINDS, part_names
from driftscope.errors import RecordError, shown
from driftscope.files import named_path
from driftscope.metrics import numbers_schema
from driftscope.records import REPORT_FILE, RESULT_FILE, read_sealed
from driftscope.records.schema import (
    Part,
    RescuedFrom,
    StoredDrift,
    StoredEstimate,
    StoredReading,
    parse,
)
from driftscope.records.watched_schema import Alert, ComparedScore, Report, Scalars

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class _StoredAdvice(Part):
    """What to do: a verdict, and next steps."""

    outcome: Outcome
    verdict: str
    steps: list[str]


class _Recall(Part):
    """How often the right one is found, one way."""

    model_config = ConfigDict(extra="allow")

    recall_at_1_pct: float
    recall_at_5_pct: float
    recall_at_10_pct: float
    wilson_low_pct: float
    wilson_high_pct: float
    chance_at_1_pct: float
    num_queries: int
    num_candidates: int


class _Recalls(Part):
    """Recall both ways."""

    model_config = ConfigDict(extra="allow")

    image_to_text: _Recall
    text_to_image: _Recall


class _ComparedRecalls(_Recalls):
    """Recall both ways, beside the pretrained model's."""

    pretrained: _Recalls


class _ToldEstimate(StoredEstimate):
    """Retention without labels, with the sentence that says it."""

    sentence: str


class _ToldForecast(Forecast):
    """Retention by a calibration, with the sentence that says it."""

    sentence: str


class ComparisonReport(Report):
    """`report.json` of `driftscope compare`, and what `--json` prints."""

    kind: Literal["comparison"]
    pretrained: str
    adapted: str
    images: str
    num_images: int
    skipped_images: list[str]
    notes: list[str]
    reading_pretrained: StoredReading
    reading_adapted: StoredReading
    drift: StoredDrift
    stability: dict[str, Any]
    intruder_dimensions_per_layer: list[int] | None
    transfer: dict[str, ComparedScore]
    retrieval: dict[str, _ComparedRecalls]
    own_classes: dict[str, Any] | None = None
    estimate: _ToldEstimate | None = None
    forecast: _ToldForecast | None
    suites: dict[str, dict[str, Any]]
    text_vocabulary: str
    doubts: list[str] = Field(default_factory=list)
    """Why all of it may mean something else."""
    images_are_labeled: bool = False
    split_of: str | None = None
    """The folder of which the images are one split."""
    rescued_from: RescuedFrom | None = None
    report: str | None = None
    """The folder that it was written to, as it was named."""
    advice: _StoredAdvice
    units: dict[str, str]


class MonitorReport(Report):
    """`report.json` of a monitored training."""

    version: Literal[1] = Field(alias="schema")
    kind: Literal["monitor"]
    driftscope: str
    latest: Scalars
    suites: dict[str, dict[str, Any]]
    alerts: list[Alert]
    stopped: str | None
    cost_seconds: float
    cost_share_pct: float | None
    monitor: dict[str, Any]
    advice: _StoredAdvice
    units: dict[str, str]


def read_comparison(report: Path) -> dict[str, Any]:
    """What a comparison's `report.json` holds, looked through.

    Args:
        report: the file, or the folder that holds it.

    Raises:
        RecordError: there is none, it is damaged, was changed, or is of something else.
    """
    path = named_path(report)
    file = path / REPORT_FILE if path.is_dir() else path
    if path.is_dir() and not file.exists():
        what = "a run" if (path / RESULT_FILE).exists() else "no comparison"
        raise RecordError(
            f"{path} is {what} (it has no {REPORT_FILE}); compare first: driftscope compare BEFORE "
            "AFTER --images IMAGES, where AFTER may be a run's folder"
        )
    values, was_changed = read_sealed(file)
    if values.get("kind") != "comparison":
        raise RecordError(
            f"{file} is no comparison (its kind is {shown(values.get('kind'))}); give the folder "
            "that driftscope compare wrote"
        )
    if was_changed:
        raise RecordError(f"{file} was changed after it was written; compare again")
    parse(ComparisonReport, values, file)
    return values


def run_schema() -> dict[str, Any]:
    """Of a run's YAML."""
    return {"$schema": DIALECT, **RunSpec.model_json_schema()}


def study_schema() -> dict[str, Any]:
    """Of a study's YAML.

    What an axis gives may be missing in `base`, so no part of a run is required here; `driftscope
    study plan` checks every run whole.
    """
    run, schema = RunSpec.model_json_schema(), StudySpec.model_json_schema()
    keys = {
        name: {key: value for key, value in one.items() if key != "default"}
        for name, one in run["properties"].items()
    }
    keys["method"] = {"anyOf": [*keys["method"]["anyOf"], {"enum": list(METHOD_KINDS)}]}
    keys |= {key: {} for key in part_names()}
    lists = {name: {"type": "array", "minItems": 1, "items": one} for name, one in keys.items()}
    named = _object({key: {} for key in keys})
    schema["$defs"] |= {name: _with_parts_missing(one) for name, one in run["$defs"].items()}
    schema["$defs"]["Override"]["properties"]["set"] = {**_object(keys), "minProperties": 1}
    schema["properties"] |= {
        "base": _object(keys),
        "axes": _object(lists),
        "extra": {"type": "array", "items": named},
        "exclude": {"type": "array", "items": named},
        "extends": {
            "type": "string",
            "description": "Another study, by its file or by the name of a shipped one.",
        },
    }
    return {"$schema": DIALECT, **schema}


def report_schema() -> dict[str, Any]:
    """Of the `report.json` of a comparison or a monitored training, told apart by `kind`."""
    kinds: dict[str, Any] = {}
    parts: dict[str, Any] = {"Numbers": numbers_schema()}
    for model in (ComparisonReport, MonitorReport):
        kinds[model.__name__] = own = model.model_json_schema(ref_template="#/$defs/{model}")
        parts |= own.pop("$defs")
    for one in (*kinds.values(), parts["Scalars"]):
        one["properties"]["scalars"] = {"$ref": "#/$defs/Numbers"}
    del parts["Numbers"]["$schema"]
    return {
        "$schema": DIALECT,
        "title": "A driftscope report",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in kinds],
        "$defs": {**parts, **kinds},
    }


SCHEMAS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "run": run_schema,
    "study": study_schema,
    "report": report_schema,
}
"""What has a schema, and how it is made."""


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _with_parts_missing(variant: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in variant.items() if key != "required"}
