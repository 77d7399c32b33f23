"""What trainers write on this disk, read back: TensorBoard, MLflow, offline runs of W&B."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

MLFLOW_EXPERIMENT = "small"


def tensorboard_scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every scalar of the one event file below a folder: (step, value) by tag."""
    (file,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(file), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def wandb_history(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Every number of the one offline run below a folder: (the Trainer's step, value) by name."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    (file,) = (file for file in folder.rglob("run-*.wandb") if "latest-run" not in file.parts)
    store = DataStore()
    store.open_for_scan(str(file))
    found: dict[str, list[tuple[int, float]]] = {}
    while (data := store.scan_data()) is not None:
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        row = {
            ".".join(item.nested_key) or item.key: json.loads(item.value_json)
            for item in record.history.item
        }
        for name, value in row.items():
            if "train/global_step" in row and isinstance(value, int | float):
                found.setdefault(name, []).append((row["train/global_step"], value))
    return found


@contextmanager
def local_mlflow(folder: Path, monkeypatch: Any) -> Iterator[str]:
    """The address of a fresh SQLite store, which MLflow is pointed at meanwhile."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", MLFLOW_EXPERIMENT)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        yield uri
    finally:
        mlflow.set_tracking_uri(before)


def mlflow_metric(uri: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of a metric in the only run of a store's experiment."""
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name(MLFLOW_EXPERIMENT)
    (run,) = client.search_runs([experiment.experiment_id])
    history = client.get_metric_history(run.info.run_id, name)
    return sorted((metric.step, metric.value) for metric in history)
