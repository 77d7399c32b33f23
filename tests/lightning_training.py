"""Small trainings by a Lightning Trainer."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from small_training import BATCH, classifier, samples
from torch.utils.data import DataLoader


class Module(LightningModule):
    """A classifier whose validation accuracy is scripted, an entry a validation."""

    def __init__(self, clip_folder: Path, *accuracies: float, logs_late: bool = False) -> None:
        super().__init__()
        self.net = classifier(clip_folder)
        self.accuracies = list(accuracies)
        self.logs_late = logs_late

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        return self.net(**batch)["loss"]

    def validation_step(self, batch: Any, _: int) -> None:
        if self.accuracies and not self.logs_late:
            self.log("val_accuracy", self.accuracies.pop(0))

    def on_validation_epoch_end(self) -> None:
        if self.accuracies and self.logs_late:
            self.log("val_accuracy", self.accuracies.pop(0))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def make_trainer(out: Path, *callbacks: Any, **settings: Any) -> Trainer:
    return Trainer(
        default_root_dir=out,
        callbacks=list(callbacks),
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            **settings,
        },
    )


def loaders() -> tuple[DataLoader[Any], DataLoader[Any]]:
    order = torch.Generator().manual_seed(5)
    training = DataLoader(samples(), BATCH, shuffle=True, generator=order)  # type: ignore[arg-type]
    return training, DataLoader(samples(count=3), 3)  # type: ignore[arg-type]


def fit(trainer: Trainer, module: LightningModule, **settings: Any) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*")
        trainer.fit(module, *loaders(), **settings)
