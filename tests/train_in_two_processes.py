"""One of the processes of a distributed training; each leaves what it saw in `rank-N.json`.

python train_in_two_processes.py hf_trainer|lightning CLIP_FOLDER OUT
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from small_training import make_monitor, samples

from driftscope.monitor import Monitor, Selection

# Within a point of the best the first epoch's model stays the best; two more, and patience ends.
ACCURACIES = [0.80, 0.805, 0.803, 0.804, 0.805]


def main(trainer: str, clip_folder: str, out: Path) -> None:
    monitor = make_monitor(
        clip_folder, out=out / "monitored", selection=Selection(patience=2), echo=print
    )
    run = {"hf_trainer": with_hf_trainer, "lightning": with_lightning}[trainer]
    seen = run(monitor, clip_folder, out)
    rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
    seen["observed"] = [one.step for one in monitor.history]
    (out / f"rank-{rank}.json").write_text(json.dumps(seen))


def with_hf_trainer(monitor: Monitor, clip_folder: str, out: Path) -> dict[str, Any]:
    from test_hf_trainer import make_trainer, scripted_accuracies, watch

    from driftscope.integrations.hf_trainer import CHOICE

    torch.manual_seed(0)
    from small_training import classifier

    trainer = make_trainer(
        classifier(clip_folder),
        out / "trained",
        num_train_epochs=len(ACCURACIES),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model=CHOICE,
        ddp_find_unused_parameters=True,  # the text tower gives no gradient
    )
    scripted_accuracies(trainer, *ACCURACIES)
    watch(trainer, monitor).train()
    return {
        "processes": trainer.args.world_size,
        "steps": trainer.state.global_step,
        "best": trainer.state.best_global_step,
        "weight_sum": float(trainer.model.head.weight.double().sum()),
    }


def with_lightning(monitor: Monitor, clip_folder: str, out: Path) -> dict[str, Any]:
    from test_lightning import Module, fit, make_trainer

    from driftscope.integrations.lightning import MonitorCallback

    trainer = make_trainer(
        out / "trained",
        MonitorCallback(monitor, accuracy_metric="val_accuracy"),
        max_epochs=len(ACCURACIES),
        strategy="ddp_find_unused_parameters_true",
        devices=2,
    )
    fit(trainer, Module(Path(clip_folder), *ACCURACIES))
    return {
        "processes": trainer.world_size,
        "steps": trainer.global_step,
        "drift": float(trainer.callback_metrics["driftscope/embedding_drift"]),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    assert len(samples()) % 2 == 0
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
