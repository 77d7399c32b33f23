"""What a run's folder holds of a record as the authors wrote it.

What the record does not say is left out, never filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from driftscope.config import RunSpec
from driftscope.paper.author_records import (
    corrupted_accuracies_pct,
    history_rows,
    layer_rows,
    transfer_scores,
)
from driftscope.records import DRIFT_SCALARS
from driftscope.records.schema import SCHEMA_VERSION


def stored_events(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The record's epochs as events of a run."""
    return [
        {
            "kind": "epoch",
            **{key: stored(value) for key, value in row.items() if key in _EVENT_KEYS},
        }
        for row in history_rows(record)
    ]


_EVENT_KEYS = (
    *("epoch", "step", "train_loss", "train_accuracy_pct", "val_accuracy_pct", "retention_pct"),
    *DRIFT_SCALARS,
)


def stored_result(
    row: Mapping[str, Any], record: Mapping[str, Any], spec: RunSpec
) -> dict[str, Any]:
    """The record as a run's result.

    Args:
        row: the record's row of the runs table.
        record: as its authors wrote it.
        spec: the record's.
    """
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


def stored(value: Any) -> Any:
    """A table's cell as JSON holds it: unknown is null, whole numbers are integers."""
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if not isfinite(value):
            return None
        return int(value) if value.is_integer() and abs(value) >= 1 else value
    return value
