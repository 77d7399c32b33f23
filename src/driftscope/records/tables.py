"""The tables a study's records make; their columns are documented in `records.columns`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from driftscope.records.columns import (
    DRIFT_SCALARS,
    HEAD_COLUMNS,
    HISTORY_COLUMNS,
    LAYER_COLUMNS,
    RUN_COLUMNS,
    typed,
)
from driftscope.records.folder import RunRecord

if TYPE_CHECKING:
    import pandas as pd


def runs_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run. Signals are those at the protocol's reporting point (`structure_point`)."""
    import pandas as pd

    return typed(pd.DataFrame([_run_row(record) for record in records]), RUN_COLUMNS)


def history_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run and probe: losses, validation accuracy and every scalar signal."""
    import pandas as pd

    rows = [
        {
            **_keys(record),
            **{k: v for k, v in event.items() if k != "kind" and not isinstance(v, list | dict)},
        }
        for record in records
        for event in record.events
        if event.get("kind") in ("epoch", "probe")
    ]
    return typed(pd.DataFrame(rows), HISTORY_COLUMNS)


def layers_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run and layer (1…L): entropy in nats and the per-layer drifts, as reported."""
    import pandas as pd

    return typed(
        pd.DataFrame([row for record in records for row in _layer_rows(record)]), LAYER_COLUMNS
    )


def heads_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """One row a run, layer and head: the readings before and after; the layer's CKA beside."""
    import pandas as pd

    return typed(
        pd.DataFrame([row for record in records for row in _head_rows(record)]), HEAD_COLUMNS
    )


def structure_point(record: RunRecord) -> dict[str, Any]:
    """Where structure is read: the last epoch under `paper`, else the selected one.

    Empty for a run that diverged before it had one.
    """
    return record.result["last" if record.spec.protocol == "paper" else "selected"] or {}


def _keys(record: RunRecord) -> dict[str, Any]:
    spec = record.spec
    return {
        "run_id": record.id,
        "dataset": spec.dataset,
        "method": spec.method.label,
        "learning_rate": spec.learning_rate,
        "seed": spec.seed,
    }


def _run_row(record: RunRecord) -> dict[str, Any]:
    spec, result = record.spec, record.result
    selected = result["selected"] or {}  # a run that diverged in its first epoch has none
    drift = structure_point(record).get("drift", {})
    main_transfer = spec.transfer[0] if spec.transfer else None
    score = selected.get("transfer", {}).get(main_transfer, {})
    before = result["pretrained"]["transfer"].get(main_transfer, {})
    epochs = [event for event in record.events if event.get("kind") == "epoch"]
    return {
        **_keys(record),
        "model": spec.model,
        "method_kind": spec.method.kind,
        "regularizer": spec.regularizer_label,
        # the splits of an imported record are not ours, so no seed of ours makes them
        "data_seed": spec.data_seed if record.origin == "run" else None,
        "protocol": spec.protocol,
        "epochs": spec.epochs,
        "batch_size": spec.batch_size,
        "weight_decay": spec.weight_decay,
        "status": result["status"],
        "origin": record.origin,
        "num_runs": 1,
        "selected_epoch": selected.get("epoch"),
        "train_loss": epochs[-1]["train_loss"] if epochs else None,
        "val_accuracy_pct": selected.get("val_accuracy_pct"),
        "test_accuracy_pct": selected.get("test_accuracy_pct"),
        "test_num_images": selected.get("test_num_images"),
        "transfer": main_transfer,
        "pretrained_zero_shot_pct": before.get("accuracy_pct"),
        "zero_shot_pct": score.get("accuracy_pct"),
        "zero_shot_num_images": score.get("num_images"),
        "retention_pct": score.get("retention_pct"),
        **{name: drift.get(name) for name in DRIFT_SCALARS},
        "trainable_parameters": result["parameters"]["trainable"],
        "total_parameters": result["parameters"]["total"],
        "wall_seconds": result["wall_seconds"]["total"],
    }


def _layer_rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    point = structure_point(record)
    if not point:
        return
    drift, keys = point["drift"], _keys(record)
    for index, heads in enumerate(point["reading"]["entropy"]):
        yield {
            **keys,
            "layer": index + 1,
            "entropy_nats": sum(heads) / len(heads),
            "delta_entropy_pct": drift["delta_entropy_pct_per_layer"][index],
            "delta_erf95_pct": drift["delta_erf95_pct_per_layer"][index],
            "delta_gini_pct": drift["delta_gini_pct_per_layer"][index],
            **_cka(drift, index),
        }


def _head_rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    point = structure_point(record)
    if not point:
        return
    keys, after, before = _keys(record), point["reading"], record.result["pretrained"]["reading"]
    of_heads = record.origin == "run"  # imported records hold means over heads
    for layer, heads in enumerate(after["entropy"]):
        cka = _cka(point["drift"], layer)
        for head in range(len(heads)):
            yield {
                **keys,
                "layer": layer + 1,
                "head": head + 1 if of_heads else None,
                "entropy_nats": after["entropy"][layer][head],
                "erf95": after["erf95"][layer][head],
                "gini": after["gini"][layer][head],
                "pretrained_entropy_nats": before["entropy"][layer][head],
                "pretrained_erf95": before["erf95"][layer][head],
                "pretrained_gini": before["gini"][layer][head],
                **cka,
            }


def _cka(drift: dict[str, Any], layer: int) -> dict[str, float | None]:
    def at(name: str) -> float | None:
        values: Sequence[float] | None = drift.get(name)
        return None if values is None else values[layer]

    return {"cka": at("cka_per_block"), "cka_debiased": at("cka_debiased_per_block")}
