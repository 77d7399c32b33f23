"""Small trainings by a transformers Trainer, with a monitor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from small_training import BATCH, samples
from transformers import Trainer, TrainingArguments

from driftscope.integrations.hf_trainer import MonitorCallback
from driftscope.monitor import Monitor


def make_trainer(model: Any, out: Path, size: int = 32, **settings: Any) -> Trainer:
    arguments = TrainingArguments(
        str(out),
        **{
            "num_train_epochs": 2,
            "per_device_train_batch_size": BATCH,
            "learning_rate": 1e-3,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": True,
            **settings,
        },
    )
    return Trainer(
        model,
        arguments,
        train_dataset=samples(size),
        eval_dataset=samples(size, 6),
        compute_metrics=lambda seen: {
            "accuracy": float((np.argmax(seen[0], axis=-1) == seen[1]).mean())
        },
    )


def watch(trainer: Trainer, monitor: Monitor, **settings: Any) -> Trainer:
    trainer.add_callback(MonitorCallback(monitor, trainer, **settings))
    return trainer


def scripted_accuracies(trainer: Trainer, *values: float) -> None:
    """Makes the evaluations report these accuracies, one after the other."""
    remaining = iter(values)
    trainer.compute_metrics = lambda _: {"accuracy": next(remaining)}
