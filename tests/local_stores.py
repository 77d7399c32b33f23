"""TensorBoard event files and an MLflow store on this disk, written by trainers and read back."""

from __future__ import annotations

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
